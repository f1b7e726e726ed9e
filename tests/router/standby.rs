//! Standing by: an edge that dies or stalls is relieved by one whose table is
//! loaded already, and nobody is refused meanwhile.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    Backend, Client, DEADLINE, Load, Router, eventually, processes, stays, within,
};

/// A takeover is a matter of milliseconds. The machine runs other tests too: the
/// best of a few counts.
const AIR: Duration = Duration::from_secs(1);

/// Pids of the edges in this state; none if control does not answer just now.
fn edges(router: &Router, state: &str) -> Vec<u32> {
    let rows = rows(router);
    let found = rows
        .iter()
        .filter(|row| row["role"] == "edge" && row["state"] == state);
    found
        .filter_map(|row| u32::try_from(row["pid"].as_u64()?).ok())
        .collect()
}

fn rows(router: &Router) -> Vec<Value> {
    let told = router.shown("/processes").unwrap_or_default();
    told["processes"].as_array().cloned().unwrap_or_default()
}

/// Waits until one edge serves and one stands by; gives both.
#[track_caller]
fn pair(router: &Router) -> (u32, u32) {
    within(Duration::from_secs(60), "one serves, one stands by", || {
        let (ready, standby) = (edges(router, "ready"), edges(router, "standby"));
        match (&ready[..], &standby[..]) {
            ([ready], [standby]) => Some((*ready, *standby)),
            _ => None,
        }
    })
}

/// Asks on a connection of its own until there is an answer: connections that
/// the dead edge had taken may break, none may be refused.
#[track_caller]
fn next_answer(router: &Router, since: Instant) -> Duration {
    loop {
        let mut client = Client::try_connect(router.http()).expect("nobody may be refused");
        client.try_send("GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n");
        match client.try_answer_to("GET") {
            Ok(answer) => {
                answer.expect(200);
                return since.elapsed();
            }
            Err(_) => assert!(since.elapsed() < DEADLINE, "no answer"),
        }
    }
}

#[test]
fn the_standby_takes_over_from_a_killed_edge_under_load() {
    let router = Router::with(&["edge.standby=\"on\""]);
    let backend = Backend::named("alive");
    router.serve("shop", &[&backend]);
    let load = Load::gets(&router, "shop", 150);
    let mut taken = Vec::new();
    for _ in 0..3 {
        let (serving, standby) = pair(&router);
        load.wait(30);
        processes::signal(serving, Signal::KILL);
        taken.push(next_answer(&router, Instant::now()));
        eventually("the one that stood by serves", || {
            (edges(&router, "ready") == [standby]).then_some(())
        });
        load.wait(30);
    }
    let best = taken.iter().min().expect("there were rounds");
    assert!(*best < AIR, "after {taken:?}");
    let sent = load.stop();
    let lost: Vec<_> = sent.iter().filter(|sent| !sent.is(200)).collect();
    for sent in &lost {
        let why = sent.result.as_ref().err().cloned().unwrap_or_default();
        assert!(!why.contains("refused"), "{sent:?}");
        assert!(sent.result.is_err(), "not cut, but answered: {sent:?}");
    }
    // Those in flight at a kill: a handful at this rate.
    assert!(lost.len() <= 3 * 32, "{} lost", lost.len());
}

#[test]
fn the_standby_follows_changes_before_it_serves() {
    let router = Router::with(&["edge.standby=\"on\""]);
    let (serving, _) = pair(&router);
    let backend = Backend::named("new");
    router.serve("shop", &[&backend]);
    processes::signal(serving, Signal::KILL);
    next_answer(&router, Instant::now());
}

#[test]
fn the_standby_takes_over_from_a_frozen_edge() {
    let router = Router::with(&["edge.standby=\"on\""]);
    let backend = Backend::named("alive");
    router.serve("shop", &[&backend]);
    let (serving, standby) = pair(&router);
    processes::signal(serving, Signal::STOP);
    within(
        Duration::from_secs(30),
        "the one that stood by serves",
        || (edges(&router, "ready") == [standby]).then_some(()),
    );
    router.get("shop", "/").expect(200);
    eventually("the frozen one is gone", || {
        (!processes::alive(serving)).then_some(())
    });
    assert!(router.words().contains("killed: no answer for 5s"));
}

#[test]
fn edges_and_control_may_die_at_once() {
    let router = Router::with(&["edge.standby=\"on\""]);
    let backend = Backend::named("alive");
    router.serve("shop", &[&backend]);
    let (serving, standby) = pair(&router);
    for pid in [router.process("control"), serving, standby] {
        processes::signal(pid, Signal::KILL);
    }
    next_answer(&router, Instant::now());
    router.wait_ready();
    pair(&router);
}

#[test]
fn switched_off_nobody_stands_by_and_a_dead_edge_is_replaced_all_the_same() {
    let router = Router::with(&["edge.standby=\"off\""]);
    let backend = Backend::named("alive");
    router.serve("shop", &[&backend]);
    stays(Duration::from_secs(3), "nobody stands by", || {
        let edges = rows(&router)
            .iter()
            .filter(|row| row["role"] == "edge")
            .count();
        edges == 1
    });
    let edge = router.process("edge");
    processes::signal(edge, Signal::KILL);
    next_answer(&router, Instant::now());
    assert_ne!(router.process("edge"), edge);
}

#[test]
fn the_last_deaths_are_told_with_their_reasons() {
    let router = Router::with(&["edge.standby=\"on\""]);
    let (serving, standby) = pair(&router);
    processes::signal(standby, Signal::KILL);
    let (_, next) = eventually("another stands by", || {
        let standing = edges(&router, "standby");
        (standing.len() == 1 && standing[0] != standby).then(|| (serving, standing[0]))
    });
    processes::signal(serving, Signal::ABORT);
    eventually("the next serves", || {
        (edges(&router, "ready") == [next]).then_some(())
    });
    let told = router.admin_get("/processes").expect(200).json();
    let dead = told["obituaries"].as_array().cloned().unwrap_or_default();
    let facts: Vec<_> = dead
        .iter()
        .map(|it| {
            (
                it["process"].clone(),
                it["pid"].clone(),
                it["signal"].clone(),
            )
        })
        .collect();
    let edge = Value::from("edge");
    let expected = [
        (edge.clone(), serving.into(), 6.into()),
        (edge, standby.into(), 9.into()),
    ];
    assert_eq!(facts, expected, "the latest first");
}

#[test]
fn an_edge_that_crashes_again_and_again_stands_on_the_table_that_ran_well() {
    let router = Router::with(&["edge.standby=\"off\""]);
    let backend = Backend::named("alive");
    router.serve("shop", &[&backend]);
    // Control writes the table anew from its store, and this is what ten quiet
    // minutes would make of it.
    let setup = router.stop();
    let table = setup.state_dir().join("table");
    fs::remove_dir_all(&table).expect("a folder must be removable");
    let router = setup.start();
    eventually("the snapshot is written", || {
        fs::copy(table.join("snapshot"), table.join("proven")).ok()
    });
    router.serve("late", &[&backend]);
    let mut edge = router.process("edge");
    for _ in 0..3 {
        processes::signal(edge, Signal::ABORT);
        edge = eventually("another edge serves", || {
            let ready = edges(&router, "ready");
            (ready.len() == 1 && ready[0] != edge).then(|| ready[0])
        });
    }
    let words = router.words();
    assert!(words.contains("three crashed young in a row"), "{words}");
    eventually("the edge that serves is pinned", || {
        let text = router.admin_get("/metrics").expect(200).text();
        let pinned = text
            .lines()
            .filter(|line| line.starts_with("portico_") && line.contains("pinned"));
        pinned
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .any(|value| value >= 1.0)
            .then_some(())
    });
    next_answer(&router, Instant::now());
    router.get("late", "/").refused(404, "H30");
    // A reload tries the newest again.
    router.signal(Signal::HUP);
    eventually("another serves", || {
        let ready = edges(&router, "ready");
        (ready.len() == 1 && ready[0] != edge).then_some(())
    });
    // It may have had to begin with the table on disk.
    eventually("it has the newest", || {
        (router.get("late", "/").status == 200).then_some(())
    });
}

#[test]
fn crashes_on_no_table_in_particular_do_not_cost_the_newest() {
    let router = Router::with(&["edge.standby=\"off\""]);
    let backend = Backend::named("alive");
    for round in 0..5 {
        let app = format!("app-{round}");
        router.serve(&app, &[&backend]);
        let edge = router.process("edge");
        processes::signal(edge, Signal::ABORT);
        eventually("another edge serves the newest", || {
            let ready = edges(&router, "ready");
            let mut client = Client::try_connect(router.http()).ok()?;
            let head = format!("GET / HTTP/1.1\r\nHost: {app}.example\r\n\r\n");
            client.try_send(head);
            let status = client.try_answer_to("GET").ok()?.status;
            (ready.len() == 1 && ready[0] != edge && status == 200).then_some(())
        });
    }
}
