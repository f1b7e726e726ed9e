//! Counts heap allocations on the steady way of a request: client on a kept
//! connection, backends on kept connections, access log on, metrics on; with
//! one backend, with several to choose from, and with one of them crashed.
//!
//! The edge's own thread runs in this process under a counting allocator; the
//! client and the backend allocate nothing themselves.

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use portico::edge::leaving::{Occasion, Timetable};
use portico::edge::{Shared, thread};
use portico::feed::messages::{AppRecord, BackendRecord, Change, Delta, Op};
use portico::observe::access_log::Log;
use portico::settings::{AccessLog, Settings};
use portico::table::Table;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nHello World\n";
const REQUEST: &[u8] =
    b"GET /a?b=c HTTP/1.1\r\nHost: counted.example\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n";
const REQUESTS: usize = 2_000;

/// Not per request: the thread's ticks and the log's hand-overs, over the whole
/// measured time.
const STATED_ALLOCATIONS: usize = 20;

/// Answers on every connection.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a backend must bind");
    let address = listener.local_addr().expect("it must have an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer_all(stream));
        }
    });
    address
}

fn answer_all(mut stream: TcpStream) {
    stream.set_nodelay(true).expect("nodelay must be settable");
    let mut buffer = [0; 4096];
    let mut held = 0;
    while let Ok(n @ 1..) = stream.read(&mut buffer[held..]) {
        held += n;
        if buffer[..held].ends_with(b"\r\n\r\n") {
            held = 0;
            if stream.write_all(ANSWER).is_err() {
                return;
            }
        }
    }
}

/// An address that refuses, for as long as the socket is held.
fn crashed() -> (socket2::Socket, SocketAddr) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
        .expect("a socket must be had");
    socket.bind(&any.into()).expect("it must bind");
    let address = socket.local_addr().expect("it must have an address");
    let address = address.as_socket().expect("it must be an IP address");
    (socket, address)
}

fn table(backends: &[SocketAddr]) -> Table {
    let app = AppRecord {
        name: "counted".into(),
        domains: vec!["counted.example".into()],
        revision: 1,
        backends: (1..)
            .zip(backends)
            .map(|(number, address)| BackendRecord {
                id: format!("web.{number}"),
                address: address.to_string(),
                weight: 100,
                incarnation: 1,
                ..BackendRecord::default()
            })
            .collect(),
        ..AppRecord::default()
    };
    let table = Table::new(1);
    let ops = vec![Op {
        change: Some(Change::Put(app)),
    }];
    let nacks = table.apply(&Delta {
        from: 0,
        to: 1,
        ops,
        ..Delta::default()
    });
    assert!(nacks.is_empty(), "{nacks:?}");
    table
}

fn ask(client: &mut TcpStream, answer: &mut [u8]) {
    client
        .write_all(REQUEST)
        .expect("the edge must take a request");
    let mut held = 0;
    while !answer[..held].ends_with(b"Hello World\n") {
        let n = client
            .read(&mut answer[held..])
            .expect("the edge must answer in time");
        assert!(n > 0, "the edge must keep the connection");
        held += n;
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
}

// One test: what another did at the same time would be counted too.
#[test]
fn a_small_request_on_kept_connections_allocates_nothing() {
    count("one backend", &[backend()]);
    let four = [backend(), backend(), backend(), backend()];
    count("four backends", &four);
    let (_held, refuses) = crashed();
    count(
        "one of four is crashed",
        &[four[0], refuses, four[2], four[3]],
    );
}

/// Counts over many requests to an app with these backends.
fn count(what: &str, backends: &[SocketAddr]) {
    let folder = tempfile::tempdir().expect("a temporary folder must be had");
    let mut settings = Settings::default();
    let path = folder.path().join("access.log");
    let file = std::fs::File::create(&path).expect("a file must be had");
    settings.log.access = AccessLog::File(path);
    let log = Log::open(&settings.log, Some(file)).expect("the log must open");
    let buffer = log.buffer();
    let events = portico::edge::sync::event_queue().0;
    let prober = portico::edge::probe::prober().0;
    let shared = Arc::new(Shared::new(settings, table(backends), 1, events, prober));
    let listener = TcpListener::bind("127.0.0.1:0").expect("the edge must bind");
    listener.set_nonblocking(true).expect("it must not block");
    let address = listener.local_addr().expect("it must have an address");
    let edge = {
        let shared = Arc::clone(&shared);
        std::thread::spawn(move || thread::run(0, &shared, vec![listener], buffer))
    };

    let mut client = TcpStream::connect(address).expect("the edge must accept");
    client.set_nodelay(true).expect("nodelay must be settable");
    client
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("a timeout must be settable");
    let mut answer = [0; 4096];
    for _ in 0..REQUESTS {
        ask(&mut client, &mut answer);
    }
    let region = Region::new(ALLOCATOR);
    for _ in 0..REQUESTS {
        ask(&mut client, &mut answer);
    }
    let change = region.change();
    let allocations = change.allocations + change.reallocations;
    println!("{what}: {allocations} allocations in {REQUESTS} requests");
    assert!(
        allocations <= STATED_ALLOCATIONS,
        "{what}: {allocations} allocations in {REQUESTS} requests, at most {STATED_ALLOCATIONS} are stated: {change:?}"
    );

    drop(client);
    let at_once = Timetable::new(Occasion::Drain, 0, Duration::ZERO);
    shared.duty.leave(at_once);
    edge.join().expect("the edge's thread must end well");
}
