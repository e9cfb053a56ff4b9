//! Durations and sizes as people write them.

use std::time::Duration;

/// How durations look.
pub(crate) const DURATION: &str = "durations look like 250ms, 5m or 1h 30m";
/// How sizes look.
pub(crate) const SIZE: &str = "sizes look like 1000, 10k, 64mb or 64MiB";

/// `250ms`, `5m`, `1h 30m`; a bare number has no unit and is refused, except for 0.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

/// A duration as [`duration`] reads it, without loss: `5m`, `1h 30m`, `1s 500ms`.
pub(crate) fn written(duration: Duration) -> String {
    let (seconds, nanos) = (duration.as_secs(), u64::from(duration.subsec_nanos()));
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
        (nanos / 1_000_000, "ms"),
        (nanos / 1_000 % 1_000, "us"),
        (nanos % 1_000, "ns"),
    ];
    let words: Vec<_> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect();
    if words.is_empty() { "0s".to_owned() } else { words.join(" ") }
}

/// `1000`, `10k` (thousands), `64mb`, `64MiB`.
pub(crate) fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_decimal_and_binary_units() {
        for (text, bytes) in [
            ("0", 0),
            ("10k", 10_000),
            ("64mb", 64_000_000),
            ("64MiB", 64 << 20),
            ("2 GiB", 2 << 30),
            ("7b", 7),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "k", "-1", "1.5k", "10q", "99999999999999999999", "99999999999999999g"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_written_in_the_units_of_people_and_read_back() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500_000, "1ms 500us"),
            (250_000_000, "250ms"),
            (300_000_000_000, "5m"),
            (5_400_000_000_000, "1h 30m"),
            (7_776_000_000_000_000, "90d"),
        ] {
            let span = Duration::from_nanos(nanos);
            assert_eq!((written(span).as_str(), duration(text)), (text, Some(span)));
        }
        assert_eq!(duration(&written(Duration::MAX)), Some(Duration::MAX));
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("5m"), Some(Duration::from_secs(300)));
        assert_eq!(duration("1h 30m"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        for text in ["", "5", "m", "-1s", "5 parsecs"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
