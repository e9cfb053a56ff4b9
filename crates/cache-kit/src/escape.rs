//! Values written so that what separates them cannot occur in them.

use std::fmt;

/// Passes text on with `%`, and what is special, as `%` and two digits for each byte.
pub(crate) struct Escaped<'a, W: ?Sized> {
    out: &'a mut W,
    special: &'a str,
}

impl<'a, W: fmt::Write + ?Sized> Escaped<'a, W> {
    pub(crate) fn new(out: &'a mut W, special: &'a str) -> Self {
        Self { out, special }
    }
}

impl<W: fmt::Write + ?Sized> fmt::Write for Escaped<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let is_special = |c: char| c == '%' || self.special.contains(c);
        let mut rest = text;
        while let Some(at) = rest.find(is_special) {
            let (plain, after) = rest.split_at(at);
            self.out.write_str(plain)?;
            let len = after.chars().next().map_or(0, char::len_utf8);
            for byte in &after.as_bytes()[..len] {
                write!(self.out, "%{byte:02X}")?;
            }
            rest = &after[len..];
        }
        self.out.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn what_is_special_is_replaced_and_nothing_else() {
        let mut text = String::new();
        let part = "b%c";
        write!(Escaped::new(&mut text, ":–"), "a:{part}–{}", 5).unwrap();
        assert_eq!(text, "a%3Ab%25c%E2%80%935");
    }
}
