//! Named limits, set on the admin port: in force on every thread at once, kept
//! over restarts.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::router::request;
use crate::harness::{Backend, Client, Router, eventually, pause, processes, soon};

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n{headers}\r\n")
}

/// Statuses of so many requests for a path.
fn statuses(router: &Router, path: &str, headers: &str, times: usize) -> Vec<u16> {
    let mut client = router.client();
    let asked = (0..times).map(|_| client.send(get(path, headers)).answer().status);
    asked.collect()
}

fn count(statuses: &[u16], status: u16) -> usize {
    statuses.iter().filter(|&&it| it == status).count()
}

#[test]
fn a_rate_lets_so_many_pass_and_says_when_to_come_back() {
    let router = Router::start();
    let backend = Backend::named("ok");
    router.serve("shop", &[&backend]);
    let answer = router.set_limit(
        "publish",
        &json!({ "rate": "3/m", "burst": 3, "path": "/publish" }),
    );
    assert_eq!(answer.status, 201);
    // One connection for all: it is kept.
    let mut client = router.client();
    for _ in 0..3 {
        client.send(get("/publish/x?y", "")).answer().expect(200);
    }
    let json_wanted = "Accept: application/json\r\n";
    let refused = client
        .send(get("/publish", json_wanted))
        .answer()
        .refused(429, "H29");
    let wait: u32 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=20).contains(&wait), "{wait}");
    let problem = refused.json();
    assert_eq!(problem["detail"], "over the limit publish");
    assert_eq!(problem["fault"], "client");
    // With a body that is still to come, too.
    let upload =
        "POST /publish/upload HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\n\r\nhello";
    client.send(upload).answer().refused(429, "H29");
    // What only begins so is something else.
    client.send(get("/publisher", "")).answer().expect(200);
    client.send(get("/other", "")).answer().expect(200);
    let logged = router.logged_code("/publish", "H29");
    assert_eq!(logged["cause"], "publish");
    assert_eq!(logged["status"], "429");
    let label = "limit=\"publish\"";
    eventually("it is counted", || {
        let refused = router.counted("portico_limit_refused_total", label);
        let admitted = router.counted("portico_limit_admitted_total", label);
        (refused == 2.0 && admitted == 3.0).then_some(())
    });
    assert_eq!(backend.requests().len(), 5);
}

#[test]
fn a_rate_is_over_all_threads() {
    let router = Router::with(&["edge.threads=4"]);
    let backend = Backend::named("ok");
    router.serve("shop", &[&backend]);
    router.set_limit("all", &json!({ "rate": "30/h", "burst": 30 }));
    let (router, started) = (&router, Instant::now());
    let passed: usize = std::thread::scope(|scope| {
        let asking =
            (0..16).map(|_| scope.spawn(move || count(&statuses(router, "/", "", 10), 200)));
        let asking: Vec<_> = asking.collect();
        asking.into_iter().map(|one| one.join().unwrap()).sum()
    });
    let more = usize::try_from(started.elapsed().as_secs() / 120).unwrap() + 1;
    assert!((30..=30 + more).contains(&passed), "{passed}");
}

/// What a backend that never answers `/held` says to everything else.
fn holding() -> Backend {
    Backend::script(|mut conn| {
        while let Some(request) = conn.request() {
            let answer = match request.target.as_str() {
                "/held" => {
                    conn.until_closed();
                    return;
                }
                "/piped" => b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw/1\r\n\r\n".to_vec(),
                _ => crate::harness::answer_ok("free"),
            };
            if !conn.write(answer) || request.target == "/piped" {
                conn.until_closed();
                return;
            }
        }
    })
}

#[test]
fn a_concurrency_is_given_back_however_a_request_ends() {
    let router = Router::start();
    let backend = holding();
    router.serve("shop", &[&backend]);
    router.set_limit("few", &json!({ "concurrency": 2, "app": "shop" }));
    let full = |router: &Router| {
        eventually("both places are taken", || {
            (router.get("shop", "/free").status == 429).then_some(())
        });
        let refused = router.get("shop", "/free").refused(429, "H29");
        assert_eq!(refused.header("retry-after"), Some("1"));
    };
    let free = |router: &Router| {
        eventually("a place is free", || {
            (router.get("shop", "/free").status == 200).then_some(())
        });
    };
    let asked = || backend.requests().len();
    // The one before may still be inside for a moment: until the backend has it.
    let hold = |path: &str, headers: &str| {
        eventually("the backend has it", || {
            let (before, mut client) = (asked(), router.client());
            client.send(get(path, headers));
            let mut waits = 0..100;
            let is_held = waits.any(|_| {
                pause(Duration::from_millis(5));
                asked() > before
            });
            is_held.then_some(client)
        })
    };
    // A client that closes, one that resets.
    let (first, second) = (hold("/held", ""), hold("/held", ""));
    full(&router);
    drop(first);
    free(&router);
    let first = hold("/held", "");
    full(&router);
    second.reset();
    free(&router);
    // An upgraded connection counts until it ends.
    let mut piped = hold("/piped", "Connection: Upgrade\r\nUpgrade: raw/1\r\n");
    piped.answer().expect(101);
    full(&router);
    // The number may change meanwhile.
    router.set_limit("few", &json!({ "concurrency": 3, "app": "shop" }));
    free(&router);
    router.set_limit("few", &json!({ "concurrency": 2, "app": "shop" }));
    full(&router);
    drop(piped);
    free(&router);
    drop(first);
    free(&router);
    for _ in 0..20 {
        router.get("shop", "/free").expect(200);
    }
}

#[test]
fn each_client_has_its_own_and_only_a_trusted_proxy_names_it() {
    let body = json!({ "rate": "2/h", "burst": 2, "per": "client" });
    let trusting = Router::with(&["edge.trusted_proxies=[\"127.0.0.0/8\"]"]);
    let backend = Backend::named("ok");
    trusting.serve("shop", &[&backend]);
    trusting.set_limit("each", &body);
    for client in 1..=20 {
        let line = format!("X-Forwarded-For: 203.0.113.{client}\r\n");
        assert_eq!(
            statuses(&trusting, "/", &line, 3),
            [200, 200, 429],
            "{client}"
        );
    }
    // What a client wrote left of what the proxy saw is nobody's word.
    let line = "X-Forwarded-For: 1.2.3.4, 203.0.113.7\r\n";
    assert_eq!(statuses(&trusting, "/", line, 1), [429]);
    // One network of version 6 is one client.
    for (address, expected) in [
        ("2001:db8::1", [200, 200]),
        ("2001:db8::2", [429, 429]),
        ("2001:db8:0:1::1", [200, 200]),
    ] {
        let line = format!("X-Forwarded-For: {address}\r\n");
        assert_eq!(statuses(&trusting, "/", &line, 2), expected, "{address}");
    }

    let doubting = Router::start();
    doubting.serve("shop", &[&backend]);
    doubting.set_limit("each", &body);
    let asked: Vec<u16> = (1..=4)
        .flat_map(|client| {
            statuses(
                &doubting,
                "/",
                &format!("X-Forwarded-For: 203.0.113.{client}\r\n"),
                1,
            )
        })
        .collect();
    assert_eq!(asked, [200, 200, 429, 429]);
}

#[test]
fn headers_choose_and_tell_apart() {
    let router = Router::start();
    let backend = Backend::named("ok");
    router.serve("shop", &[&backend]);
    router.set_limit(
        "free",
        &json!({ "rate": "1/h", "header": { "name": "X-Plan", "value": "free" } }),
    );
    assert_eq!(statuses(&router, "/", "x-plan: free\r\n", 2), [200, 429]);
    assert_eq!(statuses(&router, "/", "X-Plan: paid\r\n", 2), [200, 200]);
    assert_eq!(statuses(&router, "/", "", 2), [200, 200]);
    router
        .limit("DELETE", "/limits/free?wait=active", &Value::Null)
        .expect(200);
    router.set_limit(
        "keys",
        &json!({ "rate": "1/h", "per": { "header": "X-Api-Key" } }),
    );
    for key in ["a", "b"] {
        let line = format!("X-Api-Key: {key}\r\n");
        assert_eq!(statuses(&router, "/", &line, 2), [200, 429]);
    }
    // Those without one share one allowance.
    assert_eq!(statuses(&router, "/", "", 2), [200, 429]);
}

#[test]
fn an_app_is_limited_alone_and_everything_with_unknown_hosts() {
    let router = Router::start();
    let backend = Backend::named("ok");
    router.serve("shop", &[&backend]);
    router.serve("other", &[&backend]);
    router.set_limit("shop-only", &json!({ "rate": 0, "app": "shop" }));
    router.get("shop", "/").refused(429, "H29");
    router.get("other", "/").expect(200);
    router.get("nobody", "/").refused(404, "H30");
    router.set_limit("everything", &json!({ "rate": 0 }));
    router.get("nobody", "/").refused(429, "H29");
    router.get("other", "/").refused(429, "H29");
    // What one limit refused cost the others nothing.
    router.set_limit("a-first", &json!({ "rate": "1/h", "app": "other" }));
    for _ in 0..3 {
        router.get("other", "/").refused(429, "H29");
    }
    router
        .limit("DELETE", "/limits/everything?wait=active", &Value::Null)
        .expect(200);
    router.get("other", "/").expect(200);
}

#[test]
fn zero_holds_on_every_thread_within_a_tenth_of_a_second() {
    let router = Router::with(&["edge.threads=4"]);
    let backend = Backend::named("ok");
    router.serve("shop", &[&backend]);
    // Kept connections, so that every thread has some.
    let mut clients: Vec<Client> = (0..16).map(|_| router.client()).collect();
    let mut ask = || -> Vec<u16> {
        let asked = clients
            .iter_mut()
            .map(|client| client.send(get("/", "")).answer().status);
        asked.collect()
    };
    // The machine may be busy; most of the time it is not.
    soon(Duration::from_millis(100), || {
        let mut taken = [(); 5].map(|()| {
            router.set_limit("stop", &json!({ "rate": 1000 }));
            assert!(ask().iter().all(|&status| status == 200));
            router
                .limit("PUT", "/limits/stop", &json!({ "rate": 0 }))
                .expect(200);
            let answered = Instant::now();
            eventually("all are refused", || {
                ask().iter().all(|&status| status == 429).then_some(())
            });
            answered.elapsed()
        });
        taken.sort();
        taken[2]
    });
}

#[test]
fn limits_survive_restarts_and_hold_without_control() {
    let mut router = Router::with(&["edge.standby=\"off\""]);
    let backend = Backend::named("ok");
    router.serve("shop", &[&backend]);
    router.set_limit("stop", &json!({ "rate": 0, "path": "/stopped" }));
    let held = |router: &Router| {
        router.get("shop", "/stopped").refused(429, "H29");
        router.get("shop", "/free").expect(200);
    };
    held(&router);
    processes::signal(router.process("control"), rustix::process::Signal::KILL);
    held(&router);
    // One that starts while control is not there goes by the file.
    let control = router.process("control");
    eventually("the file is written", || {
        router
            .state_dir()
            .join("table/limits")
            .exists()
            .then_some(())
    });
    let edge = router.process("edge");
    processes::signal(control, rustix::process::Signal::STOP);
    processes::signal(edge, rustix::process::Signal::KILL);
    held(&router);
    processes::signal(control, rustix::process::Signal::CONT);
    router = router.stop().start();
    held(&router);
    router = router.crash().start();
    held(&router);
    let shown = router
        .limit("GET", "/limits/stop", &Value::Null)
        .expect(200)
        .json();
    assert_eq!(shown["rate"], "0/s");
    assert_eq!(shown["path"], "/stopped");
    // The store lost, they come back from beside the table.
    let setup = router.stop();
    fs::remove_file(setup.state_dir().join("store.redb")).unwrap();
    let router = setup.start();
    held(&router);
    let shown = router
        .limit("GET", "/limits/stop", &Value::Null)
        .expect(200)
        .json();
    assert_eq!(shown["source"], "stored");
}

#[test]
fn changes_are_conditional_and_repeatable() {
    let router = Router::start();
    let created = router.set_limit("publish", &json!({ "rate": 10 }));
    let tag = created.header("etag").unwrap().to_owned();
    let again = router.set_limit("publish", &json!({ "rate": "10/s" }));
    assert_eq!((again.status, again.header("etag")), (200, Some(&*tag)));
    let bearer = format!("Bearer {}", router.token());
    let put = |tag: &str, body: &str| {
        let headers = [
            ("Authorization", &*bearer),
            ("If-Match", tag),
            ("Content-Type", "application/json"),
        ];
        request(router.admin(), "PUT", "/limits/publish", &headers, body)
    };
    put(&tag, r#"{"rate": 11}"#).expect(200);
    let lost = put(&tag, r#"{"rate": 12}"#).expect(412).json();
    assert_eq!(lost["code"], "precondition_failed");
    let shown = router.admin_get("/limits/publish").expect(200).json();
    assert_eq!(shown["rate"], "11/s");
    assert_eq!(shown["source"], "stored");
    let listed = router.admin_get("/limits").expect(200).json();
    let names: Vec<_> = listed["limits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].clone())
        .collect();
    assert_eq!(
        names,
        ["access_log", "changes", "probes", "publish", "retries"]
    );
    router
        .limit("DELETE", "/limits/publish", &Value::Null)
        .expect(200);
    router
        .limit("DELETE", "/limits/publish", &Value::Null)
        .expect(404);
    router.admin_get("/limits/publish").expect(404);
    // The router's own are always there.
    router
        .limit("DELETE", "/limits/retries", &Value::Null)
        .expect(200);
    router.admin_get("/limits/retries").expect(200);
    request(
        router.admin(),
        "PUT",
        "/limits/publish",
        &[],
        r#"{"rate": 1}"#,
    )
    .expect(401);
}

#[test]
fn bad_limits_are_refused_with_their_field() {
    let router = Router::start();
    for (name, body, field) in [
        ("publish", r#"{"rate": -1}"#, "rate"),
        ("publish", r#"{"rate": "many"}"#, "rate"),
        ("publish", r#"{"rate": 1e99}"#, "rate"),
        ("publish", r#"{"rate": 99999999999999999999999}"#, "rate"),
        ("publish", r#"{"concurrency": -5}"#, "concurrency"),
        ("publish", r#"{"rate": 1, "appp": "shop"}"#, "appp"),
        ("publish", r#"{"rate": 1, "per": 7}"#, "per"),
        ("retries", r#"{"rate": 1, "app": "shop"}"#, "app"),
        ("Publish", r#"{"rate": 1}"#, "name"),
    ] {
        let bearer = format!("Bearer {}", router.token());
        let headers = [
            ("Authorization", bearer.as_str()),
            ("Content-Type", "application/json"),
        ];
        let answer = request(
            router.admin(),
            "PUT",
            &format!("/limits/{name}"),
            &headers,
            body,
        )
        .expect(400);
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json")
        );
        let problem = answer.json();
        assert_eq!(problem["field"], field, "{body}: {problem}");
    }
    let bearer = format!("Bearer {}", router.token());
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "text/plain"),
    ];
    request(router.admin(), "PUT", "/limits/a", &headers, "{}").expect(415);
    let headers = [("Authorization", bearer.as_str())];
    request(router.admin(), "PUT", "/limits/a", &headers, "{").expect(400);
    request(
        router.admin(),
        "PUT",
        "/limits/a",
        &headers,
        &" ".repeat(2 << 20),
    )
    .expect(413);
}
