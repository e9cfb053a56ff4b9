//! A connection that many callers write into: each gets its own answer, in time, or an error.

#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test that cannot go on fails")]

mod toy;

use std::future::Future;
use std::io::{BufRead, Write};
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::task::Poll;
use std::time::{Duration, Instant};

use cache_kit_net::{CallError, Connection, Lost, Permit, Pipe, PipeLimits, Sockets, dial};
use toy::{Lines, Server, ask, ask_within, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_callers_get_each_its_own_answer() {
    let server = Server::echo();
    let pipe = Arc::new(server.connect().await);
    let callers = (0..5_000).map(|n| {
        let pipe = Arc::clone(&pipe);
        tokio::spawn(async move {
            for round in 0..4 {
                let text = format!("{n} in round {round} {}", "x".repeat(n % 300));
                assert_eq!(ask(&pipe, &text).await.unwrap(), text);
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    assert_eq!(pipe.in_flight(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_go_away_leave_the_others_their_answers() {
    let server = Server::echo();
    let pipe = Arc::new(server.connect().await);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let tasks: Vec<_> = (0..50)
        .map(|task| {
            let pipe = Arc::clone(&pipe);
            tokio::spawn(async move {
                let mut random = fastrand::Rng::with_seed(seed + task);
                for n in 0..2_000 {
                    let text = format!("{task} {n}");
                    let mut call = pin!(ask(&pipe, &text));
                    for _ in 0..random.u32(..4) {
                        let polled = std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
                        if let Poll::Ready(answer) = polled {
                            assert_eq!(answer.unwrap(), text);
                            break;
                        }
                        tokio::task::yield_now().await;
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(ask(&pipe, "after all").await.unwrap(), "after all");
    assert_eq!(server.counts().2, 1, "the first connection serves to the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_answer_leaves_behind_that_nobody_received_is_cleared_up() {
    let lent = Arc::new(std::sync::Mutex::new(std::collections::HashSet::new()));
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
    for n in 0..2_000_u32 {
        let text = format!("lend {n}");
        let mut call = Box::pin(ask(&pipe, &text));
        for _ in 0..n % 4 {
            if std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_ready())).await {
                received += 1;
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    ask(&pipe, "last").await.unwrap();
    until("what nobody has is back", || lent.lock().unwrap().len() == received).await;
    assert!(received < 2_000, "nobody went away");
}

#[tokio::test]
async fn an_answer_in_pieces_is_an_answer() {
    let server = Server::with(|from, to| {
        for line in from.lines() {
            for byte in format!("{}\n", line?).bytes() {
                to.write_all(&[byte])?;
            }
        }
        Ok(())
    });
    let pipe = server.connect().await;
    let (a, b) = tokio::join!(ask(&pipe, "one"), ask(&pipe, "two"));
    assert_eq!((a.unwrap().as_str(), b.unwrap().as_str()), ("one", "two"));
}

#[tokio::test]
async fn large_requests_and_answers_pass_while_both_directions_are_full() {
    let server = Server::echo();
    let pipe = server.connect().await;
    let text = "x".repeat(3 << 20);
    let (a, b, c, d) =
        tokio::join!(ask(&pipe, &text), ask(&pipe, "small"), ask(&pipe, &text), ask(&pipe, &text));
    assert_eq!(b.unwrap(), "small");
    for large in [a, c, d] {
        assert_eq!(large.unwrap().len(), text.len());
    }
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_end_the_connection() {
    let server = Server::with(|from, to| {
        let mut line = String::new();
        from.read_line(&mut line)?;
        to.write_all(format!("{line}7 too many\n").as_bytes())?;
        from.read_line(&mut line)?;
        Ok(())
    });
    let pipe = server.connect().await;
    assert_eq!(ask(&pipe, "one").await.unwrap(), "one");
    until("the end", || pipe.is_closed()).await;
    let error = ask(&pipe, "two").await.unwrap_err();
    assert!(matches!(error, CallError::Lost(Lost::Violation(_))), "{error:?}");
}

#[tokio::test]
async fn answers_out_of_step_end_the_connection_and_go_to_nobody() {
    let server = Server::with(|from, to| {
        let (mut one, mut two) = (String::new(), String::new());
        from.read_line(&mut one)?;
        from.read_line(&mut two)?;
        to.write_all(format!("{two}{one}").as_bytes())
    });
    let pipe = server.connect().await;
    let (a, b) = tokio::join!(ask(&pipe, "one"), ask(&pipe, "two"));
    for answer in [a, b] {
        assert_eq!(answer, Err(CallError::Lost(Lost::Violation("another number"))));
    }
    assert!(pipe.is_closed());
}

#[tokio::test]
async fn an_answer_that_leaves_doubt_is_delivered_and_is_the_last() {
    let server = Server::echo();
    let pipe = server.connect().await;
    let (a, b) = tokio::join!(ask(&pipe, "the end"), ask(&pipe, "later"));
    assert_eq!(a.unwrap(), "the end");
    assert!(matches!(b, Err(CallError::Lost(_))), "{b:?}");
    assert!(pipe.is_closed());
}

#[tokio::test]
async fn a_server_that_goes_away_fails_what_is_under_way_at_once() {
    let server = Server::with(|from, _| {
        from.read_line(&mut String::new())?;
        Ok(())
    });
    let pipe = server.connect().await;
    let began = Instant::now();
    assert_eq!(ask(&pipe, "x").await, Err(CallError::Lost(Lost::Closed)));
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(ask(&pipe, "y").await, Err(CallError::Lost(Lost::Closed)), "and what comes later");
}

#[tokio::test]
async fn a_call_ends_at_its_deadline_and_its_late_answer_is_nobody_elses() {
    let (go_on, wait) = channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let server = Server::with(move |from, to| {
        let mut late = String::new();
        from.read_line(&mut late)?;
        wait.lock().unwrap().recv().unwrap();
        to.write_all(late.as_bytes())?;
        for line in from.lines() {
            to.write_all(format!("{}\n", line?).as_bytes())?;
        }
        Ok(())
    });
    let pipe = server.connect().await;
    let (bound, began) = (Duration::from_millis(100), Instant::now());
    assert_eq!(ask_within(&pipe, "late", bound).await, Err(CallError::TimedOut));
    let took = began.elapsed();
    assert!(took >= bound && took < 20 * bound, "{took:?}");
    assert_eq!(pipe.in_flight(), 1, "its place is kept");
    go_on.send(()).unwrap();
    assert_eq!(ask(&pipe, "next").await.unwrap(), "next");
    assert_eq!(pipe.in_flight(), 0);
}

#[test]
fn deadlines_hold_while_the_runtime_of_the_connection_stands_still() {
    let server = Server::echo();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Alive, but run by nobody from here on, as one whose only thread is busy.
    let stands_still = runtime();
    let pipe = stands_still.block_on(server.connect());
    let (bound, began) = (Duration::from_millis(100), Instant::now());
    let answers = runtime().block_on(async {
        // The first writes directly; its answer is read by nobody.
        let (a, b) = tokio::join!(ask_within(&pipe, "one", bound), ask_within(&pipe, "two", bound));
        [a, b]
    });
    assert_eq!(answers, [Err(CallError::TimedOut), Err(CallError::TimedOut)]);
    assert!(began.elapsed() < 20 * bound, "{:?}", began.elapsed());
    // And who closes it does not wait for that runtime either.
    let pipe = Arc::new(pipe);
    let (asked, closed) = (Arc::clone(&pipe), Instant::now());
    let caller = std::thread::spawn(move || runtime().block_on(ask(&asked, "three")));
    while pipe.in_flight() < 3 {
        std::thread::yield_now();
    }
    pipe.close();
    assert_eq!(caller.join().unwrap(), Err(CallError::Lost(Lost::Dropped)));
    assert!(closed.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_connection_ends_with_its_runtime_and_so_do_its_calls_and_its_permit() {
    let server = Server::with(|from, _| {
        from.read_line(&mut String::new())?;
        from.read_line(&mut String::new())?;
        Ok(())
    });
    let sockets = Arc::new(Sockets::default());
    let permit = Permit::take(&sockets, 1).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let pipe = runtime.block_on(async {
        Pipe::new(dial(&server.address()).await.unwrap(), Lines, PipeLimits::default(), permit).unwrap()
    });
    let pipe = Arc::new(pipe);
    let asked = Arc::clone(&pipe);
    let caller = std::thread::spawn(move || {
        let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        other.block_on(ask(&asked, "one"))
    });
    while pipe.in_flight() == 0 {
        std::thread::yield_now();
    }
    assert!(Permit::take(&sockets, 1).is_none());
    runtime.shutdown_timeout(Duration::from_secs(10));
    assert_eq!(caller.join().unwrap(), Err(CallError::Lost(Lost::Dropped)));
    assert!(Permit::take(&sockets, 1).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_beyond_the_bound_wait_for_room_until_their_deadline() {
    let (go_on, wait) = channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let server = Server::with(move |from, to| {
        wait.lock().unwrap().recv().unwrap();
        for line in from.lines() {
            to.write_all(format!("{}\n", line?).as_bytes())?;
        }
        Ok(())
    });
    let limits = PipeLimits { calls: 2, ..PipeLimits::default() };
    let pipe = Arc::new(server.connect_with(limits).await);
    let spawn = |text: &'static str| {
        let pipe = Arc::clone(&pipe);
        tokio::spawn(async move { ask(&pipe, text).await })
    };
    let first = [spawn("one"), spawn("two")];
    until("two calls", || pipe.in_flight() == 2).await;
    assert_eq!(ask_within(&pipe, "x", Duration::from_millis(50)).await, Err(CallError::TimedOut));
    assert_eq!(pipe.in_flight(), 2);
    let third = spawn("three");
    go_on.send(()).unwrap();
    for call in first {
        call.await.unwrap().unwrap();
    }
    assert_eq!(third.await.unwrap().unwrap(), "three");
}

#[tokio::test]
async fn many_deadlines_in_a_row_make_a_connection_suspect_and_one_answer_clears_it() {
    let server = Server::echo();
    let pipe = server.connect().await;
    assert!(!pipe.silent());
    ask(&pipe, "x").await.unwrap();
    assert!(!pipe.silent());
    assert!(pipe.silent());
}

#[tokio::test]
async fn a_unix_socket_serves_as_tcp_does() {
    let dir = std::env::temp_dir().join(format!("cache-kit-net-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut to = stream.try_clone().unwrap();
        for line in std::io::BufReader::new(stream).lines() {
            to.write_all(format!("{}\n", line.unwrap()).as_bytes()).unwrap();
        }
    });
    let permit = Permit::take(&Arc::new(Sockets::default()), 1).unwrap();
    let stream = dial(&cache_kit_net::Address::Unix(path)).await.unwrap();
    let pipe = Pipe::new(stream, Lines, PipeLimits::default(), permit).unwrap();
    let (a, b) = tokio::join!(ask(&pipe, "one"), ask(&pipe, "two"));
    assert_eq!((a.unwrap().as_str(), b.unwrap().as_str()), ("one", "two"));
    drop(pipe);
    tokio::task::spawn_blocking(move || server.join().unwrap()).await.unwrap();
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_around_a_socket_serves_as_the_socket_does() {
    let server = Server::echo();
    let permit = Permit::take(&Arc::new(Sockets::default()), 1).unwrap();
    let stream = cache_kit_net::Stream::wrapped(dial(&server.address()).await.unwrap());
    let pipe = Arc::new(Pipe::new(stream, Lines, PipeLimits::default(), permit).unwrap());
    let callers: Vec<_> = (0..500)
        .map(|n| {
            let pipe = Arc::clone(&pipe);
            tokio::spawn(async move {
                let text = n.to_string();
                assert_eq!(ask(&pipe, &text).await.unwrap(), text);
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
}
