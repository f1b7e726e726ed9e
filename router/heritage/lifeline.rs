//! The lifeline: a socket pair between the supervisor and one child.
//!
//! Small JSON datagrams (`SOCK_SEQPACKET`, so a message is whole or absent)
//! with a version: pings, orders and the process table down, pongs and
//! *ready* up. A closed lifeline means that the other side is gone. Carries
//! nothing of the data plane. A message one side does not know is ignored,
//! so an upgraded supervisor may say more than its older children understand.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize};

use super::process::ProcessStatus;

/// The form of a datagram.
const VERSION: u32 = 1;
/// The longest datagram, in bytes: a process table with every last word fits.
const MAX_DATAGRAM_BYTES: usize = 64 << 10;

/// An open file on its way to a child. Equal to its copies alone.
#[derive(Clone, Debug)]
pub struct Parcel(Arc<File>);

impl From<File> for Parcel {
    fn from(file: File) -> Parcel {
        Parcel(Arc::new(file))
    }
}

impl From<Parcel> for Arc<File> {
    fn from(parcel: Parcel) -> Arc<File> {
        parcel.0
    }
}

impl AsFd for Parcel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl PartialEq for Parcel {
    fn eq(&self, other: &Parcel) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What the supervisor asks of a child.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Accept and serve: for an edge that is [`Report::Warm`]. It answers
    /// [`Report::Ready`].
    Serve,
    /// A successor serves: accept nothing new, but cut nobody who still talks
    /// before `edge.handover_timeout` is up; then exit 0. The table is kept
    /// current meanwhile.
    HandOver,
    /// The router shuts down: take what already waits in the listeners, accept nothing new, finish
    /// what is in flight, then exit 0.
    Drain,
    /// The access log was opened anew, because somebody moved it: write to
    /// this file from now on. `None`: the log is no file.
    Reopen(Option<Parcel>),
    /// The process table, whenever it changed (for control).
    Processes(Vec<ProcessStatus>),
    /// The supervisor is gone: do as for [`Order::Drain`]. The last order.
    Orphaned,
}

/// What a child tells the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// An edge holds its table and waits for [`Order::Serve`].
    Warm,
    /// It serves.
    Ready,
    /// Control passes on that an operator wants an upgrade, as SIGUSR2 does.
    Upgrade,
    /// It lives; the number is the ping's.
    Pong(u64),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Down {
    Ping(u64),
    Serve,
    HandOver,
    Drain,
    Reopen,
    Processes(Vec<ProcessStatus>),
}

#[derive(Debug, Serialize, Deserialize)]
struct Datagram<M> {
    version: u32,
    say: M,
}

fn encode<M: Serialize>(say: M) -> Vec<u8> {
    serde_json::to_vec(&Datagram {
        version: VERSION,
        say,
    })
    .expect("a lifeline message must be JSON: it holds no map and no float")
}

/// `None`: another version or a message not known here.
fn decode<M: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Option<M> {
    let datagram: Datagram<M> = serde_json::from_slice(bytes).ok()?;
    (datagram.version == VERSION).then_some(datagram.say)
}

/// The next datagram, and the file that came with it.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Result<(usize, Option<File>), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut text = [IoSliceMut::new(buffer)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(socket, &mut text, &mut control, flags)?;
    let files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    // More than one is none of ours; what is not kept is closed here.
    let file = files.flatten().last().map(File::from);
    Ok((received.bytes, file))
}

/// A connected pair: the supervisor's end (non-blocking) and the child's.
///
/// # Errors
/// The system's, when it is out of descriptors.
pub(crate) fn pair() -> std::io::Result<(Tether, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    let kind = SocketType::SEQPACKET;
    let (above, below) = rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None)?;
    rustix::io::ioctl_fionbio(&above, true)?;
    Ok((Tether { socket: above }, below))
}

/// The child's end. Cheap to clone; all clones speak for the same child.
#[derive(Clone, Debug)]
pub struct Lifeline {
    socket: Arc<OwnedFd>,
}

impl Lifeline {
    pub(super) fn new(socket: OwnedFd) -> Lifeline {
        Lifeline {
            socket: Arc::new(socket),
        }
    }

    /// Both ends of a new lifeline, for tests of a child's code.
    ///
    /// # Errors
    /// The system's, when it is out of descriptors.
    pub fn pair() -> std::io::Result<(Tether, Lifeline)> {
        let (tether, below) = pair()?;
        Ok((tether, Lifeline::new(below)))
    }

    /// Tells the supervisor that this edge could serve at once.
    pub fn warm(&self) {
        self.report(Report::Warm);
    }

    /// Passes an operator's wish on: upgrade to the binary on disk. What came
    /// of it is told in the supervisor's row of the process table.
    pub fn ask_upgrade(&self) {
        self.report(Report::Upgrade);
    }

    /// Tells the supervisor that this child serves. If the supervisor is
    /// gone, nobody is left to care: [`Lifeline::serve`] says so.
    pub fn ready(&self) {
        self.report(Report::Ready);
    }

    /// Answers pings and passes orders on until the supervisor is gone; the
    /// last order is [`Order::Orphaned`]. Blocks: give it a small thread of
    /// its own, early, since ten seconds without an answer are taken for a
    /// stall.
    ///
    /// A ping is answered only while `alive` says so: it should be true as
    /// long as the threads that do the work make progress.
    pub fn serve(&self, alive: impl Fn() -> bool, mut on_order: impl FnMut(Order)) {
        let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
        loop {
            let (length, file) = match receive(&self.socket, &mut buffer) {
                Ok((length @ 1.., file)) => (length, file),
                Err(Errno::INTR) => continue,
                Ok((0, _)) | Err(_) => return on_order(Order::Orphaned),
            };
            match decode(&buffer[..length]) {
                Some(Down::Ping(number)) if alive() => self.report(Report::Pong(number)),
                Some(Down::Ping(_)) | None => {}
                Some(Down::Serve) => on_order(Order::Serve),
                Some(Down::HandOver) => on_order(Order::HandOver),
                Some(Down::Drain) => on_order(Order::Drain),
                Some(Down::Reopen) => on_order(Order::Reopen(file.map(Parcel::from))),
                Some(Down::Processes(table)) => on_order(Order::Processes(table)),
            }
        }
    }

    fn report(&self, report: Report) {
        // A send fails only when the supervisor is gone, and `serve` sees that.
        let _ = rustix::net::send(&self.socket, &encode(report), SendFlags::NOSIGNAL);
    }
}

/// The supervisor's end of a lifeline.
#[derive(Debug)]
pub struct Tether {
    socket: OwnedFd,
}

/// As a successor of the supervisor takes it over: non-blocking as it was.
impl From<OwnedFd> for Tether {
    fn from(socket: OwnedFd) -> Tether {
        Tether { socket }
    }
}

/// What was found on a tether.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// A report of the child.
    Report(Report),
    /// Something that cannot be understood: a later version's, or nonsense.
    Unknown,
    /// Nothing more for now.
    Quiet,
    /// The child closed its end: it is dead or about to be.
    Closed,
}

impl Tether {
    /// Asks the child for a sign of life. False: the child does not read.
    pub fn ping(&self, number: u64) -> bool {
        self.send(Down::Ping(number))
    }

    /// Gives an order. False: it did not get through; the child is dead or
    /// does not read. [`Order::Orphaned`] is said by closing, so it is never
    /// sent.
    pub fn order(&self, order: Order) -> bool {
        match order {
            Order::Serve => self.send(Down::Serve),
            Order::HandOver => self.send(Down::HandOver),
            Order::Drain => self.send(Down::Drain),
            Order::Reopen(file) => self.send_with(Down::Reopen, file.as_ref()),
            Order::Processes(table) => self.send(Down::Processes(table)),
            Order::Orphaned => true,
        }
    }

    fn send(&self, say: Down) -> bool {
        self.send_with(say, None)
    }

    fn send_with(&self, say: Down, file: Option<&Parcel>) -> bool {
        let bytes = encode(say);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let files: Vec<BorrowedFd<'_>> = file.iter().map(|parcel| parcel.0.as_fd()).collect();
        let fits = files.is_empty() || control.push(SendAncillaryMessage::ScmRights(&files));
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let text = [IoSlice::new(&bytes)];
        fits && bytes.len() <= MAX_DATAGRAM_BYTES
            && rustix::net::sendmsg(&self.socket, &text, &mut control, flags).is_ok()
    }

    /// The next datagram, without waiting. One at a time: whoever hears decides
    /// how many a child may say before others are heard.
    pub fn hear(&self) -> Heard {
        let mut buffer = [0; 1024];
        loop {
            match rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Heard::Closed,
                Ok((length, _)) => {
                    return decode(&buffer[..length]).map_or(Heard::Unknown, Heard::Report);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Heard::Quiet,
                Err(_) => return Heard::Closed,
            }
        }
    }
}

impl AsFd for Tether {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
