//! A process that is frozen, and one that is slow: neither may freeze or slow
//! its clients where a peer is well.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Child, Conduct, Instance, Load, Router, get, within};

/// Far above the learned time, far below any other timeout.
const SOON: Duration = Duration::from_secs(10);

fn pool(router: &Router, policy: &serde_json::Value, children: &[&Child]) {
    let addresses: Vec<_> = children.iter().map(|child| child.address()).collect();
    router.pool_at("shop", policy, &addresses);
}

#[test]
fn gets_to_a_frozen_backend_are_answered_by_another_in_the_learned_time() {
    let router = Router::start();
    let (cold, warm) = (Child::start("cold"), Child::start("warm"));
    pool(&router, &json!({}), &[&cold, &warm]);
    let load = Load::gets(&router, "shop", 80);
    load.wait(100);
    cold.freeze();
    load.wait(160);
    cold.thaw();
    router.wait_health("shop", "web.1", &["healthy", "ramping"]);
    load.wait(40);
    let sent = load.stop_all_well();
    let slow: Vec<_> = sent.iter().filter(|sent| sent.took > SOON).collect();
    assert!(
        slow.is_empty(),
        "{} slow, such as {:?}",
        slow.len(),
        slow[0]
    );
}

#[test]
fn posts_to_a_frozen_backend_are_never_repeated() {
    let router = Router::start();
    let (cold, warm) = (Child::start("cold"), Child::start("warm"));
    pool(
        &router,
        &json!({ "first_byte_timeout": "2s" }),
        &[&cold, &warm],
    );
    let load = Load::posts(&router, "shop", 60);
    load.wait(80);
    cold.freeze();
    load.wait(60);
    cold.thaw();
    load.wait(60);
    let sent = load.stop();
    let both = [cold.executed(), warm.executed()].concat();
    for sent in &sent {
        let line = format!("POST {}", sent.path);
        let times = both.iter().filter(|it| **it == line).count();
        assert!(times <= 1, "executed {times} times: {sent:?}");
        if !sent.is(200) {
            let answer = sent.result.as_ref().expect("an answer must come");
            assert_eq!(answer.code().as_deref(), Some("H12"), "{sent:?}");
        }
    }
}

#[test]
fn a_killed_process_and_its_return_cost_no_get() {
    let router = Router::start();
    let (mortal, other) = (Child::start("mortal"), Child::start("other"));
    pool(&router, &json!({}), &[&mortal, &other]);
    let load = Load::gets(&router, "shop", 80);
    load.wait(80);
    mortal.kill();
    load.wait(80);
    mortal.restart();
    router.wait_health("shop", "web.1", &["healthy", "ramping"]);
    load.wait(40);
    load.stop_all_well();
}

#[test]
fn a_far_slower_backend_gets_far_less() {
    let router = Router::start();
    let (slow, fast) = (Instance::start("slow"), Instance::start("fast"));
    fast.does(Conduct::Slow(Duration::from_millis(3)));
    slow.does(Conduct::Slow(Duration::from_millis(300)));
    router.pool("shop", &json!({ "hedge": "off" }), &[&slow, &fast]);
    let load = Load::gets(&router, "shop", 60);
    load.wait(240);
    load.stop_all_well();
    let (slow, fast) = (slow.count(), fast.count());
    assert!(slow * 8 < fast, "slow {slow}, fast {fast}");
    assert!(slow > 0);
}

#[test]
fn a_slow_backend_that_recovers_gets_its_share_back() {
    let router = Router::start();
    let (one, two) = (Instance::start("one"), Instance::start("two"));
    router.pool("shop", &json!({}), &[&one, &two]);
    let usual = Conduct::Slow(Duration::from_millis(5));
    two.does(usual.clone());
    one.does(Conduct::Slow(Duration::from_millis(100)));
    let load = Load::gets(&router, "shop", 60);
    load.wait(100);
    one.does(usual);
    // What it took is forgotten by half in ten seconds, while others can do all.
    within(
        Duration::from_secs(90),
        "it gets a fair share again",
        || {
            let before = (one.count(), two.count());
            load.wait(50);
            let (ones, twos) = (one.count() - before.0, two.count() - before.1);
            (ones * 2 > twos).then_some(())
        },
    );
    load.stop_all_well();
}

#[test]
fn a_slow_app_is_not_taken_for_a_frozen_one() {
    let router = Router::start();
    let (one, two) = (Instance::start("one"), Instance::start("two"));
    router.pool("shop", &json!({}), &[&one, &two]);
    let slow = Conduct::Slow(Duration::from_millis(150));
    one.does(slow.clone());
    two.does(slow);
    // Every answer takes as long as every other: nothing is an outlier.
    let load = Load::gets(&router, "shop", 40);
    load.wait(160);
    load.stop_all_well();
    for id in ["web.1", "web.2"] {
        assert_eq!(router.backend("shop", id)["ejections"], 0);
    }
    let mut client = router.client();
    client.send(get("shop", "/after"));
    client.answer().expect(200);
}
