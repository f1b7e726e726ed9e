//! SIGHUP: new settings, followed without refusing a connection, or refused
//! whole.

use super::{CONTROL, DRAIN_GRACE, EDGE, Kernel};
use crate::heritage::{Order, Role};
use crate::supervisor::rights::Rights;
use crate::supervisor::voice::say;
use crate::supervisor::{log_file, reload};

impl Kernel {
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
        self.posts[EDGE].set_drain_limit(self.settings.edge.drain_timeout + DRAIN_GRACE);
        if is_same_log {
            self.hand_out_log();
        }
        for (index, replace) in [(CONTROL, plan.replace_control), (EDGE, plan.replace_edge)] {
            let role = self.posts[index].role();
            if replace && !self.posts[index].replace() {
                say(&format!(
                    "SIGHUP: {} is still being replaced: send it again",
                    role.name()
                ));
            }
        }
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
}
