//! A new binary takes over while clients talk, and none of them notices.

use std::fs;
use std::time::Instant;

use rustix::process::Signal;

use crate::harness::{Backend, Client, Load, Router, Setup, binary, eventually, processes, within};

const ASK: &str = "GET /pipe HTTP/1.1\r\nHost: chat.example\r\n\
                   Connection: Upgrade\r\nUpgrade: raw/1\r\n\r\n";

/// Accepts an upgrade of the protocol, then sends back what it reads.
fn echo() -> Backend {
    Backend::script(|mut conn| {
        if conn.request().is_none() {
            return;
        }
        conn.write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw/1\r\n\r\n",
        );
        while let Some(byte) = conn.take(1) {
            if !conn.write(byte) {
                return;
            }
        }
    })
}

/// Open pipes, each of which has carried something.
fn pipes(router: &Router, count: usize) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..count).map(|_| router.client()).collect();
    for client in &mut clients {
        client.send(ASK);
        assert_eq!(client.head().expect("101 must come").status, 101);
    }
    all_echo(&mut clients);
    clients
}

#[track_caller]
fn all_echo(pipes: &mut [Client]) {
    for (number, client) in pipes.iter_mut().enumerate() {
        let word = format!("word {number}");
        client.send(&word);
        assert_eq!(client.take(word.len()), word.as_bytes(), "pipe {number}");
    }
}

/// Supervisor, edge and control.
fn pids(router: &Router) -> [u32; 3] {
    [
        router.pid(),
        router.process("edge"),
        router.process("control"),
    ]
}

#[track_caller]
fn all_run(router: &Router, program: &str) {
    for pid in pids(router) {
        assert_eq!(processes::program(pid), program, "process {pid}");
    }
}

#[test]
fn sigusr2_replaces_every_process_under_load_and_cuts_nobody() {
    let router = Setup::new().installed().start();
    let (shop, chat) = (Backend::named("shop"), echo());
    router.serve("shop", &[&shop]);
    router.serve("chat", &[&chat]);
    let mut open = pipes(&router, 20);
    let load = Load::gets(&router, "shop", 200);
    load.wait(50);
    let before = pids(&router);
    let arguments = fs::read(format!("/proc/{}/cmdline", router.pid())).expect("it must run");

    binary::replace(router.program());
    router.signal(Signal::USR2);
    binary::succeeded(&router, 1);
    load.wait(50);

    let after = pids(&router);
    assert_eq!(after[0], before[0], "the supervisor keeps its pid");
    assert_ne!(after[1], before[1], "another edge");
    assert_ne!(after[2], before[2], "another control");
    all_run(&router, &router.program().display().to_string());
    let arguments_now = fs::read(format!("/proc/{}/cmdline", router.pid()));
    assert_eq!(arguments_now.expect("it must run"), arguments);
    assert!(processes::alive(before[1]), "the old edge keeps the pipes");
    all_echo(&mut open);
    load.stop_all_well();

    // The old edge still learns of changes: a pipe is all it has, so what it
    // routes by shows only in that it ends when the pipe does.
    drop(open);
    eventually("the old edge leaves with its last pipe", || {
        (!processes::alive(before[1])).then_some(())
    });
    router.get("shop", "/").expect(200);
    router.stop();
}

#[test]
fn portico_upgrade_waits_for_the_outcome_and_can_be_repeated() {
    let router = Setup::new().installed().start();
    let shop = Backend::named("shop");
    router.serve("shop", &[&shop]);
    let load = Load::gets(&router, "shop", 100);
    for attempt in 1..=3 {
        let before = pids(&router);
        binary::replace(router.program());
        let output = router.run(&["upgrade"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{said}{why}");
        assert!(said.starts_with("upgraded: version "), "{said}");
        assert_eq!(
            binary::status(&router).expect("it must answer")["attempt"],
            attempt
        );
        let after = pids(&router);
        assert_eq!(after[0], before[0]);
        assert!(after[1] != before[1] && after[2] != before[2]);
        all_run(&router, &router.program().display().to_string());
    }
    load.stop_all_well();
    // What came of it is an event as well.
    let told = router.run(&["events"]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("upgraded"), "{told}");
    router.stop();
}

#[test]
fn the_successor_does_all_that_a_supervisor_does() {
    let mut router = Setup::new().installed().start();
    let shop = Backend::named("shop");
    router.serve("shop", &[&shop]);
    binary::replace(router.program());
    router.signal(Signal::USR2);
    binary::succeeded(&router, 1);
    let [supervisor, edge, control] = pids(&router);

    // Nothing of the hold over the exec is left, here or in the children.
    for pid in [supervisor, edge, control] {
        assert_eq!(
            processes::status(pid, "SigBlk"),
            "0000000000000000",
            "process {pid}"
        );
    }
    // The dead are reaped and followed.
    for (role, pid) in [("edge", edge), ("control", control)] {
        processes::signal(pid, Signal::KILL);
        within(binary::LIMIT, "another one, and no zombie", || {
            let gone = !processes::alive(pid) && !processes::is_zombie(pid);
            (gone && router.process(role) != pid).then_some(())
        });
    }
    router.wait_ready();
    router.get("shop", "/").expect(200);
    all_run(&router, &router.program().display().to_string());
    // Settings are read again.
    let file = router.settings_file();
    let text = fs::read_to_string(&file).expect("it was written");
    fs::write(&file, text.replace("threads = 2", "threads = 3")).expect("it is ours");
    router.signal(Signal::HUP);
    eventually("the new settings hold", || {
        let config = router.shown("/config")?;
        (config["settings"]["edge.threads"] == 3).then_some(())
    });
    // The lock is still held, and another supervisor is told whose it is.
    let second = std::process::Command::new(router.program())
        .args(["run", "--config"])
        .arg(&file)
        .output()
        .expect("portico must run");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(
        said.contains(&format!("in use by another supervisor (pid {supervisor})")),
        "{said}"
    );
    // And it ends as one ends.
    let below = processes::descendants(supervisor);
    router.signal(Signal::TERM);
    assert_eq!(router.ended().code(), Some(0), "{}", router.words());
    assert!(below.iter().all(|&pid| !processes::alive(pid)));
    assert!(!router.state_dir().join("addresses.json").exists());
}

#[test]
fn signals_during_an_upgrade_are_neither_lost_nor_deadly() {
    let router = Setup::new().installed().start();
    let shop = Backend::named("shop");
    router.serve("shop", &[&shop]);
    for attempt in 1..=3 {
        binary::replace(router.program());
        router.signal(Signal::USR2);
        let since = Instant::now();
        // The exec comes at a time of its own within this.
        while binary::status(&router)
            .is_none_or(|status| status["attempt"] != attempt || status["stage"] == "running")
        {
            router.signal(Signal::HUP);
            router.signal(Signal::CHILD);
            assert!(since.elapsed() < binary::LIMIT, "upgrade {attempt} ends");
        }
        binary::succeeded(&router, attempt);
    }
    // Settings changed and read in the middle of one hold after it.
    let file = router.settings_file();
    let text = fs::read_to_string(&file).expect("it was written");
    fs::write(&file, text.replace("threads = 2", "threads = 3")).expect("it is ours");
    binary::replace(router.program());
    router.signal(Signal::USR2);
    eventually("it begins", || {
        (binary::status(&router)?["attempt"] == 4).then_some(())
    });
    router.signal(Signal::HUP);
    router.signal(Signal::USR2);
    binary::succeeded(&router, 4);
    within(binary::LIMIT, "the new settings hold", || {
        let config = router.shown("/config")?;
        (config["settings"]["edge.threads"] == 3).then_some(())
    });
    router.get("shop", "/").expect(200);
    let status = eventually("it answers", || binary::status(&router));
    assert_eq!(status["attempt"], 4, "the second signal began nothing");
    router.stop();
}

#[test]
fn sigterm_during_an_upgrade_drains_and_leaves_nobody() {
    for _ in 0..4 {
        let mut router = Setup::new().installed().start();
        binary::replace(router.program());
        router.signal(Signal::USR2);
        let below = eventually("more than the usual processes run", || {
            let below = processes::descendants(router.pid());
            (below.len() > 2 || !router.words().is_empty()).then_some(below)
        });
        router.signal(Signal::TERM);
        assert_eq!(router.ended().code(), Some(0), "{}", router.words());
        let left = || below.iter().any(|&pid| processes::alive(pid));
        eventually("nobody is left", || (!left()).then_some(()));
    }
}

#[test]
fn the_demo_declines() {
    let folder = tempfile::tempdir().expect("the temporary folder must be writable");
    let setup = Setup::new();
    let said = folder.path().join("said");
    let output = fs::File::create(&said).expect("it must be creatable");
    let mut demo = std::process::Command::new(setup.program())
        .args(["demo", "--set", "edge.http=[\"127.0.0.1:0\"]"])
        .args([
            "--set",
            "api.listen=127.0.0.1:0",
            "--set",
            "admin.listen=127.0.0.1:0",
        ])
        .current_dir(folder.path())
        .stdin(std::process::Stdio::null())
        .stdout(output.try_clone().expect("a file must be cloneable"))
        .stderr(output)
        .spawn()
        .expect("portico must run");
    let words = || fs::read_to_string(&said).unwrap_or_default();
    let heard = |text: &str| {
        within(binary::LIMIT, text, || words().contains(text).then_some(()));
    };
    heard("Ctrl-C ends it all");
    processes::signal(demo.id(), Signal::USR2);
    heard("the demo is not upgraded");
    processes::signal(demo.id(), Signal::TERM);
    let ended = eventually("the demo ends", || {
        demo.try_wait().expect("a child must be waitable")
    });
    assert_eq!(ended.code(), Some(0), "{}", words());
}
