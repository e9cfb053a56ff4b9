//! A network that does what networks do, between a cache and its server.

use std::time::{Duration, Instant};

use cache_kit::Cache;
use cache_kit_test_support::{Cut, Direction, Fault, FaultProxy};
use futures_util::future::join_all;

use super::bounded;

/// Faults of any protocol, and bytes of this one that nobody asked for.
fn faults(injected: &[&[u8]]) -> Vec<Fault> {
    let mut faults = vec![
        Fault::Delay(Duration::from_millis(20)),
        Fault::Throttle { bytes_per_second: 20_000 },
        Fault::Slice { bytes: 1 },
        Fault::CutAfter { bytes: 100, how: Cut::Fin },
        Fault::CutAfter { bytes: 101, how: Cut::Rst },
        Fault::Blackhole { keep_reading: true },
        Fault::Blackhole { keep_reading: false },
        Fault::Stall,
        Fault::DuplicateReply,
        Fault::SwapReplies,
        Fault::FlipBit { at: 3 },
        Fault::FlipBit { at: 700 },
        Fault::RefuseAccept,
    ];
    faults.extend(injected.iter().map(|bytes| Fault::Inject(bytes.to_vec())));
    faults
}

/// Whatever the network does in either direction: values are right or not there, and nobody waits for long. `cache`
/// reads through the proxy, with operations of `deadline`; `direct` stores beside it. `is_well` is asked until it says so,
/// when the network is.
pub async fn no_value_is_wrong_and_nothing_hangs(
    proxy: &FaultProxy,
    (cache, deadline): (&Cache, Duration),
    direct: &Cache,
    injected: &[&[u8]],
    is_well: impl AsyncFn() -> bool,
) {
    let (mut right, mut misses, mut failed) = (0, 0, 0);
    for direction in [Direction::ToClient, Direction::ToServer] {
        for fault in faults(injected) {
            let what = format!("{direction:?} {fault:?}");
            for key in 0..16_u64 {
                direct.set(format!("key:{key}"), &key).await.unwrap();
            }
            proxy.set(direction, fault);
            let reads = (0..16_u64).map(async |key| {
                let began = Instant::now();
                let found = cache.get::<u64>(format!("key:{key}")).await;
                assert!(began.elapsed() < 10 * deadline, "{what}: hung for {:?}", began.elapsed());
                (key, found)
            });
            for (key, found) in join_all(reads).await {
                match found {
                    Ok(Some(value)) => {
                        assert_eq!(value, key, "{what}: a wrong value");
                        right += 1;
                    }
                    Ok(None) => misses += 1,
                    Err(_) => failed += 1,
                }
            }
            proxy.clear();
            proxy.cut_all(Cut::Rst);
            bounded(async {
                while !is_well().await {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .await;
        }
    }
    println!("{right} right, {misses} misses, {failed} failed; found out: {:?}", cache.stats().rejected);
    assert!(right > 0 && failed > 0);
}
