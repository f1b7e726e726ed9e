//! Upgrades: after a 101, a byte pipe both ways.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Backend, Router, answer_ok, eventually, patterned};

const ASK: &str = "GET /pipe HTTP/1.1\r\nHost: shop.example\r\n\
                   Connection: Upgrade\r\nUpgrade: raw/1\r\n\r\n";
const YES: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw/1\r\n\r\n";

/// Accepts an upgrade, then sends back what it reads.
fn pipe_echo() -> Backend {
    Backend::script(|mut conn| {
        let Some(request) = conn.request() else {
            return;
        };
        conn.note(request);
        conn.write(YES);
        while let Some(byte) = conn.take(1) {
            if !conn.write(byte) {
                return;
            }
        }
    })
}

#[test]
fn an_upgrade_becomes_a_byte_pipe() {
    let router = Router::start();
    let backend = pipe_echo();
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send(ASK);
    let answer = client.head().expect("101 must come");
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("upgrade"), Some("raw/1"));
    assert!(
        answer
            .header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("upgrade"))
    );
    let request = backend.request();
    assert_eq!(request.header("upgrade"), Some("raw/1"));
    assert!(
        request
            .header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("upgrade"))
    );
    for word in ["one", "GET / HTTP/1.1\r\n\r\n", "\0\u{1}\u{2}"] {
        client.send(word);
        assert_eq!(client.take(word.len()), word.as_bytes());
    }
    drop(client);
    eventually("the backend sees the close", || {
        (backend.open() == 0).then_some(())
    });
    let line = router.logged("/pipe");
    assert_eq!(line["status"], "101");
}

#[test]
fn bytes_sent_with_the_request_or_the_101_are_not_lost() {
    let router = Router::start();
    let backend = Backend::script(|mut conn| {
        let Some(request) = conn.request() else {
            return;
        };
        conn.note(request);
        conn.write(format!("{YES}hello first"));
        if let Some(early) = conn.take(5) {
            conn.write(early);
        }
        conn.until_closed();
    });
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send(format!("{ASK}early"));
    assert_eq!(client.head().expect("101 must come").status, 101);
    assert_eq!(client.take(16), b"hello firstearly");
}

#[test]
fn a_pipe_half_closes_each_way() {
    let router = Router::start();
    let backend = Backend::script(|mut conn| {
        if conn.request().is_none() {
            return;
        }
        conn.write(YES);
        let all = conn.until_closed().unwrap_or_default();
        conn.write(format!("got {} bytes", all.len()));
    });
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send(ASK);
    assert_eq!(client.head().expect("101 must come").status, 101);
    client.send("the whole story").finish();
    assert_eq!(
        client.rest(),
        b"got 15 bytes",
        "the other direction must stay open"
    );

    let other = Backend::script(|mut conn| {
        if conn.request().is_none() {
            return;
        }
        conn.write(format!("{YES}all said"));
        conn.finish();
        let heard = conn.take(5).unwrap_or_default();
        conn.note(crate::harness::Request {
            body: heard,
            ..Default::default()
        });
    });
    router.serve("blog", &[&other]);
    let mut client = router.client();
    client.send(ASK.replace("shop", "blog"));
    assert_eq!(client.head().expect("101 must come").status, 101);
    assert_eq!(client.rest(), b"all said");
    client.send("still");
    eventually("the backend hears the client after its own end", || {
        other
            .requests()
            .iter()
            .any(|request| request.body == b"still")
            .then_some(())
    });
}

#[test]
fn a_megabyte_passes_a_pipe_both_ways() {
    let router = Router::start();
    let backend = Backend::script(|mut conn| {
        if conn.request().is_some() && conn.write(YES) {
            while let Some(piece) = conn.take(1024) {
                conn.write(piece);
            }
        }
    });
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send(ASK);
    assert_eq!(client.head().expect("101 must come").status, 101);
    let body = patterned(1024 * 1024);
    let mut writer = client
        .stream()
        .try_clone()
        .expect("a stream must be cloneable");
    let sent = body.clone();
    let sending = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &sent));
    assert!(client.take(body.len()) == body, "the pipe changed bytes");
    sending.join().expect("no panic").expect("all must be sent");
}

#[test]
fn a_refused_upgrade_is_an_ordinary_answer() {
    let router = Router::start();
    let backend = Backend::app(|_| answer_ok("no upgrade here"));
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    for _ in 0..2 {
        client.send(ASK);
        assert_eq!(client.answer().expect(200).text(), "no upgrade here");
    }
}

#[test]
fn a_101_that_nobody_asked_for_is_not_a_pipe() {
    let router = Router::start();
    let backend = Backend::script(|mut conn| {
        if conn.request().is_some() {
            conn.write(YES);
            conn.until_closed();
        }
    });
    router.serve_with("shop", &json!({ "first_byte_timeout": "2s" }), &[&backend]);
    let answer = router.get("shop", "/unasked");
    assert!(answer.status >= 500, "{answer:?}");
}

#[test]
fn an_upgrade_with_a_body_delivers_the_body() {
    let router = Router::start();
    let backend = pipe_echo();
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send(
        "POST /pipe HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: raw/1\r\n\
         Content-Length: 4\r\n\r\nbodypiped",
    );
    assert_eq!(client.head().expect("101 must come").status, 101);
    assert_eq!(client.take(5), b"piped");
    assert_eq!(backend.request().body, b"body");
}

#[test]
fn early_hints_may_precede_a_101() {
    let router = Router::start();
    let backend = Backend::script(|mut conn| {
        if conn.request().is_some() {
            conn.write(format!(
                "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{YES}x"
            ));
            conn.until_closed();
        }
    });
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send(ASK);
    assert_eq!(client.head().expect("103 must come").status, 103);
    assert_eq!(client.head().expect("101 must come").status, 101);
    assert_eq!(client.take(1), b"x");
}

#[test]
fn an_idle_pipe_is_cut() {
    let router = Router::start();
    let backend = pipe_echo();
    router.serve_with("shop", &json!({ "idle_timeout": "2s" }), &[&backend]);
    let mut client = router.client();
    client.send(ASK);
    assert_eq!(client.head().expect("101 must come").status, 101);
    for _ in 0..5 {
        crate::harness::pause(Duration::from_millis(500));
        client.send("x");
        client.take(1);
    }
    client.closed();
    let line = router.logged("/pipe");
    assert!(matches!(line["code"].as_str(), "H15" | "H28"), "{line:?}");
    eventually("the backend is freed", || {
        (backend.open() == 0).then_some(())
    });
}

#[test]
fn a_websocket_library_talks_through() {
    let router = Router::start();
    let backend = Backend::script(|conn| {
        let mut socket = tungstenite::accept(conn).expect("the handshake must pass");
        while let Ok(message) = socket.read() {
            if message.is_text() || message.is_binary() {
                socket.send(message).expect("the client must be there");
            }
        }
    });
    router.serve("shop", &[&backend]);
    let stream = std::net::TcpStream::connect(router.http()).expect("the router must listen");
    let (mut socket, response) =
        tungstenite::client("ws://shop.example/chat", stream).expect("the handshake must pass");
    assert_eq!(response.status(), 101);
    for size in [0, 1, 125, 126, 65_535, 65_536, 300_000] {
        let message = tungstenite::Message::binary(patterned(size));
        socket.send(message.clone()).expect("the router must relay");
        assert_eq!(socket.read().expect("the echo must come"), message);
    }
    socket.close(None).expect("closing must pass");
    while socket.read().is_ok() {}
    eventually("the backend is freed", || {
        (backend.open() == 0).then_some(())
    });
}

#[test]
fn a_101_before_the_end_of_the_request_is_refused() {
    let router = Router::start();
    let backend = Backend::script(|mut conn| {
        if conn.head().is_some() {
            conn.write(YES);
            conn.until_closed();
        }
    });
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send(
        "POST /pipe HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: raw/1\r\n\
         Content-Length: 4\r\n\r\nbo",
    );
    client.answer().refused(502, "H25");
}
