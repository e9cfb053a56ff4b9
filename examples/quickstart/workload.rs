//! Requests as a service gets them: a few things are asked for often, most things seldom, by many at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use tokio::task::JoinSet;

/// One request. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// What is near the airport with this IATA code?
    Nearest(Arc<str>),
    /// What are the figures of the country with this code?
    Country(Arc<str>),
}

impl Request {
    /// The key that the answer is cached under.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::Nearest(iata) => format!("nearest:{iata}"),
            Self::Country(code) => format!("country:{code}"),
        }
    }
}

/// Draws ranks below `n`: rank `r` in proportion to 1 / (r + 1), as Zipf's law has it for words, and nearly so for
/// what people ask a service.
#[derive(Debug)]
pub(crate) struct Zipf {
    /// The weight of each rank and of all before it.
    cumulative: Vec<f64>,
}

impl Zipf {
    /// A sampler of ranks below `n`.
    pub(crate) fn new(n: u32) -> Self {
        let running_sum = |sum: &mut f64, rank: u32| {
            *sum += 1.0 / (f64::from(rank) + 1.0);
            Some(*sum)
        };
        Self { cumulative: (0..n).scan(0.0, running_sum).collect() }
    }

    /// A rank.
    pub(crate) fn sample(&self, random: &mut fastrand::Rng) -> usize {
        let all = self.cumulative.last().copied().unwrap_or(0.0);
        let at = random.f64() * all;
        self.cumulative.partition_point(|&weight| weight <= at)
    }
}

/// `length` requests out of `possible`, of which chance, by the seed, makes some more popular than others.
pub(crate) fn stream(mut possible: Vec<Request>, length: usize, seed: u64) -> Vec<Request> {
    let mut random = fastrand::Rng::with_seed(seed);
    random.shuffle(&mut possible);
    let zipf = Zipf::new(u32::try_from(possible.len()).unwrap_or(u32::MAX));
    (0..length).map(|_| possible[zipf.sample(&mut random)].clone()).collect()
}

/// How long it took.
#[derive(Debug)]
pub(crate) struct Driven {
    /// From the first request to the last answer.
    pub(crate) wall: Duration,
    /// Each request by itself, shortest first.
    pub(crate) latencies: Vec<Duration>,
}

/// Has `tasks` tasks make the requests, each the next one as soon as it has an answer.
///
/// # Errors
/// The first failure.
pub(crate) async fn drive<F, Fut, E>(
    requests: &[Request],
    tasks: usize,
    progress: &ProgressBar,
    answer: F,
) -> Result<Driven, E>
where
    F: Fn(Request) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send,
    E: Send + 'static,
{
    let requests: Arc<[Request]> = requests.into();
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..tasks {
        let (requests, next) = (Arc::clone(&requests), Arc::clone(&next));
        let (progress, answer) = (progress.clone(), answer.clone());
        running.spawn(async move {
            let mut latencies = Vec::new();
            while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                let asked = Instant::now();
                answer(request.clone()).await?;
                latencies.push(asked.elapsed());
                progress.inc(1);
            }
            Ok(latencies)
        });
    }
    let of_each_task = running.join_all().await;
    let wall = begun.elapsed();
    let mut latencies = of_each_task.into_iter().collect::<Result<Vec<_>, E>>()?.concat();
    latencies.sort_unstable();
    Ok(Driven { wall, latencies })
}

impl Driven {
    /// The latency that `percent` of the requests did not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.latencies.len() * percent).div_ceil(100);
        self.latencies.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(n: usize) -> Vec<Request> {
        (0..n).map(|i| Request::Nearest(i.to_string().into())).collect()
    }

    #[test]
    fn ranks_come_in_proportion() {
        const N: u32 = 1000;
        const DRAWS: u32 = 1_000_000;
        let zipf = Zipf::new(N);
        let mut random = fastrand::Rng::with_seed(1);
        let mut drawn = vec![0_u32; N as usize];
        for _ in 0..DRAWS {
            drawn[zipf.sample(&mut random)] += 1;
        }
        let harmonic: f64 = (1..=N).map(|rank| 1.0 / f64::from(rank)).sum();
        for (rank, drawn) in (1..).zip(drawn) {
            let expected = f64::from(DRAWS) / f64::from(rank) / harmonic;
            // Six standard deviations: with a good sampler, no rank of any seed gets there.
            let off = (f64::from(drawn) - expected).abs();
            assert!(off < 6.0 * expected.sqrt(), "rank {rank}: {drawn} instead of {expected:.0}");
        }
    }

    #[test]
    fn the_seed_makes_the_stream() {
        let stream = |seed| stream(requests(50), 200, seed);
        assert_eq!(stream(7), stream(7));
        assert_ne!(stream(7), stream(8));
        assert_eq!(stream(7).len(), 200);
    }

    #[test]
    fn keys_tell_the_questions_apart() {
        assert_eq!(Request::Nearest("ZRH".into()).key(), "nearest:ZRH");
        assert_eq!(Request::Country("CH".into()).key(), "country:CH");
    }

    #[tokio::test]
    async fn every_request_is_made_once() {
        let made = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&made);
        let answer = move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            async { Ok::<_, ()>(()) }
        };
        let progress = ProgressBar::hidden();
        let driven = drive(&requests(100), 7, &progress, answer).await.unwrap();
        assert_eq!(
            (made.load(Ordering::Relaxed), driven.latencies.len(), progress.position()),
            (100, 100, 100)
        );
        assert_eq!(drive(&requests(5), 2, &progress, |_| async { Err("no") }).await.unwrap_err(), "no");
    }

    #[test]
    fn a_percentile_is_one_of_the_latencies() {
        let millis = (1..=200).map(Duration::from_millis).collect();
        let driven = Driven { wall: Duration::ZERO, latencies: millis };
        assert_eq!(driven.percentile(50), Duration::from_millis(100));
        assert_eq!(driven.percentile(99), Duration::from_millis(198));
        let one = Driven { wall: Duration::ZERO, latencies: vec![Duration::from_millis(3)] };
        assert_eq!(one.percentile(99), Duration::from_millis(3));
    }
}
