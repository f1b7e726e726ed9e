//! Least privilege: whom the processes run as, and what that keeps from them.
//!
//! Started by root, the router is split between users; these tests then look
//! from both sides of the split. Started by anybody else it changes nothing,
//! which is all there is to see then.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::process::Signal;

use crate::harness::router::PORTICO;
use crate::harness::users::{STRANGER, can, is_root, owned, set_mode, status, user};
use crate::harness::{Backend, Client, Router, Setup, eventually, processes};

#[test]
fn started_by_root_each_process_is_a_user_of_its_own() {
    let router = Router::start();
    let (control, edge) = (router.process("control"), router.process("edge"));
    for child in [control, edge] {
        assert_eq!(status(child, "NoNewPrivs"), ["1"]);
    }
    if !is_root() {
        assert_eq!(user(control), user(router.pid()));
        assert_eq!(user(edge), user(router.pid()));
        return;
    }
    assert_eq!(user(router.pid()), (0, 0));
    let users = BTreeSet::from([0, user(control).0, user(edge).0]);
    assert_eq!(users.len(), 3, "{users:?}");
    for child in [control, edge] {
        let groups = status(child, "Groups");
        assert!(groups.is_empty(), "{groups:?}");
        for held in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(status(child, held), ["0000000000000000"], "{held}");
        }
    }
}

#[test]
fn the_state_folder_is_controls_and_the_edge_sees_the_table_alone() {
    if !is_root() {
        return;
    }
    let router = Router::start();
    router.serve("shop", &[]);
    let control = user(router.process("control"));
    let edge = user(router.process("edge"));
    let folder = router.state_dir();
    assert_eq!(owned(&folder), (control.0, edge.1, 0o710));
    assert_eq!(owned(&folder.join("token")), (control.0, control.1, 0o600));
    assert_eq!(
        owned(&folder.join("store.redb")),
        (control.0, control.1, 0o600)
    );
    assert_eq!(owned(&folder.join("table")), (control.0, edge.1, 0o750));
    assert_eq!(owned(&folder.join("feed.sock")), (control.0, edge.1, 0o660));
    let snapshot = folder.join("table/snapshot");
    eventually("a snapshot is written", || snapshot.exists().then_some(()));
    assert_eq!(owned(&snapshot), (control.0, edge.1, 0o640));

    // Its way into the folder leads to the table and no further.
    assert!(can(edge, &folder, "cat table/snapshot"));
    for secret in ["store.redb", "token", "supervisor.lock"] {
        assert!(!can(edge, &folder, &format!("cat {secret}")), "{secret}");
        assert!(!can(edge, &folder, &format!("echo x >> {secret}")));
    }
    for write in [
        "> new",
        "> table/new",
        "echo x >> table/snapshot",
        "rm feed.sock",
        "ls .",
    ] {
        assert!(!can(edge, &folder, write), "{write}");
    }
    let above = folder.parent().expect("it has one");
    for read in ["cat state/table/snapshot", "cat state/token", "ls state"] {
        assert!(!can((STRANGER, STRANGER), above, read), "{read}");
    }
}

#[test]
fn nobody_reaches_into_another_process() {
    if !is_root() {
        return;
    }
    let router = Router::start();
    let pids = [
        router.pid(),
        router.process("control"),
        router.process("edge"),
    ];
    for own in [pids[1], pids[2]] {
        let whom = user(own);
        assert!(can(whom, Path::new("/"), &format!("kill -0 {own}")));
        for other in pids.into_iter().filter(|pid| *pid != own) {
            for reach in [
                "kill -0 $P",
                "ls /proc/$P/fd",
                "cat /proc/$P/environ",
                "head -c1 /proc/$P/mem",
            ] {
                let reach = reach.replace("$P", &other.to_string());
                assert!(!can(whom, Path::new("/"), &reach), "{reach}");
            }
        }
    }
}

#[test]
fn folders_that_others_cannot_enter_are_no_obstacle() {
    let setup = Setup::new().set("log.access=\"file:access.log\"");
    let binary = setup.folder().join("portico");
    fs::copy(PORTICO, &binary).expect("a binary must be copyable");
    set_mode(setup.folder(), 0o700);
    let shell = format!("cd {}", setup.folder().display());
    let router = setup.binary(&binary).after(&shell).start();
    let backend = Backend::named("closed");
    router.serve("shop", &[&backend]);
    router.get("shop", "/1").expect(200);
    router.logged("/1");

    // Whoever is started later finds everything again.
    for role in ["control", "edge"] {
        let old = router.process(role);
        processes::signal(old, Signal::KILL);
        eventually("another one serves", || {
            (router.process(role) != old && router.ready_status() == Some(200)).then_some(())
        });
    }
    router.get("shop", "/2").expect(200);
    router.read("/v1/apps/shop").expect(200);
    let (log, moved) = (router.state_dir().join("../access.log"), "access.log.1");
    fs::rename(&log, log.with_file_name(moved)).expect("movable");
    router.signal(Signal::HUP);
    eventually("lines go to a new file", || {
        router.get("shop", "/3").expect(200);
        fs::read_to_string(&log).ok()?.contains("/3").then_some(())
    });
    assert_eq!(owned(&log).2 & !0o640, 0);
}

#[test]
fn messages_name_files_as_the_operator_knows_them() {
    let setup = Router::start().stop();
    let token = setup.state_dir().join("token");
    fs::write(&token, "short\n").expect("writable");
    let router = setup.launch();
    eventually("control says which file", || {
        let named = format!("operator token {}", token.display());
        router.words().contains(&named).then_some(())
    });
}

#[test]
fn a_binary_for_root_alone_is_refused_with_the_reason() {
    if !is_root() {
        return;
    }
    let setup = Setup::new();
    let binary = setup.folder().join("portico");
    fs::copy(PORTICO, &binary).expect("a binary must be copyable");
    set_mode(&binary, 0o700);
    let setup = setup.binary(&binary);
    let output = setup.fails();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    for named in ["user", "chmod o+x", &binary.display().to_string()] {
        assert!(words.contains(named), "{words}");
    }
    // Executing is enough: nobody needs to read it.
    set_mode(&binary, 0o711);
    let router = setup.start();
    assert_ne!(user(router.process("edge")).0, 0);
}

#[test]
fn an_account_that_is_not_there_is_refused_by_name() {
    if !is_root() {
        return;
    }
    for key in ["user", "edge.user"] {
        let output = Setup::new()
            .set(&format!("{key}=\"no-such-account\""))
            .fails();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        let named = format!("{key} = \"no-such-account\"");
        assert!(
            words.contains(&named) && words.contains("no such account"),
            "{words}"
        );
    }
}

#[test]
fn sighup_changes_users_or_refuses_and_keeps_the_old() {
    if !is_root() {
        return;
    }
    let setup = Setup::new();
    let file = setup.write_settings();
    let before = fs::read_to_string(&file).expect("readable");
    let router = setup.start();
    let backend = Backend::named("kept");
    router.serve("shop", &[&backend]);
    let (control, edge) = (router.process("control"), router.process("edge"));
    fs::write(&file, format!("user = \"no-such-account\"\n{before}")).expect("writable");
    router.signal(Signal::HUP);
    eventually("the refusal is said", || {
        router
            .words()
            .contains("the old stay: user = ")
            .then_some(())
    });
    assert_eq!(
        (router.process("control"), router.process("edge")),
        (control, edge)
    );

    let other = format!("user = {STRANGER}\n{before}").replace("[edge]", "[edge]\nuser = 61178");
    fs::write(&file, other).expect("writable");
    router.signal(Signal::HUP);
    eventually("both are of the new users", || {
        let users = processes::descendants(router.pid());
        let users: Vec<String> = users.iter().flat_map(|pid| status(*pid, "Uid")).collect();
        let runs = |uid: u32| users.contains(&uid.to_string());
        (runs(STRANGER) && runs(61_178)).then_some(())
    });
    router.wait_ready();
    router.get("shop", "/").expect(200);
    let policy = serde_json::json!({ "domains": ["blog.example"] });
    router.put("/v1/apps/blog?wait=active", &policy).expect(201);
    assert_eq!(owned(&router.state_dir()), (STRANGER, 61_178, 0o710));
    assert_eq!(owned(&router.state_dir().join("store.redb")).0, STRANGER);
}

#[test]
fn commands_send_no_other_secret_than_the_token() {
    let router = Router::start();
    let token = router.state_dir().join("token");
    let given = |router: &Router| {
        let mut command = router.operator(&["export"]);
        command.env_remove("PORTICO_TOKEN").args(["--config"]);
        let settings = token.with_file_name("../portico.toml");
        command.arg(settings).output().expect("portico must run")
    };
    let output = given(&router);
    assert!(output.status.success(), "{output:?}");
    let secret = token.with_file_name("../secret");
    fs::rename(&token, &secret).expect("movable");
    symlink(&secret, &token).expect("we may");
    let output = given(&router);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains(&token.display().to_string()), "{words}");
}

#[test]
fn a_log_that_cannot_be_opened_is_refused_by_name() {
    let setup = Setup::new().set("log.access=\"file:/no/such/folder/access.log\"");
    let output = setup.fails();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        words.contains("log.access") && words.contains("/no/such/folder"),
        "{words}"
    );

    let setup = Setup::new();
    let file = setup.write_settings();
    let router = setup.start();
    let edge = router.process("edge");
    let text = fs::read_to_string(&file).expect("readable");
    fs::write(&file, text.replace("access.log\"", "no/such/access.log\"")).expect("writable");
    router.signal(Signal::HUP);
    eventually("the refusal is said", || {
        router
            .words()
            .contains("the old stay: log.access")
            .then_some(())
    });
    assert_eq!(router.process("edge"), edge);
    router.get("nobody", "/after").expect(404);
    router.logged("/after");
}

#[test]
fn low_ports_are_bound_on_sighup_too() {
    if !is_root() {
        return;
    }
    let setup = Setup::new();
    let file = setup.write_settings();
    let router = setup.start();
    // An address of this process's own, so that no other test wants it.
    let pid = std::process::id();
    let address = format!("127.77.{}.{}:81", pid / 250 % 250, pid % 250 + 1);
    let text = fs::read_to_string(&file).expect("readable");
    let asked = format!("http = [\"127.0.0.1:0\", \"{address}\"]");
    fs::write(&file, text.replace("http = [\"127.0.0.1:0\"]", &asked)).expect("writable");
    router.signal(Signal::HUP);
    let address = address.parse().expect("an address");
    let mut client = eventually("the port is open", || Client::try_connect(address).ok());
    client.send("GET / HTTP/1.1\r\nHost: nobody.example\r\n\r\n");
    client.answer().refused(404, "H30");
}

#[test]
fn every_role_tells_what_it_has_open() {
    let router = Router::start();
    let rows = eventually("/processes has them all", || {
        let rows = router.admin_get("/processes").json()["processes"]
            .as_array()?
            .clone();
        let told = |row: &serde_json::Value| row["usage"]["descriptors"].as_u64() > Some(3);
        rows.iter().all(told).then_some(rows)
    });
    assert!(rows.len() >= 3, "{rows:?}");
    let metrics = String::from_utf8_lossy(&router.admin_get("/metrics").body).into_owned();
    for name in [
        "open_descriptors",
        "resident_memory_bytes",
        "cpu_seconds_total",
    ] {
        for role in ["supervisor", "control", "edge"] {
            let row = format!("portico_process_{name}{{role=\"{role}\"}} ");
            let value = metrics.lines().find_map(|line| line.strip_prefix(&*row));
            let value: f64 = value.and_then(|text| text.parse().ok()).expect("a number");
            assert!(value > 0.0 || name == "cpu_seconds_total", "{row}{value}");
        }
    }
}
