//! Tokens as text that stays the same whatever compiler prints it.

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};

/// The tokens, each set apart by one space.
pub(crate) fn canonical(tokens: TokenStream) -> String {
    let mut text = String::new();
    write(tokens, &mut text);
    text
}

fn write(tokens: TokenStream, text: &mut String) {
    for token in tokens {
        if !text.is_empty() {
            text.push(' ');
        }
        match token {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    // Around what another macro has filled in; written by hand it is not there.
                    Delimiter::None => ("", ""),
                };
                text.push_str(open);
                write(group.stream(), text);
                text.push_str(close);
            }
            TokenTree::Ident(ident) => text.push_str(&ident.to_string()),
            TokenTree::Punct(punct) => text.push(punct.as_char()),
            TokenTree::Literal(literal) => text.push_str(&literal.to_string()),
        }
    }
}

/// Whether `name` stands anywhere in the tokens.
pub(crate) fn mention(tokens: TokenStream, name: &Ident) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Group(group) => mention(group.stream(), name),
        TokenTree::Ident(ident) => ident == *name,
        _ => false,
    })
}

/// FNV-1a with 64 bits: a hash that is the same in every build.
/// <http://www.isthe.com/chongo/tech/comp/fnv/>
pub(crate) fn fnv1a(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> TokenStream {
        text.parse().unwrap()
    }

    #[test]
    fn spaces_in_the_source_do_not_count() {
        assert_eq!(canonical(tokens("Vec< u8 >")), canonical(tokens("Vec<u8>")));
        assert_eq!(
            canonical(tokens("#[serde(rename=\"a b\")]")),
            canonical(tokens("# [ serde ( rename = \"a b\" ) ]"))
        );
        assert_ne!(canonical(tokens("Vec<u8>")), canonical(tokens("Vec<u16>")));
    }

    #[test]
    fn a_name_is_found_at_any_depth() {
        let name: Ident = syn::parse_str("id").unwrap();
        assert!(mention(tokens("cache_of(&[self.of(id)])"), &name));
        assert!(!mention(tokens("cache.ids"), &name));
    }

    #[test]
    fn the_hash_is_that_of_its_specification() {
        for (text, hash) in
            [("", 0xcbf2_9ce4_8422_2325), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)]
        {
            assert_eq!(fnv1a(text), hash);
        }
    }
}
