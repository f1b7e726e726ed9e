//! Properties of the HTTP/1.1 codec, over generated messages and over any
//! bytes.
//!
//! The oracles of `fuzz/oracle.rs` hold for edited and random bytes; and what
//! the codec writes is read by hyper, on both sides, as the message that was
//! generated: method, target, headers, body and trailers.

#[path = "fuzz/oracle.rs"]
mod oracle;

use std::convert::Infallible;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use oracle::{decode, filter};
use portico::edge::http1::body::Mode;
use portico::edge::http1::head::{Framing, Limits, Version};
use portico::edge::http1::request::{RequestHead, parse_request};
use portico::edge::http1::request_writer::{Forwarding, Peer, write_request_head};
use portico::edge::http1::response::{ResponseHead, parse_response};
use portico::edge::http1::response_writer::{Downstream, write_response_head};
use portico::edge::http1::scan::Scan;
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Name and value of each header or trailer, names in lower case, sorted by
/// name and otherwise in order.
type Lines = Vec<(String, Vec<u8>)>;

const ID: &str = "0123456789abcdef0123";

/// Headers that reach the other side as they are.
const END_TO_END: &[&str] = &[
    "Accept",
    "Cookie",
    "User-Agent",
    "Content-Type",
    "X-A",
    "x-b",
    "X_under",
    "If-None-Match",
    "Range",
    "Authorization",
    "!#$%&'*+-.^_`|~0aZ",
    "Set-Cookie",
];

/// Headers that stop at the router, or are set by it.
const HOP_BY_HOP: &[&str] = &[
    "Keep-Alive",
    "Proxy-Connection",
    "Proxy-Authorization",
    "HTTP2-Settings",
    "X-Request-Id",
    "Proxy-Authenticate",
    "x-hop",
];

fn value() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![9 => 0x21..=0x7e_u8, 1 => 0x80..=0xff_u8];
    let inner = prop_oneof![8 => byte.clone(), 1 => Just(b' '), 1 => Just(b'\t')];
    prop_oneof![
        1 => Just(Vec::new()),
        9 => (byte.clone(), vec(inner, 0..20), byte).prop_map(|(first, mut rest, last)| {
            rest.insert(0, first);
            rest.push(last);
            rest
        }),
    ]
}

fn headers(names: &'static [&'static str]) -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
    vec((prop::sample::select(names), value()), 0..8)
}

/// A body as chunks; joined, it is one of known length.
fn chunks() -> impl Strategy<Value = Vec<Vec<u8>>> {
    vec(vec(any::<u8>(), 1..60), 0..6)
}

fn trailers() -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
    let names: &[&str] = &[
        "X-Sum",
        "x-other",
        "Content-Length",
        "Host",
        "Set-Cookie",
        "TE",
    ];
    vec((prop::sample::select(names), value()), 0..4)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Body {
    None,
    Length,
    Chunked,
}

/// A message's parts beside its first line.
#[derive(Clone, Debug)]
struct Parts {
    end_to_end: Vec<(&'static str, Vec<u8>)>,
    hop_by_hop: Vec<(&'static str, Vec<u8>)>,
    body: Body,
    chunks: Vec<Vec<u8>>,
    trailers: Vec<(&'static str, Vec<u8>)>,
    extensions: bool,
    blanks: &'static str,
    step: usize,
}

fn parts() -> impl Strategy<Value = Parts> {
    (
        headers(END_TO_END),
        headers(HOP_BY_HOP),
        prop::sample::select(&[Body::None, Body::Length, Body::Chunked][..]),
        chunks(),
        trailers(),
        any::<bool>(),
        prop::sample::select(&["", " ", "\t \t"][..]),
        1..200_usize,
    )
        .prop_map(
            |(end_to_end, hop_by_hop, body, chunks, trailers, extensions, blanks, step)| Parts {
                end_to_end,
                hop_by_hop,
                body,
                chunks,
                trailers,
                extensions,
                blanks,
                step,
            },
        )
}

fn line(name: &str, value: &[u8], blanks: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    out.extend_from_slice(blanks.as_bytes());
    out.extend_from_slice(value);
    out.extend_from_slice(blanks.as_bytes());
    out.extend_from_slice(b"\r\n");
}

impl Parts {
    /// The headers after the first line, then the body.
    fn write(&self, out: &mut Vec<u8>) {
        let mut hop_by_hop = self.hop_by_hop.iter();
        line("Connection", b"keep-alive, X-Hop", self.blanks, out);
        for (name, value) in &self.end_to_end {
            line(name, value, self.blanks, out);
            if let Some((name, value)) = hop_by_hop.next() {
                line(name, value, self.blanks, out);
            }
        }
        match self.body {
            Body::None => {}
            Body::Length => {
                let length = self.payload().len().to_string();
                line("content-Length", length.as_bytes(), self.blanks, out);
            }
            Body::Chunked => line("transfer-encoding", b"Chunked", self.blanks, out),
        }
        out.extend_from_slice(b"\r\n");
        match self.body {
            Body::None => {}
            Body::Length => out.extend_from_slice(&self.payload()),
            Body::Chunked => self.write_chunks(out),
        }
    }

    fn write_chunks(&self, out: &mut Vec<u8>) {
        let extension = if self.extensions { ";a=b;c" } else { "" };
        for chunk in &self.chunks {
            out.extend_from_slice(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
            out.extend_from_slice(chunk);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(format!("00{extension}\r\n").as_bytes());
        for (name, value) in &self.trailers {
            line(name, value, self.blanks, out);
        }
        out.extend_from_slice(b"\r\n");
    }

    fn payload(&self) -> Vec<u8> {
        match self.body {
            Body::None => Vec::new(),
            _ => self.chunks.concat(),
        }
    }

    fn expected_headers(&self) -> Lines {
        sorted(
            self.end_to_end
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone())),
        )
    }

    fn expected_trailers(&self) -> Lines {
        let passing = self
            .trailers
            .iter()
            .filter(|(name, _)| name.starts_with(['X', 'x']));
        match self.body {
            Body::Chunked => {
                sorted(passing.map(|(name, value)| ((*name).to_owned(), value.clone())))
            }
            _ => Vec::new(),
        }
    }
}

fn sorted(lines: impl Iterator<Item = (String, Vec<u8>)>) -> Lines {
    let mut lines: Lines = lines
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    lines.sort_by(|one, other| one.0.cmp(&other.0));
    lines
}

fn hypers(headers: &hyper::HeaderMap) -> Lines {
    sorted(
        headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())),
    )
}

/// What hyper read of a message.
#[derive(Debug)]
struct Read {
    /// Method and target, or the status.
    first: String,
    version: hyper::Version,
    headers: Lines,
    body: Vec<u8>,
    trailers: Lines,
}

async fn read_body(body: Incoming) -> (Vec<u8>, Lines) {
    let collected = body.collect().await.expect("hyper must read the body");
    let trailers = collected.trailers().map(hypers).unwrap_or_default();
    (collected.to_bytes().to_vec(), trailers)
}

/// One request read by hyper's server.
async fn hyper_server_reads(wire: Vec<u8>) -> Read {
    let (mut near, far) = tokio::io::duplex(1 << 20);
    near.write_all(&wire).await.expect("a duplex must take it");
    let (send, mut receive) = tokio::sync::mpsc::channel(1);
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let send = send.clone();
        async move {
            let (head, body) = request.into_parts();
            let (body, trailers) = read_body(body).await;
            let read = Read {
                first: format!("{} {}", head.method, head.uri),
                version: head.version,
                headers: hypers(&head.headers),
                body,
                trailers,
            };
            send.send(read).await.expect("the test must wait for it");
            Ok::<_, Infallible>(hyper::Response::new(Full::new(Bytes::new())))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .max_headers(1_000)
        .serve_connection(TokioIo::new(far), service);
    tokio::select! {
        ended = connection => panic!("hyper refused it: {ended:?}\n{}", wire.escape_ascii()),
        read = receive.recv() => read.expect("one request must come"),
    }
}

/// One response read by hyper's client. The other side closes after it.
async fn hyper_client_reads(wire: Vec<u8>, method: &str) -> Read {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_headers(2_000)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(near))
        .await
        .expect("a duplex must do");
    let connection = tokio::spawn(connection);
    let request = hyper::Request::builder().method(method).uri("/");
    let request = request
        .body(Empty::new())
        .expect("a plain request must build");
    let answer = tokio::spawn(sender.send_request(request));
    read_head(&mut far).await;
    far.write_all(&wire).await.expect("a duplex must take it");
    drop(far);
    let answer = answer.await.expect("hyper must not panic");
    let answer = answer.unwrap_or_else(|error| panic!("{error}: {}", wire.escape_ascii()));
    let (head, body) = answer.into_parts();
    let (body, trailers) = read_body(body).await;
    let _closed = connection.await;
    Read {
        first: head.status.as_str().to_owned(),
        version: head.version,
        headers: hypers(&head.headers),
        body,
        trailers,
    }
}

async fn read_head(stream: &mut DuplexStream) {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        read.push(stream.read_u8().await.expect("hyper must send a request"));
    }
}

fn block_on<T>(task: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime must start")
        .block_on(async {
            tokio::time::timeout(Duration::from_secs(20), task)
                .await
                .expect("hyper must not wait for more")
        })
}

/// Without the headers the router adds.
fn without(lines: &Lines, added: &[&str]) -> Lines {
    let kept = lines
        .iter()
        .filter(|(name, _)| !added.contains(&name.as_str()));
    kept.cloned().collect()
}

fn one<'a>(lines: &'a Lines, name: &str) -> &'a [u8] {
    let mut found = lines.iter().filter(|(other, _)| other == name);
    let (_, value) = found
        .next()
        .unwrap_or_else(|| panic!("no {name}: {lines:?}"));
    assert!(found.next().is_none(), "more than one {name}: {lines:?}");
    value
}

/// The request as the router forwards it.
fn forwarded_request(sent: &[u8], step: usize) -> Vec<u8> {
    let mut head = RequestHead::default();
    let len = parse_request(sent, &mut Scan::default(), &Limits::REQUEST, &mut head)
        .unwrap_or_else(|refusal| panic!("{refusal:?}: {}", sent.escape_ascii()))
        .expect("must be whole");
    let peer = Peer::new([192, 0, 2, 1].into(), "http", 80, false);
    let forwarding = Forwarding {
        peer: &peer,
        request_id: ID.as_bytes(),
        received_ms: 1,
        trace_id: 2,
        span_id: 3,
        backend_keepalive: true,
    };
    let mut out = Vec::new();
    write_request_head(&head, sent, &forwarding, &mut out);
    let body =
        filter(head.framing, Mode::Forward, &sent[len..], step).expect("must be well-formed");
    assert!(body.done && len + body.consumed == sent.len());
    out.extend_from_slice(&body.forwarded);
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hyper_reads_the_request_that_was_sent(
        method in prop::sample::select(&["GET", "POST", "HEAD", "PUT", "OPTIONS", "QUERY"][..]),
        target in "/[a-zA-Z0-9/._~!$&'()*+,;=:@%-]{0,20}(\\?[a-z0-9=&/?%]{0,10})?",
        absolute in any::<bool>(),
        parts in parts(),
    ) {
        // hyper reads a target of two slashes as an authority.
        prop_assume!(!target.starts_with("//"));
        let scheme = if absolute { "http://a.example:80" } else { "" };
        let mut sent = format!("{method} {scheme}{target} HTTP/1.1\r\nHost: a.example:80\r\n").into_bytes();
        parts.write(&mut sent);
        let read = block_on(hyper_server_reads(forwarded_request(&sent, parts.step)));
        prop_assert_eq!(read.first, format!("{method} {target}"));
        prop_assert_eq!(read.version, hyper::Version::HTTP_11);
        prop_assert_eq!(read.body, parts.payload());
        prop_assert_eq!(read.trailers, parts.expected_trailers());
        prop_assert_eq!(one(&read.headers, "host"), b"a.example:80");
        prop_assert_eq!(one(&read.headers, "x-request-id"), ID.as_bytes());
        prop_assert_eq!(one(&read.headers, "x-forwarded-for"), b"192.0.2.1");
        let added = [
            "host", "x-request-id", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-port",
            "x-forwarded-host", "x-request-start", "via", "traceparent", "content-length",
            "transfer-encoding",
        ];
        prop_assert_eq!(without(&read.headers, &added), parts.expected_headers());
    }

    #[test]
    fn hyper_reads_the_response_that_was_sent(
        status in 200..600_u16,
        old_client in any::<bool>(),
        after_head in any::<bool>(),
        parts in parts(),
    ) {
        let bodiless = after_head || matches!(status, 204 | 304);
        let mut sent = format!("HTTP/1.1 {status} Whatever it is\r\n").into_bytes();
        parts.write(&mut sent);
        let mut head = ResponseHead::default();
        let len = parse_response(&sent, &mut Scan::default(), &Limits::RESPONSE, after_head, &mut head)
            .expect("must be well-formed")
            .expect("must be whole");
        let version = if old_client { Version::Http10 } else { Version::Http11 };
        let downstream = Downstream {
            version,
            keep_alive: true,
            chunk_unframed: false,
            request_id: ID.as_bytes(),
        };
        let mut out = Vec::new();
        let promise = write_response_head(&head, &sent, &downstream, &mut out);
        let body = filter(head.framing, promise.mode, &sent[len..], parts.step).expect("must be well-formed");
        prop_assert!(body.done || head.framing == Framing::UntilClose);
        out.extend_from_slice(&body.forwarded);
        let read = block_on(hyper_client_reads(out, if after_head { "HEAD" } else { "GET" }));
        prop_assert_eq!(read.first, status.to_string());
        prop_assert_eq!(read.body, if bodiless { Vec::new() } else { parts.payload() });
        let trailing = !bodiless && !old_client;
        prop_assert_eq!(read.trailers, if trailing { parts.expected_trailers() } else { Vec::new() });
        prop_assert_eq!(one(&read.headers, "x-request-id"), ID.as_bytes());
        let added = ["x-request-id", "via", "connection", "content-length", "transfer-encoding"];
        prop_assert_eq!(without(&read.headers, &added), parts.expected_headers());
    }

    #[test]
    fn chunks_keep_their_payload(parts in parts()) {
        let mut sent = Vec::new();
        parts.write_chunks(&mut sent);
        let passed = filter(Framing::Chunked, Mode::Forward, &sent, parts.step).expect("must be well-formed");
        prop_assert!(passed.done && passed.consumed == sent.len());
        let decoded = decode(&passed.forwarded).expect("must decode");
        prop_assert_eq!(&decoded.payload, &parts.chunks.concat());
        prop_assert_eq!(decoded.trailers.len(), parts.trailers.iter().filter(|(name, _)| name.starts_with(['X', 'x'])).count());
        let plain = filter(Framing::Chunked, Mode::Unchunk, &sent, parts.step).expect("must be well-formed");
        prop_assert_eq!(plain.forwarded, parts.chunks.concat());
        let mut choice = vec![7];
        choice.extend_from_slice(&sent);
        oracle::chunked(&choice);
    }
}

/// Bytes that make parsers disagree.
const EDITS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    " ",
    "\t",
    ":",
    ",",
    ";",
    "\0",
    "\x7f",
    "\u{e9}",
    "0",
    "5",
    "+",
    "chunked",
    "Content-Length: 5\r\n",
    "Content-Length: 6\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Host: b\r\n",
    "Connection: close, x-a\r\n",
    " folded\r\n",
    "HTTP/1.0",
    "GET / HTTP/1.1\r\n",
    "#",
    "Upgrade: x\r\n",
    "Connection: upgrade\r\n",
    "1;a=b\r\n",
    "X: y\r\n",
    "_",
    "*",
    "http://b/",
];

/// Cuts, doubles and insertions.
fn edited(text: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let edit = (
        any::<prop::sample::Index>(),
        0..4_u8,
        prop::sample::select(EDITS),
        0..9_usize,
    );
    vec(edit, 0..4).prop_map(move |edits| {
        let mut text = text.clone();
        for (at, kind, insert, len) in edits {
            let at = at.index(text.len() + 1);
            let end = text.len().min(at + len);
            match kind {
                0 => drop(text.drain(at..end)),
                1 => {
                    let again = text[at..end].to_vec();
                    drop(text.splice(at..at, again));
                }
                2 => drop(text.splice(at..end, insert.bytes())),
                _ => drop(text.splice(at..at, insert.bytes())),
            }
        }
        text
    })
}

/// The choice byte of the oracles, then a message with a few edits.
fn message(first: &'static str) -> impl Strategy<Value = Vec<u8>> {
    (any::<u8>(), parts()).prop_flat_map(move |(choice, parts)| {
        let mut text = vec![choice];
        text.extend_from_slice(first.as_bytes());
        parts.write(&mut text);
        edited(text)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn edited_requests_have_one_reading(text in message("POST /x?y HTTP/1.1\r\nHost: a\r\n")) {
        oracle::request(&text);
    }

    #[test]
    fn edited_responses_have_one_reading(text in message("HTTP/1.1 200 OK\r\n")) {
        oracle::response(&text);
    }

    #[test]
    fn edited_chunks_have_one_reading(
        text in (any::<u8>(), parts()).prop_flat_map(|(choice, parts)| {
            let mut text = vec![choice];
            parts.write_chunks(&mut text);
            edited(text)
        }),
    ) {
        oracle::chunked(&text);
    }

    #[test]
    fn any_bytes_are_survived(text in vec(any::<u8>(), 0..300)) {
        oracle::request(&text);
        oracle::response(&text);
        oracle::chunked(&text);
    }
}
