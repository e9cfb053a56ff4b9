//! Policies as text: for files that set them, and for people who read them.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Policy, PolicyOverrides};
use crate::config::text;
use crate::error::{Error, Result};

/// What a policy says instead of a duration where there is to be none.
const NONE: &str = "none";

/// A value of a policy, and how it is written.
pub(super) trait Setting<W>: Sized {
    fn read(field: &'static str, written: W) -> Result<Self>;
    fn write(self) -> W;
}

/// A duration as text. A number is taken for one too, to be refused with the name of its field.
#[derive(Debug)]
pub(super) struct Word(String);

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;

        impl Visitor<'_> for Words {
            type Value = Word;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"250ms\", \"5m\" or \"1h 30m\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Word, E> {
                Ok(Word(text.to_owned()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Word, E> {
                Ok(Word(number.to_string()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Word, E> {
                Ok(Word(number.to_string()))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Word, E> {
                Ok(Word(number.to_string()))
            }
        }

        // Not `deserialize_str`: formats then refuse numbers themselves, without the name of the field.
        deserializer.deserialize_any(Words)
    }
}

impl Setting<Word> for Duration {
    fn read(field: &'static str, Word(written): Word) -> Result<Self> {
        text::duration(&written).ok_or_else(|| {
            Error::config(format!("{field} is no duration: {written:?}")).with_hint(text::DURATION)
        })
    }

    fn write(self) -> Word {
        Word(text::written(self))
    }
}

impl Setting<Word> for Option<Duration> {
    fn read(field: &'static str, Word(written): Word) -> Result<Self> {
        if written.trim() == NONE {
            return Ok(None);
        }
        text::duration(&written).map(Some).ok_or_else(|| {
            Error::config(format!("{field} is no duration: {written:?}"))
                .with_hint(format!("{}, or `none`", text::DURATION))
        })
    }

    fn write(self) -> Word {
        Word(self.map_or(NONE.to_owned(), text::written))
    }
}

impl Setting<Self> for f64 {
    fn read(_: &'static str, written: Self) -> Result<Self> {
        Ok(written)
    }

    fn write(self) -> Self {
        self
    }
}

/// A value as people read it.
#[derive(Clone, Copy)]
pub(super) enum Shown {
    Span(Duration),
    MaybeSpan(Option<Duration>),
    /// In percent.
    Share(f64),
    Factor(f64),
}

impl Shown {
    /// Whether it says that something does not happen.
    fn is_off(self) -> bool {
        match self {
            Self::Span(span) => span.is_zero(),
            Self::MaybeSpan(span) => span.is_none(),
            Self::Share(number) | Self::Factor(number) => number == 0.0,
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Span(span) | Self::MaybeSpan(Some(span)) => f.write_str(&text::written(span)),
            Self::MaybeSpan(None) => f.write_str(NONE),
            // 0.07 is 7.000000000000001 percent otherwise.
            Self::Share(share) => write!(f, "{} %", (share * 1e6).round() / 1e4),
            Self::Factor(factor) => write!(f, "{factor}"),
        }
    }
}

/// `name value, name value`.
pub(super) fn write_list(
    f: &mut fmt::Formatter<'_>,
    fields: impl Iterator<Item = (&'static str, Shown)>,
) -> fmt::Result {
    for (at, (name, value)) in fields.enumerate() {
        write!(f, "{}{name} {value}", if at == 0 { "" } else { ", " })?;
    }
    Ok(())
}

/// In one line: the ttl, and what is not off.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = PolicyOverrides::from(*self);
        write_list(f, all.shown().filter(|(name, value)| *name == "ttl" || !value.is_off()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn policy(text: serde_json::Value) -> Result<Policy, String> {
        serde_json::from_value(text).map_err(|error| error.to_string())
    }

    #[test]
    fn durations_are_text_and_what_is_left_out_is_the_default() {
        assert_eq!(policy(json!({})), Ok(Policy::default()));
        let read =
            policy(json!({ "ttl": "1h 30m", "ttl_jitter": 0.25, "lease_wait": "0", "timeout": "250ms" }));
        let expected = Policy::default()
            .with_ttl(5400 * SECOND)
            .with_ttl_jitter(0.25)
            .with_lease_wait(Duration::ZERO)
            .with_timeout(SECOND / 4);
        assert_eq!(read, Ok(expected));
        assert_eq!(policy(json!({ "ttl": "none" })), Ok(Policy::default().without_ttl()));
        assert_eq!(policy(json!({ "idle": "none" })), Ok(Policy::default()));
        let overrides: PolicyOverrides = serde_json::from_str(r#"{"ttl": "none"}"#).unwrap();
        assert_eq!(overrides, PolicyOverrides::default().without_ttl());
        assert_eq!(serde_json::to_value(overrides).unwrap(), json!({ "ttl": "none" }));
        assert!(serde_json::from_str::<PolicyOverrides>("{}").unwrap().is_empty());
    }

    #[test]
    fn every_field_is_written_with_its_unit() {
        let written = json!({
            "ttl": "5m",
            "ttl_jitter": 0.1,
            "absent_ttl": "10s",
            "idle": "none",
            "early_refresh_beta": 1.0,
            "stale_while_revalidate": "0s",
            "stale_if_error": "0s",
            "retry_after_error": "1s",
            "soft_timeout": "none",
            "timeout": "none",
            "load_deadline": "30s",
            "join_max_age": "1s",
            "lease_wait": "1s",
            "tag_version_max_age": "1s",
        });
        assert_eq!(serde_json::to_value(Policy::default()).unwrap(), written);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (text, words) in [
            (json!({ "tll": "5m" }), vec!["unknown field", "tll", "ttl"]),
            (json!({ "ttl": "5 parsecs" }), vec!["ttl", "5 parsecs", "1h 30m", "none"]),
            (json!({ "lease_wait": "none" }), vec!["lease_wait", "none", "1h 30m"]),
            (json!({ "ttl": 300 }), vec!["ttl", "300", "1h 30m"]),
            (json!({ "timeout": -1.5 }), vec!["timeout", "-1.5"]),
            (json!({ "ttl": ["5m"] }), vec!["250ms"]),
            (json!({ "ttl": "1m", "idle": "5m" }), vec!["idle", "ttl"]),
            (json!({ "soft_timeout": "1s" }), vec!["soft_timeout", "stale_if_error"]),
            (json!({ "ttl_jitter": 0.7 }), vec!["ttl_jitter", "0.5"]),
        ] {
            let error = policy(text).unwrap_err();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
        assert!(serde_json::from_value::<PolicyOverrides>(json!({ "tll": "5m" })).is_err());
    }

    #[test]
    fn a_policy_is_read_in_one_line() {
        let plain = "ttl 5m, jitter 10 %, absent 10s, early refresh 1, retry after error 1s, load deadline 30s, \
                     join max age 1s, lease wait 1s, tag version max age 1s";
        assert_eq!(Policy::default().to_string(), plain);
        let policy = Policy::default()
            .without_ttl()
            .with_ttl_jitter(0.07)
            .with_absent_ttl(Duration::ZERO)
            .with_idle(5400 * SECOND)
            .with_early_refresh_beta(0.0)
            .with_stale_while_revalidate(30 * SECOND)
            .with_timeout(SECOND / 4)
            .with_join_max_age(Duration::ZERO);
        assert_eq!(
            policy.to_string(),
            "ttl none, jitter 7 %, idle 1h 30m, stale while revalidate 30s, retry after error 1s, timeout 250ms, \
             load deadline 30s, lease wait 1s, tag version max age 1s"
        );
    }

    #[test]
    fn overrides_print_what_they_set() {
        let none = PolicyOverrides::default();
        assert_eq!(none.to_string(), "as above");
        assert_eq!(
            none.with_ttl_jitter(0.0).without_ttl().with_absent_ttl(Duration::ZERO).to_string(),
            "ttl none, jitter 0 %, absent 0s"
        );
    }

    fn span() -> impl Strategy<Value = Duration> {
        prop_oneof![
            (0..=u64::MAX, 0..1_000_000_000u32).prop_map(|(secs, nanos)| Duration::new(secs, nanos)),
            (0..=u64::MAX).prop_map(Duration::from_nanos),
            (0..100_000u64).prop_map(Duration::from_secs),
        ]
    }

    prop_compose! {
        fn any_policy()(
            spans in proptest::collection::vec(span(), 8),
            maybe in proptest::collection::vec(proptest::option::of(span()), 4),
            numbers in (0.0..=0.5, 0.0..=f64::MAX),
        ) -> Policy {
            let [ttl, idle, soft_timeout, timeout] = maybe[..] else { unreachable!("four were asked for") };
            let [absent, revalidate, if_error, retry, deadline, join, lease, tags] = spans[..] else {
                unreachable!("eight were asked for")
            };
            Policy {
                ttl,
                ttl_jitter: numbers.0,
                absent_ttl: absent,
                idle,
                early_refresh_beta: numbers.1,
                stale_while_revalidate: revalidate,
                stale_if_error: if_error,
                retry_after_error: retry,
                soft_timeout,
                timeout,
                load_deadline: deadline,
                join_max_age: join,
                lease_wait: lease,
                tag_version_max_age: tags,
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_or_refused_with_the_words_of_the_check(policy in any_policy()) {
            let written = serde_json::to_string(&policy).unwrap();
            match policy.check() {
                Ok(()) => prop_assert_eq!(serde_json::from_str::<Policy>(&written).unwrap(), policy),
                Err(error) => {
                    let refused = serde_json::from_str::<Policy>(&written).unwrap_err().to_string();
                    prop_assert!(refused.contains(&error.to_string()), "{refused}");
                }
            }
            let overrides = PolicyOverrides::from(policy);
            let written = serde_json::to_string(&overrides).unwrap();
            prop_assert_eq!(serde_json::from_str::<PolicyOverrides>(&written).unwrap(), overrides);
        }
    }
}
