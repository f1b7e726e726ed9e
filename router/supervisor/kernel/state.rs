//! What passes from a supervisor to the one that takes its place: the whole
//! kernel as plain values, and its descriptors by number.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use serde::{Deserialize, Serialize};

use super::table::Graveyard;
use super::upgrade::Renewal;
use super::{Kernel, PING_INTERVAL, Phase};
use crate::heritage::{Adopter, Parcel, UpgradeStatus};
use crate::settings::Settings;
use crate::supervisor::child::{Child, ChildState, Program};
use crate::supervisor::crash_loop::CrashLoop;
use crate::supervisor::moment::Moment;
use crate::supervisor::origin::Origin;
use crate::supervisor::post::{ControlPost, EdgePost};
use crate::supervisor::rights::Rights;
use crate::supervisor::service::Service;
use crate::supervisor::signals::Signals;
use crate::supervisor::sockets::{Sockets, SocketsState};
use crate::supervisor::state_dir::{StateDir, StateDirState};
use crate::supervisor::upgrade::Upgrade;
use crate::supervisor::vintage::{Cellar, Vintage};
use crate::supervisor::voice::say;
use crate::supervisor::{Reread, StartError};

/// See the module. Fields that come later need a default.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::supervisor) struct State {
    /// Those in force, whatever the file says by now.
    settings: Settings,
    rights: Rights,
    state_dir: StateDirState,
    log: Option<RawFd>,
    sockets: SocketsState,
    is_running: bool,
    cellar: Cellar,
    control: ControlPost,
    edge: EdgePost,
    crash_loop: CrashLoop,
    children: Vec<ChildState>,
    graveyard: Graveyard,
    started_at_ms: u64,
    pings: u64,
    next_look: Moment,
    upgrade: Option<UpgradeStatus>,
    /// Where the next binary is found.
    binary: OsString,
    /// Those that were started from the binary that takes over.
    new_vintages: Vec<Vintage>,
}

impl State {
    /// Every descriptor it names.
    fn numbers(&self) -> Vec<RawFd> {
        let children = self.children.iter().flat_map(ChildState::numbers);
        self.state_dir
            .numbers()
            .into_iter()
            .chain(self.log)
            .chain(self.sockets.numbers())
            .chain(children)
            .collect()
    }
}

impl Kernel {
    /// As it is now; `origin` is where it will be upgraded from again.
    pub(super) fn state(&self, origin: &Origin) -> State {
        State {
            settings: self.settings.clone(),
            rights: self.rights,
            state_dir: self.state_dir.leave(),
            log: self.log.as_ref().map(|log| log.as_fd().as_raw_fd()),
            sockets: self.sockets.leave(),
            is_running: self.phase == Phase::Running,
            cellar: self.cellar.clone(),
            control: self.control.clone(),
            edge: self.edge.clone(),
            crash_loop: self.crash_loop.clone(),
            children: self.children.iter().map(Child::leave).collect(),
            graveyard: self.graveyard.clone(),
            started_at_ms: self.started_at_ms,
            pings: self.pings,
            next_look: self.next_look,
            upgrade: self.renewal.status().cloned(),
            binary: origin.binary.clone().into(),
            new_vintages: self.renewal.vintages(),
        }
    }

    /// What its successor inherits: the descriptors that the state names.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let children = self.children.iter().flat_map(Child::descriptors);
        self.state_dir
            .descriptors()
            .into_iter()
            .chain(self.log.as_ref().map(AsFd::as_fd))
            .chain(self.sockets.descriptors())
            .chain(children)
            .collect()
    }

    /// Goes on as the supervisor that left this state in this process;
    /// `memory` is the number of the descriptor that holds it.
    ///
    /// # Errors
    /// A descriptor that is not what the state says, or signals that cannot
    /// be handled. Both were tried in the rehearsal as far as can be.
    pub(in crate::supervisor) fn succeed_from(
        state: State,
        memory: RawFd,
        reread: Reread,
    ) -> Result<Kernel, StartError> {
        let system = |what| move |source| StartError::System { what, source };
        let numbers = state.numbers().into_iter().chain([memory]);
        let mut adopter = Adopter::once(numbers.collect())?;
        drop(adopter.take(memory, "the supervisor's state")?);
        let program = Program::this().map_err(system("find its own binary"))?;
        let mut cellar = state.cellar;
        cellar.rename(&state.new_vintages, &program);
        let children = state.children.into_iter();
        let children = children.map(|child| Child::enter(child, &mut adopter));
        let children = children.collect::<Result<_, _>>()?;
        let log = state.log.map(|log| adopter.take(log, "access log"));
        let now = Moment::now();
        let origin = Origin::inherited(&state.binary);
        let text = format!(
            "version {} from {} runs",
            env!("CARGO_PKG_VERSION"),
            origin.binary.display()
        );
        let last = state.upgrade.map(|status| {
            say(&format!("upgrade {} done: {text}", status.attempt));
            Upgrade::succeeded(status, &text, now)
        });
        let mut service = Service::from_environment(now);
        // Its predecessor told the service manager that a reload had begun.
        service.resume_reloading();
        Ok(Kernel {
            state_dir: StateDir::enter(&state.settings.state_dir, &state.state_dir, &mut adopter)?,
            sockets: Sockets::enter(&state.sockets, &mut adopter)?,
            log: log.transpose()?.map(|log| Parcel::from(File::from(log))),
            // What waited for a handler is let in from here on.
            signals: Signals::take().map_err(system("handle signals"))?,
            settings: state.settings,
            rights: state.rights,
            program,
            reread,
            phase: match state.is_running {
                true => Phase::Running,
                false => Phase::Starting,
            },
            cellar,
            control: state.control,
            edge: state.edge,
            crash_loop: state.crash_loop,
            children,
            graveyard: state.graveyard,
            started_at_ms: state.started_at_ms,
            next_ping: now + PING_INTERVAL,
            pings: state.pings,
            next_look: state.next_look,
            standby: None,
            table_stale: true,
            is_init: std::process::id() == 1,
            renewal: Renewal::new(Ok(origin), last),
            service,
        })
    }
}
