//! Many calls that go together: each has its own answer, and none is lost with the caller.

#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test that cannot go on fails")]

mod toy;

use std::collections::HashSet;
use std::future::Future;
use std::io::{BufRead, Write};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use cache_kit_net::{CallError, Connection, Lost, PipeLimits};
use toy::{Line, Server, ask, encode, until};

async fn ask_all(pipe: &Line, texts: &[String], bound: Duration) -> Vec<Result<String, CallError>> {
    let encode = |at: usize, number, out: &mut Vec<u8>| encode(&texts[at])(number, out);
    pipe.call_many(Instant::now() + bound, texts.len(), encode).await
}

fn texts(what: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{what} {n} {}", "x".repeat(n % 200))).collect()
}

const LONG: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_has_its_own_answer_in_order_beside_those_of_others() {
    let server = Server::echo();
    for limits in [PipeLimits::default(), PipeLimits { calls: 7, bytes: 1_000 }] {
        let pipe = Arc::new(server.connect_with(limits).await);
        let tasks: Vec<_> = (0..20)
            .map(|task| {
                let pipe = Arc::clone(&pipe);
                tokio::spawn(async move {
                    for round in 0..10 {
                        let texts = texts(&format!("{task} {round}"), task * 10);
                        let answers = ask_all(&pipe, &texts, LONG).await;
                        assert_eq!(answers.into_iter().map(Result::unwrap).collect::<Vec<_>>(), texts);
                        assert_eq!(ask(&pipe, "one").await.unwrap(), "one");
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(pipe.in_flight(), 0);
    }
}

#[tokio::test]
async fn those_without_an_answer_fail_and_the_others_do_not() {
    // Three answers, and then silence; or the end.
    for ends in [false, true] {
        let server = Server::with(move |from, to| {
            for line in from.lines().take(3) {
                to.write_all(format!("{}\n", line?).as_bytes())?;
            }
            if !ends {
                std::io::copy(from, &mut std::io::sink())?;
            }
            Ok(())
        });
        let pipe = server.connect().await;
        let bound = if ends { LONG } else { Duration::from_millis(100) };
        let answers = ask_all(&pipe, &texts("x", 5), bound).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 3);
        let lost = answers[4].clone().unwrap_err();
        if ends {
            assert!(matches!(lost, CallError::Lost(Lost::Closed | Lost::Io(_))), "{lost:?}");
            assert!(pipe.is_closed());
        } else {
            assert_eq!(lost, CallError::TimedOut);
        }
    }
}

#[tokio::test]
async fn those_that_find_no_room_until_the_deadline_are_told_so() {
    let server = Server::with(|from, _| std::io::copy(from, &mut std::io::sink()).map(|_| ()));
    let pipe = server.connect_with(PipeLimits { calls: 3, ..PipeLimits::default() }).await;
    let answers = ask_all(&pipe, &texts("x", 10), Duration::from_millis(50)).await;
    assert_eq!(answers, vec![Err(CallError::TimedOut); 10]);
    assert_eq!(pipe.in_flight(), 3, "their places are kept, and no more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_answers_leave_behind_is_cleared_up_when_the_caller_goes_away() {
    let lent = Arc::new(Mutex::new(HashSet::new()));
    let log = Arc::clone(&lent);
    let server = Server::with(move |from, to| {
        for line in from.lines() {
            let line = line?;
            let mut words = line.split(' ').skip(1);
            match (words.next(), words.next()) {
                (Some("lend"), Some(what)) => assert!(log.lock().unwrap().insert(what.to_owned())),
                (Some("back"), Some(what)) => assert!(log.lock().unwrap().remove(what)),
                _ => {}
            }
            to.write_all(format!("{line}\n").as_bytes())?;
        }
        Ok(())
    });
    let pipe = server.connect().await;
    let mut received = 0;
    for n in 0..500_u32 {
        let texts: Vec<String> = (0..20).map(|of| format!("lend {n}:{of}")).collect();
        let mut call = Box::pin(ask_all(&pipe, &texts, LONG));
        for _ in 0..n % 5 {
            if std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_ready())).await {
                received += texts.len();
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    ask(&pipe, "last").await.unwrap();
    until("what nobody has is back", || lent.lock().unwrap().len() == received).await;
    assert!(received < 10_000, "nobody went away");
}
