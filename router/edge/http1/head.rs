//! What request heads and response heads share: spans of the read buffer,
//! header lines, versions, framing, limits.
//!
//! Holds no bytes: every span is an offset into the buffer the head was parsed
//! from, whose first byte is offset 0.

use super::known::Known;

/// A range of bytes in the buffer that was parsed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Offset after the last byte.
    pub end: u32,
}

impl Span {
    /// A span from offsets; heads are bounded far below 4 GiB.
    #[inline]
    pub(super) fn new(start: usize, end: usize) -> Span {
        Span {
            start: start as u32,
            end: end as u32,
        }
    }

    /// Its bytes, given the buffer that was parsed (moved or not, the head
    /// still first).
    #[inline]
    pub fn of(self, buf: &[u8]) -> &[u8] {
        &buf[self.start as usize..self.end as usize]
    }

    /// Bytes in it.
    #[inline]
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether it has no bytes.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// One header line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: Span,
    /// Its value, without the white space around it.
    pub value: Span,
    /// Offset after the CRLF that ends the line.
    pub line_end: u32,
    /// Which name it is, of those that mean something here.
    pub known: Known,
    /// It stops at this hop whatever it is: `Connection` names it, or it spells
    /// a known name with underscores.
    pub stops: bool,
}

/// HTTP/1.0 or HTTP/1.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
}

/// How a message's end is found (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    #[default]
    None,
    /// So many bytes; never `Length(0)` in a request's or response's head,
    /// that is [`Framing::None`] with the header kept.
    Length(u64),
    /// Chunks, the last one empty, then trailers.
    Chunked,
    /// Until the connection closes; responses only.
    UntilClose,
}

/// The kinds of known headers a head holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen(u64);

impl Seen {
    /// Notes one.
    #[inline]
    pub(super) fn insert(&mut self, known: Known) {
        self.0 |= 1 << known as u64;
    }

    /// Whether the head holds a header of that kind.
    #[inline]
    pub fn holds(self, known: Known) -> bool {
        self.0 & (1 << known as u64) != 0
    }

    /// Notes all of another set.
    #[inline]
    pub(super) fn join(&mut self, others: Seen) {
        self.0 |= others.0;
    }

    /// A set from a list.
    pub(super) const fn of(list: &[Known]) -> Seen {
        let mut bits = 0;
        let mut at = 0;
        while at < list.len() {
            bits |= 1 << list[at] as u64;
            at += 1;
        }
        Seen(bits)
    }
}

/// Most that is read of a head before it is refused. Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The first line, without its CRLF.
    pub start_line_bytes: usize,
    /// One header line, without its CRLF.
    pub header_line_bytes: usize,
    /// Header lines.
    pub headers: usize,
    /// The whole head, its empty last line included.
    pub head_bytes: usize,
}

impl Limits {
    /// What clients are held to (CONTRACT: 414 and 431).
    pub const REQUEST: Limits = Limits {
        start_line_bytes: 8_192,
        header_line_bytes: 8_192,
        headers: 100,
        head_bytes: 64 * 1024,
    };

    /// What backends are held to (H25).
    pub const RESPONSE: Limits = Limits {
        start_line_bytes: 8_192,
        header_line_bytes: 512 * 1024,
        headers: 1_000,
        head_bytes: 512 * 1024,
    };
}
