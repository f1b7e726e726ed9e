//! The shrink guard: a table that lacks more than was removed goes nowhere
//! until an operator says that it is meant; what was removed is never in doubt.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::router::request;
use crate::harness::{Answer, Backend, Router, Setup, eventually, stays};

/// Registers so many apps at one address, in one request.
#[track_caller]
fn import(router: &Router, query: &str, count: usize, backends: &[SocketAddr]) -> Answer {
    let lines = (0..count).map(|number| {
        let ids = backends.iter().enumerate();
        let backends: Value = ids
            .map(|(at, address)| {
                (
                    format!("web.{at}"),
                    json!({ "address": address.to_string() }),
                )
            })
            .collect::<serde_json::Map<_, _>>()
            .into();
        let app = format!("app-{number}");
        let domains = [format!("{app}.example")];
        json!({ "app": app, "domains": domains, "backends": backends }).to_string() + "\n"
    });
    let bearer = format!("Bearer {}", router.token());
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/x-ndjson"),
    ];
    let path = format!("/v1/import?wait=active{query}");
    request(
        router.api(),
        "POST",
        &path,
        &headers,
        &lines.collect::<String>(),
    )
}

fn kinds(router: &Router) -> Vec<String> {
    let output = router.run(&["events", "--json"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|event| Some(event["kind"].as_str()?.to_owned()))
        .collect()
}

fn says(router: &Router, kind: &str) -> bool {
    kinds(router).iter().any(|it| it == kind)
}

/// A router whose store was replaced by a copy of when it had 20 apps; its
/// table on disk has 120.
fn restored(backend: &Backend) -> Setup {
    let router = Router::start();
    import(&router, "", 20, &[backend.address()]).expect(200);
    let setup = router.stop();
    let store = setup.state_dir().join("store.redb");
    let copy = setup.folder().join("backup.redb");
    fs::copy(&store, &copy).expect("a store must be copyable");
    let router = setup.start();
    import(&router, "", 120, &[backend.address()]).expect(200);
    let setup = router.stop();
    fs::copy(&copy, &store).expect("a store must be replaceable");
    setup
}

#[test]
fn an_old_store_withdraws_nothing_until_that_is_confirmed() {
    let backend = Backend::named("kept");
    let router = restored(&backend).start();
    assert_eq!(router.get("app-100", "/").expect(200).text(), "kept");
    eventually("it is said", || {
        says(&router, "shrink_refused").then_some(())
    });
    let words = router.words();
    assert!(
        words.contains("100 apps and 100 backends would vanish")
            && words.contains("confirm-shrink"),
        "{words}"
    );
    // Changes are taken, and wait.
    let domains = json!({ "domains": ["late.example"] });
    router.put("/v1/apps/late", &domains).expect(201);
    stays(Duration::from_secs(2), "edges keep their table", || {
        router.get("app-100", "/").status == 200
            && router.get("late", "/").status == 404
            && router.ready_status() == Some(200)
    });
    let overview = router.admin_get("/overview").expect(200).json();
    assert_eq!(overview["doubted"]["store"]["unexplained"]["apps"], 100);
    // A restart of anything settles nothing.
    let router = router.stop().start();
    assert_eq!(router.get("app-100", "/").expect(200).text(), "kept");
    eventually("it is said again", || {
        says(&router, "shrink_refused").then_some(())
    });

    let output = router.run(&["confirm-shrink"]);
    assert!(output.status.success(), "{output:?}");
    eventually("the store's table is routed by", || {
        let gone = router.get("app-100", "/").code().as_deref() == Some("H30");
        let came = router.get("late", "/").code().as_deref() == Some("H14");
        (gone && came).then_some(())
    });
    assert_eq!(router.get("app-10", "/").expect(200).text(), "kept");
    assert!(says(&router, "shrink_confirmed"));
    router
        .put("/v1/apps/later?wait=active", &json!({}))
        .expect(201);
    // And settled it is: on disk too.
    let router = router.stop().start();
    router.get("app-100", "/").refused(404, "H30");
    assert!(!says(&router, "shrink_refused"));
}

#[test]
fn the_right_store_in_its_place_settles_it_as_well() {
    let backend = Backend::named("back");
    let setup = restored(&backend);
    let router = setup.start();
    eventually("it is said", || {
        says(&router, "shrink_refused").then_some(())
    });
    let setup = router.stop();
    // Without a store it is rebuilt from the table on disk, which stood.
    fs::remove_file(setup.state_dir().join("store.redb")).expect("a file must be removable");
    let router = setup.start();
    assert!(says(&router, "store_rebuilt") && !says(&router, "shrink_refused"));
    let counts = router.admin_get("/overview").expect(200).json();
    assert_eq!(counts["registered"]["apps"], 120);
    assert_eq!(router.get("app-100", "/").expect(200).text(), "back");
}

#[test]
fn what_is_removed_through_the_api_is_never_in_doubt() {
    let backend = Backend::named("last");
    let router = Router::start();
    import(&router, "", 60, &[backend.address(); 2]).expect(200);
    for number in 1..60 {
        router.delete(&format!("/v1/apps/app-{number}")).expect(200);
    }
    router
        .delete("/v1/apps/app-0/backends/web.1?wait=active")
        .expect(200);
    router.get("app-59", "/").refused(404, "H30");
    // Killed, so that the table on disk may be behind the store.
    let router = router.crash().start();
    assert_eq!(router.get("app-0", "/").expect(200).text(), "last");
    router.get("app-59", "/").refused(404, "H30");
    assert!(!says(&router, "shrink_refused"));
}

#[test]
fn with_nothing_in_doubt_there_is_nothing_to_confirm() {
    let router = Router::start();
    let output = router.run(&["confirm-shrink"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("nothing to confirm"), "{words}");
    // And nobody but an operator may.
    let unnamed = request(router.admin(), "POST", "/table/confirm", &[], "");
    assert_eq!(unnamed.status, 401, "{unnamed:?}");
}

#[test]
fn an_import_that_drops_most_backends_must_be_meant() {
    let backend = Backend::named("many");
    let router = Router::start();
    import(&router, "", 150, &[backend.address(); 2]).expect(200);
    let refused = import(&router, "", 150, &[]);
    assert_eq!(refused.status, 409, "{refused:?}");
    assert_eq!(refused.json()["code"], "hasty_import", "{refused:?}");
    router.get("app-149", "/").expect(200);
    // Others in their place are not fewer.
    let moved = Backend::named("moved");
    import(&router, "", 150, &[moved.address(); 2]).expect(200);
    assert_eq!(router.get("app-149", "/").expect(200).text(), "moved");
    import(&router, "&confirm=shrink", 150, &[]).expect(200);
    router.get("app-149", "/").refused(503, "H14");
}
