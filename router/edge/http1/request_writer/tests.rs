//! Heads in, heads out.

use super::*;
use crate::edge::http1::head::Limits;
use crate::edge::http1::request::parse_request;
use crate::edge::http1::scan::Scan;

const ID: &str = "0123456789-0123456789";

fn forward(text: &str, trusted: bool, keepalive: bool) -> (String, String) {
    let mut head = RequestHead::default();
    let buf = text.as_bytes();
    parse_request(buf, &mut Scan::default(), &Limits::REQUEST, &mut head)
        .unwrap_or_else(|refusal| panic!("{refusal:?}: {text}"))
        .expect("must be whole");
    let peer = Peer::new("203.0.113.9".parse().unwrap(), "http", 8080, trusted);
    let forwarding = Forwarding {
        peer: &peer,
        request_id: ID.as_bytes(),
        received_ms: 1_700_000_000_123,
        trace_id: 0xab,
        span_id: 0xcd,
        backend_keepalive: keepalive,
    };
    let mut out = b"before".to_vec();
    let span = write_request_head(&head, buf, &forwarding, &mut out);
    let fwd = String::from_utf8(span.of(&out).to_vec()).unwrap();
    let once = out.split_off("before".len());
    write_request_head(&head, buf, &forwarding, &mut out);
    assert_eq!(once, out["before".len()..], "a retry must write the same");
    (String::from_utf8(once).unwrap(), fwd)
}

const ADDED: &str = "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Port: 8080\r\nX-Forwarded-Host: a.example\r\nX-Request-Start: 1700000000123\r\nX-Request-Id: 0123456789-0123456789\r\nVia: 1.1 portico\r\ntraceparent: 00-000000000000000000000000000000ab-00000000000000cd-01\r\n";

#[test]
fn end_to_end_headers_pass_as_they_came() {
    let text = "POST /x?y HTTP/1.1\r\nhOST: a.example\r\nCONTENT-length:  5\r\nX-B:\t2 \r\nX-A: 1\r\nX-b: 3\r\nVia: 1.1 other\r\nAccept: */*\r\n\r\n";
    let (out, fwd) = forward(text, false, true);
    let sent = text.strip_suffix("\r\n").unwrap();
    assert_eq!(out, format!("{sent}{ADDED}\r\n"));
    assert_eq!(fwd, "203.0.113.9");
}

#[test]
fn what_stops_at_this_hop() {
    let stops = "Connection: close, X-Hop, keep-alive\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nx-hop: 1\r\nProxy-Authorization: x\r\nTE: gzip\r\nUpgrade: x\r\nHTTP2-Settings: x\r\nExpect: 100-continue\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 1\r\nX-Forwarded-Host: evil\r\nX_Forwarded_For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Request-Start: 1\r\nX-Request-Id: short\r\ntraceparent: x\r\ntracestate: x\r\n";
    let (out, fwd) = forward(
        &format!("GET / HTTP/1.1\r\nHost: a.example\r\nX-One: 1\r\n{stops}X-Two: 2\r\n\r\n"),
        false,
        true,
    );
    assert_eq!(
        out,
        format!("GET / HTTP/1.1\r\nHost: a.example\r\nX-One: 1\r\nX-Two: 2\r\n{ADDED}\r\n")
    );
    assert_eq!(fwd, "203.0.113.9");
}

#[test]
fn a_trusted_proxy_is_believed() {
    let set = "X-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\nX-Forwarded-Host: other\r\nX-Request-Start: 1\r\nForwarded: for=x\r\n";
    let (out, fwd) = forward(
        &format!(
            "GET / HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-For: 1.1.1.1, 2.2.2.2\r\nX-Forwarded-For:\r\n{set}X-Forwarded-For: 3.3.3.3\r\n\r\n"
        ),
        true,
        true,
    );
    assert_eq!(fwd, "1.1.1.1, 2.2.2.2, 3.3.3.3, 203.0.113.9");
    assert!(out.contains(set), "{out}");
    assert_eq!(
        out.to_lowercase().matches("x-forwarded-").count(),
        4,
        "{out}"
    );
    assert_eq!(out.matches("X-Request-Start").count(), 1, "{out}");
    let (out, _) = forward("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", true, true);
    assert!(out.ends_with(&format!("{ADDED}\r\n")));
}

#[test]
fn framing_is_written_once_and_plainly() {
    let lengths = |lines: &str| {
        let (out, _) = forward(
            &format!("PUT / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"),
            false,
            true,
        );
        out.lines()
            .filter(|line| {
                line.to_lowercase().starts_with("content-length")
                    || line.to_lowercase().starts_with("transfer")
            })
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        lengths("Content-Length: 5\r\ncontent-length: 5\r\n"),
        ["Content-Length: 5"]
    );
    assert_eq!(lengths("content-length: 005\r\n"), ["Content-Length: 5"]);
    assert_eq!(lengths("content-length: 0\r\n"), ["content-length: 0"]);
    assert_eq!(lengths("content-length: 00\r\n"), ["Content-Length: 0"]);
    assert_eq!(
        lengths("transfer-encoding: CHUNKED\r\n"),
        ["transfer-encoding: CHUNKED"]
    );
    assert!(lengths("").is_empty());
}

#[test]
fn targets_are_in_origin_form() {
    for (line, expected) in [
        ("GET http://a.example/x?y HTTP/1.1", "GET /x?y HTTP/1.1"),
        ("GET http://a.example HTTP/1.1", "GET / HTTP/1.1"),
        ("GET http://a.example?q HTTP/1.1", "GET /?q HTTP/1.1"),
        ("OPTIONS http://a.example HTTP/1.1", "OPTIONS * HTTP/1.1"),
        ("OPTIONS * HTTP/1.1", "OPTIONS * HTTP/1.1"),
        ("GET /x HTTP/1.0", "GET /x HTTP/1.1"),
    ] {
        let (out, _) = forward(&format!("{line}\r\nHost: a.example\r\n\r\n"), false, true);
        assert_eq!(out.lines().next(), Some(expected));
    }
    let (out, _) = forward("GET http://a.example:81/ HTTP/1.0\r\n\r\n", false, true);
    assert!(
        out.starts_with("GET / HTTP/1.1\r\nHost: a.example:81\r\n"),
        "{out}"
    );
    assert!(out.contains("Via: 1.0 portico\r\n"));
}

#[test]
fn options_of_the_backends_connection() {
    let connection = |lines: &str, keepalive: bool| {
        let (out, _) = forward(
            &format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"),
            false,
            keepalive,
        );
        out.lines()
            .filter(|line| {
                ["connection", "upgrade", "te:"]
                    .iter()
                    .any(|name| line.to_lowercase().starts_with(name))
            })
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert!(connection("Connection: keep-alive\r\n", true).is_empty());
    assert_eq!(connection("", false), ["Connection: close"]);
    assert_eq!(
        connection("TE: trailers, gzip\r\n", true),
        ["TE: trailers", "Connection: TE"]
    );
    assert_eq!(
        connection("TE: trailers\r\n", false),
        ["TE: trailers", "Connection: close, TE"]
    );
    assert_eq!(
        connection("Connection: Upgrade\r\nUpgrade: websocket\r\n", false),
        ["Upgrade: websocket", "Connection: upgrade"]
    );
    assert!(
        connection(
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n",
            true
        )
        .is_empty()
    );
}

#[test]
fn traces_are_continued() {
    let trace = |value: &str| {
        let (out, _) = forward(
            &format!(
                "GET / HTTP/1.1\r\nHost: a\r\ntraceparent: {value}\r\ntracestate: k=v\r\n\r\n"
            ),
            false,
            true,
        );
        assert!(out.contains("tracestate: k=v\r\n"));
        let line = out
            .lines()
            .find(|line| line.starts_with("traceparent"))
            .unwrap();
        line["traceparent: ".len()..].to_owned()
    };
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    assert_eq!(
        trace(&format!("00-{id}-00f067aa0ba902b7-00")),
        format!("00-{id}-00000000000000cd-00")
    );
    assert_eq!(
        trace(&format!("00-{id}-00f067aa0ba902b7-03")),
        format!("00-{id}-00000000000000cd-03")
    );
    assert_eq!(
        trace(&format!("01-{id}-00f067aa0ba902b7-fe-x")),
        format!("00-{id}-00000000000000cd-00")
    );
    assert_eq!(
        trace(&format!("01-{id}-00f067aa0ba902b7-0b")),
        format!("00-{id}-00000000000000cd-01")
    );
}

#[test]
fn addresses_are_canonical() {
    let peer = Peer::new("::ffff:192.0.2.1".parse().unwrap(), "https", 443, false);
    assert_eq!((peer.address(), peer.trusted()), ("192.0.2.1", false));
    assert_eq!(
        Peer::new("2001:db8::1".parse().unwrap(), "http", 80, true).address(),
        "2001:db8::1"
    );
}
