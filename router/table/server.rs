//! Servers that backends of several apps stand for: one process, or one machine
//! behind an address, that more than one app is served by.
//!
//! Owns which backends have one address ([`Servers`]), and what such a server has
//! in flight over all apps, with the limit learned from all their answers
//! ([`Server`]). Who may send it one request more is
//! [`crate::policy::sharing`]'s to say, how many it can have
//! [`crate::policy::concurrency`]'s.
//!
//! ```text
//!  a backend's first request ──▶ its address is nobody else's: noted
//!                            └─▶ another app's too: both have one Server from
//!                                here on, with what the first has learned
//! ```
//!
//! A backend whose address is its own, as nearly all are, pays one empty pointer.
//! A server once made is there until the last of its backends is gone; while only
//! one app has requests for it, that app may have all it can do.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ahash::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use once_cell::race::OnceBox;

use super::BackendLive;
use super::capacity::Capacity;
use crate::policy::sharing;

/// An app that had no request for so long (to the next power of two in
/// microseconds: 4.2 s), or for twice that, has none.
const TERM_BITS: u32 = 22;

/// What several apps share.
#[derive(Debug)]
pub(super) struct Server {
    /// Requests that wait for the first byte of their answer, over all apps.
    awaiting: AtomicU32,
    /// Apps that had a request: the term in the upper half, then those of the
    /// term before and those of this one.
    apps: AtomicU64,
    pub capacity: Capacity,
}

impl Server {
    /// With what is known of it.
    fn new(learned: &Capacity, address: &SocketAddr) -> Arc<Server> {
        Arc::new(Server {
            awaiting: AtomicU32::new(0),
            apps: AtomicU64::new(0),
            capacity: learned.inherited(apart(address)),
        })
    }

    /// Apps that have requests for it.
    fn apps(&self) -> u32 {
        let (_, before, now) = split(self.apps.load(Relaxed));
        u32::from(before.max(now))
    }

    /// One more app has a request in this term.
    #[cold]
    fn note_app(&self, term: u32) {
        let noted = |word| {
            let (known, before, now) = split(word);
            match term.checked_sub(known)? {
                0 => Some(join(term, before, now.saturating_add(1))),
                1 => Some(join(term, now, 1)),
                _ => Some(join(term, 0, 1)),
            }
        };
        // An error: it is of a term that is over.
        let _ = self.apps.fetch_update(Relaxed, Relaxed, noted);
    }
}

/// A number from 0 to 1 that is the address's own and the same in every router.
fn apart(address: &SocketAddr) -> f64 {
    let ip = match address.ip() {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let folded = (ip >> 64) as u64 ^ (ip as u64).rotate_left(16) ^ u64::from(address.port());
    // Multiples of the golden ratio: neighbours are far apart.
    (folded.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 11) as f64 / (1u64 << 53) as f64
}

fn split(word: u64) -> (u32, u16, u16) {
    ((word >> 32) as u32, (word >> 16) as u16, word as u16)
}

fn join(term: u32, before: u16, now: u16) -> u64 {
    u64::from(term) << 32 | u64::from(before) << 16 | u64::from(now)
}

/// A backend's part in a server.
#[derive(Debug)]
pub(super) struct Share {
    server: Arc<Server>,
    /// When it had a request last.
    term: AtomicU32,
}

impl Share {
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Requests that wait for the server's answer, over all apps.
    pub fn awaiting(&self) -> u32 {
        self.server.awaiting.load(SeqCst)
    }

    /// Apps that have requests for the server.
    pub fn apps(&self) -> u32 {
        self.server.apps()
    }

    /// The backend has requests at `now_us`, by the process's clock.
    pub fn note(&self, now_us: u64) {
        // 0 is before the first.
        let term = (now_us >> TERM_BITS) as u32 + 1;
        if self.term.load(Relaxed) < term && self.term.fetch_max(term, Relaxed) < term {
            self.server.note_app(term);
        }
    }

    /// Counts one more request; how many the server had before.
    pub fn sit(&self) -> (Seat, u32) {
        let before = self.server.awaiting.fetch_add(1, SeqCst);
        (Seat(Arc::clone(&self.server)), before)
    }

    /// Requests that the backend, which had `own`, may have at once where the
    /// server had `all`.
    #[inline]
    pub fn allowance(&self, own: u32, all: u32) -> u32 {
        let server = &self.server;
        let share = sharing::fair_share(server.capacity.served(), server.apps());
        sharing::allowance(own, share, all, server.capacity.limit())
    }
}

/// A request that waits for a server's answer. It is counted until this is gone.
#[derive(Debug)]
pub(super) struct Seat(Arc<Server>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.awaiting.fetch_sub(1, SeqCst);
    }
}

/// Locks of [`Servers`]: taken on a backend's first request.
const SHARDS: usize = 64;

/// An address that a backend with traffic has.
#[derive(Debug)]
enum Known {
    /// One app's.
    Alone { app: usize, live: Weak<BackendLive> },
    /// Several apps'.
    Shared(Weak<Server>),
}

impl Known {
    fn is_gone(&self) -> bool {
        match self {
            Known::Alone { live, .. } => live.strong_count() == 0,
            Known::Shared(server) => server.strong_count() == 0,
        }
    }
}

#[derive(Debug, Default)]
struct Shard {
    known: HashMap<SocketAddr, Known, RandomState>,
    /// Those that are gone are looked for when there are so many.
    sweep_at: usize,
}

impl Shard {
    /// Makes room for one more: costs as much, over many, as each one's insertion.
    fn sweep(&mut self) {
        if self.known.len() >= self.sweep_at {
            self.known.retain(|_, known| !known.is_gone());
            self.sweep_at = 2 * self.known.len() + 16;
        }
    }
}

/// The addresses of all backends with traffic: 64 bytes each, or so.
#[derive(Debug)]
pub(super) struct Servers {
    hash: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

impl Servers {
    /// Bytes of one address.
    pub const ENTRY_BYTES: usize = size_of::<(SocketAddr, Known)>() + 8;

    pub fn new() -> Servers {
        Servers {
            hash: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }

    fn shard(&self, address: &SocketAddr) -> MutexGuard<'_, Shard> {
        let at = self.hash.hash_one(address) as usize % SHARDS;
        // A panic breaks no entry half-way.
        self.shards[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A backend of an app (any number that is the app's own) has its first
    /// request. May be told again.
    pub fn enrol(&self, address: SocketAddr, app: usize, live: &Arc<BackendLive>) {
        let mut shard = self.shard(&address);
        shard.sweep();
        let alone = || Known::Alone {
            app,
            live: Arc::downgrade(live),
        };
        let mut entry = match shard.known.entry(address) {
            Entry::Vacant(vacant) => {
                vacant.insert(alone());
                return;
            }
            Entry::Occupied(entry) => entry,
        };
        let shared = match entry.get() {
            Known::Shared(server) => server.upgrade(),
            Known::Alone { app: first, live } if *first != app => live.upgrade().map(|first| {
                let server = Server::new(&first.capacity, &address);
                first.join(&server);
                server
            }),
            // The same app's: it was registered anew, or twice.
            Known::Alone { .. } => None,
        };
        let known = shared.as_ref().map_or_else(alone, |server| {
            live.join(server);
            Known::Shared(Arc::downgrade(server))
        });
        entry.insert(known);
    }
}

/// The [`Share`] of a backend, if it has one.
pub(super) type MayShare = OnceBox<Share>;

impl BackendLive {
    /// It shares this server from here on.
    fn join(&self, server: &Arc<Server>) {
        let share = Share {
            server: Arc::clone(server),
            term: AtomicU32::new(0),
        };
        // An error means that it has a share already, which is the same server's.
        let _ = self.share.set(Box::new(share));
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
