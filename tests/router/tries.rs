//! Which requests are tried again, in corners where others go wrong, and that
//! tries leave nothing behind.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    Client, Conduct, Instance, Load, Router, eventually, get, patterned, post, with_body,
};

/// A budget that is never the reason.
fn lavish(more: &Value) -> Value {
    let mut policy = json!({ "ejection": false, "hedge": "off",
                             "retry_budget": { "percent": 100, "per_second": 1000 } });
    let fields = policy.as_object_mut().expect("an object");
    for (key, value) in more.as_object().expect("an object") {
        fields.insert(key.clone(), value.clone());
    }
    policy
}

/// Two instances, the first of which does this.
fn pair(router: &Router, policy: &Value, conduct: Conduct) -> (Instance, Instance) {
    let (bad, good) = (Instance::start("bad"), Instance::start("good"));
    bad.does(conduct);
    router.pool("shop", &lavish(policy), &[&bad, &good]);
    (bad, good)
}

/// Waits until nothing is in flight any more, by every account.
#[track_caller]
fn nothing_is_left(router: &Router, app: &str) {
    eventually("nothing is in flight", || {
        let view = router.admin_get(&format!("/apps/{app}")).expect(200).json();
        let backends = view["backends"].as_array().expect("a list");
        let idle = backends.iter().all(|backend| backend["in_flight"] == 0)
            && view["traffic"]["in_flight"] == 0
            && view["traffic"]["queued"] == 0
            && router.counted("portico_requests_in_flight", "") < 1.0
            && router.counted("portico_requests_queued", "") < 1.0;
        idle.then_some(())
    });
}

#[test]
fn a_method_is_repeated_only_if_it_is_idempotent() {
    let router = Router::start();
    let (bad, good) = pair(&router, &json!({}), Conduct::Resets);
    let methods = [
        ("HEAD", true),
        ("OPTIONS", true),
        ("PUT", true),
        ("DELETE", true),
        ("POST", false),
        ("PATCH", false),
        ("LOCK", false),
        ("get", false),
    ];
    for (method, repeated) in methods {
        let mut met = false;
        for number in 0..100 {
            let path = format!("/{method}/{number}");
            let mut client = router.client();
            client.send(format!(
                "{method} {path} HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\n\r\n"
            ));
            let answer = client.answer_to(method);
            let executed = (bad.executed(&path), good.executed(&path));
            if repeated {
                assert_eq!(answer.status, 200, "{method}: {answer:?}");
                assert_eq!(executed.1, 1, "{method}");
            } else {
                assert_eq!(executed.0 + executed.1, 1, "{method}: {answer:?}");
            }
            met |= executed.0 > 0;
            // Which of the two is asked is chance, and eight may miss one.
            if met && number >= 7 {
                break;
            }
        }
        assert!(met, "{method}: it was met");
    }
}

#[test]
fn an_upload_that_waits_to_be_continued_goes_elsewhere_too() {
    let router = Router::start();
    let (bad, good) = pair(&router, &json!({}), Conduct::ResetsAtHead);
    for number in 0..20 {
        let path = format!("/{number}");
        let mut client = router.client();
        client.send(format!(
            "PUT {path} HTTP/1.1\r\nHost: shop.example\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
        ));
        let interim = client.head().expect("an interim answer");
        assert_eq!(interim.status, 100, "{interim:?}");
        client.send("body");
        assert_eq!(client.answer().expect(200).text(), "good");
        assert_eq!(good.wait_for(&path).body, b"body");
    }
    assert!(bad.count() > 0, "it was met");
}

#[test]
fn an_early_503_is_asked_elsewhere_with_the_body_whole() {
    let router = Router::start();
    let (bad, good) = pair(&router, &json!({}), Conduct::AnswersAtHead(503));
    let body: String = patterned(30_000)
        .iter()
        .map(|byte| char::from(b'a' + byte % 26))
        .collect();
    for number in 0..20 {
        let path = format!("/{number}");
        let mut client = router.client();
        client.send(format!(
            "PUT {path} HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n"
        ));
        client.send(format!("{:x}\r\n{}\r\n", 10_000, &body[..10_000]));
        eventually("a backend reads its head", || {
            (bad.executed(&path) > 0 || good.open() > 0).then_some(())
        });
        client.send(format!("{:x}\r\n{}\r\n0\r\n\r\n", 20_000, &body[10_000..]));
        let answer = client.answer();
        if answer.status == 503 {
            // Passed on as it is, which is the client's to repeat.
            assert_eq!(answer.text(), "bad says 503");
            assert_eq!(good.executed(&path), 0, "{path}");
        } else {
            assert_eq!(answer.expect(200).text(), "good");
            assert!(
                good.wait_for(&path).body == body.as_bytes(),
                "torn at {path}"
            );
        }
    }
    assert!(bad.count() > 0, "it was met");
    nothing_is_left(&router, "shop");
}

#[test]
fn a_hedged_body_is_sent_whole() {
    let router = Router::start();
    let (silent, good) = pair(&router, &json!({ "hedge": "50ms" }), Conduct::Silent);
    let body = "0123456789".repeat(6_000);
    for number in 0..20 {
        let path = format!("/{number}");
        let answer = router.send(with_body("PUT", "shop", &path, "", &body));
        assert_eq!(answer.expect(200).text(), "good");
        assert!(
            good.wait_for(&path).body == body.as_bytes(),
            "torn at {path}"
        );
    }
    assert!(silent.count() > 0, "it was met");
    nothing_is_left(&router, "shop");
}

#[test]
fn a_client_that_leaves_frees_every_backend_that_was_asked_for_it() {
    let router = Router::start();
    let (one, two) = pair(&router, &json!({ "hedge": "50ms" }), Conduct::Silent);
    two.does(Conduct::Silent);
    let mut client = router.client();
    client.send(get("shop", "/left"));
    one.wait_for("/left");
    two.wait_for("/left");
    drop(client);
    router.logged_code("/left", "H27");
    eventually("both are freed", || {
        (one.open() == 0 && two.open() == 0).then_some(())
    });
    nothing_is_left(&router, "shop");
}

#[test]
fn a_hedged_request_that_nobody_answers_ends_in_its_time() {
    let router = Router::start();
    let policy = json!({ "hedge": "50ms", "first_byte_timeout": "2s" });
    let (one, two) = pair(&router, &policy, Conduct::Silent);
    two.does(Conduct::Silent);
    router.get("shop", "/nobody").refused(503, "H12");
    assert_eq!(router.logged("/nobody")["tries"], "2");
    eventually("both are freed", || {
        (one.open() == 0 && two.open() == 0).then_some(())
    });
    nothing_is_left(&router, "shop");
}

#[test]
fn of_a_hedged_pair_the_one_that_breaks_off_does_not_end_the_request() {
    let router = Router::start();
    let (one, two) = pair(&router, &json!({ "hedge": "50ms" }), Conduct::Silent);
    two.does(Conduct::Silent);
    let mut client = router.client();
    client.send(get("shop", "/half"));
    one.wait_for("/half");
    two.wait_for("/half");
    one.crash();
    assert!(
        client.silent(Duration::from_millis(100)),
        "the other may answer"
    );
    two.does(Conduct::Well);
    assert_eq!(client.answer().expect(200).text(), "good");
    nothing_is_left(&router, "shop");
}

#[test]
fn an_interim_answer_that_went_out_is_not_followed_by_anothers() {
    let router = Router::start();
    let half = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let (bad, _good) = pair(&router, &json!({}), Conduct::Says(half));
    let mut interrupted = 0;
    for number in 0..16 {
        let answer = router.get("shop", &format!("/{number}"));
        if answer.interim.is_empty() {
            assert_eq!(answer.expect(200).text(), "good");
        } else {
            answer.refused(503, "H13");
            interrupted += 1;
        }
    }
    assert!(interrupted > 0 && interrupted == bad.count());
}

#[test]
fn after_a_storm_of_failures_nothing_is_left_in_flight() {
    let router = Router::start();
    let pool = ["one", "two", "three"].map(Instance::start);
    let policy = json!({ "hedge": "30ms", "max_concurrency": 4, "queue": 20,
                         "first_byte_timeout": "500ms", "boot_wait": "200ms" });
    router.pool("shop", &policy, &[&pool[0], &pool[1], &pool[2]]);
    let edge = router.process("edge");
    let gets = Load::gets(&router, "shop", 100);
    let posts = Load::posts(&router, "shop", 50);
    let conducts = [
        Conduct::Resets,
        Conduct::Silent,
        Conduct::Answers(503, ""),
        Conduct::Answers(503, "Retry-After: 1\r\n"),
        Conduct::Says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
        Conduct::Says(b"nonsense\r\n\r\n"),
        Conduct::AnswersAtHead(502),
        Conduct::Floods(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    ];
    for (number, conduct) in conducts.into_iter().enumerate() {
        pool[number % 3].does(conduct.clone());
        pool[(number + 1) % 3].does(conduct);
        // Some clients have no patience.
        for path in 0..10 {
            let mut client = Client::connect(router.http());
            client.send(get("shop", &format!("/leaves/{number}/{path}")));
        }
        gets.wait(20);
        pool[number % 3].crash();
        gets.wait(10);
        pool[number % 3].restart();
    }
    for instance in &pool {
        instance.does(Conduct::Well);
    }
    gets.stop();
    posts.stop();
    nothing_is_left(&router, "shop");
    // And all of it is forgiven.
    eventually("twenty in a row are answered", || {
        let mut paths = (0..20).map(|number| format!("/after/{number}"));
        paths
            .all(|path| router.send(post("shop", &path)).status == 200)
            .then_some(())
    });
    assert_eq!(router.process("edge"), edge, "the edge lived through it");
}
