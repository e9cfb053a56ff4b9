//! The macros of [cache-kit](https://docs.rs/cache-kit), which re-exports and documents them: use that crate, with its
//! feature `macros`, and not this one.

mod cached;
mod duration;
mod entity;
mod meta;
mod problems;
mod schema;
mod serde_attributes;
mod template;
mod tokens;

use proc_macro::TokenStream;
use syn::{DeriveInput, ItemFn, parse_macro_input};

// Documented where cache-kit re-exports it.
#[expect(missing_docs, reason = "the documentation stands in cache-kit")]
#[proc_macro_derive(CacheEntity, attributes(cache))]
pub fn derive_cache_entity(input: TokenStream) -> TokenStream {
    entity::expand(&parse_macro_input!(input as DeriveInput))
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

#[expect(missing_docs, reason = "the documentation stands in cache-kit")]
#[proc_macro_derive(CacheSchema, attributes(cache))]
pub fn derive_cache_schema(input: TokenStream) -> TokenStream {
    schema::expand(&parse_macro_input!(input as DeriveInput))
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

#[expect(missing_docs, reason = "the documentation stands in cache-kit")]
#[proc_macro_attribute]
pub fn cached(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let function = parse_macro_input!(item as ItemFn);
    let expanded = syn::parse(arguments).and_then(|arguments| cached::expand(&arguments, &function));
    // The function itself stays, so that whoever calls it is not told that it does not exist.
    expanded.unwrap_or_else(|error| cached::left_as_it_is(&function, &error)).into()
}
