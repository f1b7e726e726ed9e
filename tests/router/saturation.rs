//! More requests than an app can answer: those that it can are answered, in
//! time, and the others are told so at once. Nobody has said how many it can.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::load::Sent;
use crate::harness::{Backend, Load, Router, answer_ok, eventually, get, pause, within};

/// What an app can do is learned in a few seconds. Noise misleads for a few more,
/// and a busy machine is noise.
const LEARNING: Duration = Duration::from_secs(90);

/// A backend that serves so many requests at once, each for so long, and lets
/// all others wait inside.
fn workers(count: usize, each: Duration) -> Backend {
    let free = Arc::new((Mutex::new(count), Condvar::new()));
    Backend::app(move |_| {
        let (free, freed) = &*free;
        let mut count = free.lock().expect("no worker panics");
        while *count == 0 {
            count = freed.wait(count).expect("no worker panics");
        }
        *count -= 1;
        drop(count);
        pause(each);
        *free.lock().expect("no worker panics") += 1;
        freed.notify_one();
        answer_ok("done")
    })
}

fn codes(sent: &[Sent]) -> Vec<String> {
    let answers = sent.iter().filter_map(|sent| sent.result.as_ref().ok());
    answers.filter_map(|answer| answer.code()).collect()
}

/// Load from so many places that the line stands, until it does.
fn flood(router: &Router) -> Vec<Load> {
    // Sudden on a busy machine too: of what comes slowly none may be turned away.
    let mut burst: Vec<_> = (0..200).map(|_| router.client()).collect();
    for client in &mut burst {
        client.send(get("shop", "/burst"));
    }
    let loads: Vec<_> = (0..4).map(|_| Load::gets(router, "shop", 150)).collect();
    within(LEARNING, "requests are shed", || {
        (router.counted("portico_queue_waits_total", "shed") > 0.0).then_some(())
    });
    loads
}

#[test]
fn what_an_app_cannot_do_is_refused_at_once_and_what_it_can_is_done() {
    let router = Router::start();
    let one = workers(2, Duration::from_millis(40));
    // 50 a second, of 600.
    router.serve("shop", &[&one]);
    let loads = flood(&router);
    within(LEARNING, "its limit is learned", || {
        let limit = router.backend("shop", "web.1")["limit"].as_u64();
        limit.is_some_and(|limit| limit <= 8).then_some(())
    });
    for load in &loads {
        load.wait(300);
    }
    let sent: Vec<Sent> = loads.into_iter().flat_map(Load::stop).collect();
    let done: Vec<_> = sent.iter().filter(|sent| sent.is(200)).collect();
    assert!(done.len() >= 20, "{} of {}", done.len(), sent.len());
    let codes = codes(&sent);
    assert!(codes.iter().all(|code| code == "H11"), "{codes:?}");
    let shed = sent.iter().filter_map(|sent| sent.result.as_ref().ok());
    let shed = shed.filter(|answer| answer.status == 503);
    for answer in shed {
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_ne!(answer.header("connection"), Some("close"));
    }
}

#[test]
fn nothing_is_shed_once_a_spike_is_over() {
    let router = Router::start();
    let one = workers(2, Duration::from_millis(20));
    router.serve("shop", &[&one]);
    for load in flood(&router) {
        load.stop();
    }
    let over = Instant::now();
    eventually("the line is gone", || {
        let load = Load::gets(&router, "shop", 20);
        load.wait(20);
        codes(&load.stop()).is_empty().then_some(())
    });
    assert!(
        over.elapsed() < Duration::from_secs(15),
        "{:?}",
        over.elapsed()
    );
}

#[test]
fn a_burst_is_queued_and_answered_whole() {
    let router = Router::start();
    let one = workers(2, Duration::from_millis(20));
    router.serve_with("shop", &json!({ "max_concurrency": 2 }), &[&one]);
    let mut burst: Vec<_> = (0..50)
        .map(|number| {
            let mut client = router.client();
            client.send(get("shop", &format!("/burst/{number}")));
            client
        })
        .collect();
    for client in &mut burst {
        client.answer().expect(200);
    }
}

/// Streams, long answers and pipes are in flight for as long as they like: they
/// keep nobody from their backend.
#[test]
fn answers_that_go_on_take_no_part_of_what_is_learned() {
    let router = Router::start();
    let streams = Backend::script(|mut conn| {
        while let Some(request) = conn.request() {
            if request.target.starts_with("/stream") {
                conn.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
                while conn.take(1).is_some() {}
                return;
            }
            conn.write(answer_ok("short"));
        }
    });
    router.serve("shop", &[&streams]);
    let open: Vec<_> = (0..60)
        .map(|number| {
            let mut client = router.client();
            client.send(get("shop", &format!("/stream/{number}")));
            client.head().expect("it must begin");
            client
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(router.get("shop", "/").expect(200).text(), "short");
    }
    drop(open);
}

/// A body that comes a moment after its head is no slow client's: what the app
/// allows a backend holds for it.
#[test]
fn bodies_that_come_after_their_heads_do_not_pass_the_limit_by() {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    let router = Router::start();
    let (now, peak) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let seen = peak.clone();
    let one = Backend::app(move |_| {
        seen.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
        pause(Duration::from_millis(10));
        now.fetch_sub(1, SeqCst);
        answer_ok("done")
    });
    router.serve_with("shop", &json!({ "max_concurrency": 4 }), &[&one]);
    let mut clients: Vec<_> = (0..40)
        .map(|_| {
            let mut client = router.client();
            client.send("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 4\r\n\r\n");
            client
        })
        .collect();
    pause(Duration::from_millis(20));
    for client in &mut clients {
        client.send("body");
    }
    for client in &mut clients {
        client.answer().expect(200);
    }
    let peak = peak.load(SeqCst);
    assert!(peak <= 6, "{peak} at once");
}

/// Clients that are slow to stream take no places of others, and a drain waits for
/// them.
#[test]
fn a_slow_upload_keeps_nobody_out_and_is_in_flight_to_its_end() {
    let router = Router::start();
    let echo = Backend::app(|request| answer_ok(&format!("{} bytes", request.body.len())));
    router.serve_with("shop", &json!({ "max_concurrency": 2 }), &[&echo]);
    let mut slow: Vec<_> = (0..2)
        .map(|_| {
            let mut client = router.client();
            client.send(
                "POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb",
            );
            client
        })
        .collect();
    router.get("shop", "/").expect(200);
    let in_flight = || router.backend("shop", "web.1")["in_flight"].as_u64();
    eventually("both uploads are in flight", || {
        (in_flight() == Some(2)).then_some(())
    });
    for client in &mut slow {
        client.send("\r\n0\r\n\r\n");
        client.answer().expect(200);
    }
}

/// Requests that are long before their first byte fill what was learned; others
/// are not kept out by that.
#[test]
fn long_polls_of_an_app_that_was_quick_keep_nobody_out() {
    let router = Router::start();
    let mixed = Backend::app(|request| {
        if request.target.starts_with("/poll") {
            pause(Duration::from_secs(12));
        }
        answer_ok("done")
    });
    router.serve("shop", &[&mixed]);
    router.get("shop", "/").expect(200);
    let polls: Vec<_> = (0..40)
        .map(|number| {
            let mut client = router.client();
            client.send(get("shop", &format!("/poll/{number}")));
            client
        })
        .collect();
    let began = Instant::now();
    let mut quick = router.client();
    quick.send(get("shop", "/quick"));
    quick.answer().expect(200);
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    drop(polls);
}
