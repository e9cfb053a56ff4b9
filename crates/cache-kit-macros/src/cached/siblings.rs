//! The functions beside a cached one: `…_invalidate` and `…_refresh`.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens as _, format_ident, quote};
use syn::{Attribute, GenericParam, Generics, Signature};

use super::arguments::Arguments;
use super::function::Function;
use super::{handle, read};
use crate::tokens::mention;

pub(super) fn of(arguments: &Arguments, function: &Function<'_>) -> TokenStream {
    let (invalidate, refresh) = (invalidate(arguments, function), refresh(arguments, function));
    quote!(#invalidate #refresh)
}

/// Takes what the key is made of, and nothing else.
fn invalidate(arguments: &Arguments, function: &Function<'_>) -> TokenStream {
    let name = format_ident!("{}_invalidate", function.item.sig.ident);
    let cache = arguments.cache.to_token_stream();
    let needed =
        |of: &Ident| arguments.key.places().any(|place| place.is_of(of)) || mention(cache.clone(), of);
    let taken: Vec<_> = function.arguments.iter().filter(|argument| needed(argument.name)).collect();
    let inputs = taken.iter().map(|argument| {
        let (name, ty) = (argument.name, argument.ty);
        quote!(#name: #ty)
    });
    let receiver = function.receiver.map(|receiver| quote!(#receiver,));
    let types: TokenStream = taken.iter().map(|argument| argument.ty.to_token_stream()).collect();
    let generics = only_those_in(&function.item.sig.generics, &types);
    let conditions = &generics.where_clause;
    let (attributes, visibility) = (passed_on(&function.item.attrs, false), &function.item.vis);
    let (handle, key) = (handle(&arguments.cache), arguments.key.expression(&TokenStream::new()));
    let documentation = format!(
        "Invalidates what [`{0}`](Self::{0}) has cached for these arguments: no older value comes back once this returns `Ok`.\n\n\
         # Errors\nOf kind `Unconfirmed` if the backend may still hold the old value; the invalidation is queued then.",
        function.item.sig.ident
    );
    let documentation =
        if function.receiver.is_some() { documentation } else { documentation.replace("Self::", "") };
    quote! {
        #(#attributes)*
        #[doc = #documentation]
        #visibility async fn #name #generics (#receiver #(#inputs),*) -> ::cache_kit::Result<()> #conditions {
            #handle
            let __cache_kit_key: ::std::string::String = #key;
            __cache_kit.invalidate(&__cache_kit_key).await
        }
    }
}

/// Takes what the function takes.
fn refresh(arguments: &Arguments, function: &Function<'_>) -> TokenStream {
    let signature = Signature {
        ident: format_ident!("{}_refresh", function.item.sig.ident),
        ..function.item.sig.clone()
    };
    let (attributes, visibility) = (passed_on(&function.item.attrs, true), &function.item.vis);
    let body = read(arguments, function, &quote!(Invalidate));
    let documentation = format!(
        "As `{}`, but drops what is cached for these arguments, runs the function, and caches its answer.",
        function.item.sig.ident
    );
    quote! {
        #(#attributes)*
        #[doc = #documentation]
        #visibility #signature {
            #body
        }
    }
}

/// Attributes that hold for a sibling as well. What is expected of the function only comes true where all of it stands again.
fn passed_on(attributes: &[Attribute], is_whole: bool) -> impl Iterator<Item = &Attribute> {
    attributes.iter().filter(move |attribute| {
        let is = |name: &str| attribute.path().is_ident(name);
        is("cfg") || is("allow") || is("deprecated") || (is_whole && is("expect"))
    })
}

/// The parameters that `types` speak of: another one could not be inferred.
fn only_those_in(generics: &Generics, types: &TokenStream) -> Generics {
    let name_of = |parameter: &GenericParam| match parameter {
        GenericParam::Type(parameter) => Some(parameter.ident.clone()),
        GenericParam::Const(parameter) => Some(parameter.ident.clone()),
        GenericParam::Lifetime(_) => None,
    };
    let dropped: Vec<Ident> =
        generics.params.iter().filter_map(name_of).filter(|name| !mention(types.clone(), name)).collect();
    let mut kept = generics.clone();
    kept.params = generics
        .params
        .iter()
        .filter(|parameter| name_of(parameter).is_none_or(|name| !dropped.contains(&name)))
        .cloned()
        .collect();
    if let Some(conditions) = &mut kept.where_clause {
        conditions.predicates = conditions
            .predicates
            .iter()
            .filter(|predicate| !dropped.iter().any(|name| mention(predicate.to_token_stream(), name)))
            .cloned()
            .collect();
    }
    kept
}
