//! `CacheSchema`: a fingerprint of what a type looks like when it is stored.

use std::collections::BTreeMap;

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::visit::{Visit, visit_type_path};
use syn::{Attribute, Data, DeriveInput, Field, Fields, GenericParam, Result, TypePath};

use crate::entity::{Codec, codec_of};
use crate::problems::Problems;
use crate::serde_attributes;
use crate::tokens::{canonical, fnv1a};

/// `#[derive(CacheSchema)]`.
pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let mut problems = Problems::default();
    let codec = codec_of(&input.attrs, &mut problems);
    let expanded = implementation(input, codec.as_ref(), &mut problems);
    problems.into_result()?;
    Ok(expanded)
}

/// The implementation of `CacheSchema`; what the codec cannot read back is a problem.
pub(crate) fn implementation(
    input: &DeriveInput,
    codec: Option<&Codec>,
    problems: &mut Problems,
) -> TokenStream {
    serde_attributes::check(input, codec, problems);
    let name = &input.ident;
    let (generics, arguments, conditions) = input.generics.split_for_impl();
    let own = fnv1a(&description(input));
    let parts: Vec<_> = Parts::of(input).0.into_values().collect();
    let own_need = codec.is_some_and(Codec::has_names);
    quote! {
        #[automatically_derived]
        impl #generics ::cache_kit::CacheSchema for #name #arguments #conditions {
            const SCHEMA: u64 = {
                // Found where a type has a schema; without one, its name is all that is known of it.
                #[allow(unused_imports)]
                use ::cache_kit::macro_support::WithoutSchema as _;
                let schema = #own;
                #(let schema = ::cache_kit::macro_support::mixed(schema, ::cache_kit::macro_support::Schema::<#parts>::OF);)*
                schema
            };
            const NEEDS_NAMES: bool = {
                #[allow(unused_imports)]
                use ::cache_kit::macro_support::WithoutSchema as _;
                #own_need #(|| ::cache_kit::macro_support::Schema::<#parts>::NEEDS_NAMES)*
            };
        }
    }
}

/// Everything that decides how a value is stored, as text.
fn description(input: &DeriveInput) -> String {
    let mut text = String::new();
    write_attributes(&input.attrs, &mut text);
    match &input.data {
        Data::Struct(data) => write_fields(&data.fields, &mut text),
        Data::Enum(data) => {
            for variant in &data.variants {
                write_attributes(&variant.attrs, &mut text);
                text.push_str(&variant.ident.to_string());
                write_fields(&variant.fields, &mut text);
            }
        }
        // Serde derives nothing for a union.
        Data::Union(_) => {}
    }
    text
}

fn write_fields(fields: &Fields, text: &mut String) {
    let (open, close) = match fields {
        Fields::Named(_) => ("{", "}"),
        Fields::Unnamed(_) => ("(", ")"),
        Fields::Unit => (";", ""),
    };
    text.push_str(open);
    for field in fields {
        write_attributes(&field.attrs, text);
        if let Some(name) = &field.ident {
            text.push_str(&name.to_string());
        }
        text.push(':');
        text.push_str(&canonical(field.ty.to_token_stream()));
        text.push(',');
    }
    text.push_str(close);
}

fn write_attributes(attributes: &[Attribute], text: &mut String) {
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        text.push('#');
        text.push_str(&canonical(attribute.meta.to_token_stream()));
    }
}

/// The types that the fields are made of, each once, by their text: what may have a schema of its own.
struct Parts(BTreeMap<String, TokenStream>);

impl Parts {
    fn of(input: &DeriveInput) -> Self {
        let mut parts = Collected { found: BTreeMap::new(), skipped: Vec::new() };
        parts.skipped.push(input.ident.to_string());
        parts.skipped.push("Self".to_owned());
        // What a parameter stands for is not known here.
        parts.skipped.extend(input.generics.params.iter().filter_map(|parameter| match parameter {
            GenericParam::Type(parameter) => Some(parameter.ident.to_string()),
            GenericParam::Const(parameter) => Some(parameter.ident.to_string()),
            GenericParam::Lifetime(_) => None,
        }));
        let fields: Vec<&Field> = match &input.data {
            Data::Struct(data) => data.fields.iter().collect(),
            Data::Enum(data) => data.variants.iter().flat_map(|variant| &variant.fields).collect(),
            Data::Union(_) => Vec::new(),
        };
        for field in fields.into_iter().filter(|field| !is_opaque(field)) {
            parts.visit_type(&field.ty);
        }
        Self(parts.found)
    }
}

struct Collected {
    found: BTreeMap<String, TokenStream>,
    skipped: Vec<String>,
}

impl<'ast> Visit<'ast> for Collected {
    fn visit_type_path(&mut self, path: &'ast TypePath) {
        let tokens = path.to_token_stream();
        if !names_any(&tokens, &self.skipped) && !has_lifetime(&path.path) {
            self.found.insert(canonical(tokens.clone()), tokens);
        }
        visit_type_path(self, path);
    }
}

/// A type that mentions itself has no end, and one with a parameter is not known.
fn names_any(tokens: &TokenStream, names: &[String]) -> bool {
    tokens.clone().into_iter().any(|token| match token {
        proc_macro2::TokenTree::Group(group) => names_any(&group.stream(), names),
        proc_macro2::TokenTree::Ident(ident) => names.iter().any(|name| ident == name),
        _ => false,
    })
}

fn has_lifetime(path: &syn::Path) -> bool {
    canonical(path.to_token_stream()).contains('\'')
}

fn is_opaque(field: &Field) -> bool {
    let mut opaque = false;
    for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("cache")) {
        // What else it says is read, and complained about, where the key is looked for.
        let _ = attribute.parse_nested_meta(|meta| {
            opaque |= meta.path.is_ident("opaque");
            Ok(())
        });
    }
    opaque
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn parsed(text: &str) -> DeriveInput {
        syn::parse_str(text).unwrap()
    }

    #[test]
    fn whatever_changes_the_stored_shape_changes_the_description() {
        let shapes = [
            "struct A { a: u8 }",
            "struct A { a: u16 }",
            "struct A { b: u8 }",
            "struct A { a: u8, b: u8 }",
            "struct A { b: u8, a: u8 }",
            "struct A(u8);",
            "struct A;",
            "struct A { #[serde(rename = \"b\")] a: u8 }",
            "struct A { #[serde(skip)] a: u8 }",
            "#[serde(rename_all = \"camelCase\")] struct A { a: u8 }",
            "enum A { A }",
            "enum A { A, B }",
            "enum A { A(u8) }",
            "enum A { A { a: u8 } }",
            "enum A { #[serde(rename = \"a\")] A }",
        ];
        let described: BTreeSet<_> = shapes.iter().map(|shape| description(&parsed(shape))).collect();
        assert_eq!(described.len(), shapes.len());
    }

    #[test]
    fn what_is_not_stored_does_not_count() {
        let plain = description(&parsed("struct A { a: Vec<u8> }"));
        for same in [
            "/// Documented.\n#[derive(Debug)] pub(crate) struct A { /// So is this.\n pub a: Vec < u8 > }",
            "#[cache(prefix = \"a\")] struct A { #[cache(key)] a: Vec<u8> }",
        ] {
            assert_eq!(description(&parsed(same)), plain, "{same}");
        }
    }

    #[test]
    fn the_types_within_are_found_once_and_never_the_type_itself() {
        let input = parsed(
            "struct Node<T> { next: Option<Box<Node<T>>>, at: geo::Point, all: HashMap<String, Vec<Item>>, of: T, #[cache(opaque)] x: Other }",
        );
        let parts: Vec<_> = Parts::of(&input).0.into_keys().filter(|part| !part.contains('<')).collect();
        assert_eq!(parts, ["Item", "String", "geo : : Point"]);
    }

    #[test]
    fn types_that_borrow_are_left_out() {
        assert!(
            Parts::of(&parsed("struct A<'a> { a: Cow<'a, str> }")).0.keys().all(|part| !part.contains('\''))
        );
    }
}
