//! What a change of settings means for running processes. Pure: two
//! settings in, a plan out.

use super::rights::Rights;
use crate::heritage::Role;
use crate::settings::Settings;

/// What SIGHUP has to do.
#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    /// The settings that hold from now on.
    pub settings: Settings,
    /// Keys that differ, `state_dir` never among them.
    pub changed: Vec<&'static str>,
    /// The folder cannot change under a running supervisor: its lock and its
    /// children's files are in it.
    pub state_dir_needs_restart: bool,
    /// The data plane has to be replaced.
    pub replace_edge: bool,
    /// Control has to be replaced: it shows the settings, so any change
    /// concerns it.
    pub replace_control: bool,
}

impl Plan {
    /// Takes in whom the accounts named by the settings are now: an account
    /// may change while its name does not.
    pub(super) fn follow_rights(&mut self, was: &Rights, is: &Rights) {
        let keys = [(Role::Control, "user"), (Role::Edge, "edge.user")];
        for (role, key) in keys {
            if was.identity(role) == is.identity(role) {
                continue;
            }
            if !self.changed.contains(&key) {
                self.changed.push(key);
            }
            self.replace_control = true;
            self.replace_edge |= role == Role::Edge;
        }
    }
}

/// Compares.
pub(super) fn plan(old: &Settings, mut new: Settings) -> Plan {
    let state_dir_needs_restart = new.state_dir != old.state_dir;
    new.state_dir.clone_from(&old.state_dir);
    let was = old.entries();
    let differing = new
        .entries()
        .into_iter()
        .zip(was)
        .filter(|(is, was)| is != was);
    let changed: Vec<&'static str> = differing.map(|((key, _), _)| key).collect();
    // Whether one stands by is the supervisor's business alone.
    let concerns_edge = |key: &&str| {
        *key != "edge.standby" && (key.starts_with("edge.") || key.starts_with("log."))
    };
    Plan {
        replace_edge: changed.iter().any(concerns_edge),
        replace_control: !changed.is_empty(),
        settings: new,
        changed,
        state_dir_needs_restart,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::rights::Identity;

    fn planned(overrides: &[&str]) -> Plan {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        plan(
            &Settings::default(),
            Settings::load(None, &overrides).unwrap(),
        )
    }

    #[test]
    fn nothing_changed_replaces_nobody() {
        let plan = planned(&["edge.threads=0"]);
        assert!(plan.changed.is_empty() && !plan.replace_edge && !plan.replace_control);
    }

    #[test]
    fn each_key_concerns_the_processes_that_read_it() {
        let edge = planned(&["edge.drain_timeout=1s", "log.access=off"]);
        assert_eq!(edge.changed, ["edge.drain_timeout", "log.access"]);
        assert!(edge.replace_edge && edge.replace_control);
        let standby = planned(&["edge.standby=off"]);
        assert!(!standby.replace_edge && standby.replace_control);
        let api = planned(&["api.listen=127.0.0.1:1"]);
        assert!(!api.replace_edge && api.replace_control);
    }

    #[test]
    fn an_account_that_changed_behind_its_name_replaces_its_process() {
        let split = |control, edge| Rights::Split {
            control: Identity {
                uid: control,
                gid: control,
            },
            edge: Identity {
                uid: edge,
                gid: edge,
            },
        };
        let mut plan = planned(&[]);
        plan.follow_rights(&split(5, 6), &split(5, 6));
        assert!(plan.changed.is_empty() && !plan.replace_control && !plan.replace_edge);
        plan.follow_rights(&split(5, 6), &split(7, 6));
        assert_eq!(plan.changed, ["user"]);
        assert!(plan.replace_control && !plan.replace_edge);
        plan.follow_rights(&split(7, 6), &split(7, 8));
        assert_eq!(plan.changed, ["user", "edge.user"]);
        assert!(plan.replace_edge);
    }

    #[test]
    fn the_state_folder_stays() {
        let plan = planned(&["state_dir=elsewhere"]);
        assert!(plan.state_dir_needs_restart && plan.changed.is_empty());
        assert_eq!(plan.settings.state_dir, Settings::default().state_dir);
    }
}
