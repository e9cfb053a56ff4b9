//! `#[cached]`.

mod arguments;
mod function;
mod siblings;

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens as _, quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{Error, Expr, ItemFn, Result};

use self::arguments::Arguments;
use self::function::{Answer, Function};
use crate::problems::Problems;
use crate::tokens::mention;

pub(crate) fn expand(arguments: &Arguments, item: &ItemFn) -> Result<TokenStream> {
    let mut problems = Problems::default();
    let Some(function) = Function::of(item, arguments.detached, &mut problems) else {
        return problems.into_result().map(|()| TokenStream::new());
    };
    function.check_against(arguments, &mut problems);
    problems.into_result()?;

    let (attributes, visibility, signature) = (&item.attrs, &item.vis, &item.sig);
    let body = read(arguments, &function, &quote!(Refresh));
    let siblings = arguments.siblings.then(|| siblings::of(arguments, &function));
    Ok(quote! {
        #(#attributes)*
        #visibility #signature {
            #body
        }
        #siblings
    })
}

/// The function as it was written, beside what is wrong with it.
pub(crate) fn left_as_it_is(function: &ItemFn, error: &Error) -> TokenStream {
    let error = error.to_compile_error();
    quote!(#error #function)
}

/// Reads through the cache, and asks the function's own body where it has to.
fn read(arguments: &Arguments, function: &Function<'_>, strategy: &TokenStream) -> TokenStream {
    let cache = handle(&arguments.cache);
    let owned = function.detached.then(own_handle);
    let (key, tags) = (arguments.key.expression(&TokenStream::new()), tags(arguments));
    let options = options(arguments, strategy);
    let call = call(function);
    let answer = answer(function);
    quote! {
        #cache
        #owned
        let __cache_kit_key: ::std::string::String = #key;
        #tags
        let __cache_kit_options = #options;
        let __cache_kit_answer = #call.await;
        #answer
    }
}

/// `let __cache_kit: &Cache = …`
fn handle(cache: &Expr) -> TokenStream {
    quote_spanned!(cache.span()=> let __cache_kit: &::cache_kit::Cache = &#cache;)
}

/// What the cache was reached through is about to be moved into the load.
fn own_handle() -> TokenStream {
    quote!(let __cache_kit = ::cache_kit::Cache::clone(__cache_kit);)
}

fn tags(arguments: &Arguments) -> Option<TokenStream> {
    if arguments.tags.is_empty() {
        return None;
    }
    let texts = arguments.tags.iter().map(|tag| tag.expression(&TokenStream::new()));
    Some(quote! {
        let __cache_kit_tags = [#(#texts),*];
        let __cache_kit_tags = __cache_kit_tags.each_ref().map(::std::string::String::as_str);
    })
}

fn options(arguments: &Arguments, strategy: &TokenStream) -> TokenStream {
    let options = if arguments.detached.is_some() { quote!(LoadOptions) } else { quote!(InlineOptions) };
    let tags = (!arguments.tags.is_empty()).then(|| quote!(.with_tags(&__cache_kit_tags)));
    // What the policy says about the life, the life itself overrules.
    let base = match &arguments.policy {
        Some(policy) => quote!((#policy)),
        None => quote!(<::cache_kit::PolicyOverrides as ::core::default::Default>::default()),
    };
    let life = arguments.life.map(crate::duration::Life::setter);
    let policy = (arguments.policy.is_some() || life.is_some()).then(|| quote!(.with_policy(#base #life)));
    quote! {
        <::cache_kit::#options<'_> as ::core::default::Default>::default()
            .with_strategy(::cache_kit::CacheStrategy::#strategy)
            #policy
            #tags
    }
}

fn call(function: &Function<'_>) -> TokenStream {
    let (returns, body) = (function.returns, &function.item.block);
    let load = quote!(::cache_kit::macro_support::typed::<#returns, _>(async move #body).await);
    // A function that cannot fail is asked itself where the cache cannot answer, and needs its arguments for that.
    let keep = (!function.answer.can_fail).then(|| function.copies());
    let load =
        if function.answer.can_fail { load } else { quote!(::cache_kit::macro_support::never_fails(#load)) };
    let moved = if function.detached || function.answer.can_fail { quote!(move) } else { TokenStream::new() };
    let (outside, inside) = if function.detached { (keep, None) } else { (None, keep) };
    let method = function.method();
    if function.answer.is_optional {
        quote! {
            __cache_kit.#method(&__cache_kit_key, __cache_kit_options, {
                #outside
                #moved |_| {
                    #inside
                    async move { #load.map(::cache_kit::Loaded::from) }
                }
            })
        }
    } else {
        quote! {
            __cache_kit.#method(&__cache_kit_key, __cache_kit_options, {
                #outside
                #moved || {
                    #inside
                    async move { #load }
                }
            })
        }
    }
}

fn answer(function: &Function<'_>) -> TokenStream {
    let (returns, body) = (function.returns, &function.item.block);
    let Answer { can_fail, .. } = function.answer;
    if can_fail {
        let failed = quote_spanned!(returns.span()=> failed);
        return quote! {
            match __cache_kit_answer {
                ::core::result::Result::Ok(value) => ::core::result::Result::Ok(value),
                ::core::result::Result::Err(error) => {
                    use ::cache_kit::macro_support::{Converted as _, Recovered as _};
                    (&&::cache_kit::macro_support::Returns::<#returns>::NEW).#failed(error)
                }
            }
        };
    }
    let no_result = refuse_hidden_result(function);
    quote! {
        #no_result
        match __cache_kit_answer {
            ::core::result::Result::Ok(value) => value,
            // Nobody to tell: the function answers by itself, as it would without a cache.
            ::core::result::Result::Err(_) => #body,
        }
    }
}

/// A result under a name that does not tell would be cached with its errors.
fn refuse_hidden_result(function: &Function<'_>) -> TokenStream {
    let returns = function.returns;
    let check = quote_spanned! {returns.span()=> {
        #[allow(unused_imports)]
        use ::cache_kit::macro_support::NoResult as _;
        ::core::assert!(
            !::cache_kit::macro_support::Kind::<#returns>::IS_RESULT,
            "this is a `Result` under another name, whose errors would be cached: name it `Result`, or end its name so"
        );
    }};
    let is_generic = !function.item.sig.generics.params.is_empty()
        || mention(returns.to_token_stream(), &Ident::new("Self", Span::call_site()));
    // An item is looked at by `cargo check` as well, and knows no parameters.
    if is_generic { quote!(const { #check }) } else { quote!(const _: () = #check;) }
}
