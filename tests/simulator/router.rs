//! One router of a run: a table of its own, with the app in it; or one app of a
//! router that several are at.
//!
//! Owns what an edge process has besides its requests: the table, idle
//! connections, the line of those who wait. The health, the balance and the
//! budget are the router's own, [`portico::table::App`] as the edge uses it.

use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

use portico::feed::messages::{AppRecord, BackendRecord, Change, Delta, Op, PolicyRecord};
use portico::policy::admission::Waiter;
use portico::table::{App, AppLive, Table};

use crate::arena::Id;

/// Data threads of each modelled router.
pub const THREADS: usize = 2;

/// Whom a wake-up reached.
pub type Woken = Arc<Mutex<Vec<Id>>>;

/// Someone in line.
pub struct Waiting {
    /// Whose place it is.
    pub request: Id,
    /// The place.
    pub place: Waiter<'static>,
    /// Reaches it.
    pub waker: Waker,
}

/// An edge process.
pub struct Router {
    table: Arc<Table>,
    /// The app's name.
    name: String,
    /// Its app.
    pub app: Arc<App>,
    /// The app's live state, for as long as the test runs: places in its line
    /// borrow it.
    pub live: &'static AppLive,
    /// Idle connections to each backend.
    pub idle: Vec<u32>,
    /// Those in line, in no order: the order is the queue's own.
    pub waiting: Vec<Waiting>,
    /// When one was last woken for room on a backend it had met already: the
    /// room is not used, and those behind it in the line do not hear of it.
    pub blocked_us: Option<u64>,
    /// When the prober looks at each backend next, if it does.
    pub probe_at_us: Vec<Option<u64>>,
}

impl Router {
    /// One that knows its backends, each of this weight, in this table.
    pub fn new(table: Arc<Table>, name: String, weights: &[u32], policy: &PolicyRecord) -> Self {
        let app = publish(&table, &name, weights, policy);
        let live: &'static Arc<AppLive> = Box::leak(Box::new(Arc::clone(app.live())));
        Router {
            table,
            name,
            app,
            live,
            idle: vec![0; weights.len()],
            waiting: Vec::new(),
            blocked_us: None,
            probe_at_us: vec![None; weights.len()],
        }
    }

    /// A new version of its table: these backends and no others. Those in line
    /// are woken by it and look at the new one.
    pub fn refresh(&mut self, weights: &[u32], policy: &PolicyRecord) {
        self.app = publish(&self.table, &self.name, weights, policy);
    }
}

/// Applies a change as the edge does; gives the app of the new version.
fn publish(table: &Table, name: &str, weights: &[u32], policy: &PolicyRecord) -> Arc<App> {
    let revision = table.revision() + 1;
    let backend = |(number, &weight): (usize, &u32)| BackendRecord {
        id: format!("web.{number:02}"),
        address: format!("10.0.0.{}:9000", number + 1),
        weight,
        incarnation: 1,
        ..BackendRecord::default()
    };
    let record = AppRecord {
        name: name.to_owned(),
        domains: vec![format!("{name}.example")],
        backends: weights.iter().enumerate().map(backend).collect(),
        policy: Some(policy.clone()),
        revision,
    };
    let refused = table.apply(&Delta {
        from: revision - 1,
        to: revision,
        ops: vec![Op {
            change: Some(Change::Put(record)),
        }],
        ..Delta::default()
    });
    assert!(refused.is_empty(), "{refused:?}");
    table.app(name).expect("the app must be there")
}

struct Bell {
    request: Id,
    woken: Woken,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        let mut woken = self.woken.lock().expect("nothing must panic holding it");
        woken.push(self.request);
    }
}

/// A waker that notes whom it reached.
pub fn waker(request: Id, woken: &Woken) -> Waker {
    Waker::from(Arc::new(Bell {
        request,
        woken: Arc::clone(woken),
    }))
}
