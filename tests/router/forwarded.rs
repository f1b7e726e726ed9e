//! The headers that the router adds, keeps, joins and removes.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::harness::{Answer, Backend, Client, Request, Router};

/// Sends one GET with these extra header lines; gives what each side saw.
fn through(router: &Router, extra: &str) -> (Request, Answer) {
    let backend = Backend::says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVia: 1.0 cache\r\n\r\nok");
    let app = format!("app{}", backend.address().port());
    router.serve(&app, &[&backend]);
    let answer = router
        .send(format!(
            "GET / HTTP/1.1\r\nHost: {app}.example\r\n{extra}\r\n"
        ))
        .expect(200);
    (backend.request(), answer)
}

#[test]
fn the_client_is_named_and_its_claims_are_not_believed() {
    let router = Router::start();
    let (request, _) = through(
        &router,
        "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Port: 443\r\nX-Forwarded-Host: evil.example\r\n",
    );
    assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.header("x-forwarded-proto"), Some("http"));
    let port = router.http().port().to_string();
    assert_eq!(request.header("x-forwarded-port"), Some(port.as_str()));
    assert_eq!(request.header("x-forwarded-host"), request.header("host"));
}

#[test]
fn a_trusted_proxys_claims_are_kept_and_joined() {
    let router = Router::with(&["edge.trusted_proxies=[\"127.0.0.0/8\"]"]);
    let (request, _) = through(
        &router,
        "X-Forwarded-For: 203.0.113.9, 198.51.100.2\r\nX-Other: 1\r\n\
         X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Port: 443\r\nX-Forwarded-Host: shop.public\r\n",
    );
    assert_eq!(
        request.header("x-forwarded-for"),
        Some("203.0.113.9, 198.51.100.2, 192.0.2.1, 127.0.0.1")
    );
    assert_eq!(request.header("x-forwarded-proto"), Some("https"));
    assert_eq!(request.header("x-forwarded-port"), Some("443"));
    assert_eq!(request.header("x-forwarded-host"), Some("shop.public"));
}

#[test]
fn a_trusted_balancers_proxy_header_names_the_client() {
    let router = Router::with(&["edge.trusted_proxies=[\"127.0.0.0/8\"]"]);
    let backend = Backend::says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    router.serve("proxied", &[&backend]);
    let mut client = Client::connect(router.http());
    client.send("PROXY TCP4 203.0.113.9 192.0.2.1 5555 443\r\nGET / HTTP/1.1\r\n");
    client.send("Host: proxied.example\r\nX-Forwarded-For: 198.51.100.2\r\n\r\n");
    client.answer().expect(200);
    let request = backend.request();
    // The client behind the balancer is not itself a trusted proxy.
    assert_eq!(request.header("x-forwarded-for"), Some("203.0.113.9"));
    assert_eq!(request.header("x-forwarded-port"), Some("443"));
}

#[test]
fn a_proxy_header_from_anybody_else_is_a_malformed_request() {
    let router = Router::start();
    let mut client = Client::connect(router.http());
    client.send("PROXY TCP4 203.0.113.9 192.0.2.1 5555 443\r\n");
    client.send("GET / HTTP/1.1\r\nHost: proxied.example\r\n\r\n");
    client.answer().refused(400, "H26");
    client.closed();
}

#[test]
fn a_proxy_outside_the_trusted_blocks_is_not_believed() {
    let router = Router::with(&["edge.trusted_proxies=[\"10.0.0.0/8\", \"::1/128\"]"]);
    let (request, _) = through(&router, "X-Forwarded-For: 203.0.113.9\r\n");
    assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"));
}

#[test]
fn a_good_request_id_is_kept_and_given_back() {
    let router = Router::start();
    let longest = "a".repeat(200);
    for id in [
        "abcdefghij0123456789",
        "AZaz09+/=-AZaz09+/=-",
        longest.as_str(),
    ] {
        let (request, answer) = through(&router, &format!("X-Request-Id: {id}\r\n"));
        assert_eq!(request.header("x-request-id"), Some(id));
        assert_eq!(answer.header("x-request-id"), Some(id));
    }
}

#[test]
fn a_bad_or_missing_request_id_becomes_a_uuid() {
    let router = Router::start();
    let too_long = "a".repeat(201);
    let long_line = format!("X-Request-Id: {too_long}\r\n");
    for extra in [
        "",
        "X-Request-Id:\r\n",
        "X-Request-Id: short\r\n",
        "X-Request-Id: has a blank in the middle\r\n",
        "X-Request-Id: semi;colon;semi;colon;semi\r\n",
        "X-Request-Id: abcdefghij0123456789\r\nX-Request-Id: abcdefghij9876543210\r\n",
        &long_line,
    ] {
        let (request, answer) = through(&router, extra);
        let id = request.header("x-request-id").expect("it must have an id");
        if !extra.contains("9876543210") {
            uuid::Uuid::parse_str(id)
                .unwrap_or_else(|_| panic!("not a UUID: {id:?} for {extra:?}"));
        }
        assert_eq!(answer.header("x-request-id"), Some(id));
    }
}

#[test]
fn two_requests_have_different_ids() {
    let router = Router::start();
    let (one, _) = through(&router, "");
    let (two, _) = through(&router, "");
    assert_ne!(one.header("x-request-id"), two.header("x-request-id"));
}

#[test]
fn request_start_is_now_in_milliseconds() {
    let router = Router::start();
    let before = now_ms();
    let (request, _) = through(&router, "X-Request-Start: 1\r\n");
    let start: u128 = request
        .header("x-request-start")
        .and_then(|value| value.parse().ok())
        .expect("it must be a number");
    assert!(
        start + 500 >= before && start <= now_ms() + 500,
        "{start} is not between {before} and {}",
        now_ms()
    );
}

fn now_ms() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("it must be after 1970")
        .as_millis()
}

#[test]
fn via_is_appended_both_ways() {
    let router = Router::start();
    let (request, answer) = through(&router, "Via: 1.0 fred, 1.1 p.example\r\n");
    let request_via = request.all("via").join(", ");
    let parts: Vec<&str> = request_via.split(", ").collect();
    assert_eq!(&parts[..2], ["1.0 fred", "1.1 p.example"]);
    assert_eq!(parts.len(), 3, "{request_via}");
    assert!(parts[2].starts_with("1.1 "), "{request_via}");
    let answer_via = answer.all("via").join(", ");
    let parts: Vec<&str> = answer_via.split(", ").collect();
    assert_eq!(parts[0], "1.0 cache");
    assert_eq!(parts.len(), 2, "{answer_via}");
    assert!(parts[1].starts_with("1.1 "), "{answer_via}");
}

#[test]
fn the_routers_own_answers_carry_a_request_id_too() {
    let router = Router::start();
    let id = "abcdefghij0123456789";
    let answer = router
        .send(format!(
            "GET / HTTP/1.1\r\nHost: nobody.example\r\nX-Request-Id: {id}\r\n\r\n"
        ))
        .refused(404, "H30");
    assert_eq!(answer.header("x-request-id"), Some(id));
}

#[test]
fn a_trace_is_begun_or_continued() {
    let router = Router::start();
    let (request, _) = through(&router, "");
    let (_, begun) = trace(&request);
    assert!(begun.iter().any(|&byte| byte != b'0'));

    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("traceparent: 00-{id}-00f067aa0ba902b7-01\r\ntracestate: a=b\r\n");
    let (request, _) = through(&router, &parent);
    let (whole, continued) = trace(&request);
    assert_eq!(continued, id.as_bytes());
    assert!(whole.ends_with("-01"), "the sampled flag is kept: {whole}");
    assert_eq!(request.header("tracestate"), Some("a=b"));

    for bad in [
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "nonsense",
    ] {
        let (request, _) = through(&router, &format!("traceparent: {bad}\r\n"));
        let (whole, _) = trace(&request);
        assert_ne!(whole, bad, "a malformed traceparent starts a new trace");
    }
}

/// The traceparent, checked, and its trace id.
fn trace(request: &Request) -> (String, Vec<u8>) {
    let value = request
        .header("traceparent")
        .expect("it must have a traceparent")
        .to_owned();
    let parts: Vec<&str> = value.split('-').collect();
    let sizes: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    assert_eq!(sizes, [2, 32, 16, 2], "{value}");
    assert!(
        value
            .bytes()
            .all(|b| b == b'-' || b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
        "{value}"
    );
    let id = parts[1].as_bytes().to_vec();
    (value, id)
}

#[test]
fn hop_by_hop_headers_stop_here() {
    let router = Router::start();
    let (request, _) = through(
        &router,
        "Connection: keep-alive, X-Secret, x-other\r\nX-Secret: 1\r\nX-Other: 2\r\nX-Kept: 3\r\n\
         Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\n\
         Upgrade: h2c\r\nProxy-Authorization: Basic eDp5\r\n",
    );
    for name in [
        "x-secret",
        "x-other",
        "keep-alive",
        "proxy-connection",
        "te",
        "upgrade",
        "proxy-authorization",
    ] {
        assert!(
            request.all(name).is_empty(),
            "`{name}` must stop here: {request:?}"
        );
    }
    assert_eq!(request.header("x-kept"), Some("3"));
    assert!(
        !request
            .all("connection")
            .iter()
            .any(|value| value.to_lowercase().contains("secret"))
    );
}

#[test]
fn naming_end_to_end_headers_in_connection_strips_nothing_the_app_relies_on() {
    let router = Router::start();
    let backend = Backend::named("ok");
    router.serve("shop", &[&backend]);
    for name in [
        "Host",
        "Content-Length",
        "X-Forwarded-For",
        "X-Request-Id",
        "Via",
    ] {
        let before = backend.requests().len();
        let answer = router.send(format!(
            "POST / HTTP/1.1\r\nHost: shop.example\r\nConnection: {name}\r\n\
             Content-Length: 2\r\n\r\nhi"
        ));
        // Refusing it is strict; if it passes, it must pass whole.
        if answer.status == 400 {
            assert_eq!(backend.requests().len(), before, "{name}");
            continue;
        }
        answer.expect(200);
        let request = backend.requests().pop().expect("it must have arrived");
        assert_eq!(request.body, b"hi", "{name}");
        assert_eq!(request.header("host"), Some("shop.example"), "{name}");
        assert_eq!(
            request.header("x-forwarded-for"),
            Some("127.0.0.1"),
            "{name}"
        );
        assert!(request.header("x-request-id").is_some(), "{name}");
        assert!(!request.all("via").is_empty(), "{name}");
    }
}

#[test]
fn hop_by_hop_headers_of_an_answer_stop_here() {
    let router = Router::start();
    let backend = Backend::says(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Inner, close\r\nX-Inner: 1\r\n\
         Keep-Alive: timeout=5\r\nProxy-Connection: close\r\nX-Kept: 2\r\nUpgrade: h2c\r\n\r\nok",
    );
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    let answer = client.answer().expect(200);
    for name in ["x-inner", "keep-alive", "proxy-connection", "upgrade"] {
        assert!(
            answer.all(name).is_empty(),
            "`{name}` must stop here: {answer:?}"
        );
    }
    assert_eq!(answer.header("x-kept"), Some("2"));
}

#[test]
fn end_to_end_headers_keep_order_case_and_bytes() {
    let router = Router::start();
    let (request, _) = through(
        &router,
        "X-B: 2\r\nx-a: 1\r\nX-b: again\r\nCookie: a=1; b=\"2\"\r\nX-Latin: caf\u{e9}\r\n\
         X-Empty:\r\nX-Spaces:   padded   \r\n",
    );
    let ours: Vec<(&str, &str)> = request
        .headers
        .iter()
        .filter(|(name, _)| {
            ["x-a", "x-b", "cookie", "x-latin", "x-empty", "x-spaces"]
                .contains(&name.to_ascii_lowercase().as_str())
        })
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        ours,
        [
            ("X-B", "2"),
            ("x-a", "1"),
            ("X-b", "again"),
            ("Cookie", "a=1; b=\"2\""),
            ("X-Latin", "café"),
            ("X-Empty", ""),
            ("X-Spaces", "padded"),
        ]
    );
}

#[test]
fn several_set_cookies_stay_several() {
    let router = Router::start();
    let backend = Backend::says(
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n",
    );
    router.serve("shop", &[&backend]);
    let answer = router.get("shop", "/").expect(200);
    assert_eq!(answer.all("set-cookie"), ["a=1", "b=2"]);
}

#[test]
fn an_answer_with_an_unusual_reason_passes() {
    let router = Router::start();
    let backend = Backend::says("HTTP/1.1 299 Mostly Fine, Really\r\nContent-Length: 0\r\n\r\n");
    router.serve("shop", &[&backend]);
    let answer = router.get("shop", "/").expect(299);
    assert_eq!(answer.reason, "Mostly Fine, Really");
}
