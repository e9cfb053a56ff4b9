//! What the benchmarks of the network backends share: clients in a closed loop, taking turns, and their table.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The keys that readers choose from.
pub const KEYS: usize = 2_000;

type Read = Arc<dyn Fn(usize) -> Pin<Box<dyn Future<Output = usize> + Send>> + Send + Sync>;

/// A client, through one function: from the number of a key to the bytes that were read.
pub struct Peer {
    /// As the table names it.
    pub name: String,
    read: Read,
}

impl Peer {
    /// A client that reads like this.
    pub fn new<F, Fut>(name: impl Into<String>, read: F) -> Self
    where
        F: Fn(usize) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = usize> + Send + 'static,
    {
        Self { name: name.into(), read: Arc::new(move |key| Box::pin(read(key))) }
    }
}

/// What a client did in one cell.
#[derive(Clone, Copy, Default)]
pub struct Cell {
    /// Operations a second.
    pub per_second: f64,
    /// Microseconds that half of the operations took at most.
    pub p50: f64,
    /// Microseconds that 99 of 100 operations took at most.
    pub p99: f64,
    /// Microseconds of CPU of this process for each operation.
    pub cpu: f64,
}

/// The time that the threads of this process have had a CPU, those that have ended included.
pub fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// The name of the thing that is read, and how many bytes its answer has.
pub fn key(n: usize) -> String {
    format!("key:{n}")
}

/// So many tasks, each reading and reading again when the answer is there; every answer is checked for its length.
pub async fn measure(client: &Peer, tasks: usize, time: Duration, size: usize) -> Cell {
    let (began, before) = (Instant::now(), cpu());
    let end = began + time;
    let handles: Vec<_> = (0..tasks)
        .map(|task| {
            let read = Arc::clone(&client.read);
            tokio::spawn(async move {
                let (mut random, mut took) = (fastrand::Rng::with_seed(task as u64), Vec::new());
                while Instant::now() < end {
                    let start = Instant::now();
                    assert_eq!(read(random.usize(..KEYS)).await, size, "a wrong value");
                    took.push(start.elapsed().as_nanos() as u32);
                }
                took
            })
        })
        .collect();
    let mut took = Vec::new();
    for handle in handles {
        took.extend(handle.await.expect("a reader ends"));
    }
    let (wall, cpu) = (began.elapsed().as_secs_f64(), (cpu() - before).as_secs_f64());
    took.sort_unstable();
    let at = |share: f64| f64::from(took[((took.len() - 1) as f64 * share) as usize]) / 1e3;
    let count = took.len() as f64;
    Cell { per_second: count / wall, p50: at(0.5), p99: at(0.99), cpu: cpu / count * 1e6 }
}

/// A socket that sends requests which were put together before, reads as many answers, and counts: what the wire and
/// the server allow.
pub async fn pipelining(port: u16, requests: &[u8], answers: usize, in_flight: usize, time: Duration) -> Cell {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    socket.set_nodelay(true).expect("no delay");
    let mut answers = vec![0; answers];
    let (began, before, mut count, mut took) = (Instant::now(), cpu(), 0_u64, Vec::new());
    while began.elapsed() < time {
        let start = Instant::now();
        let (mut from, mut to) = socket.split();
        // Side by side: with enough in flight, both buffers fill.
        let (written, read) = tokio::join!(to.write_all(requests), from.read_exact(&mut answers));
        written.expect("written");
        read.expect("answered");
        took.push(start.elapsed().as_secs_f64() * 1e6);
        count += in_flight as u64;
    }
    let (wall, cpu) = (began.elapsed().as_secs_f64(), (cpu() - before).as_secs_f64());
    took.sort_by(f64::total_cmp);
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    Cell { per_second: count as f64 / wall, p50: at(0.5), p99: at(0.99), cpu: cpu / count as f64 * 1e6 }
}

/// The middle one of some numbers.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// The rounds of each client, in their order, as a table. The last column is the first client's throughput as a
/// multiple of the row's, taken within each round: the machine's speed drifts, the clients take turns.
pub fn print(title: &str, rows: &[(String, Vec<Cell>)]) {
    println!("\n{title}");
    println!(
        "  {:<26}{:>11}{:>11}{:>11}{:>11}{:>17}",
        "", "ops/s", "p50 us", "p99 us", "cpu us/op", "first / this"
    );
    for (name, cells) in rows {
        let of = |field: fn(&Cell) -> f64| median(cells.iter().map(field).collect());
        let mut ratios: Vec<f64> =
            rows[0].1.iter().zip(cells).map(|(first, this)| first.per_second / this.per_second).collect();
        ratios.sort_by(f64::total_cmp);
        println!(
            "  {name:<26}{:>11.0}{:>11.1}{:>11.1}{:>11.2}{:>7.2} ({:.2}-{:.2})",
            of(|cell| cell.per_second),
            of(|cell| cell.p50),
            of(|cell| cell.p99),
            of(|cell| cell.cpu),
            ratios[ratios.len() / 2],
            ratios[0],
            ratios[ratios.len() - 1]
        );
    }
}

/// What the command line of a benchmark says: `[seconds per cell] [rounds] [only tables with this in their title]
/// [tasks, separated by commas]`.
pub struct Plan {
    /// How long one cell takes.
    pub time: Duration,
    /// How often each cell is measured.
    pub rounds: usize,
    only: String,
    /// How many readers there are.
    pub tasks: Vec<usize>,
}

impl Plan {
    /// Reads the command line.
    pub fn from_args() -> Self {
        let mut args = std::env::args().skip(1);
        let mut number = |default: f64| args.next().map_or(default, |arg| arg.parse().expect("a number"));
        let (time, rounds) = (Duration::from_secs_f64(number(0.25)), number(5.0) as usize);
        let only = args.next().unwrap_or_default();
        let tasks = args.next().unwrap_or_else(|| "1,16,64,256,1024".to_owned());
        let tasks = tasks.split(',').map(|tasks| tasks.parse().expect("a number of tasks")).collect();
        Self { time, rounds, only, tasks }
    }

    /// Whether a table was asked for.
    pub fn wants(&self, title: &str) -> bool {
        title.contains(&self.only)
    }

    /// Measures all clients, taking turns, and prints a table for each number of tasks. `limit` is what no client
    /// can beat, such as a bare socket.
    pub async fn table<F: Future<Output = Cell>>(
        &self,
        title: &str,
        clients: &[Peer],
        size: usize,
        limit: Option<impl Fn(usize, Duration) -> F>,
    ) {
        for &tasks in &self.tasks {
            let mut rows: Vec<(String, Vec<Cell>)> =
                clients.iter().map(|client| (client.name.clone(), Vec::new())).collect();
            let mut limits = Vec::new();
            for _ in 0..self.rounds {
                for (client, (_, cells)) in clients.iter().zip(&mut rows) {
                    cells.push(measure(client, tasks, self.time, size).await);
                }
                if let Some(limit) = &limit {
                    limits.push(limit(tasks, self.time).await);
                }
            }
            if limit.is_some() {
                rows.push(("bare socket, counting".to_owned(), limits));
            }
            print(&format!("{title}, {tasks} tasks"), &rows);
        }
    }
}
