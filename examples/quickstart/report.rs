//! Numbers as people read them, and the table of the runs.

use std::time::Duration;

use crate::workload::Driven;

/// A run, measured.
#[derive(Debug)]
pub(crate) struct Run {
    /// What to call it.
    pub(crate) name: &'static str,
    /// Its duration and latencies.
    pub(crate) driven: Driven,
    /// How many queries it made.
    pub(crate) queries: u64,
    /// The share of its reads that the cache answered, if it had one.
    pub(crate) hit_rate: Option<f64>,
}

/// Prints one line for each run; the speed-up is the time per request, compared with the first run.
pub(crate) fn table(runs: &[Run]) {
    println!(
        "  {:<10} {:>8} {:>7} {:>7} {:>7} {:>9} {:>7} {:>7} {:>8}",
        "", "requests", "time", "req/s", "queries", "hit rate", "p50", "p99", "speed-up"
    );
    let Some(first) = runs.first() else { return };
    for run in runs {
        println!(
            "  {:<10} {:>8} {:>7} {:>7} {:>7} {:>9} {:>7} {:>7} {:>8}",
            run.name,
            thousands(run.driven.latencies.len()),
            duration(run.driven.wall),
            per_second(run),
            thousands(run.queries),
            run.hit_rate.map_or("-".to_owned(), |rate| format!("{:.1} %", rate * 100.0)),
            duration(run.driven.percentile(50)),
            duration(run.driven.percentile(99)),
            format!("{:.1}x", seconds_per_request(first) / seconds_per_request(run)),
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "at most some millions of requests")]
fn seconds_per_request(run: &Run) -> f64 {
    run.driven.wall.as_secs_f64() / run.driven.latencies.len() as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and far below 2^64")]
fn per_second(run: &Run) -> String {
    thousands((1.0 / seconds_per_request(run)).round() as u64)
}

/// A whole number with commas.
pub(crate) fn thousands(number: impl ToString) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A duration in the unit that suits it, to three digits.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    let (value, unit) = match seconds {
        1.0.. => (seconds, "s"),
        1e-3.. => (seconds * 1e3, "ms"),
        _ => (seconds * 1e6, "µs"),
    };
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (63000, "63,000"), (1234567, "1,234,567")]
        {
            assert_eq!(thousands(number), text);
        }
    }

    #[test]
    fn durations_have_the_unit_that_suits_them() {
        for (nanos, text) in [
            (1_500, "1.50 µs"),
            (45_600, "45.6 µs"),
            (2_000_000, "2.00 ms"),
            (789_000_000, "789 ms"),
            (12_340_000_000, "12.3 s"),
        ] {
            assert_eq!(duration(Duration::from_nanos(nanos)), text);
        }
    }
}
