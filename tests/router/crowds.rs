//! More connections than there may be: who goes, who stays, who is turned away.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::harness::{
    Backend, Client, Conduct, Instance, Router, Setup, answer_ok, eventually, patterned, stays,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n";

/// Asks once on a connection that stays.
#[track_caller]
fn ask(client: &mut Client) {
    client.send(GET);
    client.answer().expect(200);
}

/// A connection that has had an answer.
#[track_caller]
fn kept(router: &Router) -> Client {
    let mut client = router.client();
    ask(&mut client);
    client
}

/// Fails unless the router closes it, or has, without a word.
#[track_caller]
fn gone(client: &Client) {
    let mut stream: &TcpStream = client.stream();
    let read = stream.read(&mut [0]);
    let is_gone = match &read {
        Ok(count) => *count == 0,
        Err(error) => matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
        ),
    };
    assert!(is_gone, "{read:?}");
}

/// Fails unless a new connection is closed at once.
#[track_caller]
fn turned_away(router: &Router) {
    match Client::try_connect(router.http()) {
        Ok(client) => gone(&client),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

/// Asks on a new connection, if there may be one.
fn try_ask(router: &Router, request: &str) -> Option<()> {
    let mut client = Client::try_connect(router.http()).ok()?;
    client.try_send(request);
    let answer = client.try_answer_to("GET").ok()?;
    (answer.status == 200).then_some(())
}

/// Reads a head, and answers once the gate is open.
fn gated(gate: &Arc<(Mutex<bool>, Condvar)>) -> Backend {
    let gate = Arc::clone(gate);
    Backend::app(move |_| {
        let opened = gate.0.lock().expect("nobody panics holding it");
        let waited = gate.1.wait_while(opened, |open| !*open);
        drop(waited.expect("nobody panics holding it"));
        answer_ok("late")
    })
}

fn open(gate: &Arc<(Mutex<bool>, Condvar)>) {
    *gate.0.lock().expect("nobody panics holding it") = true;
    gate.1.notify_all();
}

#[test]
fn the_connection_idle_longest_makes_room_and_busy_ones_stay() {
    let router = Router::with(&["edge.threads=1", "edge.max_connections=4"]);
    let (shop, gate) = (Backend::named("ok"), Arc::default());
    let slow = gated(&gate);
    router.serve("shop", &[&shop]);
    router.serve("slow", &[&slow]);
    let mut busy = router.client();
    busy.send("GET / HTTP/1.1\r\nHost: slow.example\r\n\r\n");
    slow.request();
    let (mut first, second, third) = (kept(&router), kept(&router), kept(&router));
    ask(&mut first);
    let mut fourth = kept(&router);
    gone(&second);
    let _fifth = kept(&router);
    gone(&third);
    ask(&mut first);
    ask(&mut fourth);
    open(&gate);
    assert_eq!(busy.answer().expect(200).text(), "late");
    let evicted = router.counted("portico_client_connections_closed_total", "evicted");
    assert_eq!(evicted, 2.0);
}

#[test]
fn of_clients_without_a_request_the_one_awaited_longest_goes() {
    let router = Router::with(&["edge.threads=1", "edge.max_connections=3"]);
    let shop = Backend::named("ok");
    router.serve("shop", &[&shop]);
    let mut dripping: Vec<Client> = Vec::new();
    for number in 0..3 {
        let mut client = router.client();
        client.send("GET / HTTP/1.1\r\nHo");
        dripping.push(client);
        eventually("it is there", || {
            let open = router.counted("portico_client_connections", "");
            (open >= f64::from(number + 1)).then_some(())
        });
    }
    let mut guest = kept(&router);
    gone(&dripping[0]);
    dripping[1].send("st: shop.example\r\n\r\n");
    dripping[1].answer().expect(200);
    ask(&mut guest);
}

#[test]
fn where_all_are_busy_the_next_is_turned_away_and_an_operator_told() {
    let router = Router::with(&["edge.threads=2", "edge.max_connections=4"]);
    let gate = Arc::default();
    let slow = gated(&gate);
    router.serve("slow", &[&slow]);
    let mut busy: Vec<Client> = Vec::new();
    for number in 1..=4 {
        let mut client = router.client();
        client.send("GET / HTTP/1.1\r\nHost: slow.example\r\n\r\n");
        busy.push(client);
        eventually("the backend has it", || {
            (slow.requests().len() == number).then_some(())
        });
    }
    for _ in 0..3 {
        turned_away(&router);
    }
    let refused = router.counted("portico_client_connections_refused_total", "full");
    assert_eq!(refused, 3.0);
    eventually("an operator is told, once", || {
        (router.events("connections_full").len() == 1).then_some(())
    });
    open(&gate);
    for client in &mut busy {
        assert_eq!(client.answer().expect(200).text(), "late");
    }
    // They idle now: whoever comes is served, whichever thread has them.
    eventually("there is room again", || {
        try_ask(&router, "GET / HTTP/1.1\r\nHost: slow.example\r\n\r\n")
    });
}

/// An app that its clients wait for in line does not keep those of others out.
#[test]
fn where_nobody_idles_those_in_the_longest_line_make_room() {
    let router = Router::with(&["edge.threads=1", "edge.max_connections=40"]);
    let (gate, quiet) = (Arc::default(), Backend::named("ok"));
    let slow = gated(&gate);
    let policy = serde_json::json!({ "max_concurrency": 2, "queue": 1000 });
    router.serve_with("slow", &policy, &[&slow]);
    router.serve("live", &[&quiet]);
    let request = "GET / HTTP/1.1\r\nHost: slow.example\r\n\r\n";
    let mut busy: Vec<Client> = (0..2).map(|_| router.client()).collect();
    busy.iter_mut().for_each(|client| {
        client.send(request);
    });
    eventually("the backend has two", || {
        (slow.requests().len() == 2).then_some(())
    });
    let mut waiting: Vec<Client> = (0..38).map(|_| router.client()).collect();
    waiting.iter_mut().for_each(|client| {
        client.send(request);
    });
    eventually("the others wait", || {
        (router.counted("portico_requests_queued", "") >= 38.0).then_some(())
    });
    // The first takes the place of one in line, each other that of the one before.
    let quick: Vec<Client> = (0..5)
        .map(|_| {
            let mut client = router.client();
            client.send("GET / HTTP/1.1\r\nHost: live.example\r\n\r\n");
            client.answer().expect(200);
            client
        })
        .collect();
    let refused = router.counted("portico_client_connections_refused_total", "full");
    assert_eq!(refused, 0.0);
    router.logged_code("/", "H22");
    drop(quick);
    open(&gate);
    for client in &mut busy {
        assert_eq!(client.answer().expect(200).text(), "late");
    }
    let answers = waiting.iter_mut().map(Client::answer);
    let told = answers.filter(|answer| answer.code().as_deref() == Some("H22"));
    assert_eq!(told.count(), 1, "one is told, at once");
}

#[test]
fn an_address_has_as_many_as_it_may_and_others_are_served() {
    let router = Router::with(&["edge.max_connections_per_address=3"]);
    let shop = Backend::named("ok");
    router.serve("shop", &[&shop]);
    let mut held: Vec<Client> = (0..3).map(|_| kept(&router)).collect();
    turned_away(&router);
    held.iter_mut().for_each(ask);
    held.pop();
    eventually("its place is free", || try_ask(&router, GET));
    assert!(router.counted("portico_client_connections_refused_total", "address") >= 1.0);
    router.wait_event("address_full", "", "");
}

#[test]
fn of_a_balancers_clients_each_has_its_own_count() {
    let router = Router::with(&[
        "edge.max_connections_per_address=1",
        "edge.trusted_proxies=[\"127.0.0.0/8\",\"198.51.100.0/24\"]",
    ]);
    let shop = Backend::named("ok");
    router.serve("shop", &[&shop]);
    let from = |address: &str| {
        let mut client = router.client();
        client.send(format!("PROXY TCP4 {address} 192.0.2.1 5555 443\r\n{GET}"));
        client
    };
    let (mut one, mut other) = (from("203.0.113.9"), from("203.0.113.10"));
    one.answer().expect(200);
    other.answer().expect(200);
    gone(&from("203.0.113.9"));
    // A trusted proxy behind the balancer has any number.
    let mut proxied = [(); 3].map(|()| from("198.51.100.7"));
    for client in &mut proxied {
        client.answer().expect(200);
    }
    let closed = router.counted("portico_client_connections_closed_total", "address");
    assert_eq!(closed, 1.0);
    ask(&mut one);
}

/// Whether an operator was told.
fn short(router: &Router) -> bool {
    !router.events("descriptors_short").is_empty()
}

/// A router with few descriptors, none of its own limits in the way.
fn short_of_descriptors() -> Router {
    let setup = Setup::new().after("ulimit -n 160");
    setup
        .set("edge.threads=1")
        .set("edge.max_connections=10000")
        .start()
}

#[test]
fn at_the_descriptor_limit_idle_connections_go_and_every_request_is_answered() {
    let router = short_of_descriptors();
    let shop = Backend::named("ok");
    router.serve("shop", &[&shop]);
    let mut held: Vec<Client> = (0..300).map(|_| kept(&router)).collect();
    ask(held.last_mut().expect("there are some"));
    gone(&held[0]);
    assert!(router.counted("portico_client_connections_closed_total", "evicted") >= 100.0);
    assert_eq!(router.events("descriptors_short").len(), 1);
}

/// Asks on a connection of its own for what is not answered before the gate opens.
fn ask_slow(router: &Router) -> Client {
    let mut client = router.client();
    // GETs that are answered late go to a second backend as well.
    client.send("POST / HTTP/1.1\r\nHost: slow.example\r\nContent-Length: 0\r\n\r\n");
    client
}

/// Requests that keep all descriptors that clients may have until the gate opens,
/// and whom they ask.
fn take_descriptors(
    router: &Router,
    gate: &Arc<(Mutex<bool>, Condvar)>,
) -> (Vec<Client>, Vec<Backend>) {
    // Many: how much one can have at once has to be learned first.
    let slow: Vec<Backend> = (0..12).map(|_| gated(gate)).collect();
    router.serve("slow", &slow.iter().collect::<Vec<_>>());
    let mut busy: Vec<Client> = Vec::new();
    // Each takes two descriptors.
    for number in 1.. {
        busy.push(ask_slow(router));
        eventually("its backend has it, or it waits to be accepted", || {
            let asked = slow.iter().map(|slow| slow.requests().len());
            let is_asked = asked.sum::<usize>() == number;
            (is_asked || short(router)).then_some(())
        });
        if short(router) {
            break;
        }
    }
    (busy, slow)
}

#[test]
fn at_the_descriptor_limit_accepting_pauses_and_nobody_is_refused() {
    let router = short_of_descriptors();
    let gate = Arc::default();
    let (mut busy, _slow) = take_descriptors(&router, &gate);
    busy.extend((0..10).map(|_| ask_slow(&router)));
    open(&gate);
    for client in &mut busy {
        assert_eq!(client.answer().expect(200).text(), "late");
    }
    assert_eq!(
        router.counted("portico_backend_connect_failures_total", "exhausted"),
        0.0
    );
}

/// A second try is a luxury: what descriptors are left is for requests that have
/// none yet.
#[test]
fn at_the_descriptor_limit_no_request_is_hedged_on_a_new_connection() {
    let router = short_of_descriptors();
    let (silent, fast) = (Instance::start("silent"), Instance::start("fast"));
    silent.does(Conduct::Silent);
    let policy = serde_json::json!({ "hedge": "50ms", "ejection": false });
    router.pool("shop", &policy, &[&silent]);
    let mut hedged = router.client();
    hedged.send(GET);
    eventually("it is asked", || (silent.count() > 0).then_some(()));
    let gate = Arc::default();
    let (mut busy, _slow) = take_descriptors(&router, &gate);
    let record = serde_json::json!({ "address": fast.address().to_string() });
    let path = "/v1/apps/shop/backends/web.2?wait=active";
    router.put(path, &record).expect(201);
    stays(Duration::from_secs(3), "it is waited for", || {
        router.counted("portico_hedges_total", "begun") < 1.0
    });
    open(&gate);
    for client in &mut busy {
        client.answer().expect(200);
    }
    drop(busy);
    assert_eq!(hedged.answer().expect(200).text(), "fast");
}

/// A connection that is kept costs none.
#[test]
fn at_the_descriptor_limit_a_request_is_hedged_on_a_kept_connection() {
    let router = short_of_descriptors();
    let (silent, fast) = (Instance::start("silent"), Instance::start("fast"));
    let policy = serde_json::json!({ "hedge": "50ms", "ejection": false });
    router.pool("shop", &policy, &[&silent, &fast]);
    let mut client = router.client();
    eventually("there is a connection to each", || {
        ask(&mut client);
        (silent.count() > 0 && fast.count() > 0).then_some(())
    });
    // It would make room.
    drop(client);
    silent.does(Conduct::Silent);
    // Not to be hedged before it is sent whole.
    let begin = || {
        let mut client = router.client();
        client.send("PUT / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n");
        let in_flight = |id: &str| router.backend("shop", id)["in_flight"].as_u64();
        let is_first = eventually("an instance has it", || {
            let (first, other) = (in_flight("web.1"), in_flight("web.2"));
            (first != other).then_some(first > other)
        });
        (client, is_first)
    };
    let mut hedged = eventually("the silent one has it", || {
        let (mut client, is_first) = begin();
        if !is_first {
            client.send("0\r\n\r\n");
            client.answer().expect(200);
        }
        is_first.then_some(client)
    });
    let gate = Arc::default();
    let (_busy, _slow) = take_descriptors(&router, &gate);
    hedged.send("0\r\n\r\n");
    assert_eq!(hedged.answer().expect(200).text(), "fast");
    open(&gate);
}

/// Buffers may take this much in the tests below.
const BUFFERS: f64 = 4_194_304.0;

fn short_of_memory() -> Router {
    Router::with(&["edge.threads=1", "edge.buffer_bytes=4194304"])
}

#[test]
fn heads_that_fill_the_buffers_go_and_others_are_served() {
    let router = short_of_memory();
    let shop = Backend::named("ok");
    router.serve("live", &[&shop]);
    let line = format!("X: {}\r\n", "v".repeat(8_000));
    let head = format!("GET / HTTP/1.1\r\n{}", line.repeat(4));
    let mut dripping: Vec<Client> = Vec::new();
    for _ in 0..200 {
        let mut client = router.client();
        client.try_send(&head);
        dripping.push(client);
    }
    router.wait_event("buffers_short", "", "");
    eventually("a request is answered", || {
        try_ask(&router, "GET / HTTP/1.1\r\nHost: live.example\r\n\r\n")
    });
    eventually("buffers are within their budget", || {
        (router.counted("portico_buffer_bytes", "") < BUFFERS).then_some(())
    });
    assert!(router.counted("portico_client_connections_closed_total", "evicted") > 50.0);
}

#[test]
fn clients_that_stop_reading_stop_their_backends_within_the_budget() {
    let router = short_of_memory();
    let flood = Backend::script(|mut conn| {
        if conn.request().is_some() {
            conn.write("HTTP/1.1 200 OK\r\n\r\n");
            let piece = patterned(1024 * 1024);
            (0..100).all(|_| conn.write(&piece));
        }
    });
    let policy = serde_json::json!({ "max_concurrency": 500 });
    router.serve_with("flood", &policy, &[&flood]);
    let mut stuck: Vec<Client> = Vec::new();
    for _ in 0..100 {
        let mut client = router.client();
        client.send("GET / HTTP/1.1\r\nHost: flood.example\r\n\r\n");
        client.head().expect("an answer must begin");
        stuck.push(client);
    }
    stays(Duration::from_secs(1), "within their budget", || {
        router.counted("portico_buffer_bytes", "") <= BUFFERS
    });
}
