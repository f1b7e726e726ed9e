//! Heads in, heads out, and what becomes of bodies and connections.

use super::*;
use crate::edge::http1::head::Limits;
use crate::edge::http1::response::parse_response;
use crate::edge::http1::scan::Scan;

const ADDED: &str = "X-Request-Id: id-of-request\r\nVia: 1.1 portico\r\n";

fn parsed(text: &str, after_head: bool) -> ResponseHead {
    let mut head = ResponseHead::default();
    parse_response(
        text.as_bytes(),
        &mut Scan::default(),
        &Limits::RESPONSE,
        after_head,
        &mut head,
    )
    .unwrap_or_else(|defect| panic!("{defect:?}: {text}"))
    .expect("must be whole");
    head
}

fn client(version: Version, keep_alive: bool) -> Downstream<'static> {
    Downstream {
        version,
        keep_alive,
        chunk_unframed: false,
        request_id: b"id-of-request",
    }
}

fn written(text: &str, downstream: &Downstream) -> (String, Promise) {
    let mut out = Vec::new();
    let promise = write_response_head(&parsed(text, false), text.as_bytes(), downstream, &mut out);
    (String::from_utf8(out).unwrap(), promise)
}

const FORWARD: Promise = Promise {
    mode: Mode::Forward,
    chunk: false,
    close: false,
};

#[test]
fn end_to_end_headers_pass_as_they_came() {
    let text = "HTTP/1.1 418 I'm a teapot\r\nserver:  x\r\nContent-LENGTH: 5\r\nSet-Cookie: a\r\nset-cookie: b\r\nVia: 1.1 other\r\nTrailer: z\r\n\r\n";
    let (out, promise) = written(text, &client(Version::Http11, true));
    assert_eq!(
        out,
        format!("{}{ADDED}\r\n", text.strip_suffix("\r\n").unwrap())
    );
    assert_eq!(promise, FORWARD);
}

#[test]
fn what_stops_at_this_hop() {
    let text = "HTTP/1.1 200\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nKeep-Alive: x\r\nProxy-Connection: x\r\nProxy-Authenticate: x\r\nUpgrade: h2\r\nX-Request-Id: other\r\nX: y\r\nContent-Length: 5\r\nContent-Length: 05\r\n\r\n";
    let (out, promise) = written(text, &client(Version::Http11, true));
    assert_eq!(
        out,
        format!("HTTP/1.1 200 \r\nX: y\r\nContent-Length: 5\r\n{ADDED}\r\n")
    );
    assert_eq!(promise, FORWARD);
}

#[test]
fn connections_end_as_the_client_understands() {
    let text = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    for (version, keep, line) in [
        (Version::Http11, true, ""),
        (Version::Http11, false, "Connection: close\r\n"),
        (Version::Http10, true, "Connection: keep-alive\r\n"),
        (Version::Http10, false, "Connection: close\r\n"),
    ] {
        let (out, promise) = written(text, &client(version, keep));
        assert!(out.ends_with(&format!("{ADDED}{line}\r\n")), "{out}");
        assert_eq!(promise.close, !keep);
    }
}

#[test]
fn framing_is_one_the_client_understands() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (out, promise) = written(chunked, &client(Version::Http11, true));
    assert!(out.contains("Transfer-Encoding: chunked\r\n"));
    assert_eq!(promise, FORWARD);
    let (out, promise) = written(chunked, &client(Version::Http10, true));
    assert!(
        !out.contains("Transfer-Encoding") && out.contains("Connection: close\r\n"),
        "{out}"
    );
    assert_eq!(
        promise,
        Promise {
            mode: Mode::Unchunk,
            chunk: false,
            close: true
        }
    );

    let unframed = "HTTP/1.0 200 OK\r\nX: y\r\n\r\n";
    let (out, promise) = written(unframed, &client(Version::Http11, true));
    assert!(
        out.contains("Connection: close\r\n") && promise.close,
        "{out}"
    );
    assert!(out.contains("Via: 1.0 portico"));
    let chunking = Downstream {
        chunk_unframed: true,
        ..client(Version::Http11, true)
    };
    let (out, promise) = written(unframed, &chunking);
    assert!(
        out.contains("Transfer-Encoding: chunked\r\n") && !out.contains("Connection"),
        "{out}"
    );
    assert_eq!(
        promise,
        Promise {
            mode: Mode::Forward,
            chunk: true,
            close: false
        }
    );
    let (out, promise) = written(
        unframed,
        &Downstream {
            version: Version::Http10,
            ..chunking
        },
    );
    assert!(
        !out.contains("Transfer-Encoding") && promise.close && !promise.chunk,
        "{out}"
    );
}

#[test]
fn answers_without_bodies() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut out = Vec::new();
    let promise = write_response_head(
        &parsed(head, true),
        head.as_bytes(),
        &client(Version::Http11, true),
        &mut out,
    );
    assert!(String::from_utf8_lossy(&out).contains("Transfer-Encoding: chunked"));
    assert_eq!(promise, FORWARD);
    out.clear();
    write_response_head(
        &parsed(head, true),
        head.as_bytes(),
        &client(Version::Http10, true),
        &mut out,
    );
    assert!(!String::from_utf8_lossy(&out).contains("Transfer-Encoding"));
    let (out, _) = written(
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        &client(Version::Http11, true),
    );
    assert!(out.contains("Content-Length: 5"));
    for framed in [
        "Content-Length: 5",
        "Content-Length: 05",
        "Transfer-Encoding: chunked",
    ] {
        let (out, promise) = written(
            &format!("HTTP/1.1 204 No Content\r\n{framed}\r\n\r\n"),
            &client(Version::Http11, true),
        );
        assert_eq!(out, format!("HTTP/1.1 204 No Content\r\n{ADDED}\r\n"));
        assert_eq!(promise, FORWARD);
    }
}

#[test]
fn switching_protocols_passes() {
    let text = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n";
    let (out, promise) = written(text, &client(Version::Http11, false));
    assert_eq!(
        out,
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n{ADDED}Connection: upgrade\r\n\r\n"
        )
    );
    assert!(!promise.close);
    let (out, promise) = written(
        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.0\r\nContent-Length: 0\r\n\r\n",
        &client(Version::Http11, false),
    );
    assert!(
        out.contains("Upgrade: TLS/1.0\r\n") && out.ends_with("Connection: upgrade, close\r\n\r\n")
    );
    assert!(promise.close);
}

#[test]
fn interim_answers_keep_their_headers() {
    let text =
        "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nConnection: x\r\nContent-Length: 0\r\n\r\n";
    let mut out = Vec::new();
    write_interim(&parsed(text, false), text.as_bytes(), &mut out);
    assert_eq!(out, b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
}
