//! Clients that reset, in every state that a connection can be in: nothing of
//! them is left, and others are served on.

use serde_json::json;

use crate::harness::{Backend, Client, Router, answer_ok, eventually, patterned};

/// Clients in one state at a time, and how often.
const CLIENTS: usize = 120;
const ROUNDS: usize = 2;

/// A state that a connection can be in.
struct State {
    name: &'static str,
    /// What brings it there.
    send: fn(&mut Client),
    /// The gauge that tells.
    gauge: &'static str,
}

const STATES: [State; 9] = [
    State {
        name: "before a head",
        send: |_| {},
        gauge: "portico_client_connections",
    },
    State {
        name: "in a head",
        send: |client| ask(client, "GET / HTTP/1.1\r\nHost: silent.exam"),
        gauge: "portico_client_connections",
    },
    State {
        name: "in a body of known length",
        send: |client| {
            ask(
                client,
                "POST / HTTP/1.1\r\nHost: silent.example\r\nContent-Length: 200000\r\n\r\n",
            );
            client.send(patterned(60_000));
        },
        gauge: "portico_requests_in_flight",
    },
    State {
        name: "in a chunk",
        send: |client| {
            ask(
                client,
                "POST / HTTP/1.1\r\nHost: silent.example\r\nTransfer-Encoding: chunked\r\n\r\n\
                 4\r\nbody\r\n100\r\nhalf",
            );
        },
        gauge: "portico_requests_in_flight",
    },
    State {
        name: "waiting for an answer, another request behind it",
        send: |client| {
            ask(client, "GET / HTTP/1.1\r\nHost: silent.example\r\n\r\n");
            ask(client, "GET / HTTP/1.1\r\nHost: silent.example\r\n\r\n");
        },
        gauge: "portico_requests_in_flight",
    },
    State {
        name: "in line",
        send: |client| ask(client, "GET / HTTP/1.1\r\nHost: absent.example\r\n\r\n"),
        gauge: "portico_requests_queued",
    },
    State {
        name: "in an answer that it does not take",
        send: |client| {
            ask(client, "GET / HTTP/1.1\r\nHost: flood.example\r\n\r\n");
            client.head().expect("an answer must begin");
        },
        gauge: "portico_requests_in_flight",
    },
    State {
        name: "upgraded",
        send: |client| {
            ask(
                client,
                "GET / HTTP/1.1\r\nHost: pipe.example\r\n\
                 Connection: Upgrade\r\nUpgrade: raw/1\r\n\r\nfirst",
            );
            client.head().expect("101 must come");
        },
        gauge: "portico_upgrades_open",
    },
    State {
        name: "between requests",
        send: |client| {
            ask(client, "GET / HTTP/1.1\r\nHost: live.example\r\n\r\n");
            client.answer().expect(200);
        },
        gauge: "portico_client_connections",
    },
];

const GAUGES: [&str; 5] = [
    "portico_client_connections",
    "portico_requests_in_flight",
    "portico_requests_queued",
    "portico_requests_gated",
    "portico_upgrades_open",
];

fn ask(client: &mut Client, bytes: &str) {
    client.send(bytes);
}

/// Reads a head, and says nothing.
fn silent() -> Backend {
    Backend::script(|mut conn| {
        if conn.head().is_some() {
            conn.until_closed();
        }
    })
}

/// Answers with a head, and then with more than anybody takes.
fn endless(head: &'static str) -> Backend {
    Backend::script(move |mut conn| {
        if conn.head().is_some() && conn.write(head) {
            let piece = patterned(64 * 1024);
            while conn.write(&piece) {}
        }
    })
}

#[test]
fn whatever_state_a_client_resets_in_nothing_is_left_of_it() {
    let router = Router::start();
    // As many as one can have at once before anything is known of it, and more.
    let silent = [(); CLIENTS / 12].map(|()| silent());
    let flood = endless("HTTP/1.1 200 OK\r\n\r\n");
    let pipe = Backend::script(|mut conn| {
        if conn.head().is_some() {
            conn.write(
                "HTTP/1.1 101 Switching Protocols\r\n\
                 Connection: Upgrade\r\nUpgrade: raw/1\r\n\r\n",
            );
            conn.until_closed();
        }
    });
    let live = Backend::app(|_| answer_ok("live"));
    let many = json!({ "max_concurrency": 1_000, "queue": 1_000, "boot_wait": "60s" });
    router.serve_with("silent", &many, &silent.each_ref());
    router.serve_with("flood", &many, &[&flood]);
    router.serve_with("pipe", &many, &[&pipe]);
    router.serve_with("live", &many, &[&live]);
    router.serve_with("absent", &many, &[]);
    for _ in 0..ROUNDS {
        for state in &STATES {
            let mut clients: Vec<Client> = (0..CLIENTS).map(|_| router.client()).collect();
            for client in &mut clients {
                (state.send)(client);
            }
            eventually(&format!("all are {}", state.name), || {
                (router.counted(state.gauge, "") >= CLIENTS as f64).then_some(())
            });
            clients.into_iter().for_each(Client::reset);
            eventually(&format!("nothing is left of those {}", state.name), || {
                let is_none = |gauge: &&str| router.counted(gauge, "") == 0.0;
                GAUGES.iter().all(is_none).then_some(())
            });
            assert_eq!(router.get("live", "/").expect(200).text(), "live");
        }
    }
    for backend in silent.iter().chain([&flood, &pipe]) {
        eventually("backends are left too", || {
            (backend.open() == 0).then_some(())
        });
    }
}
