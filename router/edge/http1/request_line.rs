//! A request's first line: method, target, version.
//!
//! Owns the grammar of RFC 9112, section 3, its forms of targets, and the
//! blank lines skipped before it. Headers are [`super::request`]'s.

use super::head::{Limits, Span, Version};
use super::host;
use super::line;
use super::request::{Form, Method, Refusal, RequestHead};
use super::scan::{Scan, Stage, control_flaw};

/// Longest method, in bytes.
const METHOD_BYTES: usize = 127;

/// Empty lines skipped before a request line (RFC 9112, section 2.2).
const BLANK_LINES: usize = 4;

/// Whether a request line begins; the scan stands at its first byte then.
pub(super) fn skip_blank_lines(buf: &[u8], scan: &mut Scan) -> Result<bool, Refusal> {
    loop {
        match &buf[scan.at.min(buf.len())..] {
            [] | [b'\r'] => return Ok(false),
            [b'\r', b'\n', ..] if scan.at < 2 * BLANK_LINES => scan.at += 2,
            [b'\r', b'\n', ..] => return Err(Refusal::bad("too many empty lines")),
            [b'\n' | b'\r', ..] => return Err(Refusal::bad(control_flaw(buf[scan.at]))),
            _ => break,
        }
    }
    scan.line = scan.at;
    scan.stage = Stage::First(0);
    Ok(true)
}

/// Reads the request line; whether it is whole.
pub(super) fn request_line(
    buf: &[u8],
    scan: &mut Scan,
    limits: &Limits,
    head: &mut RequestHead,
) -> Result<bool, Refusal> {
    let within = |scan: &Scan| {
        scan.within(limits.start_line_bytes, limits)
            .map_err(|_| Refusal {
                status: 414,
                cause: "request line too long",
            })
    };
    if scan.stage == Stage::First(0) {
        scan.at = line::token_end(buf, scan.at);
        within(scan)?;
        if scan.at - scan.line > METHOD_BYTES {
            return Err(Refusal::bad("method too long"));
        }
        match buf.get(scan.at) {
            None => return Ok(false),
            Some(b' ') if scan.at > scan.line => {}
            Some(_) => return Err(Refusal::bad("invalid method")),
        }
        scan.marks[0] = scan.at;
        scan.at += 1;
        scan.stage = Stage::First(1);
    }
    if scan.stage == Stage::First(1) {
        scan.at = line::target_end(buf, scan.at);
        within(scan)?;
        match buf.get(scan.at) {
            None => return Ok(false),
            Some(b' ') if scan.at > scan.marks[0] + 1 => {}
            Some(byte) => return Err(Refusal::bad(target_flaw(*byte))),
        }
        scan.marks[1] = scan.at;
        scan.at += 1;
        scan.stage = Stage::First(2);
    }
    let version = version(buf, scan);
    within(scan)?;
    let Some(version) = version? else {
        return Ok(false);
    };
    head.version = version;
    head.method_text = Span::new(scan.line, scan.marks[0]);
    head.target = Span::new(scan.marks[0] + 1, scan.marks[1]);
    scan.next_line(scan.at + 2);
    target(buf, head)?;
    Ok(true)
}

#[cold]
fn target_flaw(byte: u8) -> &'static str {
    match byte {
        b' ' => "more than one space in the request line",
        b'\r' | b'\n' => "request line without a version",
        b'#' => "fragment in the target",
        _ => "invalid character in the target",
    }
}

/// Reads the version and the line's end, leaving the scan at the CR or at the
/// first byte that is wrong or missing.
#[inline]
fn version(buf: &[u8], scan: &mut Scan) -> Result<Option<Version>, Refusal> {
    let start = scan.marks[1] + 1;
    let text = &buf[start..];
    let found = match text.get(..10) {
        Some(b"HTTP/1.1\r\n") => Version::Http11,
        Some(b"HTTP/1.0\r\n") => Version::Http10,
        _ => {
            let (len, refusal) = version_flaw(text);
            scan.at = start + len;
            return refusal.map_or(Ok(None), Err);
        }
    };
    scan.at = start + 8;
    Ok(Some(found))
}

/// How many bytes of a version that is not whole or not ours are right, and
/// what is wrong with the next, if it is there. A CR counts only with its LF.
#[cold]
fn version_flaw(text: &[u8]) -> (usize, Option<Refusal>) {
    let malformed = Some(Refusal::bad("invalid HTTP version"));
    for (at, byte) in text.iter().enumerate().take(10) {
        let right = match at {
            0..=4 => *byte == b"HTTP/"[at],
            6 => *byte == b'.',
            5 => byte.is_ascii_digit(),
            7 if byte.is_ascii_digit() => {
                if !matches!(&text[5..8], b"1.0" | b"1.1") {
                    let cause = "unsupported HTTP version";
                    return (at, Some(Refusal { status: 505, cause }));
                }
                true
            }
            8 => *byte == b'\r',
            9 => *byte == b'\n',
            _ => false,
        };
        match (right, at, *byte) {
            (true, ..) => {}
            (false, 8, b'\n') => return (at, Some(Refusal::bad("bare LF"))),
            (false, 9, _) => return (8, Some(Refusal::bad("bare CR"))),
            (false, ..) => return (at, malformed),
        }
    }
    (text.len().min(8), None)
}

/// Tells the target's form and finds the path in it.
fn target(buf: &[u8], head: &mut RequestHead) -> Result<(), Refusal> {
    let method = head.method_text.of(buf);
    if method == b"CONNECT" {
        return Err(Refusal {
            status: 405,
            cause: "CONNECT",
        });
    }
    head.method = Method::of(method);
    head.path_and_query = head.target;
    let target = head.target.of(buf);
    if target[0] == b'/' {
        head.form = Form::Origin;
    } else if target == b"*" && head.method == Method::Options {
        head.form = Form::Asterisk;
    } else {
        let scheme = scheme_len(target).ok_or(Refusal::bad("invalid target"))?;
        let rest = &target[scheme..];
        let authority = rest.iter().position(|b| matches!(b, b'/' | b'?'));
        let authority = authority.unwrap_or(rest.len());
        host::host_len(&rest[..authority]).map_err(|_| Refusal::bad("invalid target"))?;
        let start = head.target.start as usize + scheme;
        head.form = Form::Absolute;
        head.authority = Span::new(start, start + authority);
        head.path_and_query = Span::new(start + authority, head.target.end as usize);
    }
    Ok(())
}

/// Length of `http://` or `https://`, if the target begins so.
fn scheme_len(target: &[u8]) -> Option<usize> {
    [b"http://".as_slice(), b"https://"]
        .into_iter()
        .find(|scheme| {
            target
                .get(..scheme.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        })
        .map(<[u8]>::len)
}
