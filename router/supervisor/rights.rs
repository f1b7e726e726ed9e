//! Who may do what: the users behind the three processes.
//!
//! | process | runs as | may | never |
//! |---|---|---|---|
//! | supervisor | who started it | bind, open the access log, own the lock, start, signal and reap the others | reads the network, the store or the token |
//! | control | `user` | read and write the state folder; answer on the sockets it was given | bind, signal another process, leave its folder |
//! | edge | `edge.user` | read `table/`, connect to `feed.sock`, write to the log it was handed; answer on the sockets it was given | open the store or the token, create or change a file |
//!
//! Only root can change users, so only a router that root started is split;
//! else every process runs as the supervisor does ([`Rights::AsStarted`]).
//! The ids are distinct unless the settings say otherwise, so neither child
//! can signal, trace or look into the other, nor into the supervisor. Groups
//! of root's are given up with its id: a child has one group, its own. What a
//! child gives up by itself (new privileges through `execve`, capabilities) is
//! in [`crate::heritage`]; what of the state folder belongs to whom is in
//! [`super::ownership`].
//!
//! Everything that needs rights happens here above: sockets are bound and the
//! log is opened by the supervisor, at the start and on SIGHUP, and handed
//! down as descriptors; so is the state folder, which may lie below folders
//! that the children's users cannot enter.
//!
//! **Invariant**: with [`Rights::Split`], no code that reads the network runs
//! as root, unless the settings ask for root by name.

use std::io;
use std::process::Stdio;

use nix::unistd::{Gid, Group, Uid, User as Account};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use super::child::Program;
use super::voice::say;
use crate::heritage::Role;
use crate::settings::{Settings, User};

/// What control's account is called where somebody made one.
const CONTROL_ACCOUNT: &str = "portico";
/// The edge's.
const EDGE_ACCOUNT: &str = "portico-edge";
/// Where ids that nobody has are looked for: neither distributions nor systemd
/// give these away, and user namespaces of 65,536 ids hold them. Not 65534: it
/// stands for every id that a namespace or an NFS server does not know.
const SPARE_IDS: std::ops::Range<u32> = 61_080..61_180;
/// What the supervisor must be able to do to split the router, by name.
const POWERS: [(CapabilitySet, &str); 7] = [
    (CapabilitySet::SETUID, "CAP_SETUID"),
    (CapabilitySet::SETGID, "CAP_SETGID"),
    (CapabilitySet::CHOWN, "CAP_CHOWN"),
    (CapabilitySet::FOWNER, "CAP_FOWNER"),
    (CapabilitySet::FSETID, "CAP_FSETID"),
    (CapabilitySet::DAC_OVERRIDE, "CAP_DAC_OVERRIDE"),
    // Else a child that hangs could not be ended.
    (CapabilitySet::KILL, "CAP_KILL"),
];

/// A user and the one group that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Whom the children run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Rights {
    /// As the supervisor does.
    AsStarted,
    /// As these; either may still be root, if the settings say so.
    Split { control: Identity, edge: Identity },
}

/// Why the children cannot run as the settings want.
#[derive(Debug, thiserror::Error)]
pub enum RightsError {
    /// The account is not there.
    #[error(
        "{key} = {name:?}: there is no such account; expected \"auto\", \"root\", the name of an account, or a user id"
    )]
    NoAccount {
        /// The setting.
        key: &'static str,
        /// Whom it names.
        name: String,
    },
    /// Nobody knows whether the account is there.
    #[error("{key} = {name:?}: the account cannot be looked up: {source}")]
    Lookup {
        /// The setting.
        key: &'static str,
        /// Whom it names.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// Root, but not with all that root usually may.
    #[error(
        "{key}: cannot run anything as {whom}: {why}; give the router that right, start it as the user itself, or set {key} = \"auto\""
    )]
    Powerless {
        /// The setting.
        key: &'static str,
        /// User and group id.
        whom: Identity,
        /// What is missing.
        why: String,
    },
    /// The program is not for everybody.
    #[error("{key}: uid {} may not execute {program}: let others execute it (chmod o+x), or set {key} = \"root\"", whom.uid)]
    Program {
        /// The setting.
        key: &'static str,
        /// User and group id.
        whom: Identity,
        /// The binary.
        program: String,
    },
}

impl std::fmt::Display for Identity {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "uid {} (gid {})", self.uid, self.gid)
    }
}

impl Identity {
    const ROOT: Identity = Identity { uid: 0, gid: 0 };
}

impl Rights {
    /// Finds the accounts, and tries whether `program` runs as them.
    ///
    /// Where `"auto"` cannot be had because this root may not change users (a
    /// container without capabilities), the children stay what the supervisor
    /// is, which is little; that is said. A user named by the settings is then
    /// an error.
    ///
    /// # Errors
    /// See [`RightsError`].
    pub(super) fn resolve(settings: &Settings, program: &Program) -> Result<Rights, RightsError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Rights::AsStarted);
        }
        let (user, edge_user) = (&settings.user, &settings.edge.user);
        let rights = Rights::Split {
            control: identity("user", user, CONTROL_ACCOUNT, 0)?,
            edge: identity("edge.user", edge_user, EDGE_ACCOUNT, 1)?,
        };
        match rights.rehearse(program) {
            Err(RightsError::Powerless { why, .. })
                if asks_for_nobody(user) && asks_for_nobody(edge_user) =>
            {
                say(&format!(
                    "cannot change users: {why}; every process runs as the supervisor does"
                ));
                Ok(Rights::AsStarted)
            }
            Err(error) => Err(error),
            Ok(()) => {
                rights.warn();
                Ok(rights)
            }
        }
    }

    /// Starts `program` once as each user, which takes milliseconds and finds
    /// whatever may stand against it: capabilities, namespaces, modes, lists,
    /// security modules.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn rehearse(&self, program: &Program) -> Result<(), RightsError> {
        for (key, role) in [("user", Role::Control), ("edge.user", Role::Edge)] {
            let Some(whom) = self.identity(role) else {
                continue;
            };
            if let Some(missing) = missing_power() {
                let why = format!("{missing} is missing");
                return Err(RightsError::Powerless { key, whom, why });
            }
            rehearse_as(program, whom).map_err(|error| match error.kind() {
                io::ErrorKind::PermissionDenied if error.raw_os_error() == Some(EACCES) => {
                    let program = program.shown();
                    RightsError::Program { key, whom, program }
                }
                _ => {
                    let why = error.to_string();
                    RightsError::Powerless { key, whom, why }
                }
            })?;
        }
        Ok(())
    }

    /// Whom a child becomes; `None`: it stays what the supervisor is.
    pub(super) fn identity(&self, role: Role) -> Option<Identity> {
        let identity = match (self, role) {
            (Rights::AsStarted, _) | (_, Role::Supervisor) => return None,
            (Rights::Split { control, .. }, Role::Control) => *control,
            (Rights::Split { edge, .. }, Role::Edge) => *edge,
        };
        (identity != Identity::ROOT).then_some(identity)
    }

    /// Says where the children share their user, which defeats the split.
    fn warn(&self) {
        if let Rights::Split { control, edge } = self
            && control.uid == edge.uid
            && *control != Identity::ROOT
        {
            say(&format!(
                "user and edge.user are both uid {}: the edge can read the store",
                edge.uid
            ));
        }
    }
}

/// The system's answer to executing what one may not execute.
const EACCES: i32 = rustix::io::Errno::ACCESS.raw_os_error();

fn asks_for_nobody(user: &User) -> bool {
    matches!(user, User::Auto | User::Root)
}

/// The first thing missing that a split needs.
fn missing_power() -> Option<&'static str> {
    // A kernel that cannot say is found out by what follows.
    let held = rustix::thread::capabilities(None).ok()?.effective;
    let missing = POWERS.iter().find(|(power, _)| !held.contains(*power));
    missing.map(|(_, name)| *name)
}

fn rehearse_as(program: &Program, whom: Identity) -> io::Result<()> {
    let (mut command, _open) = program.command(Some(whom))?;
    command
        .arg("--version")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn()?;
    // That it started is all there was to learn.
    let _ = child.kill();
    child.wait().map(drop)
}

/// Whom `key` means; `parity` keeps the two defaults apart for ever, whatever
/// accounts are made later.
fn identity(
    key: &'static str,
    user: &User,
    account: &str,
    parity: u32,
) -> Result<Identity, RightsError> {
    match user {
        User::Root => Ok(Identity::ROOT),
        User::Id(id) => Ok(Identity { uid: *id, gid: *id }),
        User::Name(name) => match Account::from_name(name) {
            Ok(Some(account)) => Ok(of(&account)),
            Ok(None) => Err(RightsError::NoAccount {
                key,
                name: name.clone(),
            }),
            Err(errno) => Err(RightsError::Lookup {
                key,
                name: name.clone(),
                source: errno.into(),
            }),
        },
        User::Auto => {
            let made = Account::from_name(account).ok().flatten();
            // An account that is root's by another name is not meant.
            let made = made.filter(|account| !account.uid.is_root());
            Ok(made.map_or_else(|| spare(parity), |account| of(&account)))
        }
    }
}

fn of(account: &Account) -> Identity {
    Identity {
        uid: account.uid.as_raw(),
        gid: account.gid.as_raw(),
    }
}

/// The first id that is nobody's, as user or group.
fn spare(parity: u32) -> Identity {
    let is_free = |id: &u32| {
        // Whom a lookup cannot find has no account here.
        let user = Account::from_uid(Uid::from_raw(*id)).ok().flatten();
        let group = Group::from_gid(Gid::from_raw(*id)).ok().flatten();
        user.is_none() && group.is_none()
    };
    let first = SPARE_IDS.start + parity;
    let mut ids = (first..SPARE_IDS.end).step_by(2);
    let id = ids.find(is_free).unwrap_or(first);
    Identity { uid: id, gid: id }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_name_a_user() {
        let named = |user| identity("user", &user, "no-such-account", 0);
        assert_eq!(named(User::Root).unwrap(), Identity::ROOT);
        assert_eq!(
            named(User::Id(7)).unwrap(),
            Identity { uid: 7, gid: 7 },
            "an id is its own group"
        );
        assert_eq!(named(User::Name("root".into())).unwrap(), Identity::ROOT);
        let refused = named(User::Name("nosuch".into())).unwrap_err().to_string();
        assert!(refused.starts_with("user = \"nosuch\": "), "{refused}");
        assert!(refused.contains("expected"), "{refused}");
    }

    #[test]
    fn automatic_ids_are_spare_and_distinct() {
        let control = identity("user", &User::Auto, "no-such-account", 0).unwrap();
        let edge = identity("edge.user", &User::Auto, "no-such-account", 1).unwrap();
        assert_ne!(control.uid, edge.uid);
        assert_ne!(control.gid, edge.gid);
        for identity in [control, edge] {
            assert!(SPARE_IDS.contains(&identity.uid), "{identity}");
            assert_eq!(Account::from_uid(Uid::from_raw(identity.uid)), Ok(None));
        }
        // root has an account, but not one to fall back to.
        let auto = identity("user", &User::Auto, "root", 0).unwrap();
        assert_ne!(auto, Identity::ROOT);
    }

    #[test]
    fn root_by_name_changes_nothing_and_a_split_does() {
        let other = Identity { uid: 7, gid: 8 };
        let rights = Rights::Split {
            control: Identity::ROOT,
            edge: other,
        };
        assert_eq!(rights.identity(Role::Control), None);
        assert_eq!(rights.identity(Role::Edge), Some(other));
        assert_eq!(rights.identity(Role::Supervisor), None);
        assert_eq!(Rights::AsStarted.identity(Role::Edge), None);
    }
}
