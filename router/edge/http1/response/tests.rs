//! What is accepted of a backend and what is not, as tables.

use super::*;

fn parse(text: &[u8], after_head: bool) -> Result<Option<(usize, ResponseHead)>, Defect> {
    let mut head = ResponseHead::default();
    let limits = &Limits::RESPONSE;
    let whole = parse_response(text, &mut Scan::default(), limits, after_head, &mut head);
    if text.len() > 100_000 {
        return whole.map(|len| len.map(|len| (len, head)));
    }
    let mut grown = ResponseHead::default();
    let mut scan = Scan::default();
    let mut split = Ok(None);
    for len in 0..=text.len() {
        split = parse_response(&text[..len], &mut scan, limits, after_head, &mut grown);
        if !matches!(split, Ok(None)) {
            break;
        }
    }
    assert_eq!(whole, split, "by the byte: {}", text.escape_ascii());
    if let Ok(Some(_)) = whole {
        assert_eq!(format!("{head:?}"), format!("{grown:?}"));
    }
    whole.map(|len| len.map(|len| (len, head)))
}

#[track_caller]
fn accepted(text: &str) -> ResponseHead {
    let (len, head) = parse(text.as_bytes(), false)
        .unwrap_or_else(|defect| panic!("{defect:?}: {}", text.escape_debug()))
        .expect("must be whole");
    assert_eq!(len, text.len());
    head
}

#[track_caller]
fn refused(text: &str, code: Code) {
    match parse(text.as_bytes(), false) {
        Err(defect) => assert_eq!(defect.code, code, "{}", text.escape_debug()),
        Ok(what) => panic!("accepted {what:?}: {}", text.escape_debug()),
    }
}

#[test]
fn status_lines() {
    for (line, status, reason) in [
        ("HTTP/1.1 200 OK", 200, "OK"),
        ("HTTP/1.1 404 Not Found", 404, "Not Found"),
        ("HTTP/1.1 200 ", 200, ""),
        ("HTTP/1.1 200", 200, ""),
        ("HTTP/1.0 999 caf\u{e9}\tx", 999, "caf\u{e9}\tx"),
    ] {
        let text = format!("{line}\r\n\r\n");
        let head = accepted(&text);
        assert_eq!(head.status, status);
        assert_eq!(head.reason.of(text.as_bytes()), reason.as_bytes());
    }
    for line in [
        "HTTP/1.2 200 OK",
        "HTTP/2 200 OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1 2x0 OK",
        "http/1.1 200 OK",
        "ICY 200 OK",
        " HTTP/1.1 200 OK",
        "\r\nHTTP/1.1 200 OK",
        "SSH-2.0-OpenSSH",
        "<html>",
        "HTTP/1.1\t200 OK",
        "HTTP/1.1 200\tOK",
    ] {
        refused(&format!("{line}\r\n\r\n"), Code::H17);
    }
    for line in [
        "HTTP/1.1 200 O\rK",
        "HTTP/1.1 200 OK\nX: y",
        "HTTP/1.1 200\n",
        "HTTP/1.1 200 \0",
    ] {
        refused(&format!("{line}\r\n\r\n"), Code::H25);
    }
}

#[test]
fn framing_of_bodies() {
    let head = |lines: &str| accepted(&format!("HTTP/1.1 200 OK\r\n{lines}\r\n"));
    assert_eq!(head("").framing, Framing::UntilClose);
    assert!(!head("").keep_alive);
    assert_eq!(head("Content-Length: 3\r\n").framing, Framing::Length(3));
    assert_eq!(
        head("Content-Length: 3\r\nContent-Length: 3\r\n").framing,
        Framing::Length(3)
    );
    assert_eq!(head("Content-Length: 0\r\n").framing, Framing::None);
    assert_eq!(
        head("Transfer-Encoding: Chunked\r\n").framing,
        Framing::Chunked
    );
    assert!(head("Content-Length: 3\r\n").keep_alive);
    assert!(!head("Content-Length: 3\r\nConnection: x, Close\r\n").keep_alive);
    for lines in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Content-Length: 3\r\nContent-Length: 4",
        "Content-Length: 3, 3",
        "Content-Length: +3",
        "Content-Length:",
        "Content-Length: 18446744073709551616",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "X: y\r\n folded",
        " X: y",
        "X : y",
        ": y",
        "X",
        "X: a\rb",
        "X: a\nY: b",
        "X: a\0",
    ] {
        refused(&format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n"), Code::H25);
    }
    refused(
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        Code::H25,
    );
}

#[test]
fn answers_without_bodies() {
    for (text, keep) in [
        ("HTTP/1.1 204 No Content\r\n\r\n", true),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", true),
        (
            "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
            false,
        ),
        (
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
            false,
        ),
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            true,
        ),
        ("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", true),
    ] {
        let head = accepted(text);
        assert_eq!(head.framing, Framing::None, "{text}");
        assert_eq!(head.keep_alive, keep, "{text}");
    }
    let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    let (_, head) = parse(text, true).unwrap().unwrap();
    assert_eq!(
        (head.framing, head.content_length()),
        (Framing::None, Some(5))
    );
    assert!(head.keep_alive);
    assert!(accepted("HTTP/1.1 100 Continue\r\n\r\n").interim());
    let switching = accepted("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n");
    assert!(switching.switching && !switching.interim());
}

#[test]
fn old_backends() {
    let head = |lines: &str| accepted(&format!("HTTP/1.0 200 OK\r\n{lines}\r\n"));
    assert!(!head("Content-Length: 1\r\n").keep_alive);
    assert!(head("Content-Length: 1\r\nConnection: keep-alive\r\n").keep_alive);
    assert_eq!(head("").framing, Framing::UntilClose);
}

#[test]
fn limits_hold() {
    let many = |count: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(count));
    accepted(&many(1000));
    refused(&many(1001), Code::H25);
    let large = |bytes: usize| {
        let start = "HTTP/1.1 200 OK\r\nX: ";
        format!("{start}{}\r\n\r\n", "a".repeat(bytes - start.len() - 4))
    };
    accepted(&large(512 * 1024));
    refused(&large(512 * 1024 + 1), Code::H25);
    refused(&large(600 * 1024), Code::H25);
    refused(
        &format!("HTTP/1.1 200 {}\r\n\r\n", "a".repeat(9000)),
        Code::H25,
    );
}

#[test]
fn what_the_backend_asks_for() {
    let text = "HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\nConnection: X-Hop, content-length\r\nx-hop: 1\r\n\r\n";
    let head = accepted(text);
    assert_eq!(head.retry_after.unwrap().of(text.as_bytes()), b"7");
    let stops: Vec<_> = head.headers.iter().map(|h| h.stops).collect();
    assert_eq!(stops, [false, false, false, true]);
}
