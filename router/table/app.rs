//! An app as the edge routes to it.
//!
//! [`App`] and [`Backend`] are immutable: a change publishes a new app, whole.
//! What must outlive a change hangs off [`AppLive`] and [`BackendLive`], made
//! on first use: a cold app pays one empty pointer for it. Never compiles,
//! never publishes.

use std::mem::size_of;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ecow::EcoString;
use once_cell::race::OnceBox;

use super::live::{AppLive, BackendLive, HotApps};
use super::server::Servers;
use super::{Domains, Moment, Policy, heap_bytes};
use crate::feed::messages::{AppReport, BackendReport, Standing};
use crate::observe::AppCells;
use crate::policy::health::FULL_PERMILLE;
use crate::policy::latency::Sketch;

/// An app, whole, as of one revision: 112 bytes with its counts of use, and one
/// allocation for its backends.
///
/// What a lookup reads comes first, next to the count of use that it raises: at
/// a million apps each cache line more is a wait for memory.
#[derive(Debug)]
#[repr(C)]
pub struct App {
    /// Those it holds, lower-case, without a trailing slash.
    pub domains: Domains,
    /// Sorted by id.
    pub backends: Box<[Backend]>,
    /// Shared between apps that override the same.
    pub policy: Arc<Policy>,
    pub(super) live: OnceBox<Arc<AppLive>>,
    pub(super) hot: Arc<HotApps>,
    /// The store's revision of its last change.
    pub revision: u64,
    /// Its name.
    pub name: EcoString,
}

impl App {
    /// Its live state, made now if this is its first request. Every version of
    /// an app shares one.
    #[inline]
    pub fn live(&self) -> &Arc<AppLive> {
        self.live
            .get_or_init(|| Box::new(self.hot.live(&self.name)))
    }

    /// Its live state, if it ever had a request.
    pub fn existing_live(&self) -> Option<&Arc<AppLive>> {
        self.live.get()
    }

    /// Its counters, with its backends as of a moment if asked; zeros if it
    /// never had a request.
    pub fn report(&self, backends: Option<Moment>) -> AppReport {
        let mut report = match self.live.get() {
            Some(live) => {
                AppCells::report(&self.name, &live.cells, u64::from(live.queue.waiting()))
            }
            None => AppCells::report(&self.name, &[], 0),
        };
        if let Some(moment) = backends {
            let each = self.backends.iter();
            report.backends = each.map(|backend| backend.report(self, moment)).collect();
        }
        report
    }

    /// Whether its backends are probed, traffic or not.
    pub fn is_probed(&self) -> bool {
        self.policy.probe.is_some()
    }

    /// Takes over what outlives a change from the version before. An app with
    /// traffic or a probe gets the live state of every surviving backend made
    /// first, so that requests and probes on either version count in one place.
    /// A backend that joins others which have traffic starts slowly.
    pub(super) fn inherit(&self, before: &App) {
        let live = before.live.get();
        if let Some(live) = live {
            // An error means it is already set, which is to the same `AppLive`.
            let _ = self.live.set(Box::new(Arc::clone(live)));
        } else if !before.is_probed() {
            return;
        }
        let mut joining = Vec::new();
        let mut joins_others = false;
        for backend in &self.backends {
            let found = before
                .backends
                .binary_search_by(|old| old.id.cmp(&backend.id));
            if let Ok(at) = found
                && before.backends[at].is_same_instance(backend)
            {
                let survivor = before.backends[at].live();
                let _ = backend.live.set(Box::new(Arc::clone(survivor)));
                joins_others |= backend.counts() && survivor.state().is_in_rotation();
            } else {
                joining.push(backend);
            }
        }
        let Some(live) = live else {
            return;
        };
        if joins_others && !self.policy.slow_start.is_zero() {
            for backend in joining {
                let _ = backend.live.set(Box::new(Arc::new(BackendLive::joining())));
            }
        }
        self.succeed(before, live);
    }

    /// Requests that wait for it look again: there may be room now where there
    /// was none.
    pub(super) fn wake_waiting(&self) {
        if let Some(live) = self.live.get() {
            live.queue.wake_all();
        }
    }

    /// Whether it routes exactly as `other` does.
    pub(super) fn is_same_as(&self, other: &App) -> bool {
        self.revision == other.revision
            && self.name == other.name
            && self.domains == other.domains
            && self.policy == other.policy
            && self.backends.len() == other.backends.len()
            && self
                .backends
                .iter()
                .zip(&other.backends)
                .all(|(a, b)| a.is_same_as(b))
    }

    /// Bytes of the app without its backends and live state.
    pub(super) fn own_bytes(&self) -> usize {
        heap_bytes(size_of::<App>() + 2 * size_of::<usize>())
            + text_bytes(&self.name)
            + self.domains.heap_bytes()
    }

    /// The same without these domains, and without live state: for a version
    /// that is yet to be published.
    pub(super) fn without(&self, refused: &[&str]) -> App {
        App {
            name: self.name.clone(),
            domains: self.domains.without(refused),
            policy: Arc::clone(&self.policy),
            backends: self.backends.iter().map(Backend::cold).collect(),
            revision: self.revision,
            live: OnceBox::new(),
            hot: Arc::clone(&self.hot),
        }
    }

    /// Bytes of its backends, without live state and shared release names.
    pub(super) fn backend_bytes(&self) -> usize {
        heap_bytes(size_of::<Backend>() * self.backends.len())
            + self
                .backends
                .iter()
                .map(|backend| text_bytes(&backend.id))
                .sum::<usize>()
    }

    /// Bytes of the live state made so far.
    pub(super) fn live_bytes(&self) -> usize {
        let counted = |size: usize| heap_bytes(size_of::<usize>()) + heap_bytes(size + 16);
        let app = self.live.get().map_or(0, |live| {
            counted(size_of::<AppLive>())
                + heap_bytes(size_of::<AppCells>() * live.cells.len())
                + heap_bytes(size_of::<Sketch>() * live.cells.len())
        });
        let backends = self.backends.iter().filter(|b| b.live.get().is_some());
        app + backends.count() * (counted(size_of::<BackendLive>()) + Servers::ENTRY_BYTES)
    }
}

const _: () = assert!(size_of::<App>() == 96 && size_of::<Backend>() == 64);

/// An instance of an app: 64 bytes, plus its id where that is longer than 15.
#[derive(Debug)]
pub struct Backend {
    /// Its id within the app.
    pub id: EcoString,
    /// Its share relative to its peers.
    pub weight: u32,
    /// As registered.
    pub incarnation: u64,
    /// One string for all backends of the fleet that run it.
    pub(super) release: Arc<Box<str>>,
    /// IPv4 as IPv4-mapped IPv6.
    pub(super) ip: [u8; 16],
    pub(super) port: u16,
    pub(super) standing: u8,
    /// Out of rotation by an operator's order.
    pub ejected: bool,
    pub(super) live: OnceBox<Arc<BackendLive>>,
}

impl Backend {
    /// Where it listens.
    #[inline]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(Ipv6Addr::from(self.ip).to_canonical(), self.port)
    }

    /// The release it runs; may be empty.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Whether new requests may go to it.
    #[inline]
    pub fn standing(&self) -> Standing {
        match self.standing {
            0 => Standing::Active,
            1 => Standing::Suspect,
            _ => Standing::Draining,
        }
    }

    /// Its live state, made now if this is its first request; carried over
    /// while id, address and incarnation stay.
    #[inline]
    pub fn live(&self) -> &Arc<BackendLive> {
        self.live.get_or_init(|| Box::new(Arc::default()))
    }

    /// Unique in this process for this instance: the key of connection pools.
    #[inline]
    pub fn key(&self) -> u64 {
        self.live().key
    }

    /// Its key, if anyone ever asked for it.
    #[inline]
    pub fn existing_key(&self) -> Option<u64> {
        self.live.get().map(|live| live.key)
    }

    /// Whether its key is one of these; makes no live state.
    pub fn has_key_in(&self, keys: &[u64]) -> bool {
        self.live.get().is_some_and(|live| keys.contains(&live.key))
    }

    /// Requests in flight, over all threads.
    #[inline]
    pub fn in_flight(&self) -> u32 {
        self.live.get().map_or(0, |live| live.load.read().in_flight)
    }

    /// The same without live state.
    fn cold(&self) -> Backend {
        Backend {
            id: self.id.clone(),
            release: Arc::clone(&self.release),
            live: OnceBox::new(),
            ..*self
        }
    }

    pub(super) fn pack(address: SocketAddr) -> ([u8; 16], u16) {
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        (ip.octets(), address.port())
    }

    /// Whether it counts as one to balance over: weight above 0, neither
    /// draining nor out by an operator's order.
    pub(super) fn counts(&self) -> bool {
        self.weight > 0 && !self.ejected && self.standing() != Standing::Draining
    }

    fn is_same_instance(&self, other: &Backend) -> bool {
        self.incarnation == other.incarnation && self.ip == other.ip && self.port == other.port
    }

    fn is_same_as(&self, other: &Backend) -> bool {
        self.is_same_instance(other)
            && self.id == other.id
            && self.weight == other.weight
            && self.standing == other.standing
            && self.ejected == other.ejected
            && self.release == other.release
    }

    fn report(&self, app: &App, moment: Moment) -> BackendReport {
        use std::sync::atomic::Ordering::Relaxed;
        let mut report = BackendReport {
            id: self.id.to_string(),
            share_permille: FULL_PERMILLE,
            ..BackendReport::default()
        };
        if let Some(live) = self.live.get() {
            report.in_flight = u64::from(live.load.read().in_flight);
            report.requests = live.requests.load(Relaxed);
            report.failures = live.failures.load(Relaxed);
            app.show(live, moment, &mut report);
        }
        report
    }
}

/// Heap bytes of a string that keeps up to 15 bytes inline.
pub(super) fn text_bytes(text: &EcoString) -> usize {
    if text.len() <= EcoString::INLINE_LIMIT {
        0
    } else {
        heap_bytes(text.len() + 2 * size_of::<usize>())
    }
}
