//! An app as the edge routes to it, and the live state behind it.
//!
//! [`App`] and [`Backend`] are immutable: a change publishes new ones. What
//! must outlive a change (in-flight counts, counters) hangs off [`AppLive`] and
//! [`BackendLive`], made on first use and carried over by the compiler when the
//! app, or the backend's incarnation, is the same.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, OnceLock};

use super::Policy;
use crate::feed::messages::Standing;
use crate::observe::AppCells;

/// An app, whole, as of one revision.
#[derive(Debug)]
pub struct App {
    /// Its name.
    pub name: Box<str>,
    /// As registered, lower-case.
    pub domains: Box<[Box<str>]>,
    /// Shared between apps that override nothing.
    pub policy: Arc<Policy>,
    /// Sorted by id.
    pub backends: Box<[Arc<Backend>]>,
    /// The store's revision of its last change.
    pub revision: u64,
    /// Made on the app's first request, handed on to its next version.
    pub live: Arc<OnceLock<AppLive>>,
}

/// What an app with traffic has: counters and its queue.
#[derive(Debug)]
pub struct AppLive {
    /// One set of counters for each edge thread; a thread writes only its own.
    pub cells: Box<[AppCells]>,
    /// Requests waiting for a backend now, over all threads.
    pub queued: AtomicU32,
}

/// An instance of an app.
#[derive(Debug)]
pub struct Backend {
    /// Its id within the app.
    pub id: Box<str>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share relative to its peers.
    pub weight: u32,
    /// The release it runs; may be empty.
    pub release: Box<str>,
    /// Whether new requests may go to it.
    pub standing: Standing,
    /// Unique in this process for an app's backend at one incarnation: the key
    /// of connection pools.
    pub key: u64,
    /// As registered.
    pub incarnation: u64,
    /// Carried over while the incarnation is the same.
    pub live: Arc<BackendLive>,
}

/// A backend's live state, shared by all threads.
#[derive(Debug, Default)]
pub struct BackendLive {
    /// Requests in flight, over all threads.
    pub in_flight: AtomicU32,
    /// Requests sent to it.
    pub requests: AtomicU64,
    /// Attempts on it that failed.
    pub failures: AtomicU64,
}
