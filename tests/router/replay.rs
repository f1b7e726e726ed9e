//! Bodies and retries: replayed while whole in the buffer, never torn, never
//! half.

use serde_json::json;

use crate::harness::{Conduct, Instance, Router, eventually, get, patterned, with_body};

/// Letters that differ along their length.
fn letters(count: usize) -> String {
    let bytes = patterned(count);
    let letters = bytes.iter().map(|byte| char::from(b'a' + byte % 26));
    letters.collect()
}

/// One chunk of this body, and the last one.
fn chunked(app: &str, path: &str, body: &str) -> String {
    let mut chunks = String::new();
    for piece in body.as_bytes().chunks(7_000) {
        let piece = std::str::from_utf8(piece).expect("letters");
        chunks.push_str(&format!("{:x}\r\n{piece}\r\n", piece.len()));
    }
    format!(
        "PUT {path} HTTP/1.1\r\nHost: {app}.example\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"
    )
}

/// Two instances, the first of which does this; never ejected.
fn pair(router: &Router, policy: serde_json::Value, conduct: Conduct) -> (Instance, Instance) {
    let (bad, good) = (Instance::start("bad"), Instance::start("good"));
    let mut policy = policy;
    policy["ejection"] = json!(false);
    policy["hedge"] = json!("off");
    policy["retry_budget"] = json!({ "percent": 100, "per_second": 1000 });
    router.pool("shop", &policy, &[&bad, &good]);
    bad.does(conduct);
    (bad, good)
}

#[test]
fn a_body_within_the_buffer_is_replayed_whole() {
    for conduct in [
        Conduct::Resets,
        Conduct::ResetsAtHead,
        Conduct::Answers(503, ""),
    ] {
        let router = Router::start();
        let (bad, good) = pair(&router, json!({}), conduct.clone());
        let body = letters(60_000);
        for number in 0..16 {
            let path = format!("/{number}");
            let request = if number % 2 == 0 {
                with_body("PUT", "shop", &path, "", &body)
            } else {
                chunked("shop", &path, &body)
            };
            let answer = router.send(request).expect(200);
            assert_eq!(answer.text(), "good", "{conduct:?}");
            let seen = good.wait_for(&path);
            assert!(seen.body == body.as_bytes(), "{conduct:?}: torn at {path}");
        }
        assert!(bad.count() > 0, "{conduct:?}: it was met");
    }
}

#[test]
fn a_body_still_on_its_way_is_replayed_if_it_is_whole_so_far() {
    let router = Router::start();
    let (bad, good) = pair(&router, json!({}), Conduct::ResetsAtHead);
    let body = letters(40_000);
    for number in 0..20 {
        let path = format!("/{number}");
        let mut client = router.client();
        let head = format!(
            "PUT {path} HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        let chunk = |piece: &str| format!("{:x}\r\n{piece}\r\n", piece.len());
        client.send(head).send(chunk(&body[..15_000]));
        // Whoever gets it has read the head, and perhaps gone, by now.
        eventually("a backend reads its head", || {
            (bad.executed(&path) > 0 || good.open() > 0).then_some(())
        });
        client.send(chunk(&body[15_000..])).send("0\r\n\r\n");
        assert_eq!(client.answer().expect(200).text(), "good");
        let seen = good.wait_for(&path);
        assert!(seen.body == body.as_bytes(), "torn at {path}");
    }
    assert!(bad.count() > 0, "it was met");
}

#[test]
fn a_body_larger_than_the_buffer_is_not_repeated() {
    let router = Router::start();
    let (bad, good) = pair(&router, json!({ "replay_bytes": 10_000 }), Conduct::Resets);
    let body = letters(200_000);
    let mut failed = 0;
    for number in 0..16 {
        let path = format!("/{number}");
        let answer = router.send(with_body("PUT", "shop", &path, "", &body));
        let executed = (bad.executed(&path), good.executed(&path));
        if answer.status == 200 {
            assert_eq!(executed, (0, 1), "{path}");
        } else {
            answer.refused(503, "H13");
            assert_eq!(executed, (1, 0), "{path}");
            failed += 1;
        }
    }
    assert!(failed > 0, "it was met");
    let seen = good.requests();
    assert!(seen.iter().all(|it| it.body == body.as_bytes()), "torn");
}

#[test]
fn a_replay_buffer_of_nothing_replays_nothing() {
    let router = Router::start();
    let (bad, good) = pair(&router, json!({ "replay_bytes": 0 }), Conduct::Resets);
    // More than what comes in one piece with its head.
    let body = letters(100_000);
    for number in 0..16 {
        let path = format!("/{number}");
        let answer = router.send(with_body("PUT", "shop", &path, "", &body));
        assert_eq!(bad.executed(&path) + good.executed(&path), 1, "{path}");
        if answer.status != 200 {
            answer.refused(503, "H13");
        }
        // What has no body needs no buffer.
        let path = format!("/get/{number}");
        assert_eq!(router.send(get("shop", &path)).expect(200).text(), "good");
    }
    assert!(bad.count() > 0, "it was met");
}

#[test]
fn a_large_answered_503_is_passed_on() {
    let router = Router::start();
    let (bad, good) = pair(
        &router,
        json!({ "replay_bytes": 10_000 }),
        Conduct::Answers(503, ""),
    );
    let body = letters(200_000);
    let mut passed_on = 0;
    for number in 0..16 {
        let path = format!("/{number}");
        let answer = router.send(with_body("PUT", "shop", &path, "", &body));
        assert_eq!(bad.executed(&path) + good.executed(&path), 1, "{path}");
        if answer.status == 503 {
            assert_eq!(answer.text(), "bad says 503");
            passed_on += 1;
        }
    }
    assert!(passed_on > 0, "it was met");
}

#[test]
fn a_connection_is_in_step_after_a_replay() {
    let router = Router::start();
    let (bad, good) = pair(&router, json!({}), Conduct::Answers(503, ""));
    let mut client = router.client();
    for number in 0..30 {
        let body = letters(number * 997);
        let path = format!("/{number}");
        client.send(with_body("PUT", "shop", &path, "", &body));
        assert_eq!(client.answer().expect(200).text(), "good");
        assert!(
            good.wait_for(&path).body == body.as_bytes(),
            "torn at {path}"
        );
    }
    assert!(bad.count() > 0, "it was met");
}

#[test]
fn a_retry_is_the_same_request() {
    let router = Router::start();
    let (bad, good) = pair(&router, json!({}), Conduct::Resets);
    for number in 0..20 {
        let path = format!("/{number}?a=b");
        let lines = "X-Own: kept\r\nCookie: a=1\r\nCookie: b=2\r\n";
        router
            .send(with_body("PUT", "shop", &path, lines, "body"))
            .expect(200);
    }
    let met = bad.requests();
    assert!(!met.is_empty(), "it was met");
    for first in met {
        let again = good.wait_for(&first.target);
        assert_eq!(format!("{first:?}"), format!("{again:?}"));
    }
}

#[test]
fn a_clients_next_request_is_not_taken_for_a_body() {
    let router = Router::start();
    let (bad, good) = pair(&router, json!({}), Conduct::Resets);
    let mut client = router.client();
    for number in 0..20 {
        let (first, second) = (format!("/first/{number}"), format!("/second/{number}"));
        let both = with_body("PUT", "shop", &first, "", "body") + &get("shop", &second);
        client.send(both);
        assert_eq!(client.answer().expect(200).text(), "good");
        assert_eq!(client.answer().expect(200).text(), "good");
        assert_eq!(good.wait_for(&first).body, b"body");
        assert_eq!(good.wait_for(&second).body, b"");
    }
    assert!(bad.count() > 0, "it was met");
}
