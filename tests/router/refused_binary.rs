//! A new binary that cannot take over leaves the old one serving, and its
//! reason is told.

use std::fs;

use rustix::process::Signal;

use crate::harness::router::PORTICO;
use crate::harness::{Backend, Load, Router, Setup, binary, processes, within};

/// A router with an app, and requests going on.
fn serving() -> (Router, Backend, Load) {
    let router = Setup::new().installed().start();
    let shop = Backend::named("shop");
    router.serve("shop", &[&shop]);
    let load = Load::gets(&router, "shop", 100);
    (router, shop, load)
}

/// `portico upgrade` fails; gives what it said.
#[track_caller]
fn refused(router: &Router) -> String {
    let output = router.run(&["upgrade"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("not upgraded, the old version serves on"),
        "{said}"
    );
    said
}

#[test]
fn what_fails_its_rehearsal_changes_nothing_and_says_why() {
    let (router, _shop, load) = serving();
    let pids = [router.process("edge"), router.process("control")];
    let whole = fs::read(PORTICO).expect("the program must be readable");
    let cases: [(&str, u32, Vec<u8>, &str); 7] = [
        (
            "exits",
            0o755,
            b"#!/bin/sh\necho no library >&2\nexit 1\n".into(),
            "exited with 1: no library",
        ),
        ("no program", 0o755, b"text\0\0\0\x7f".into(), "new binary"),
        ("empty", 0o755, Vec::new(), "cannot run"),
        ("not executable", 0o644, whole.clone(), "Permission denied"),
        (
            "cut off",
            0o755,
            whole[..whole.len() / 3].into(),
            "new binary",
        ),
        (
            "no Portico",
            0o755,
            b"#!/bin/sh\nexit 0\n".into(),
            "no Portico",
        ),
        (
            "crashes",
            0o755,
            b"#!/bin/sh\nkill -SEGV $$\n".into(),
            "signal 11",
        ),
    ];
    for (number, (what, mode, content, why)) in (1_u64..).zip(cases) {
        binary::replace_by(router.program(), mode, content);
        let said = refused(&router);
        // A file that is no program may be refused by the system, or by a
        // shell that tries to read it.
        let is_told = said.contains(why) || (why == "new binary" && said.contains("cannot run"));
        assert!(is_told, "{what}: {said}");
        let logged = format!("upgrade {number} failed: ");
        assert!(router.words().contains(&logged), "the log says so too");
        assert_eq!(
            binary::status(&router).expect("it must answer")["attempt"],
            number
        );
    }
    fs::remove_file(router.program()).expect("it must be there");
    let said = refused(&router);
    assert!(said.contains("No such file"), "{said}");
    assert_eq!(pids, [router.process("edge"), router.process("control")]);
    load.stop_all_well();

    // A good one is taken afterwards.
    binary::replace(router.program());
    let output = router.run(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    router.stop();
}

#[test]
fn what_hangs_is_given_up_with_all_it_started() {
    let (router, _shop, load) = serving();
    let marker = router.state_dir().join("left-behind");
    let script = format!(
        "#!/bin/sh\nsleep 1000 & echo $! > {}\nwait\n",
        marker.display()
    );
    binary::replace_by(router.program(), 0o755, script);
    let said = refused(&router);
    assert!(said.contains("did not end its rehearsal in time"), "{said}");
    let pid = fs::read_to_string(&marker).expect("the script ran");
    let pid: u32 = pid.trim().parse().expect("a pid");
    within(binary::LIMIT, "what it started is gone", || {
        (!processes::alive(pid)).then_some(())
    });
    load.stop_all_well();
    router.stop();
}

#[test]
fn settings_that_the_new_binary_refuses_are_its_reason() {
    let (router, _shop, load) = serving();
    let file = router.settings_file();
    let text = fs::read_to_string(&file).expect("it was written");
    fs::write(&file, format!("{text}\n[tomorrow]\nkey = 1\n")).expect("it is ours");
    binary::replace(router.program());
    let said = refused(&router);
    assert!(said.contains("tomorrow"), "{said}");
    fs::write(&file, text).expect("it is ours");
    let output = router.run(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    load.stop_all_well();
}

#[test]
fn one_that_crashes_as_edge_is_dismissed() {
    let (router, _shop, load) = serving();
    let pids = [router.process("edge"), router.process("control")];
    binary::wrap(
        router.program(),
        "[ \"$1\" = edge ] && { echo bad edge >&2; exit 7; }",
    );
    let said = refused(&router);
    assert!(said.contains("the new edge: exited with 7"), "{said}");
    assert_eq!(pids, [router.process("edge"), router.process("control")]);
    load.stop_all_well();
    router.stop();
}

#[test]
fn one_that_crashes_as_control_gives_way_to_the_old_one() {
    let (router, _shop, load) = serving();
    let edge = router.process("edge");
    binary::wrap(
        router.program(),
        "[ \"$1\" = control ] && { echo bad store >&2; exit 7; }",
    );
    let said = refused(&router);
    assert!(said.contains("the new control: exited with 7"), "{said}");
    assert_eq!(router.process("edge"), edge, "it was told nothing");
    router.wait_ready();
    router.read("/v1/apps/shop").expect(200);
    let control = processes::program(router.process("control"));
    assert!(
        !control.ends_with(".real"),
        "of the old binary again: {control}"
    );
    load.stop_all_well();

    // The same file, mended, is taken.
    binary::wrap(router.program(), ":");
    let output = router.run(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let real = binary::real(router.program()).display().to_string();
    for pid in [
        router.pid(),
        router.process("edge"),
        router.process("control"),
    ] {
        assert_eq!(processes::program(pid), real);
    }
    // The path it was started by is looked at again, not the one it led to.
    binary::replace(router.program());
    let output = router.run(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let program = router.program().display().to_string();
    assert_eq!(processes::program(router.pid()), program);
    router.stop();
}

#[test]
fn one_that_cannot_be_the_supervisor_fails_before_anything_is_replaced() {
    let (router, _shop, load) = serving();
    let pids = [router.process("edge"), router.process("control")];
    binary::wrap(
        router.program(),
        "[ \"$1\" = run ] && { echo cannot run >&2; exit 7; }",
    );
    let said = refused(&router);
    assert!(said.contains("exited with 7: cannot run"), "{said}");
    assert_eq!(pids, [router.process("edge"), router.process("control")]);
    load.stop_all_well();
    router.stop();
}

#[test]
fn a_replacement_in_the_middle_is_noticed() {
    let (router, _shop, load) = serving();
    // The rehearsal replaces the file that it is run from.
    let program = router.program().display().to_string();
    binary::wrap(
        router.program(),
        &format!("[ \"$1\" = run ] && {{ cp {program} {program}.2; mv {program}.2 {program}; }}"),
    );
    let said = refused(&router);
    assert!(said.contains("changed"), "{said}");
    load.stop_all_well();
    router.signal(Signal::TERM);
}
