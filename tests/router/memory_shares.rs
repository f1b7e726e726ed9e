//! Buffers near the end of their budget: the apps that hold most of it are
//! refused, and those that hold little notice nothing.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::json;

use crate::harness::{
    Backend, Client, Router, answer_ok, eventually, get, patterned, pause, with_body,
};

/// Buffers may take this much in the tests below.
const BUFFERS: f64 = 4_194_304.0;

/// A pause in a body that is longer than the router takes to look at its memory.
const PAUSE: Duration = Duration::from_millis(400);

fn short_of_memory() -> Router {
    let buffers = format!("edge.buffer_bytes={BUFFERS}");
    Router::with(&["edge.threads=1", &buffers, "edge.min_drain_rate=0"])
}

type Gate = Arc<(Mutex<bool>, Condvar)>;

fn open(gate: &Gate) {
    *gate.0.lock().expect("nobody panics holding it") = true;
    gate.1.notify_all();
}

fn pass(gate: &Gate) {
    let opened = gate.0.lock().expect("nobody panics holding it");
    let waited = gate.1.wait_while(opened, |open| !*open);
    drop(waited.expect("nobody panics holding it"));
}

/// Answers with more than anybody takes, once the gate is open.
fn flood(gate: &Gate) -> Backend {
    let (gate, piece) = (Arc::clone(gate), patterned(64 * 1024));
    Backend::script(move |mut conn| {
        if conn.request().is_some() {
            conn.write("HTTP/1.1 200 OK\r\n\r\nx");
            pass(&gate);
            (0..1_000).all(|_| conn.write(&piece));
        }
    })
}

/// Begins an answer that is not taken; `None`: it was refused.
fn begin_stuck(router: &Router, app: &str) -> Option<Client> {
    let mut client = router.client();
    client.send(get(app, "/"));
    let answer = client.head().expect("there must be an answer");
    match answer.status {
        200 => Some(client),
        _ => {
            answer.refused(503, "H22");
            None
        }
    }
}

/// As many answers that nobody takes as the router lets the app have.
fn fill(router: &Router, app: &str) -> Vec<Client> {
    let mut stuck = Vec::new();
    eventually("the app is refused more", || {
        match begin_stuck(router, app) {
            Some(client) => stuck.push(client),
            None => return Some(()),
        }
        None
    });
    stuck
}

/// Asks a quiet app in all ways, each with success: at once, and with a body that
/// pauses on its way.
fn ask_quietly(router: &Router, app: &str) {
    let body = "x".repeat(12_000);
    let request = with_body("POST", app, "/", "", &body);
    let (first, rest) = request.split_at(request.len() - 4_000);
    let mut slow: Vec<Client> = (0..4).map(|_| router.client()).collect();
    for client in &mut slow {
        client.send(first);
    }
    let mut quick = router.client();
    for number in 0..50 {
        quick.send(get(app, &format!("/{number}")));
        quick.answer().expect(200);
        router.get(app, "/new").expect(200);
    }
    pause(PAUSE);
    for client in &mut slow {
        client.send(rest);
        assert_eq!(client.answer().expect(200).text(), body);
    }
}

fn buffer_bytes(router: &Router) -> f64 {
    router.counted("portico_buffer_bytes", "")
}

#[test]
fn an_app_whose_clients_take_nothing_is_refused_and_a_quiet_one_is_not() {
    let router = short_of_memory();
    let gate = Gate::default();
    open(&gate);
    let (noisy, quiet) = (flood(&gate), Backend::echo());
    router.serve_with("noisy", &json!({ "max_concurrency": 500 }), &[&noisy]);
    router.serve("quiet", &[&quiet]);
    let stuck = fill(&router, "noisy");
    for _ in 0..3 {
        ask_quietly(&router, "quiet");
        assert!(begin_stuck(&router, "noisy").is_none());
    }
    let held = buffer_bytes(&router);
    assert!((0.7 * BUFFERS..BUFFERS).contains(&held), "{held} bytes");
    assert!(router.counted("portico_requests_shed_memory_total", "") >= 4.0);
    assert_eq!(
        router.counted("portico_client_connections_closed_total", "evicted"),
        0.0
    );
    router.wait_event("buffers_shed", "noisy", "");
    let taken = || router.counted("portico_buffer_taken_bytes", "");
    assert!((0.6 * BUFFERS..BUFFERS).contains(&taken()));
    drop(stuck);
    eventually("nothing is held for it any more", || {
        (taken() < 1.0).then_some(())
    });
    eventually("it is served again", || begin_stuck(&router, "noisy"));
}

#[test]
fn answers_that_all_come_at_once_leave_a_quiet_app_its_room() {
    let router = short_of_memory();
    let gate = Gate::default();
    let (noisy, quiet) = (flood(&gate), Backend::echo());
    router.serve_with("noisy", &json!({ "max_concurrency": 500 }), &[&noisy]);
    router.serve("quiet", &[&quiet]);
    // Of 16 KiB each at least, once they are answered.
    let stuck: Vec<Client> = (0..300)
        .map(|_| begin_stuck(&router, "noisy").expect("there is room for all heads"))
        .collect();
    open(&gate);
    eventually("some are cut", || {
        let cut = router.counted("portico_client_connections_closed_total", "evicted");
        ask_quietly(&router, "quiet");
        (cut > 20.0).then_some(())
    });
    ask_quietly(&router, "quiet");
    let held = buffer_bytes(&router);
    assert!(held < BUFFERS, "{held} bytes");
    drop(stuck);
}

#[test]
fn two_apps_that_want_all_of_it_leave_a_third_its_part() {
    let router = short_of_memory();
    let gate = Gate::default();
    open(&gate);
    let (one, other, quiet) = (flood(&gate), flood(&gate), Backend::echo());
    router.serve_with("one", &json!({ "max_concurrency": 500 }), &[&one]);
    router.serve_with("other", &json!({ "max_concurrency": 500 }), &[&other]);
    router.serve("quiet", &[&quiet]);
    let _stuck = fill(&router, "one");
    let others = fill(&router, "other");
    // What is left where one has taken all that it may.
    assert!(others.len() > 5, "{} answers", others.len());
    assert!(begin_stuck(&router, "one").is_none());
    ask_quietly(&router, "quiet");
}

/// Bodies that come slowly go where memory is short: not the oldest, but those of
/// the app that holds most of it.
#[test]
fn slow_bodies_go_whose_app_holds_most_of_the_memory() {
    let router = short_of_memory();
    let gate = Gate::default();
    let waits = gate.clone();
    let slow = Backend::app(move |_| {
        pass(&waits);
        answer_ok("late")
    });
    let quiet = Backend::echo();
    let policy = json!({ "replay_bytes": 1_000_000, "max_concurrency": 500 });
    router.serve_with("noisy", &policy, &[&slow]);
    router.serve("quiet", &[&quiet]);
    let half = |app: &str| {
        let mut client = router.client();
        let request = with_body("POST", app, "/half", "", &"x".repeat(20_000));
        client.send(&request[..request.len() - 15_000]);
        client
    };
    let mut old: Vec<Client> = (0..8).map(|_| half("quiet")).collect();
    let body = "x".repeat(900_000);
    let mut kept: Vec<Client> = (0..4).map(|_| router.client()).collect();
    for client in &mut kept {
        client.send(with_body("POST", "noisy", "/kept", "", &body));
    }
    let mut halves: Vec<Client> = Vec::new();
    eventually("bodies go", || {
        halves.push(half("noisy"));
        let gone = router.counted("portico_client_connections_closed_total", "evicted");
        (gone >= 20.0).then_some(())
    });
    for client in &mut old {
        client.send("x".repeat(15_000));
        client.answer().expect(200);
    }
    ask_quietly(&router, "quiet");
    router.logged_code("/half", "H22");
    open(&gate);
    for client in &mut kept {
        assert_eq!(client.answer().expect(200).text(), "late");
    }
}
