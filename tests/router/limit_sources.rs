//! Where limits' numbers come from besides the admin port: files, and the
//! operator's command.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::router::request;
use crate::harness::{Backend, Router, Setup, eventually, processes, soon};

/// A router whose limits files may say, and their folder.
fn with_files() -> (Router, PathBuf) {
    let setup = Setup::new();
    let folder = setup.folder().join("rates");
    fs::create_dir(&folder).expect("a folder must be made");
    let router = setup
        .set(&format!("rates_dir={:?}", folder.display().to_string()))
        .start();
    (router, folder)
}

fn echo(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).expect("a file must be written");
}

#[test]
fn a_file_says_a_limits_number_while_it_is_there() {
    let (router, folder) = with_files();
    let backend = Backend::named("ok");
    router.serve("shop", &[&backend]);
    router.set_limit("publish", &json!({ "rate": "1000/s", "path": "/publish" }));
    // The machine may be busy; most of the time it is not.
    soon(Duration::from_millis(100), || {
        let mut taken = [(); 5].map(|()| {
            router.get("shop", "/publish").expect(200);
            echo(&folder, "publish", "0\n");
            let written = Instant::now();
            eventually("the file holds", || {
                (router.get("shop", "/publish").status == 429).then_some(())
            });
            let took = written.elapsed();
            router.get("shop", "/other").expect(200);
            // Whoever knows what is stored does not know the number yet.
            let shown = router.admin_get("/limits/publish").expect(200);
            let tag = shown.header("etag").expect("it must have a tag");
            let known = [("If-None-Match", tag)];
            let shown = request(router.admin(), "GET", "/limits/publish", &known, "");
            let shown = shown.expect(200).json();
            assert_eq!(
                (&shown["rate"], &shown["source"]),
                (&json!("0/s"), &json!("file"))
            );
            assert_eq!(shown["stored"]["rate"], "1000/s");
            router
                .limit("DELETE", "/limits/publish", &Value::Null)
                .expect(409);
            fs::remove_file(folder.join("publish")).unwrap();
            eventually("what is stored holds again", || {
                (router.get("shop", "/publish").status == 200).then_some(())
            });
            took
        });
        taken.sort();
        taken[2]
    });
    // One that nobody stored is over everything.
    echo(&folder, "all", "0");
    eventually("it holds everywhere", || {
        (router.get("shop", "/other").status == 429).then_some(())
    });
}

#[test]
fn a_file_that_cannot_be_used_leaves_the_last_good_number() {
    let (router, folder) = with_files();
    let backend = Backend::named("ok");
    router.serve("shop", &[&backend]);
    // Another number first: what was the last to hold cannot be told from what
    // is read again.
    let says_none = || {
        for (text, rate) in [("1", "1/s"), ("0", "0/s")] {
            echo(&folder, "stop", text);
            eventually("it is read", || {
                (router.shown("/limits/stop")?["rate"] == rate).then_some(())
            });
        }
        eventually("it holds", || {
            (router.get("shop", "/").status == 429).then_some(())
        });
    };
    says_none();
    for (round, text) in ["rubbish", "-5", "", "99999999999999", &"9".repeat(5_000)]
        .iter()
        .enumerate()
    {
        echo(&folder, "stop", text);
        eventually("an event says so", || {
            (router.events("rate_file_refused").len() == round + 1).then_some(())
        });
        router.get("shop", "/").refused(429, "H29");
        says_none();
    }
    // Over a restart of control too, with rubbish in the file.
    echo(&folder, "stop", "rubbish");
    let control = router.process("control");
    processes::signal(control, rustix::process::Signal::KILL);
    eventually("another control is there", || {
        (router.process("control") != control).then_some(())
    });
    router.wait_ready();
    router.get("shop", "/").refused(429, "H29");
    let shown = router.admin_get("/limits/stop").expect(200).json();
    assert_eq!(shown["source"], "file");
}

#[test]
fn the_command_sets_shows_lists_and_removes() {
    let router = Router::start();
    let backend = Backend::named("ok");
    router.serve("shop", &[&backend]);
    let say = |arguments: &[&str]| {
        let output = router.run(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let wrong = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text} {wrong}");
        text
    };
    assert_eq!(
        say(&["limit", "publish", "10", "--path", "/publish", "--wait"]),
        "publish 10/s for path /publish\n"
    );
    assert_eq!(
        say(&["limit", "publish", "0", "--wait"]),
        "publish 0/s for path /publish\n"
    );
    router.get("shop", "/publish").refused(429, "H29");
    router.get("shop", "/").expect(200);
    assert_eq!(
        say(&["limit", "publish", "600/m"]),
        "publish 600/m for path /publish\n"
    );
    assert_eq!(
        say(&["limit", "publish"]),
        "publish 600/m for path /publish\n"
    );
    say(&[
        "limit",
        "few",
        "5",
        "--concurrency",
        "--per",
        "client",
        "--app",
        "shop",
    ]);
    assert_eq!(
        say(&["limit", "few", "6"]),
        "few 6 at once for app shop each client\n"
    );
    let listed = say(&["limit"]);
    for name in [
        "access_log",
        "changes",
        "few",
        "probes",
        "publish",
        "retries",
        "unlimited",
    ] {
        assert!(listed.contains(name), "{listed}");
    }
    say(&["limit", "publish", "--delete"]);
    let code = |arguments: &[&str]| router.run(arguments).status.code();
    assert_eq!(code(&["limit", "publish"]), Some(1));
    assert_eq!(code(&["limit", "publish", "-5"]), Some(2));
    assert_eq!(code(&["limit", "publish", "many"]), Some(2));
    assert_eq!(code(&["limit", "publish", "--app", "shop"]), Some(2));
    assert_eq!(code(&["limit", "few", "10/m"]), Some(2));
    assert_eq!(code(&["limit", "Publish", "1"]), Some(1));
}

#[test]
fn changes_are_held_back_and_go_out_again() {
    let router = Router::with(&["edge.standby=\"off\""]);
    let backend = Backend::named("ok");
    router.serve("shop", &[&backend]);
    router.set_limit("changes", &json!({ "rate": 0 }));
    let record = json!({ "domains": ["late.example"] });
    router.put("/v1/apps/late", &record).expect(201);
    let waited = router.put(
        "/v1/apps/later?wait=active&timeout=300ms",
        &json!({ "domains": [] }),
    );
    waited.expect(504);
    router.get("late", "/").refused(404, "H30");
    // Neither does an edge that starts anew get it, nor another control send it.
    processes::signal(router.process("edge"), rustix::process::Signal::KILL);
    router.get("shop", "/").expect(200);
    router.get("late", "/").refused(404, "H30");
    let control = router.process("control");
    processes::signal(control, rustix::process::Signal::KILL);
    eventually("another control is there", || {
        (router.process("control") != control).then_some(())
    });
    router.wait_ready();
    router.get("late", "/").refused(404, "H30");
    // Limits are not held back.
    router.set_limit("stop", &json!({ "rate": 0, "path": "/stopped" }));
    router.get("shop", "/stopped").refused(429, "H29");
    router
        .limit("DELETE", "/limits/changes?wait=active", &Value::Null)
        .expect(200);
    eventually("it goes out", || {
        (router.get("late", "/").code().as_deref() == Some("H14")).then_some(())
    });
    // A few a second, one after the other.
    router.set_limit("changes", &json!({ "rate": "600/m", "burst": 1 }));
    let started = Instant::now();
    for n in 0..5 {
        let path = format!("/v1/apps/app-{n}");
        router
            .put(&path, &json!({ "domains": [format!("app-{n}.example")] }))
            .expect(201);
    }
    eventually("the last goes out", || {
        (router.get("app-4", "/").code().as_deref() == Some("H14")).then_some(())
    });
    assert!(
        started.elapsed() >= Duration::from_millis(350),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn the_routers_own_flows_are_limited() {
    let router = Router::start();
    let backend = Backend::named("ok");
    router.serve("shop", &[&backend]);
    let gone = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    router.serve_at(
        "broken",
        &json!({ "boot_wait": "0s" }),
        &[gone, gone, backend.address()],
    );
    router.set_limit("access_log", &json!({ "rate": 0 }));
    router.get("shop", "/unlogged").expect(200);
    router
        .limit("DELETE", "/limits/access_log?wait=active", &Value::Null)
        .expect(200);
    router.get("shop", "/logged").expect(200);
    router.logged("/logged");
    assert!(!router.log().contains("/unlogged"));
    assert_eq!(
        router.counted("portico_access_log_dropped_total", "reason=\"limit\""),
        1.0
    );
    router.set_limit("retries", &json!({ "rate": 0 }));
    eventually(
        "a request meets one that is gone, and is not retried",
        || (router.get("broken", "/").status == 503).then_some(()),
    );
    eventually("that is counted", || {
        let refused = router.counted("portico_limit_refused_total", "limit=\"retries\"");
        let withheld = router.counted("portico_retries_withheld_total", "reason=\"limit\"");
        (refused >= 1.0 && withheld >= 1.0).then_some(())
    });
}

#[test]
fn what_the_page_reads_has_every_limit_and_what_it_did() {
    let (router, folder) = with_files();
    let backend = Backend::named("ok");
    router.serve("shop", &[&backend]);
    let value = "<script>\"&'";
    let body = json!({ "rate": "2/h", "burst": 2, "app": "shop", "path": "/publish",
                       "header": { "name": "X-Plan", "value": value }, "per": "client" });
    router.set_limit("publish", &body);
    for _ in 0..5 {
        router.send(format!(
            "GET /publish HTTP/1.1\r\nHost: shop.example\r\nX-Plan: {value}\r\n\r\n"
        ));
    }
    let limits = || {
        let overview = router.admin_get("/overview").expect(200).json();
        overview["limits"].as_array().expect("a list").clone()
    };
    let named = |name: &str| {
        let found = limits().into_iter().find(|limit| limit["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {:?}", limits()))
    };
    let publish = eventually("it is counted", || {
        let publish = named("publish");
        (publish["admitted"] == 2.0 && publish["refused"] == 3.0).then_some(publish)
    });
    for (field, expected) in [
        ("rate", json!("2/h")),
        ("app", json!("shop")),
        ("path", json!("/publish")),
        ("header", json!({ "name": "X-Plan", "value": value })),
        ("per", json!("client")),
        ("source", json!("stored")),
        ("own", json!(false)),
    ] {
        assert_eq!(publish[field], expected, "{publish}");
    }
    echo(&folder, "publish", "0");
    let publish = eventually("a file says what it is", || {
        let publish = named("publish");
        (publish["source"] == "file").then_some(publish)
    });
    assert_eq!(publish["stored"]["rate"], "2/h", "{publish}");
    // The router's own are there, and nobody counts changes.
    for name in ["access_log", "changes", "probes", "retries"] {
        assert_eq!(named(name)["own"], true);
    }
    assert_eq!(named("changes")["refused"], Value::Null);
    assert_eq!(named("retries")["refused"], 0.0);
}
