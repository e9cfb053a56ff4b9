//! Lives as people write them, read when the program is compiled.

use std::time::Duration;

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, LitStr, Result};

/// A life in a macro's arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    For(Duration),
    /// `"none"`: without end.
    Endless,
}

impl Life {
    pub(crate) fn parse(text: &LitStr) -> Result<Self> {
        let value = text.value();
        if value.trim() == "none" {
            return Ok(Self::Endless);
        }
        match humantime::parse_duration(&value) {
            Ok(Duration::ZERO) => Err(Error::new(
                text.span(),
                "a life of zero stores nothing; leave `ttl` out for that of the cache, or write a longer one",
            )),
            Ok(life) => Ok(Self::For(life)),
            Err(_) => Err(Error::new(
                text.span(),
                format!(
                    "{value:?} is no duration; durations look like \"250ms\", \"5m\" or \"1h 30m\", and \"none\" is without end"
                ),
            )),
        }
    }

    /// The call that sets it, of options or overrides of a policy.
    pub(crate) fn setter(self) -> TokenStream {
        match self {
            Self::For(life) => {
                let (seconds, nanos) = (life.as_secs(), life.subsec_nanos());
                quote!(.with_ttl(::core::time::Duration::new(#seconds, #nanos)))
            }
            Self::Endless => quote!(.without_ttl()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proc_macro2::Span;

    use super::*;

    fn parsed(text: &str) -> Result<Life> {
        Life::parse(&LitStr::new(text, Span::call_site()))
    }

    #[test]
    fn lives_are_read_as_elsewhere() {
        assert_eq!(parsed("1h 30m").unwrap(), Life::For(Duration::from_secs(5_400)));
        assert_eq!(parsed("none").unwrap(), Life::Endless);
    }

    #[test]
    fn a_life_that_is_none_says_how_one_looks() {
        for (text, part) in
            [("5", "look like"), ("", "look like"), ("0s", "stores nothing"), ("-1s", "look like")]
        {
            assert!(parsed(text).unwrap_err().to_string().contains(part), "{text}");
        }
    }
}
