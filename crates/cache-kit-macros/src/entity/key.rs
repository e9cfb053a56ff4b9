//! The key of an entity: one field, or several.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{Field, Fields, Generics, Member};

use crate::problems::Problems;

/// `CompositeKey` is made for so many.
const MOST_FIELDS: usize = 6;

pub(super) struct Key<'a>(Vec<(Member, &'a Field)>);

impl<'a> Key<'a> {
    pub(super) fn of(fields: &'a Fields, name: &Ident, problems: &mut Problems) -> Option<Self> {
        let with_members = || fields.members().zip(fields);
        let mut marked = Vec::new();
        for (member, field) in with_members() {
            if is_marked(field, problems) {
                marked.push((member, field));
            }
        }
        if marked.is_empty() {
            marked.extend(
                with_members().find(|(_, field)| field.ident.as_ref().is_some_and(|name| name == "id")),
            );
        }
        if marked.is_empty() {
            problems.add(
                name.span(),
                format_args!("`{name}` has no key: write `#[cache(key)]` above the field that identifies it, or above each of several"),
            );
            return None;
        }
        if marked.len() > MOST_FIELDS {
            problems.add(
                name.span(),
                format_args!("{} fields are more than the {MOST_FIELDS} of a key; implement `CacheEntity` by hand, with a key type of your own", marked.len()),
            );
            return None;
        }
        Some(Self(marked))
    }

    pub(super) fn type_of(&self) -> TokenStream {
        let types = self.0.iter().map(|(_, field)| &field.ty);
        match self.0.len() {
            1 => quote!(#(#types)*),
            _ => quote!(::cache_kit::CompositeKey<(#(#types),*)>),
        }
    }

    pub(super) fn value(&self) -> TokenStream {
        let values = self.0.iter().map(|(member, field)| {
            let span = field.ty.span().resolved_at(Span::call_site());
            quote_spanned!(span=> ::core::clone::Clone::clone(&self.#member))
        });
        match self.0.len() {
            1 => quote!(#(#values)*),
            _ => quote!(::cache_kit::CompositeKey((#(#values),*))),
        }
    }

    /// Asks of each type what a key must be, so that the error names the field's own type. Types with parameters are left
    /// to the bounds of the trait.
    pub(super) fn checks(&self, generics: &Generics) -> Option<TokenStream> {
        if !generics.params.is_empty() {
            return None;
        }
        let checks = self.0.iter().map(|(_, field)| {
            let ty = &field.ty;
            quote_spanned!(ty.span()=> ::cache_kit::macro_support::assert_key_part::<#ty>();)
        });
        Some(quote!(#(#checks)*))
    }
}

fn is_marked(field: &Field, problems: &mut Problems) -> bool {
    let mut marked = false;
    for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("cache")) {
        problems.take(attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("key") {
                marked = true;
                return Ok(());
            }
            if meta.path.is_ident("opaque") {
                return Ok(());
            }
            Err(meta.error("not known here; a field may be `key`, or `opaque` to the schema"))
        }));
    }
    marked
}
