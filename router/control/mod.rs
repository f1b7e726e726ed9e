//! Control: the registration API, the durable store, leases, the admin port.
//!
//! Owns what is registered ([`registry`]), its durable form ([`store`]), who
//! may change it ([`tokens`]) and the edges that route by it ([`fleet`]). May
//! crash at any time: the edge serves on, and a restart reads the store.
//! Never handles a request of an app's client.

pub mod admin;
pub mod api_requests;
pub mod changes;
pub mod events;
pub mod fleet;
mod lease_clock;
pub mod leases;
pub mod names;
pub mod refusal;
pub mod registry;
pub mod staging;
pub mod state;
pub mod store;
pub mod tokens;

use std::sync::{Arc, PoisonError, RwLock};

use api_requests::ApiRequests;
use events::Events;
use fleet::Fleet;
use registry::Registry;
use tokens::Tokens;

use crate::heritage::ProcessStatus;
use crate::settings::Settings;

/// What the admin port sees of control. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AdminState {
    /// What is registered.
    pub registry: Arc<Registry>,
    /// The edges.
    pub fleet: Arc<Fleet>,
    /// Who is calling.
    pub tokens: Arc<Tokens>,
    /// What happened.
    pub events: Arc<Events>,
    /// The settings control runs by.
    pub settings: Arc<Settings>,
    /// How often the API was asked.
    pub api_requests: ApiRequests,
    /// The supervisor's latest process table.
    pub processes: Processes,
}

/// The supervisor's latest process table, as the lifeline brings it.
#[derive(Clone, Debug, Default)]
pub struct Processes(Arc<RwLock<Vec<ProcessStatus>>>);

impl Processes {
    /// The latest table; empty until the supervisor sent one.
    pub fn latest(&self) -> Vec<ProcessStatus> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Takes in a newer one.
    pub fn replace(&self, table: Vec<ProcessStatus>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = table;
    }
}
