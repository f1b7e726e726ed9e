//! Crashes are a hot path: whoever is killed comes back, and nobody else
//! notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Backend, Client, DEADLINE, Router, eventually, processes};

#[test]
fn a_killed_edge_is_back_within_a_second_and_no_connection_is_refused() {
    let router = Router::start();
    let backend = Backend::named("alive");
    router.serve("shop", &[&backend]);
    let mut taken = Vec::new();
    for _ in 0..3 {
        let edge = router.process("edge");
        processes::signal(edge, Signal::KILL);
        let killed = Instant::now();
        // From now on every connection is accepted by the kernel and answered
        // by the next edge; those that the old one had taken may break.
        let answered = loop {
            let mut client = Client::connect(router.http());
            client.try_send("GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n");
            match client.try_answer_to("GET") {
                Ok(answer) => break answer.expect(200),
                Err(_) => assert!(killed.elapsed() < DEADLINE, "no edge came back"),
            }
        };
        assert_eq!(answered.text(), "alive");
        taken.push(killed.elapsed());
        assert_ne!(router.process("edge"), edge);
    }
    // The machine runs other tests beside this one: a second, and some air, and
    // not each time.
    let best = taken.iter().min().expect("there were rounds");
    assert!(*best < Duration::from_secs(2), "back after {taken:?}");
}

#[test]
fn a_killed_control_is_not_noticed_by_traffic_and_forgets_nothing() {
    let router = Router::start();
    let backend = Backend::named("alive");
    router.serve("shop", &[&backend]);
    let stop = Arc::new(AtomicBool::new(false));
    let (address, stopping) = (router.http(), stop.clone());
    let traffic = std::thread::spawn(move || {
        let mut client = Client::connect(address);
        let mut count = 0;
        while !stopping.load(Ordering::SeqCst) {
            client.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
            client.answer().expect(200);
            count += 1;
        }
        count
    });
    let edge = router.process("edge");
    let control = router.process("control");
    processes::signal(control, Signal::KILL);
    eventually("another control runs", || router.shown("/processes"));
    assert_ne!(router.process("control"), control);
    router.wait_ready();
    router.read("/v1/apps/shop").expect(200);
    let next = Backend::named("next");
    router.serve("blog", &[&next]);
    assert_eq!(router.get("blog", "/").expect(200).text(), "next");
    stop.store(true, Ordering::SeqCst);
    assert!(traffic.join().expect("no request may fail") > 0);
    assert_eq!(router.process("edge"), edge, "the edge went on");
}

#[test]
fn a_control_killed_again_and_again_comes_back_each_time() {
    let router = Router::start();
    let backend = Backend::named("alive");
    router.serve("shop", &[&backend]);
    for round in 0..5 {
        processes::signal(router.process("control"), Signal::KILL);
        router.get("shop", &format!("/{round}")).expect(200);
    }
    router.wait_ready();
    router.read("/v1/apps/shop").expect(200);
}

#[test]
fn a_stalled_edge_is_replaced() {
    let router = Router::start();
    let backend = Backend::named("alive");
    router.serve("shop", &[&backend]);
    let edge = router.process("edge");
    processes::signal(edge, Signal::STOP);
    crate::harness::within(
        Duration::from_secs(60),
        "a stalled edge is replaced",
        || {
            let text = router.shown("/processes")?.to_string();
            (!processes::alive(edge) && text.contains("edge")).then_some(())
        },
    );
    assert_ne!(router.process("edge"), edge);
    router.get("shop", "/").expect(200);
}

#[test]
fn the_reason_of_a_death_is_kept() {
    let router = Router::start();
    let control = router.process("control");
    processes::signal(router.process("edge"), Signal::KILL);
    eventually("/processes says why", || {
        let text = router.admin_get("/processes").text();
        (text.contains("SIGKILL") || text.contains("signal") && text.contains('9')).then_some(())
    });
    assert_eq!(router.process("control"), control);
}

#[test]
fn nobody_outlives_a_killed_supervisor() {
    let router = Router::start();
    let below = processes::descendants(router.pid());
    processes::signal(router.pid(), Signal::KILL);
    eventually("control and edge end by themselves", || {
        below
            .iter()
            .all(|&pid| !processes::alive(pid))
            .then_some(())
    });
}

#[test]
fn after_a_power_cut_what_was_answered_is_there() {
    let router = Router::start();
    let backend = Backend::named("kept");
    router.serve("shop", &[&backend]);
    for number in 0..20 {
        let record = serde_json::json!({ "domains": [format!("h{number}.test")] });
        router
            .put(&format!("/v1/apps/app{number}"), &record)
            .expect(201);
    }
    let router = router.crash().start();
    assert_eq!(router.get("shop", "/").expect(200).text(), "kept");
    for number in 0..20 {
        router.read(&format!("/v1/apps/app{number}")).expect(200);
    }
}
