//! The operator's commands, against a running router.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::harness::router::PORTICO;
use crate::harness::{Backend, Router};

#[track_caller]
fn done(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

#[test]
fn apps_app_and_backends_show_what_is_registered() {
    let router = Router::start();
    let backend = Backend::named("shown");
    router.serve("shop", &[&backend]);
    router.serve("blog", &[]);
    let apps = done(&router.run(&["apps"]));
    assert!(apps.contains("shop") && apps.contains("blog"), "{apps}");
    let app = done(&router.run(&["app", "shop"]));
    assert!(app.contains("shop.example"), "{app}");
    let backends = done(&router.run(&["backends", "shop"]));
    assert!(backends.contains("web.1"), "{backends}");
    assert!(
        backends.contains(&backend.address().to_string()),
        "{backends}"
    );
}

#[test]
fn an_unknown_app_fails_and_is_named() {
    let router = Router::start();
    for command in ["app", "backends"] {
        let output = router.run(&[command, "nobody"]);
        assert_eq!(output.status.code(), Some(1), "{command}: {output:?}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("nobody"),
            "{output:?}"
        );
    }
}

#[test]
fn export_and_import_are_each_others_reverse() {
    let router = Router::start();
    let backend = Backend::named("moved");
    router.serve_with("shop", &json!({ "retries": 1 }), &[&backend]);
    let exported = done(&router.run(&["export"]));
    assert_eq!(exported.lines().count(), 1, "{exported}");
    let other = Router::start();
    let mut child = other
        .operator(&["import", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("portico must run");
    let mut input = child.stdin.take().expect("it was piped");
    input.write_all(exported.as_bytes()).expect("it must read");
    drop(input);
    done(&child.wait_with_output().expect("it must end"));
    assert_eq!(done(&other.run(&["export"])), exported);
}

#[test]
fn importing_a_file_with_bad_lines_fails_and_names_them() {
    let router = Router::start();
    let file = router.state_dir().join("apps.ndjson");
    let text = "{\"app\":\"good\",\"domains\":[]}\n{\"app\":\"Bad Name\"}\n";
    std::fs::write(&file, text).expect("writable");
    let output = router.run(&["import", &file.display().to_string()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let words = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(words.contains('2'), "line 2 is not named: {words}");
    assert!(
        done(&router.run(&["apps"])).contains("good"),
        "good lines still count"
    );
    let output = router.run(&["import", "/nowhere/apps.ndjson"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/apps.ndjson"));
}

#[test]
fn the_token_is_found_in_the_state_folder() {
    let router = Router::start();
    router.serve("shop", &[]);
    let output = Command::new(PORTICO)
        .args(["apps", "--api", &format!("http://{}", router.api())])
        .args(["--admin", &format!("http://{}", router.admin())])
        .env_remove("PORTICO_TOKEN")
        .current_dir(router.state_dir().parent().expect("it has a parent"))
        .arg("--token")
        .arg(router.token())
        .output()
        .expect("portico must run");
    assert!(done(&output).contains("shop"));
}

#[test]
fn a_wrong_token_fails_with_a_word() {
    let router = Router::start();
    let output = router
        .operator(&["export"])
        .env("PORTICO_TOKEN", "wrong")
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(!output.stderr.is_empty());
}

#[test]
fn a_router_that_is_not_there_fails_with_its_address() {
    for arguments in [&["apps"][..], &["export"], &["events"], &["top"]] {
        let output = Command::new(PORTICO)
            .args(arguments)
            .env("PORTICO_API", "http://127.0.0.1:9")
            .env("PORTICO_ADMIN", "http://127.0.0.1:9")
            .env("PORTICO_TOKEN", "x")
            .output()
            .expect("portico must run");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("127.0.0.1:9"),
            "{output:?}"
        );
    }
}

#[test]
fn events_without_follow_ends() {
    let router = Router::start();
    crate::harness::processes::signal(router.process("edge"), rustix::process::Signal::KILL);
    crate::harness::eventually("the events tell of the edge", || {
        done(&router.run(&["events"]))
            .contains("edge")
            .then_some(())
    });
}

#[test]
fn output_into_a_closed_pipe_is_no_panic() {
    let router = Router::start();
    for number in 0..50 {
        router
            .put(&format!("/v1/apps/app-{number}"), &json!({ "domains": [] }))
            .expect(201);
    }
    let mut child = router
        .operator(&["export"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("portico must run");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it must end");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!words.contains("panicked"), "{words}");
}

#[test]
fn demo_answers_in_a_browser() {
    let folder = tempfile::tempdir().expect("the temporary folder must be writable");
    let state = folder.path().join("state");
    let mut child = Command::new(PORTICO)
        .arg("demo")
        .args(["--set", &format!("state_dir=\"{}\"", state.display())])
        .args(["--set", "edge.http=[\"127.0.0.1:0\"]"])
        .args([
            "--set",
            "api.listen=\"127.0.0.1:0\"",
            "--set",
            "admin.listen=\"127.0.0.1:0\"",
        ])
        .args(["--set", "edge.threads=2"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("portico must run");
    let seen = std::panic::catch_unwind(|| {
        let address: std::net::SocketAddr = crate::harness::eventually("it listens", || {
            let text = std::fs::read_to_string(state.join("addresses.json")).ok()?;
            let addresses: serde_json::Value = serde_json::from_str(&text).ok()?;
            addresses["http"][0].as_str()?.parse().ok()
        });
        // What a browser that was given the address would send.
        crate::harness::eventually("the sample app answers", || {
            let mut client = crate::harness::Client::try_connect(address).ok()?;
            client.try_send(format!(
                "GET / HTTP/1.1\r\nHost: localhost:{}\r\nAccept: text/html\r\nConnection: close\r\n\r\n",
                address.port()
            ));
            let answer = client.try_answer_to("GET").ok()?;
            (answer.status == 200).then(|| answer.text())
        })
    });
    crate::harness::processes::kill_tree(child.id());
    let _ = child.wait();
    assert!(!seen.expect("the demo must answer").is_empty());
}
