//! Requests that two parsers could read differently, or that no parser should
//! read: a 4xx, a closed connection, and not a byte at the backend.

use std::time::Duration;

use crate::harness::{Backend, Router, eventually};

/// What each refused request is, whole.
#[rustfmt::skip]
const HEADS: &[(&str, &[u8])] = &[
    ("length with chunked", b"POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("chunked with length", b"POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
    ("differing lengths", b"POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
    ("differing lengths in a list", b"POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5, 6\r\n\r\nhello"),
    ("a signed length", b"POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: +5\r\n\r\nhello"),
    ("a negative length", b"POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: -5\r\n\r\nhello"),
    ("a hexadecimal length", b"POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0x5\r\n\r\nhello"),
    ("a length with blanks inside", b"POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5 0\r\n\r\nhello"),
    ("an empty length", b"POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length:\r\n\r\nhello"),
    ("a length past all counting", b"POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 99999999999999999999999999\r\n\r\nhello"),
    ("a length of two to the 64th", b"POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 18446744073709551616\r\n\r\nhello"),
    ("a fractional length", b"POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5.0\r\n\r\nhello"),
    ("an unknown coding", b"POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("chunked twice", b"POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    ("chunked twice on two lines", b"POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("chunked not last", b"POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    ("chunked then identity", b"POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
    ("an empty coding", b"POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n"),
    ("a quoted coding", b"POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
    ("a coding after a vertical tab", b"POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    ("chunked in HTTP/1.0", b"POST / HTTP/1.0\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a space before the colon", b"POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length : 5\r\n\r\nhello"),
    ("a tab before the colon", b"GET / HTTP/1.1\r\nHost: shop.example\r\nX-Y\t: 5\r\n\r\n"),
    ("a folded line", b"GET / HTTP/1.1\r\nHost: shop.example\r\nX-Y: a\r\n b\r\n\r\n"),
    ("a folded line with a tab", b"GET / HTTP/1.1\r\nHost: shop.example\r\nX-Y: a\r\n\tb\r\n\r\n"),
    ("a fold before any header", b"GET / HTTP/1.1\r\n Host: shop.example\r\n\r\n"),
    ("a bare LF after the request line", b"GET / HTTP/1.1\nHost: shop.example\r\n\r\n"),
    ("bare LFs throughout", b"GET / HTTP/1.1\nHost: shop.example\n\n"),
    ("a bare LF between headers", b"GET / HTTP/1.1\r\nHost: shop.example\nX-Y: z\r\n\r\n"),
    ("a bare LF at the end", b"GET / HTTP/1.1\r\nHost: shop.example\r\n\n"),
    ("a bare CR in a value", b"GET / HTTP/1.1\r\nHost: shop.example\r\nX-Y: a\rb\r\n\r\n"),
    ("a bare CR in the request line", b"GET /\r HTTP/1.1\r\nHost: shop.example\r\n\r\n"),
    ("two CRs before a LF", b"GET / HTTP/1.1\r\nHost: shop.example\r\nX-Y: a\r\r\n\r\n"),
    ("a NUL in a value", b"GET / HTTP/1.1\r\nHost: shop.example\r\nX-Y: a\0b\r\n\r\n"),
    ("a control character in a value", b"GET / HTTP/1.1\r\nHost: shop.example\r\nX-Y: a\x07b\r\n\r\n"),
    ("a DEL in a value", b"GET / HTTP/1.1\r\nHost: shop.example\r\nX-Y: a\x7fb\r\n\r\n"),
    ("a NUL in a name", b"GET / HTTP/1.1\r\nHost: shop.example\r\nX\0Y: a\r\n\r\n"),
    ("a blank in a name", b"GET / HTTP/1.1\r\nHost: shop.example\r\nX Y: a\r\n\r\n"),
    ("a high byte in a name", b"GET / HTTP/1.1\r\nHost: shop.example\r\nX\xe9Y: a\r\n\r\n"),
    ("an empty name", b"GET / HTTP/1.1\r\nHost: shop.example\r\n: a\r\n\r\n"),
    ("a line without a colon", b"GET / HTTP/1.1\r\nHost: shop.example\r\nnonsense\r\n\r\n"),
    ("two hosts", b"GET / HTTP/1.1\r\nHost: shop.example\r\nHost: blog.example\r\n\r\n"),
    ("the same host twice", b"GET / HTTP/1.1\r\nHost: shop.example\r\nHost: shop.example\r\n\r\n"),
    ("no host", b"GET / HTTP/1.1\r\nX-Y: a\r\n\r\n"),
    ("no header at all", b"GET / HTTP/1.1\r\n\r\n"),
    ("an empty host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n"),
    ("a host with a blank", b"GET / HTTP/1.1\r\nHost: shop.example evil\r\n\r\n"),
    ("a host with a slash", b"GET / HTTP/1.1\r\nHost: shop.example/evil\r\n\r\n"),
    ("a host with user information", b"GET / HTTP/1.1\r\nHost: evil@shop.example\r\n\r\n"),
    ("a host list", b"GET / HTTP/1.1\r\nHost: shop.example, blog.example\r\n\r\n"),
    ("a host with a bad port", b"GET / HTTP/1.1\r\nHost: shop.example:80x\r\n\r\n"),
    ("two spaces in the request line", b"GET  / HTTP/1.1\r\nHost: shop.example\r\n\r\n"),
    ("two spaces before the version", b"GET /  HTTP/1.1\r\nHost: shop.example\r\n\r\n"),
    ("a tab in the request line", b"GET\t/ HTTP/1.1\r\nHost: shop.example\r\n\r\n"),
    ("a space after the version", b"GET / HTTP/1.1 \r\nHost: shop.example\r\n\r\n"),
    ("a space before the method", b" GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n"),
    ("no version", b"GET /\r\nHost: shop.example\r\n\r\n"),
    ("a bad version", b"GET / HTTP/1.l\r\nHost: shop.example\r\n\r\n"),
    ("a version from the future", b"GET / HTTP/9.9\r\nHost: shop.example\r\n\r\n"),
    ("a version of 1.10", b"GET / HTTP/1.10\r\nHost: shop.example\r\n\r\n"),
    ("a lower-case version", b"GET / http/1.1\r\nHost: shop.example\r\n\r\n"),
    ("a bad method", b"GE(T / HTTP/1.1\r\nHost: shop.example\r\n\r\n"),
    ("an empty target", b"GET  HTTP/1.1\r\nHost: shop.example\r\n\r\n"),
    ("a target that is no path", b"GET shop HTTP/1.1\r\nHost: shop.example\r\n\r\n"),
    ("a NUL in the target", b"GET /a\0b HTTP/1.1\r\nHost: shop.example\r\n\r\n"),
    ("a control character in the target", b"GET /a\x01b HTTP/1.1\r\nHost: shop.example\r\n\r\n"),
    ("not HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03hello tls\r\n\r\n"),
    ("HTTP/2's preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
];

/// Chunked bodies that break their framing.
#[rustfmt::skip]
const BODIES: &[(&str, &[u8])] = &[
    ("a size that is no number", b"xyz\r\nhello\r\n0\r\n\r\n"),
    ("an empty size", b"\r\nhello\r\n0\r\n\r\n"),
    ("a size with a prefix", b"0x5\r\nhello\r\n0\r\n\r\n"),
    ("a signed size", b"+5\r\nhello\r\n0\r\n\r\n"),
    ("a negative size", b"-5\r\nhello\r\n0\r\n\r\n"),
    ("a size past all counting", b"FFFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n"),
    ("a size line ended by a bare LF", b"5\nhello\r\n0\r\n\r\n"),
    ("a chunk ended by a bare LF", b"5\r\nhello\n0\r\n\r\n"),
    ("a chunk longer than its size", b"5\r\nhelloworld\r\n0\r\n\r\n"),
    ("a space before the size", b" 5\r\nhello\r\n0\r\n\r\n"),
    ("a space after the size", b"5 \r\nhello\r\n0\r\n\r\n"),
    ("a control character in an extension", b"5;a=\x01\r\nhello\r\n0\r\n\r\n"),
    ("a bare LF in an extension", b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
    ("a bare CR in an extension", b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
    ("a quoted extension", b"5;a=\"b\"\r\nhello\r\n0\r\n\r\n"),
    ("a last chunk ended by a bare LF", b"5\r\nhello\r\n0\n\n"),
    ("a folded trailer", b"5\r\nhello\r\n0\r\nX-Y: a\r\n b\r\n\r\n"),
    ("a space before a trailer's colon", b"5\r\nhello\r\n0\r\nX-Y : a\r\n\r\n"),
    ("a trailer with a NUL", b"5\r\nhello\r\n0\r\nX-Y: \0\r\n\r\n"),
];

#[test]
fn a_head_that_could_be_read_two_ways_never_reaches_a_backend() {
    let router = Router::start();
    let backend = Backend::echo();
    router.serve("shop", &[&backend]);
    let mut wrong = Vec::new();
    for (what, bytes) in HEADS {
        let mut client = router.client();
        // What a smuggler would hide behind it.
        client.try_send(
            [
                bytes,
                b"GET /smuggled HTTP/1.1\r\nHost: shop.example\r\n\r\n".as_slice(),
            ]
            .concat(),
        );
        match client.try_answer_to("GET") {
            Ok(answer) if (400..500).contains(&answer.status) || answer.status == 505 => {
                let rest = client.rest();
                if !rest.is_empty() {
                    wrong.push(format!("{what}: more after {}: {rest:?}", answer.status));
                }
            }
            Ok(answer) => wrong.push(format!("{what}: answered {}", answer.status)),
            Err(error) => wrong.push(format!("{what}: no answer ({error})")),
        }
        let received = backend.received();
        if !received.is_empty() && !wrong.last().is_some_and(|last| last.starts_with(what)) {
            wrong.push(format!("{what}: the backend received something"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        HEADS.len(),
        wrong.join("\n")
    );
    assert!(
        backend.received().is_empty(),
        "{:?}",
        String::from_utf8_lossy(&backend.received())
    );
    let mut client = router.client();
    client.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    client.answer().expect(200);
}

#[test]
fn each_refusal_is_h26_with_a_cause() {
    let router = Router::start();
    router
        .send("POST /two HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n")
        .refused(400, "H26");
    let line = eventually("the refusal is logged", || {
        router
            .log()
            .lines()
            .map(crate::harness::logs::logfmt)
            .find(|line| line.get("code").is_some_and(|code| code == "H26"))
    });
    assert_eq!(line["status"], "400");
    assert_eq!(line["fault"], "client");
    assert!(
        line.get("cause").is_some_and(|cause| !cause.is_empty()),
        "{line:?}"
    );
}

#[test]
fn a_chunk_that_breaks_its_framing_ends_the_connection() {
    let router = Router::start();
    let backend = Backend::echo();
    router.serve("shop", &[&backend]);
    let mut wrong = Vec::new();
    for (what, body) in BODIES {
        let head = b"POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n";
        let smuggled = b"GET /smuggled HTTP/1.1\r\nHost: shop.example\r\n\r\n";
        let mut client = router.client();
        client.try_send([head.as_slice(), body, smuggled].concat());
        match client.try_answer_to("POST") {
            Ok(answer) if (400..500).contains(&answer.status) => {
                if !client.rest().is_empty() {
                    wrong.push(format!("{what}: more after {}", answer.status));
                }
            }
            Ok(answer) => wrong.push(format!("{what}: answered {}", answer.status)),
            Err(error) => wrong.push(format!("{what}: no answer ({error})")),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        BODIES.len(),
        wrong.join("\n")
    );
    let whole = backend.requests();
    assert!(
        whole.is_empty(),
        "the backend took a broken body for whole: {whole:?}"
    );
}

#[test]
fn garbage_never_stops_the_router() {
    let router = Router::start();
    let backend = Backend::named("fine");
    router.serve("shop", &[&backend]);
    let edge = router.process("edge");
    let noise = crate::harness::patterned(300_000);
    for piece in noise.chunks(1000) {
        let mut client = router.client();
        client.try_send(piece);
        client
            .stream()
            .set_read_timeout(Some(Duration::from_millis(1)))
            .expect("settable");
        let _ = client.head();
    }
    router.get("shop", "/").expect(200);
    assert_eq!(
        router.process("edge"),
        edge,
        "the edge must be the same process"
    );
    assert!(backend.requests().len() == 1);
}

#[test]
fn connections_that_say_nothing_stop_nobody() {
    let router = Router::with(&["edge.threads=1"]);
    let backend = Backend::named("fine");
    router.serve("shop", &[&backend]);
    let quiet: Vec<_> = (0..300).map(|_| router.client()).collect();
    for client in quiet.iter().take(100) {
        use std::io::Write;
        let mut stream = client.stream();
        stream.write_all(b"GET / HT").expect("the router must read");
    }
    router.get("shop", "/").expect(200);
}
