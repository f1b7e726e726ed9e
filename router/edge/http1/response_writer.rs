//! A response's head, written for the client.
//!
//! Owns what the client sees beside what the backend sent: hop-by-hop headers
//! taken out, the framing its version understands, and whether its connection
//! is kept. Decides nothing about the body's bytes; it says what to do with
//! them.

use super::body::Mode;
use super::copy::{copy_passing, decimal};
use super::head::{Framing, Seen, Version};
use super::known::Known;
use super::response::ResponseHead;

/// Headers that end here or are written anew.
const ALWAYS_DROPPED: Seen = Seen::of(&[
    Known::Connection,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::ProxyAuthenticate,
    Known::ProxyAuthenticationInfo,
    Known::ProxyAuthorization,
    Known::Te,
    Known::Http2Settings,
    Known::XRequestId,
]);

/// The client that gets the response.
#[derive(Clone, Copy, Debug)]
pub struct Downstream<'a> {
    /// The version of its request.
    pub version: Version,
    /// Its connection may be kept: it asked for it, its request was read to
    /// the end, and the router is not draining.
    pub keep_alive: bool,
    /// A body that ends with the backend's connection is to be sent in chunks
    /// if the client knows them; the caller writes the chunks.
    pub chunk_unframed: bool,
    /// The request's id.
    pub request_id: &'a [u8],
}

/// What the written head promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// What to do with the body.
    pub mode: Mode,
    /// The body arrives unframed and is to be sent in chunks
    /// ([`super::body::chunk_prefix`]).
    pub chunk: bool,
    /// The client's connection is closed after the body.
    pub close: bool,
}

/// Appends a final head, or that of a 101, to `out`.
pub fn write_response_head(
    head: &ResponseHead,
    buf: &[u8],
    downstream: &Downstream,
    out: &mut Vec<u8>,
) -> Promise {
    let promise = promise(head, downstream);
    let sent = head.headers.last().map_or(0, |last| last.line_end as usize);
    out.reserve(sent + 192 + downstream.request_id.len());
    status_line(head, buf, out);
    let upgrade = head.seen.holds(Known::Upgrade) && matches!(head.status, 101 | 426);
    let mut dropped = ALWAYS_DROPPED;
    if !upgrade {
        dropped.insert(Known::Upgrade);
    }
    let framed = !(head.bodiless_status() && head.status != 304);
    if !framed || !head.length_is_plain() {
        dropped.insert(Known::ContentLength);
    }
    if !framed || downstream.version == Version::Http10 {
        dropped.insert(Known::TransferEncoding);
    }
    copy_passing(&head.headers, buf, dropped, out);
    if let (true, false, Some(length)) = (framed, head.length_is_plain(), head.content_length()) {
        out.extend_from_slice(b"Content-Length: ");
        decimal(length, out);
        out.extend_from_slice(b"\r\n");
    }
    if promise.chunk {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    out.extend_from_slice(b"X-Request-Id: ");
    out.extend_from_slice(downstream.request_id);
    out.extend_from_slice(match head.version {
        Version::Http11 => b"\r\nVia: 1.1 portico\r\n",
        Version::Http10 => b"\r\nVia: 1.0 portico\r\n",
    });
    let persists = downstream.version == Version::Http10;
    out.extend_from_slice(match (upgrade, promise.close) {
        (true, _) if head.switching => b"Connection: upgrade\r\n\r\n",
        (true, true) => b"Connection: upgrade, close\r\n\r\n",
        (true, false) => b"Connection: upgrade\r\n\r\n",
        (false, true) => b"Connection: close\r\n\r\n".as_slice(),
        (false, false) if persists => b"Connection: keep-alive\r\n\r\n",
        (false, false) => b"\r\n",
    });
    promise
}

fn promise(head: &ResponseHead, downstream: &Downstream) -> Promise {
    let old = downstream.version == Version::Http10;
    let unframed = head.framing == Framing::UntilClose;
    let chunk = unframed && !old && downstream.chunk_unframed;
    let unchunk = old && head.framing == Framing::Chunked;
    Promise {
        mode: if unchunk {
            Mode::Unchunk
        } else {
            Mode::Forward
        },
        chunk,
        close: !head.switching && (!downstream.keep_alive || unchunk || (unframed && !chunk)),
    }
}

fn status_line(head: &ResponseHead, buf: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    decimal(u64::from(head.status), out);
    out.push(b' ');
    out.extend_from_slice(head.reason.of(buf));
    out.extend_from_slice(b"\r\n");
}

/// Appends an interim head (100, 102, 103, …) to `out`: its end-to-end headers
/// as they came. Not for HTTP/1.0 clients, who know no interim answers.
pub fn write_interim(head: &ResponseHead, buf: &[u8], out: &mut Vec<u8>) {
    let mut dropped = ALWAYS_DROPPED;
    dropped.insert(Known::Upgrade);
    dropped.insert(Known::ContentLength);
    dropped.insert(Known::TransferEncoding);
    status_line(head, buf, out);
    copy_passing(&head.headers, buf, dropped, out);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
