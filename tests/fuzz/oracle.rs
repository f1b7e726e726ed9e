//! What must hold of the codec for any bytes whatever. Shared by the fuzz
//! targets and by `tests/http1_properties.rs`.
//!
//! Each function takes bytes, runs the codec on them in one piece and in
//! several, and panics where two readings differ: between splits, between the
//! codec and an independent parser, between what came in and what goes out.

use portico::edge::http1::body::{Body, HELD_BYTES, Mode};
use portico::edge::http1::head::{Framing, Header, Limits, Version};
use portico::edge::http1::known::Known;
use portico::edge::http1::request::{Refusal, RequestHead, parse_request};
use portico::edge::http1::request_writer::{Forwarding, Peer, write_request_head};
use portico::edge::http1::response::{Defect, ResponseHead, parse_response};
use portico::edge::http1::response_writer::{Downstream, write_interim, write_response_head};
use portico::edge::http1::scan::Scan;

/// Headers an independent parser makes room for: more than the codec accepts
/// and adds.
const ROOM: usize = 1_200;

/// Reads a request's head in pieces of `step` bytes.
fn read_request(input: &[u8], step: usize) -> Result<Option<(usize, RequestHead)>, Refusal> {
    let (mut scan, mut head) = (Scan::default(), RequestHead::default());
    let mut there = 0;
    loop {
        there = input.len().min(there + step);
        let read = parse_request(&input[..there], &mut scan, &Limits::REQUEST, &mut head)?;
        match read {
            Some(len) => return Ok(Some((len, head))),
            None if there == input.len() => return Ok(None),
            None => {}
        }
    }
}

/// The head's fields and lines, as text.
fn lines(headers: &[Header], buf: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    headers
        .iter()
        .map(|h| (h.name.of(buf).to_vec(), h.value.of(buf).to_vec()))
        .collect()
}

fn theirs(headers: &[httparse::Header]) -> Vec<(Vec<u8>, Vec<u8>)> {
    headers
        .iter()
        .map(|h| (h.name.as_bytes().to_vec(), h.value.to_vec()))
        .collect()
}

/// Splits agree; httparse agrees; what is written for a backend reads as the
/// same request, with one framing and one Host. The first byte chooses the
/// split and the client.
pub fn request(input: &[u8]) {
    let Some((choice, input)) = input.split_first() else {
        return;
    };
    let whole = read_request(input, input.len().max(1));
    for step in [1, 1 + usize::from(*choice)] {
        let split = read_request(input, step);
        assert_eq!(
            format!("{whole:?}"),
            format!("{split:?}"),
            "in pieces of {step}"
        );
    }
    let Ok(Some((len, head))) = whole else {
        return;
    };
    httparse_agrees_on_request(&input[..len], &head);
    let peer = Peer::new([192, 0, 2, 1].into(), "http", 80, choice & 1 == 1);
    let forwarding = Forwarding {
        peer: &peer,
        request_id: b"00000000-0000-0000-0000-000000000000",
        received_ms: 1,
        trace_id: 2,
        span_id: 3,
        backend_keepalive: choice & 2 == 2,
    };
    let mut out = Vec::new();
    let forwarded_for = write_request_head(&head, input, &forwarding, &mut out);
    assert!(forwarded_for.of(&out).ends_with(b"192.0.2.1"));
    let (again_len, again) = read_written_request(&out);
    assert_eq!(again_len, out.len());
    assert_eq!(again.method_text.of(&out), head.method_text.of(input));
    assert_eq!(again.host, head.host);
    assert_eq!(again.authority.of(&out), head.authority.of(input));
    assert_eq!(again.framing, head.framing);
    assert_eq!(again.upgrade, head.upgrade);
    assert_eq!(again.te_trailers, head.te_trailers);
    assert!(!again.expect_continue && again.version == Version::Http11);
    if again.path_and_query.of(&out) != b"*" {
        assert_eq!(again.path(&out), head.path(input));
    }
    one_framing(&again.headers);
    passes_in_order(&head.headers, input, &again.headers, &out);
    httparse_agrees_on_request(&out, &again);
}

/// Reads back what was written. The lines added may pass the limit on lines
/// that clients are held to.
fn read_written_request(out: &[u8]) -> (usize, RequestHead) {
    let limits = Limits {
        headers: ROOM,
        start_line_bytes: 1 << 20,
        header_line_bytes: 1 << 20,
        head_bytes: 1 << 20,
    };
    let (mut scan, mut head) = (Scan::default(), RequestHead::default());
    let len = parse_request(out, &mut scan, &limits, &mut head)
        .unwrap_or_else(|refusal| panic!("wrote {refusal:?}: {}", out.escape_ascii()))
        .expect("what is written must be whole");
    (len, head)
}

fn httparse_agrees_on_request(text: &[u8], head: &RequestHead) {
    let mut room = vec![httparse::EMPTY_HEADER; ROOM];
    let mut request = httparse::Request::new(&mut room);
    let len = request
        .parse(text)
        .unwrap_or_else(|error| panic!("httparse: {error}: {}", text.escape_ascii()));
    assert_eq!(len, httparse::Status::Complete(text.len()));
    assert_eq!(
        request.method.map(str::as_bytes),
        Some(head.method_text.of(text))
    );
    assert_eq!(request.path.map(str::as_bytes), Some(head.target.of(text)));
    assert_eq!(request.version == Some(1), head.version == Version::Http11);
    assert_eq!(theirs(request.headers), lines(&head.headers, text));
}

/// At most one header says where the body ends.
fn one_framing(headers: &[Header]) {
    let count = |known| headers.iter().filter(|h| h.known == known).count();
    assert!(count(Known::ContentLength) + count(Known::TransferEncoding) <= 1);
    assert!(count(Known::Connection) <= 1);
}

/// Every line that passes is there, in order, byte for byte.
fn passes_in_order(sent: &[Header], buf: &[u8], written: &[Header], out: &[u8]) {
    let passing: Vec<Header> = sent
        .iter()
        .filter(|h| !h.stops && h.known == Known::Other)
        .copied()
        .collect();
    let other: Vec<Header> = written
        .iter()
        .filter(|h| h.known == Known::Other)
        .copied()
        .collect();
    assert_eq!(lines(&passing, buf), lines(&other, out));
}

fn read_response(
    input: &[u8],
    step: usize,
    after_head: bool,
) -> Result<Option<(usize, ResponseHead)>, Defect> {
    let (mut scan, mut head) = (Scan::default(), ResponseHead::default());
    let mut there = 0;
    loop {
        there = input.len().min(there + step);
        let part = &input[..there];
        let read = parse_response(part, &mut scan, &Limits::RESPONSE, after_head, &mut head)?;
        match read {
            Some(len) => return Ok(Some((len, head))),
            None if there == input.len() => return Ok(None),
            None => {}
        }
    }
}

/// As [`request`], for responses.
pub fn response(input: &[u8]) {
    let Some((choice, input)) = input.split_first() else {
        return;
    };
    let after_head = choice & 1 == 1;
    let whole = read_response(input, input.len().max(1), after_head);
    for step in [1, 1 + usize::from(*choice)] {
        let split = read_response(input, step, after_head);
        assert_eq!(
            format!("{whole:?}"),
            format!("{split:?}"),
            "in pieces of {step}"
        );
    }
    let Ok(Some((len, head))) = whole else {
        return;
    };
    httparse_agrees_on_response(&input[..len], &head);
    let version = match choice & 2 {
        0 => Version::Http11,
        _ => Version::Http10,
    };
    let downstream = Downstream {
        version,
        keep_alive: choice & 4 == 4,
        chunk_unframed: choice & 8 == 8,
        request_id: b"00000000-0000-0000-0000-000000000000",
    };
    let mut out = Vec::new();
    if head.interim() {
        write_interim(&head, input, &mut out);
    } else {
        let promise = write_response_head(&head, input, &downstream, &mut out);
        let (_, again) = read_response(&out, out.len(), after_head)
            .expect("what is written must be well-formed")
            .expect("what is written must be whole");
        let expected = match head.framing {
            Framing::UntilClose if promise.chunk => Framing::Chunked,
            Framing::Chunked if promise.mode == Mode::Unchunk => Framing::UntilClose,
            framing => framing,
        };
        assert_eq!(again.framing, expected);
        // An end by closing must be announced; the rest is the client's wish.
        let closes = again.framing == Framing::UntilClose && !head.switching;
        assert!(promise.close || !closes);
    }
    let (again_len, again) = read_response(&out, out.len(), after_head)
        .expect("what is written must be well-formed")
        .expect("what is written must be whole");
    assert_eq!(again_len, out.len());
    assert_eq!(again.status, head.status);
    assert_eq!(again.reason.of(&out), head.reason.of(input));
    one_framing(&again.headers);
    passes_in_order(&head.headers, input, &again.headers, &out);
    httparse_agrees_on_response(&out, &again);
}

fn httparse_agrees_on_response(text: &[u8], head: &ResponseHead) {
    let mut room = vec![httparse::EMPTY_HEADER; ROOM];
    let mut response = httparse::Response::new(&mut room);
    let len = response
        .parse(text)
        .unwrap_or_else(|error| panic!("httparse: {error}: {}", text.escape_ascii()));
    assert_eq!(len, httparse::Status::Complete(text.len()));
    assert_eq!(response.code, Some(head.status));
    assert_eq!(response.version == Some(1), head.version == Version::Http11);
    assert_eq!(theirs(response.headers), lines(&head.headers, text));
}

/// What a filter made of a chunked body.
#[derive(Debug, PartialEq, Eq)]
pub struct Filtered {
    /// Bytes to be forwarded.
    pub forwarded: Vec<u8>,
    /// Input bytes the body had.
    pub consumed: usize,
    /// Payload bytes counted.
    pub payload: u64,
    /// It ended.
    pub done: bool,
}

/// Runs a body through the filter, `step` bytes a time; `None` if it is broken.
pub fn filter(framing: Framing, mode: Mode, input: &[u8], step: usize) -> Option<Filtered> {
    let mut body = Body::new(framing, mode);
    let mut filtered = Filtered {
        forwarded: Vec::new(),
        consumed: 0,
        payload: 0,
        done: body.done(),
    };
    let (mut held, mut there) = (Vec::new(), 0);
    while !filtered.done && there < input.len() {
        let end = input.len().min(there + step);
        held.extend_from_slice(&input[there..end]);
        there = end;
        let progress = body.advance(&mut held).ok()?;
        assert!(progress.produced <= progress.consumed && progress.consumed <= held.len());
        filtered
            .forwarded
            .extend_from_slice(&held[..progress.produced]);
        held.drain(..progress.consumed);
        filtered.consumed += progress.consumed;
        filtered.done = progress.done;
        assert!(filtered.done || held.len() <= HELD_BYTES);
    }
    filtered.payload = body.payload();
    Some(filtered)
}

/// A chunked body as an independent decoder reads it.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Its chunks, joined.
    pub payload: Vec<u8>,
    /// Its trailer lines.
    pub trailers: Vec<Vec<u8>>,
    /// Bytes it had.
    pub consumed: usize,
    /// Some size line had more than a size.
    pub extended: bool,
}

/// Decodes the plainest way: line by line, no state. `None` if the body does
/// not end or is not one.
pub fn decode(input: &[u8]) -> Option<Decoded> {
    fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let line = &rest[..end];
        *rest = &rest[end + 2..];
        Some(line)
    }
    let mut rest = input;
    let mut decoded = Decoded {
        payload: Vec::new(),
        trailers: Vec::new(),
        consumed: 0,
        extended: false,
    };
    loop {
        let sizes = line(&mut rest)?;
        let digits = sizes.split(|b| *b == b';').next()?;
        decoded.extended |= digits.len() < sizes.len();
        let digits = std::str::from_utf8(digits).ok()?;
        let size = usize::try_from(u64::from_str_radix(digits, 16).ok()?).ok()?;
        if size == 0 {
            break;
        }
        decoded.payload.extend_from_slice(rest.get(..size)?);
        rest = rest[size..].strip_prefix(b"\r\n")?;
    }
    loop {
        let trailer = line(&mut rest)?;
        if trailer.is_empty() {
            break;
        }
        decoded.trailers.push(trailer.to_vec());
    }
    decoded.consumed = input.len() - rest.len();
    Some(decoded)
}

/// Splits agree; what passes decodes to the same payload; nothing is dropped
/// but extensions and trailers. The first byte chooses the split.
pub fn chunked(input: &[u8]) {
    let Some((choice, input)) = input.split_first() else {
        return;
    };
    let pieces = [1, 1 + usize::from(*choice)];
    let whole = filter(Framing::Chunked, Mode::Forward, input, input.len().max(1));
    let plain = filter(Framing::Chunked, Mode::Unchunk, input, input.len().max(1));
    for step in pieces {
        let split = filter(Framing::Chunked, Mode::Forward, input, step);
        assert_same(&whole, &split);
        let split = filter(Framing::Chunked, Mode::Unchunk, input, step);
        assert_same(&plain, &split);
    }
    assert_eq!(whole.is_none(), plain.is_none());
    let (Some(whole), Some(plain)) = (whole, plain) else {
        return;
    };
    assert_eq!(
        (whole.consumed, whole.payload, whole.done),
        (plain.consumed, plain.payload, plain.done)
    );
    assert_eq!(plain.forwarded.len() as u64, plain.payload);
    let sent = decode(input);
    if !whole.done {
        assert!(sent.is_none(), "a body ended and was not noticed");
        return;
    }
    let sent = sent.expect("what is accepted must decode");
    assert_eq!(sent.consumed, whole.consumed);
    assert_eq!(sent.payload, plain.forwarded);
    let passed = decode(&whole.forwarded).expect("what is forwarded must decode");
    assert_eq!(passed.consumed, whole.forwarded.len());
    assert_eq!(passed.payload, sent.payload);
    assert!(!passed.extended);
    assert!(
        passed
            .trailers
            .iter()
            .all(|line| sent.trailers.contains(line))
    );
    if !sent.extended && passed.trailers.len() == sent.trailers.len() {
        assert_eq!(whole.forwarded, input[..whole.consumed]);
    }
}

/// Both broken, or both the same. What a broken body forwarded before its flaw
/// was seen depends on the split, and does not matter.
fn assert_same(one: &Option<Filtered>, other: &Option<Filtered>) {
    assert_eq!(one, other, "splits differ");
}
