//! Heritage: all that passes from the supervisor to a child.
//!
//! Owns the one environment variable ([`VARIABLE`], JSON: role, settings,
//! descriptor numbers), the descriptors it names, and the [`Lifeline`]. A
//! process that finds the variable is a child; one that does not was started
//! by a person. Never binds a socket, never starts a process.
//!
//! A child works inside the state folder, which it gets as a descriptor: the
//! folders above may be closed to its user. So every path of a heritage is
//! relative, and [`crate::settings::absolute`] shows it to people. What a child
//! gives up before it does anything is in `confine`; how much memory it finds,
//! which supervisor and child must see alike, in [`memory`].
//!
//! **Invariant**: nothing else is shared between supervisor and child, so
//! what a child needs to live can be read here whole.

mod adopt;
mod confine;
mod lifeline;
pub mod memory;
mod process;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::RawFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::settings::Settings;
pub(crate) use adopt::Adopter;
pub(crate) use lifeline::pair;
pub use lifeline::{Heard, Lifeline, Order, Parcel, Report, Tether};
pub use process::{
    Departed, Obituary, ProcessState, ProcessStatus, Role, UpgradeStage, UpgradeStatus,
    open_descriptors,
};

/// Connections that wait for `accept`, per socket; the kernel caps it at
/// `net.core.somaxconn`.
pub const BACKLOG: i32 = 65_535;

/// The environment variable that makes a process a child.
pub const VARIABLE: &str = "PORTICO_HERITAGE";

/// The form of the will's JSON; a child refuses another, which can only mean
/// that two versions of the binary were mixed.
const VERSION: u32 = 1;

/// What an edge is born with.
#[derive(Debug)]
pub struct EdgeHeritage {
    /// Checked settings.
    pub settings: Settings,
    /// `[thread][listener]`: `SO_REUSEPORT`, non-blocking, bound. Those that do not
    /// listen yet are to when this edge begins to serve. Every socket must be
    /// accepted from, or connections hang in it. Threads may hold different
    /// numbers of sockets, never none.
    pub listeners: Vec<Vec<TcpListener>>,
    /// Which table it boots from.
    pub footing: Footing,
    /// Nobody serves: it loads its table as fast as it can. Else it stands back
    /// for the one that does.
    pub is_awaited: bool,
    /// The unix socket on which control answers; it may not yet.
    pub feed_path: PathBuf,
    /// Where the table's snapshot and journal are.
    pub table_dir: PathBuf,
    /// The access log, open to append to, where the settings name a file.
    pub log: Option<File>,
    /// The way to and from the supervisor.
    pub lifeline: Lifeline,
}

/// Which table an edge stands on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Footing {
    /// The newest on disk; then it follows control.
    #[default]
    Newest,
    /// The last that ran well, and no other: edges crashed one after another,
    /// and what changed since may be why.
    Proven,
}

/// What control is born with. All listeners are non-blocking.
#[derive(Debug)]
pub struct ControlHeritage {
    /// Checked settings.
    pub settings: Settings,
    /// Where store, token and table are.
    pub state_dir: PathBuf,
    /// The registration API.
    pub api: TcpListener,
    /// The admin port.
    pub admin: TcpListener,
    /// Where edges connect.
    pub feed: UnixListener,
    /// The way to and from the supervisor.
    pub lifeline: Lifeline,
}

/// What this process was started to be.
#[derive(Debug)]
pub enum Heritage {
    /// The data plane.
    Edge(Box<EdgeHeritage>),
    /// Registry, store and admin port.
    Control(Box<ControlHeritage>),
}

/// Why a heritage could not be claimed.
#[derive(Debug, thiserror::Error)]
pub enum HeritageError {
    /// Not the JSON this version writes.
    #[error("{VARIABLE} does not hold a heritage: {0}")]
    Malformed(String),
    /// Written for another process, or claimed twice.
    #[error("{VARIABLE} was not meant for this process: {0}")]
    NotMine(&'static str),
    /// The user this process runs as may not enter the state folder.
    #[error("state_dir {}: cannot enter it: {source}", path.display())]
    StateDir {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A descriptor is not what the will says.
    #[error("inherited descriptor {fd} ({what}): {source}")]
    Descriptor {
        /// Its number.
        fd: RawFd,
        /// What it should have been.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The JSON in [`VARIABLE`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Will {
    /// [`VERSION`].
    version: u32,
    /// Whose child may claim it.
    supervisor_pid: u32,
    /// The child's end of the lifeline.
    lifeline: RawFd,
    /// The folder it works in.
    state_dir: RawFd,
    settings: Settings,
    bequest: Bequest,
}

/// Descriptor numbers by role.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bequest {
    /// For [`EdgeHeritage`].
    Edge {
        /// `[thread][listener]`
        listeners: Vec<Vec<RawFd>>,
        /// The access log.
        #[serde(default)]
        log: Option<RawFd>,
        /// Which table to boot from.
        #[serde(default)]
        footing: Footing,
        /// Whether nobody serves.
        #[serde(default)]
        is_awaited: bool,
    },
    /// For [`ControlHeritage`].
    Control {
        /// TCP listener.
        api: RawFd,
        /// TCP listener.
        admin: RawFd,
        /// Unix listener.
        feed: RawFd,
    },
}

impl Will {
    /// A will of this process for a child about to be started, which gets this
    /// lifeline and works in this folder.
    pub fn new(
        settings: Settings,
        (lifeline, state_dir): (RawFd, RawFd),
        bequest: Bequest,
    ) -> Will {
        Will {
            version: VERSION,
            supervisor_pid: std::process::id(),
            lifeline,
            state_dir,
            settings,
            bequest,
        }
    }

    /// The value of [`VARIABLE`].
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a will must be JSON: it holds no map and no float")
    }

    /// Every descriptor the child needs, the lifeline among them.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let mut all = vec![self.lifeline, self.state_dir];
        match &self.bequest {
            Bequest::Edge { listeners, log, .. } => {
                all.extend(listeners.iter().flatten());
                all.extend(log);
            }
            Bequest::Control { api, admin, feed } => all.extend([api, admin, feed]),
        }
        all
    }
}

/// Reads [`VARIABLE`] and takes over what it names; `None` if it is not set,
/// which means a person started this process.
///
/// # Errors
/// A will of another version or for another process, and descriptors that
/// are not open or no sockets.
pub fn claim() -> Result<Option<Heritage>, HeritageError> {
    let Some(text) = std::env::var_os(VARIABLE) else {
        return Ok(None);
    };
    let text = text
        .into_string()
        .map_err(|_| HeritageError::Malformed("not UTF-8".into()))?;
    claim_from(&text).map(Some)
}

fn claim_from(text: &str) -> Result<Heritage, HeritageError> {
    let will: Will =
        serde_json::from_str(text).map_err(|error| HeritageError::Malformed(error.to_string()))?;
    if will.version != VERSION {
        return Err(HeritageError::Malformed(format!(
            "version {}",
            will.version
        )));
    }
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if parent != Some(will.supervisor_pid) {
        return Err(HeritageError::NotMine(
            "the supervisor that wrote it is not the parent",
        ));
    }
    let mut adopter = Adopter::once(will.descriptors())?;
    confine::give_up_rights();
    let folder = adopter.take(will.state_dir, "state folder")?;
    rustix::process::fchdir(&folder).map_err(|errno| HeritageError::StateDir {
        path: will.settings.state_dir.clone(),
        source: errno.into(),
    })?;
    bequeathed(will, adopter)
}

fn bequeathed(will: Will, mut adopter: Adopter) -> Result<Heritage, HeritageError> {
    let lifeline = Lifeline::new(adopter.take(will.lifeline, "lifeline")?);
    let settings = will.settings;
    match will.bequest {
        Bequest::Edge {
            listeners,
            log,
            footing,
            is_awaited,
        } => {
            let mut threads = Vec::with_capacity(listeners.len());
            for thread in listeners {
                let sockets = thread
                    .into_iter()
                    .map(|fd| adopter.tcp(fd, "edge listener"));
                threads.push(sockets.collect::<Result<Vec<_>, _>>()?);
            }
            let log = log.map(|fd| adopter.take(fd, "access log")).transpose()?;
            let here = Settings {
                state_dir: PathBuf::new(),
                ..Settings::default()
            };
            let edge = EdgeHeritage {
                settings,
                listeners: threads,
                footing,
                is_awaited,
                feed_path: here.feed_path(),
                table_dir: here.table_dir(),
                log: log.map(File::from),
                lifeline,
            };
            Ok(Heritage::Edge(Box::new(edge)))
        }
        Bequest::Control { api, admin, feed } => {
            let control = ControlHeritage {
                api: adopter.tcp(api, "API listener")?,
                admin: adopter.tcp(admin, "admin listener")?,
                feed: adopter.unix(feed, "feed listener")?,
                settings,
                state_dir: PathBuf::from("."),
                lifeline,
            };
            Ok(Heritage::Control(Box::new(control)))
        }
    }
}
