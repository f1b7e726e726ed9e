//! What is counted and logged of a request.
//!
//! Owns the request's times, its id, and the outcome; writes the counters, the
//! histograms and the access log line once, when the request ends, whatever
//! way it ends. Decides nothing.

use std::rc::Rc;
use std::sync::Arc;

use super::Work;
use super::client::{Client, Wire};
use super::exchange::Try;
use crate::edge::clock::Micros;
use crate::edge::gate;
use crate::edge::http1::head::{Span, Version};
use crate::edge::thread::Thread;
use crate::observe::access_log::Line;
use crate::observe::{Code, Counter, Gauge, Histogram};
use crate::policy::fair_queue::Key;
use crate::table::limits::{Hold, Refused};
use crate::table::{App, Checkout};

/// What a request takes less than at a time is not kept from it.
const BUFFER_KIB: u32 = 8;

/// Length of a UUID as text.
const UUID_BYTES: usize = 36;

/// A request's account.
pub struct Ledger {
    thread: Rc<Thread>,
    app: Option<Arc<App>>,
    /// Index in the app's backends of the last one tried.
    backend: Option<usize>,
    /// When its first bytes were there.
    pub began: Micros,
    /// The same, Unix milliseconds.
    pub received_at_ms: u64,
    /// When it was sent whole to the backend.
    pub sent_at: Option<Micros>,
    /// When the answer's first byte came.
    pub first_byte_at: Option<Micros>,
    /// Tries on backends.
    pub tries: u32,
    /// Time spent waiting for a backend with room.
    pub queue_us: u64,
    /// Time to connect in the last try.
    pub connect_us: Option<u64>,
    /// The last try's connection was used before.
    pub reused: bool,
    /// An interim answer went to the client.
    pub interim_sent: bool,
    /// Status sent; 499 where the client left first; 0 while none was.
    pub status: u16,
    /// Body bytes sent.
    pub bytes: u64,
    /// The code of an answer of the router's own, or of a cut.
    pub code: Option<Code>,
    /// The code's detail.
    pub cause: Option<&'static str>,
    /// The named limit that refused it.
    pub limited: Option<Refused>,
    /// Its places in the named limits it counts in until it ends.
    pub holds: Vec<Hold>,
    /// X-Forwarded-For as sent to the backend, in `sent`.
    pub forwarded_for: Span,
    /// KiB of buffers that its app is counted for.
    held_kib: u32,
    id: [u8; UUID_BYTES],
}

impl Ledger {
    /// A request whose head is read; its first bytes were there at `began`.
    pub fn begin(thread: &Rc<Thread>, began: Micros) -> Self {
        thread.cells.up(Gauge::InFlight);
        Ledger {
            thread: Rc::clone(thread),
            app: None,
            backend: None,
            began,
            received_at_ms: thread.clock.unix_ms(began),
            sent_at: None,
            first_byte_at: None,
            tries: 0,
            queue_us: 0,
            connect_us: None,
            reused: false,
            interim_sent: false,
            status: 0,
            bytes: 0,
            code: None,
            cause: None,
            limited: None,
            holds: Vec::new(),
            forwarded_for: Span::default(),
            held_kib: 0,
            id: [0; UUID_BYTES],
        }
    }

    /// The head is in: the request has an id, the client's or a new one.
    pub fn identify(&mut self, work: &Work) {
        if work.head.request_id.is_none() {
            let random = self.thread.random.borrow_mut().u128(..);
            let id = uuid::Builder::from_random_bytes(random.to_ne_bytes()).into_uuid();
            id.hyphenated().encode_lower(&mut self.id);
        }
    }

    /// The request's id; empty before [`identify`](Self::identify).
    pub fn request_id<'a>(&'a self, work: &'a Work) -> &'a [u8] {
        match work.head.request_id {
            _ if work.head_bytes == 0 => b"",
            Some(span) => span.of(work.input.data()),
            None => &self.id,
        }
    }

    /// Its app is known.
    pub fn found(&mut self, app: &Arc<App>) {
        app.live().cells[self.thread.index].begin();
        self.app = Some(Arc::clone(app));
    }

    /// It holds so many bytes of buffers, for its app's account; by how many KiB
    /// more than before.
    #[inline]
    pub fn holds(&mut self, bytes: usize) -> u32 {
        let Some(app) = &self.app else {
            return 0;
        };
        let now_kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let before_kib = std::mem::replace(&mut self.held_kib, now_kib);
        if now_kib != before_kib {
            self.thread.took(app, before_kib, now_kib);
        }
        now_kib.saturating_sub(before_kib)
    }

    /// The same; whether it grew by a buffer that others need more than its app.
    #[inline]
    pub fn outgrows(&mut self, bytes: usize) -> bool {
        let grew = self.holds(bytes) >= BUFFER_KIB;
        let app = self.app.as_ref().filter(|_| grew);
        let Some(app) = app.filter(|app| self.thread.is_spent_for(app)) else {
            return false;
        };
        self.thread.shed_for_memory(app);
        true
    }

    /// The app, once it is known.
    pub fn app(&self) -> Option<&Arc<App>> {
        self.app.as_ref()
    }

    /// Its line at the thread's gate.
    pub fn line_of(&self) -> Key {
        gate::line_of(self.app())
    }

    /// The code's detail: what was wrong, or the limit that refused it.
    pub fn cause(&self) -> Option<&str> {
        let limit = self.limited.as_ref().map(|limited| &*limited.name);
        self.cause.or(limit)
    }

    /// Another try begins.
    pub fn trying(&mut self, checkout: &Checkout) {
        self.with(checkout);
        self.tries += 1;
        self.connect_us = None;
        self.sent_at = None;
        self.first_byte_at = None;
    }

    /// A try begun earlier goes on.
    pub fn resuming(&mut self, one: &Try) {
        self.with(&one.checkout);
        self.reused = one.reused;
        self.connect_us = Some(one.connect_us);
        self.sent_at = one.sent_at;
        self.first_byte_at = None;
    }

    fn with(&mut self, checkout: &Checkout) {
        self.backend = Some(checkout.index());
        // The index is one of the version it was chosen from.
        if self
            .app
            .as_ref()
            .is_some_and(|app| !Arc::ptr_eq(app, checkout.app()))
        {
            self.app = Some(Arc::clone(checkout.app()));
        }
    }

    /// The answer's head is in.
    pub fn answered(&mut self, status: u16) {
        self.status = status;
        if let Some(took) = self.first_byte_us() {
            self.thread.cells.observe(Histogram::FirstByte, took);
        }
    }

    /// It ends without a backend's answer.
    pub fn ended(&mut self, status: u16, code: Code) {
        self.status = status;
        self.code = Some(code);
    }

    /// From the end of the request to the answer's first byte.
    pub fn first_byte_us(&self) -> Option<u64> {
        // An answer before the request's end took no time after it.
        let first = self.first_byte_at?;
        Some(first.saturating_sub(self.sent_at.unwrap_or(first)))
    }

    /// Counts and logs; the last thing that happens to a request.
    pub fn close<S: Wire>(self, client: &Client<S>, work: &Work) {
        let now = self.thread.clock.now();
        let total_us = now - self.began;
        let cells = &self.thread.cells;
        cells.inc(Counter::responses(self.status));
        cells.add(Counter::ClientSentBytes, self.bytes);
        cells.observe(Histogram::Total, total_us);
        if let Some(code) = self.code {
            cells.inc_code(code);
        }
        if let Some(app) = &self.app {
            app.live().cells[self.thread.index].answered(
                self.status,
                self.code,
                self.bytes,
                total_us,
            );
        }
        let in_vain = self.code == Some(Code::H11);
        let gate = &self.thread.gate;
        gate.charge(self.bytes, in_vain, || self.line_of());
        let mut log = self.thread.log.borrow_mut();
        if !log.enabled() {
            return;
        }
        if !self.thread.table.limits.flows.access_log.take(now) {
            log.leave_out();
        } else {
            log.push(&self.line(client, work, total_us));
        }
    }

    fn line<'a, S: Wire>(&'a self, client: &Client<S>, work: &'a Work, total_us: u64) -> Line<'a> {
        let input = work.input.data();
        let known = work.head_bytes > 0;
        let (method, path) = if known {
            (work.head.method_text.of(input), work.head.target.of(input))
        } else {
            first_words(input)
        };
        let backend = self
            .backend
            .and_then(|index| self.app.as_ref()?.backends.get(index));
        Line {
            method,
            path,
            host: if known {
                work.head.host.as_bytes()
            } else {
                b""
            },
            request_id: self.request_id(work),
            fwd: self.forwarded_for.of(&work.sent),
            client: Some(client.peer.ip()),
            app: self.app.as_ref().map_or("", |app| &app.name),
            backend: backend.map_or("", |backend| &backend.id),
            release: backend.map_or("", |backend| backend.release()),
            tries: self.tries,
            queue_us: self.app.as_ref().map(|_| self.queue_us),
            connect_us: self.connect_us,
            first_byte_us: self.first_byte_us(),
            total_us,
            status: self.status,
            bytes: self.bytes,
            protocol: match work.head.version {
                Version::Http10 if known => "http1.0",
                _ => "http1.1",
            },
            tls: "",
            code: self.code,
            cause: self.cause(),
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.holds(0);
        self.thread.cells.down(Gauge::InFlight);
    }
}

/// Method and target of a request that was refused, as far as they look like
/// it: an operator wants to know what it was.
fn first_words(input: &[u8]) -> (&[u8], &[u8]) {
    const SHOWN_BYTES: usize = 256;
    let line = input
        .split(|&b| b == b'\r' || b == b'\n')
        .find(|line| !line.is_empty());
    let line = line.unwrap_or_default();
    let mut words = line[..line.len().min(SHOWN_BYTES)].split(|&b| b == b' ');
    (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::first_words;

    #[test]
    fn a_refused_request_still_shows_its_first_words() {
        assert_eq!(
            first_words(b"GET /a HTTP/1.1\nHost: x"),
            (&b"GET"[..], &b"/a"[..])
        );
        assert_eq!(first_words(b"\r\n\r\nG"), (&b"G"[..], &b""[..]));
        assert_eq!(first_words(b""), (&b""[..], &b""[..]));
    }
}
