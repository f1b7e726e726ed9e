//! Portico, an HTTP edge router for a platform's fleet.
//!
//! # The map
//!
//! One binary, three processes ([`supervisor`], [`edge`], [`control`]) that
//! share nothing but inherited sockets and the [`feed`]:
//!
//! ```text
//!      public ports                API port   admin port
//!           │                          │          │
//!  ┌────────▼───────┐   feed    ┌──────▼──────────▼──────┐
//!  │ edge           │◀──────────│ control                │──▶ redb file,
//!  │ N threads, one │──────────▶│ registry, store,       │    snapshot + journal
//!  │ runtime each   │  reports  │ leases, admin          │
//!  └───────▲────────┘           └───────────▲────────────┘
//!          │ sockets, lifeline              │ sockets, lifeline
//!  ┌───────┴────────────────────────────────┴────────────┐
//!  │ supervisor: binds every socket, restarts both       │
//!  └─────────────────────────────────────────────────────┘
//! ```
//!
//! # Layers
//!
//! Imports point one way. `policy`, `params`, `observe`, `feed` and `table`
//! know nothing of `edge` or `control`; those two never name each other;
//! `supervisor` uses only settings and its own heritage; `main.rs` wires.
//! `tests/tidy.rs` holds this.

pub mod cli;
pub mod control;
pub mod edge;
pub mod feed;
pub mod heritage;
pub mod observe;
pub mod policy;
pub mod settings;
pub mod supervisor;
pub mod table;
