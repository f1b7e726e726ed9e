//! A line as one JSON object, with the keys of the logfmt line in its order.
//!
//! Texts are strings, empty where logfmt has nothing; `tries`, `status` and
//! `bytes` are numbers; `queue`, `connect`, `first_byte` and `total` are numbers
//! of milliseconds, or `null`. `code`, `desc`, `fault` and `cause` are only
//! there when they say something. Bytes that are not UTF-8 become U+FFFD.

use super::escape::{Dialect, clean_quoted, escaped, hex};
use super::{Line, address, number};

struct Json;

impl Dialect for Json {
    fn control(out: &mut Vec<u8>, character: char) {
        out.extend_from_slice(b"\\u");
        hex(out, character as u32, 4);
    }

    fn not_utf8(out: &mut Vec<u8>, _: &[u8]) {
        out.extend_from_slice(b"\\ufffd");
    }
}

#[inline]
fn string(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    out.extend_from_slice(key);
    out.push(b'"');
    if clean_quoted(value) {
        out.extend_from_slice(value);
    } else {
        escaped::<Json>(out, value);
    }
    out.push(b'"');
}

#[inline]
fn milliseconds(out: &mut Vec<u8>, key: &[u8], micros: Option<u64>) {
    out.extend_from_slice(key);
    match micros {
        Some(micros) => number(out, micros / 1000),
        None => out.extend_from_slice(b"null"),
    }
}

pub(super) fn write(line: &Line<'_>, out: &mut Vec<u8>) {
    string(out, b"{\"at\":", line.level().as_bytes());
    if let Some(code) = line.code {
        string(out, b",\"code\":", code.name().as_bytes());
        string(out, b",\"desc\":", code.desc().as_bytes());
        string(out, b",\"fault\":", code.fault().name().as_bytes());
    }
    if let Some(cause) = line.cause {
        string(out, b",\"cause\":", cause.as_bytes());
    }
    string(out, b",\"method\":", line.method);
    string(out, b",\"path\":", line.path);
    string(out, b",\"host\":", line.host);
    string(out, b",\"request_id\":", line.request_id);
    match line.client {
        Some(client) if line.fwd.is_empty() => {
            out.extend_from_slice(b",\"fwd\":\"");
            address(out, client);
            out.push(b'"');
        }
        _ => string(out, b",\"fwd\":", line.fwd),
    }
    string(out, b",\"app\":", line.app.as_bytes());
    string(out, b",\"backend\":", line.backend.as_bytes());
    string(out, b",\"release\":", line.release.as_bytes());
    out.extend_from_slice(b",\"tries\":");
    number(out, u64::from(line.tries));
    milliseconds(out, b",\"queue\":", line.queue_us);
    milliseconds(out, b",\"connect\":", line.connect_us);
    milliseconds(out, b",\"first_byte\":", line.first_byte_us);
    milliseconds(out, b",\"total\":", Some(line.total_us));
    out.extend_from_slice(b",\"status\":");
    number(out, u64::from(line.status));
    out.extend_from_slice(b",\"bytes\":");
    number(out, line.bytes);
    string(out, b",\"protocol\":", line.protocol.as_bytes());
    string(out, b",\"tls\":", line.tls.as_bytes());
    out.extend_from_slice(b"}\n");
}
