//! The function that is cached: its arguments, and what it answers.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens as _, quote};
use syn::spanned::Spanned as _;
use syn::{
    FnArg, GenericArgument, ItemFn, Pat, PathArguments, Receiver, ReceiverKind, ReturnType, Type, TypePath,
};

use super::arguments::Arguments;
use crate::problems::Problems;
use crate::template::Template;
use crate::tokens::mention;

/// Types whose values an answer nearly always depends on.
const PLAIN: [&str; 18] = [
    "bool", "char", "String", "str", "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64",
    "i128", "isize", "f32", "f64",
];

pub(super) struct Function<'a> {
    pub(super) item: &'a ItemFn,
    pub(super) receiver: Option<&'a Receiver>,
    pub(super) arguments: Vec<Argument<'a>>,
    /// What it returns, as it is written.
    pub(super) returns: &'a Type,
    pub(super) answer: Answer,
    pub(super) detached: bool,
}

pub(super) struct Argument<'a> {
    pub(super) name: &'a Ident,
    pub(super) ty: &'a Type,
}

/// What can be told of the answer by its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// A `Result`.
    pub(super) can_fail: bool,
    /// An `Option`, or a `Result` of one: the source may not have it.
    pub(super) is_optional: bool,
}

impl<'a> Function<'a> {
    /// `None` if it has no answer.
    pub(super) fn of(item: &'a ItemFn, detached: Option<Span>, problems: &mut Problems) -> Option<Self> {
        let signature = &item.sig;
        let name = &signature.ident;
        if signature.asyncness.is_none() {
            problems.add(
                signature.fn_token.span,
                format_args!("`{name}` is not async, and the cache is: write `async fn {name}`"),
            );
        }
        let mut arguments = Vec::new();
        for input in &signature.inputs {
            let FnArg::Typed(typed) = input else { continue };
            match &*typed.pat {
                Pat::Ident(pattern) if pattern.subpat.is_none() && pattern.by_ref.is_none() => {
                    arguments.push(Argument { name: &pattern.ident, ty: &typed.ty });
                }
                other => problems.add(
                    other.span(),
                    "the arguments of a cached function have names: take it apart inside of the function",
                ),
            }
        }
        let receiver = signature.receiver();
        if detached.is_some() {
            refuse_borrows(receiver, &arguments, problems);
        }
        let ReturnType::Type(_, returns) = &signature.output else {
            problems.add(name.span(), format_args!("`{name}` returns nothing that could be cached"));
            return None;
        };
        let returns = &**returns;
        if let Type::ImplTrait(_) = returns {
            problems
                .add(returns.span(), "what is cached has a name: return the type itself instead of `impl …`");
        }
        Some(Self {
            item,
            receiver,
            arguments,
            returns,
            answer: answer_of(returns),
            detached: detached.is_some(),
        })
    }

    /// The method of `Cache` that reads.
    pub(super) fn method(&self) -> Ident {
        let name = match (self.detached, self.answer.is_optional) {
            (true, false) => "get_or_load_with",
            (true, true) => "get_or_load_entry",
            (false, false) => "get_or_load_inline_with",
            (false, true) => "get_or_load_entry_inline",
        };
        // What cannot be cached is complained about where it is named.
        Ident::new(name, self.returns.span())
    }

    /// The arguments once more, under their own names.
    pub(super) fn copies(&self) -> TokenStream {
        let names = self.arguments.iter().map(|argument| argument.name);
        // Which of them the body uses is not known.
        quote!(#(let #names = ::core::clone::Clone::clone(&#names); let _ = &#names;)*)
    }

    pub(super) fn check_against(&self, arguments: &Arguments, problems: &mut Problems) {
        for template in std::iter::once(&arguments.key).chain(&arguments.tags) {
            self.check_places(template, problems);
        }
        for name in &arguments.skip {
            if !self.arguments.iter().any(|argument| argument.name == name) {
                problems
                    .add(name.span(), format_args!("`{name}` is no argument of `{}`", self.item.sig.ident));
            }
        }
        for argument in &self.arguments {
            let in_key = arguments.key.places().any(|place| place.is_of(argument.name));
            let left_out = arguments.skip.contains(argument.name)
                || mention(arguments.cache.to_token_stream(), argument.name);
            if !in_key && !left_out && is_plain(argument.ty) {
                let name = argument.name;
                problems.add(
                    name.span(),
                    format_args!("the key does not hold `{name}`: calls that differ in it would get each other's answers; add `{{{name}}}` to the key, or `skip({name})` if the answer does not depend on it"),
                );
            }
        }
    }

    fn check_places(&self, template: &Template, problems: &mut Problems) {
        for place in template.places() {
            let is_self = place.name() == "self" && self.receiver.is_some();
            if !is_self && !self.arguments.iter().any(|argument| place.is_of(argument.name)) {
                let known: Vec<_> =
                    self.arguments.iter().map(|argument| format!("`{}`", argument.name)).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                problems.add(
                    template.span(),
                    format_args!(
                        "`{{{}}}` is no argument of `{}`; its arguments are {known}",
                        place.name(),
                        self.item.sig.ident
                    ),
                );
            }
        }
    }
}

fn refuse_borrows(receiver: Option<&Receiver>, arguments: &[Argument<'_>], problems: &mut Problems) {
    if let Some(receiver) = receiver
        && is_borrowed(&receiver.kind)
    {
        problems.add(
            receiver.span(),
            "a detached load outlives its caller and cannot borrow `self`: take `self: Arc<Self>`, or leave `detached` out",
        );
    }
    for argument in arguments {
        if let Type::Reference(_) = argument.ty {
            problems.add(
                argument.ty.span(),
                format_args!("a detached load outlives its caller and cannot borrow `{}`: take it by value (a pool or an `Arc` is cheap to clone), or leave `detached` out", argument.name),
            );
        }
    }
}

fn is_borrowed(receiver: &ReceiverKind) -> bool {
    match receiver {
        ReceiverKind::Reference(..) => true,
        ReceiverKind::Typed(_, ty) => matches!(**ty, Type::Reference(_)),
        _ => false,
    }
}

fn is_plain(ty: &Type) -> bool {
    match ty {
        Type::Reference(reference) => is_plain(&reference.elem),
        Type::Path(TypePath { qself: None, path, .. }) => {
            path.get_ident().is_some_and(|name| PLAIN.iter().any(|plain| name == plain))
        }
        _ => false,
    }
}

fn answer_of(ty: &Type) -> Answer {
    match last_segment(ty) {
        // `io::Result` and `QueryResult` are results too.
        Some((name, first)) if name.ends_with("Result") => {
            Answer { can_fail: true, is_optional: first.is_some_and(is_option) }
        }
        _ => Answer { can_fail: false, is_optional: is_option(ty) },
    }
}

fn is_option(ty: &Type) -> bool {
    last_segment(ty).is_some_and(|(name, _)| name == "Option")
}

/// The name of a type, and its first parameter.
fn last_segment(ty: &Type) -> Option<(String, Option<&Type>)> {
    let Type::Path(path) = ty else { return None };
    let segment = path.path.segments.last()?;
    let first = match &segment.arguments {
        PathArguments::AngleBracketed(arguments) => {
            arguments.args.iter().find_map(|argument| match argument {
                GenericArgument::Type(ty) => Some(ty),
                _ => None,
            })
        }
        _ => None,
    };
    Some((segment.ident.to_string(), first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_and_options_are_known_by_their_names() {
        for (ty, can_fail, is_optional) in [
            ("User", false, false),
            ("Option<User>", false, true),
            ("std::option::Option<User>", false, true),
            ("Result<User, E>", true, false),
            ("io::Result<User>", true, false),
            ("QueryResult<Option<User>>", true, true),
            ("Result<Vec<Option<User>>>", true, false),
        ] {
            assert_eq!(answer_of(&syn::parse_str(ty).unwrap()), Answer { can_fail, is_optional }, "{ty}");
        }
    }

    #[test]
    fn plain_values_are_told_from_handles() {
        for (ty, plain) in [
            ("u64", true),
            ("&str", true),
            ("&'a String", true),
            ("Pool", false),
            ("&Db", false),
            ("Vec<u8>", false),
        ] {
            assert_eq!(is_plain(&syn::parse_str(ty).unwrap()), plain, "{ty}");
        }
    }
}
