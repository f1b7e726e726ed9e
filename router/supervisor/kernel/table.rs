//! The process table and the obituaries, as control and operators are told.

use std::collections::VecDeque;
use std::time::Duration;

use rustix::process::{Pid, WaitStatus};
use serde::{Deserialize, Serialize};

use super::Kernel;
use crate::heritage::{
    Departed, Obituary, Order, ProcessState, ProcessStatus, Role, open_descriptors,
};
use crate::supervisor::child;
use crate::supervisor::moment::Moment;
use crate::supervisor::post::{Post, Relief};
use crate::supervisor::voice::say;

/// Obituaries kept.
const MAX_OBITUARIES: usize = 20;
/// Last words told of each but the last of a role: the whole table has to fit
/// a datagram.
const MAX_WORDS_TOLD: usize = 3;

/// The dead, the last one first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Graveyard {
    graves: VecDeque<Departed>,
}

impl Graveyard {
    fn bury(&mut self, departed: Departed) {
        self.graves.truncate(MAX_OBITUARIES - 1);
        self.graves.push_front(departed);
    }

    /// The last one of a role, with all its last words.
    fn last(&self, role: Role) -> Option<&Obituary> {
        let mut graves = self.graves.iter();
        let departed = graves.find(|departed| departed.process == role)?;
        Some(&departed.obituary)
    }

    /// All, each with a few words.
    fn told(&self) -> Vec<Departed> {
        let brief = |departed: &Departed| {
            let mut departed = departed.clone();
            let words = &mut departed.obituary.last_words;
            words.drain(..words.len().saturating_sub(MAX_WORDS_TOLD));
            departed
        };
        self.graves.iter().map(brief).collect()
    }
}

impl Kernel {
    /// A child is dead: its post learns of it, and so does everybody who reads
    /// the log or the table.
    pub(super) fn on_death(&mut self, pid: Pid, status: WaitStatus) {
        if self.renewal.pid() == Some(pid) {
            return self.on_rehearsal_end(status);
        }
        let Some(at) = self.children.iter().position(|child| child.pid == pid) else {
            return;
        };
        let child = self.children.swap_remove(at);
        let (role, now) = (child.role, Moment::now());
        let ending = child::ending(status);
        let Some(departure) = self.post(role).died(child.generation, &ending, now) else {
            return;
        };
        if role == Role::Edge {
            self.crash_loop.died(&departure, now);
            self.follow_footing(now);
        }
        // Before anything is said or written: others wait for the next one.
        self.attend(role, now);
        let obituary = child.bury(status, &departure);
        if departure.is_unwanted() || obituary.exit_code != Some(0) {
            say(&epitaph(role, &obituary, departure.relief));
        }
        self.graveyard.bury(Departed {
            process: role,
            obituary,
        });
        self.table_stale = true;
    }

    /// False: control does not read now; it has to be told again.
    pub(super) fn tell_control(&self) -> bool {
        let table = self.process_table();
        let is_control = |child: &&child::Child| child.role == Role::Control && !child.deaf;
        let mut controls = self.children.iter().filter(is_control);
        controls.all(|child| child.tether.order(Order::Processes(table.clone())))
    }

    fn process_table(&self) -> Vec<ProcessStatus> {
        let mut table = vec![ProcessStatus {
            role: Role::Supervisor,
            pid: std::process::id(),
            state: ProcessState::Ready,
            started_at_ms: self.started_at_ms,
            restarts: 0,
            last_exit: None,
            open_descriptors: open_descriptors(),
            upgrade: self.renewal.status().cloned(),
            obituaries: self.graveyard.told(),
        }];
        table.extend(self.rows(Role::Control, &self.control));
        table.extend(self.rows(Role::Edge, &self.edge));
        table
    }

    /// Those that serve first, those that leave last.
    fn rows(&self, role: Role, post: &dyn Post) -> Vec<ProcessStatus> {
        let row = |pid, state, started_at_ms| ProcessStatus {
            role,
            pid,
            state,
            started_at_ms,
            restarts: post.restarts(),
            last_exit: match state {
                // Once or twice is enough: the table must stay small.
                ProcessState::Standby | ProcessState::Draining => None,
                _ => self.graveyard.last(role).cloned(),
            },
            open_descriptors: None,
            upgrade: None,
            obituaries: Vec::new(),
        };
        let members = self.children.iter().filter(|child| child.role == role);
        let rows = members.map(|child| {
            let state = post.state_of(child.generation);
            let state = state.unwrap_or(ProcessState::Draining);
            row(child.pid_number(), state, child.started_at_ms)
        });
        let mut rows: Vec<ProcessStatus> = rows.collect();
        rows.sort_by_key(|row| match row.state {
            ProcessState::Ready => 0,
            ProcessState::Starting | ProcessState::Waiting => 1,
            ProcessState::Standby => 2,
            ProcessState::Draining => 3,
        });
        if rows.is_empty() {
            rows.push(row(0, ProcessState::Waiting, 0));
        }
        rows
    }
}

/// One line for the log when a child died.
fn epitaph(role: Role, obituary: &Obituary, relief: Relief) -> String {
    let lived = Duration::from_millis(obituary.lived_ms).as_secs_f64();
    let then = match relief {
        Relief::Serves => "; the present one stays".to_owned(),
        Relief::TakesOver => "; the standby takes over".to_owned(),
        Relief::Loads => "; the one that loads follows".to_owned(),
        Relief::Starts(Duration::ZERO) => "; restarting at once".to_owned(),
        Relief::Starts(delay) => format!("; restarting in {} ms", delay.as_millis()),
        Relief::Nobody => String::new(),
    };
    format!(
        "{} {} {} after {lived:.1}s{then}",
        role.name(),
        obituary.pid,
        obituary.reason
    )
}
