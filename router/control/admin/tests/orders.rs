//! Ejecting and readmitting, as the operator asks for it.

use std::sync::Mutex;

use super::*;
use crate::feed::messages::Order;

const EJECT: &str = "/apps/shop/backends/web.1/eject";
const READMIT: &str = "/apps/shop/backends/web.1/readmit";

impl Port {
    async fn order(&self, path: &str) -> Value {
        let (status, body) = self.ask(Method::POST, path, Some(OPERATOR)).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    async fn refused(&self, path: &str, token: Option<&str>) -> (u16, Value) {
        let (status, body) = self.ask(Method::POST, path, token).await;
        (status.as_u16(), serde_json::from_str(&body).unwrap())
    }

    /// Connects an edge that keeps the orders it gets, and answers questions.
    fn connect_obedient_edge(&self, at: u64) -> Arc<Mutex<Vec<Order>>> {
        let (membership, mut asks) = self.state.fleet.admit(&EdgeHello::default(), Some(at));
        let carried = Arc::new(Mutex::new(Vec::new()));
        let orders = Arc::clone(&carried);
        tokio::spawn(async move {
            let _membership = membership;
            while let Some(ask) = asks.recv().await {
                match ask {
                    Ask::Report { app, answer, .. } => {
                        let _ = answer.send(edge_report(&app));
                    }
                    Ask::Carry(order) => orders.lock().unwrap().push(order),
                }
            }
        });
        carried
    }
}

#[tokio::test]
async fn ejecting_is_an_operators_and_says_what_is_left() {
    let port = port("127.0.0.1:0").await;
    assert_eq!(port.refused(EJECT, None).await.0, 401);
    assert_eq!(port.refused(EJECT, Some("wrong")).await.0, 401);
    let spec = BackendSpec {
        id: "web.2".into(),
        address: "127.0.0.1:9002".into(),
        weight: 100,
        ..BackendSpec::default()
    };
    let change = port
        .state
        .registry
        .change(move |staging| staging.put_backend("shop", &spec, &Condition::Always));
    change.await.unwrap();
    let answer = port.order(EJECT).await;
    assert_eq!(
        (&answer["revision"], &answer["ejected"]),
        (&3.into(), &true.into())
    );
    assert_eq!(
        (&answer["routable"], &answer["warning"]),
        (&1.into(), &Value::Null)
    );
    let again = port.order(EJECT).await;
    assert_eq!(again["revision"], 3, "said again, it changes nothing");
    let last = port.order("/apps/shop/backends/web.2/eject").await;
    assert_eq!(
        (&last["revision"], &last["routable"]),
        (&4.into(), &0.into())
    );
    assert!(last["warning"].is_string(), "{last}");
    let told = port.state.events.latest(10);
    let told: Vec<(&str, &str)> = told.iter().map(|it| (&*it.kind, &*it.backend)).collect();
    assert_eq!(
        told,
        [("backend_ejected", "web.1"), ("backend_ejected", "web.2")]
    );
    let text = &port.state.events.latest(1)[0].text;
    assert!(
        text.contains("operator") && text.contains("no other"),
        "{text}"
    );
    let shown = &port.read("/apps/shop").await["backends"][0];
    assert_eq!(
        (&shown["health"], &shown["reason"]),
        (&"ejected".into(), &"operator".into())
    );
    assert!(shown["since"].is_string(), "{shown}");
    assert_eq!(port.read("/apps").await["apps"][0]["active_backends"], 0);
}

#[tokio::test]
async fn readmitting_ends_the_ejection_and_tells_every_edge() {
    let port = port("127.0.0.1:0").await;
    let edges = [port.connect_obedient_edge(1), port.connect_obedient_edge(1)];
    port.order(EJECT).await;
    let answer = port.order(READMIT).await;
    assert_eq!(
        (&answer["revision"], &answer["ejected"]),
        (&3.into(), &false.into())
    );
    assert_eq!(
        answer["edges"],
        serde_json::json!({ "asked": 2, "answered": 2 })
    );
    assert_eq!(port.state.events.latest(1)[0].kind, "backend_readmitted");
    // What the edges hold against it is forgotten though no operator ejected it.
    let again = port.order(READMIT).await;
    assert_eq!(again["revision"], 3);
    assert_eq!(
        port.state.events.latest(10).len(),
        2,
        "nothing happened here"
    );
    for edge in edges {
        let carried = edge.lock().unwrap();
        assert_eq!(carried.len(), 2);
        let order = &carried[0];
        let order = (&*order.verb, &*order.app, &*order.backend);
        assert_eq!(order, ("readmit", "shop", "web.1"));
    }
}

#[tokio::test]
async fn orders_about_nothing_and_with_nonsense_are_refused() {
    let port = port("127.0.0.1:0").await;
    for verb in ["eject", "readmit"] {
        for (path, status, code) in [
            ("shop/backends/web.9", 404, "backend_not_found"),
            ("none/backends/web.1", 404, "app_not_found"),
            ("shop/backends/web.1?wait=soon", 400, "invalid_query"),
            ("shop/backends/web.1?for=30s", 400, "invalid_query"),
            ("shop/backends/web.1?timeout=10s", 400, "invalid_field"),
        ] {
            let (path, query) = path.split_once('?').unwrap_or((path, ""));
            let path = format!("/apps/{path}/{verb}?{query}");
            let (found, problem) = port.refused(&path, Some(OPERATOR)).await;
            assert_eq!((found, &problem["code"]), (status, &code.into()), "{path}");
        }
        let path = format!("/apps/shop/backends/web.1/{verb}");
        assert_eq!(port.ask(Method::GET, &path, None).await.0, 405);
    }
    assert_eq!(port.state.registry.revision(), 1);
}

#[tokio::test]
async fn waiting_for_an_order_needs_every_edge() {
    let port = port("127.0.0.1:0").await;
    let _edge = port.connect_obedient_edge(1);
    let path = format!("{EJECT}?wait=active&timeout=20ms");
    let (status, problem) = port.refused(&path, Some(OPERATOR)).await;
    assert_eq!(
        (status, &problem["code"]),
        (504, &"not_active_in_time".into())
    );
    assert!(
        port.state.registry.app("shop").unwrap().backends[0].ejected,
        "it stands"
    );
    let mute = port.state.fleet.admit(&EdgeHello::default(), Some(9));
    drop(_edge);
    let path = format!("{READMIT}?wait=active&timeout=20ms");
    let (status, problem) = port.refused(&path, Some(OPERATOR)).await;
    assert_eq!((status, &problem["revision"]), (504, &3.into()));
    drop(mute);
}
