//! What the application counts itself: reads, latencies, requests; and the last reads, explained.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cache_kit::{Outcome, Source, Step};
use serde::Serialize;

/// Upper ends of the ranges of the histogram of requests, in seconds.
pub(crate) const BOUNDS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
/// The routes, which are all that a metric's label can say.
pub(crate) const ROUTES: [&str; 12] = [
    "/users",
    "/users/{id}",
    "/products",
    "/products/{id}",
    "/categories",
    "/categories/{name}",
    "/categories/{name}/prices",
    "/healthz",
    "/readyz",
    "/metrics",
    "/live",
    "other",
];
const CLASSES: usize = 5;
/// How many of the last reads are shown.
const SHOWN: usize = 6;
/// How many of the last latencies make the numbers of the live page.
const WINDOW: usize = 400;

/// A read as the live page shows it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Recent {
    number: u64,
    what: String,
    /// `cache`, `source`, `shared` or `none`.
    from: &'static str,
    explained: String,
    micros: u64,
}

/// What was seen on one route.
#[derive(Default)]
pub(crate) struct OnRoute {
    /// The last is beyond all bounds.
    pub(crate) ranges: [AtomicU64; BOUNDS.len() + 1],
    pub(crate) micros: AtomicU64,
    /// By the first digit of the status.
    pub(crate) classes: [AtomicU64; CLASSES],
}

/// Counters and windows.
pub(crate) struct Observed {
    begun: Instant,
    reads: AtomicU64,
    looked_up: AtomicU64,
    hits: AtomicU64,
    routes: [OnRoute; ROUTES.len()],
    /// Only for the live page: latencies of reads that the cache answered, and of those that waited for the source.
    live: Option<Mutex<Live>>,
}

#[derive(Default)]
struct Live {
    number: u64,
    recent: VecDeque<Recent>,
    cache: VecDeque<u64>,
    source: VecDeque<u64>,
}

impl Observed {
    pub(crate) fn new(live: bool) -> Self {
        Self {
            begun: Instant::now(),
            reads: AtomicU64::new(0),
            looked_up: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            routes: Default::default(),
            live: live.then(Mutex::default),
        }
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Entities that were asked for.
    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Entities that the cache was asked for, and those of them that it had.
    pub(crate) fn lookups(&self) -> [u64; 2] {
        [self.looked_up.load(Ordering::Relaxed), self.hits.load(Ordering::Relaxed)]
    }

    fn count<T>(&self, outcomes: &[Outcome<T>]) {
        self.reads.fetch_add(outcomes.len() as u64, Ordering::Relaxed);
        let looked_up = outcomes.iter().filter(|outcome| !outcome.steps.contains(Step::Bypassed)).count();
        self.looked_up.fetch_add(looked_up as u64, Ordering::Relaxed);
        let hits = outcomes.iter().filter(|outcome| outcome.is_hit()).count();
        self.hits.fetch_add(hits as u64, Ordering::Relaxed);
    }

    pub(crate) fn routes(&self) -> impl Iterator<Item = (&'static str, &OnRoute)> {
        ROUTES.into_iter().zip(&self.routes)
    }

    /// A request was answered.
    pub(crate) fn request(&self, pattern: Option<&str>, status: u16, took: Duration) {
        let named = |pattern: &str| ROUTES.iter().position(|route| *route == pattern);
        let live =
            |pattern: &str| (pattern == "/" || pattern.starts_with("/live")).then_some(ROUTES.len() - 2);
        let at = pattern.and_then(|pattern| named(pattern).or_else(|| live(pattern)));
        let route = &self.routes[at.unwrap_or(ROUTES.len() - 1)];
        let range = BOUNDS.partition_point(|bound| *bound < took.as_secs_f64());
        route.ranges[range].fetch_add(1, Ordering::Relaxed);
        route.micros.fetch_add(micros(took), Ordering::Relaxed);
        let class = usize::from(status / 100).clamp(1, CLASSES) - 1;
        route.classes[class].fetch_add(1, Ordering::Relaxed);
    }

    /// One entity was read.
    pub(crate) fn one<T>(&self, kind: &str, id: i64, outcome: &Outcome<Option<T>>, took: Duration) {
        self.count(std::slice::from_ref(outcome));
        let from = from(outcome.source);
        self.show(from, took, || (format!("{kind} {id}"), outcome.explain().to_string()));
    }

    /// Many entities were read in one call.
    pub(crate) fn many<T>(&self, kind: &str, outcomes: &[Outcome<Option<T>>], took: Duration) {
        self.count(outcomes);
        let hits = outcomes.iter().filter(|outcome| outcome.is_hit()).count();
        let loaded = outcomes.iter().find(|outcome| !outcome.is_hit());
        let from = loaded.map_or("cache", |outcome| from(outcome.source));
        self.show(from, took, || {
            let what = format!("{} {kind}s", outcomes.len());
            let explained = match loaded {
                None => format!("cache: all {hits} found in one exchange"),
                Some(other) => {
                    let others = outcomes.len() - hits;
                    format!(
                        "{hits} from the cache, {others} by one query; each of these: {}",
                        other.explain()
                    )
                }
            };
            (what, explained)
        });
    }

    /// Many readers asked for one entity at a time: one line, and nothing for the numbers, of which it would be most.
    pub(crate) fn flood(&self, what: String, explained: String, took: Duration) {
        let Some(mut live) = self.live() else { return };
        live.number += 1;
        let recent = Recent { number: live.number, what, from: "shared", explained, micros: micros(took) };
        push(&mut live.recent, recent, SHOWN);
    }

    /// Many entities were read without the cache.
    pub(crate) fn straight(&self, kind: &str, count: usize, took: Duration) {
        self.reads.fetch_add(count as u64, Ordering::Relaxed);
        self.show("source", took, || (format!("{count} {kind}s"), "load: did not ask the cache".to_owned()));
    }

    fn show(&self, from: &'static str, took: Duration, text: impl FnOnce() -> (String, String)) {
        // Who finds it busy has only missed being shown.
        let Some(Ok(mut live)) = self.live.as_ref().map(Mutex::try_lock) else { return };
        let micros = micros(took);
        if let Some(window) = match from {
            "cache" => Some(&mut live.cache),
            "source" => Some(&mut live.source),
            _ => None,
        } {
            push(window, micros, WINDOW);
        }
        let (what, explained) = text();
        live.number += 1;
        let recent = Recent { number: live.number, what, from, explained, micros };
        push(&mut live.recent, recent, SHOWN);
    }

    fn live(&self) -> Option<MutexGuard<'_, Live>> {
        self.live.as_ref().map(|live| live.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The last reads, the latest first.
    pub(crate) fn recent(&self) -> Vec<Recent> {
        self.live().map(|live| live.recent.iter().rev().cloned().collect()).unwrap_or_default()
    }

    /// The last latencies in microseconds, shortest first: answered by the cache, and by the source.
    pub(crate) fn latencies(&self) -> [Vec<u64>; 2] {
        let windows = self.live().map(|live| [live.cache.clone(), live.source.clone()]).unwrap_or_default();
        windows.map(|window| {
            let mut sorted = Vec::from(window);
            sorted.sort_unstable();
            sorted
        })
    }
}

fn push<T>(window: &mut VecDeque<T>, value: T, longest: usize) {
    if window.len() == longest {
        window.pop_front();
    }
    window.push_back(value);
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

fn from(source: Source) -> &'static str {
    match source {
        Source::Cache => "cache",
        Source::Load => "source",
        Source::SharedLoad => "shared",
        _ => "none",
    }
}
