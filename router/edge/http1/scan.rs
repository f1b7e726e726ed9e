//! A head read line by line, resumable: how far it was searched is kept
//! between reads, so no byte is looked at twice for want of a later one.
//!
//! Owns line ends, header lines and the limits on both. What lines mean is
//! decided by [`super::request`] and [`super::response`].

use super::head::{Header, Limits, Seen, Span};
use super::known::{Known, known};
use super::line;

/// Where the search for a head's end stands. Start a new message with
/// `Scan::default()`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// What is being read.
    pub(super) stage: Stage,
    /// Offset of the current line's first byte.
    pub(super) line: usize,
    /// Offset of the first byte not yet searched.
    pub(super) at: usize,
    /// Marks inside the current line: the ends of its parts found so far.
    pub(super) marks: [usize; 2],
}

/// What part of a head is being read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing yet.
    #[default]
    Start,
    /// The first line's parts, in order.
    First(u8),
    /// A header line's first byte is next.
    Line,
    /// A header's name.
    Name,
    /// A header's value; the first mark is the name's end.
    Value,
}

/// What a step over a header line found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// The bytes end before the line does.
    More,
    /// A whole line.
    Header(Header),
    /// The empty line: the head is so many bytes.
    End(usize),
}

/// Why a header line is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Over a limit.
    Limit(&'static str),
    /// Not the grammar's.
    Malformed(&'static str),
}

impl Scan {
    /// A message has begun: bytes were seen, or a line is under way.
    pub fn begun(&self) -> bool {
        *self != Scan::default()
    }

    /// The line that began at `self.line` is whole; the next begins at `at`.
    #[inline]
    pub(super) fn next_line(&mut self, at: usize) {
        self.stage = Stage::Line;
        self.line = at;
        self.at = at;
    }

    /// Refuses the current line if what was searched of it is over a limit.
    /// Whichever limit the bytes pass first is the one reported.
    #[inline]
    pub(super) fn within(&self, line_bytes: usize, limits: &Limits) -> Result<(), Flaw> {
        if self.at - self.line > line_bytes || self.at > limits.head_bytes {
            return Err(self.over(line_bytes, limits));
        }
        Ok(())
    }

    #[cold]
    fn over(&self, line_bytes: usize, limits: &Limits) -> Flaw {
        let line_first =
            self.at - self.line > line_bytes && self.line + line_bytes <= limits.head_bytes;
        Flaw::Limit(if line_first {
            "line too long"
        } else {
            "head too large"
        })
    }

    /// Reads one header line, or as much of it as there is.
    #[inline]
    pub(super) fn header(&mut self, buf: &[u8], limits: &Limits) -> Result<Step, Flaw> {
        if self.stage == Stage::Line {
            match buf.get(self.line) {
                None => return Ok(Step::More),
                Some(b'\r') => return self.end(buf, limits),
                Some(_) => self.stage = Stage::Name,
            }
        }
        if self.stage == Stage::Name {
            self.at = line::token_end(buf, self.at);
            self.within(limits.header_line_bytes, limits)?;
            match buf.get(self.at) {
                None => return Ok(Step::More),
                Some(b':') if self.at > self.line => {}
                Some(byte) => return Err(Flaw::Malformed(self.name_flaw(*byte))),
            }
            self.marks[0] = self.at;
            self.at += 1;
            self.stage = Stage::Value;
        }
        self.at = line::value_end(buf, self.at);
        self.within(limits.header_line_bytes, limits)?;
        match buf.get(self.at..) {
            Some([b'\r', b'\n', ..]) => {}
            None | Some([] | [b'\r']) => return Ok(Step::More),
            Some([byte, ..]) => return Err(Flaw::Malformed(control_flaw(*byte))),
        }
        let header = self.whole(buf);
        self.next_line(self.at + 2);
        Ok(Step::Header(header))
    }

    #[inline]
    fn whole(&self, buf: &[u8]) -> Header {
        let (mut start, mut end) = (self.marks[0] + 1, self.at);
        while start < end && matches!(buf[start], b' ' | b'\t') {
            start += 1;
        }
        while start < end && matches!(buf[end - 1], b' ' | b'\t') {
            end -= 1;
        }
        let name = Span::new(self.line, self.marks[0]);
        Header {
            name,
            value: Span::new(start, end),
            line_end: (self.at + 2) as u32,
            known: known(name.of(buf)),
            stops: false,
        }
    }

    fn end(&mut self, buf: &[u8], limits: &Limits) -> Result<Step, Flaw> {
        match buf.get(self.line + 1) {
            None => Ok(Step::More),
            Some(b'\n') if self.line + 2 > limits.head_bytes => Err(Flaw::Limit("head too large")),
            Some(b'\n') => Ok(Step::End(self.line + 2)),
            Some(_) => Err(Flaw::Malformed("bare CR")),
        }
    }

    #[cold]
    fn name_flaw(&self, byte: u8) -> &'static str {
        match byte {
            b' ' | b'\t' if self.at == self.line => "folded or indented header line",
            b' ' | b'\t' => "space in or after a header name",
            b':' => "empty header name",
            b'\n' | b'\r' if self.at == self.line => control_flaw(byte),
            b'\n' | b'\r' => "header line without a colon",
            _ => "invalid header name",
        }
    }
}

/// What a control that ends a value, but no CRLF, is called.
#[cold]
pub(super) fn control_flaw(byte: u8) -> &'static str {
    match byte {
        b'\n' => "bare LF",
        b'\r' => "bare CR",
        0 => "NUL",
        _ => "control character",
    }
}

/// Headers whose fate the writers decide, whatever `Connection` says.
const OURS: Seen = Seen::of(&[
    Known::Te,
    Known::Upgrade,
    Known::XForwardedFor,
    Known::XForwardedProto,
    Known::XForwardedPort,
    Known::XForwardedHost,
    Known::Forwarded,
    Known::XRequestId,
    Known::XRequestStart,
    Known::Via,
    Known::Traceparent,
    Known::Tracestate,
]);

/// Marks the headers that `Connection` names by `token`. Names that frame or
/// route the message cannot be named away; they are reported instead. Those
/// that the writers set or drop by themselves stay theirs.
///
/// # Errors
/// With the name's kind if it is one of those.
pub(super) fn nominate(headers: &mut [Header], buf: &[u8], token: &[u8]) -> Result<(), Known> {
    let kind = known(token);
    if matches!(
        kind,
        Known::Host | Known::ContentLength | Known::TransferEncoding
    ) {
        return Err(kind);
    }
    if OURS.holds(kind) {
        return Ok(());
    }
    for header in headers {
        let same = match kind {
            Known::Other => header.name.of(buf).eq_ignore_ascii_case(token),
            kind => header.known == kind,
        };
        header.stops |= same;
    }
    Ok(())
}
