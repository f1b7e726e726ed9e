//! Stopping: what is in flight finishes, what is new goes elsewhere, exit 0.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Backend, Client, Router, eventually, processes};

/// Answers each request once told to.
fn held() -> (Backend, std::sync::mpsc::SyncSender<()>) {
    let (release, wait) = std::sync::mpsc::sync_channel::<()>(10);
    let wait = std::sync::Mutex::new(wait);
    let backend = Backend::script(move |mut conn| {
        while conn.request().is_some() {
            let _ = wait.lock().expect("no script panics").recv();
            conn.write(crate::harness::answer_ok("finished"));
        }
    });
    (backend, release)
}

#[test]
fn sigterm_ends_an_idle_router_at_once_with_0_and_leaves_nobody() {
    let router = Router::start();
    let idle = router.client();
    let below = processes::descendants(router.pid());
    assert!(
        below.len() >= 2,
        "control and edge run below the supervisor: {below:?}"
    );
    let started = Instant::now();
    router.stop();
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    assert!(below.iter().all(|&pid| !processes::alive(pid)));
    drop(idle);
}

#[test]
fn sigterm_lets_requests_in_flight_finish() {
    let mut router = Router::start();
    let (backend, release) = held();
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send("GET /flight HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    backend.request();
    router.signal(Signal::TERM);
    eventually("the router no longer says ready", || {
        (router.ready_status() != Some(200)).then_some(())
    });
    assert!(
        client.silent(Duration::from_millis(200)),
        "the request must go on"
    );
    release.send(()).expect("the backend must be there");
    let answer = client.answer().expect(200);
    assert_eq!(answer.text(), "finished");
    assert_eq!(
        answer.header("connection"),
        Some("close"),
        "no more requests on it"
    );
    client.closed();
    assert_eq!(router.ended().code(), Some(0));
    assert!(
        router.log().contains("path=\"/flight\""),
        "the last lines are written"
    );
}

#[test]
fn sigterm_lets_a_body_being_sent_finish() {
    let mut router = Router::start();
    let (release, wait) = std::sync::mpsc::sync_channel::<()>(1);
    let wait = std::sync::Mutex::new(wait);
    let backend = Backend::script(move |mut conn| {
        if conn.request().is_some() {
            conn.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst");
            let _ = wait.lock().expect("no script panics").recv();
            conn.write("-last");
        }
    });
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    client.head().expect("the answer must begin");
    assert_eq!(client.take(5), b"first");
    router.signal(Signal::TERM);
    eventually("the router no longer says ready", || {
        (router.ready_status() != Some(200)).then_some(())
    });
    release.send(()).expect("the backend must be there");
    assert_eq!(client.take(5), b"-last");
    assert_eq!(router.ended().code(), Some(0));
}

#[test]
fn h24_what_outlives_the_drain_is_cut() {
    let mut router = Router::with(&["edge.drain_timeout=\"500ms\""]);
    let (backend, _release) = held();
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send("GET /stuck HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    backend.request();
    let started = Instant::now();
    router.signal(Signal::TERM);
    client.rest();
    assert!(
        started.elapsed() >= Duration::from_millis(400),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(router.ended().code(), Some(0));
    router.logged_code("/stuck", "H24");
}

#[test]
fn sigint_stops_it_too() {
    let mut router = Router::start();
    router.signal(Signal::INT);
    let status = router.ended();
    assert_eq!(status.code(), Some(0), "as SIGTERM: {status}");
}

#[test]
fn a_restart_keeps_everything_registered() {
    let router = Router::start();
    let backend = Backend::named("kept");
    router.serve("shop", &[&backend]);
    let token = router.token();
    let router = router.stop().start();
    assert_eq!(router.token(), token, "the token stays");
    assert_eq!(router.get("shop", "/").expect(200).text(), "kept");
    assert_eq!(
        router.read("/v1/apps/shop").expect(200).json()["domains"][0],
        "shop.example"
    );
}

#[test]
fn connections_are_refused_once_it_is_gone() {
    let router = Router::start();
    let address = router.http();
    router.stop();
    assert!(Client::try_connect(address).is_err());
}
