//! Attributes of serde that a codec accepts and then misreads.

use proc_macro2::Span;
use syn::spanned::Spanned as _;
use syn::{Attribute, Data, DeriveInput, Meta, Token, Variant, punctuated::Punctuated};

use crate::entity::Codec;
use crate::problems::Problems;

/// An attribute, and what becomes of values that have it.
struct Hostile {
    name: &'static str,
    why: &'static str,
    instead: &'static str,
}

const OF_CONTAINERS: [Hostile; 2] = [
    Hostile {
        name: "untagged",
        why: "postcard does not write which variant a value is, and cannot guess it",
        instead: "leave it out",
    },
    Hostile {
        name: "tag",
        why: "postcard does not write names, and cannot look ahead for the tag",
        instead: "leave it out",
    },
];
const OF_FIELDS: [Hostile; 4] = [
    Hostile {
        name: "flatten",
        why: "postcard does not write names, and cannot tell the inner fields from the outer",
        instead: "keep the inner value as a field",
    },
    Hostile {
        name: "skip_serializing_if",
        why: "postcard reads every field, and takes the next one for the one that was left out",
        instead: "store the field always; an empty one takes one byte",
    },
    Hostile {
        name: "skip_serializing",
        why: "postcard reads every field, and takes the next one for the one that was left out",
        instead: "write `skip`, which leaves it out of both",
    },
    Hostile {
        name: "skip_deserializing",
        why: "postcard takes the bytes of the field that is not read for the next one",
        instead: "write `skip`, which leaves it out of both",
    },
];
const OF_VARIANTS: [Hostile; 4] = [
    Hostile {
        name: "skip",
        why: "postcard counts variants, and serde counts a skipped one when it writes and not when it reads",
        instead: "move the variant behind those that are stored",
    },
    Hostile {
        name: "skip_serializing",
        why: "postcard counts variants, and writer and reader must count alike",
        instead: "leave it out",
    },
    Hostile {
        name: "skip_deserializing",
        why: "postcard counts variants, and writer and reader must count alike",
        instead: "leave it out",
    },
    Hostile {
        name: "untagged",
        why: "postcard does not write which variant a value is, and cannot guess it",
        instead: "leave it out",
    },
];

/// Complains about what the codec cannot read back. Only postcard, the default, misreads anything: the others write names.
pub(crate) fn check(input: &DeriveInput, codec: Option<&Codec>, problems: &mut Problems) {
    if codec.is_some_and(Codec::has_names) {
        return;
    }
    complain(&input.attrs, &OF_CONTAINERS, problems);
    match &input.data {
        Data::Struct(data) => {
            data.fields.iter().for_each(|field| complain(&field.attrs, &OF_FIELDS, problems))
        }
        Data::Enum(data) => {
            // Behind all others, a skipped variant changes no count.
            let is_stored = |variant: &Variant| !names(&variant.attrs).iter().any(|(name, _)| name == "skip");
            let stored = data.variants.iter().rposition(is_stored).map_or(0, |last| last + 1);
            data.variants.iter().take(stored).for_each(|variant| check_variant(variant, problems));
        }
        Data::Union(_) => {}
    }
}

fn check_variant(variant: &Variant, problems: &mut Problems) {
    complain(&variant.attrs, &OF_VARIANTS, problems);
    variant.fields.iter().for_each(|field| complain(&field.attrs, &OF_FIELDS, problems));
}

fn complain(attributes: &[Attribute], hostile: &[Hostile], problems: &mut Problems) {
    let names = names(attributes);
    // Both together are `skip`.
    let skipped =
        ["skip_serializing", "skip_deserializing"].map(|half| names.iter().any(|(name, _)| name == half));
    for (name, span) in &names {
        let Some(Hostile { name, why, instead }) = hostile.iter().find(|hostile| hostile.name == name) else {
            continue;
        };
        if skipped == [true, true]
            && name.starts_with("skip_")
            && !hostile.iter().any(|hostile| hostile.name == "skip")
        {
            continue;
        }
        problems.add(
            *span,
            format_args!(
                "`{name}` does not survive in the cache: {why}; {instead}, or store this type with `#[cache(codec = \"msgpack\")]` or `#[cache(codec = \"json\")]`"
            ),
        );
    }
}

/// The names in `#[serde(…)]`, with their places.
fn names(attributes: &[Attribute]) -> Vec<(String, Span)> {
    let mut names = Vec::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        // What serde cannot read it complains about itself.
        let Ok(list) = attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated) else {
            continue;
        };
        names.extend(list.iter().filter_map(|meta| {
            let name = meta.path().get_ident()?;
            Some((name.to_string(), meta.span()))
        }));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(text: &str) -> String {
        let mut problems = Problems::default();
        check(&syn::parse_str(text).unwrap(), None, &mut problems);
        let errors = problems.into_result().err().into_iter().flatten();
        errors.map(|error| error.to_string()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn each_attribute_that_postcard_misreads_is_named_with_a_remedy() {
        for (text, name) in [
            ("#[serde(untagged)] enum A { B }", "`untagged`"),
            ("#[serde(tag = \"t\")] enum A { B }", "`tag`"),
            ("#[serde(tag = \"t\", content = \"c\")] enum A { B }", "`tag`"),
            ("struct A { #[serde(flatten)] a: B }", "`flatten`"),
            ("struct A { #[serde(default, skip_serializing_if = \"x\")] a: B }", "`skip_serializing_if`"),
            ("struct A { #[serde(skip_serializing)] a: B }", "`skip_serializing`"),
            ("struct A { #[serde(skip_deserializing)] a: B }", "`skip_deserializing`"),
            ("enum A { #[serde(skip)] B, C }", "`skip`"),
            ("enum A { B, #[serde(skip)] C, D, #[serde(skip)] E }", "`skip`"),
            ("enum A { #[serde(skip_serializing, skip_deserializing)] B, C }", "`skip_serializing`"),
            ("enum A { B { #[serde(flatten)] c: C } }", "`flatten`"),
        ] {
            let complaints = complaints(text);
            assert!(
                complaints.contains(name) && complaints.contains("codec = \"msgpack\""),
                "{text}: {complaints}"
            );
        }
    }

    #[test]
    fn what_survives_is_left_in_peace() {
        for text in [
            "#[serde(rename_all = \"camelCase\", deny_unknown_fields)] struct A { #[serde(skip)] a: u8, #[serde(default, rename = \"x\")] b: u8 }",
            "struct A { #[serde(skip_serializing, skip_deserializing)] a: u8 }",
            "enum A { #[serde(rename = \"b\", alias = \"c\")] B }",
            "enum A { B, #[serde(skip)] C, #[serde(skip)] D }",
        ] {
            assert_eq!(complaints(text), "", "{text}");
        }
    }
}
