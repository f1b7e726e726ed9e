//! Golden lines, and attempts to break out of one.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn line() -> Line<'static> {
    Line {
        method: b"GET",
        path: b"/x?y=1",
        host: b"a.example",
        request_id: b"0a6ebc27-5a1c-4b1e-9d5e-1c5b2f3a4d6e",
        fwd: b"203.0.113.9",
        client: None,
        app: "shop",
        backend: "web.1",
        release: "v1",
        tries: 1,
        queue_us: Some(400),
        connect_us: Some(1_200),
        first_byte_us: Some(18_999),
        total_us: 19_500,
        status: 200,
        bytes: 13,
        protocol: "http1.1",
        tls: "",
        code: None,
        cause: None,
    }
}

fn logfmt(line: &Line<'_>) -> String {
    let mut out = Vec::new();
    line.write(LogFormat::Logfmt, &mut out);
    String::from_utf8(out).unwrap()
}

fn json(line: &Line<'_>) -> serde_json::Value {
    let mut out = Vec::new();
    line.write(LogFormat::Json, &mut out);
    assert_eq!(out.last(), Some(&b'\n'));
    assert_eq!(out.iter().filter(|&&byte| byte == b'\n').count(), 1);
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn an_ordinary_line() {
    assert_eq!(
        logfmt(&line()),
        "at=info method=GET path=\"/x?y=1\" host=a.example \
         request_id=0a6ebc27-5a1c-4b1e-9d5e-1c5b2f3a4d6e fwd=\"203.0.113.9\" app=shop \
         backend=web.1 release=v1 tries=1 queue=0ms connect=1ms first_byte=18ms total=19ms \
         status=200 bytes=13 protocol=http1.1 tls=\n"
    );
}

#[test]
fn a_line_with_a_code() {
    let line = Line {
        code: Some(Code::H12),
        first_byte_us: None,
        status: 503,
        bytes: 0,
        ..line()
    };
    assert_eq!(
        logfmt(&line),
        "at=error code=H12 desc=\"Request timeout\" fault=app method=GET path=\"/x?y=1\" \
         host=a.example request_id=0a6ebc27-5a1c-4b1e-9d5e-1c5b2f3a4d6e fwd=\"203.0.113.9\" \
         app=shop backend=web.1 release=v1 tries=1 queue=0ms connect=1ms first_byte= total=19ms \
         status=503 bytes=0 protocol=http1.1 tls=\n"
    );
}

#[test]
fn a_request_that_never_became_one() {
    let line = Line {
        method: b"",
        path: b"",
        host: b"",
        request_id: b"",
        fwd: b"",
        client: Some(Ipv4Addr::new(198, 51, 100, 7).into()),
        app: "",
        backend: "",
        release: "",
        tries: 0,
        queue_us: None,
        connect_us: None,
        first_byte_us: None,
        total_us: 0,
        status: 400,
        bytes: 120,
        code: Some(Code::H26),
        cause: Some("bare_lf"),
        ..line()
    };
    assert_eq!(
        logfmt(&line),
        "at=error code=H26 desc=\"Request error\" fault=client cause=bare_lf method= path=\"\" \
         host= request_id= fwd=\"198.51.100.7\" app= backend= release= tries=0 queue= connect= \
         first_byte= total=0ms status=400 bytes=120 protocol=http1.1 tls=\n"
    );
}

#[test]
fn the_level_tells_whose_trouble_it_is() {
    let at = |code| {
        logfmt(&Line {
            code: Some(code),
            ..line()
        })
    };
    assert!(at(Code::H27).starts_with("at=warning code=H27 "));
    assert!(at(Code::H28).starts_with("at=warning code=H28 "));
    assert!(at(Code::H80).starts_with("at=info code=H80 "));
    assert!(at(Code::H30).starts_with("at=error code=H30 "));
}

#[test]
fn a_v6_client_stands_in_for_fwd() {
    let line = Line {
        fwd: b"",
        client: Some(Ipv6Addr::LOCALHOST.into()),
        ..line()
    };
    assert!(logfmt(&line).contains(" fwd=\"::1\" "));
    assert_eq!(json(&line)["fwd"], "::1");
}

#[test]
fn bytes_that_would_break_a_line_are_escaped() {
    let line = Line {
        path: b"/\"\\\n\r\t\x00\x7f\xff \xc3\xa9\xc2\x85\xe2\x80\xa8",
        host: b"a b=c",
        method: b"G\nT",
        ..line()
    };
    let text = logfmt(&line);
    let path = r#"path="/\"\\\n\r\t\x00\x7f\xff é\u0085\u2028" host="a b=c""#;
    assert!(text.contains(path), "{text}");
    assert!(text.contains(r#"method="G\nT""#), "{text}");
    assert_eq!(text.matches('\n').count(), 1);
    let value = json(&line);
    assert_eq!(value["path"], "/\"\\\n\r\t\0\x7f\u{fffd} é\u{85}\u{2028}");
    assert_eq!(value["method"], "G\nT");
}

#[test]
fn json_has_the_same_keys_and_numbers_as_numbers() {
    let value = json(&Line {
        code: Some(Code::H26),
        cause: Some("bare_lf"),
        ..line()
    });
    assert_eq!(value["total"], 19);
    assert_eq!(value["status"], 200);
    assert_eq!(value["tries"], 1);
    assert_eq!(value["tls"], "");
    assert_eq!(value["code"], "H26");
    assert_eq!(
        json(&Line {
            queue_us: None,
            ..line()
        })["queue"],
        serde_json::Value::Null
    );
    let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
    let text = logfmt(&Line {
        code: Some(Code::H26),
        cause: Some("bare_lf"),
        ..line()
    });
    let text = text.replace("Request error", "Request_error");
    let mut same: Vec<String> = text
        .split_whitespace()
        .filter_map(|pair| pair.split_once('=').map(|(key, _)| key.to_owned()))
        .collect();
    keys.sort();
    same.sort();
    assert_eq!(keys, same);
}

#[test]
fn a_value_of_any_length_is_bounded() {
    let long = vec![b'x'; 100_000];
    let text = logfmt(&Line {
        fwd: &long,
        ..line()
    });
    assert!(text.len() < 10_000);
    assert!(text.contains("xxx...\" app="));
}

/// The value of `key` as a logfmt reader sees it, still escaped.
fn read_back<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut rest = text.trim_end_matches('\n');
    loop {
        let (name, after) = rest.split_once('=')?;
        let end = if after.starts_with('"') {
            let mut escaped = false;
            let close = after.bytes().skip(1).position(|byte| {
                let closes = byte == b'"' && !escaped;
                escaped = byte == b'\\' && !escaped;
                closes
            })?;
            close + 2
        } else {
            after.find(' ').unwrap_or(after.len())
        };
        if name == key {
            return Some(&after[..end]);
        }
        rest = after[end..].strip_prefix(' ')?;
    }
}

proptest! {
    #[test]
    fn no_request_adds_a_line_or_a_field(
        method: Vec<u8>, path: Vec<u8>, host: Vec<u8>, request_id: Vec<u8>, fwd: Vec<u8>,
    ) {
        let line = Line {
            method: &method, path: &path, host: &host, request_id: &request_id, fwd: &fwd, ..line()
        };
        let text = logfmt(&line);
        prop_assert_eq!(text.matches('\n').count(), 1);
        prop_assert!(text.trim_end().chars().all(|character| !character.is_control()));
        prop_assert_eq!(read_back(&text, "status"), Some("200"));
        prop_assert_eq!(read_back(&text, "bytes"), Some("13"));
        let value = json(&line);
        prop_assert_eq!(value.as_object().unwrap().len(), 18);
        prop_assert_eq!(value["path"].as_str().unwrap(), String::from_utf8_lossy(&path));
    }
}
