//! Bodies: where they end, and chunked framing checked in place.
//!
//! Owns the body's grammar: chunk sizes, extensions, trailers. Works on the
//! read buffer itself: what passes stays where it is, what is dropped is
//! closed up over. Holds no bytes: an incomplete trailer name is left to the
//! caller until the rest of it is read.

use super::head::{Framing, Span};
use super::known::{Known, spelled_out};
use super::line;

/// Longest chunk-size line with its extensions, in bytes.
const SIZE_LINE_BYTES: u32 = 256;

/// Longest trailer section, in bytes.
const TRAILER_BYTES: u32 = 16 * 1024;

/// Longest trailer name, in bytes: also the most that [`Body::advance`] leaves
/// unconsumed of an unfinished body.
pub const HELD_BYTES: usize = 256;

/// What becomes of chunked framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It passes as it came, without chunk extensions and forbidden trailers.
    Forward,
    /// Only the payload passes: for an HTTP/1.0 client.
    Unchunk,
}

/// What one call did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the buffer that are done with.
    pub consumed: usize,
    /// The buffer's first bytes, to be forwarded.
    pub produced: usize,
    /// The body has ended: what follows is another message's.
    pub done: bool,
}

/// A body whose framing is broken; the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The log's `cause=`.
    pub cause: &'static str,
}

/// Where in the body the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Over.
    Done,
    /// In a body of known length, so many bytes before its end.
    Length(u64),
    /// In a body that ends with the connection.
    UntilClose,
    /// In a chunk's size, with so many digits read.
    Size(u8),
    /// In a chunk extension.
    Extension(Extension),
    /// After the CR of a size line.
    SizeLf,
    /// In a chunk's data, so many bytes before its end.
    Data(u64),
    /// Before the CR, then the LF, after a chunk's data.
    DataCr,
    DataLf,
    /// At the first byte of a trailer line, or of the empty last one.
    Trailer,
    /// In a trailer's value; whether the line passes.
    Value(bool),
    /// After the CR of a trailer line; whether it passes.
    ValueLf(bool),
    /// After the CR of the last line.
    LastLf,
}

/// Where in a chunk extension (RFC 9112, section 7.1.1, without white space
/// and quoted strings).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    NameStart,
    Name,
    ValueStart,
    Value,
}

/// A body on its way through.
#[derive(Clone, Debug)]
pub struct Body {
    state: State,
    mode: Mode,
    /// The current chunk's size.
    size: u64,
    /// Bytes of the current size line, or of the trailer section.
    line: u32,
    payload: u64,
}

/// The read and write offsets in the buffer of one call.
struct Cursor<'a> {
    buf: &'a mut [u8],
    read: usize,
    write: usize,
}

impl Cursor<'_> {
    /// Passes the next `len` bytes.
    #[inline]
    fn pass(&mut self, len: usize) {
        if self.read != self.write {
            self.buf.copy_within(self.read..self.read + len, self.write);
        }
        self.read += len;
        self.write += len;
    }

    /// A whole CRLF is next: the usual case, taken at once.
    #[inline]
    fn at_line_end(&self) -> bool {
        self.buf[self.read..].starts_with(b"\r\n")
    }

    /// Passes or drops the next `len` bytes.
    #[inline]
    fn take(&mut self, len: usize, passes: bool) {
        if passes {
            self.pass(len);
        } else {
            self.read += len;
        }
    }
}

impl Body {
    /// A body that begins.
    pub fn new(framing: Framing, mode: Mode) -> Body {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size(0),
            Framing::UntilClose => State::UntilClose,
        };
        Body {
            state,
            mode,
            size: 0,
            line: 0,
            payload: 0,
        }
    }

    /// Payload bytes so far: without framing and trailers.
    pub fn payload(&self) -> u64 {
        self.payload
    }

    /// It has ended.
    pub fn done(&self) -> bool {
        self.state == State::Done
    }

    /// The connection's end ends it properly.
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.state, State::UntilClose | State::Done)
    }

    /// Bytes still to come, where that is known.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Done => Some(0),
            State::Length(left) => Some(left),
            _ => None,
        }
    }

    /// Counts the next `len` bytes of a body of known length that went past
    /// without being looked at; no more of them than [`Body::remaining`].
    pub fn pass_unseen(&mut self, len: u64) {
        let left = self.remaining().unwrap_or(0);
        debug_assert!(len <= left, "no more may pass than is to come");
        self.payload += len;
        self.state = match left.saturating_sub(len) {
            0 => State::Done,
            left => State::Length(left),
        };
    }

    /// Checks the next bytes of the body. The first `produced` bytes of `buf`
    /// are then to be forwarded. If `done`, `buf[consumed..]` belongs to what
    /// follows; if not, at most [`HELD_BYTES`] are left in `buf[consumed..]`,
    /// to be handed in again before the bytes read next.
    ///
    /// # Errors
    /// The framing is broken: nothing of this call may be forwarded.
    pub fn advance(&mut self, buf: &mut [u8]) -> Result<Progress, Broken> {
        let len = buf.len();
        match self.state {
            State::Done => return Ok(self.progress(0, 0)),
            State::Length(left) => {
                let passed = left.min(len as u64);
                self.payload += passed;
                self.state = match left - passed {
                    0 => State::Done,
                    left => State::Length(left),
                };
                return Ok(self.progress(passed as usize, passed as usize));
            }
            State::UntilClose => {
                self.payload += len as u64;
                return Ok(self.progress(len, len));
            }
            _ => {}
        }
        let mut cursor = Cursor {
            buf,
            read: 0,
            write: 0,
        };
        while cursor.read < len && self.state != State::Done {
            if !self.step(&mut cursor)? {
                break;
            }
        }
        Ok(self.progress(cursor.read, cursor.write))
    }

    fn progress(&self, consumed: usize, produced: usize) -> Progress {
        Progress {
            consumed,
            produced,
            done: self.done(),
        }
    }

    /// Takes at least one byte, unless the rest of a trailer's name is needed.
    #[inline]
    fn step(&mut self, cursor: &mut Cursor) -> Result<bool, Broken> {
        let forward = self.mode == Mode::Forward;
        let byte = cursor.buf[cursor.read];
        match self.state {
            State::Size(digits) => return self.size(cursor, digits).map(|()| true),
            State::Data(left) => {
                let there = cursor.buf.len() - cursor.read;
                let passed = left.min(there as u64);
                cursor.pass(passed as usize);
                self.payload += passed;
                self.state = match left - passed {
                    0 => State::DataCr,
                    left => State::Data(left),
                };
            }
            State::Extension(part) => self.extension(cursor, part, byte)?,
            State::SizeLf => {
                expect(byte, b'\n', "bare CR in a chunk size")?;
                cursor.take(1, forward);
                self.sized();
            }
            State::DataCr if cursor.at_line_end() => {
                cursor.take(2, forward);
                self.size = 0;
                self.state = State::Size(0);
            }
            State::DataCr => {
                expect(byte, b'\r', "chunk data longer than its size")?;
                cursor.take(1, forward);
                self.state = State::DataLf;
            }
            State::DataLf => {
                expect(byte, b'\n', "bare CR after chunk data")?;
                cursor.take(1, forward);
                self.size = 0;
                self.state = State::Size(0);
            }
            State::Trailer if byte == b'\r' => {
                self.trailer_bytes(1)?;
                cursor.take(1, forward);
                self.state = State::LastLf;
            }
            State::Trailer => return self.trailer_name(cursor),
            State::Value(passes) => self.trailer_value(cursor, passes)?,
            State::ValueLf(passes) => {
                expect(byte, b'\n', "bare CR in a trailer")?;
                self.trailer_bytes(1)?;
                cursor.take(1, passes);
                self.state = State::Trailer;
            }
            State::LastLf => {
                expect(byte, b'\n', "bare CR in a trailer")?;
                cursor.take(1, forward);
                self.state = State::Done;
            }
            State::Done | State::Length(_) | State::UntilClose => {}
        }
        Ok(true)
    }

    /// Reads as many digits of a chunk's size as there are, and the byte after.
    #[inline]
    fn size(&mut self, cursor: &mut Cursor, mut digits: u8) -> Result<(), Broken> {
        let mut at = cursor.read;
        while let Some(byte) = cursor.buf.get(at) {
            let Some(digit) = (*byte as char).to_digit(16) else {
                break;
            };
            if digits == 16 {
                return Err(Broken {
                    cause: "chunk size too long",
                });
            }
            self.size = (self.size << 4) | u64::from(digit);
            digits += 1;
            at += 1;
        }
        let forward = self.mode == Mode::Forward;
        cursor.take(at - cursor.read, forward);
        self.state = State::Size(digits);
        let Some(byte) = cursor.buf.get(at) else {
            return Ok(());
        };
        match byte {
            b'\r' if digits > 0 && cursor.at_line_end() => {
                cursor.take(2, forward);
                self.sized();
            }
            b'\r' if digits > 0 => {
                cursor.take(1, forward);
                self.state = State::SizeLf;
            }
            b';' if digits > 0 => {
                cursor.read += 1;
                self.line = u32::from(digits) + 1;
                self.state = State::Extension(Extension::NameStart);
            }
            _ => {
                return Err(Broken {
                    cause: "invalid chunk size",
                });
            }
        }
        Ok(())
    }

    /// A size line is whole.
    #[inline]
    fn sized(&mut self) {
        self.line = 0;
        self.state = match self.size {
            0 => State::Trailer,
            size => State::Data(size),
        };
    }

    /// Takes one byte of a chunk extension; all of it is dropped.
    #[cold]
    fn extension(&mut self, cursor: &mut Cursor, part: Extension, byte: u8) -> Result<(), Broken> {
        self.line += 1;
        if self.line > SIZE_LINE_BYTES {
            return Err(Broken {
                cause: "chunk extension too long",
            });
        }
        let named = matches!(part, Extension::Name | Extension::Value);
        self.state = match (part, byte) {
            (Extension::NameStart, b) if line::is_token(&[b]) => State::Extension(Extension::Name),
            (Extension::ValueStart, b) if line::is_token(&[b]) => {
                State::Extension(Extension::Value)
            }
            (_, b) if named && line::is_token(&[b]) => self.state,
            (Extension::Name, b'=') => State::Extension(Extension::ValueStart),
            (_, b';') if named => State::Extension(Extension::NameStart),
            (_, b'\r') if named => {
                cursor.take(1, self.mode == Mode::Forward);
                self.state = State::SizeLf;
                return Ok(());
            }
            _ => {
                return Err(Broken {
                    cause: "invalid chunk extension",
                });
            }
        };
        cursor.read += 1;
        Ok(())
    }

    /// Reads a trailer's name and colon at once, or leaves it for later.
    #[cold]
    fn trailer_name(&mut self, cursor: &mut Cursor) -> Result<bool, Broken> {
        let start = cursor.read;
        let end = line::token_end(cursor.buf, start);
        if end - start > HELD_BYTES {
            return Err(Broken {
                cause: "trailer name too long",
            });
        }
        self.trailer_fits(end - start)?;
        match cursor.buf.get(end) {
            None => return Ok(false),
            Some(b':') if end > start => {}
            Some(_) => {
                return Err(Broken {
                    cause: "invalid trailer name",
                });
            }
        }
        self.trailer_bytes(end + 1 - start)?;
        let passes = self.mode == Mode::Forward && may_trail(Span::new(start, end).of(cursor.buf));
        cursor.take(end + 1 - start, passes);
        self.state = State::Value(passes);
        Ok(true)
    }

    #[cold]
    fn trailer_value(&mut self, cursor: &mut Cursor, passes: bool) -> Result<(), Broken> {
        let end = line::value_end(cursor.buf, cursor.read);
        self.trailer_bytes(end - cursor.read)?;
        cursor.take(end - cursor.read, passes);
        let Some(byte) = cursor.buf.get(end) else {
            return Ok(());
        };
        expect(*byte, b'\r', "control character in a trailer")?;
        self.trailer_bytes(1)?;
        cursor.take(1, passes);
        self.state = State::ValueLf(passes);
        Ok(())
    }

    fn trailer_fits(&self, len: usize) -> Result<(), Broken> {
        if self.line as usize + len > TRAILER_BYTES as usize {
            return Err(Broken {
                cause: "trailers too large",
            });
        }
        Ok(())
    }

    fn trailer_bytes(&mut self, len: usize) -> Result<(), Broken> {
        self.trailer_fits(len)?;
        self.line += len as u32;
        Ok(())
    }
}

#[inline]
fn expect(byte: u8, expected: u8, cause: &'static str) -> Result<(), Broken> {
    if byte == expected {
        Ok(())
    } else {
        Err(Broken { cause })
    }
}

/// Whether a field may stand in trailers: none that frames, routes,
/// authenticates, belongs to one hop or was decided from the head
/// (RFC 9110, section 6.5.1).
fn may_trail(name: &[u8]) -> bool {
    matches!(
        spelled_out(name),
        Known::Other | Known::RetryAfter | Known::Via | Known::Accept | Known::Tracestate
    )
}

/// Bytes of the longest prefix that [`chunk_prefix`] writes.
pub const PREFIX_BYTES: usize = 18;

/// The size line before a chunk of `len` payload bytes, for a body that
/// arrives without chunks and leaves with them. Returns its length in `out`;
/// after the payload comes `\r\n`, after the last chunk [`LAST_CHUNK`].
pub fn chunk_prefix(len: u64, out: &mut [u8; PREFIX_BYTES]) -> usize {
    let digits = (16 - (len.leading_zeros() as usize / 4)).clamp(1, 16);
    for (at, byte) in out[..digits].iter_mut().enumerate() {
        let nibble = (len >> (4 * (digits - 1 - at))) & 0xf;
        *byte = b"0123456789abcdef"[nibble as usize];
    }
    out[digits..digits + 2].copy_from_slice(b"\r\n");
    digits + 2
}

/// Ends a chunked body that has no trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests;
