//! What `#[cache(…)]` on an entity says.

use proc_macro2::{Ident, Span, TokenStream};
use quote::quote;
use syn::meta::ParseNestedMeta;
use syn::{Attribute, Expr, LitInt, LitStr, Path, Result};

use crate::duration::Life;
use crate::meta::{once, tags};
use crate::problems::Problems;
use crate::template::Template;

const KNOWN: &str = "`prefix`, `ttl`, `tags`, `version`, `codec`, `policy`, `validate` and `never_stale`";

#[derive(Default)]
pub(super) struct Attributes {
    pub(super) prefix: Option<String>,
    ttl: Option<Life>,
    pub(super) tags: Vec<Template>,
    pub(super) version: Option<u32>,
    pub(super) codec: Option<Codec>,
    policy: Option<Expr>,
    pub(super) validate: Option<Path>,
    pub(super) never_stale: bool,
}

/// The format that entities of a kind are stored in.
pub(crate) struct Codec {
    pub(crate) format: Format,
    pub(crate) span: Span,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Postcard,
    MessagePack,
    Json,
}

impl Codec {
    fn parse(text: &LitStr) -> Result<Self> {
        let format = match text.value().as_str() {
            "postcard" => Format::Postcard,
            "msgpack" => Format::MessagePack,
            "json" => Format::Json,
            other => {
                return Err(syn::Error::new(
                    text.span(),
                    format!("{other:?} is no codec; the codecs are \"postcard\", \"msgpack\" and \"json\""),
                ));
            }
        };
        Ok(Self { format, span: text.span() })
    }

    /// Whether it writes the names of fields and variants.
    pub(crate) fn has_names(&self) -> bool {
        self.format != Format::Postcard
    }

    /// The function that answers with it; there only if its feature is on.
    pub(crate) fn function(&self) -> &'static str {
        match self.format {
            Format::Postcard => "postcard",
            Format::MessagePack => "msgpack",
            Format::Json => "json",
        }
    }
}

impl Attributes {
    pub(super) fn of(attributes: &[Attribute], name: &Ident, problems: &mut Problems) -> Self {
        let mut found = Self::default();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("cache")) {
            problems.take(attribute.parse_nested_meta(|meta| found.read(&meta)));
        }
        if found.prefix.is_none() {
            problems.add(
                name.span(),
                format_args!(
                    "an entity has a prefix, which sets its keys apart from those of others: add `#[cache(prefix = \"{}\")]`",
                    name.to_string().to_lowercase()
                ),
            );
        }
        found
    }

    fn read(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        let Some(name) = meta.path.get_ident().map(ToString::to_string) else {
            return Err(meta.error(format!("not known here; an entity has {KNOWN}")));
        };
        match name.as_str() {
            "prefix" => once(&mut self.prefix, prefix(&meta.value()?.parse()?)?, meta),
            "ttl" => once(&mut self.ttl, Life::parse(&meta.value()?.parse()?)?, meta),
            "version" => once(&mut self.version, meta.value()?.parse::<LitInt>()?.base10_parse()?, meta),
            "codec" => once(&mut self.codec, Codec::parse(&meta.value()?.parse()?)?, meta),
            "policy" => once(&mut self.policy, meta.value()?.parse()?, meta),
            "validate" => once(&mut self.validate, meta.value()?.parse()?, meta),
            "tags" => {
                self.tags.extend(tags(meta)?);
                Ok(())
            }
            "never_stale" => {
                self.never_stale = true;
                Ok(())
            }
            "key" => Err(meta.error("the key is said at its field: write `#[cache(key)]` above the field, or above each field of a key of several")),
            _ => Err(meta.error(format!("`{name}` is not known here; an entity has {KNOWN}"))),
        }
    }

    /// The method that says what is different for entities of this kind.
    pub(super) fn policy(&self) -> Option<TokenStream> {
        if self.policy.is_none() && self.ttl.is_none() {
            return None;
        }
        let base = self.policy.as_ref().map_or_else(
            || quote!(<::cache_kit::PolicyOverrides as ::core::default::Default>::default()),
            |policy| quote!((#policy)),
        );
        let life = self.ttl.map(Life::setter);
        Some(quote! {
            fn cache_policy() -> ::cache_kit::PolicyOverrides {
                #base #life
            }
        })
    }
}

/// The codec in `#[cache(codec = "…")]` of a type that is a part of others.
pub(crate) fn codec_of(attributes: &[Attribute], problems: &mut Problems) -> Option<Codec> {
    let mut codec = None;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("cache")) {
        problems.take(attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("codec") {
                return Err(meta.error("not known here; a type with a schema has `codec`"));
            }
            once(&mut codec, Codec::parse(&meta.value()?.parse()?)?, &meta)
        }));
    }
    codec
}

fn prefix(text: &LitStr) -> Result<String> {
    let value = text.value();
    if value.is_empty() {
        return Err(syn::Error::new(
            text.span(),
            "the prefix is empty; name the kind of entity, such as \"user\"",
        ));
    }
    Ok(value)
}
