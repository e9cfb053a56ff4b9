//! Redis's glob patterns, for backends that match keys themselves.

/// Whether `text` matches `pattern`: `*`, `?`, `[ab]`, `[a-z]`, `[^a]`, and `\` before an ordinary character. As in
/// Redis a character is a byte.
///
/// Linear in `pattern × text`: a `*` is retried only from the last one seen, so no pattern can make it slow.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<Token> = parse(pattern);
    let text = text.as_bytes();
    let (mut p, mut t) = (0, 0);
    // Where to go on after a mismatch: behind the last `*`, one character further.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(Token::Any) => {
                retry = Some((p + 1, t + 1));
                p += 1;
            }
            Some(token) if token.accepts(text[t]) => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((after_star, next)) => {
                    p = after_star;
                    t = next;
                    retry = Some((after_star, next + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|token| matches!(token, Token::Any))
}

enum Token {
    Any,
    One,
    Exact(u8),
    Choice { negated: bool, ranges: Vec<(u8, u8)> },
}

impl Token {
    fn accepts(&self, c: u8) -> bool {
        match self {
            Self::Any => false,
            Self::One => true,
            Self::Exact(own) => *own == c,
            Self::Choice { negated, ranges } => {
                ranges.iter().any(|&(low, high)| (low..=high).contains(&c)) != *negated
            }
        }
    }
}

fn parse(pattern: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut chars = pattern.bytes().peekable();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            b'*' => Token::Any,
            b'?' => Token::One,
            b'\\' => Token::Exact(chars.next().unwrap_or(b'\\')),
            b'[' => {
                let negated = chars.next_if_eq(&b'^').is_some();
                let mut ranges = Vec::new();
                // As in Redis, a choice that is never closed ends with the pattern.
                while let Some(c) = chars.next() {
                    let low = match c {
                        b']' => break,
                        b'\\' => chars.next().unwrap_or(b'\\'),
                        other => other,
                    };
                    let mut ahead = chars.clone();
                    let high = match (ahead.next(), ahead.next()) {
                        // Even if what follows would close the choice.
                        (Some(b'-'), Some(high)) => {
                            chars = ahead;
                            high
                        }
                        _ => low,
                    };
                    ranges.push((low.min(high), low.max(high)));
                }
                Token::Choice { negated, ranges }
            }
            other => Token::Exact(other),
        });
    }
    tokens
}

#[cfg(all(test, feature = "inmemory"))]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "anything at all", true),
            ("user:*", "user:1", true),
            ("user:*", "users:1", false),
            ("*:1", "user:1", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("h[a-c]llo", "hdllo", false),
            ("h[a-]llo", "h-llo", false),
            ("h[a-]", "h^", true),
            ("literal\\*", "literal*", true),
            ("literal\\*", "literally", false),
            ("[\\]]", "]", true),
            ("[abc", "b", true),
            ("größe:*", "größe:€", true),
            ("gr?e", "gröe", false),
            ("gr??e", "gröe", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern:?} on {text:?}");
        }
    }

    #[test]
    fn a_hostile_pattern_is_not_slow() {
        let text = "a".repeat(5_000);
        assert!(!matches(&"*a".repeat(50).replace("*a", "*a*a*a*b"), &text));
    }
}
