//! The points of the servers and the hashes of the keys, bit for bit as libmemcached computes them.

use md5::{Digest, Md5};

use super::{Distribution, RingServer};

/// libmemcached leaves this port out of the name of a server.
const DEFAULT_PORT: u16 = 11_211;
/// Points of a server in plain ketama.
const PLAIN: u32 = 100;
/// Points of a server of average weight in weighted ketama.
const WEIGHTED: f32 = 160.0;

/// The points of all the servers in order, one server for each point.
///
/// `servers` come with what stands for them in the result, in the order that decides where points coincide.
pub(super) fn of(servers: &[(u32, &RingServer)], distribution: Distribution) -> Vec<(u32, u32)> {
    // No sum of 32-bit weights that fit in memory overflows 64 bits.
    let total: u64 = servers.iter().map(|(_, server)| u64::from(server.weight)).sum();
    let mut points = Vec::new();
    for (id, server) in servers {
        match distribution {
            Distribution::KetamaWeighted => {
                for number in 0..names(server.weight, total, servers.len()) {
                    points.extend(quarters(&name(server, number)).map(|point| (point, *id)));
                }
            }
            Distribution::Ketama => {
                points.extend((0..PLAIN).map(|number| (one_at_a_time(&name(server, number)), *id)));
            }
        }
    }
    // Stable, and only the first of equals is ever found.
    points.sort_by_key(|(point, _)| *point);
    points.dedup_by_key(|(point, _)| *point);
    points
}

/// The place of a key.
pub(super) fn hash(key: &[u8], distribution: Distribution) -> u32 {
    match distribution {
        Distribution::KetamaWeighted => quarters(key)[0],
        Distribution::Ketama => one_at_a_time(key),
    }
}

fn name(server: &RingServer, number: u32) -> Vec<u8> {
    let RingServer { host, port, .. } = server;
    if *port == DEFAULT_PORT { format!("{host}-{number}") } else { format!("{host}:{port}-{number}") }
        .into_bytes()
}

/// How many names of a server are hashed, for 4 points each.
///
/// In single precision, as there: the rounding leaves each of 25 equal servers 39 instead of 40, and a name more would
/// lead some keys to another server than libmemcached's. libmemcached adds 1e-10 before it rounds, which is too little
/// to change a number of this precision.
fn names(weight: u32, total: u64, servers: usize) -> u32 {
    let share = weight as f32 / total as f32;
    (share * WEIGHTED / 4.0 * servers as f32).floor() as u32
}

/// The four numbers of an MD5 sum.
fn quarters(bytes: &[u8]) -> [u32; 4] {
    let sum: [u8; 16] = Md5::digest(bytes).into();
    let number = |at: usize| u32::from_le_bytes([sum[at], sum[at + 1], sum[at + 2], sum[at + 3]]);
    [number(0), number(4), number(8), number(12)]
}

/// Jenkins' hash over signed bytes: what `char` is where libmemcached's answers are compared with, on x86. On ARM it
/// is unsigned, and libmemcached there disagrees with itself about keys with bytes above 127.
fn one_at_a_time(bytes: &[u8]) -> u32 {
    let mut value: u32 = 0;
    for byte in bytes {
        value = value.wrapping_add(i32::from(byte.cast_signed()).cast_unsigned());
        value = value.wrapping_add(value << 10);
        value ^= value >> 6;
    }
    value = value.wrapping_add(value << 3);
    value ^= value >> 11;
    value.wrapping_add(value << 15)
}
