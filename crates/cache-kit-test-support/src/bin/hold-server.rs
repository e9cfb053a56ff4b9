//! The process that the crate's own tests kill, starve of programs and let panic: `hold-server KIND WHAT`.

use cache_kit_test_support::{Kind, Memcached, Postgres, Redis, RedisServer, Server};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["redis", "tls"] => drop(RedisServer::builder().tls().start()),
        ["redis", what] => act::<Redis>(what),
        ["memcached", what] => act::<Memcached>(what),
        ["postgres", what] => act::<Postgres>(what),
        _ => panic!("which server, and what to do with it? {arguments:?}"),
    }
}

#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn act<K: Kind>(what: &str) {
    match what {
        "hold" => {
            let server = Server::<K>::start();
            println!("{}\n{}", server.pid(), server.dir().display());
            loop {
                std::thread::park();
            }
        }
        "panic" => {
            let server = Server::<K>::start();
            panic!("with {}", server.addr());
        }
        "share" => {
            let server = Server::<K>::shared();
            println!("{}\n{}", server.url(), server.addr());
        }
        other => panic!("hold, panic or share, not {other:?}"),
    }
}
