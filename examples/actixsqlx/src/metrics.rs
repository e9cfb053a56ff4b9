//! `/metrics`: the counters in Prometheus' text format 0.0.4.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use cache_kit::{Gauges, Stats};

use crate::db::Query;
use crate::observe::BOUNDS;
use crate::shop::Shop;

pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

type Read = fn(&Stats) -> u64;

const COUNTERS: [(&str, &str, Read); 13] = [
    ("hits", "Reads that the cache answered.", |s| s.hits),
    ("misses", "Reads that the cache could not answer.", |s| s.misses),
    ("unknown", "Reads that the cache could not answer because the backend failed.", |s| s.unknown),
    ("loads", "Reads of the source that were begun.", |s| s.loads),
    ("load_failures", "Loads that failed.", |s| s.load_failures),
    ("shared_loads", "Reads that were answered by the load of another read.", |s| s.shared_loads),
    ("stored", "Values stored.", |s| s.stored),
    ("fenced_off", "Loaded values not stored because the key was invalidated meanwhile.", |s| s.fenced_off),
    ("backend_errors", "Operations of the backend that failed.", |s| s.backend_errors),
    ("invalidations", "Keys whose invalidation is confirmed.", |s| s.invalidations),
    ("tag_invalidations", "Tags whose invalidation is confirmed.", |s| s.tag_invalidations),
    ("unconfirmed", "Invalidations that had to be queued.", |s| s.unconfirmed),
    ("replayed", "Queued invalidations that have been confirmed since.", |s| s.replayed),
];

type Gauge = fn(&Gauges) -> usize;

const GAUGES: [(&str, &str, Gauge); 3] = [
    ("loads_under_way", "Loads that others would join.", |g| g.loads),
    ("waiting", "Reads that wait for a load, and loads that wait for their turn.", |g| g.waiting),
    ("pending_invalidations", "Invalidations that are not confirmed.", |g| g.pending_invalidations),
];

/// All that is counted. The values of labels are from closed lists: no key, no id, no URL is one.
pub(crate) fn text(shop: &Shop) -> String {
    let mut out = Text::default();
    let (stats, gauges) = (shop.cache.stats(), shop.cache.gauges());
    for (name, help, read) in COUNTERS {
        let name = format!("cache_kit_{name}_total");
        out.head(&name, "counter", help);
        out.line(&name, read(&stats));
    }
    for (name, help, read) in GAUGES {
        let name = format!("cache_kit_{name}");
        out.head(&name, "gauge", help);
        out.line(&name, read(&gauges));
    }
    out.head("shop_source_queries_total", "counter", "Queries to the database, by what they are for.");
    for (query, name) in Query::ALL {
        out.line(&format!("shop_source_queries_total{{query=\"{name}\"}}"), shop.db.asked(query));
    }
    out.head("shop_entities_read_total", "counter", "Users and products that were asked for.");
    out.line("shop_entities_read_total", shop.observed.reads());
    requests(&mut out, shop);
    out.0
}

fn requests(out: &mut Text, shop: &Shop) {
    let name = "shop_http_requests_total";
    out.head(name, "counter", "Requests that were answered.");
    for (route, seen) in shop.observed.routes() {
        for (class, count) in (1..).zip(&seen.classes) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                out.line(&format!("{name}{{route=\"{route}\",status=\"{class}xx\"}}"), count);
            }
        }
    }
    let name = "shop_http_request_duration_seconds";
    out.head(name, "histogram", "How long answers took.");
    for (route, seen) in shop.observed.routes() {
        let ranges = seen.ranges.each_ref().map(|range| range.load(Ordering::Relaxed));
        let all: u64 = ranges.iter().sum();
        if all == 0 {
            continue;
        }
        let mut so_far = 0;
        for (bound, count) in BOUNDS.iter().zip(ranges) {
            so_far += count;
            out.line(&format!("{name}_bucket{{route=\"{route}\",le=\"{bound}\"}}"), so_far);
        }
        out.line(&format!("{name}_bucket{{route=\"{route}\",le=\"+Inf\"}}"), all);
        let micros = seen.micros.load(Ordering::Relaxed);
        let seconds = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
        out.line(&format!("{name}_sum{{route=\"{route}\"}}"), seconds);
        out.line(&format!("{name}_count{{route=\"{route}\"}}"), all);
    }
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name} {value}");
    }
}
