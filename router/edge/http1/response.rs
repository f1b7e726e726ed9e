//! A response's head, read into spans and checked.
//!
//! Owns the status line and the framing of response bodies. As strict as
//! [`super::request`]: an answer that a client might read differently is not
//! passed on.

use crate::observe::Code;

use super::head::{Framing, Header, Limits, Seen, Span, Version};
use super::known::Known;
use super::line;
use super::list::{self, Coding, Options};
use super::scan::{self, Flaw, Scan, Stage, Step, control_flaw};

/// An answer that goes no further; the backend's connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defect {
    /// H17: not HTTP at all. H25: over a limit, or framed ambiguously.
    pub code: Code,
    /// The log's `cause=`.
    pub cause: &'static str,
}

impl Defect {
    fn not_http(cause: &'static str) -> Defect {
        Defect {
            code: Code::H17,
            cause,
        }
    }

    fn restricted(cause: &'static str) -> Defect {
        Defect {
            code: Code::H25,
            cause,
        }
    }
}

impl From<Flaw> for Defect {
    #[cold]
    fn from(flaw: Flaw) -> Defect {
        match flaw {
            Flaw::Limit(cause) | Flaw::Malformed(cause) => Defect::restricted(cause),
        }
    }
}

/// A response's head as spans of the buffer it was read from. Reuse one for
/// every response of a connection: its memory is kept.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// 100–999.
    pub status: u16,
    /// The reason phrase; may be empty.
    pub reason: Span,
    /// The backend's version.
    pub version: Version,
    /// The header lines, in order.
    pub headers: Vec<Header>,
    /// Which known headers there are.
    pub seen: Seen,
    /// How the body ends. [`Framing::None`] after HEAD and for 1xx, 204, 304,
    /// and for `Content-Length: 0`.
    pub framing: Framing,
    /// The backend's connection can carry another request after the body.
    pub keep_alive: bool,
    /// 101: what follows the head belongs to another protocol.
    pub switching: bool,
    /// Its `Retry-After`.
    pub retry_after: Option<Span>,
    /// Value of `Content-Length`.
    content_length: Option<u64>,
    /// There is one `Content-Length` line, and it can pass as it came.
    length_is_plain: bool,
    chunked: bool,
}

impl ResponseHead {
    fn clear(&mut self) {
        let mut headers = std::mem::take(&mut self.headers);
        headers.clear();
        *self = ResponseHead {
            headers,
            ..ResponseHead::default()
        };
    }

    /// An interim answer (1xx but 101): another head follows it.
    pub fn interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// What `Content-Length` says, body or not.
    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// The `Content-Length` line can pass as it came.
    pub(super) fn length_is_plain(&self) -> bool {
        self.length_is_plain
    }

    /// The status allows no body (RFC 9112, section 6.3).
    pub(super) fn bodiless_status(&self) -> bool {
        matches!(self.status, 100..=199 | 204 | 304)
    }
}

/// Reads a response's head from the start of `buf`.
///
/// `request_was_head`: the request's method was HEAD, so that no body follows.
/// `None` and `Some(n)` are as for [`super::request::parse_request`].
///
/// # Errors
/// The defect that becomes the router's own answer; nothing of the response
/// may be forwarded.
pub fn parse_response(
    buf: &[u8],
    scan: &mut Scan,
    limits: &Limits,
    request_was_head: bool,
    head: &mut ResponseHead,
) -> Result<Option<usize>, Defect> {
    if scan.stage == Stage::Start {
        head.clear();
        scan.stage = Stage::First(0);
    }
    if matches!(scan.stage, Stage::First(_)) && !status_line(buf, scan, limits, head)? {
        return Ok(None);
    }
    loop {
        match scan.header(buf, limits)? {
            Step::More => return Ok(None),
            Step::End(len) => {
                finish(buf, head, request_was_head)?;
                return Ok(Some(len));
            }
            Step::Header(header) => {
                if head.headers.len() == limits.headers {
                    return Err(Defect::restricted("too many headers"));
                }
                note(buf, head, header)?;
                head.headers.push(header);
            }
        }
    }
}

/// `HTTP/1.x SP 3DIGIT [SP reason]`: its first twelve bytes by place.
const STATUS_BYTES: usize = 12;

/// Reads the status line; whether it is whole.
fn status_line(
    buf: &[u8],
    scan: &mut Scan,
    limits: &Limits,
    head: &mut ResponseHead,
) -> Result<bool, Defect> {
    if scan.stage == Stage::First(0) {
        for (at, byte) in buf.iter().enumerate().take(STATUS_BYTES) {
            let right = match at {
                0..=6 => *byte == b"HTTP/1."[at],
                7 => matches!(byte, b'0' | b'1'),
                8 => *byte == b' ',
                9 => matches!(byte, b'1'..=b'9'),
                _ => byte.is_ascii_digit(),
            };
            if !right {
                return Err(Defect::not_http("not an HTTP/1 status line"));
            }
        }
        if buf.len() < STATUS_BYTES {
            return Ok(false);
        }
        head.version = match buf[7] {
            b'0' => Version::Http10,
            _ => Version::Http11,
        };
        head.status = buf[9..STATUS_BYTES]
            .iter()
            .fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
        scan.at = STATUS_BYTES;
        scan.stage = Stage::First(1);
    }
    if scan.at == STATUS_BYTES {
        match buf.get(STATUS_BYTES) {
            None => return Ok(false),
            Some(b' ' | b'\r' | b'\n') => {}
            Some(_) => return Err(Defect::not_http("not an HTTP/1 status line")),
        }
    }
    scan.at = line::value_end(buf, scan.at);
    scan.within(limits.start_line_bytes, limits)?;
    match buf.get(scan.at..) {
        Some([b'\r', b'\n', ..]) => {}
        None | Some([] | [b'\r']) => return Ok(false),
        Some([byte, ..]) => return Err(Defect::restricted(control_flaw(*byte))),
    }
    head.reason = Span::new((STATUS_BYTES + 1).min(scan.at), scan.at);
    scan.next_line(scan.at + 2);
    Ok(true)
}

/// Takes what a header line says by itself.
#[inline]
fn note(buf: &[u8], head: &mut ResponseHead, header: Header) -> Result<(), Defect> {
    if header.known == Known::Other {
        return Ok(());
    }
    let value = header.value.of(buf);
    let again = head.seen.holds(header.known);
    head.seen.insert(header.known);
    match header.known {
        Known::ContentLength => {
            let length = list::content_length(value).map_err(Defect::restricted)?;
            if head.content_length.is_some_and(|earlier| earlier != length) {
                return Err(Defect::restricted("differing Content-Length"));
            }
            head.content_length = Some(length);
            head.length_is_plain = !again && list::is_plain_length(value);
        }
        Known::TransferEncoding => {
            if again {
                return Err(Defect::restricted("more than one Transfer-Encoding"));
            }
            if list::coding(value) != Coding::Chunked {
                return Err(Defect::restricted("Transfer-Encoding other than chunked"));
            }
            head.chunked = true;
        }
        Known::RetryAfter => head.retry_after = Some(header.value),
        _ => {}
    }
    Ok(())
}

/// Takes what the header lines say together.
fn finish(buf: &[u8], head: &mut ResponseHead, request_was_head: bool) -> Result<(), Defect> {
    if head.chunked && head.content_length.is_some() {
        return Err(Defect::restricted("Content-Length with Transfer-Encoding"));
    }
    if head.chunked && head.version == Version::Http10 {
        return Err(Defect::restricted("Transfer-Encoding in HTTP/1.0"));
    }
    let bodiless = request_was_head || head.bodiless_status();
    head.framing = match head.content_length {
        _ if bodiless => Framing::None,
        _ if head.chunked => Framing::Chunked,
        Some(0) => Framing::None,
        Some(length) => Framing::Length(length),
        None => Framing::UntilClose,
    };
    head.switching = head.status == 101;
    let options = match head.seen.holds(Known::Connection) {
        true => connection(buf, head)?,
        false => Options::default(),
    };
    // A backend that frames a body where there can be none may send one all
    // the same: its connection is not used again.
    let doubtful = head.bodiless_status()
        && head.status != 304
        && (head.chunked || head.content_length.is_some_and(|length| length > 0));
    head.keep_alive = !options.close
        && !doubtful
        && head.framing != Framing::UntilClose
        && (head.version == Version::Http11 || options.keep_alive);
    Ok(())
}

/// Reads the connection options. Naming a framing header has no effect: the framing is written anew.
fn connection(buf: &[u8], head: &mut ResponseHead) -> Result<Options, Defect> {
    let mut options = Options::default();
    for at in 0..head.headers.len() {
        if head.headers[at].known == Known::Connection {
            let value = head.headers[at].value;
            let nominate = |option: &[u8]| {
                let _framing_stays = scan::nominate(&mut head.headers, buf, option);
                Ok(())
            };
            options
                .take(value.of(buf), nominate)
                .map_err(Defect::restricted)?;
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests;
