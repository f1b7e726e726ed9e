//! A line as logfmt: `key=value`, values quoted where they need it; `path`,
//! `fwd` and `desc` always.

use super::escape::{Dialect, clean_bare, clean_quoted, escaped, hex};
use super::{Line, address, number};

struct Logfmt;

impl Dialect for Logfmt {
    fn control(out: &mut Vec<u8>, character: char) {
        match character {
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            _ if character.is_ascii() => Self::not_utf8(out, &[character as u8]),
            _ => {
                out.extend_from_slice(b"\\u");
                hex(out, character as u32, 4);
            }
        }
    }

    fn not_utf8(out: &mut Vec<u8>, bytes: &[u8]) {
        for &byte in bytes {
            out.extend_from_slice(b"\\x");
            hex(out, u32::from(byte), 2);
        }
    }
}

#[inline]
fn quoted(out: &mut Vec<u8>, value: &[u8]) {
    out.push(b'"');
    if clean_quoted(value) {
        out.extend_from_slice(value);
    } else {
        escaped::<Logfmt>(out, value);
    }
    out.push(b'"');
}

#[inline]
fn bare(out: &mut Vec<u8>, value: &[u8]) {
    if clean_bare(value) {
        out.extend_from_slice(value);
    } else {
        quoted(out, value);
    }
}

#[inline]
fn milliseconds(out: &mut Vec<u8>, micros: Option<u64>) {
    if let Some(micros) = micros {
        number(out, micros / 1000);
        out.extend_from_slice(b"ms");
    }
}

pub(super) fn write(line: &Line<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"at=");
    out.extend_from_slice(line.level().as_bytes());
    if let Some(code) = line.code {
        out.extend_from_slice(b" code=");
        out.extend_from_slice(code.name().as_bytes());
        out.extend_from_slice(b" desc=");
        quoted(out, code.desc().as_bytes());
        out.extend_from_slice(b" fault=");
        out.extend_from_slice(code.fault().name().as_bytes());
    }
    if let Some(cause) = line.cause {
        out.extend_from_slice(b" cause=");
        bare(out, cause.as_bytes());
    }
    out.extend_from_slice(b" method=");
    bare(out, line.method);
    out.extend_from_slice(b" path=");
    quoted(out, line.path);
    out.extend_from_slice(b" host=");
    bare(out, line.host);
    out.extend_from_slice(b" request_id=");
    bare(out, line.request_id);
    out.extend_from_slice(b" fwd=");
    forwarded(line, out);
    out.extend_from_slice(b" app=");
    bare(out, line.app.as_bytes());
    out.extend_from_slice(b" backend=");
    bare(out, line.backend.as_bytes());
    out.extend_from_slice(b" release=");
    bare(out, line.release.as_bytes());
    out.extend_from_slice(b" tries=");
    number(out, u64::from(line.tries));
    out.extend_from_slice(b" queue=");
    milliseconds(out, line.queue_us);
    out.extend_from_slice(b" connect=");
    milliseconds(out, line.connect_us);
    out.extend_from_slice(b" first_byte=");
    milliseconds(out, line.first_byte_us);
    out.extend_from_slice(b" total=");
    milliseconds(out, Some(line.total_us));
    out.extend_from_slice(b" status=");
    number(out, u64::from(line.status));
    out.extend_from_slice(b" bytes=");
    number(out, line.bytes);
    out.extend_from_slice(b" protocol=");
    out.extend_from_slice(line.protocol.as_bytes());
    out.extend_from_slice(b" tls=");
    bare(out, line.tls.as_bytes());
    out.push(b'\n');
}

#[inline]
fn forwarded(line: &Line<'_>, out: &mut Vec<u8>) {
    match line.client {
        Some(client) if line.fwd.is_empty() => {
            out.push(b'"');
            address(out, client);
            out.push(b'"');
        }
        _ => quoted(out, line.fwd),
    }
}
