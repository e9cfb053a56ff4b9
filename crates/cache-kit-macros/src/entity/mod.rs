//! `#[derive(CacheEntity)]`.

mod attributes;
mod key;

use proc_macro2::{Ident, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Data, DeriveInput, Error, Fields, Member, Result};

use self::attributes::Attributes;
pub(crate) use self::attributes::{Codec, codec_of};
use self::key::Key;
use crate::problems::Problems;
use crate::schema;
use crate::template::Template;

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let fields = fields_of(input)?;
    let mut problems = Problems::default();
    let attributes = Attributes::of(&input.attrs, &input.ident, &mut problems);
    let key = Key::of(fields, &input.ident, &mut problems);
    for tag in &attributes.tags {
        check_places(tag, fields, &input.ident, &mut problems);
    }
    let schema = schema::implementation(input, attributes.codec.as_ref(), &mut problems);
    problems.into_result()?;
    // Both are there where nothing was found to be wrong.
    let (Some(prefix), Some(key)) = (&attributes.prefix, key) else { return Ok(TokenStream::new()) };
    Ok(implementation(input, prefix, &attributes, &key, &schema))
}

fn fields_of(input: &DeriveInput) -> Result<&Fields> {
    match &input.data {
        Data::Struct(data) => Ok(&data.fields),
        _ => Err(Error::new(
            input.ident.span(),
            "an entity is a struct that holds its key; implement `CacheEntity` by hand, or wrap this in a struct with a key",
        )),
    }
}

fn check_places(tag: &Template, fields: &Fields, name: &Ident, problems: &mut Problems) {
    for place in tag.places() {
        if !fields.members().any(|member| member == place.root) {
            let known: Vec<_> = fields.members().map(|member| shown(&member)).collect();
            problems.add(
                tag.span(),
                format_args!(
                    "`{{{}}}` is no field of `{name}`; its fields are {}",
                    place.name(),
                    known.join(", ")
                ),
            );
        }
    }
}

fn shown(member: &Member) -> String {
    match member {
        Member::Named(name) => format!("`{name}`"),
        Member::Unnamed(index) => format!("`{}`", index.index),
    }
}

fn implementation(
    input: &DeriveInput,
    prefix: &str,
    attributes: &Attributes,
    key: &Key<'_>,
    schema: &TokenStream,
) -> TokenStream {
    let name = &input.ident;
    let (generics, arguments, conditions) = input.generics.split_for_impl();
    let (key_type, key_value) = (key.type_of(), key.value());
    let key_checks = key.checks(&input.generics);
    let version = attributes.version.map(|version| quote!(fn cache_version() -> u32 { #version }));
    let codec = attributes.codec.as_ref().map(|codec| {
        let function = Ident::new(codec.function(), codec.span);
        quote_spanned! {codec.span=>
            fn cache_codec() -> ::core::option::Option<::cache_kit::Codec> {
                ::core::option::Option::Some(::cache_kit::macro_support::codec::#function())
            }
        }
    });
    let policy = attributes.policy();
    let never_stale = attributes.never_stale.then(|| {
        quote!(
            fn may_be_stale() -> bool {
                false
            }
        )
    });
    let tags = (!attributes.tags.is_empty()).then(|| {
        let base = quote!(self.);
        let tags = attributes.tags.iter().map(|tag| tag.expression(&base));
        quote! {
            fn cache_tags(&self) -> ::std::vec::Vec<::std::string::String> {
                ::std::vec![#(#tags),*]
            }
        }
    });
    let validate = attributes
        .validate
        .as_ref()
        .map(|function| quote!(fn validate(&self) -> ::cache_kit::Result<()> { #function(self) }));
    let names_are_there = check_names(input, attributes);
    quote! {
        #schema
        #names_are_there

        #[automatically_derived]
        impl #generics ::cache_kit::CacheEntity for #name #arguments #conditions {
            type Key = #key_type;

            fn cache_key(&self) -> Self::Key {
                #key_checks
                #key_value
            }

            fn cache_prefix() -> &'static str {
                #prefix
            }

            fn cache_schema() -> u64 {
                <Self as ::cache_kit::CacheSchema>::SCHEMA
            }

            #version
            #codec
            #policy
            #never_stale
            #tags
            #validate
        }
    }
}

/// Postcard stores no names, and a type within the entity may have said that it needs them. What an entity with parameters
/// holds is not known here.
fn check_names(input: &DeriveInput, attributes: &Attributes) -> Option<TokenStream> {
    if attributes.codec.as_ref().is_some_and(Codec::has_names) || !input.generics.params.is_empty() {
        return None;
    }
    let name = &input.ident;
    Some(quote_spanned! {name.span()=>
        const _: () = ::core::assert!(
            !<#name as ::cache_kit::CacheSchema>::NEEDS_NAMES,
            "a type within this entity is to be stored with names, and postcard stores none: write `#[cache(codec = \"msgpack\")]` or `\"json\"` on the entity too"
        );
    })
}
