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
//!  a backend's first request ──▶ its address is no other backend's: noted
//!                            └─▶ another's too: both have one Server from here
//!                                on, with what the first has learned
//! ```
//!
//! A backend whose address is its own, as nearly all are, pays a note of it when its
//! first request comes, and then an empty pointer. Backends of one app that have one
//! address are one part of a server: an app that registers a process twice has no
//! more of it.
//!
//! A server once made is there until the last of its backends is gone; while only
//! one app has requests for it, that app may have all it can do.

use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ahash::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use once_cell::race::OnceBox;

use super::BackendLive;
use super::capacity::Capacity;
use crate::policy::sharing;

/// An app that had no request for so long (to the next power of two in
/// microseconds: 1.05 s), or for twice that, has none.
const TERM_BITS: u32 = 20;

/// What several apps share.
#[derive(Debug)]
pub(super) struct Server {
    /// Requests that wait for the first byte of their answer, over all apps.
    awaiting: AtomicU32,
    /// Apps that had a request: the term in the upper half, then those of the
    /// term before and those of this one.
    apps: AtomicU64,
    pub capacity: Capacity,
    /// Locked when a backend joins.
    parts: Mutex<Living<usize, Weak<Part>>>,
}

impl Server {
    /// With what is known of it.
    fn new(learned: &Capacity, address: &SocketAddr) -> Arc<Server> {
        Arc::new(Server {
            awaiting: AtomicU32::new(0),
            apps: AtomicU64::new(0),
            capacity: learned.inherited(apart(address)),
            parts: Mutex::default(),
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

/// An app's part in a server: that of all its backends that have the address.
#[derive(Debug)]
struct Part {
    server: Arc<Server>,
    /// Its requests that wait for an answer.
    awaiting: AtomicU32,
    /// When it had a request last.
    term: AtomicU32,
}

/// A backend's hold on its app's part in a server.
#[derive(Debug)]
pub(super) struct Share(Arc<Part>);

/// What a server has to do for an app, and for all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crowd {
    /// Requests of the app that wait for an answer.
    pub own: u32,
    /// Requests of all apps that do.
    pub all: u32,
}

impl Share {
    pub fn server(&self) -> &Server {
        &self.0.server
    }

    /// What there is now.
    pub fn crowd(&self) -> Crowd {
        Crowd {
            own: self.0.awaiting.load(SeqCst),
            all: self.0.server.awaiting.load(SeqCst),
        }
    }

    /// Apps that have requests for the server. Where it has others' it is two at
    /// least, however long those take.
    pub fn apps(&self, crowd: Crowd) -> u32 {
        let others = u32::from(crowd.all > crowd.own);
        self.0.server.apps().max(1 + others)
    }

    /// Requests that the app may have at once.
    #[inline]
    pub fn allowance(&self, crowd: Crowd) -> u32 {
        let capacity = &self.0.server.capacity;
        let share = sharing::fair_share(capacity.served(), self.apps(crowd));
        sharing::allowance(crowd.own, share, crowd.all, capacity.limit())
    }

    /// The app has requests at `now_us`, by the process's clock.
    pub fn note(&self, now_us: u64) {
        // 0 is before the first.
        let term = (now_us >> TERM_BITS) as u32 + 1;
        let known = &self.0.term;
        if known.load(Relaxed) < term && known.fetch_max(term, Relaxed) < term {
            self.0.server.note_app(term);
        }
    }

    /// Counts one more request; what there was before.
    pub fn sit(&self) -> (Seat, Crowd) {
        let part = &self.0;
        let before = Crowd {
            own: part.awaiting.fetch_add(1, SeqCst),
            all: part.server.awaiting.fetch_add(1, SeqCst),
        };
        (Seat(Arc::clone(part)), before)
    }
}

/// A request that waits for a server's answer. It is counted until this is gone.
#[derive(Debug)]
pub(super) struct Seat(Arc<Part>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.server.awaiting.fetch_sub(1, SeqCst);
        self.0.awaiting.fetch_sub(1, SeqCst);
    }
}

/// A map whose values come to be gone by themselves.
#[derive(Debug)]
struct Living<K, V> {
    map: HashMap<K, V, RandomState>,
    /// Those that are gone are looked for when there are so many.
    sweep_at: usize,
}

impl<K, V> Default for Living<K, V> {
    fn default() -> Self {
        Living {
            map: HashMap::default(),
            sweep_at: 0,
        }
    }
}

impl<K: Eq + Hash, V> Living<K, V> {
    /// Makes room for one more: costs as much, over many, as each one's insertion.
    fn make_room(&mut self, is_gone: impl Fn(&V) -> bool) {
        if self.map.len() >= self.sweep_at {
            self.sweep(is_gone);
        }
    }

    fn sweep(&mut self, is_gone: impl Fn(&V) -> bool) {
        self.map.retain(|_, value| !is_gone(value));
        self.sweep_at = 2 * self.map.len() + 16;
        if self.map.capacity() > 4 * self.sweep_at {
            self.map.shrink_to(self.sweep_at);
        }
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

type Shard = Living<SocketAddr, Known>;

/// The addresses of all backends with traffic.
#[derive(Debug)]
pub(super) struct Servers {
    hash: RandomState,
    shards: [Mutex<Shard>; SHARDS],
    /// The shard to be swept next.
    turn: AtomicUsize,
}

impl Servers {
    /// Bytes of one address.
    pub const ENTRY_BYTES: usize = size_of::<(SocketAddr, Known)>() + 8;

    pub fn new() -> Servers {
        Servers {
            hash: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
            turn: AtomicUsize::new(0),
        }
    }

    /// Forgets some of the backends that are gone: a 64th of all addresses at each
    /// call.
    pub fn sweep(&self) {
        let at = self.turn.fetch_add(1, Relaxed) % SHARDS;
        lock(&self.shards[at]).sweep(Known::is_gone);
    }

    /// A backend of an app (any number that is the app's own) has its first
    /// request. May be told again.
    pub fn enrol(&self, address: SocketAddr, app: usize, live: &Arc<BackendLive>) {
        let at = self.hash.hash_one(address) as usize % SHARDS;
        let mut shard = lock(&self.shards[at]);
        shard.make_room(Known::is_gone);
        let alone = || Known::Alone {
            app,
            live: Arc::downgrade(live),
        };
        let mut entry = match shard.map.entry(address) {
            Entry::Vacant(vacant) => {
                vacant.insert(alone());
                return;
            }
            Entry::Occupied(entry) => entry,
        };
        let shared = match entry.get() {
            Known::Shared(server) => server.upgrade(),
            Known::Alone {
                app: first,
                live: one,
            } => {
                let other = one.upgrade().filter(|one| !Arc::ptr_eq(one, live));
                other.map(|other| {
                    let server = Server::new(&other.capacity, &address);
                    other.join(&server, *first);
                    server
                })
            }
        };
        let known = shared.as_ref().map_or_else(alone, |server| {
            live.join(server, app);
            Known::Shared(Arc::downgrade(server))
        });
        entry.insert(known);
    }
}

/// A panic breaks nothing of these half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The [`Share`] of a backend, if it has one.
pub(super) type MayShare = OnceBox<Share>;

impl BackendLive {
    /// It shares this server from here on, in the name of this app.
    fn join(&self, server: &Arc<Server>, app: usize) {
        let mut parts = lock(&server.parts);
        parts.make_room(|part| part.strong_count() == 0);
        let known = parts.map.get(&app).and_then(Weak::upgrade);
        let part = known.unwrap_or_else(|| {
            Arc::new(Part {
                server: Arc::clone(server),
                awaiting: AtomicU32::new(0),
                term: AtomicU32::new(0),
            })
        });
        parts.map.insert(app, Arc::downgrade(&part));
        // An error means that it has a share already, which is the same server's.
        let _ = self.share.set(Box::new(Share(part)));
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
