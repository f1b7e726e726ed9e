//! Takeovers, crash loops and replacements, with real children.

use super::*;

/// Long enough for a machine that is busy with other tests; a takeover takes
/// a few milliseconds of it.
const AT_ONCE: Duration = Duration::from_secs(5);

fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

/// A router with one edge that serves and one that stands by.
fn with_standby() -> Running {
    let router = Running::start_with(&[], "standby = \"on\"");
    router.until_said("ready: ");
    router
}

#[test]
fn a_standby_takes_over_and_another_follows() {
    let router = with_standby();
    let standby = router.edge(ProcessState::Standby);
    let first = router.pid_of("edge").unwrap();
    assert_ne!(first, standby);
    let killed = Instant::now();
    kill_process(first, Signal::KILL).unwrap();
    router.until("the standby serves", || {
        (router.pid_of("edge") == Some(standby)).then_some(())
    });
    assert!(killed.elapsed() < AT_ONCE);
    router.until_said("the standby takes over");
    let next = router.until("another stands by", || {
        let serving = router.edges(ProcessState::Ready) == [number(standby)];
        let next = router.edges(ProcessState::Standby);
        (serving && next.len() == 1).then(|| next[0])
    });
    assert!(![number(first), number(standby)].contains(&next));
}

#[test]
fn a_stalled_edge_is_relieved_by_the_standby() {
    let router = with_standby();
    let standby = router.edge(ProcessState::Standby);
    let first = router.pid_of("edge").unwrap();
    kill_process(first, Signal::STOP).unwrap();
    router.until("the standby serves", || {
        (router.pid_of("edge") == Some(standby)).then_some(())
    });
    assert!(router.said().contains("killed: no answer for 5s"));
}

#[test]
fn killed_at_any_moment_one_serves_again_and_none_is_left_over() {
    let router = with_standby();
    let mut random = fastrand::Rng::with_seed(4);
    for round in 0..12 {
        let every = [
            router.edges(ProcessState::Ready),
            router.edges(ProcessState::Starting),
            router.edges(ProcessState::Standby),
        ]
        .concat();
        // Now one of them, now all at once.
        let victims = match round % 4 {
            3 => every.len(),
            _ => 1,
        };
        for _ in 0..victims {
            let at = random.usize(..every.len().max(1));
            let pid = every.get(at).and_then(|pid| i32::try_from(*pid).ok());
            if let Some(pid) = pid.and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        std::thread::park_timeout(Duration::from_millis(random.u64(..400)));
    }
    router.until("one serves and one stands by", || {
        let serving = router.edges(ProcessState::Ready);
        let standing = router.edges(ProcessState::Standby);
        let rows = router.table()?;
        let edges = rows.iter().filter(|row| row.role == Role::Edge).count();
        (serving.len() == 1 && standing.len() == 1 && edges == 2).then_some(())
    });
}

#[test]
fn a_crash_loop_falls_back_to_the_proven_table() {
    let router = Running::start_with(&[("edge", "crashes on the newest")], "standby = \"off\"");
    router.until_said("ready: ");
    let served = router.served();
    assert_eq!(served.len(), 4, "{served:?}");
    assert!(served[..3].iter().all(|line| line.ends_with(" Newest")));
    assert!(served[3].ends_with(" Proven"));
    router.until_said("three crashed young in a row");
    let pinned = router.edge(ProcessState::Ready);
    // An operator's SIGHUP tries the newest again; it crashes once, and the
    // proven one goes on as if nothing had been.
    router.signal(Signal::HUP);
    router.until_said("the newest table failed");
    assert_eq!(router.edge(ProcessState::Ready), pinned);
    // And once it is well, it stays.
    router.edges_do("");
    router.signal(Signal::HUP);
    router.until("it stands on the newest", || {
        let served = router.served();
        (served.len() == 6 && served[5].ends_with(" Newest")).then_some(())
    });
    let trial = router.pid_of("edge").unwrap();
    router.until("it alone serves", || {
        (router.edges(ProcessState::Ready) == [number(trial)]).then_some(())
    });
}

#[test]
fn a_replacement_is_not_stopped_by_one_that_sticks() {
    let router = Running::start_with(
        &[("edge", "sticks")],
        "standby = \"on\"\nhandover_timeout = \"0s\"",
    );
    router.until_said("ready: ");
    let standby = router.edge(ProcessState::Standby);
    let stuck = router.pid_of("edge").unwrap();
    router.edges_do("");
    write_settings(
        router.temp.path(),
        "standby = \"on\"\nhandover_timeout = \"0s\"\ntrusted_proxies = [\"10.0.0.0/8\"]",
    );
    router.signal(Signal::HUP);
    let next = router.until("another serves", || {
        let pid = router.pid_of("edge")?;
        (pid != stuck).then_some(pid)
    });
    assert_ne!(next, standby, "it has the old settings");
    router.until("the old standby leaves", || {
        (!is_alive(standby)).then_some(())
    });
    assert!(is_alive(stuck));
    router.until("the one that sticks is killed", || {
        (!is_alive(stuck)).then_some(())
    });
    assert!(router.said().contains("killed: not handed over in time"));
    assert_eq!(router.edge(ProcessState::Ready), next);
    router.edge(ProcessState::Standby);
}

#[test]
fn a_replacement_that_fails_leaves_the_old_ones_and_sighup_tries_again() {
    let router = with_standby();
    let standby = router.edge(ProcessState::Standby);
    let old = router.pid_of("edge").unwrap();
    router.edges_do("crash");
    write_settings(
        router.temp.path(),
        "standby = \"on\"\ndrain_timeout = \"9s\"",
    );
    router.signal(Signal::HUP);
    router.until_said("edge says goodbye");
    router.until_said("the present one stays");
    assert_eq!(router.edge(ProcessState::Ready), old);
    assert_eq!(router.edge(ProcessState::Standby), standby);
    router.edges_do("");
    router.signal(Signal::HUP);
    router.until("the old one leaves", || (!is_alive(old)).then_some(()));
    // The table is told through control, a moment later.
    router.until("another serves", || {
        (router.edge(ProcessState::Ready) != old).then_some(())
    });
}

#[test]
fn whether_one_stands_by_is_a_setting() {
    let router = with_standby();
    let standby = router.edge(ProcessState::Standby);
    let serving = router.pid_of("edge").unwrap();
    write_settings(router.temp.path(), "standby = \"off\"");
    router.signal(Signal::HUP);
    router.until("it is dismissed", || (!is_alive(standby)).then_some(()));
    write_settings(router.temp.path(), "standby = \"on\"");
    router.signal(Signal::HUP);
    router.edge(ProcessState::Standby);
    assert_eq!(router.pid_of("edge"), Some(serving), "nobody was replaced");
}

#[test]
fn the_last_deaths_are_kept() {
    let router = with_standby();
    let mut killed = Vec::new();
    for _ in 0..2 {
        router.edge(ProcessState::Standby);
        let pid = router.edge(ProcessState::Ready);
        killed.insert(0, number(pid));
        kill_process(pid, Signal::KILL).unwrap();
        router.until("another serves", || {
            let serving = router.edges(ProcessState::Ready);
            (serving.len() == 1 && serving[0] != number(pid)).then_some(())
        });
    }
    let rows = router.table().unwrap();
    let told = rows.iter().flat_map(|row| &row.obituaries);
    let pids: Vec<u32> = told.map(|departed| departed.obituary.pid).collect();
    assert_eq!(pids, killed);
}
