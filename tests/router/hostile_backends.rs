//! Backends that answer without end or out of rule: cut within a bound,
//! counted, named by their code, and out of rotation if they go on.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Backend, Conduct, Instance, Router, eventually, get};

/// Longer than any of these may take, shorter than the default timeouts.
const BOUND: Duration = Duration::from_secs(12);

/// Asks one hostile instance, alone in its pool; the request must end in time
/// with one of these codes, and the instance be freed.
#[track_caller]
fn cut(name: &str, conduct: Conduct, codes: &[&str]) {
    let router = Router::start();
    let hostile = Instance::start("hostile");
    hostile.does(conduct);
    // A body that comes for ever is cut by nothing but the client: the times
    // are for those that never come to one.
    let policy = json!({ "first_byte_timeout": "2s", "idle_timeout": "2s", "hedge": "off" });
    router.pool("shop", &policy, &[&hostile]);
    let began = Instant::now();
    let mut client = router.client();
    client.send(get("shop", "/cut"));
    let told = client.try_answer_to("GET");
    let took = began.elapsed();
    assert!(took < BOUND, "{name}: not before {took:?}");
    if let Ok(answer) = &told {
        assert!(
            !answer.complete || answer.status >= 500,
            "{name}: passed for whole: {answer:?}"
        );
    }
    let line = router.logged("/cut");
    let code = line.get("code").map_or("", String::as_str);
    assert!(codes.contains(&code), "{name}: {line:?}");
    eventually(&format!("{name}: the backend is freed"), || {
        (hostile.open() == 0).then_some(())
    });
    let label = format!("\"{code}\"");
    eventually(&format!("{name}: it is counted"), || {
        (router.counted("portico_coded_requests_total", &label) >= 1.0).then_some(())
    });
    // The router is none the worse.
    hostile.does(Conduct::Well);
    router.get("shop", "/after").expect(200);
}

#[test]
fn endless_headers_are_cut() {
    let lines = Conduct::Floods(b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n");
    cut("header lines", lines, &["H25"]);
    let line = Conduct::Floods(b"HTTP/1.1 200 OK\r\nX-Long: ", b"and longer");
    cut("a header line", line, &["H25"]);
}

#[test]
fn an_endless_status_line_is_cut() {
    let line = Conduct::Floods(b"HTTP/1.1 200 ", b"OK ");
    cut("a status line", line, &["H17", "H25"]);
}

#[test]
fn endless_interim_answers_are_cut() {
    let hints = Conduct::Floods(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    cut("interim answers", hints, &["H25", "H12"]);
    let bare = Conduct::Floods(b"", b"HTTP/1.1 100 Continue\r\n\r\n");
    cut("bare interim answers", bare, &["H25", "H12"]);
}

#[test]
fn endless_trailers_are_cut() {
    let trailers = Conduct::Floods(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n",
        b"X-More: and more\r\n",
    );
    cut("trailers", trailers, &["H25", "H18"]);
}

#[test]
fn an_endless_chunk_extension_is_cut() {
    let extension = Conduct::Floods(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=",
        b"longer",
    );
    cut("a chunk extension", extension, &["H25", "H18"]);
    let size = Conduct::Floods(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"00000000",
    );
    cut("a chunk size", size, &["H25", "H18"]);
}

#[test]
fn a_body_that_goes_on_after_its_length_is_cut_there() {
    let router = Router::start();
    let endless = Instance::start("endless");
    router.pool("shop", &json!({}), &[&endless]);
    endless.does(Conduct::Floods(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12345",
        b"and on",
    ));
    for number in 0..5 {
        let answer = router.get("shop", &format!("/{number}"));
        // What came behind the body may be found on a connection kept too soon:
        // then it is an answer to nothing, and no part of any.
        let is_cut = answer.code().as_deref() == Some("H17");
        assert!(is_cut || answer.text() == "12345", "{answer:?}");
    }
    eventually("its connections are closed", || {
        (endless.open() == 0).then_some(())
    });
    endless.does(Conduct::Well);
    assert_eq!(router.get("shop", "/well").expect(200).text(), "endless");
}

#[test]
fn an_endless_body_ends_with_its_client() {
    let router = Router::start();
    let endless = Instance::start("endless");
    router.pool("shop", &json!({}), &[&endless]);
    for (path, head) in [
        (
            "/chunked",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice(),
        ),
        ("/closed", b"HTTP/1.1 200 OK\r\n\r\n"),
    ] {
        endless.does(Conduct::Floods(head, b"2\r\nok\r\n"));
        let mut client = router.client();
        client.send(get("shop", path));
        assert_eq!(client.head().expect("an answer begins").status, 200);
        client.take(1_000_000);
        drop(client);
        router.logged_code(path, "H27");
        eventually("the backend is freed", || {
            (endless.open() == 0).then_some(())
        });
    }
    assert_eq!(
        router.backend("shop", "web.1")["ejections"],
        0,
        "a client's leaving is its own"
    );
}

#[test]
fn a_head_that_drips_is_cut() {
    let router = Router::start();
    let drips = Backend::script(|mut conn| {
        if conn.request().is_none() || !conn.write("HTTP/1.1 200 OK\r\nX-Drip: ") {
            return;
        }
        while conn.write("x") {
            crate::harness::pause(Duration::from_millis(100));
        }
    });
    let policy = json!({ "first_byte_timeout": "1s", "idle_timeout": "1s", "hedge": "off" });
    router.serve_with("shop", &policy, &[&drips]);
    let began = Instant::now();
    let answer = router.get("shop", "/drips");
    assert!(answer.status >= 500, "{answer:?}");
    assert!(began.elapsed() < BOUND, "{:?}", began.elapsed());
    let code = answer.code().unwrap_or_default();
    assert!(matches!(code.as_str(), "H12" | "H25"), "{answer:?}");
    router.logged_code("/drips", &code);
}

#[test]
fn who_goes_on_answering_badly_is_ejected() {
    let cases: [(&str, Conduct); 4] = [
        (
            "garbage",
            Conduct::Says(b"\x16\x03\x01 not for you\r\n\r\n"),
        ),
        (
            "endless headers",
            Conduct::Floods(b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n"),
        ),
        (
            "ambiguous framing",
            Conduct::Says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok"),
        ),
        (
            "broken off",
            Conduct::Says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"),
        ),
    ];
    for (number, (what, conduct)) in cases.into_iter().enumerate() {
        let router = Router::start();
        let app = format!("app{number}");
        let (bad, good) = (Instance::start("bad"), Instance::start("good"));
        router.pool(&app, &json!({}), &[&bad, &good]);
        bad.does(conduct);
        let mut out = false;
        let patience = Instant::now() + Duration::from_secs(60);
        for number in 0.. {
            if Instant::now() > patience {
                break;
            }
            let mut client = router.client();
            client.send(get(&app, &format!("/{number}")));
            // Cut or answered: whatever it is, it ends.
            let _ = client.try_answer_to("GET");
            if router.health(&app, "web.1") == "ejected" {
                out = true;
                break;
            }
        }
        assert!(out, "{what}: {}", router.backend(&app, "web.1"));
        assert!(
            bad.count() <= 40,
            "{what}: out after {} of its own",
            bad.count()
        );
        assert_eq!(router.health(&app, "web.2"), "healthy", "{what}");
    }
}

#[test]
fn one_hostile_app_slows_no_other() {
    let router = Router::with(&["edge.threads=1"]);
    let (hostile, good) = (Instance::start("hostile"), Instance::start("good"));
    hostile.does(Conduct::Floods(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"));
    router.pool("shop", &json!({ "hedge": "off" }), &[&hostile]);
    router.pool("blog", &json!({}), &[&good]);
    let mut stuck: Vec<_> = (0..4)
        .map(|number| {
            let mut client = router.client();
            client.send(get("shop", &format!("/{number}")));
            client
        })
        .collect();
    let began = Instant::now();
    for number in 0..30 {
        router.get("blog", &format!("/blog/{number}")).expect(200);
    }
    assert!(began.elapsed() < BOUND, "{:?}", began.elapsed());
    for client in &mut stuck {
        client.finish();
    }
}
#[test]
fn a_get_answered_badly_by_one_backend_is_asked_elsewhere() {
    let cases: [(&str, Conduct); 4] = [
        (
            "garbage",
            Conduct::Says(b"\x16\x03\x01 not for you\r\n\r\n"),
        ),
        ("half a head", Conduct::Says(b"HTTP/1.1 200 OK\r\nX-Hal")),
        (
            "endless headers",
            Conduct::Floods(b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n"),
        ),
        (
            "ambiguous framing",
            Conduct::Says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok"),
        ),
    ];
    for (number, (what, conduct)) in cases.into_iter().enumerate() {
        let router = Router::start();
        let app = format!("app{number}");
        let (bad, good) = (Instance::start("bad"), Instance::start("good"));
        router.pool(&app, &json!({}), &[&bad, &good]);
        bad.does(conduct);
        let mut client = router.client();
        for number in 0..40 {
            client.send(get(&app, &format!("/{number}")));
            let answer = client.answer();
            assert_eq!(answer.status, 200, "{what}: {answer:?}");
            assert_eq!(answer.text(), "good", "{what}");
        }
        assert!(bad.count() > 0, "{what}: it was met");
    }
}
