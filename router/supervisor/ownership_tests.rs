//! State folders of every past, shared out. Only root can give things away,
//! so without it there is nothing to see here.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;

use super::*;

const CONTROL: Identity = Identity {
    uid: 61_170,
    gid: 61_172,
};
const EDGE: Identity = Identity {
    uid: 61_171,
    gid: 61_173,
};

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn share(path: &Path, control: Option<Identity>, is_marked: bool) -> Result<(), Refusal> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let folder = rustix::fs::open(path, flags, Mode::empty()).unwrap();
    let share = Share {
        control,
        edge: EDGE,
        is_marked,
    };
    share_out(&folder, share)
}

/// Owner, group, mode.
fn of(path: &Path) -> (u32, u32, u32) {
    let found = fs::symlink_metadata(path).unwrap();
    (found.uid(), found.gid(), found.mode() & 0o7777)
}

/// As a router that ran as root throughout leaves it.
fn roots_folder() -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path();
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
    for file in ["supervisor.lock", "addresses.json", "token", "store.redb"] {
        fs::write(path.join(file), "").unwrap();
    }
    fs::create_dir(path.join("table")).unwrap();
    fs::write(path.join("table/snapshot"), "").unwrap();
    fs::hard_link(path.join("table/snapshot"), path.join("table/proven")).unwrap();
    drop(UnixListener::bind(path.join("feed.sock")).unwrap());
    temp
}

fn assert_shared(path: &Path) {
    let (control, both) = ((CONTROL.uid, CONTROL.gid), (CONTROL.uid, EDGE.gid));
    assert_eq!(of(path), (both.0, both.1, 0o710));
    for file in ["token", "store.redb", "supervisor.lock"] {
        assert_eq!(
            of(&path.join(file)),
            (control.0, control.1, 0o600),
            "{file}"
        );
    }
    assert_eq!(of(&path.join("table")), (both.0, both.1, 0o2750));
    for file in ["table/snapshot", "table/proven"] {
        assert_eq!(of(&path.join(file)), (both.0, both.1, 0o640), "{file}");
    }
    assert_eq!(of(&path.join("feed.sock")), (both.0, both.1, 0o660));
}

#[test]
fn a_folder_of_roots_is_handed_over_and_taken_back() {
    if !is_root() {
        return;
    }
    let temp = roots_folder();
    let path = temp.path();
    // An export that an operator left there is nobody's business.
    fs::write(path.join("apps.ndjson"), "").unwrap();
    share(path, Some(CONTROL), true).unwrap();
    assert_shared(path);
    assert_eq!(of(&path.join("apps.ndjson")).0, 0);
    share(path, Some(CONTROL), true).unwrap();
    assert_shared(path);
    let root = Identity { uid: 0, gid: 0 };
    share(path, Some(root), true).unwrap();
    assert_eq!(of(path), (0, EDGE.gid, 0o710));
    assert_eq!(of(&path.join("store.redb")), (0, 0, 0o600));
    assert_eq!(of(&path.join("table/snapshot")), (0, EDGE.gid, 0o640));
}

#[test]
fn an_edges_start_changes_groups_alone() {
    if !is_root() {
        return;
    }
    let temp = roots_folder();
    share(temp.path(), None, true).unwrap();
    assert_eq!(of(temp.path()), (0, EDGE.gid, 0o710));
    assert_eq!(of(&temp.path().join("table")), (0, EDGE.gid, 0o2750));
    assert_eq!(of(&temp.path().join("token")).0, 0);
}

#[test]
fn an_empty_folder_gets_its_table() {
    if !is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    share(temp.path(), Some(CONTROL), false).unwrap();
    let table = (CONTROL.uid, EDGE.gid, 0o2750);
    assert_eq!(of(&temp.path().join("table")), table);
    fs::remove_dir(temp.path().join("table")).unwrap();
    share(temp.path(), Some(CONTROL), true).unwrap();
    assert_eq!(of(&temp.path().join("table")), table);
}

#[test]
fn what_others_rely_on_is_not_given_away() {
    if !is_root() {
        return;
    }
    for (entry, is_marked) in [("notes", false), (".bashrc", true), (".bashrc", false)] {
        let temp = roots_folder();
        fs::write(temp.path().join(entry), "").unwrap();
        let refused = share(temp.path(), Some(CONTROL), is_marked);
        assert_eq!(refused, Err(Refusal::Foreign(entry.into())));
        assert_eq!(of(temp.path()), (0, 0, 0o700));
    }
    let temp = roots_folder();
    fs::create_dir(temp.path().join("dpkg")).unwrap();
    let refused = share(temp.path(), Some(CONTROL), true);
    assert_eq!(refused, Err(Refusal::Foreign("dpkg".into())));
    // Prepared by hand, it is used as it is.
    chown(temp.path(), Some(CONTROL.uid), Some(0)).unwrap();
    fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o751)).unwrap();
    share(temp.path(), Some(CONTROL), true).unwrap();
    assert_eq!(of(temp.path()), (CONTROL.uid, 0, 0o751));
    assert_eq!(of(&temp.path().join("table/snapshot")).1, EDGE.gid);
}

#[test]
fn links_are_left_alone_and_so_is_what_they_lead_to() {
    if !is_root() {
        return;
    }
    let temp = roots_folder();
    let outside = tempfile::tempdir().unwrap();
    let shadow = outside.path().join("shadow");
    fs::write(&shadow, "").unwrap();
    let before = of(&shadow);
    fs::remove_file(temp.path().join("token")).unwrap();
    symlink(&shadow, temp.path().join("token")).unwrap();
    fs::rename(temp.path().join("table"), outside.path().join("moved")).unwrap();
    symlink(outside.path(), temp.path().join("table")).unwrap();
    chown(temp.path(), Some(CONTROL.uid), Some(EDGE.gid)).unwrap();
    share(temp.path(), Some(CONTROL), true).unwrap();
    assert_eq!(of(&shadow), before);
    assert_eq!(of(outside.path()).0, 0);
}

#[test]
fn only_what_was_the_folders_owners_changes_hands() {
    if !is_root() {
        return;
    }
    let temp = roots_folder();
    let stranger = 61_174;
    chown(temp.path(), Some(61_175), None).unwrap();
    chown(temp.path().join("token"), Some(61_175), None).unwrap();
    chown(temp.path().join("store.redb"), Some(stranger), None).unwrap();
    share(temp.path(), Some(CONTROL), true).unwrap();
    assert_eq!(of(&temp.path().join("token")).0, CONTROL.uid);
    assert_eq!(of(&temp.path().join("store.redb")).0, stranger);
}
