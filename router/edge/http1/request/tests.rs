//! What is accepted and what is refused, as tables.

use super::*;

fn parse_with(text: &[u8], limits: &Limits) -> Result<Option<(usize, RequestHead)>, Refusal> {
    let mut head = RequestHead::default();
    let whole = parse_request(text, &mut Scan::default(), limits, &mut head);
    let mut grown = RequestHead::default();
    let mut scan = Scan::default();
    let mut split = Ok(None);
    for len in 0..=text.len() {
        split = parse_request(&text[..len], &mut scan, limits, &mut grown);
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

fn parse(text: &str) -> Result<Option<(usize, RequestHead)>, Refusal> {
    parse_with(text.as_bytes(), &Limits::REQUEST)
}

#[track_caller]
fn accepted(text: &str) -> RequestHead {
    let (len, head) = parse(text)
        .unwrap_or_else(|refusal| panic!("{refusal:?}: {}", text.escape_debug()))
        .expect("must be whole");
    assert_eq!(len, text.len());
    head
}

#[track_caller]
fn refused(text: &[u8], status: u16) {
    match parse_with(text, &Limits::REQUEST) {
        Err(refusal) => assert_eq!(
            refusal.status,
            status,
            "{refusal:?}: {}",
            text.escape_ascii()
        ),
        Ok(what) => panic!("accepted {what:?}: {}", text.escape_ascii()),
    }
}

#[test]
fn a_plain_request_is_read() {
    let text = "POST /a/b?c=d HTTP/1.1\r\nHost: A.Example:8080\r\nContent-Length: 5\r\nAccept: text/html\r\n\r\nhello";
    let (len, head) = parse(text).unwrap().unwrap();
    let buf = text.as_bytes();
    assert_eq!(&text[len..], "hello");
    assert_eq!(head.method, Method::Post);
    assert_eq!(head.method_text.of(buf), b"POST");
    assert_eq!(head.target.of(buf), b"/a/b?c=d");
    assert_eq!(head.path(buf), b"/a/b");
    assert_eq!(head.host.as_bytes(), b"a.example");
    assert_eq!(head.authority.of(buf), b"A.Example:8080");
    assert_eq!(head.framing, Framing::Length(5));
    assert_eq!(head.accept.unwrap().of(buf), b"text/html");
    assert!(head.keep_alive && !head.upgrade && !head.idempotent());
    assert_eq!(head.headers.len(), 3);
    assert_eq!(head.headers[1].name.of(buf), b"Content-Length");
    assert_eq!(head.headers[1].value.of(buf), b"5");
}

#[test]
fn a_head_is_reused_without_traces_of_the_last() {
    let mut head = RequestHead::default();
    let first = b"POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close, upgrade\r\nUpgrade: x\r\nTE: trailers\r\nExpect: 100-continue\r\nIdempotency-Key: k\r\nX-Request-Id: 01234567890123456789\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nAccept: */*\r\n\r\n";
    assert!(parse_request(first, &mut Scan::default(), &Limits::REQUEST, &mut head).is_ok());
    assert!(head.upgrade && head.te_trailers && head.expect_continue && head.idempotency_key);
    assert!(head.request_id.is_some() && head.traceparent.is_some() && !head.keep_alive);
    let second = b"GET / HTTP/1.1\r\nHost: b\r\n\r\n";
    parse_request(second, &mut Scan::default(), &Limits::REQUEST, &mut head).unwrap();
    let mut fresh = RequestHead::default();
    parse_request(second, &mut Scan::default(), &Limits::REQUEST, &mut fresh).unwrap();
    assert_eq!(format!("{head:?}"), format!("{fresh:?}"));
}

#[test]
fn forms_of_targets() {
    let head = |line: &str, host: &str| parse(&format!("{line}\r\nHost: {host}\r\n\r\n"));
    for (line, path) in [
        ("GET http://a.example/x?y HTTP/1.1", "/x?y"),
        ("GET HTTP://A.EXAMPLE/x HTTP/1.1", "/x"),
        ("GET https://a.example HTTP/1.1", ""),
        ("GET http://a.example?q HTTP/1.1", "?q"),
        ("OPTIONS * HTTP/1.1", "*"),
        ("GET //a/b HTTP/1.1", "//a/b"),
        ("GET /{}|\\^`\"<> HTTP/1.1", "/{}|\\^`\"<>"),
    ] {
        let text = format!("{line}\r\nHost: a.example\r\n\r\n");
        let head = accepted(&text);
        assert_eq!(head.path_and_query.of(text.as_bytes()), path.as_bytes());
    }
    let text = "GET http://a.example?q HTTP/1.1\r\nHost: a.example\r\n\r\n";
    assert_eq!(accepted(text).path(text.as_bytes()), b"/");
    for (line, status) in [
        ("GET http://b.example/ HTTP/1.1", 400),
        ("GET http://a.example:80/ HTTP/1.1", 400),
        ("GET http:///x HTTP/1.1", 400),
        ("GET http://u@a.example/ HTTP/1.1", 400),
        ("GET ftp://a.example/ HTTP/1.1", 400),
        ("GET a.example/ HTTP/1.1", 400),
        ("GET * HTTP/1.1", 400),
        ("OPTIONS ** HTTP/1.1", 400),
        ("CONNECT a.example:443 HTTP/1.1", 405),
        ("CONNECT /x HTTP/1.1", 405),
        ("GET /x#y HTTP/1.1", 400),
        ("GET /\u{e9} HTTP/1.1", 400),
        ("GET /\x7f HTTP/1.1", 400),
        ("GET /\0 HTTP/1.1", 400),
        ("GET /a\tb HTTP/1.1", 400),
    ] {
        assert_eq!(
            head(line, "a.example").unwrap_err().status,
            status,
            "{line}"
        );
    }
}

#[test]
fn request_lines_that_are_not() {
    for (line, status) in [
        ("GET / HTTP/1.1 ", 400),
        ("GET  / HTTP/1.1", 400),
        ("GET /  HTTP/1.1", 400),
        (" GET / HTTP/1.1", 400),
        ("GET\t/ HTTP/1.1", 400),
        ("GET / ", 400),
        ("GET /", 400),
        ("GET", 400),
        ("G@T / HTTP/1.1", 400),
        ("G\u{e9}T / HTTP/1.1", 400),
        ("GET / http/1.1", 400),
        ("GET / HTTP/1.10", 400),
        ("GET / HTTP/11", 400),
        ("GET / HTTP/1,1", 400),
        ("GET / HTTP/+1.1", 400),
        ("GET / HTTPS/1.1", 400),
        ("GET / HTTP/1.2", 505),
        ("GET / HTTP/0.9", 505),
        ("GET / HTTP/2.0", 505),
        ("GET / HTTP/3.0", 505),
        ("GET / HTTP/1.1\r", 400),
        ("GET / HTTP/1.1\0", 400),
        ("\x16\x03\x01\x02", 400),
    ] {
        refused(format!("{line}\r\nHost: a\r\n\r\n").as_bytes(), status);
    }
    refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
    let method = "M".repeat(128);
    refused(
        format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(),
        400,
    );
    let head = accepted(&format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", &method[1..]));
    assert_eq!(head.method, Method::Other);
    assert!(accepted("get / HTTP/1.1\r\nHost: a\r\n\r\n").method == Method::Other);
}

#[test]
fn blank_lines_before_a_request_are_skipped() {
    accepted("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    refused(b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    refused(b"\r\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    refused(
        b"\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        400,
    );
}

#[test]
fn header_lines_that_are_not() {
    for line in [
        " X: folded-into-nothing",
        "\tX: y",
        "X : y",
        "X\t: y",
        "X y: z",
        ": y",
        "X",
        "X=y",
        "X\u{e9}: y",
        "X(y): z",
        "\"X\": y",
        "X\0: y",
        "X: y\0z",
        "X: y\rz",
        "X: y\nZ: w",
        "X: y\n",
        "X: y\x0bz",
        "X: y\x08",
        "X: y\x7f",
        "X: y\r\n folded",
        "X: y\r\n\tfolded",
        "X\n: y",
        "X\r\n: y",
        "X: y\r\r",
    ] {
        refused(
            format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\nB: c\r\n\r\n").as_bytes(),
            400,
        );
        refused(
            format!("GET / HTTP/1.1\r\n{line}\r\nHost: a\r\n\r\n").as_bytes(),
            400,
        );
    }
    refused(b"GET / HTTP/1.1\nHost: a\n\n", 400);
    refused(b"GET / HTTP/1.1\rHost: a\r\r", 400);
    refused(b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400);
    refused(b"GET / HTTP/1.1\r\nHost: a\r\n\rX", 400);
    refused(b"GET / HTTP/1.1\r\nHost: a\n\r\n", 400);
    let kept = "GET / HTTP/1.1\r\nHost: a\r\nX: caf\u{e9} \t\"q\" \r\nEmpty:\r\nBlank: \t \r\n\r\n";
    let head = accepted(kept);
    let values: Vec<_> = head
        .headers
        .iter()
        .map(|h| h.value.of(kept.as_bytes()))
        .collect();
    assert_eq!(values[1..], ["caf\u{e9} \t\"q\"".as_bytes(), b"", b""]);
}

#[test]
fn exactly_one_host() {
    for lines in [
        "",
        "Host:\r\n",
        "Host: \r\n",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nhost: b\r\n",
        "Host: a, b\r\n",
        "Host: a b\r\n",
        "Host: a:b\r\n",
        "Host: a/b\r\n",
        "Host: u@a\r\n",
        "Host: a\r\nX: y\r\nHOST: a\r\n",
        "X-Host: a\r\n",
        "Host : a\r\n",
    ] {
        refused(format!("GET / HTTP/1.1\r\n{lines}\r\n").as_bytes(), 400);
        refused(format!("GET / HTTP/1.0\r\n{lines}\r\n").as_bytes(), 400);
        if !lines.is_empty() && !lines.starts_with('X') {
            refused(
                format!("GET http://a/ HTTP/1.0\r\n{lines}\r\n").as_bytes(),
                400,
            );
        }
    }
    refused(b"GET http://a/ HTTP/1.1\r\n\r\n", 400);
    let old = accepted("GET http://A.b:81/ HTTP/1.0\r\n\r\n");
    assert_eq!(old.host.as_bytes(), b"a.b");
}

#[test]
fn framing_is_unambiguous() {
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 5",
        "Content-Length: 5,",
        "Content-Length:",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: 5\t6",
        "Content-Length: \"5\"",
        "Content-Length: 18446744073709551616",
        "Content-Length: 5\r\nContent-Length: 05x",
        "Content_Length: 5",
        "content_length: 5",
        "Transfer_Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunkedx",
        "Transfer-Encoding: x, chunked",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: , chunked",
        "Transfer-Encoding:",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "X: y\n Transfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "Transfer-Encoding:\x0bchunked",
        "Transfer-Encoding: chunked\x0b",
        "Transfer-Encoding: \u{a0}chunked",
        "Transfer-Encoding:\r\n chunked",
        "Connection: Content-Length\r\nContent-Length: 5",
        "Connection: transfer-encoding\r\nTransfer-Encoding: chunked",
        "Connection: close, Host",
    ] {
        refused(
            format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n").as_bytes(),
            400,
        );
    }
}

#[test]
fn framing_is_told() {
    for lines in ["gzip", "gzip, chunked", "deflate"] {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {lines}\r\n\r\n");
        refused(text.as_bytes(), 501);
    }
    refused(
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    );
    let framed =
        |lines: &str| accepted(&format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).framing;
    assert_eq!(framed(""), Framing::None);
    assert_eq!(framed("Content-Length: 0\r\n"), Framing::None);
    assert_eq!(
        framed("Content-Length: 5\r\nContent-Length: 5\r\n"),
        Framing::Length(5)
    );
    assert_eq!(
        framed("Content-Length: 5\r\nContent-Length: 05\r\n"),
        Framing::Length(5)
    );
    assert_eq!(framed("Transfer-Encoding: CHUNKED\r\n"), Framing::Chunked);
    assert_eq!(framed("Content-Length:\t 7 \t\r\n"), Framing::Length(7));
}

#[test]
fn limits_hold_at_their_byte() {
    let with_line = |line: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n");
    let request_line = |bytes: usize| {
        let path = "a".repeat(bytes - "GET / HTTP/1.1".len());
        format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n")
    };
    accepted(&request_line(8192));
    refused(request_line(8193).as_bytes(), 414);
    refused(request_line(9000).as_bytes(), 414);
    accepted(&with_line(&format!("X: {}", "a".repeat(8189))));
    refused(
        with_line(&format!("X: {}", "a".repeat(8190))).as_bytes(),
        431,
    );
    refused(
        with_line(&format!("X: {}", "a".repeat(9000))).as_bytes(),
        431,
    );
    refused(with_line(&"a".repeat(9000)).as_bytes(), 431);
    let many = |count: usize| with_line(vec!["X: y"; count - 1].join("\r\n").as_str());
    accepted(&many(100));
    refused(many(101).as_bytes(), 431);
    let large = |bytes: usize| {
        let line = format!("X: {}\r\n", "a".repeat(7995));
        let start = format!("GET / HTTP/1.1\r\nHost: a\r\n{}", line.repeat(8));
        let rest = bytes - start.len() - 2;
        format!("{start}X: {}\r\n\r\n", "a".repeat(rest - 5))
    };
    accepted(&large(65_536));
    refused(large(65_537).as_bytes(), 431);
    refused(large(67_000).as_bytes(), 431);
}

#[test]
fn limits_hold_before_the_line_ends() {
    let endless = vec![b'a'; 9000];
    let mut line = b"GET /".to_vec();
    line.extend_from_slice(&endless);
    refused(&line, 414);
    let mut name = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
    name.extend_from_slice(&endless);
    refused(&name, 431);
    let mut value = b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
    value.extend_from_slice(&endless);
    refused(&value, 431);
}

#[test]
fn options_of_the_connection() {
    let head = |version: &str, lines: &str| {
        accepted(&format!("GET / HTTP/{version}\r\nHost: a\r\n{lines}\r\n"))
    };
    for (version, lines, keep) in [
        ("1.1", "", true),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.1", "Connection: Close\r\n", false),
        ("1.1", "Connection: keep-alive, close\r\n", false),
        ("1.1", "Connection: x\r\nConnection: close\r\n", false),
        ("1.1", "Connection:\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
        ("1.1", "Proxy-Connection: close\r\n", true),
    ] {
        assert_eq!(head(version, lines).keep_alive, keep, "{version} {lines}");
    }
    let up = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    assert!(head("1.1", up).upgrade);
    assert!(!head("1.0", up).upgrade);
    assert!(!head("1.1", "Upgrade: websocket\r\n").upgrade);
    assert!(!head("1.1", "Connection: upgrade\r\n").upgrade);
    assert!(!head("1.1", "Connection: upgrade\r\nUpgrade:\r\n").upgrade);
    assert!(
        !head(
            "1.1",
            "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\n"
        )
        .upgrade
    );
    assert!(!head("1.1", "Connection: upgrade\r\nUpgrade: websocket, H2C\r\n").upgrade);
    let named = head(
        "1.1",
        "Connection: X-One, te\r\nx-one: 1\r\nX-Two: 2\r\nX_Request_Id: 3\r\n",
    );
    let stops: Vec<_> = named.headers.iter().map(|h| h.stops).collect();
    assert_eq!(stops, [false, false, true, false, true]);
    let many = vec!["x"; 33].join(",");
    refused(
        format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {many}\r\n\r\n").as_bytes(),
        400,
    );
}

#[test]
fn expectations() {
    let head = |version: &str, lines: &str| {
        parse(&format!(
            "PUT / HTTP/{version}\r\nHost: a\r\nContent-Length: 1\r\n{lines}\r\n"
        ))
        .map(|head| head.expect("must be whole").1.expect_continue)
    };
    assert_eq!(head("1.1", "Expect: 100-Continue\r\n"), Ok(true));
    assert_eq!(head("1.0", "Expect: 100-continue\r\n"), Ok(false));
    assert_eq!(head("1.1", "Expect:\r\n"), Ok(false));
    for lines in [
        "Expect: 200-ok\r\n",
        "Expect: 100-continue, x\r\n",
        "Expect: 100-continue\r\nExpect: y\r\n",
    ] {
        assert_eq!(head("1.1", lines).unwrap_err().status, 417);
    }
    assert!(!accepted("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n").expect_continue);
}

#[test]
fn what_is_kept_of_ids_and_traces() {
    let id = "X-Request-Id: 01234567890123456789\r\n";
    let head = |lines: &str| accepted(&format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
    assert!(head(id).request_id.is_some());
    assert!(head(&id.repeat(2)).request_id.is_none());
    assert!(head("X-Request-Id: short\r\n").request_id.is_none());
    let trace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
    assert!(head(trace).traceparent.is_some());
    assert!(head(&trace.repeat(2)).traceparent.is_none());
    assert!(head("Idempotency-Key: k\r\n").idempotency_key);
}
