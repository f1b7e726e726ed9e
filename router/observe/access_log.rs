//! The access log: one line a request, logfmt or JSON.
//!
//! Owns the line's fields and their formatting, a bounded buffer per edge
//! thread, and the writer thread that drains them to standard output or a
//! file. Never blocks a data thread: a full buffer drops lines, first those of
//! the apps that log most, and counts them (`portico_access_log_dropped_total`).
//!
//! **Invariant**: a request is one line, whatever bytes it was made of: control
//! bytes, quotes, backslashes and what is not UTF-8 are escaped.

use std::net::IpAddr;

use super::Code;
use crate::settings::LogFormat;

mod escape;
mod json;
mod logfmt;
mod shares;
mod writer;

pub(super) use writer::rows;
pub use writer::{Log, LogBuffer};

/// What one line says. Times are microseconds, logged as whole milliseconds;
/// `None` is logged empty (JSON: `null`).
#[derive(Clone, Debug)]
pub struct Line<'a> {
    /// The method as sent.
    pub method: &'a [u8],
    /// Target as sent, query included.
    pub path: &'a [u8],
    /// The Host as sent, lower-cased.
    pub host: &'a [u8],
    /// The request id, ours or the client's.
    pub request_id: &'a [u8],
    /// The whole X-Forwarded-For as sent to the backend.
    pub fwd: &'a [u8],
    /// The peer's address, logged as `fwd` while that is empty.
    pub client: Option<IpAddr>,
    /// The app; empty if none was found.
    pub app: &'a str,
    /// The backend of the last try; empty if none was chosen.
    pub backend: &'a str,
    /// Its release.
    pub release: &'a str,
    /// Attempts on backends.
    pub tries: u32,
    /// Time spent waiting for a backend with room.
    pub queue_us: Option<u64>,
    /// Time to connect; 0 on a reused connection.
    pub connect_us: Option<u64>,
    /// From the end of sending the request to the first byte of the answer.
    pub first_byte_us: Option<u64>,
    /// From the request's first byte to the end of the answer.
    pub total_us: u64,
    /// Status sent to the client (or 499 when it left).
    pub status: u16,
    /// Body bytes sent to the client.
    pub bytes: u64,
    /// `http1.0`, `http1.1`, `http2.0`.
    pub protocol: &'static str,
    /// TLS version, empty without TLS.
    pub tls: &'static str,
    /// The code of an answer of the router's own, or of a cut.
    pub code: Option<Code>,
    /// H26's and others' detail.
    pub cause: Option<&'a str>,
}

impl Line<'_> {
    /// Appends the line, its newline included.
    #[inline]
    pub fn write(&self, format: LogFormat, out: &mut Vec<u8>) {
        match format {
            LogFormat::Logfmt => logfmt::write(self, out),
            LogFormat::Json => json::write(self, out),
        }
    }

    /// The line's `at=`: `error` for what an app's owner or the platform should
    /// look at, `warning` for clients that left or went idle, `info` for the
    /// rest; maintenance was asked for, so it is `info` too.
    fn level(&self) -> &'static str {
        match self.code {
            None | Some(Code::H80) => "info",
            Some(Code::H27 | Code::H28) => "warning",
            Some(_) => "error",
        }
    }
}

/// Appends a decimal number.
#[inline]
fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends an address as text, without going through `fmt` for v4.
fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            for (index, octet) in v4.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                number(out, u64::from(octet));
            }
        }
        IpAddr::V6(v6) => out.extend_from_slice(v6.to_string().as_bytes()),
    }
}

#[cfg(test)]
#[path = "access_log/format_tests.rs"]
mod tests;
