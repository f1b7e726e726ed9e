//! Settings: defaults as documented, and every way to get them wrong.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

fn load(text: &str) -> Result<Settings, SettingsError> {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("portico.toml");
    std::fs::write(&path, text).unwrap();
    Settings::load(Some(&path), &[])
}

/// The message of a refused file, its folder left out.
fn refused(text: &str) -> String {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("portico.toml");
    std::fs::write(&path, text).unwrap();
    let error = Settings::load(Some(&path), &[]).unwrap_err().to_string();
    error.replace(&format!("{}/", temp.path().display()), "")
}

fn set(overrides: &[&str]) -> Result<Settings, SettingsError> {
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    Settings::load(None, &overrides)
}

fn set_refused(text: &str) -> String {
    set(&[text]).unwrap_err().to_string()
}

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

#[test]
fn every_shipped_file_is_accepted() {
    let mut seen = 0;
    for entry in std::fs::read_dir(shipped()).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            Settings::load(Some(&path), &[]).unwrap();
            seen += 1;
        }
    }
    assert!(seen > 0);
}

#[test]
fn the_documented_file_names_every_key_with_its_default() {
    let path = shipped().join("portico.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        Settings::load(Some(&path), &[]).unwrap(),
        Settings::default()
    );
    let table: toml::Table = text.parse().unwrap();
    for (key, value) in Settings::default().entries() {
        let documented = key
            .split('.')
            .try_fold(&toml::Value::Table(table.clone()), |at, name| at.get(name))
            .cloned();
        assert_eq!(documented, Some(value), "{key}");
    }
}

#[test]
fn defaults_are_those_of_the_contract() {
    let shown: Vec<String> = Settings::default()
        .entries()
        .iter()
        .map(|(key, value)| format!("{key} = {value}"))
        .collect();
    assert_eq!(
        shown,
        [
            "state_dir = \"data\"",
            "user = \"auto\"",
            "rates_dir = \"\"",
            "edge.http = [\"0.0.0.0:8080\"]",
            "edge.https = []",
            "edge.threads = 0",
            "edge.trusted_proxies = []",
            "edge.drain_timeout = \"30s\"",
            "edge.handover_timeout = \"1h\"",
            "edge.standby = \"auto\"",
            "edge.shed = \"auto\"",
            "edge.user = \"auto\"",
            "edge.head_timeout = \"10s\"",
            "edge.keepalive_timeout = \"60s\"",
            "edge.min_body_rate = 64",
            "edge.min_drain_rate = 64",
            "edge.max_connections = 0",
            "edge.max_connections_per_address = 0",
            "edge.buffer_bytes = \"auto\"",
            "api.listen = \"127.0.0.1:8081\"",
            "admin.listen = \"127.0.0.1:8082\"",
            "auth.tokens = \"auto\"",
            "log.access = \"stdout\"",
            "log.format = \"logfmt\"",
        ]
    );
    assert!(Settings::default().edge.threads >= 1);
}

#[test]
fn a_whole_file_arrives() {
    let settings = load(
        "state_dir = \"/var/lib/portico\"\n\
         edge.http = [\"127.0.0.1:80\", \"[::1]:80\"]\n\
         edge.threads = 3\n\
         edge.trusted_proxies = [\"10.0.0.0/8\", \"192.0.2.7\", \"fd00::/8\"]\n\
         edge.drain_timeout = 1.5\n\
         [log]\naccess = \"file:/var/log/a.log\"\nformat = \"json\"\n",
    )
    .unwrap();
    assert_eq!(settings.edge.http.len(), 2);
    assert_eq!(settings.edge.threads, 3);
    assert_eq!(settings.edge.trusted_proxies[1].to_string(), "192.0.2.7/32");
    assert_eq!(settings.edge.drain_timeout, Duration::from_millis(1500));
    assert_eq!(
        settings.log.access,
        AccessLog::File("/var/log/a.log".into())
    );
    assert_eq!(settings.log.format, LogFormat::Json);
    assert_eq!(settings.token_path(), Path::new("/var/lib/portico/token"));
}

#[test]
fn shown_settings_read_back_the_same() {
    let settings = set(&["edge.drain_timeout=\"1500ms\"", "log.access=file:a b"]).unwrap();
    let again: Vec<String> = settings
        .entries()
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    assert_eq!(Settings::load(None, &again).unwrap(), settings);
}

#[test]
fn messages_name_place_key_value_and_expectation() {
    let golden = [
        (
            "[edge]\n\nthreads = \"two\"",
            "portico.toml:3: edge.threads = \"two\": expected a whole number from 0 to 1024 \
             (0 = one per core)",
        ),
        (
            "[edge]\nhttp = \"0.0.0.0:80\"",
            "portico.toml:2: edge.http = \"0.0.0.0:80\": expected a list of addresses, such as \
             [\"0.0.0.0:8080\"]; this is a string",
        ),
        (
            "[edge]\nhttp = [\"localhost:80\"]",
            "portico.toml:2: edge.http = [\"localhost:80\"]: expected a list of addresses, such \
             as [\"0.0.0.0:8080\"]; \"localhost:80\" is not IP:PORT",
        ),
        (
            "edge.https = [\"0.0.0.0:443\"]",
            "portico.toml:1: edge.https = [\"0.0.0.0:443\"]: expected an empty list; this \
             version does not serve TLS yet: end TLS in front of it",
        ),
        (
            "[edge]\nthreds = 2",
            "portico.toml:2: unknown key edge.threds = 2: expected a known key; did you mean \
             edge.threads?",
        ),
        (
            "log.access = \"syslog\"",
            "portico.toml:1: log.access = \"syslog\": expected \"stdout\", \"off\" or \
             \"file:PATH\"",
        ),
        (
            "auth.tokens = \"none\"",
            "portico.toml:1: auth.tokens = \"none\": expected \"auto\"",
        ),
        (
            "state_dir = 7",
            "portico.toml:1: state_dir = 7: expected the path of a folder, as a \
          string; this is a whole number",
        ),
        (
            "api = 3",
            "portico.toml:1: unknown key api = 3: expected a known key; api is a section: set a \
             key inside it",
        ),
        ("a = 1\nb = = 2", "portico.toml:2: not valid TOML: "),
        (
            "[edge]\nthreads = 1\nthreads = 2",
            "portico.toml:3: not valid TOML: duplicate key",
        ),
    ];
    for (text, message) in golden {
        let said = refused(text);
        assert!(
            said.starts_with(message),
            "{text}\n said: {said}\n want: {message}"
        );
    }
}

#[test]
fn listeners_may_not_meet() {
    let both = "[edge]\nhttp = [\"127.0.0.1:8090\", \"127.0.0.1:8090\"]";
    assert!(refused(both).starts_with("portico.toml:2: edge.http = 127.0.0.1:8090: expected an"));
    let api = refused("[api]\nlisten = \"127.0.0.1:8080\"");
    assert_eq!(
        api,
        "portico.toml:2: api.listen = 127.0.0.1:8080: expected an address of its own; edge.http \
         already listens on 0.0.0.0:8080"
    );
    assert!(set(&["admin.listen=127.0.0.1:8081"]).is_err());
    assert!(
        set(&["edge.http=[\"0.0.0.0:80\", \"[::]:80\"]"]).is_ok(),
        "families never meet"
    );
    assert!(
        set(&["edge.http=[\"127.0.0.1:0\", \"127.0.0.1:0\"]"]).is_ok(),
        "port 0 is free"
    );
    assert!(set(&["edge.http=[\"127.0.0.1:80\", \"127.0.0.2:80\"]"]).is_ok());
}

#[test]
fn overrides_win_in_order_and_bare_words_are_strings() {
    let settings = set(&[
        "edge.threads=2",
        "edge.threads = 5",
        "log.access=off",
        "edge.http=127.0.0.1:9090",
        "edge.drain_timeout=250ms",
        "state_dir=/tmp/x=y",
        "api={listen = \"127.0.0.1:1\"}",
    ])
    .unwrap();
    assert_eq!(settings.edge.threads, 5);
    assert_eq!(settings.log.access, AccessLog::Off);
    assert_eq!(settings.edge.http, ["127.0.0.1:9090".parse().unwrap()]);
    assert_eq!(settings.edge.drain_timeout, Duration::from_millis(250));
    assert_eq!(settings.state_dir, Path::new("/tmp/x=y"));
    assert_eq!(settings.api.listen.port(), 1);
}

#[test]
fn bad_overrides_are_named() {
    let golden = [
        ("edge.threads", "--set edge.threads: expected KEY=TOML"),
        ("=3", "--set =3: expected KEY=TOML"),
        ("edge.threads=", "--set edge.threads=: expected KEY=TOML"),
        (
            "edge.threads=-1",
            "--set: edge.threads = -1: expected a whole number",
        ),
        (
            "edge.threads=2.5",
            "--set: edge.threads = 2.5: expected a whole number",
        ),
        (
            "edge.http=[\"1.2.3.4:80\"",
            "--set: not valid TOML: edge.http=[",
        ),
        (
            "edge.http=[]",
            "--set: edge.http = []: expected a list of addresses",
        ),
        (
            "edge.http=[1]",
            "--set: edge.http = [1]: expected a list of addresses",
        ),
        (
            "api.listen=127.0.0.1",
            "--set: api.listen = \"127.0.0.1\": expected an address",
        ),
        (
            "api.listen=127.0.0.1:99999",
            "--set: api.listen = \"127.0.0.1:99999\": expected",
        ),
        (
            "edge.trusted_proxies=10.0.0.0/33",
            "--set: edge.trusted_proxies = [\"10.0.0.0/33\"]",
        ),
        (
            "log.format=xml",
            "--set: log.format = \"xml\": expected \"logfmt\" or \"json\"",
        ),
        (
            "log.access=file:",
            "--set: log.access = \"file:\": expected \"stdout\"",
        ),
        (
            "nonsense=1",
            "--set: unknown key nonsense = 1: expected a known key",
        ),
        (
            "edge.threads.more=1",
            "--set: unknown key edge.threads.more = 1",
        ),
        (
            "edge={}",
            "--set: unknown key edge = {}: expected a known key",
        ),
    ];
    for (text, message) in golden {
        let said = set_refused(text);
        assert!(
            said.starts_with(message),
            "{text}\n said: {said}\n want: {message}"
        );
    }
}

#[test]
fn durations_are_strings_with_a_unit_or_seconds() {
    let good = [
        ("30s", 30_000),
        ("250ms", 250),
        ("1m", 60_000),
        ("1h", 3_600_000),
        ("0s", 0),
    ];
    for (text, ms) in good {
        let settings = set(&[&format!("edge.drain_timeout={text}")]).unwrap();
        assert_eq!(
            settings.edge.drain_timeout,
            Duration::from_millis(ms),
            "{text}"
        );
    }
    for seconds in ["3", "3.0"] {
        let settings = set(&[&format!("edge.drain_timeout={seconds}")]).unwrap();
        assert_eq!(settings.edge.drain_timeout, Duration::from_secs(3));
    }
    for text in [
        "\"30\"", "s", "-1", "-1s", "1e3s", "25h", "inf", "nan", "1d", "true", "\"\"", "1.2.3s",
    ] {
        let said = set_refused(&format!("edge.drain_timeout={text}"));
        assert!(said.contains("expected a duration"), "{text}: {said}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let missing = Settings::load(Some(Path::new("/nonexistent/p.toml")), &[]).unwrap_err();
    assert!(
        missing
            .to_string()
            .starts_with("settings file /nonexistent/p.toml: No such file")
    );
    let temp = tempfile::tempdir().unwrap();
    assert!(Settings::load(Some(temp.path()), &[]).is_err(), "a folder");
    let long = temp.path().join("long.toml");
    std::fs::write(&long, "#".repeat(2 << 20)).unwrap();
    let said = Settings::load(Some(&long), &[]).unwrap_err().to_string();
    assert!(said.contains("long.toml: longer than 1 MiB"), "{said}");
    let binary = temp.path().join("binary.toml");
    std::fs::write(&binary, [0xff, 0xfe, 0x00]).unwrap();
    assert!(Settings::load(Some(&binary), &[]).is_err());
}

#[test]
fn settings_survive_the_way_to_a_child() {
    let settings = set(&[
        "edge.drain_timeout=1500ms",
        "edge.trusted_proxies=10.0.0.0/8",
    ])
    .unwrap();
    let json = serde_json::to_string(&settings).unwrap();
    assert_eq!(serde_json::from_str::<Settings>(&json).unwrap(), settings);
}
