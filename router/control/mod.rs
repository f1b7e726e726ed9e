//! Control: the registration API, the durable store, leases, the admin port.
//!
//! Owns what is registered ([`registry`]), its durable form ([`store`]), who
//! may change it ([`tokens`]) and the edges that route by it ([`fleet`]). May
//! crash at any time: the edge serves on, and a restart reads the store.
//! Never handles a request of an app's client.

pub mod admin;
pub mod api;
pub mod api_requests;
pub mod boot;
pub mod changes;
pub mod events;
pub mod fleet;
mod http_server;
mod lease_clock;
pub mod leases;
pub mod limits;
pub mod loading;
mod memory;
pub mod names;
mod nursery;
pub mod propagation;
pub mod proving;
pub mod publication;
pub mod refusal;
pub mod registry;
pub mod shrink;
pub mod snapshots;
pub mod spec;
pub mod staging;
pub mod state;
pub mod store;
mod ticker;
pub mod tokens;

use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::middleware;
use tokio::sync::watch;
use tokio::task::JoinSet;

use api::ApiState;
use api_requests::ApiRequests;
use events::Events;
use fleet::Fleet;
use proving::Seen;
use publication::Publication;
use registry::Registry;
use store::{Contents, Store};
use tokens::Tokens;

use crate::feed::{self, limits_file};
use crate::heritage::{ControlHeritage, Lifeline, Order, ProcessStatus};
use crate::settings::Settings;
use ticker::Pulse;

/// How far the thread that loads the store stands back, of 19.
const NICENESS: i32 = 15;
/// Without a turn of the runtime for this long, control is stuck.
const PULSE_PERIOD: Duration = Duration::from_secs(8);

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
    /// The way to the supervisor.
    pub lifeline: Lifeline,
}

/// The supervisor's latest process table, as the lifeline brings it.
#[derive(Clone, Debug, Default)]
pub struct Processes(Arc<watch::Sender<Vec<ProcessStatus>>>);

impl Processes {
    /// The latest table; empty until the supervisor sent one.
    pub fn latest(&self) -> Vec<ProcessStatus> {
        self.0.borrow().clone()
    }

    /// Takes in a newer one.
    pub fn replace(&self, table: Vec<ProcessStatus>) {
        self.0.send_replace(table);
    }

    /// Follows it; the present one is news.
    pub fn follow(&self) -> watch::Receiver<Vec<ProcessStatus>> {
        let mut following = self.0.subscribe();
        following.mark_changed();
        following
    }
}

/// Why control ended.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The store cannot be believed.
    #[error("{0}")]
    Boot(#[from] boot::BootError),
    /// The system refused something: a folder, a thread, a socket.
    #[error("{what}: {source}")]
    System {
        /// What was wanted.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The writer ended while control ran.
    #[error("the store's thread ended; its last words are above")]
    WriterEnded,
}

fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> ControlError {
    let what = what.into();
    move |source| ControlError::System { what, source }
}

/// Runs control until the supervisor says to drain.
pub fn run(heritage: ControlHeritage) -> ExitCode {
    match serve(heritage) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("control cannot run: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs `work` on a thread of low priority: where both start at once, clients
/// wait for the edge's table and nobody for the store. The priority is the
/// thread's own and goes with it.
fn standing_back<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, ControlError> {
    let niced = || {
        // Refused, it shares the cores evenly.
        let _ = rustix::process::nice(NICENESS);
        work()
    };
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("store-load".into());
        let loading = builder.spawn_scoped(scope, niced);
        let loading = loading.map_err(system("the thread that loads the store"))?;
        loading
            .join()
            .map_err(|_| system("loading the store")(io::Error::other("it panicked")))
    })
}

fn serve(heritage: ControlHeritage) -> Result<(), ControlError> {
    let ControlHeritage {
        settings,
        state_dir,
        api,
        admin,
        feed,
        lifeline,
    } = heritage;
    let (stop, stopping) = watch::channel(false);
    let (pulse, processes) = (Arc::<Pulse>::default(), Processes::default());
    let events = Arc::<Events>::default();
    // First of all, so that opening a large store is not taken for a stall.
    let told = (processes.clone(), events.clone());
    attend(lifeline.clone(), pulse.clone(), told, stop)?;

    let operator = tokens::operator_token(&state_dir).map_err(system("auth.tokens"))?;
    let folder = snapshots::folder(&state_dir);
    let (store, mut contents) = open_store(&state_dir, &folder, &events)?;
    let tokens = Arc::new(Tokens::new(&operator, std::mem::take(&mut contents.tokens)));
    let (registry, _writer) =
        Registry::start(store, contents, tokens.clone()).map_err(system("the store's thread"))?;
    let _rates = limit_sources(&folder, &settings, &registry, &events)?;
    let keeping = keep_limits(folder.clone(), &registry, &events);
    let fleet = Arc::new(Fleet::new(events.clone(), registry.propagation().clone()));
    let look = {
        let (fleet, processes) = (fleet.clone(), processes.clone());
        move || Seen::of(&fleet.edges(), &processes.latest())
    };
    let keeper = snapshots::start(folder, registry.clone(), events.clone(), Box::new(look))
        .map_err(system("the snapshot's thread"))?;
    let api_requests = ApiRequests::default();

    let runtime = runtime().map_err(system("the runtime"))?;
    // Before anybody can ask what is active, or whether all is well.
    let told = runtime.block_on(fleet.meet(processes.follow()));
    let admin_state = AdminState {
        registry: registry.clone(),
        fleet: fleet.clone(),
        tokens,
        events: events.clone(),
        settings: Arc::new(settings),
        api_requests: api_requests.clone(),
        processes,
        lifeline: lifeline.clone(),
    };
    serve_admin(admin, admin_state, stopping.clone())?;
    let counted = middleware::from_fn_with_state(api_requests, api_requests::count);
    let state = ApiState {
        registry: registry.clone(),
        fleet: fleet.clone(),
        events: events.clone(),
        stopping: stopping.clone(),
    };
    let router = api::router(state).layer(counted);
    runtime.block_on(async {
        feed.set_nonblocking(true).map_err(system("the feed's listener"))?;
        let feed = tokio::net::UnixListener::from_std(feed).map_err(system("the feed's listener"))?;
        lifeline.ready();
        let mut running = JoinSet::new();
        running.spawn(fleet::follow(fleet.clone(), told));
        running.spawn(fleet::link::serve(feed, fleet.clone(), registry.clone()));
        running.spawn(fleet::keep(fleet.clone()));
        running.spawn(keeping);
        running.spawn(ticker::run(registry.clone(), fleet, events, pulse));
        tokio::select! {
            served = http_server::serve(api, router, stopping) => served.map_err(system("the API's listener"))?,
            () = registry.writer_ended() => return Err(ControlError::WriterEnded),
        }
        registry.close().await;
        Ok(())
    })?;
    keeper.finish();
    Ok(())
}

fn open_store(
    state_dir: &Path,
    folder: &Path,
    events: &Events,
) -> Result<(Store, Contents), ControlError> {
    let table = |extent| boot::known_good(folder, extent);
    Ok(standing_back(|| boot::open(state_dir, events, table))??)
}

/// The revision that went out before: the table on disk does not go beyond it.
fn shown(folder: &Path, registry: &Registry) -> u64 {
    let known = feed::known_head(folder).ok();
    let ours = known.filter(|known| {
        known.cluster_id == registry.cluster_id() && known.epoch == registry.epoch()
    });
    ours.map_or(registry.revision(), |known| known.revision)
}

/// What keeps the limits on disk, and the table to what the limit `changes`
/// lets out, as of now.
fn keep_limits(
    folder: PathBuf,
    registry: &Arc<Registry>,
    events: &Arc<Events>,
) -> impl Future<Output = ()> + use<> {
    let publication = Publication::new(registry.clone(), shown(&folder, registry));
    let limits = registry.limits().clone();
    let keeping = limits::keep(folder, registry.cluster_id(), limits, events.clone());
    async {
        tokio::join!(publication.keep(), keeping);
    }
}

/// Takes in what says how limits are besides the store: files, and of a store
/// that was rebuilt the limits beside the table.
fn limit_sources(
    folder: &Path,
    settings: &Settings,
    registry: &Registry,
    events: &Arc<Events>,
) -> Result<Option<limits::files::Watch>, ControlError> {
    let kept = limits_file::read(folder).unwrap_or_else(|error| {
        tracing::warn!("{error}; it is written anew");
        None
    });
    let kept = kept.filter(|kept| kept.cluster_id == registry.cluster_id());
    if let Some(kept) = &kept {
        registry.adopt_limits(&kept.stored);
    }
    let Some(rates_dir) = &settings.rates_dir else {
        return Ok(None);
    };
    let limits = registry.limits().clone();
    let watch = limits::files::watch(rates_dir.clone(), kept.as_ref(), limits, events.clone());
    watch
        .map(Some)
        .map_err(system("the thread that reads rates_dir"))
}

/// Serves the admin port from a thread and a runtime of its own: a busy API
/// must not hide it.
fn serve_admin(
    listener: TcpListener,
    state: AdminState,
    stopping: watch::Receiver<bool>,
) -> Result<(), ControlError> {
    let serve = move || {
        let router = admin::router(state);
        let served = runtime()
            .and_then(|runtime| runtime.block_on(http_server::serve(listener, router, stopping)));
        if let Err(error) = served {
            tracing::error!("the admin port cannot be served: {error}");
        }
    };
    let thread = thread::Builder::new().name("admin".into()).spawn(serve);
    thread.map(drop).map_err(system("the admin port's thread"))
}

/// Answers the supervisor from a thread of its own.
fn attend(
    lifeline: Lifeline,
    pulse: Arc<Pulse>,
    (processes, events): (Processes, Arc<Events>),
    stop: watch::Sender<bool>,
) -> Result<(), ControlError> {
    let serve = move || {
        lifeline.serve(
            || pulse.is_within(PULSE_PERIOD),
            |order| match order {
                Order::Drain | Order::Orphaned => drop(stop.send_replace(true)),
                Order::Processes(table) => {
                    if let Some((kind, text)) = admin::upgrade::news(&processes.latest(), &table) {
                        events.say(kind, "", "", text);
                    }
                    processes.replace(table);
                }
                // These are an edge's.
                Order::Serve | Order::HandOver => {}
                // Control's own log goes to the supervisor's standard error.
                Order::Reopen(_) => {}
            },
        );
    };
    let thread = thread::Builder::new().name("lifeline".into()).spawn(serve);
    thread.map(drop).map_err(system("the lifeline's thread"))
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}
