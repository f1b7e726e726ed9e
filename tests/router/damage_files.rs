//! Files that are not what they should be: empty, foreign, of a later program,
//! exchanged, folders, unreadable, gone. The edge serves the best it can;
//! control boots, or says what to do and comes back once that is done.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::harness::router::request;
use crate::harness::{Answer, Backend, Router, Setup, eventually, need, stays, within};

/// A router that served `shop`, stopped; its table has a previous generation.
fn stopped(backend: &Backend) -> Setup {
    let router = Router::start();
    router.serve("shop", &[backend]);
    router.get("shop", "/before").expect(200);
    // Without its snapshot another is taken, and the journal begun anew; without
    // its journal too, and the snapshot there was becomes the one before.
    let mut setup = router.stop();
    for (lost, made) in [
        ("snapshot", "journal.previous"),
        ("journal", "snapshot.previous"),
    ] {
        fs::remove_file(table(&setup, lost)).expect("it must be there");
        let router = setup.start();
        eventually("both are written anew", || {
            [lost, made]
                .iter()
                .all(|file| table_file(&router, file).is_file())
                .then_some(())
        });
        setup = router.stop();
    }
    setup
}

fn table(setup: &Setup, file: &str) -> PathBuf {
    setup.state_dir().join("table").join(file)
}

fn table_file(router: &Router, file: &str) -> PathBuf {
    router.state_dir().join("table").join(file)
}

fn store(setup: &Setup) -> PathBuf {
    setup.state_dir().join("store.redb")
}

fn said(router: &Router, what: &str) {
    eventually(&format!("it says: {what}"), || {
        router.words().contains(what).then_some(())
    });
}

#[track_caller]
fn serves(router: &Router, body: &str) {
    eventually("the app is served", || {
        let answer = router.get("shop", "/");
        (answer.status == 200 && answer.text() == body).then_some(())
    });
}

/// Something in place of a file.
fn put_folder(path: &Path) {
    let _ = fs::remove_file(path);
    fs::create_dir(path).expect("a folder must be creatable");
}

#[test]
fn an_empty_store_is_rebuilt_and_empty_files_of_the_table_are_written_anew() {
    let backend = Backend::named("whole");
    let setup = stopped(&backend);
    fs::write(store(&setup), b"").expect("writable");
    let router = setup.start();
    serves(&router, "whole");
    router.read("/v1/apps/shop").expect(200);
    said(&router, "Rebuilt from the snapshot");
    let setup = router.stop();
    for file in fs::read_dir(table(&setup, "")).expect("a folder").flatten() {
        fs::write(file.path(), b"").expect("writable");
    }
    let router = setup.start();
    serves(&router, "whole");
    let setup = router.stop();
    let words = setup.folder().join("words.log");
    let before = fs::read_to_string(&words).expect("readable").len();
    let router = setup.start();
    serves(&router, "whole");
    let words = router.words();
    assert!(!words[before..].contains("damaged"), "{}", &words[before..]);
}

#[test]
fn a_folder_in_the_stores_place_is_named_and_control_comes_back_once_it_is_gone() {
    let backend = Backend::named("patient");
    let setup = stopped(&backend);
    let kept = setup.folder().join("kept.redb");
    fs::rename(store(&setup), &kept).expect("a file must be movable");
    put_folder(&store(&setup));
    let router = setup.launch();
    serves(&router, "patient");
    said(&router, "store.redb: is a folder");
    let store = router.state_dir().join("store.redb");
    fs::remove_dir(&store).expect("a folder must be removable");
    fs::rename(&kept, &store).expect("a file must be movable");
    within(Duration::from_secs(60), "control is back", || {
        (router.ready_status() == Some(200)).then_some(())
    });
    router.read("/v1/apps/shop").expect(200);
    serves(&router, "patient");
}

#[test]
fn folders_in_the_tables_place_are_named_and_the_store_counts() {
    let backend = Backend::named("stored");
    for file in [
        "snapshot",
        "journal",
        "snapshot.previous",
        "journal.previous",
    ] {
        let setup = stopped(&backend);
        put_folder(&table(&setup, file));
        let router = setup.start();
        serves(&router, "stored");
        let words = router.words();
        assert!(!words.contains("panicked"), "{file}: {words}");
        serves(&router.stop().start(), "stored");
    }
}

#[test]
fn unreadable_files_are_named_and_what_can_be_read_is_served() {
    let backend = Backend::named("read");
    let setup = stopped(&backend);
    for file in ["snapshot", "journal"] {
        let path = table(&setup, file);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).expect("settable");
    }
    let router = setup.start();
    serves(&router, "read");
    let router = router.stop().start();
    serves(&router, "read");
}

/// A snapshot's header as a later program would write it.
fn of_later_program(path: &Path) {
    let mut bytes = fs::read(path).expect("a snapshot must be readable");
    bytes[12..16].copy_from_slice(&9u32.to_be_bytes());
    let id = u32::from_be_bytes(bytes[36..40].try_into().expect("4 bytes")) as usize;
    let crc = crc32c::crc32c(&bytes[..40 + id]).to_be_bytes();
    bytes[40 + id..44 + id].copy_from_slice(&crc);
    fs::remove_file(path).expect("removable");
    fs::write(path, bytes).expect("writable");
}

#[test]
fn a_later_programs_table_is_named_and_replaced_from_the_store() {
    let backend = Backend::named("now");
    let setup = stopped(&backend);
    for file in ["snapshot", "snapshot.previous"] {
        of_later_program(&table(&setup, file));
    }
    let router = setup.start();
    serves(&router, "now");
    said(&router, "needs a reader of format 9");
    serves(&router.stop().start(), "now");
}

#[test]
fn exchanged_generations_lead_to_the_same_table() {
    let backend = Backend::named("same");
    for name in ["snapshot", "journal"] {
        let setup = stopped(&backend);
        let (newer, older) = (
            table(&setup, name),
            table(&setup, &format!("{name}.previous")),
        );
        let aside = setup.folder().join("aside");
        fs::rename(&newer, &aside).expect("movable");
        fs::rename(&older, &newer).expect("movable");
        fs::rename(&aside, &older).expect("movable");
        let router = setup.start();
        serves(&router, "same");
        serves(&router.stop().start(), "same");
    }
}

#[test]
fn another_installations_table_is_named_and_the_store_counts_in_the_end() {
    let (ours, theirs) = (Backend::named("ours"), Backend::named("theirs"));
    let (setup, other) = (stopped(&ours), stopped(&theirs));
    for file in [
        "snapshot",
        "snapshot.previous",
        "journal",
        "journal.previous",
    ] {
        fs::copy(table(&other, file), table(&setup, file)).expect("copyable");
    }
    // The edge has nothing else to go by, and control's is another's table.
    let router = setup.launch();
    serves(&router, "theirs");
    said(&router, "of another installation");
    eventually("control is up", || {
        (router.admin_status("/healthz") == Some(200)).then_some(())
    });
    router.read("/v1/apps/shop").expect(200);
    // Nobody can know which of the two is the mistake.
    let router = router.stop().launch();
    serves(&router, "theirs");
    eventually("the store is taken by an operator's word", || {
        router
            .run(&["confirm-shrink"])
            .status
            .success()
            .then_some(())
    });
    let router = router.stop().start();
    serves(&router, "ours");
}

#[test]
fn another_installations_store_withdraws_nothing_either() {
    let (ours, theirs) = (Backend::named("ours"), Backend::named("theirs"));
    let (setup, other) = (stopped(&ours), stopped(&theirs));
    fs::copy(store(&other), store(&setup)).expect("copyable");
    let router = setup.launch();
    serves(&router, "ours");
    said(&router, "of another installation");
    stays(Duration::from_secs(2), "the edge keeps its table", || {
        router.get("shop", "/").text() == "ours"
    });
}

#[test]
fn a_table_that_vanishes_is_written_again() {
    let backend = Backend::named("again");
    let router = Router::start();
    router.serve("shop", &[&backend]);
    let folder = router.state_dir().join("table");
    eventually("there is a table", || {
        folder.join("snapshot").is_file().then_some(())
    });
    // Control may write into it at that very moment.
    eventually("the folder is gone", || fs::remove_dir_all(&folder).ok());
    router
        .put(
            "/v1/apps/more?wait=active",
            &json!({ "domains": ["more.example"] }),
        )
        .expect(201);
    eventually("there is one again", || {
        folder.join("snapshot").is_file().then_some(())
    });
    let setup = router.stop();
    // It is all that is left, and it is whole.
    fs::remove_file(store(&setup)).expect("removable");
    let router = setup.start();
    serves(&router, "again");
    router.read("/v1/apps/more").expect(200);
}

/// So many apps with long names; the answer.
fn fill(router: &Router, round: usize) -> Answer {
    let lines: String = (0..200)
        .map(|number| {
            let app = format!("filler-{}", round * 200 + number);
            let domain = |n| format!("{app}-{n}.{}.test", "x".repeat(50));
            let domains: Vec<String> = (0..5).map(domain).collect();
            json!({ "app": app, "domains": domains }).to_string() + "\n"
        })
        .collect();
    let bearer = format!("Bearer {}", router.token());
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/x-ndjson"),
    ];
    request(router.api(), "POST", "/v1/import", &headers, &lines)
}

/// Lifts a process's limit, as its own user: not every root may lift another's.
fn make_room(pid: u32) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it must live");
    let id = |field: &str| {
        let line = status.lines().find(|line| line.starts_with(field));
        let ids = line.expect("a process has ids").split_whitespace();
        ids.clone()
            .nth(1)
            .expect("the real one is first")
            .to_owned()
    };
    let (uid, gid) = (id("Uid:"), id("Gid:"));
    let lift = ["prlimit", "--fsize=unlimited", "--pid", &pid.to_string()];
    let done = match rustix::process::getuid().is_root() {
        true => Command::new("setpriv")
            .args(["--reuid", &uid, "--regid", &gid, "--clear-groups"])
            .args(lift)
            .output(),
        false => Command::new(lift[0]).args(&lift[1..]).output(),
    };
    let done = done.expect("util-linux must be installed");
    assert!(done.status.success(), "{done:?}");
}

#[test]
fn a_disk_that_is_full_at_the_start_refuses_changes_until_there_is_room() {
    need("prlimit", "util-linux");
    // No file may grow beyond 3 MiB: to a store, what a full disk is.
    let setup = Setup::new().set("log.access=\"off\"");
    let setup = setup.after("trap '' XFSZ; ulimit -S -f 3072");
    let router = setup.start();
    let backend = Backend::named("kept");
    router.serve("shop", &[&backend]);
    let mut round = 0;
    within(Duration::from_secs(120), "a change is refused", || {
        round += 1;
        (fill(&router, round).status != 200).then_some(())
    });
    let router = router.stop().start();
    serves(&router, "kept");
    let refused = eventually("a change is refused", || {
        round += 1;
        let answer = fill(&router, round);
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(refused.status, 507, "{refused:?}");
    assert_eq!(refused.json()["code"], "store_full");
    serves(&router, "kept");
    // Room, without a restart.
    make_room(router.process("control"));
    within(Duration::from_secs(30), "changes are taken again", || {
        (fill(&router, round).status == 200).then_some(())
    });
    serves(&router, "kept");
}
