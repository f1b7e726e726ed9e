//! What the edge stands on, and whether another stands by: the kernel's side
//! of `crash_loop` and `standby`. Looks at memory; decides nothing itself.

use std::time::Duration;

use super::Kernel;
use crate::heritage::{Footing, Role, memory};
use crate::supervisor::crash_loop::{Advice, Standing};
use crate::supervisor::moment::Moment;
use crate::supervisor::post::{Post, Request};
use crate::supervisor::reload;
use crate::supervisor::standby::{self, Memory, Verdict};
use crate::supervisor::voice::say;

/// Between two looks at memory.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

impl Kernel {
    /// Does what the crash loop's rule says.
    pub(super) fn follow_footing(&mut self, now: Moment) {
        let trial = self.crash_loop.trial();
        let standing = Standing {
            present: self.edge.present(),
            footing: self.footing(),
            is_replacing: self.edge.is_replacing(),
            has_proven: self.state_dir.has_proven_table(),
            trial: trial.map(|vintage| self.edge.progress(vintage)),
        };
        match self.crash_loop.advise(&standing, now) {
            None => {}
            Some(Advice::Change(footing)) => self.change_footing(footing),
            Some(Advice::Try) => {
                say("edge: the newest table is tried again");
                self.try_newest();
            }
            Some(Advice::FallBack) => self.fall_back(),
            Some(Advice::Settle) => {
                say("edge: the newest table runs well again");
                self.edge.settle();
            }
        }
    }

    fn change_footing(&mut self, footing: Footing) {
        say(match footing {
            Footing::Proven => {
                "edge: three crashed young in a row: the next one stands on the table that ran well"
            }
            Footing::Newest => {
                "edge: it crashes on the table that ran well too: the next one takes the newest"
            }
        });
        let vintage = self.lay_edge(footing);
        self.replace_edge(Request {
            vintage,
            is_held: false,
            keeps_reserve: false,
        });
    }

    /// The proven one goes on standing by until the newest has lived a while.
    pub(super) fn try_newest(&mut self) {
        let vintage = self.lay_edge(Footing::Newest);
        self.replace_edge(Request {
            vintage,
            is_held: false,
            keeps_reserve: true,
        });
    }

    fn fall_back(&mut self) {
        say("edge: the newest table failed: the one that ran well serves on");
        self.edge.fall_back();
        let present = self.cellar.recipe(self.edge.present());
        let is_behind = reload::plan(&present.settings, self.settings.clone()).replace_edge;
        if is_behind && !self.edge.is_replacing() {
            let vintage = self.lay_edge(present.footing);
            self.replace_edge(Request {
                vintage,
                is_held: false,
                keeps_reserve: false,
            });
        }
    }

    /// Every few seconds, and before a start, whether one may stand by.
    pub(super) fn look_at_memory(&mut self, now: Moment) {
        let is_due = self.edge.is_reserve_allowed() && self.edge.is_reserve_due(now);
        if now < self.next_look && !is_due {
            return;
        }
        self.next_look = now + LOOK_INTERVAL;
        let Some(generation) = self.edge.serving() else {
            return;
        };
        let serving = self.child((Role::Edge, generation));
        let verdict = standby::judge(
            self.settings.edge.standby,
            self.edge.stands_by(),
            Memory {
                available: memory::available_bytes(),
                serving: serving.and_then(|child| memory::resident_bytes(child.pid_number())),
            },
        );
        self.edge.allow_reserve(verdict == Verdict::Allowed);
        self.tell_verdict(verdict);
    }

    /// Says why nobody stands by, when the reason is new.
    fn tell_verdict(&mut self, verdict: Verdict) {
        let last = self.standby.replace(verdict);
        let is_same = |other| std::mem::discriminant(&verdict) == std::mem::discriminant(&other);
        if last.is_some_and(is_same) {
            return;
        }
        match verdict {
            Verdict::TooLittle { available, needed } => say(&format!(
                "edge: nobody stands by: {} MiB of memory are available, {} MiB are needed",
                available >> 20,
                needed >> 20
            )),
            Verdict::Unknown => say("edge: nobody stands by: memory cannot be measured"),
            Verdict::Allowed | Verdict::Off => {}
        }
    }
}
