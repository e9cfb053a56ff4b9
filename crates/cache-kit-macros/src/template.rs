//! Templates of keys and tags, such as `"user:{id}"`.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{Error, LitStr, Member, Result};

/// Text with places for values.
pub(crate) struct Template {
    pieces: Vec<Piece>,
    span: Span,
    /// What the values must not hold as it is, so that different values never make the same text.
    special: String,
}

enum Piece {
    Text(String),
    Place(Place),
}

/// A value: an argument, or a field of one.
pub(crate) struct Place {
    /// The first name: an argument, or the field of a struct that is described.
    pub(crate) root: Member,
    rest: Vec<Member>,
}

impl Template {
    pub(crate) fn parse(text: &LitStr) -> Result<Self> {
        let (value, span) = (text.value(), text.span());
        let mut template = Self { pieces: Vec::new(), span, special: String::new() };
        let mut plain = String::new();
        let mut rest = value.as_str();
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let (brace, after) = rest[at..].split_at(1);
            if let Some(escaped) = after.strip_prefix(brace) {
                plain.push_str(brace);
                rest = escaped;
                continue;
            }
            let inside = (brace == "{").then(|| after.split_once('}')).flatten();
            let Some((inside, after)) = inside else {
                return Err(
                    template.error("a brace is not closed, or not opened; `{{` and `}}` stand for braces")
                );
            };
            let place = template.place(inside)?;
            if !plain.is_empty() {
                template.pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            template.pieces.push(Piece::Place(place));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            template.pieces.push(Piece::Text(plain));
        }
        template.check()?;
        Ok(template)
    }

    fn error(&self, message: impl std::fmt::Display) -> Error {
        Error::new(self.span, message)
    }

    fn place(&self, inside: &str) -> Result<Place> {
        if inside.is_empty() {
            return Err(self.error("`{}` has no name; write `{id}`"));
        }
        if inside.contains(':') {
            return Err(self.error(format!(
                "`{{{inside}}}` has a format, and a value stands in a key as it displays itself; write `{{{}}}`",
                inside.split(':').next().unwrap_or_default()
            )));
        }
        let mut members = inside.split('.').map(|part| self.member(part, inside));
        let Some(root) = members.next() else { return Err(self.error("`{}` has no name; write `{id}`")) };
        Ok(Place { root: root?, rest: members.collect::<Result<_>>()? })
    }

    fn member(&self, part: &str, inside: &str) -> Result<Member> {
        let parsed = if part == "self" {
            Ok(Member::Named(Ident::new("self", self.span)))
        } else {
            syn::parse_str::<Member>(part)
        };
        let mut member = parsed.map_err(|_| {
            self.error(format!(
                "`{{{inside}}}` is no name; a template takes names and their fields, such as `{{user.id}}`"
            ))
        })?;
        match &mut member {
            Member::Named(name) => name.set_span(self.span),
            Member::Unnamed(index) => index.span = self.span,
        }
        Ok(member)
    }

    /// Different values must never make the same text.
    fn check(&mut self) -> Result<()> {
        let Some(Piece::Text(_)) = self.pieces.first() else {
            return Err(self.error("a template begins with what it is about, such as `user:`"));
        };
        for at in 1..self.pieces.len().saturating_sub(1) {
            if let [Piece::Place(_), Piece::Place(_)] = &self.pieces[at..=at + 1] {
                return Err(self.error("two values stand side by side, so that `1` and `23` would be `12` and `3`; set them apart, as in `{a}:{b}`"));
            }
            if let [Piece::Place(_), Piece::Text(text), Piece::Place(_)] = &self.pieces[at - 1..=at + 1] {
                let first = text.chars().next().unwrap_or_default();
                if first.is_alphanumeric() || first == '%' {
                    return Err(self.error(format!("{first:?} does not set two values apart; begin what stands between them with `:`, `-` or the like")));
                }
                self.special.push(first);
            }
        }
        Ok(())
    }

    pub(crate) fn places(&self) -> impl Iterator<Item = &Place> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Place(place) => Some(place),
            Piece::Text(_) => None,
        })
    }

    pub(crate) fn span(&self) -> Span {
        self.span
    }

    /// An expression of type `String`; `base` stands in front of the names, as `self.` does.
    pub(crate) fn expression(&self, base: &TokenStream) -> TokenStream {
        let special = &self.special;
        let pieces = self.pieces.iter().map(|piece| match piece {
            Piece::Text(text) => quote!(__cache_kit_text.push_str(#text);),
            Piece::Place(place) => {
                let rest = place.rest.iter();
                let root = &place.root;
                quote_spanned! {self.span=>
                    ::cache_kit::macro_support::push_part(&mut __cache_kit_text, &#base #root #(.#rest)*, #special);
                }
            }
        });
        let capacity = self.pieces.len() * 16;
        quote! {{
            let mut __cache_kit_text = ::std::string::String::with_capacity(#capacity);
            #(#pieces)*
            __cache_kit_text
        }}
    }
}

impl Place {
    /// Whether it is the argument of this name, or a part of it.
    pub(crate) fn is_of(&self, name: &Ident) -> bool {
        matches!(&self.root, Member::Named(root) if root == name)
    }

    pub(crate) fn name(&self) -> String {
        self.root.to_token_stream().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Template> {
        Template::parse(&LitStr::new(text, Span::call_site()))
    }

    #[test]
    fn names_fields_and_braces_are_told_apart() {
        let template = parsed("a{{b}}:{user.id}:{0}").unwrap();
        let names: Vec<_> = template.places().map(Place::name).collect();
        assert_eq!(names, ["user", "0"]);
        assert!(matches!(&template.pieces[0], Piece::Text(text) if text == "a{b}:"));
        assert_eq!(template.special, ":");
    }

    #[test]
    fn what_is_wrong_is_told_with_what_to_write() {
        for (text, part) in [
            ("{id}", "begins with what it is about"),
            ("", "begins with what it is about"),
            ("a:{}", "write `{id}`"),
            ("a:{id:?}", "write `{id}`"),
            ("a:{id", "not closed"),
            ("a:id}", "not closed"),
            ("a:{f(x)}", "is no name"),
            ("a:{a}{b}", "`{a}:{b}`"),
            ("a:{a}x{b}", "'x' does not set"),
            ("a:{a}%{b}", "'%' does not set"),
        ] {
            let error = parsed(text).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
