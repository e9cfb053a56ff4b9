//! A link that can die without a word, between two network namespaces. Needs root and `ip` of iproute2.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A server behind a link of its own, in a namespace of its own; gone when dropped.
#[derive(Debug)]
pub struct Link {
    name: String,
    server: Option<Child>,
    address: String,
}

impl Link {
    /// Starts one.
    ///
    /// # Errors
    ///
    /// Where that is not permitted, or `ip` of iproute2 is missing.
    pub fn new() -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let name = format!("ck{process}-{count}");
        ip(&format!("netns add {name}"))?;
        // Of the network that is set apart for benchmarks, for two runs at once not to meet.
        let [near, address] = [1, 2].map(|end| format!("198.18.{}.{}", process % 256, count % 64 * 4 + end));
        let mut link = Self { name, server: None, address };
        let (name, address) = (&link.name, &link.address);
        ip(&format!("link add {name}a type veth peer name {name}b netns {name}"))?;
        ip(&format!("addr add {near}/30 dev {name}a"))?;
        ip(&format!("link set {name}a up"))?;
        ip(&format!("-n {name} addr add {address}/30 dev {name}b"))?;
        link.set("up");
        let program = std::env::var("CACHE_KIT_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let server = Command::new("ip")
            .args(["netns", "exec", name, &program, "--port", "6379", "--bind", address])
            .args(["--protected-mode", "no", "--save", ""])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        link.server = Some(server.map_err(|error| error.to_string())?);
        Ok(link)
    }

    /// The URL of the server.
    pub fn url(&self) -> String {
        format!("redis://{}:6379", self.address)
    }

    /// At the server's end: nothing that is sent arrives any more, and no connection is told.
    pub fn set(&self, state: &str) {
        let name = &self.name;
        ip(&format!("-n {name} link set {name}b {state}")).expect("a link");
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            let _gone = server.kill().and_then(|()| server.wait());
        }
        // The kernel takes its time to remove the links of a namespace that is gone.
        let _may_not_be_there = ip(&format!("link del {}a", self.name));
        if let Err(why) = ip(&format!("netns del {}", self.name)) {
            println!("the namespace {} is left behind: {why}", self.name);
        }
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.map_err(|error| format!("ip of iproute2: {error}"))?;
    let problem = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or_else(|| format!("ip {arguments}: {}", problem.trim()))
}
