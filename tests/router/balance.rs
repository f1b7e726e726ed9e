//! Balancing: two choices over requests in flight, weights, standings.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::harness::{Backend, Router, pause, within};

fn counts(router: &Router, app: &str, requests: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let mut client = router.client();
    for _ in 0..requests {
        client.send(format!("GET / HTTP/1.1\r\nHost: {app}.example\r\n\r\n"));
        *counts
            .entry(client.answer().expect(200).text())
            .or_default() += 1;
    }
    counts
}

#[test]
fn requests_spread_over_backends() {
    let router = Router::start();
    let backends = [
        Backend::named("a"),
        Backend::named("b"),
        Backend::named("c"),
    ];
    router.serve("shop", &[&backends[0], &backends[1], &backends[2]]);
    // A busy machine has hiccups, and who had one gets less for a moment.
    within(Duration::from_secs(120), "each gets its part", || {
        let counts = counts(&router, "shop", 600);
        let is_fair = counts.len() == 3 && counts.values().all(|&count| count > 100);
        is_fair.then_some(())
    });
}

#[test]
fn a_slow_backend_gets_less() {
    let router = Router::start();
    let slow = Backend::app(|_| {
        pause(Duration::from_millis(100));
        crate::harness::answer_ok("slow")
    });
    let fast = Backend::named("fast");
    router.serve("shop", &[&slow, &fast]);
    let address = router.http();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = crate::harness::Client::connect(address);
                for _ in 0..50 {
                    client.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
                    client.answer().expect(200);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().expect("no request may fail");
    }
    let (slow, fast) = (slow.requests().len(), fast.requests().len());
    assert!(slow * 2 < fast, "slow {slow}, fast {fast}");
    assert!(slow > 0);
}

#[test]
fn weights_count() {
    let router = Router::start();
    let (light, heavy) = (Backend::named("light"), Backend::named("heavy"));
    router.serve("shop", &[]);
    let register = |id: &str, backend: &Backend, weight: u32| {
        let record = json!({ "address": backend.address().to_string(), "weight": weight });
        router
            .put(&format!("/v1/apps/shop/backends/{id}?wait=active"), &record)
            .expect(201);
    };
    register("light", &light, 10);
    register("heavy", &heavy, 1000);
    let counts = counts(&router, "shop", 400);
    let light = counts.get("light").copied().unwrap_or_default();
    assert!(
        light < 150,
        "a tenth of a hundredth of the weight: {counts:?}"
    );
}

#[test]
fn a_weight_of_zero_serves_only_alone() {
    let router = Router::start();
    let (spare, main) = (Backend::named("spare"), Backend::named("main"));
    router.serve("shop", &[]);
    let record = json!({ "address": spare.address().to_string(), "weight": 0 });
    router
        .put("/v1/apps/shop/backends/spare?wait=active", &record)
        .expect(201);
    assert_eq!(
        counts(&router, "shop", 10).len(),
        1,
        "nothing else is there"
    );
    let record = json!({ "address": main.address().to_string() });
    router
        .put("/v1/apps/shop/backends/main?wait=active", &record)
        .expect(201);
    let counts = counts(&router, "shop", 100);
    assert_eq!(counts.get("main"), Some(&100), "{counts:?}");
}

#[test]
fn a_cap_on_concurrency_holds_for_each_backend() {
    let router = Router::start();
    let peak = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let now = std::sync::atomic::AtomicUsize::new(0);
    let shared_peak = peak.clone();
    let backend = Backend::app(move |_| {
        use std::sync::atomic::Ordering::SeqCst;
        shared_peak.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
        pause(Duration::from_millis(30));
        now.fetch_sub(1, SeqCst);
        crate::harness::answer_ok("ok")
    });
    router.serve_with("shop", &json!({ "max_concurrency": 3 }), &[&backend]);
    let address = router.http();
    let clients: Vec<_> = (0..20)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = crate::harness::Client::connect(address);
                client.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
                client.answer().expect(200);
            })
        })
        .collect();
    for client in clients {
        client.join().expect("no request may fail");
    }
    let peak = peak.load(std::sync::atomic::Ordering::SeqCst);
    // The backend may still be finishing one as the router sends the next.
    assert!((2..=4).contains(&peak), "{peak} at once");
}

#[test]
fn a_changed_address_takes_effect() {
    let router = Router::start();
    let (old, new) = (Backend::named("old"), Backend::named("new"));
    router.serve("shop", &[&old]);
    assert_eq!(router.get("shop", "/").expect(200).text(), "old");
    let record = json!({ "address": new.address().to_string() });
    router
        .put("/v1/apps/shop/backends/web.1?wait=active", &record)
        .expect(200);
    for _ in 0..20 {
        assert_eq!(router.get("shop", "/").expect(200).text(), "new");
    }
}
