//! The input in pieces: whole lines, each piece small enough to be sent again.
//!
//! Owns where a line ends and its number. Never looks into a line: what is
//! wrong with one is the router's to say.

use std::io::{self, BufRead};
use std::time::{Duration, Instant};

/// Lines of a piece.
const LINES: u64 = 25_000;
/// Bytes of a piece, about.
const BYTES: usize = 8 << 20;
/// How long lines that arrive slowly are gathered.
const GATHER: Duration = Duration::from_secs(1);
/// Bytes kept of one line: more than the router takes, so that it says so.
const LINE_BYTES: usize = (1 << 20) + 1;

/// Lines that are sent together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Piece {
    /// The number of its first line, from 1.
    pub first: u64,
    /// How many.
    pub lines: u64,
    /// Each with its end.
    pub bytes: Vec<u8>,
    /// Bytes of the input up to its end.
    pub read: u64,
}

/// An input that is read piece by piece.
#[derive(Debug)]
pub(super) struct Pieces<R> {
    input: R,
    /// The number of the next line.
    line: u64,
    read: u64,
}

impl<R: BufRead> Pieces<R> {
    pub fn new(input: R) -> Pieces<R> {
        Pieces {
            input,
            line: 1,
            read: 0,
        }
    }

    /// The number of the next line.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Bytes of the input read so far.
    pub fn read(&self) -> u64 {
        self.read
    }

    /// Leaves out what comes before line `from`; false: the input ends before.
    ///
    /// # Errors
    /// The input cannot be read.
    pub fn skip_to(&mut self, from: u64) -> io::Result<bool> {
        while self.line < from {
            if !self.take_line(None)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// The input cannot be read; lines of the piece so far are lost.
    pub fn next(&mut self) -> io::Result<Option<Piece>> {
        let mut piece = Piece {
            first: self.line,
            ..Piece::default()
        };
        let mut begun = None;
        while self.take_line(Some(&mut piece.bytes))? {
            piece.lines += 1;
            let waited = begun.get_or_insert_with(Instant::now).elapsed();
            if piece.lines == LINES || piece.bytes.len() >= BYTES || waited >= GATHER {
                break;
            }
        }
        piece.read = self.read;
        Ok((piece.lines > 0).then_some(piece))
    }

    /// Reads one line, with its end; false at the end of the input.
    fn take_line(&mut self, mut into: Option<&mut Vec<u8>>) -> io::Result<bool> {
        let (mut length, mut kept) = (0, 0);
        loop {
            let available = match self.input.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if available.is_empty() {
                // A last line without an end is a line too.
                let is_line = length > 0;
                self.line += u64::from(is_line);
                if is_line && let Some(into) = &mut into {
                    into.push(b'\n');
                }
                return Ok(is_line);
            }
            let end = memchr::memchr(b'\n', available);
            let taken = end.map_or(available.len(), |at| at + 1);
            if let Some(into) = &mut into {
                let text = &available[..end.unwrap_or(taken)];
                let room = (LINE_BYTES - kept).min(text.len());
                into.extend_from_slice(&text[..room]);
                kept += room;
                if end.is_some() {
                    into.push(b'\n');
                }
            }
            length += taken;
            self.read += taken as u64;
            self.input.consume(taken);
            if end.is_some() {
                self.line += 1;
                return Ok(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str, from: u64) -> Vec<(u64, u64, String)> {
        // A buffer of three bytes: lines come in bits.
        let input = io::BufReader::with_capacity(3, text.as_bytes());
        let mut pieces = Pieces::new(input);
        assert!(pieces.skip_to(from).unwrap());
        std::iter::from_fn(|| pieces.next().unwrap())
            .map(|piece| {
                let text = String::from_utf8(piece.bytes).unwrap();
                (piece.first, piece.lines, text)
            })
            .collect()
    }

    #[test]
    fn lines_are_numbered_over_pieces_and_skips() {
        assert_eq!(all("", 1), []);
        assert_eq!(all("a\n\nlast", 1), [(1, 3, "a\n\nlast\n".to_owned())]);
        assert_eq!(all("one\ntwo\nthree\n", 3), [(3, 1, "three\n".to_owned())]);
        let many: String = (0..LINES * 2 + 1).map(|_| "x\n").collect();
        let pieces = all(&many, 2);
        let numbers: Vec<_> = pieces.iter().map(|piece| (piece.0, piece.1)).collect();
        assert_eq!(numbers, [(2, LINES), (LINES + 2, LINES)]);
        let mut short = Pieces::new(&b"one\n"[..]);
        assert!(!short.skip_to(5).unwrap());
    }

    #[test]
    fn a_line_without_end_takes_no_room() {
        let text = format!("{}\nshort\n", "x".repeat(3 * LINE_BYTES));
        let mut pieces = Pieces::new(text.as_bytes());
        let piece = pieces.next().unwrap().unwrap();
        assert_eq!((piece.lines, piece.bytes.len()), (2, LINE_BYTES + 7));
        assert_eq!(piece.read, text.len() as u64);
    }
}
