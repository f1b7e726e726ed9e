//! HTTP/1.1 as bytes: heads parsed into spans, heads written by copying spans,
//! bodies filtered in place.
//!
//! Owns the grammar and its strictness: what a message is, where it ends, and
//! which bytes of it may pass. Never touches a socket, a clock or randomness,
//! and allocates nothing per message once its buffers have grown: a caller
//! hands bytes in, gets spans and bytes out.
//!
//! | file | what |
//! |---|---|
//! | [`head`] | what requests and responses share: spans, headers, framing |
//! | [`request`] | a request's head, read |
//! | [`response`] | a response's head, read |
//! | [`request_writer`], [`response_writer`] | heads written for the other side |
//! | [`body`] | bodies: where they end, chunks checked in place |
//! | [`known`] | the header names that mean something here |
//! | [`scan`] | a head read line by line, resumable |
//! | `request_line`, `line`, `host`, `list`, `copy` | the grammar's parts |
//!
//! **Invariant**: a message that two parsers could read differently is refused
//! here, before any of its bytes are forwarded.
//!
//! **Invariant**: the outcome is the same however the bytes were split over
//! reads; errors are found in byte order.

pub mod body;
mod copy;
pub mod head;
mod host;
pub mod known;
mod line;
mod list;
pub mod request;
mod request_line;
pub mod request_writer;
pub mod response;
pub mod response_writer;
pub mod scan;

/// Answers `Expect: 100-continue` when the router is ready to read the body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
