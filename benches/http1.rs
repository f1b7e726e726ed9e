//! What the HTTP/1.1 codec costs: nanoseconds an operation, the best of several
//! rounds, printed. `cargo bench --bench http1`.
//!
//! `httparse` alone stands beside it, for scale: it finds the lines, without
//! the checks, the framing or the host.

use std::hint::black_box;
use std::net::IpAddr;
use std::time::Instant;

use portico::edge::http1::body::{Body, Mode};
use portico::edge::http1::head::{Framing, Limits, Version};
use portico::edge::http1::request::{RequestHead, parse_request};
use portico::edge::http1::request_writer::{Forwarding, Peer, write_request_head};
use portico::edge::http1::response::{ResponseHead, parse_response};
use portico::edge::http1::response_writer::{Downstream, write_response_head};
use portico::edge::http1::scan::Scan;

const REQUEST: &[u8] = b"GET /some/path/of/an/app?with=a&query=string HTTP/1.1\r\n\
Host: shop-1234.apps.example\r\n\
User-Agent: curl/8.5.0 (x86_64-pc-linux-gnu)\r\n\
Accept: text/html,application/xhtml+xml\r\n\
Accept-Encoding: gzip, deflate, br\r\n\
Accept-Language: en-GB,en;q=0.9\r\n\
Cookie: session=0123456789abcdef\r\n\
Cache-Control: max-age=0\r\n\
Connection: keep-alive\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
Server: nginx\r\n\
Date: Mon, 23 Nov 2026 12:00:00 GMT\r\n\
Content-Type: text/plain\r\n\
Content-Length: 12\r\n\
Connection: keep-alive\r\n\
ETag: \"0123456789\"\r\n\r\n";

/// Best nanoseconds an operation of several rounds.
fn time(what: &str, mut operation: impl FnMut()) {
    const ROUNDS: u32 = 30;
    const OPERATIONS: u32 = 20_000;
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..OPERATIONS {
            operation();
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(OPERATIONS));
    }
    println!("{what:<44} {best:>8.1} ns");
}

fn requests() {
    let mut head = RequestHead::default();
    time("parse a request (8 headers)", || {
        let parsed = parse_request(
            black_box(REQUEST),
            &mut Scan::default(),
            &Limits::REQUEST,
            &mut head,
        );
        assert!(matches!(black_box(parsed), Ok(Some(_))));
    });
    time("  httparse alone", || {
        let mut headers = [httparse::EMPTY_HEADER; 100];
        let mut request = httparse::Request::new(&mut headers);
        assert!(black_box(request.parse(black_box(REQUEST))).is_ok());
    });
    let peer = Peer::new(IpAddr::from([203, 0, 113, 9]), "http", 8080, false);
    let forwarding = Forwarding {
        peer: &peer,
        request_id: b"01234567-89ab-cdef-0123-456789abcdef",
        received_ms: 1_700_000_000_123,
        trace_id: 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef,
        span_id: 0x0123_4567_89ab_cdef,
        backend_keepalive: true,
    };
    let mut out = Vec::new();
    time("write it for a backend", || {
        out.clear();
        black_box(write_request_head(
            black_box(&head),
            black_box(REQUEST),
            &forwarding,
            &mut out,
        ));
    });
}

fn responses() {
    let mut head = ResponseHead::default();
    time("parse a response (6 headers)", || {
        let parsed = parse_response(
            black_box(RESPONSE),
            &mut Scan::default(),
            &Limits::RESPONSE,
            false,
            &mut head,
        );
        assert!(matches!(black_box(parsed), Ok(Some(_))));
    });
    time("  httparse alone", || {
        let mut headers = [httparse::EMPTY_HEADER; 100];
        let mut response = httparse::Response::new(&mut headers);
        assert!(black_box(response.parse(black_box(RESPONSE))).is_ok());
    });
    let downstream = Downstream {
        version: Version::Http11,
        keep_alive: true,
        chunk_unframed: false,
        request_id: b"01234567-89ab-cdef-0123-456789abcdef",
    };
    let mut out = Vec::new();
    time("write it for the client", || {
        out.clear();
        black_box(write_response_head(
            black_box(&head),
            black_box(RESPONSE),
            &downstream,
            &mut out,
        ));
    });
}

fn bodies() {
    for (what, size) in [("16 B", 16_usize), ("4 KiB", 4096)] {
        let count = 64 * 1024 / size;
        let mut chunks = Vec::new();
        for _ in 0..count {
            chunks.extend_from_slice(format!("{size:x}\r\n").as_bytes());
            chunks.extend_from_slice(&vec![b'x'; size]);
            chunks.extend_from_slice(b"\r\n");
        }
        let mut body = Body::new(Framing::Chunked, Mode::Forward);
        time(&format!("check 64 KiB in {count} chunks of {what}"), || {
            let progress = body.advance(black_box(&mut chunks));
            assert!(black_box(progress).is_ok());
        });
    }
}

fn main() {
    requests();
    responses();
    bodies();
}
