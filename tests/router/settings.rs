//! Settings: bad ones exit 64 naming the key, the value and what was expected.

use std::process::{Command, Output};

use rustix::process::Signal;

use crate::harness::router::PORTICO;
use crate::harness::{Router, Setup, eventually};

fn check(text: &str, extra: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("the temporary folder must be writable");
    let file = folder.path().join("portico.toml");
    std::fs::write(&file, text).expect("writable");
    Command::new(PORTICO)
        .args(["check", "--config"])
        .arg(&file)
        .args(extra)
        .current_dir(folder.path())
        .output()
        .expect("portico must run")
}

fn words(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn good_settings_are_good() {
    let output = check("", &[]);
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    let output = check(
        "state_dir = \"x\"\n[edge]\nhttp = [\"0.0.0.0:8080\", \"[::]:8080\"]\nthreads = 4\n\
         trusted_proxies = [\"10.0.0.0/8\", \"::1/128\"]\n[log]\naccess = \"file:/tmp/x\"\nformat = \"json\"\n",
        &["--set", "edge.threads=2"],
    );
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
}

#[test]
fn bad_settings_exit_64_and_name_the_key() {
    for (text, key, value) in [
        ("[edge]\nhttp = [\"nonsense\"]", "edge.http", "nonsense"),
        ("[edge]\nhttp = \"127.0.0.1:1\"", "edge.http", ""),
        ("[edge]\nthreads = -1", "edge.threads", "-1"),
        ("[edge]\nthreads = \"many\"", "edge.threads", "many"),
        (
            "[edge]\ntrusted_proxies = [\"10.0.0.0/99\"]",
            "edge.trusted_proxies",
            "10.0.0.0/99",
        ),
        ("[api]\nlisten = \"8081\"", "api.listen", "8081"),
        (
            "[admin]\nlisten = \"127.0.0.1:99999\"",
            "admin.listen",
            "127.0.0.1:99999",
        ),
        ("[log]\naccess = \"printer\"", "log.access", "printer"),
        ("[log]\nformat = \"xml\"", "log.format", "xml"),
        ("[auth]\ntokens = \"none\"", "auth.tokens", "none"),
        ("state_dir = 5", "state_dir", "5"),
        ("unknown = 1", "unknown", ""),
        ("[edge]\nhttps_port = 1", "https_port", ""),
        ("[nobody]\nx = 1", "nobody", ""),
    ] {
        let output = check(text, &[]);
        let said = words(&output);
        assert_eq!(output.status.code(), Some(64), "{text:?}: {said}");
        assert!(said.contains(key), "{text:?}: `{key}` not named: {said}");
        assert!(
            said.contains(value),
            "{text:?}: `{value}` not shown: {said}"
        );
    }
}

#[test]
fn bad_overrides_exit_64_and_name_the_key() {
    for (setting, key) in [
        ("edge.threads=lots", "edge.threads"),
        ("edge.http=[\"x\"]", "edge.http"),
        ("no.such.key=1", "no"),
        ("log.format=\"xml\"", "log.format"),
    ] {
        let output = check("", &["--set", setting]);
        assert_eq!(
            output.status.code(),
            Some(64),
            "{setting}: {}",
            words(&output)
        );
        assert!(
            words(&output).contains(key),
            "{setting}: {}",
            words(&output)
        );
    }
}

#[test]
fn toml_that_does_not_parse_is_shown_with_its_line() {
    let output = check("[edge]\nthreads = = 3\n", &[]);
    assert_eq!(output.status.code(), Some(64), "{}", words(&output));
    assert!(words(&output).contains('2'), "the line: {}", words(&output));
}

#[test]
fn a_settings_file_that_is_not_there_is_named() {
    let output = Command::new(PORTICO)
        .args(["run", "--config", "/nowhere/portico.toml"])
        .output()
        .expect("portico must run");
    assert_eq!(output.status.code(), Some(64), "{}", words(&output));
    assert!(words(&output).contains("/nowhere/portico.toml"));
}

#[test]
fn run_refuses_bad_settings_before_it_binds_or_creates_anything() {
    let setup = Setup::new().set("log.format=\"xml\"");
    let output = setup.fails();
    assert_eq!(output.status.code(), Some(64), "{}", words(&output));
    assert!(words(&output).contains("log.format"));
    assert!(!setup.state_dir().exists(), "nothing may be created");
}

#[test]
fn a_wrong_command_line_exits_2() {
    for arguments in [&["nonsense"][..], &["run", "--nonsense"], &["app"], &[]] {
        let output = Command::new(PORTICO)
            .args(arguments)
            .output()
            .expect("portico must run");
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            words(&output)
        );
    }
}

#[test]
fn help_and_version_exit_0() {
    for argument in ["--help", "--version"] {
        let output = Command::new(PORTICO)
            .arg(argument)
            .output()
            .expect("portico must run");
        assert_eq!(output.status.code(), Some(0));
        assert!(words(&output).to_lowercase().contains("portico"));
    }
}

#[test]
fn the_shipped_settings_are_the_defaults_and_pass() {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/config/portico.toml");
    let output = Command::new(PORTICO)
        .args(["check", "--config", shipped])
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
}

#[test]
fn sighup_refuses_bad_settings_and_keeps_the_old() {
    let setup = Setup::new();
    let file = setup.folder().join("portico.toml");
    let router = setup.start();
    std::fs::write(&file, "[log]\nformat = \"xml\"\n").expect("writable");
    router.signal(Signal::HUP);
    eventually("the refusal is said", || {
        router.words().contains("log.format").then_some(())
    });
    router.get("nobody", "/after").refused(404, "H30");
    assert!(router.log().is_empty() || router.logged("/after")["status"] == "404");
}

#[test]
fn several_listeners_are_all_served() {
    let router = Router::with(&["edge.http=[\"127.0.0.1:0\", \"127.0.0.2:0\", \"127.0.0.1:0\"]"]);
    assert_eq!(router.listeners().len(), 3);
    for &address in router.listeners() {
        let mut client = crate::harness::Client::connect(address);
        client.send("GET / HTTP/1.1\r\nHost: nobody.example\r\n\r\n");
        client.answer().refused(404, "H30");
    }
}
