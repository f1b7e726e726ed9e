//! A client's connection between and around requests.
//!
//! Owns the waiting (keepalive idle, first head), the reading of heads within
//! their deadline, writes of small answers, and the connection's own moments
//! while its edge leaves. Holds no buffer while it waits, and of a head that is
//! not whole little more than its bytes.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::Work;
use crate::edge::buffer::Buffer;
use crate::edge::clock::{Deadline, Micros};
use crate::edge::door::Pass;
use crate::edge::http1::head::Limits;
use crate::edge::http1::request::{self, Refusal};
use crate::edge::http1::request_writer::Peer;
use crate::edge::http1::scan::Scan;
use crate::edge::leaving::{Departure, Occasion};
use crate::edge::proxy_protocol::{self, Preface};
use crate::edge::roster::Awaits;
use crate::edge::thread::Thread;
use crate::observe::Counter;
use crate::settings::Clients;

/// A small answer of the router's own must be taken within this.
const TAKEN: Duration = Duration::from_secs(10);

/// Bytes that the kernel has and the event loop was not told of are told of
/// within this.
const UNTOLD: Duration = Duration::from_millis(100);

/// A head up to this long is read from its start each time there is more of it.
const REREAD_BYTES: usize = 2 * 1024;

/// What a client is told whose head did not come in time.
const LATE: Refusal = Refusal {
    status: 408,
    cause: "head not in time",
};

/// A byte stream to a client.
pub trait Wire: AsyncRead + AsyncWrite + Unpin {
    /// Makes the close that follows visible as a failure: the peer must not
    /// take a broken-off answer for a whole one.
    fn reset_on_close(&self);

    /// The socket itself, where its bytes are the stream's: not under TLS.
    fn socket(&self) -> Option<&TcpStream>;

    /// Whether bytes arrived that nobody read. Asks the system: the event loop
    /// may not have been told yet.
    fn has_unread(&self) -> bool;
}

impl Wire for TcpStream {
    fn reset_on_close(&self) {
        // Failing to is harmless: framing shows the break to all but
        // close-delimited readers.
        let _ = self.set_zero_linger();
    }

    fn socket(&self) -> Option<&TcpStream> {
        Some(self)
    }

    fn has_unread(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        matches!(rustix::net::recv(self, &mut [0u8; 1], flags), Ok((1.., _)))
    }
}

/// A client's connection.
pub struct Client<S> {
    /// The thread it lives on.
    pub thread: Rc<Thread>,
    /// Its byte stream.
    pub stream: S,
    /// Who is at the other end.
    pub peer: SocketAddr,
    /// What backends are told of it.
    pub forwarded: Peer,
    /// Its one deadline.
    pub deadline: Deadline,
    /// Requests answered on it.
    pub served: u64,
    /// When the head that has begun must be whole; 0: none has that is awaited.
    /// One moment for all that comes before a request, however it is dripped.
    head_due: Micros,
    /// What it counts by, if a balancer said whose it is.
    pass: Option<Pass>,
    departure: Departure,
}

/// A client's address without its IPv4-mapped form, and what backends are told.
fn introduce(thread: &Thread, peer: SocketAddr, local: SocketAddr) -> (SocketAddr, Peer) {
    let ip = peer.ip().to_canonical();
    let trusted = thread.shared.settings.edge.trusts(ip);
    let forwarded = Peer::new(ip, "http", local.port(), trusted);
    (SocketAddr::new(ip, peer.port()), forwarded)
}

/// What came of waiting.
pub enum Ready {
    /// Bytes of a request are there.
    Request,
    /// The connection ends, without a request.
    Closed(Counter),
    /// The same, by the router's own doing: its client may be about to send.
    Dismissed(Counter),
}

/// Why nothing more is waited for.
enum Lapsed {
    /// The deadline is over.
    Late,
    /// Another needs its place.
    Dismissed,
    /// Its edge leaves, and its time is over.
    Forced,
}

/// Why there is no head.
pub enum Unread {
    /// It breaks the grammar or a limit, or was too slow: answered and closed.
    Refused(Box<Work>, Refusal),
    /// The client went away.
    Gone(Counter),
}

impl<S: Wire> Client<S> {
    /// A connection just accepted.
    pub fn new(thread: &Rc<Thread>, stream: S, peer: SocketAddr, local: SocketAddr) -> Self {
        let deadline = thread.clock.deadline();
        let (peer, forwarded) = introduce(thread, peer, local);
        Client {
            thread: Rc::clone(thread),
            stream,
            peer,
            forwarded,
            deadline,
            served: 0,
            head_due: 0,
            pass: None,
            departure: Departure::default(),
        }
    }

    /// Whether the connection may carry another request after this one.
    pub fn may_be_kept(&self) -> bool {
        self.thread.is_serving()
    }

    /// Ready once its edge leaves and what is busy on it has to end (H24).
    #[inline]
    pub fn poll_forced(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.thread.is_serving() {
            return Poll::Pending;
        }
        let thread = &self.thread;
        match thread.stand() {
            Some(stand) => {
                let place = || thread.take_place();
                self.departure.poll_forced(cx, &thread.clock, &stand, place)
            }
            None => Poll::Pending,
        }
    }

    /// Ready once its edge leaves and it, idle, has to end.
    fn poll_dismissed(&mut self, cx: &mut Context<'_>) -> Poll<Counter> {
        let thread = &self.thread;
        let Some(stand) = thread.stand() else {
            return Poll::Pending;
        };
        let place = || thread.take_place();
        let is_fresh = self.served == 0;
        loop {
            let (departure, clock) = (&mut self.departure, &thread.clock);
            ready!(departure.poll_idle(cx, clock, &stand, is_fresh, place));
            if stand.is_forced || !self.stream.has_unread() {
                return Poll::Ready(match stand.timetable.occasion {
                    Occasion::HandOver => Counter::ClosedHandedOver,
                    Occasion::Drain => Counter::ClosedDraining,
                });
            }
            // A request is there: it will be read in a moment.
            departure.postpone(clock, UNTOLD);
        }
    }

    /// Takes a trusted balancer's PROXY protocol header off the front of a
    /// connection: from then on the client is who it says.
    pub async fn unwrap_proxy(&mut self, carried: &mut Buffer) -> Result<(), Counter> {
        if self.served > 0 || !self.forwarded.trusted() {
            return Ok(());
        }
        self.begin_head();
        loop {
            match proxy_protocol::read(carried.data()) {
                Preface::Absent => return Ok(()),
                Preface::Malformed => return Err(Counter::ClosedMalformed),
                Preface::Header { bytes, ends } => {
                    carried.consume(bytes);
                    if let Some((client, reached)) = ends {
                        (self.peer, self.forwarded) = introduce(&self.thread, client, reached);
                        // A proxy behind the balancer stands for many, too.
                        if !self.forwarded.trusted() {
                            let door = &self.thread.shared.door;
                            self.pass = door
                                .enter(client.ip())
                                .map_err(|_| Counter::ClosedAddress)?;
                        }
                    }
                    return Ok(());
                }
                Preface::Partial => {}
            }
            match self.read_more(carried).await {
                Ok(Ok(1..)) => {}
                Ok(_) => return Err(Counter::ClosedByClient),
                Err(Lapsed::Late) => return Err(Counter::ClosedHeadTimeout),
                Err(Lapsed::Dismissed) => return Err(Counter::ClosedEvicted),
                Err(Lapsed::Forced) => return Err(Counter::ClosedForced),
            }
        }
    }

    /// A head, or what comes before the first, has begun: from here its time
    /// runs, once.
    fn begin_head(&mut self) {
        if self.head_due == 0 {
            let timeout = self.settings().head_timeout;
            self.deadline.set_after(self.thread.clock.now(), timeout);
            self.head_due = self.deadline.due();
            self.thread.roster.enter(self.deadline.slot(), Awaits::Head);
        } else {
            self.deadline.set(self.head_due);
        }
    }

    /// Reads once, behind what `input` has of a head. While nothing comes it
    /// keeps little more than that.
    async fn read_more(&mut self, input: &mut Buffer) -> Result<io::Result<usize>, Lapsed> {
        poll_fn(|cx| {
            self.thread.buffers.unpark(input);
            let room = input.room();
            if let Poll::Ready(read) = input.poll_read(cx, &mut self.stream, room) {
                return Poll::Ready(Ok(read));
            }
            self.thread.buffers.park(input);
            self.poll_lapsed(cx).map(Err)
        })
        .await
    }

    fn settings(&self) -> &Clients {
        &self.thread.shared.settings.edge.clients
    }

    /// Ready once the deadline is over, or the edge's time.
    fn poll_lapsed(&mut self, cx: &mut Context<'_>) -> Poll<Lapsed> {
        if self.poll_forced(cx).is_ready() {
            return Poll::Ready(Lapsed::Forced);
        }
        // Whatever the deadline says, which may have been set anew since.
        if self.thread.roster.is_dismissed(self.deadline.slot()) {
            return Poll::Ready(Lapsed::Dismissed);
        }
        self.deadline.poll(cx).map(|()| Lapsed::Late)
    }

    /// It waits for nothing that others could do without.
    pub fn await_no_more(&self) {
        self.thread.roster.leave(self.deadline.slot());
    }

    /// Waits for the first bytes of the next request; what an earlier one left
    /// in `carried` counts.
    pub async fn wait(&mut self, carried: &mut Buffer) -> Ready {
        if !carried.is_empty() {
            return Ready::Request;
        }
        let clock = &self.thread.clock;
        if self.head_due > 0 {
            // A balancer's header came, and its time is the request's too.
            self.deadline.set(self.head_due);
        } else if self.served == 0 {
            let patience = self.settings().head_timeout;
            self.deadline.set_after(clock.now(), patience);
        } else {
            let patience = self.settings().keepalive_timeout;
            self.deadline.set_after(clock.recent(), patience);
        }
        let awaits = match self.served {
            0 => Awaits::Head,
            _ => Awaits::Request,
        };
        let mut is_listed = self.head_due > 0;
        let ready = poll_fn(|cx| {
            let polled = self.poll_request(cx, carried);
            if polled.is_pending() && !std::mem::replace(&mut is_listed, true) {
                self.thread.roster.enter(self.deadline.slot(), awaits);
            }
            polled
        })
        .await;
        if is_listed && self.head_due == 0 {
            self.await_no_more();
        }
        ready
    }

    fn poll_request(&mut self, cx: &mut Context<'_>, carried: &mut Buffer) -> Poll<Ready> {
        let mut buffer = if carried.capacity() > 0 {
            std::mem::take(carried)
        } else {
            self.thread.buffers.small()
        };
        let room = buffer.room();
        let read = buffer.poll_read(cx, &mut self.stream, room);
        if let Poll::Ready(Ok(1..)) = read {
            *carried = buffer;
            return Poll::Ready(Ready::Request);
        }
        self.thread.buffers.put(buffer);
        if let Poll::Ready(read) = read {
            let reason = if read.is_ok() {
                Counter::ClosedByClient
            } else {
                Counter::ClosedError
            };
            return Poll::Ready(Ready::Closed(reason));
        }
        if !self.thread.is_serving() {
            let dismissed = self.poll_dismissed(cx);
            if dismissed.is_ready() {
                return dismissed.map(Ready::Dismissed);
            }
        }
        ready!(self.deadline.poll(cx));
        if !self.thread.roster.is_dismissed(self.deadline.slot()) {
            return Poll::Ready(Ready::Closed(Counter::ClosedIdle));
        }
        if !self.stream.has_unread() {
            return Poll::Ready(Ready::Closed(Counter::ClosedEvicted));
        }
        // A request is there: it will be read in a moment.
        self.await_no_more();
        self.deadline.set_after(self.thread.clock.now(), UNTOLD);
        self.deadline
            .poll(cx)
            .map(|()| Ready::Closed(Counter::ClosedIdle))
    }

    /// Reads and parses a head, whose first bytes are in `input`: it goes with
    /// it.
    pub async fn read_head(&mut self, input: &mut Buffer) -> Result<Box<Work>, Unread> {
        let mut begun = None;
        loop {
            if let Some(work) = self.parse(input, &mut begun)? {
                return Ok(work);
            }
            self.begin_head();
            self.thread.buffers.unpark(input);
            if input.room() == 0 {
                input.compact();
                if input.room() == 0 {
                    input.grow(input.capacity() * 2);
                }
            }
            match self.read_more(input).await {
                Ok(Ok(1..)) => {}
                Ok(_) => return Err(Unread::Gone(Counter::ClosedClientAborted)),
                Err(Lapsed::Forced) => return Err(Unread::Gone(Counter::ClosedForced)),
                Err(Lapsed::Dismissed) => return Err(Unread::Gone(Counter::ClosedEvicted)),
                Err(Lapsed::Late) => {
                    let mut work = begun.unwrap_or_else(|| self.thread.take_work());
                    work.input = std::mem::take(input);
                    return Err(Unread::Refused(work, LATE));
                }
            }
        }
    }

    /// The head, if it is whole. What is known of a longer one that is not stays
    /// in `begun`; a short one is read anew when there is more of it, which
    /// costs less than keeping a working set for each of thousands that drip.
    fn parse(
        &mut self,
        input: &mut Buffer,
        begun: &mut Option<Box<Work>>,
    ) -> Result<Option<Box<Work>>, Unread> {
        let mut work = begun.take().unwrap_or_else(|| {
            let mut work = self.thread.take_work();
            work.scan = Scan::default();
            work
        });
        let (scan, head) = (&mut work.scan, &mut work.head);
        match request::parse_request(input.data(), scan, &Limits::REQUEST, head) {
            Ok(Some(bytes)) => {
                work.head_bytes = bytes;
                work.input = std::mem::take(input);
                if std::mem::take(&mut self.head_due) > 0 {
                    self.await_no_more();
                }
                Ok(Some(work))
            }
            Ok(None) if input.len() > REREAD_BYTES => {
                *begun = Some(work);
                Ok(None)
            }
            Ok(None) => {
                self.thread.put_work(work);
                Ok(None)
            }
            Err(refusal) => {
                work.input = std::mem::take(input);
                Err(Unread::Refused(work, refusal))
            }
        }
    }

    /// Writes a small answer whole, within [`TAKEN`].
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.deadline.set_after(self.thread.clock.now(), TAKEN);
        poll_fn(|cx| {
            while !bytes.is_empty() {
                match Pin::new(&mut self.stream).poll_write(cx, bytes) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(n)) => bytes = &bytes[n..],
                    Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                    Poll::Pending => {
                        return self
                            .poll_lapsed(cx)
                            .map(|_| Err(io::ErrorKind::TimedOut.into()));
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Notices a client that leaves while its answer is awaited. Bytes of its
    /// next requests are kept in `input` as far as there is room.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>, input: &mut Buffer) -> Poll<()> {
        loop {
            let room = input.room();
            if room == 0 {
                return Poll::Pending;
            }
            match input.poll_read(cx, &mut self.stream, room) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
