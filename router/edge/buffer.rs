//! Read buffers: initialised once, recycled within the thread.
//!
//! Owns [`Buffer`], bytes between two cursors, and the thread's [`Buffers`],
//! bounded stacks of idle ones. Who waits for somebody else's bytes holds none,
//! or, of what has come so far, one that is not much larger than that
//! ([`Buffers::park`]): thousands may wait at once.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

use super::budget::{self, Budget, FRUGAL};

/// A buffer's size when taken. Large enough for nearly every head and for a
/// small answer whole.
pub const SMALL_BYTES: usize = 16 * 1024;

/// What bytes that wait for others are kept in, if there are few: the smallest
/// of these that leaves [`PARKED_ROOM`].
const PARKED_BYTES: [usize; 4] = [512, 2 * 1024, 4 * 1024, 8 * 1024];

/// Room that parking leaves, for what comes meanwhile.
pub const PARKED_ROOM: usize = 256;

/// What a body in full flow is relayed with.
pub const LARGE_BYTES: usize = 128 * 1024;

/// Idle buffers kept by a thread, of each size.
const KEPT_PARKED: usize = 256;
const KEPT_SMALL: usize = 512;
const KEPT_LARGE: usize = 32;
/// Of the smaller sizes, while memory is to be saved; none is of the large one.
const KEPT_FRUGAL: usize = 16;

/// Bytes read and not yet used lie in `start..end`.
#[derive(Default)]
pub struct Buffer {
    storage: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// An empty one with room for `bytes`.
    pub fn with_room(bytes: usize) -> Self {
        budget::took(bytes);
        Buffer {
            storage: vec![0; bytes],
            start: 0,
            end: 0,
        }
    }

    /// What was read and not used.
    pub fn data(&self) -> &[u8] {
        &self.storage[self.start..self.end]
    }

    /// The same, for filters that work in place.
    pub fn data_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.end]
    }

    /// Bytes not used.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether nothing is left to use.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes that could be read without moving or growing anything.
    pub fn room(&self) -> usize {
        self.storage.len() - self.end
    }

    /// Bytes it holds at most as it is.
    pub fn capacity(&self) -> usize {
        self.storage.len()
    }

    /// The first `n` unused bytes are done with.
    pub fn consume(&mut self, n: usize) {
        self.start += n;
        debug_assert!(
            self.start <= self.end,
            "no more may be consumed than was read"
        );
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Keeps the first `kept` unused bytes and what follows the first `used`;
    /// those between were dropped by a filter.
    pub fn close_gap(&mut self, kept: usize, used: usize) {
        if kept < used {
            let (from, to) = (self.start + used, self.start + kept);
            self.storage.copy_within(from..self.end, to);
            self.end -= used - kept;
        }
    }

    /// Keeps the first `kept` unused bytes.
    pub fn truncate(&mut self, kept: usize) {
        self.end = self.end.min(self.start + kept);
    }

    /// Forgets all bytes.
    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// Moves what is left to the front.
    pub fn compact(&mut self) {
        if self.start > 0 {
            self.storage.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }

    /// Makes room for at least `bytes` in all; what is held stays.
    pub fn grow(&mut self, bytes: usize) {
        if self.storage.len() < bytes {
            self.compact();
            let more = bytes - self.storage.len();
            budget::took(more);
            // Not up to twice as much, which nobody would count.
            self.storage.reserve_exact(more);
            self.storage.resize(bytes, 0);
        }
    }

    /// Appends bytes, growing as needed.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.room() < bytes.len() {
            self.compact();
            self.grow(self.end + bytes.len());
        }
        self.storage[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Reads once, at most `most` bytes, into the room there is. Ready(0) is
    /// the end of the stream (or no room: check first).
    pub fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let room = self.room().min(most);
        let mut into = ReadBuf::new(&mut self.storage[self.end..self.end + room]);
        match Pin::new(stream).poll_read(cx, &mut into) {
            Poll::Ready(Ok(())) => {
                let read = into.filled().len();
                self.end += read;
                Poll::Ready(Ok(read))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !self.storage.is_empty() {
            budget::gave(self.storage.len());
        }
    }
}

/// A thread's idle buffers.
#[derive(Default)]
pub struct Buffers {
    budget: Budget,
    is_frugal: Cell<bool>,
    parked: [RefCell<Vec<Buffer>>; PARKED_BYTES.len()],
    small: RefCell<Vec<Buffer>>,
    large: RefCell<Vec<Buffer>>,
}

impl Buffers {
    /// None yet; those made count against the budget.
    pub fn within(budget: Budget) -> Buffers {
        Buffers {
            budget,
            ..Buffers::default()
        }
    }

    /// Whether memory is to be saved from now on: what is idle is then freed.
    pub fn save(&self, is_frugal: bool) {
        self.is_frugal.set(is_frugal);
        if is_frugal {
            for parked in &self.parked {
                parked.borrow_mut().truncate(KEPT_FRUGAL);
            }
            self.small.borrow_mut().truncate(KEPT_FRUGAL);
            self.large.borrow_mut().clear();
        }
    }

    /// An empty buffer of [`SMALL_BYTES`].
    pub fn small(&self) -> Buffer {
        self.small
            .borrow_mut()
            .pop()
            .unwrap_or_else(|| Buffer::with_room(SMALL_BYTES))
    }

    /// An empty buffer of [`LARGE_BYTES`], or a small one where memory is to be
    /// saved.
    pub fn large(&self) -> Buffer {
        if let Some(buffer) = self.large.borrow_mut().pop() {
            return buffer;
        }
        if self.budget.pressure() >= FRUGAL {
            if !self.is_frugal.get() {
                // At once: what a burst leaves idle counts as held.
                self.save(true);
            }
            return self.small();
        }
        Buffer::with_room(LARGE_BYTES)
    }

    /// Lets go of what a wait does not need: an empty buffer whole, of one with
    /// few bytes all but room for these.
    #[inline]
    pub fn park(&self, buffer: &mut Buffer) {
        if buffer.is_empty() {
            if buffer.capacity() > 0 {
                self.put(std::mem::take(buffer));
            }
            return;
        }
        let needed = buffer.len() + PARKED_ROOM;
        let Some(size) = PARKED_BYTES.iter().position(|bytes| *bytes >= needed) else {
            return;
        };
        if PARKED_BYTES[size] < buffer.capacity() {
            let parked = self.parked[size].borrow_mut().pop();
            let mut parked = parked.unwrap_or_else(|| Buffer::with_room(PARKED_BYTES[size]));
            parked.extend(buffer.data());
            self.put(std::mem::replace(buffer, parked));
        }
    }

    /// At least [`SMALL_BYTES`] again.
    #[inline]
    pub fn unpark(&self, buffer: &mut Buffer) {
        if buffer.capacity() < SMALL_BYTES {
            let mut small = self.small();
            small.extend(buffer.data());
            self.put(std::mem::replace(buffer, small));
        }
    }

    /// Bytes of those that wait for their next taker.
    pub fn idle_bytes(&self) -> usize {
        let parked = self.parked.iter().zip(PARKED_BYTES);
        parked
            .map(|(idle, bytes)| idle.borrow().len() * bytes)
            .sum::<usize>()
            + self.small.borrow().len() * SMALL_BYTES
            + self.large.borrow().len() * LARGE_BYTES
    }

    /// Back for the next taker; one of an odd size is freed.
    pub fn put(&self, mut buffer: Buffer) {
        buffer.clear();
        let (stack, kept) = match buffer.capacity() {
            SMALL_BYTES => (&self.small, KEPT_SMALL),
            LARGE_BYTES => (&self.large, KEPT_LARGE),
            bytes => match PARKED_BYTES.iter().position(|parked| *parked == bytes) {
                Some(size) => (&self.parked[size], KEPT_PARKED),
                None => return,
            },
        };
        let kept = match self.is_frugal.get() {
            false => kept,
            true if kept == KEPT_LARGE => 0,
            true => KEPT_FRUGAL,
        };
        let mut stack = stack.borrow_mut();
        if stack.len() < kept {
            stack.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in_over_any_moves() {
        let mut buffer = Buffer::with_room(8);
        buffer.extend(b"abcdefgh");
        buffer.consume(5);
        buffer.extend(b"ijklmnop");
        assert_eq!(buffer.data(), b"fghijklmnop");
        buffer.grow(64);
        buffer.compact();
        assert_eq!(
            (buffer.data(), buffer.capacity()),
            (&b"fghijklmnop"[..], 64)
        );
        buffer.consume(11);
        assert_eq!((buffer.is_empty(), buffer.room()), (true, 64));
    }

    #[test]
    fn who_waits_keeps_little_and_loses_nothing() {
        let buffers = Buffers::default();
        let mut buffer = buffers.small();
        buffer.extend(b"xxGET /");
        buffer.consume(2);
        buffers.park(&mut buffer);
        assert_eq!((buffer.data(), buffer.capacity()), (&b"GET /"[..], 512));
        assert_eq!(buffers.small.borrow().len(), 1);
        buffers.unpark(&mut buffer);
        assert_eq!(
            (buffer.data(), buffer.capacity()),
            (&b"GET /"[..], SMALL_BYTES)
        );
        buffer.consume(5);
        buffers.park(&mut buffer);
        assert_eq!(buffer.capacity(), 0);
        assert_eq!(buffers.parked[0].borrow().len(), 1);
    }

    #[test]
    fn the_more_there_is_the_larger_what_it_is_kept_in() {
        let buffers = Buffers::default();
        for (held, kept_in) in [
            (256, 512),
            (257, 2_048),
            (2_048, 4_096),
            (7_936, 8_192),
            (7_937, SMALL_BYTES),
        ] {
            let mut buffer = buffers.small();
            let bytes = vec![7; held];
            buffer.extend(&bytes);
            buffers.park(&mut buffer);
            assert_eq!((buffer.data(), buffer.capacity()), (&bytes[..], kept_in));
            // It would not become smaller.
            buffers.park(&mut buffer);
            assert_eq!(buffer.capacity(), kept_in);
        }
    }

    #[test]
    fn buffers_are_recycled_empty_and_odd_sizes_are_not_kept() {
        let buffers = Buffers::default();
        let mut one = buffers.small();
        one.extend(b"secret");
        buffers.put(one);
        assert!(buffers.small().is_empty());
        buffers.put(Buffer::with_room(1));
        assert!(buffers.small.borrow().is_empty());
    }
}
