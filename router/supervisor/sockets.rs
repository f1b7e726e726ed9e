//! Every listening socket of the router: bound once, kept for the
//! supervisor's whole life, lent to its children. Never accepts from one.
//!
//! - **Invariant**: for each `edge.http` address there are at least as many
//!   sockets as data threads, and never fewer than before while the address
//!   stays: closing one would reset the connections waiting in it.
//! - **Invariant**: no connection waits in a socket that nobody is going to accept
//!   from. What new settings bind is listened on by the first edge that has it,
//!   when that begins to serve; and not any more when one serves that lacks it.
//!   Only before any edge serves does the backlog hold clients.

mod door;
mod state;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, Timespec};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::ownership;
use crate::heritage::{BACKLOG, Bequest, Footing, Parcel};
use crate::settings::Settings;
use door::Door;
pub(super) use state::SocketsState;

/// How often a bind is tried again while the children of a supervisor that
/// was killed finish.
const RETRIES: u32 = 50;
/// Between two of those, nanoseconds.
const RETRY_PAUSE_NS: i64 = 100_000_000;

/// A socket that could not be had.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {address}: {source}")]
pub struct BindError {
    /// The setting that asks for it.
    key: &'static str,
    /// The address or path.
    address: String,
    /// What the system said.
    source: io::Error,
}

/// One `edge.http` address: its sockets share the port, and the kernel
/// spreads connections over them.
#[derive(Debug)]
struct Group {
    asked: SocketAddr,
    bound: SocketAddr,
    doors: Vec<Door>,
}

/// A listener outside the data plane.
#[derive(Debug)]
struct Single {
    asked: SocketAddr,
    bound: SocketAddr,
    socket: TcpListener,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Sockets {
    http: Vec<Group>,
    api: Single,
    admin: Single,
    feed: UnixListener,
}

impl Sockets {
    /// Binds everything. `patient`: the last supervisor was killed, so wait
    /// a few seconds for its children to let go.
    pub(super) fn bind(settings: &Settings, patient: bool) -> Result<Sockets, BindError> {
        let mut attempts_left = if patient { RETRIES } else { 0 };
        loop {
            match Self::bind_now(settings) {
                Err(error) if error.is_in_use() && attempts_left > 0 => {
                    attempts_left -= 1;
                    pause();
                }
                outcome => return outcome,
            }
        }
    }

    fn bind_now(settings: &Settings) -> Result<Sockets, BindError> {
        let threads = settings.edge.threads;
        let groups = settings
            .edge
            .http
            .iter()
            .map(|asked| Group::bind(*asked, threads, &[]).and_then(Group::opened));
        Ok(Sockets {
            http: groups.collect::<Result<_, _>>()?,
            api: Single::bind("api.listen", settings.api.listen)?,
            admin: Single::bind("admin.listen", settings.admin.listen)?,
            feed: bind_feed(&settings.feed_path())?,
        })
    }

    /// Follows new settings: binds what appears, then drops what is gone.
    /// On an error nothing has changed.
    pub(super) fn follow(&mut self, settings: &Settings) -> Result<(), BindError> {
        let threads = settings.edge.threads;
        let held: Vec<SocketAddr> = self.http.iter().map(|group| group.bound).collect();
        let mut fresh = Vec::new();
        let mut extra = Vec::new();
        for asked in &settings.edge.http {
            match self.http.iter().find(|group| group.asked == *asked) {
                Some(group) => extra.push((*asked, group.more(threads)?)),
                None => fresh.push(Group::bind(*asked, threads, &held)?),
            }
        }
        let api = self.api.moved("api.listen", settings.api.listen)?;
        let admin = self.admin.moved("admin.listen", settings.admin.listen)?;
        // Nothing below can fail.
        self.http
            .retain(|group| settings.edge.http.contains(&group.asked));
        for (asked, sockets) in extra {
            if let Some(group) = self.http.iter_mut().find(|group| group.asked == asked) {
                group.doors.extend(sockets);
            }
        }
        self.http.extend(fresh);
        if let Some(moved) = api {
            self.api = moved;
        }
        if let Some(moved) = admin {
            self.admin = moved;
        }
        Ok(())
    }

    /// Closes the data plane's: the edge's copies are the last ones then,
    /// and what they do not accept is refused.
    pub(super) fn close_edge(&mut self) {
        self.http.clear();
    }

    /// An edge of this number is about to inherit every socket there is.
    pub(super) fn lend(&mut self, generation: u64) {
        for door in self.http.iter_mut().flat_map(|group| &mut group.doors) {
            door.lend(generation);
        }
    }

    /// The newest edge on duty: what it was not lent is accepted from by nobody.
    pub(super) fn close_but_to(&mut self, generation: u64) {
        for door in self.http.iter().flat_map(|group| &group.doors) {
            door.close_but_to(generation);
        }
    }

    /// What an edge of so many threads inherits: socket `i` of each address
    /// goes to thread `i` modulo `threads`, so each is accepted from; and the
    /// log's file. `is_awaited`: nobody serves. An edge of older settings may ask
    /// for more threads than there are sockets.
    pub(super) fn for_edge<'a>(
        &'a self,
        threads: usize,
        (footing, is_awaited): (Footing, bool),
        log: Option<&'a Parcel>,
    ) -> (Bequest, Vec<BorrowedFd<'a>>) {
        let most = self.http.iter().map(|group| group.doors.len()).max();
        let threads = threads.min(most.unwrap_or_default());
        let mut listeners: Vec<Vec<RawFd>> = vec![Vec::new(); threads];
        for group in &self.http {
            for (index, door) in group.doors.iter().enumerate() {
                listeners[index % threads].push(door.as_fd().as_raw_fd());
            }
        }
        let all = self
            .http
            .iter()
            .flat_map(|group| &group.doors)
            .map(AsFd::as_fd)
            .chain(log.map(AsFd::as_fd))
            .collect();
        let bequest = Bequest::Edge {
            listeners,
            log: log.map(|log| log.as_fd().as_raw_fd()),
            footing,
            is_awaited,
        };
        (bequest, all)
    }

    /// What control inherits.
    pub(super) fn for_control(&self) -> (Bequest, Vec<BorrowedFd<'_>>) {
        let bequest = Bequest::Control {
            api: self.api.socket.as_raw_fd(),
            admin: self.admin.socket.as_raw_fd(),
            feed: self.feed.as_raw_fd(),
        };
        let all = vec![
            self.api.socket.as_fd(),
            self.admin.socket.as_fd(),
            self.feed.as_fd(),
        ];
        (bequest, all)
    }

    /// The addresses bound, as `addresses.json` has them.
    pub(super) fn addresses(&self) -> serde_json::Value {
        let http: Vec<String> = self
            .http
            .iter()
            .map(|group| group.bound.to_string())
            .collect();
        serde_json::json!({
            "http": http,
            "api": self.api.bound.to_string(),
            "admin": self.admin.bound.to_string(),
        })
    }
}

impl Group {
    /// `ours` are addresses this process holds already: they are no conflict.
    fn bind(asked: SocketAddr, threads: usize, ours: &[SocketAddr]) -> Result<Group, BindError> {
        let failed = |source| BindError {
            key: "edge.http",
            address: asked.to_string(),
            source,
        };
        // SO_REUSEPORT would share the port silently with another router of
        // the same user. A socket without it meets any other, so it goes
        // first, only to be turned away.
        let probe = ours.iter().all(|held| held.port() != asked.port());
        if asked.port() != 0 && probe {
            drop(tcp(asked, false).map_err(failed)?);
        }
        let first = bound(asked, true).map_err(failed)?;
        let bound = first.local_addr().map_err(failed)?;
        let mut group = Group {
            asked,
            bound,
            doors: vec![Door::new(first)],
        };
        let more = group.more(threads)?;
        group.doors.extend(more);
        Ok(group)
    }

    /// The sockets missing for so many threads, closed yet.
    fn more(&self, threads: usize) -> Result<Vec<Door>, BindError> {
        (self.doors.len()..threads)
            .map(|_| bound(self.bound, true).map(Door::new))
            .collect::<io::Result<_>>()
            .map_err(|source| self.failed(source))
    }

    /// Listening: no edge serves yet, and clients are to wait for the first.
    fn opened(self) -> Result<Group, BindError> {
        for door in &self.doors {
            door.open().map_err(|source| self.failed(source))?;
        }
        Ok(self)
    }

    fn failed(&self, source: io::Error) -> BindError {
        BindError {
            key: "edge.http",
            address: self.bound.to_string(),
            source,
        }
    }
}

impl Single {
    fn bind(key: &'static str, asked: SocketAddr) -> Result<Single, BindError> {
        let failed = |source| BindError {
            key,
            address: asked.to_string(),
            source,
        };
        let socket = tcp(asked, false).map_err(failed)?;
        let bound = socket.local_addr().map_err(failed)?;
        Ok(Single {
            asked,
            bound,
            socket,
        })
    }

    /// A new one if the setting names another address.
    fn moved(&self, key: &'static str, asked: SocketAddr) -> Result<Option<Single>, BindError> {
        if asked == self.asked {
            Ok(None)
        } else {
            Single::bind(key, asked).map(Some)
        }
    }
}

impl BindError {
    fn is_in_use(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
}

/// A socket that listens.
fn tcp(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = bound(address, shared)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// One that does not yet: the address is ours, and nobody can connect to it.
fn bound(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&SockAddr::from(address))?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Binds the feed's socket, in place of a stale one. The folder is locked by
/// us, so only the child of a killed supervisor could still serve it.
fn bind_feed(path: &Path) -> Result<UnixListener, BindError> {
    let failed = |source| BindError {
        key: "state_dir",
        address: PathBuf::from(path).display().to_string(),
        source,
    };
    match UnixStream::connect(path) {
        Ok(_) => return Err(failed(io::ErrorKind::AddrInUse.into())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)?;
        }
        // Not there, or no socket: then bind says what is wrong.
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    ownership::close_socket(path).map_err(|errno| failed(errno.into()))?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

fn pause() {
    let pause = Timespec {
        tv_sec: 0,
        tv_nsec: RETRY_PAUSE_NS,
    };
    // Nothing to wait for but the time; a signal only shortens it.
    let _ = rustix::event::poll(&mut [] as &mut [PollFd<'_>], Some(&pause));
}
