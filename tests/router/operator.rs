//! What an operator orders about a backend: eject, readmit.

use serde_json::{Value, json};

use crate::api_apps::problem;
use crate::harness::router::request;
use crate::harness::{Answer, Backend, Router, eventually};

/// A `POST` on the admin port with the operator token.
fn order(router: &Router, path: &str) -> Answer {
    let bearer = format!("Bearer {}", router.token());
    let headers = [("Authorization", bearer.as_str())];
    request(router.admin(), "POST", path, &headers, "")
}

/// The backend as the admin port shows it.
fn shown(router: &Router, id: &str) -> Value {
    let app = router.admin_get("/apps/shop").expect(200).json();
    let backends = app["backends"].as_array().expect("`backends` is a list");
    let found = backends.iter().find(|backend| backend["id"] == id);
    found.unwrap_or_else(|| panic!("no {id} in {app}")).clone()
}

/// Who answers 40 requests.
fn answering(router: &Router) -> Vec<String> {
    let mut names: Vec<String> = (0..40)
        .map(|_| router.get("shop", "/").expect(200).text())
        .collect();
    names.sort();
    names.dedup();
    names
}

#[track_caller]
fn both_answer(router: &Router) {
    eventually("both answer", || {
        (answering(router) == ["one", "two"]).then_some(())
    });
}

#[test]
fn an_ejected_backend_gets_nothing_until_it_is_readmitted() {
    let router = Router::start();
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    router.serve("shop", &[&one, &two]);
    both_answer(&router);
    let eject = "/apps/shop/backends/web.1/eject?wait=active";
    let ejected = order(&router, eject).expect(200).json();
    assert_eq!(
        (&ejected["ejected"], &ejected["routable"]),
        (&json!(true), &json!(1))
    );
    assert!(ejected["warning"].is_null(), "{ejected}");
    assert_eq!(answering(&router), ["two"]);
    let again = order(&router, eject).expect(200).json();
    assert_eq!(again["revision"], ejected["revision"], "nothing changed");
    let seen = shown(&router, "web.1");
    assert_eq!(
        (&seen["health"], &seen["reason"]),
        (&json!("ejected"), &json!("operator"))
    );
    assert!(seen["since"].is_string(), "{seen}");
    let read = router.read("/v1/apps/shop/backends/web.1").expect(200);
    assert_eq!(read.json()["ejected"], true);

    // It outlives the process, and a renewal from the same place.
    let router = router.crash().start();
    assert_eq!(answering(&router), ["two"]);
    let same = json!({ "address": one.address().to_string() });
    let path = "/v1/apps/shop/backends/web.1?wait=active";
    router.put(path, &same).expect(200);
    assert_eq!(answering(&router), ["two"]);

    let back = order(&router, "/apps/shop/backends/web.1/readmit?wait=active").expect(200);
    let back = back.json();
    assert_eq!(back["ejected"], false);
    assert_eq!(back["edges"], json!({ "asked": 1, "answered": 1 }));
    both_answer(&router);
}

#[test]
fn another_address_is_another_instance_and_in_rotation() {
    let router = Router::start();
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let three = Backend::named("three");
    router.serve("shop", &[&one, &two]);
    order(&router, "/apps/shop/backends/web.1/eject?wait=active").expect(200);
    assert_eq!(answering(&router), ["two"]);
    let moved = json!({ "address": three.address().to_string() });
    let path = "/v1/apps/shop/backends/web.1?wait=active";
    let put = router.put(path, &moved).expect(200);
    assert!(put.json()["ejected"].is_null(), "{}", put.text());
    eventually("the new one answers", || {
        (answering(&router) == ["three", "two"]).then_some(())
    });
    let before = one.requests().len();
    answering(&router);
    assert_eq!(one.requests().len(), before, "the old one gets nothing");
}

#[test]
fn the_last_backend_is_ejected_if_the_operator_says_so() {
    let router = Router::start();
    let only = Backend::named("only");
    router.serve("shop", &[&only]);
    let answer = order(&router, "/apps/shop/backends/web.1/eject?wait=active").expect(200);
    let answer = answer.json();
    assert_eq!(answer["routable"], 0);
    assert!(answer["warning"].is_string(), "{answer}");
    let before = only.requests().len();
    assert_eq!(router.get("shop", "/").status, 503);
    assert_eq!(only.requests().len(), before);
    let events = request(
        router.admin(),
        "GET",
        "/events",
        &[("Accept", "application/json")],
        "",
    );
    let events = events.expect(200).json();
    let told = events["events"].as_array().expect("`events` is a list");
    let told = told
        .iter()
        .find(|event| event["kind"] == "backend_ejected")
        .unwrap_or_else(|| panic!("no event tells of it: {events}"));
    let text = told["text"].as_str().expect("a text");
    assert!(
        text.contains("operator") && text.contains("no other"),
        "{text}"
    );
    order(&router, "/apps/shop/backends/web.1/readmit?wait=active").expect(200);
    assert_eq!(router.get("shop", "/").expect(200).text(), "only");
}

#[test]
fn a_readmission_overrules_what_the_edge_decided() {
    let router = Router::start();
    let (one, gone) = (Backend::named("one"), Backend::refuses());
    router.serve("shop", &[&one, &gone]);
    eventually("the edge ejects who refuses connections", || {
        assert_eq!(answering(&router), ["one"]);
        let seen = shown(&router, "web.2");
        (seen["health"] == "ejected" && seen["reason"] == "connect_refused").then_some(())
    });
    let before = shown(&router, "web.2");
    for key in ["ejections", "failures"] {
        assert!(before[key].as_u64() >= Some(1), "{before}");
    }
    let overview = router.admin_get("/overview").expect(200).json();
    let unwell = &overview["unwell"]["backends"][0];
    assert_eq!(
        (&unwell["app"], &unwell["id"]),
        (&json!("shop"), &json!("web.2")),
        "the page shows it: {overview}"
    );
    order(&router, "/apps/shop/backends/web.2/readmit?wait=active").expect(200);
    eventually("the edge says that it did", || {
        let headers = [("Accept", "application/json")];
        let events = request(router.admin(), "GET", "/events", &headers, "").json();
        let told = events["events"].as_array()?.iter().any(|event| {
            event["kind"] == "backend_readmitted"
                && event["backend"] == "web.2"
                && event["text"]
                    .as_str()
                    .is_some_and(|text| text.contains("operator"))
        });
        told.then_some(())
    });
}

#[test]
fn orders_need_an_operator_and_somebody_to_be_about() {
    let router = Router::start();
    router.serve("shop", &[&Backend::refuses()]);
    let issued = router.post(
        "/v1/tokens",
        &json!({ "name": "app", "scopes": ["app:shop"] }),
    );
    let secret = issued.expect(201).json()["token"].clone();
    let bearer = format!("Bearer {}", secret.as_str().expect("a secret"));
    for verb in ["eject", "readmit"] {
        let path = format!("/apps/shop/backends/web.1/{verb}");
        problem(&request(router.admin(), "POST", &path, &[], ""), 401);
        let headers = [("Authorization", bearer.as_str())];
        problem(&request(router.admin(), "POST", &path, &headers, ""), 403);
        problem(
            &order(&router, &format!("/apps/shop/backends/web.9/{verb}")),
            404,
        );
        problem(
            &order(&router, &format!("/apps/none/backends/web.1/{verb}")),
            404,
        );
        problem(&order(&router, &format!("{path}?wait=forever")), 400);
        problem(&router.admin_get(&path), 405);
    }
    let read = router.read("/v1/apps/shop").expect(200);
    assert!(!read.text().contains("ejected"), "{}", read.text());
}

#[test]
fn the_commands_do_and_show_it() {
    let router = Router::start();
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    router.serve("shop", &[&one, &two]);
    let done = |arguments: &[&str]| {
        let output = router.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(done(&["backends", "shop"]).contains("healthy"));
    let said = done(&["eject", "shop", "web.1", "--wait"]);
    assert!(said.contains("web.1") && said.contains("shop"), "{said}");
    assert_eq!(answering(&router), ["two"]);
    for view in ["backends", "app"] {
        let text = done(&[view, "shop"]);
        let row = text
            .lines()
            .find(|line| line.starts_with("web.1"))
            .unwrap_or_else(|| panic!("no row: {text}"));
        assert!(row.contains("ejected") && row.contains("operator"), "{row}");
    }
    let said = done(&["eject", "shop", "web.2", "--wait"]);
    assert!(
        said.contains("no other"),
        "the last one is warned of: {said}"
    );
    done(&["readmit", "shop", "web.1", "--wait"]);
    done(&["readmit", "shop", "web.2", "--wait"]);
    both_answer(&router);
    let watched = done(&["events"]);
    assert!(watched.contains("backend_readmitted"), "{watched}");
    for command in ["eject", "readmit"] {
        let output = router.run(&[command, "shop", "web.9"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("web.9"));
        assert_eq!(router.run(&[command, "shop"]).status.code(), Some(2));
    }
}
