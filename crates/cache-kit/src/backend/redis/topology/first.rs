//! The first good answer of several servers, of which some may be gone.

use std::future::Future;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::timeout;

/// After so long without an answer the next one is asked as well.
const NEXT: Duration = Duration::from_millis(100);

/// Asks one after the other, the next as soon as one has failed or is slow, and gives the first answer that is good; the
/// last error if none is; `None` if nobody was asked.
pub(super) async fn first<F, T, E>(asking: impl IntoIterator<Item = F>) -> Option<Result<T, E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut left = asking.into_iter();
    let mut asked = FuturesUnordered::new();
    let mut last = None;
    loop {
        let more = match left.next() {
            Some(next) => {
                asked.push(next);
                true
            }
            None => false,
        };
        let answer = match more {
            true => timeout(NEXT, asked.next()).await,
            false => Ok(asked.next().await),
        };
        match answer {
            Ok(Some(Ok(answer))) => return Some(Ok(answer)),
            Ok(Some(Err(error))) => last = Some(Err(error)),
            Ok(None) => return last,
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn after(millis: u64, answer: Result<u8, u8>) -> Result<u8, u8> {
        tokio::time::sleep(Duration::from_millis(millis)).await;
        answer
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_hangs_does_not_hold_up_the_answer_of_another() {
        let began = tokio::time::Instant::now();
        let answer = first([after(60_000, Ok(1)), after(10, Err(2)), after(10, Ok(3))]).await;
        assert_eq!(answer, Some(Ok(3)));
        assert!(began.elapsed() < Duration::from_millis(150), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_error_is_given_when_nobody_has_a_good_answer() {
        assert_eq!(first([after(1, Err(1)), after(1, Err(2))]).await, Some(Err(2)));
        assert_eq!(first(Vec::<std::future::Ready<Result<u8, u8>>>::new()).await, None);
    }
}
