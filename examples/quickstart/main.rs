//! The world's airports in SQLite, asked without a cache and with one; then an update, and a stampede.
//!
//! `cargo run --release --example quickstart` needs no server. All that it prints is measured.
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

mod airports;
mod args;
mod report;
mod workload;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use airports::{Airports, Neighbour};
use args::{Args, Command};
use cache_kit::{Cache, ErrorKind, LoadOptions, Outcome, Source};
use indicatif::{ProgressBar, ProgressStyle};
use report::{Run, duration, thousands};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use workload::Request;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How many requests follow, with the cache, for each that was made without it.
const THEN: usize = 20;
/// How many tasks ask for the same thing at the same time.
const STAMPEDE: usize = 1000;

#[tokio::main]
async fn main() -> ExitCode {
    let args = match args::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run(args)) => args,
        Ok(Command::Help) => {
            print!("{}", args::HELP);
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            complain(&format!("{problem}; --help tells what there is"));
            return ExitCode::from(2);
        }
    };
    // The server may be shared.
    let cache = match Cache::builder().namespace("quickstart").build_url(&args.backend) {
        Ok(cache) => cache,
        Err(error) => {
            complain(&format!("--backend: {error}"));
            return ExitCode::from(2);
        }
    };
    match run(&args, &cache).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args, cache: &Cache) -> Result<(), BoxError> {
    println!("The world's airports, from SQLite, without a cache and with one\n");
    // Its queries keep a core busy each: more connections than cores would gain nothing.
    let connections = u32::try_from(std::thread::available_parallelism()?.get())?;
    let begun = Instant::now();
    let airports = Airports::open(connections).await?;
    println!("  loaded  {} airports in {}", thousands(airports.count().await?), duration(begun.elapsed()));
    println!("  source  SQLite over {connections} connections");
    println!("  cache   {}", cache.backend().capabilities().name);

    let possible = questions(&airports).await?;
    make_cold(cache, &possible).await?;
    without_and_with(args, cache, &airports, possible).await?;
    update_and_invalidate(cache, &airports).await?;
    stampede(cache, &airports).await?;

    airports.close().await;
    Ok(())
}

/// Everything that may be asked.
async fn questions(airports: &Airports) -> Result<Vec<Request>, BoxError> {
    let (near, countries) = (airports.international().await?, airports.countries().await?);
    println!("\nA request asks for one of");
    println!("  {:>5}  lists of the 20 airports nearest to an international airport", thousands(near.len()));
    println!("  {:>5}  summaries of a country's airports", thousands(countries.len()));
    println!("and some are asked for much more often than others (Zipf's law).\n");
    let near = near.into_iter().map(|iata| Request::Nearest(iata.into()));
    Ok(near.chain(countries.into_iter().map(|code| Request::Country(code.into()))).collect())
}

/// Removes what an earlier run may have left on a server.
async fn make_cold(cache: &Cache, possible: &[Request]) -> cache_kit::Result<()> {
    match cache.clear().await {
        // Not every server can delete by namespace, but we know our keys.
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            cache.invalidate_many(possible.iter().map(Request::key)).await
        }
        other => other.map(drop),
    }
}

/// The same requests straight to the database and through the cache, and more that follow.
async fn without_and_with(
    args: &Args,
    cache: &Cache,
    airports: &Airports,
    possible: Vec<Request>,
) -> Result<(), BoxError> {
    let stream = workload::stream(possible, args.requests * (1 + THEN), args.seed);
    let (first, following) = stream.split_at(args.requests);

    let mut runs = Vec::new();
    let progress = progress_bar("no cache", first.len())?;
    let straight = airports.clone();
    let driven = workload::drive(first, args.tasks, &progress, move |request| {
        let airports = straight.clone();
        async move {
            match request {
                Request::Nearest(iata) => airports.nearest(&iata).await.map(drop),
                Request::Country(code) => airports.country(&code).await.map(drop),
            }
        }
    });
    runs.push(Run { name: "no cache", driven: driven.await?, queries: airports.queries(), hit_rate: None });
    progress.finish_and_clear();

    for (name, requests) in [("cold cache", first), ("warm cache", following)] {
        let (stats, queries) = (cache.stats(), airports.queries());
        let progress = progress_bar(name, requests.len())?;
        let (through, source) = (cache.clone(), airports.clone());
        let driven = workload::drive(requests, args.tasks, &progress, move |request| {
            let (cache, airports) = (through.clone(), source.clone());
            async move { ask(&cache, airports, request).await }
        });
        runs.push(Run {
            name,
            driven: driven.await?,
            queries: airports.queries() - queries,
            hit_rate: Some(cache.stats().since(&stats).hit_rate()),
        });
        progress.finish_and_clear();
    }

    report::table(&runs);
    println!("\n  No cache, cold cache: the same requests. Warm cache: those that come after them.");
    println!("  At most {} at a time; a latency includes the wait for a connection.", thousands(args.tasks));
    println!("  A hit found its answer there; to wait for the query of another task is no hit.");
    Ok(())
}

/// What a service does: the cached answer, or else the database's, which is then cached.
async fn ask(cache: &Cache, airports: Airports, request: Request) -> cache_kit::Result<()> {
    let key = request.key();
    match request {
        Request::Nearest(iata) => {
            cache.get_or_load(key, || async move { airports.nearest(&iata).await }).await.map(drop)
        }
        Request::Country(code) => {
            cache.get_or_load(key, || async move { airports.country(&code).await }).await.map(drop)
        }
    }
}

/// Changes a row below a cached answer.
async fn update_and_invalidate(cache: &Cache, airports: &Airports) -> Result<(), BoxError> {
    const KEY: &str = "nearest:KEF";
    println!("\nAn update: which airport is nearest to Keflavik International (KEF)?\n");
    let read = async || -> Result<Neighbour, BoxError> {
        let begun = Instant::now();
        let outcome = nearest(cache, airports, "KEF").await?;
        let took = duration(begun.elapsed());
        let origin = match (outcome.source, outcome.age) {
            (Source::Cache, Some(age)) => format!("from the cache, {} ms old", age.as_millis()),
            (Source::Cache, None) => "from the cache".to_owned(),
            _ => "from the database".to_owned(),
        };
        let nearest = outcome.value.into_iter().next().ok_or("KEF has no neighbours")?;
        println!("  read        {:<24}{origin:<30}{took:>8}", nearest.name);
        Ok(nearest)
    };

    let before = read().await?;
    let name = before.name.replace(" Airport", " City Airport");
    airports.rename(&before.icao, &name).await?;
    println!("  update      {name:<24}in the database");
    read().await?;
    cache.invalidate(KEY).await?;
    println!("  invalidate  {KEY}");
    read().await?;
    read().await?;
    Ok(())
}

/// Has many tasks ask for one thing that is not cached, all at once.
async fn stampede(cache: &Cache, airports: &Airports) -> Result<(), BoxError> {
    cache.invalidate("nearest:ZRH").await?;
    let queries = airports.queries();
    let together = Arc::new(Barrier::new(STAMPEDE + 1));
    let mut tasks = JoinSet::new();
    for _ in 0..STAMPEDE {
        let (cache, airports, together) = (cache.clone(), airports.clone(), Arc::clone(&together));
        tasks.spawn(async move {
            together.wait().await;
            nearest(&cache, &airports, "ZRH").await.map(|outcome| outcome.source)
        });
    }
    together.wait().await;
    let begun = Instant::now();
    let sources = tasks.join_all().await.into_iter().collect::<cache_kit::Result<Vec<_>>>()?;
    let wall = begun.elapsed();

    let from = |wanted| thousands(sources.iter().filter(|&&source| source == wanted).count());
    println!("\nA stampede: {} tasks ask at once for what is not cached\n", thousands(STAMPEDE));
    println!("  queries     {:>5}  to the database", thousands(airports.queries() - queries));
    println!("  loaded      {:>5}  by itself", from(Source::Load));
    println!("  waited      {:>5}  for the load of another", from(Source::SharedLoad));
    println!("  found it    {:>5}  in the cache", from(Source::Cache));
    println!("  all done in {}", duration(wall));
    println!("\nOther backends, sizes and seeds: --help");
    Ok(())
}

/// The airports nearest to one, and where the answer came from.
async fn nearest(
    cache: &Cache,
    airports: &Airports,
    iata: &'static str,
) -> cache_kit::Result<Outcome<Vec<Neighbour>>> {
    let airports = airports.clone();
    let load = move || async move { airports.nearest(iata).await };
    cache.get_or_load_outcome(format!("nearest:{iata}"), LoadOptions::default(), load).await
}

/// A bar on a terminal; nothing elsewhere.
fn progress_bar(name: &'static str, length: usize) -> Result<ProgressBar, BoxError> {
    let style = ProgressStyle::with_template("  {msg:10} {wide_bar} {pos:>6} of {len:<6} {elapsed:>4}")?;
    let bar = ProgressBar::new(u64::try_from(length)?).with_style(style).with_message(name);
    bar.enable_steady_tick(Duration::from_millis(100));
    Ok(bar)
}

fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[expect(clippy::print_stderr, reason = "where errors belong")]
fn complain(problem: &str) {
    eprintln!("error: {problem}");
}
