//! Changes of what runs: new settings, and replacements by another vintage.
//! Whether and when one takes the old one's place is the posts' to decide.

use super::{Kernel, limits};
use crate::heritage::{Footing, Order, Role};
use crate::supervisor::child::Program;
use crate::supervisor::moment::Moment;
use crate::supervisor::post::{Post, Progress, Request};
use crate::supervisor::rights::Rights;
use crate::supervisor::vintage::{Recipe, Vintage};
use crate::supervisor::voice::say;
use crate::supervisor::{log_file, reload};

impl Kernel {
    /// SIGHUP.
    pub(super) fn reload(&mut self) {
        let mut plan = match (self.reread)() {
            Ok(settings) => reload::plan(&self.settings, settings),
            Err(error) => return say(&format!("SIGHUP: settings refused, the old stay: {error}")),
        };
        if plan.state_dir_needs_restart {
            say("SIGHUP: state_dir changed: that needs a restart, the old one stays");
        }
        let refused = |error: &dyn std::error::Error| {
            say(&format!("SIGHUP: settings refused, the old stay: {error}"));
        };
        let rights = match Rights::resolve(&plan.settings, &self.program) {
            Ok(rights) => rights,
            Err(error) => return refused(&error),
        };
        let log = match log_file::open(&plan.settings.log) {
            Ok(log) => log,
            Err(error) => return refused(&error),
        };
        if let Err(error) = self.sockets.follow(&plan.settings) {
            return refused(&error);
        }
        plan.follow_rights(&self.rights, &rights);
        let is_same_log = plan.settings.log.access == self.settings.log.access;
        (self.rights, self.log) = (rights, log);
        self.settings = plan.settings;
        if let Err(error) = self.state_dir.write_addresses(&self.sockets.addresses()) {
            say(&error.to_string());
        }
        self.edge.set_limits(limits(&self.settings));
        // A standby may be wanted now, or not any more.
        self.next_look = Moment::now();
        if is_same_log {
            self.hand_out_log();
        }
        if plan.replace_control {
            self.begin_control(self.program.clone());
        }
        self.follow_settings(plan.replace_edge);
        match plan.changed.as_slice() {
            [] => say("SIGHUP: settings unchanged, logs reopened"),
            changed => say(&format!("SIGHUP: {} changed", changed.join(", "))),
        }
    }

    /// Gives every edge the log's new file, those that drain too: whoever moved
    /// the old one waits for all to leave it.
    fn hand_out_log(&self) {
        for edge in self
            .children
            .iter()
            .filter(|child| child.role == Role::Edge)
        {
            if !edge.tether.order(Order::Reopen(self.log.clone())) {
                let pid = edge.pid_number();
                say(&format!("edge {pid} did not take the reopened log"));
            }
        }
    }

    /// Replaces the edge if what serves, or is about to, has other settings.
    /// So a replacement that failed is tried again by the next SIGHUP, and so
    /// is the newest table if the edge stands on the proven one.
    fn follow_settings(&mut self, is_asked: bool) {
        let latest = self.cellar.recipe(self.edge.latest());
        let is_behind = reload::plan(&latest.settings, self.settings.clone()).replace_edge;
        if self.footing() == Footing::Proven {
            self.try_newest();
        } else if is_asked || is_behind {
            let vintage = self.lay_edge(Footing::Newest);
            self.replace_edge(Request {
                vintage,
                is_held: false,
                keeps_reserve: self.crash_loop.trial().is_some(),
            });
        }
    }

    /// What is started by the settings in force.
    fn recipe(&self, program: Program, footing: Footing) -> Recipe {
        Recipe {
            program,
            settings: self.settings.clone(),
            footing,
        }
    }

    /// A vintage of the edge by the settings in force.
    pub(super) fn lay_edge(&mut self, footing: Footing) -> Vintage {
        let recipe = self.recipe(self.program.clone(), footing);
        self.cellar.lay(recipe)
    }

    /// Replaces control by one of this program: the old one closes its store
    /// first. One that cannot live is started again and again, until another
    /// is asked for.
    pub(super) fn begin_control(&mut self, program: Program) -> Vintage {
        let recipe = self.recipe(program, Footing::Newest);
        let vintage = self.cellar.lay(recipe);
        self.control.replace(vintage);
        vintage
    }

    /// How far that came.
    pub(super) fn control_progress(&self, vintage: Vintage) -> Progress {
        self.control.progress(vintage)
    }

    /// Starts an edge of this program beside the present one. Once warm it
    /// waits to be let serve; it comes sooner if nobody else is left.
    pub(super) fn begin_edge(&mut self, program: Program) -> Vintage {
        let recipe = self.recipe(program, self.footing());
        let vintage = self.cellar.lay(recipe);
        self.replace_edge(Request {
            vintage,
            is_held: true,
            keeps_reserve: false,
        });
        vintage
    }

    /// How far that came.
    pub(super) fn edge_progress(&self, vintage: Vintage) -> Progress {
        self.edge.progress(vintage)
    }

    /// Lets it serve: the old ones hand over as soon as it does.
    pub(super) fn let_edge_serve(&mut self, vintage: Vintage) {
        self.edge.release(vintage);
    }

    /// Gives it up: the old ones never noticed.
    pub(super) fn abandon_edge(&mut self, vintage: Vintage) {
        self.edge.abandon(vintage);
    }

    /// What the edge stands on, or shall.
    pub(super) fn footing(&self) -> Footing {
        self.cellar.recipe(self.edge.present()).footing
    }

    /// Asks for a replacement of the edge; one on trial is followed by a
    /// trial.
    pub(super) fn replace_edge(&mut self, request: Request) {
        if !self.edge.has_room() {
            say("edge: too many still finish: the replacement begins when one has left");
        }
        if request.keeps_reserve {
            self.crash_loop.tries(request.vintage);
        }
        self.edge.replace(request);
    }
}
