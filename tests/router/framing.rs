//! Message framing both ways: what a body is and where it ends.

use std::time::Duration;

use crate::harness::{Backend, Router, eventually, patterned, pause};

const BIG: usize = 10 * 1024 * 1024;

fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in body.chunks(size) {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

#[test]
fn a_get_reaches_the_backend_and_its_answer_the_client() {
    let router = Router::start();
    let backend = Backend::named("hello");
    router.serve("shop", &[&backend]);
    let answer = router.get("shop", "/cart?item=1&x=%20").expect(200);
    assert_eq!(answer.text(), "hello");
    assert_eq!(answer.version, "HTTP/1.1");
    let request = backend.request();
    assert_eq!(request.method, "GET");
    assert_eq!(request.target, "/cart?item=1&x=%20");
    assert_eq!(request.version, "HTTP/1.1");
    assert_eq!(request.header("host"), Some("shop.example"));
    assert!(request.all("transfer-encoding").is_empty(), "{request:?}");
}

#[test]
fn a_request_with_content_length_keeps_its_body() {
    let router = Router::start();
    let backend = Backend::echo();
    router.serve("shop", &[&backend]);
    let answer = router
        .send("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 11\r\n\r\nhello world")
        .expect(200);
    assert_eq!(answer.text(), "hello world");
    assert_eq!(backend.request().header("content-length"), Some("11"));
}

#[test]
fn a_chunked_request_keeps_its_body() {
    let router = Router::start();
    let backend = Backend::echo();
    router.serve("shop", &[&backend]);
    let head = "POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = router
        .send(format!("{head}5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"))
        .expect(200);
    assert_eq!(answer.text(), "hello world");
    assert!(backend.request().all("content-length").is_empty());
}

#[test]
fn an_empty_body_of_each_framing_ends_at_once() {
    let router = Router::start();
    let backend = Backend::echo();
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    for framing in [
        "Content-Length: 0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "\r\n",
    ] {
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: shop.example\r\n{framing}"
        ));
        let answer = client.answer().expect(200);
        assert!(
            answer.body.is_empty() && answer.complete,
            "{framing:?}: {answer:?}"
        );
    }
    assert_eq!(backend.requests().len(), 3);
}

#[test]
fn a_chunked_answer_stays_whole() {
    let router = Router::start();
    let backend = Backend::says(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n006\r\n world\r\n0\r\n\r\n",
    );
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    let answer = client.answer().expect(200);
    assert_eq!(answer.text(), "hello world");
    assert!(answer.complete);
    assert_eq!(answer.header("content-length"), None);
}

#[test]
fn an_answer_that_ends_with_the_connection_stays_whole() {
    let router = Router::start();
    let backend = Backend::says("HTTP/1.1 200 OK\r\n\r\nuntil the end");
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    let answer = client.answer().expect(200);
    assert_eq!(answer.text(), "until the end");
    assert!(
        answer.complete,
        "an HTTP/1.1 client must be able to tell the end from a cut"
    );
}

#[test]
fn an_empty_answer_that_ends_with_the_connection_stays_empty() {
    let router = Router::start();
    let backend = Backend::says("HTTP/1.1 200 OK\r\n\r\n");
    router.serve("shop", &[&backend]);
    let answer = router.get("shop", "/").expect(200);
    assert!(answer.body.is_empty() && answer.complete, "{answer:?}");
}

#[test]
fn ten_mebibytes_pass_unharmed_both_ways_with_content_length() {
    let router = Router::start();
    let backend = Backend::echo();
    router.serve("shop", &[&backend]);
    let body = patterned(BIG);
    let mut client = router.client();
    client.send(format!(
        "PUT / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {BIG}\r\n\r\n"
    ));
    client.send(&body);
    let answer = client.answer().expect(200);
    assert!(answer.body == body, "the body changed on its way");
}

#[test]
fn ten_mebibytes_pass_unharmed_both_ways_in_chunks() {
    let router = Router::start();
    let backend = Backend::app(|request| {
        let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        answer.extend_from_slice(&chunked(&request.body, 30_011));
        answer
    });
    router.serve("shop", &[&backend]);
    let body = patterned(BIG);
    let mut client = router.client();
    client.send("PUT / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(chunked(&body, 7_919));
    let answer = client.answer().expect(200);
    assert!(
        answer.complete && answer.body == body,
        "the body changed on its way"
    );
}

#[test]
fn ten_mebibytes_until_the_end_of_the_connection_pass_unharmed() {
    let router = Router::start();
    let body = patterned(BIG);
    let mut whole = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    whole.extend_from_slice(&body);
    let backend = Backend::says(whole);
    router.serve("shop", &[&backend]);
    let answer = router.get("shop", "/").expect(200);
    assert!(
        answer.complete && answer.body == body,
        "the body changed on its way"
    );
}

#[test]
fn a_request_that_dribbles_byte_by_byte_is_read() {
    let router = Router::start();
    let backend = Backend::echo();
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    let request = "POST /slow HTTP/1.1\r\nHost: shop.example\r\n\
                   Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
    for byte in request.as_bytes() {
        client.send([*byte]);
        pause(Duration::from_millis(1));
    }
    assert_eq!(client.answer().expect(200).text(), "abcd");
}

#[test]
fn an_answer_that_dribbles_byte_by_byte_is_passed_on() {
    let router = Router::start();
    let backend = Backend::script(|mut conn| {
        while conn.request().is_some() {
            let answer = "HTTP/1.1 200 OK\r\nX-Kind: slow\r\nTransfer-Encoding: chunked\r\n\r\n\
                          3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
            for byte in answer.as_bytes() {
                conn.write([*byte]);
                pause(Duration::from_millis(1));
            }
        }
    });
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
        let answer = client.answer().expect(200);
        assert_eq!(answer.text(), "abcd");
        assert_eq!(answer.header("x-kind"), Some("slow"));
    }
}

#[test]
fn a_piece_of_an_answer_is_not_held_back_for_the_next() {
    let router = Router::start();
    let (more, wait) = std::sync::mpsc::sync_channel::<()>(1);
    let wait = std::sync::Mutex::new(wait);
    let backend = Backend::script(move |mut conn| {
        while conn.request().is_some() {
            conn.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst");
            let _ = wait.lock().expect("one connection only").recv();
            conn.write("-last");
        }
    });
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    let head = client
        .head()
        .expect("the head must come before the rest of the body");
    assert_eq!(head.status, 200);
    assert_eq!(client.take(5), b"first");
    more.send(()).expect("the backend must be waiting");
    assert_eq!(client.take(5), b"-last");
}

#[test]
fn a_piece_of_a_request_is_not_held_back_for_the_next() {
    let router = Router::start();
    let backend = Backend::script(|mut conn| {
        let Some(head) = conn.head() else { return };
        let first = conn.take(5).unwrap_or_default();
        conn.note(head);
        let rest = conn.take(5).unwrap_or_default();
        let body = format!(
            "{}{}",
            String::from_utf8_lossy(&first),
            String::from_utf8_lossy(&rest)
        );
        conn.write(crate::harness::answer_ok(&body));
    });
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 10\r\n\r\nfirst");
    eventually("the first piece arrives alone", || {
        (backend.requests().len() == 1).then_some(())
    });
    client.send("-last");
    assert_eq!(client.answer().expect(200).text(), "first-last");
}

#[test]
fn two_identical_content_lengths_of_an_answer_count_as_one() {
    let router = Router::start();
    let backend =
        Backend::says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok");
    router.serve("shop", &[&backend]);
    let answer = router.get("shop", "/");
    // Either is strict: one length passed on, or H25. Never two lengths.
    match answer.status {
        200 => assert_eq!(answer.header("content-length"), Some("2")),
        _ => drop(answer.refused(502, "H25")),
    }
}
