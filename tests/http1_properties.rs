//! Properties of the HTTP/1.1 codec, over generated messages and over any
//! bytes.
//!
//! The oracles of `fuzz/oracle.rs` hold for edited and random bytes; and what
//! the codec writes is read by hyper, on both sides, as the message that was
//! generated: method, target, headers, body and trailers.

#[path = "http1_properties/messages.rs"]
mod messages;
#[path = "fuzz/oracle.rs"]
mod oracle;
#[path = "http1_properties/reader.rs"]
mod reader;

use messages::{Lines, edited, message, parts};
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
use reader::{block_on, hyper_client_reads, hyper_server_reads};

const ID: &str = "0123456789abcdef0123";

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
