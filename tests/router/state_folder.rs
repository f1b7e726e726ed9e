//! The state folder: whose it is, whatever it was before, and what is not
//! taken from others. Most of it takes root to see: only root gives things away.

use std::fs;
use std::os::unix::fs::{chown, symlink};

use rustix::process::Signal;

use crate::harness::router::PORTICO;
use crate::harness::users::{STRANGER, is_root, owned, set_mode, user};
use crate::harness::{Backend, Router, Setup, eventually, processes};

#[test]
fn a_state_folder_of_any_past_is_taken_over_and_nothing_is_lost() {
    let backend = Backend::named("shop");
    let check = |router: &Router, control: u32| {
        router.read("/v1/apps/shop").expect(200);
        router.get("shop", "/").expect(200);
        assert_eq!(user(router.process("control")).0, control);
        let policy = serde_json::json!({ "domains": ["blog.example"] });
        let answer = router.put("/v1/apps/blog?wait=active", &policy);
        assert!(answer.status < 300, "{answer:?}");
    };
    let own = rustix::process::geteuid().as_raw();
    let router = Setup::new()
        .set("user=\"root\"")
        .set("edge.user=\"root\"")
        .start();
    router.serve("shop", &[&backend]);
    check(&router, own);
    let mut setup = router.stop();
    if !is_root() {
        return;
    }
    // As versions before the split left it: root's throughout.
    let folder = setup.state_dir();
    for path in [folder.clone(), folder.join("table")] {
        chown(&path, Some(0), Some(0)).expect("we are root");
        set_mode(&path, 0o700);
    }
    for (control, edge) in [
        ("auto", "auto"),
        ("61170", "auto"),
        ("root", "auto"),
        ("root", "root"),
    ] {
        let quoted = |user: &str| {
            user.parse::<u32>()
                .map_or(format!("\"{user}\""), |id| id.to_string())
        };
        let given = setup.set(&format!("user={}", quoted(control)));
        let router = given.set(&format!("edge.user={}", quoted(edge))).start();
        let found = user(router.process("control")).0;
        match control {
            "auto" => assert_ne!(found, 0),
            "root" => assert_eq!(found, 0),
            id => assert_eq!(found.to_string(), id),
        }
        check(&router, found);
        assert_eq!(owned(&router.state_dir()).0, found);
        setup = router.stop();
    }
}

#[test]
fn a_folder_of_others_is_not_taken_from_them() {
    if !is_root() {
        return;
    }
    let setup = Setup::new();
    let folder = setup.state_dir();
    fs::create_dir(&folder).expect("it is ours");
    set_mode(&folder, 0o755);
    fs::write(folder.join(".bashrc"), "").expect("it is ours");
    let output = setup.fails();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    for named in ["state_dir", ".bashrc", &folder.display().to_string()] {
        assert!(words.contains(named), "{words}");
    }
    assert_eq!(owned(&folder), (0, 0, 0o755));
    // For root it is good enough, as it was before.
    let router = setup.set("user=\"root\"").start();
    assert_eq!(owned(&folder), (0, 0, 0o755));
    assert_ne!(user(router.process("edge")).0, 0);
}

#[test]
fn links_in_the_folder_lead_root_nowhere() {
    if !is_root() {
        return;
    }
    let setup = Router::start().stop();
    let shadow = setup.folder().join("shadow");
    fs::write(&shadow, "root's").expect("writable");
    set_mode(&shadow, 0o600);
    for name in ["supervisor.lock", "addresses.json", "addresses.json.new"] {
        let path = setup.state_dir().join(name);
        let _ = fs::remove_file(&path);
        symlink(&shadow, &path).expect("we may");
    }
    let output = setup.fails();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    fs::remove_file(setup.state_dir().join("supervisor.lock")).expect("it is there");
    let router = setup.start();
    assert_eq!(fs::read_to_string(&shadow).expect("readable"), "root's");
    assert_eq!(owned(&shadow), (0, 0, 0o600));
    router.get("nobody", "/").refused(404, "H30");
}

#[test]
fn a_state_folder_that_was_removed_is_missed_aloud() {
    let router = Router::start();
    fs::remove_dir_all(router.state_dir()).expect("it is ours");
    processes::signal(router.process("control"), Signal::KILL);
    eventually("the supervisor says so", || {
        router
            .words()
            .contains("removed under the running router")
            .then_some(())
    });
    router.get("nobody", "/").refused(404, "H30");
}

#[test]
fn started_by_a_user_nothing_changes_and_root_can_follow() {
    if !is_root() {
        return;
    }
    let setup = Setup::new();
    let binary = setup.folder().join("portico");
    fs::copy(PORTICO, &binary).expect("a binary must be copyable");
    chown(setup.folder(), Some(STRANGER), Some(STRANGER)).expect("we are root");
    let become_user = format!(
        "exec setpriv --reuid {STRANGER} --regid {STRANGER} --clear-groups --inh-caps=-all \"$@\""
    );
    let backend = Backend::named("shop");
    let router = setup.binary(&binary).after(&become_user).start();
    router.serve("shop", &[&backend]);
    let pids = [
        router.pid(),
        router.process("control"),
        router.process("edge"),
    ];
    for pid in pids {
        assert_eq!(user(pid), (STRANGER, STRANGER));
    }
    assert_eq!(owned(&router.state_dir()), (STRANGER, STRANGER, 0o700));
    router.get("shop", "/").expect(200);
    let setup = router.stop().after(":");
    let router = setup.start();
    assert_ne!(user(router.process("control")).0, STRANGER);
    router.get("shop", "/").expect(200);
    let setup = router
        .stop()
        .set(&format!("user={STRANGER}"))
        .start()
        .stop();
    // And back: systemd's User= on what a split router left.
    let router = setup.after(&become_user).start();
    assert_eq!(user(router.process("control")).0, STRANGER);
    router.get("shop", "/").expect(200);
}
