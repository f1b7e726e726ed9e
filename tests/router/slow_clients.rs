//! Clients that drip, stall and keep: what they are given, and what they cost.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::{
    Backend, Client, Router, answer_ok, eventually, patterned, pause, processes, within,
};

/// A head's time in these tests.
const HEAD: Duration = Duration::from_millis(600);

/// Settings under which a head has [`HEAD`].
const IMPATIENT: &str = "edge.head_timeout=\"600ms\"";

/// Sends a byte at a time until the router has had enough; how long it had by
/// then, since `begun`: not later than its own measure begins.
fn drip(client: &mut Client, begun: Instant, bytes: &[u8], pace: Duration) -> Duration {
    for byte in bytes.iter().cycle() {
        if !client.try_send([*byte]) || begun.elapsed() > 10 * HEAD || answered(client) {
            break;
        }
        pause(pace);
    }
    begun.elapsed()
}

/// Whether something, if only the end, can be read.
fn answered(client: &Client) -> bool {
    let stream = client.stream();
    stream.set_nonblocking(true).expect("must be settable");
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false).expect("must be settable");
    !matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// Fails if it took less than this, or so long that nothing may have ended it:
/// [`drip`] gives up after ten heads' time.
#[track_caller]
fn assert_about(took: Duration, time: Duration) {
    assert!(took >= time * 9 / 10 && took < HEAD * 8, "{took:?}");
}

#[test]
fn a_dripped_head_ends_at_its_time_on_a_fresh_and_on_a_kept_connection() {
    let router = Router::with(&[IMPATIENT]);
    let backend = Backend::named("ok");
    router.serve("shop", &[&backend]);
    for served in 0..3 {
        let mut begun = Instant::now();
        let mut client = router.client();
        for _ in 0..served {
            client.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
            client.answer().expect(200);
            begun = Instant::now();
        }
        let pace = Duration::from_millis(50);
        let took = drip(&mut client, begun, b"GET / HTTP/1.1\r\nX: ", pace);
        assert_about(took, HEAD);
        client.answer().refused(408, "H26");
    }
    // Counted once it is over: the router reads on for a moment.
    eventually("they are counted", || {
        let closed = router.counted("portico_client_connections_closed_total", "head_timeout");
        (closed >= 3.0).then_some(())
    });
}

#[test]
fn a_head_behind_pipelined_requests_has_no_more_time() {
    let router = Router::with(&[IMPATIENT]);
    let backend = Backend::named("ok");
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    let begun = Instant::now();
    client.send(
        "GET /1 HTTP/1.1\r\nHost: shop.example\r\n\r\n\
         GET /2 HTTP/1.1\r\nHost: shop.example\r\n\r\nGET /3",
    );
    client.answer().expect(200);
    client.answer().expect(200);
    let pace = Duration::from_millis(50);
    assert_about(drip(&mut client, begun, b"/3", pace), HEAD);
    client.answer().refused(408, "H26");
}

#[test]
fn a_balancers_header_and_the_head_behind_it_have_one_time_together() {
    let router = Router::with(&[IMPATIENT, "edge.trusted_proxies=[\"127.0.0.0/8\"]"]);
    let preface = b"PROXY TCP4 203.0.113.9 192.0.2.1 5555 443\r\nGET / HTTP/1.1\r\n";
    let begun = Instant::now();
    let mut client = router.client();
    let pace = HEAD * 3 / 4 / 42;
    assert_about(drip(&mut client, begun, preface, pace), HEAD);
}

#[test]
fn clients_that_never_speak_or_never_speak_again_are_closed() {
    let router = Router::with(&[IMPATIENT, "edge.keepalive_timeout=\"300ms\""]);
    let backend = Backend::named("ok");
    router.serve("shop", &[&backend]);
    let (mut mute, mut kept) = (router.client(), router.client());
    let begun = Instant::now();
    kept.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    kept.answer().expect(200);
    kept.closed();
    assert_about(begun.elapsed(), HEAD / 2);
    mute.closed();
}

/// Takes little at a time off a connection, for this long; whether it broke.
fn sip(mut stream: &TcpStream, bytes: usize, pace: Duration, time: Duration) -> bool {
    let mut piece = vec![0; bytes];
    let begun = Instant::now();
    while begun.elapsed() < time {
        if !matches!(stream.read(&mut piece), Ok(1..)) {
            return true;
        }
        pause(pace);
    }
    false
}

/// Ten seconds and some: the measure is five, twice.
#[test]
fn dripped_bodies_and_sipped_answers_end_and_slow_ones_live() {
    let router = Router::with(&["edge.min_drain_rate=1048576"]);
    let upload = Backend::app(|request| answer_ok(&request.body.len().to_string()));
    let flood = Backend::script(|mut conn| {
        if conn.request().is_some() {
            conn.write("HTTP/1.1 200 OK\r\n\r\n");
            let piece = patterned(1024 * 1024);
            while conn.write(&piece) {}
        }
    });
    let events = Backend::script(|mut conn| {
        if conn.request().is_some() {
            conn.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
            while conn.write("data: 1\n\n") {
                pause(Duration::from_secs(1));
            }
        }
    });
    router.serve("upload", &[&upload]);
    router.serve("flood", &[&flood]);
    router.serve("events", &[&events]);
    let head = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: upload.example\r\nContent-Length: 13000\r\n\r\n")
    };
    std::thread::scope(|tests| {
        tests.spawn(|| {
            let mut client = router.client();
            let begun = Instant::now();
            client.send(head("/dripped"));
            while !answered(&client) && client.try_send("x") {
                pause(Duration::from_millis(500));
                assert!(begun.elapsed() < Duration::from_secs(40));
            }
            assert!(begun.elapsed() > Duration::from_secs(9));
            client.answer().refused(408, "H26");
            assert_eq!(router.logged("/dripped")["cause"], "body too slow");
        });
        tests.spawn(|| {
            let mut client = router.client();
            client.send(head("/phone"));
            for _ in 0..130 {
                client.send([b'x'; 100]);
                pause(Duration::from_millis(100));
            }
            assert_eq!(client.answer().expect(200).text(), "13000");
        });
        tests.spawn(|| {
            let mut client = router.client();
            client.send("GET /sipped HTTP/1.1\r\nHost: flood.example\r\n\r\n");
            let time = Duration::from_secs(40);
            assert!(sip(
                client.stream(),
                16_384,
                Duration::from_millis(25),
                time
            ));
            let line = router.logged_code("/sipped", "H28");
            assert_eq!(line["cause"], "answer taken too slowly");
            assert_eq!(line["status"], "499");
        });
        tests.spawn(|| {
            let mut client = router.client();
            client.send("GET /events HTTP/1.1\r\nHost: events.example\r\n\r\n");
            let time = Duration::from_secs(13);
            assert!(!sip(client.stream(), 8192, Duration::ZERO, time));
        });
    });
    eventually("both are counted", || {
        let closed = router.counted("portico_client_connections_closed_total", "too_slow");
        (closed == 2.0).then_some(())
    });
}

/// Longer than the measure, which is five seconds, twice.
#[test]
fn a_request_that_streams_while_its_answer_does_may_say_little() {
    let router = Router::start();
    let dialogue = Backend::script(|mut conn| {
        if conn.head().is_some() {
            conn.write("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n");
            conn.until_closed();
        }
    });
    router.serve("dialogue", &[&dialogue]);
    let mut client = router.client();
    client.send("POST / HTTP/1.1\r\nHost: dialogue.example\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.head().expect("a head must come").expect(200);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(16) {
        assert!(!answered(&client) && client.try_send("1\r\nx\r\n"));
        pause(Duration::from_millis(500));
    }
    let closed = router.counted("portico_client_connections_closed_total", "too_slow");
    assert_eq!(closed, 0.0);
}

/// Slow clients at once in the test below.
const CLIENTS: u32 = 1_200;

/// Resident memory of a process that is its own alone, KiB.
fn resident_kib(pid: u32) -> u32 {
    let line = processes::status(pid, "RssAnon");
    let number = line.split_whitespace().next();
    let number = number.and_then(|number| number.parse().ok());
    number.expect("the process must have resident memory")
}

/// Also while all of them are told that they were too slow, and stay.
#[test]
fn slow_clients_cost_little_memory_from_their_first_byte_to_their_last() {
    let router = Router::with(&["edge.threads=1", "edge.head_timeout=\"6s\""]);
    let backend = Backend::named("ok");
    router.serve("shop", &[&backend]);
    let edge = router.process("edge");
    let before = resident_kib(edge);
    let mut clients: Vec<Client> = Vec::new();
    for number in 0..CLIENTS {
        let mut client = router.client();
        client.try_send(if number % 6 > 0 {
            "GET /slow HTTP/1.1\r\nHost: shop.exam"
        } else {
            "POST /slow HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 100000\r\n\r\nx"
        });
        clients.push(client);
    }
    let (mut most, mut buffers) = (0, 0.0_f64);
    within(Duration::from_secs(90), "all heads are refused", || {
        for client in &mut clients {
            client.try_send("x");
        }
        most = most.max(resident_kib(edge));
        buffers = buffers.max(router.counted("portico_buffer_bytes", ""));
        let refused = router.counted("portico_client_connections_closed_total", "head_timeout");
        (refused >= 1_000.0).then_some(())
    });
    let each = buffers / f64::from(CLIENTS);
    assert!(each < 3.0 * 1_024.0, "{each} bytes of buffers for each");
    // Of all else only a coarse measure is the same on every machine: what a
    // thread warms up with, what the allocator keeps, and what pages of 2 MiB
    // round up are in it. Seven are usual.
    let each = most.saturating_sub(before) / CLIENTS;
    assert!(each < 20, "{each} KiB for each");
}
