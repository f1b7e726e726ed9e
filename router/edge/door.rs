//! How many connections clients may have: all together, and each address.
//!
//! Owns the limits, the count of each address (only if there is a limit on it),
//! the descriptors that accepting leaves to others, and telling operators, once
//! a minute at most, that clients are turned away. Looked at when a connection
//! opens or closes, never by a request.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Resource, getrlimit};

use super::clock::Micros;
use crate::settings::Clients;

/// Locks that addresses are spread over.
const SHARDS: usize = 64;

/// Connections that other threads may be asked to close at a time, at most.
const WANTED_MOST: usize = 16;

/// An event of a kind is told again after this.
const TOLD_AGAIN_US: Micros = 60_000_000;

/// Descriptors taken for granted where the system names no limit.
const UNLIMITED: u64 = 1 << 20;

/// What an operator is told about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plight {
    /// As many connections as there may be, and none on this thread that waits
    /// for its client, or in a line.
    Full,
    /// An address has as many as it may.
    Address,
    /// No descriptor to spare.
    Descriptors,
    /// Buffers take most of their budget.
    Memory,
    /// And an app has its share of them.
    Share,
}

/// The limits, and who is inside.
#[derive(Debug)]
pub struct Door {
    /// Connections there may be.
    most: usize,
    /// Descriptors from this number on, so many, are for backends and files.
    reserve_from: u64,
    reserve: u64,
    addresses: Option<Arc<Addresses>>,
    /// Connections that other threads are asked to close for one that had none.
    wanted: AtomicUsize,
    told: [AtomicU64; 5],
}

impl Door {
    /// By these settings, and the process's limit on descriptors.
    pub fn new(settings: &Clients) -> Door {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(UNLIMITED);
        Door::within(settings, limit)
    }

    fn within(settings: &Clients, descriptors: u64) -> Door {
        let reserve = (descriptors / 8).clamp(16, 1024);
        let reserve_from = descriptors.saturating_sub(reserve);
        // Any of them may need a connection to a backend.
        let most = match settings.max_connections {
            0 => usize::try_from(reserve_from / 2).unwrap_or(usize::MAX),
            asked => usize::try_from(asked).unwrap_or(usize::MAX),
        };
        let addresses = (settings.max_connections_per_address > 0).then(|| {
            let most = settings.max_connections_per_address;
            Arc::new(Addresses::new(u32::try_from(most).unwrap_or(u32::MAX)))
        });
        Door {
            most: most.max(1),
            reserve_from,
            reserve,
            addresses,
            wanted: AtomicUsize::new(0),
            told: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Connections there may be.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Whether a descriptor of this number is of those left to others.
    pub fn is_reserved(&self, descriptor: i32) -> bool {
        u64::try_from(descriptor).is_ok_and(|number| number >= self.reserve_from)
    }

    /// Whether the next descriptor would be one of those: the system gives the
    /// lowest number that is free. `any`: one that is open.
    pub fn is_short(&self, any: impl AsFd) -> bool {
        match rustix::io::fcntl_dupfd_cloexec(any, 0) {
            Ok(next) => self.is_reserved(next.as_raw_fd()),
            Err(_) => true,
        }
    }

    /// One more connection of this address, counted until the pass is dropped.
    ///
    /// # Errors
    /// It has as many as it may.
    pub fn enter(&self, address: IpAddr) -> Result<Option<Pass>, Plight> {
        match &self.addresses {
            None => Ok(None),
            Some(addresses) => match Addresses::enter(addresses, address) {
                Some(pass) => Ok(Some(pass)),
                None => Err(Plight::Address),
            },
        }
    }

    /// Another thread is to close one that waits.
    pub fn want(&self) {
        let more = |wanted| (wanted < WANTED_MOST).then_some(wanted + 1);
        let _ = self.wanted.fetch_update(Relaxed, Relaxed, more);
    }

    /// Whether a thread that has one is asked to close it.
    pub fn is_wanting(&self) -> bool {
        self.wanted.load(Relaxed) > 0
    }

    /// One was closed. Two threads may close one each for the same want.
    pub fn met(&self) {
        let fewer = |wanted: usize| wanted.checked_sub(1);
        let _ = self.wanted.fetch_update(Relaxed, Relaxed, fewer);
    }

    /// There is room by itself: nobody has to go.
    pub fn forgo(&self) {
        self.wanted.store(0, Relaxed);
    }

    /// What to tell an operator, unless it was told a moment ago.
    pub fn tell(&self, plight: Plight, now: Micros) -> Option<(&'static str, String)> {
        let told = &self.told[plight as usize];
        let before = told.load(Relaxed);
        if before != 0 && now < before.saturating_add(TOLD_AGAIN_US) {
            return None;
        }
        told.compare_exchange(before, now.max(1), Relaxed, Relaxed)
            .ok()?;
        Some(match plight {
            Plight::Full => (
                "connections_full",
                format!(
                    "there are {} client connections, as many as edge.max_connections allows, \
                     and none waits on the thread that accepts: new ones are turned away, \
                     and other threads make room for later ones",
                    self.most
                ),
            ),
            Plight::Address => (
                "address_full",
                "a client address has as many connections as \
                 edge.max_connections_per_address allows: more of it are turned away"
                    .to_owned(),
            ),
            Plight::Memory => (
                "buffers_short",
                "buffers take three quarters of edge.buffer_bytes: of apps that hold twice \
                 as much as is left of it, clients whose bodies are awaited longest are \
                 closed, and nothing is kept for retries; clients whose heads are, if heads \
                 hold as much"
                    .to_owned(),
            ),
            Plight::Share => (
                "buffers_shed",
                "buffers take 85 % of edge.buffer_bytes, and this app's requests hold twice \
                 as much as is left of it, or more: new ones of such apps are refused (H22)"
                    .to_owned(),
            ),
            Plight::Descriptors => (
                "descriptors_short",
                format!(
                    "fewer than {} descriptors are left to the edge: accepting waits for \
                     connections to close; raise the limit (LimitNOFILE), or lower \
                     edge.max_connections",
                    self.reserve
                ),
            ),
        })
    }
}

/// An address, as far as one client has it: of IPv6 the first half.
type Key = (bool, u64);

fn key(address: IpAddr) -> Key {
    match address.to_canonical() {
        IpAddr::V4(address) => (false, u64::from(u32::from(address))),
        IpAddr::V6(address) => (true, (u128::from(address) >> 64) as u64),
    }
}

/// Connections of each address that has any: never more entries than those.
#[derive(Debug)]
struct Addresses {
    most: u32,
    hasher: ahash::RandomState,
    shards: [Mutex<HashMap<Key, u32, ahash::RandomState>>; SHARDS],
}

impl Addresses {
    fn new(most: u32) -> Addresses {
        Addresses {
            most,
            hasher: ahash::RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }

    fn shard(&self, key: Key) -> MutexGuard<'_, HashMap<Key, u32, ahash::RandomState>> {
        let shard = &self.shards[self.hasher.hash_one(key) as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(this: &Arc<Addresses>, address: IpAddr) -> Option<Pass> {
        let key = key(address);
        let mut shard = this.shard(key);
        let count = shard.entry(key).or_insert(0);
        if *count >= this.most {
            return None;
        }
        *count += 1;
        Some(Pass {
            addresses: Arc::clone(this),
            key,
        })
    }
}

/// A connection that counts for its client's address.
#[derive(Debug)]
pub struct Pass {
    addresses: Arc<Addresses>,
    key: Key,
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut shard = self.addresses.shard(self.key);
        if let Some(count) = shard.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(per_address: u64) -> Door {
        let settings = Clients {
            max_connections_per_address: per_address,
            ..Clients::default()
        };
        Door::within(&settings, 1_024)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_its_share_and_leaves_nothing_behind() {
        let door = door(2);
        let first = door.enter(ip("192.0.2.1")).unwrap();
        let second = door.enter(ip("::ffff:192.0.2.1")).unwrap();
        assert!(door.enter(ip("192.0.2.1")).is_err());
        let other = door.enter(ip("192.0.2.2")).unwrap();
        drop(first);
        drop(door.enter(ip("192.0.2.1")).unwrap());
        drop((second, other));
        let held = &door.addresses.as_ref().unwrap().shards;
        assert!(held.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let door = door(1);
        let _one = door.enter(ip("2001:db8::1")).unwrap();
        assert!(door.enter(ip("2001:db8::ffff:2")).is_err());
        assert!(door.enter(ip("2001:db8:0:1::1")).is_ok());
    }

    #[test]
    fn without_a_limit_nobody_is_counted() {
        let door = door(0);
        assert!(door.enter(ip("192.0.2.1")).unwrap().is_none());
    }

    #[test]
    fn half_of_the_descriptors_are_for_clients() {
        let door = door(0);
        assert_eq!(door.most(), (1_024 - 128) / 2);
        assert!(!door.is_reserved(895) && door.is_reserved(896));
        let few = Door::within(&Clients::default(), 8);
        assert_eq!(few.most(), 1);
    }

    #[test]
    fn descriptors_are_short_once_the_next_would_be_of_the_reserve() {
        let of = |descriptors| Door::within(&Clients::default(), descriptors);
        assert!(of(8).is_short(std::io::stderr()));
        assert!(!of(1 << 20).is_short(std::io::stderr()));
    }

    #[test]
    fn an_operator_is_told_once_a_minute() {
        let door = door(0);
        assert!(door.tell(Plight::Full, 0).is_some());
        assert!(door.tell(Plight::Full, TOLD_AGAIN_US - 1).is_none());
        assert!(door.tell(Plight::Descriptors, 5).is_some());
        assert!(door.tell(Plight::Full, TOLD_AGAIN_US + 1).is_some());
    }

    #[test]
    fn what_is_wanted_is_wanted_until_it_is_met() {
        let door = door(0);
        door.want();
        door.want();
        door.met();
        assert!(door.is_wanting());
        door.met();
        door.met();
        assert!(!door.is_wanting());
        for _ in 0..1_000 {
            door.want();
        }
        assert_eq!(door.wanted.load(Relaxed), WANTED_MOST);
        door.forgo();
        assert!(!door.is_wanting());
    }
}
