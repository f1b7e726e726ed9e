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
//! # How a crash is met
//!
//! Crashes are a hot path: the code below runs all day, on every edge thread.
//!
//! ```text
//!  try ──outcome──▶ health of its backend ──verdict──▶ counter, event
//!   ▲                 │ state                            │ nobody there
//!   │                 ▼                                  ▼
//!  choice ◀──── balance: who gets the next           prober: is it back?
//! ```
//!
//! A request's tries ([`edge::journey`]) tell what they met
//! ([`policy::health::Outcome`]); what is known of a backend is judged beside
//! its peers ([`policy::health`]), and choosing goes by the result
//! ([`policy::balance`]). Tries are repeated within a budget
//! ([`policy::retry`]), and overtaken where a backend has gone silent
//! ([`policy::hedge`]) by the app's own measure ([`policy::latency`]). A backend
//! that nobody answers at is looked for by the one prober of the process
//! ([`edge::probe`]), so that no request pays for it. [`table::App`] has these
//! policies' memory, shared by all threads and by all versions of an app.
//!
//! - **Invariant**: what a backend answers never takes out the last one of an
//!   app, and a request that went well touches no lock.
//! - **Invariant**: retries and hedges are paid for before they begin; the
//!   budget is the app's, over all threads.
//! - **Invariant**: of one request's tries, one answer is passed on.
//!
//! `tests/simulator` runs these policies in virtual time, by a seed.
//!
//! # Whose turn it is
//!
//! A thread's runtime serves what is ready in the order in which it became so,
//! and knows nothing of apps. While there is time for all, that is right. A
//! thread that is late though it never rests ([`policy::overload`]) shuts its
//! gate ([`edge::gate`]): requests join their app's line, and one round after the
//! other is let through, by fair queueing ([`policy::fair_queue`]).
//!
//! - **Invariant**: nobody is refused for overload while the processor has idle
//!   time, nor while his app asks for less than its share.
//!
//! # How nothing stops the world
//!
//! Every edge is born the same way: it loads its table, says that it is warm,
//! and serves when it is told to. A first start, a standby and a replacement
//! differ only in when that is.
//!
//! ```text
//!            warm             serve             a younger one serves
//!  loading ───────▶ standing ───────▶ serving ───────────────────────▶ leaving
//!                   by                  │ dies: the one that stands by is told
//!                                       ▼ to serve in the same turn
//! ```
//!
//! Who serves, stands by and leaves is decided by [`supervisor`]'s posts, pure;
//! what a leaving edge closes and when, by `edge/leaving.rs`. A new binary is
//! taken on step by step, each of which can be undone, until the supervisor
//! executes it in its own place (`supervisor/upgrade.rs`). Changes reach every
//! edge as deltas ([`control::fleet`]), and cost what changed ([`table`]).
//!
//! - **Invariant**: an edge that serves is never told to go before a younger one
//!   is ready.
//! - **Invariant**: a table that lacks what nobody removed takes no other's place
//!   before a person has confirmed it ([`policy::shrink`]).
//! - **Invariant**: edges that crash one after another fall back to the table that
//!   ran well (`supervisor/crash_loop.rs`, [`feed::proven_table`]).
//!
//! # Rights
//!
//! Started by root, the supervisor binds and opens what needs rights; control
//! and the edge are users of their own, and the edge cannot read the store.
//! The whole of it is in `supervisor/rights.rs` (whom they run as),
//! `supervisor/ownership.rs` (what belongs to whom) and `heritage/confine.rs`
//! (what a child gives up).
//!
//! # Layers
//!
//! Imports point one way. `policy`, `params`, `observe`, `feed` and `table`
//! know nothing of `edge` or `control`; those two never name each other;
//! `supervisor` uses only settings and its own heritage; `main.rs` wires.
//! `tests/tidy.rs` holds this.
//!
//! # Where do I change …
//!
//! | what | where |
//! |---|---|
//! | when a backend is ejected, and comes back | `policy/health`: `streak`, `rate`, `backoff`; the caps in `ward` |
//! | who gets a request | `policy/balance` |
//! | how many a backend may have at once | `policy/concurrency`, gathered by `table/capacity.rs` |
//! | which app may have them where several share a backend's address | `policy/sharing.rs`, counted by `table/server.rs` |
//! | who waits, in which order, and who is refused | `policy/admission`; where it is waited, `edge/journey/pick.rs` |
//! | when a thread is saturated, how long a round is | `policy/overload.rs` |
//! | whose turn it is then, and who is refused | `policy/fair_queue.rs`; what a request costs `edge/gate` |
//! | what may be sent again | `edge/journey/judge.rs`, the sum in `policy/retry.rs` |
//! | when a try is overtaken | `policy/latency.rs`, `policy/hedge.rs` |
//! | how long clients may take, and how slow they may be | `settings/clients.rs`, `policy/tempo.rs`; where it is waited for them `edge/journey`: `client`, `collect`, `await_head`, `upload`, `relay` |
//! | how much of a body a backend is not asked without | `edge/journey/collect.rs` |
//! | how many connections there may be, and which goes first | `edge/door.rs`, `edge/roster.rs`, `edge/lines.rs`; where they are accepted `edge/listener.rs` |
//! | how much memory buffers may take, and who gives way | `edge/budget.rs`; what a request holds `edge/journey/ledger.rs`; how large one is `edge/buffer.rs` |
//! | whose log lines are dropped when the log is slow | `observe/access_log/shares.rs` |
//! | how a backend is probed | `edge/probe/ask.rs`, how often `edge/probe/pace.rs` |
//! | what an app may say of it | `feed/messages/records.rs`, `table/policy`, `control/api/shapes`, README |
//! | when an edge that is replaced, or shut down, closes which connection | `edge/leaving.rs` |
//! | how much a table may shrink | `policy/shrink.rs`; who is asked `control/shrink.rs`, `control/boot.rs`, `edge/sync/link.rs` |
//! | when a table has run well | `control/proving.rs`; its files `feed/proven.rs`, `control/nursery.rs` |
//! | a code or status of our own | `observe/code.rs`, `edge/answers.rs` |
//! | a counter | a row in `observe/metrics.rs` |
//! | whom a process runs as, what it may open | `supervisor/rights.rs`, `supervisor/ownership.rs` |
//! | what a named limit may be, and what it does | `control/limits/shape.rs`, `policy/limit`, `table/limits` |
//! | a setting | a row in `settings/rows.rs`, `config/portico.toml` |
//! | which edge serves, stands by, is started | `supervisor/post/edge.rs`, whether there is memory for a standby `supervisor/standby.rs` |
//! | when a shrunken table is refused | `policy/shrink.rs` |
//! | what an upgrade does, and undoes | `supervisor/upgrade.rs` |
//! | what outlives a supervisor's replacing itself | `supervisor/kernel/state.rs` |

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
