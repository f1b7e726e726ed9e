//! A simulator of routers and backends in virtual time, with a seed.
//!
//! What chooses, judges, budgets and queues here is the router's own:
//! [`portico::table::App`] with the policies behind it, one for each modelled
//! router. Modelled are the clock, the network, the backends and their faults,
//! and the steps of the edge's journey, so that hundreds of thousands of
//! requests take a few seconds, and any of them can be run again.
//!
//! ```text
//! cargo test --test simulator                                  all seeds
//! SIMULATOR_SEED=18 cargo test --test simulator chaos          one seed
//! SIMULATOR_TIMES=20 cargo test --test simulator chaos         20 times as many
//! ```
//!
//! A failure names its seed, and tells what was run, what went wrong when, and
//! the router's last decisions.
//!
//! | file | owns |
//! |---|---|
//! | [`engine`], [`arena`] | virtual time; requests and tries by number |
//! | [`load`], [`server`] | arrivals and service times; a backend as a queue |
//! | [`clients`] | who asks, how long they wait, whether they ask again |
//! | [`backend`], [`faults`] | what a backend does in a fault; what goes wrong when |
//! | [`router`], [`journey`], [`attempt`], [`waiting`], [`prober`] | a modelled router |
//! | [`world`], [`record`] | a run; what was seen of it |
//! | [`rules`], [`chaos`] | what holds in every run; random runs |
//! | [`outages`], [`flapping`] | single faults, with the bounds of each |
//! | [`overload`] | what saturation is measured by |
//! | [`spikes`], [`storms`], [`shared`], [`calm`] | more than can be done: at once, again and again, by several; and less |
//! | [`model`] | that the model itself is right |
//!
//! What holds in every run: a request that may be repeated fails only if no
//! healthy backend had room, or its tries or the budget were used up ([`record`]
//! says precisely what that means); one that must not be repeated is begun at
//! most once; retries and hedges stay within the budget in every window; no
//! soft reason empties a pool; nothing is left over at the end.

mod arena;
mod attempt;
mod backend;
mod calm;
mod chaos;
mod clients;
mod engine;
mod faults;
mod flapping;
mod journey;
mod load;
mod model;
mod outages;
mod overload;
mod prober;
mod record;
mod router;
mod rules;
mod seeds;
mod server;
mod shared;
mod spikes;
mod storms;
mod waiting;
mod world;
