//! The access log: one line a request, parseable, with every field.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

use crate::harness::{Backend, Router, Setup, answer_ok, eventually, get, logs};

const KEYS: [&str; 18] = [
    "at",
    "method",
    "path",
    "host",
    "request_id",
    "fwd",
    "app",
    "backend",
    "release",
    "tries",
    "queue",
    "connect",
    "first_byte",
    "total",
    "status",
    "bytes",
    "protocol",
    "tls",
];

fn one_request(router: &Router) {
    let backend = Backend::app(|_| answer_ok("thirteen char"));
    router.serve("shop", &[]);
    let record = serde_json::json!({ "address": backend.address().to_string(), "release": "v7" });
    router
        .put("/v1/apps/shop/backends/web.1?wait=active", &record)
        .expect(201);
    router
        .send(
            "GET /x?y=1 HTTP/1.1\r\nHost: shop.example\r\nX-Request-Id: abcdefghij0123456789\r\n\r\n",
        )
        .expect(200);
}

fn check(line: &logs::Fields) {
    for key in KEYS {
        assert!(line.contains_key(key), "`{key}` is missing: {line:?}");
    }
    for (key, value) in [
        ("at", "info"),
        ("method", "GET"),
        ("path", "/x?y=1"),
        ("host", "shop.example"),
        ("request_id", "abcdefghij0123456789"),
        ("fwd", "127.0.0.1"),
        ("app", "shop"),
        ("backend", "web.1"),
        ("release", "v7"),
        ("tries", "1"),
        ("status", "200"),
        ("bytes", "13"),
        ("protocol", "http1.1"),
        ("tls", ""),
    ] {
        assert_eq!(line[key], value, "`{key}` of {line:?}");
    }
}

#[test]
fn a_logfmt_line_has_every_field() {
    let router = Router::start();
    one_request(&router);
    let line = router.logged("/x?y=1");
    check(&line);
    for key in ["queue", "connect", "first_byte", "total"] {
        let number = line[key]
            .strip_suffix("ms")
            .unwrap_or_else(|| panic!("{key}: {line:?}"));
        assert!(number.parse::<u64>().is_ok(), "{key}: {line:?}");
    }
    let raw = router.log();
    assert!(
        raw.starts_with("at=info method=GET path=\"/x?y=1\" host=shop.example request_id="),
        "{raw}"
    );
}

#[test]
fn a_json_line_has_the_same_keys() {
    let router = Router::with(&["log.format=\"json\""]);
    one_request(&router);
    let raw = eventually("a line", || router.log().lines().next().map(str::to_owned));
    let line = logs::json(&raw);
    check(&line);
}

#[test]
fn an_error_line_says_what_and_whose_fault() {
    let router = Router::start();
    router.get("nobody", "/none").refused(404, "H30");
    let line = router.logged("/none");
    assert_eq!(line["at"], "error");
    assert_eq!(line["code"], "H30");
    assert_eq!(line["desc"], "No app for this host");
    assert_eq!(line["fault"], "client");
    assert!(
        router
            .log()
            .contains("at=error code=H30 desc=\"No app for this host\" fault=client")
    );
}

#[test]
fn what_a_client_sends_cannot_forge_a_line() {
    for format in ["logfmt", "json"] {
        let router = Router::with(&[&format!("log.format=\"{format}\"")]);
        router.send(
            "GET /a\"b\\c HTTP/1.1\r\nHost: nobody.example\r\n\
             X-Forwarded-For: 1.2.3.4\" at=info status=200\r\n\r\n",
        );
        router.get("nobody", "/end").expect(404);
        eventually("both lines", || router.log().contains("/end").then_some(()));
        for line in router.log().lines() {
            let fields = if format == "json" {
                logs::json(line)
            } else {
                logs::logfmt(line)
            };
            assert_ne!(fields["status"], "200", "{line}");
        }
    }
}

#[test]
fn every_request_of_a_connection_has_its_line() {
    let router = Router::start();
    let backend = Backend::named("ok");
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    for number in 0..200 {
        client.send(format!(
            "GET /line/{number} HTTP/1.1\r\nHost: shop.example\r\n\r\n"
        ));
        client.answer().expect(200);
    }
    eventually("200 lines", || {
        (router.log().matches("path=\"/line/").count() == 200).then_some(())
    });
}

#[test]
fn the_log_may_be_switched_off() {
    let router = Router::with(&["log.access=\"off\""]);
    router.get("nobody", "/quiet").expect(404);
    assert_eq!(router.log(), "");
    assert!(!router.words().contains("/quiet"));
}

#[test]
fn the_log_goes_to_standard_output_by_default() {
    let router = Router::with(&["log.access=\"stdout\""]);
    router.get("nobody", "/spoken").expect(404);
    eventually("the line on standard output", || {
        router.words().contains("path=\"/spoken\"").then_some(())
    });
}

#[test]
fn sighup_reopens_a_moved_log() {
    let router = Router::start();
    router.get("nobody", "/before").expect(404);
    router.logged("/before");
    let folder = router
        .state_dir()
        .parent()
        .expect("it must have a parent")
        .to_owned();
    std::fs::rename(folder.join("access.log"), folder.join("access.log.1")).expect("movable");
    router.signal(rustix::process::Signal::HUP);
    eventually("lines go to a new file", || {
        router.get("nobody", "/after").expect(404);
        router.log().contains("/after").then_some(())
    });
}

#[test]
fn a_log_that_nobody_reads_costs_lines_and_holds_up_no_request() {
    let setup = Setup::new();
    let path = setup.folder().join("pipe");
    mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a pipe");
    let mut options = File::options();
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).expect("it must be small");
    options.read(true).write(true).custom_flags(nonblocking);
    let mut reader = options.open(&path).expect("a pipe must open");
    let setup = setup.set(&format!("log.access=\"file:{}\"", path.display()));
    let router = setup.set("edge.threads=1").start();
    let backend = Backend::named("ok");
    router.serve("shop", &[&backend]);
    // As many as all that waits can hold, twice over.
    let long = format!("/{}", "x".repeat(6_000));
    let began = Instant::now();
    let mut client = router.client();
    for _ in 0..1_000 {
        client.send(get("shop", &long));
        client.answer().expect(200);
    }
    // At a second for each batch that finds no room, this would be minutes.
    assert!(began.elapsed() < Duration::from_secs(60));
    eventually("what was lost is counted", || {
        let lost = |why| router.counted("portico_access_log_dropped_total", why) > 0.0;
        (lost("backlog") && lost("write_error")).then_some(())
    });
    let (mut piece, mut seen) = (vec![0; 1024 * 1024], Vec::new());
    eventually("it goes on once it is read", || {
        client.send(get("shop", "/again"));
        client.answer().expect(200);
        while let Ok(count) = reader.read(&mut piece) {
            seen.extend_from_slice(&piece[..count]);
        }
        String::from_utf8_lossy(&seen)
            .contains("path=\"/again\"")
            .then_some(())
    });
}
