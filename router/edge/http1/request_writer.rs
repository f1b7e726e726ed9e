//! A request's head, written for a backend.
//!
//! Owns what the backend sees beside what the client sent: the target in
//! origin-form, hop-by-hop headers taken out, the forwarding headers set.
//! Reads nothing but its arguments, so a retry writes the same head again.

use std::net::IpAddr;

use super::copy::{copy_passing, decimal, hex};
use super::head::{Framing, Seen, Span, Version};
use super::known::Known;
use super::request::{Form, Method, RequestHead};

/// Headers that end here, whoever sent them, or are written anew.
const ALWAYS_DROPPED: Seen = Seen::of(&[
    Known::Connection,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::ProxyAuthorization,
    Known::ProxyAuthenticate,
    Known::ProxyAuthenticationInfo,
    Known::Te,
    Known::Expect,
    Known::Http2Settings,
    Known::XForwardedFor,
    Known::XRequestId,
    Known::Traceparent,
]);

/// Headers believed only from trusted proxies.
const DROPPED_UNLESS_TRUSTED: Seen = Seen::of(&[
    Known::XForwardedProto,
    Known::XForwardedPort,
    Known::XForwardedHost,
    Known::XRequestStart,
    Known::Forwarded,
]);

/// Who sent the request, as far as a connection knows: made once for each.
#[derive(Clone, Debug)]
pub struct Peer {
    trusted: bool,
    address: String,
    proto_line: String,
    port_line: String,
}

impl Peer {
    /// A client at `address` that connected with `proto` (`http`, `https`) to
    /// `port`. `trusted`: it is a proxy whose `X-Forwarded-*` is believed.
    pub fn new(address: IpAddr, proto: &str, port: u16, trusted: bool) -> Peer {
        Peer {
            trusted,
            address: address.to_canonical().to_string(),
            proto_line: format!("X-Forwarded-Proto: {proto}\r\n"),
            port_line: format!("X-Forwarded-Port: {port}\r\n"),
        }
    }

    /// Its address as text.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its `X-Forwarded-*` is believed.
    pub fn trusted(&self) -> bool {
        self.trusted
    }
}

/// What the router adds to one request.
#[derive(Clone, Copy, Debug)]
pub struct Forwarding<'a> {
    /// Who sent it.
    pub peer: &'a Peer,
    /// Its id: the client's ([`RequestHead::request_id`]) or a new one.
    pub request_id: &'a [u8],
    /// When its first byte came, Unix ms.
    pub received_ms: u64,
    /// Trace id of a trace that begins here; random. Unused when one is
    /// continued.
    pub trace_id: u128,
    /// The router's span in the trace; random, new for every try.
    pub span_id: u64,
    /// The backend's connection is to be kept.
    pub backend_keepalive: bool,
}

/// Appends the head to `out`; returns where in `out` the value of
/// `X-Forwarded-For` stands, for the log.
pub fn write_request_head(
    head: &RequestHead,
    buf: &[u8],
    forwarding: &Forwarding,
    out: &mut Vec<u8>,
) -> Span {
    let sent = head.headers.last().map_or(0, |last| last.line_end as usize);
    out.reserve(sent + 512 + forwarding.request_id.len());
    request_line(head, buf, out);
    if !head.seen.holds(Known::Host) {
        line(b"Host: ", head.authority.of(buf), out);
    }
    copy_passing(&head.headers, buf, dropped(head, forwarding), out);
    if head.seen.holds(Known::ContentLength) && !head.length_is_plain() {
        out.extend_from_slice(b"Content-Length: ");
        decimal(head.content_length().unwrap_or(0), out);
        out.extend_from_slice(b"\r\n");
    }
    let forwarded_for = forwarding_lines(head, buf, forwarding, out);
    line(b"X-Request-Id: ", forwarding.request_id, out);
    out.extend_from_slice(match head.version {
        Version::Http11 => b"Via: 1.1 portico\r\n",
        Version::Http10 => b"Via: 1.0 portico\r\n",
    });
    traceparent(head, buf, forwarding, out);
    connection(head, forwarding.backend_keepalive, out);
    out.extend_from_slice(b"\r\n");
    forwarded_for
}

#[inline]
fn line(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn request_line(head: &RequestHead, buf: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(head.method_text.of(buf));
    out.push(b' ');
    let target = head.path_and_query.of(buf);
    if head.form == Form::Absolute && target.first() != Some(&b'/') {
        // RFC 9112, section 3.2.4: OPTIONS of a bare authority asks about
        // the server as a whole.
        let whole = head.method == Method::Options && target.is_empty();
        out.push(if whole { b'*' } else { b'/' });
    }
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// The kinds that do not pass in this request.
#[inline]
fn dropped(head: &RequestHead, forwarding: &Forwarding) -> Seen {
    let mut dropped = ALWAYS_DROPPED;
    if !forwarding.peer.trusted {
        dropped.join(DROPPED_UNLESS_TRUSTED);
    }
    if !head.upgrade {
        dropped.insert(Known::Upgrade);
    }
    if head.traceparent.is_none() {
        dropped.insert(Known::Tracestate);
    }
    if !head.length_is_plain() {
        dropped.insert(Known::ContentLength);
    }
    if head.framing != Framing::Chunked {
        dropped.insert(Known::TransferEncoding);
    }
    dropped
}

/// Writes the `X-Forwarded-*` lines and `X-Request-Start`; those a trusted
/// proxy set have passed already.
fn forwarding_lines(
    head: &RequestHead,
    buf: &[u8],
    forwarding: &Forwarding,
    out: &mut Vec<u8>,
) -> Span {
    let peer = forwarding.peer;
    out.extend_from_slice(b"X-Forwarded-For: ");
    let start = out.len();
    if peer.trusted && head.seen.holds(Known::XForwardedFor) {
        let lines = head.headers.iter();
        for header in lines.filter(|h| h.known == Known::XForwardedFor) {
            let value = header.value.of(buf);
            if !value.is_empty() {
                out.extend_from_slice(value);
                out.extend_from_slice(b", ");
            }
        }
    }
    out.extend_from_slice(peer.address.as_bytes());
    let forwarded_for = Span::new(start, out.len());
    out.extend_from_slice(b"\r\n");
    let passed = |known| peer.trusted && head.seen.holds(known);
    if !passed(Known::XForwardedProto) {
        out.extend_from_slice(peer.proto_line.as_bytes());
    }
    if !passed(Known::XForwardedPort) {
        out.extend_from_slice(peer.port_line.as_bytes());
    }
    if !passed(Known::XForwardedHost) {
        line(b"X-Forwarded-Host: ", head.authority.of(buf), out);
    }
    if !passed(Known::XRequestStart) {
        out.extend_from_slice(b"X-Request-Start: ");
        decimal(forwarding.received_ms, out);
        out.extend_from_slice(b"\r\n");
    }
    forwarded_for
}

/// Continues the client's trace with the router's span as the parent, or
/// begins one, sampled (W3C Trace Context, section 3).
fn traceparent(head: &RequestHead, buf: &[u8], forwarding: &Forwarding, out: &mut Vec<u8>) {
    out.extend_from_slice(b"traceparent: 00-");
    let sent = head.traceparent.map(|span| span.of(buf));
    match sent {
        Some(sent) => out.extend_from_slice(&sent[3..35]),
        None => hex::<32>(forwarding.trace_id.max(1), out),
    }
    out.push(b'-');
    hex::<16>(u128::from(forwarding.span_id.max(1)), out);
    out.push(b'-');
    match sent {
        Some([b'0', b'0', ..]) => out.extend_from_slice(&sent.unwrap_or_default()[53..55]),
        // Of a later version's flags only `sampled` is known.
        Some(later)
            if !matches!(
                later[54],
                b'1' | b'3' | b'5' | b'7' | b'9' | b'b' | b'd' | b'f'
            ) =>
        {
            out.extend_from_slice(b"00");
        }
        _ => out.extend_from_slice(b"01"),
    }
    out.extend_from_slice(b"\r\n");
}

fn connection(head: &RequestHead, backend_keepalive: bool, out: &mut Vec<u8>) {
    if head.te_trailers {
        out.extend_from_slice(b"TE: trailers\r\n");
    }
    let options: &[u8] = match (head.upgrade, backend_keepalive, head.te_trailers) {
        (true, _, false) => b"upgrade",
        (true, _, true) => b"upgrade, TE",
        (false, false, false) => b"close",
        (false, false, true) => b"close, TE",
        (false, true, true) => b"TE",
        (false, true, false) => return,
    };
    line(b"Connection: ", options, out);
}

#[cfg(test)]
mod tests;
