//! An edge's end of the feed, spoken by hand over a real socket.

use std::collections::BTreeSet;

use super::*;
use crate::control::boot;
use crate::control::events::Events;
use crate::control::staging::{AppSpec, Condition, ImportTally};
use crate::feed::messages::{Ack, Change, LimitRecord, LimitsHeld, Nack};

/// Control's end.
struct Control {
    registry: Arc<Registry>,
    fleet: Arc<Fleet>,
    _running: JoinSet<()>,
    dir: tempfile::TempDir,
}

impl Control {
    fn new() -> Control {
        let dir = tempfile::tempdir().unwrap();
        let events = Arc::<Events>::default();
        let (store, contents) = boot::open(dir.path(), &events, |_| None).unwrap();
        let (registry, _writer) = Registry::start(store, contents, Arc::default()).unwrap();
        let fleet = Arc::new(Fleet::new(events, Arc::default()));
        let listener = UnixListener::bind(dir.path().join("feed.sock")).unwrap();
        let mut running = JoinSet::new();
        running.spawn(serve(listener, fleet.clone(), registry.clone()));
        Control {
            registry,
            fleet,
            _running: running,
            dir,
        }
    }

    async fn put(&self, name: &str, domain: &str) -> u64 {
        let spec = AppSpec {
            name: name.into(),
            domains: vec![domain.into()],
            ..AppSpec::default()
        };
        self.registry
            .change(move |staging| staging.put_app(&spec, &Condition::Always))
            .await
            .unwrap()
            .revision
    }

    async fn connect(&self, cluster_id: &str, epoch: u64, revision: u64) -> Edge {
        let hello = EdgeHello {
            cluster_id: cluster_id.into(),
            pid: 7,
            threads: 2,
            program: "test".into(),
            ..EdgeHello::default()
        };
        self.greeted(hello, epoch, revision).await
    }

    async fn greeted(&self, hello: EdgeHello, epoch: u64, revision: u64) -> Edge {
        let stream = UnixStream::connect(self.dir.path().join("feed.sock"))
            .await
            .unwrap();
        let mut edge = Edge {
            stream,
            buffer: BytesMut::new(),
            epoch,
        };
        edge.say(revision, Body::EdgeHello(hello)).await;
        let hello = edge.hear().await;
        assert!(
            matches!(hello.body, Some(Body::Hello(Hello { cluster_id })) if cluster_id == self.registry.cluster_id())
        );
        edge
    }
}

struct Edge {
    stream: UnixStream,
    buffer: BytesMut,
    epoch: u64,
}

impl Edge {
    async fn say(&mut self, revision: u64, body: Body) {
        codec::write_async(&mut self.stream, &Envelope::new(self.epoch, revision, body))
            .await
            .unwrap();
    }

    /// The next message that is neither a beat nor about limits.
    async fn hear(&mut self) -> Envelope {
        let hearing = async {
            loop {
                let envelope = codec::read_async(&mut self.stream, &mut self.buffer)
                    .await
                    .unwrap();
                if !matches!(envelope.body, Some(Body::Beat(_) | Body::Limits(_))) {
                    return envelope;
                }
            }
        };
        timeout(Duration::from_secs(10), hearing)
            .await
            .expect("something to hear")
    }

    /// The next limits: their version and names.
    async fn limits(&mut self) -> (u64, Vec<String>) {
        let hearing = async {
            loop {
                let envelope = codec::read_async(&mut self.stream, &mut self.buffer)
                    .await
                    .unwrap();
                if let Some(Body::Limits(set)) = envelope.body {
                    let names = set.limits.into_iter().map(|limit| limit.name);
                    return (set.version, names.collect());
                }
            }
        };
        timeout(Duration::from_secs(10), hearing)
            .await
            .expect("limits to hear")
    }

    /// A whole table: its revision and names.
    async fn snapshot(&mut self) -> (u64, BTreeSet<String>) {
        let mut names = BTreeSet::new();
        let mut first = true;
        loop {
            let envelope = self.hear().await;
            let Some(Body::Snapshot(part)) = envelope.body else {
                panic!("no part: {envelope:?}")
            };
            assert_eq!(part.first, first);
            first = false;
            names.extend(part.apps.into_iter().map(|record| record.name));
            if part.last {
                return (envelope.revision, names);
            }
        }
    }
}

fn names(delta: &crate::feed::messages::Delta) -> Vec<String> {
    let name = |op: &crate::feed::messages::Op| match op.change.clone() {
        Some(Change::Put(record)) => record.name,
        Some(Change::Delete(name)) => format!("-{name}"),
        None => String::new(),
    };
    delta.ops.iter().map(name).collect()
}

fn ack(apps: u64) -> Body {
    Body::Ack(Ack {
        apps,
        ..Ack::default()
    })
}

#[tokio::test]
async fn a_new_edge_gets_the_table_and_then_each_change() {
    let control = Control::new();
    control.put("a", "a.example").await;
    let mut edge = control.connect("", 0, 0).await;
    let (revision, apps) = edge.snapshot().await;
    assert_eq!((revision, apps), (1, BTreeSet::from(["a".to_owned()])));
    assert!(!control.fleet.is_serving());
    edge.say(1, ack(1)).await;
    assert!(control.fleet.wait_active(1, Duration::from_secs(10)).await);

    let revision = control.put("b", "b.example").await;
    let Some(Body::Delta(delta)) = edge.hear().await.body else {
        panic!("a delta")
    };
    assert_eq!(
        (delta.from, delta.to, names(&delta)),
        (1, revision, vec!["b".to_owned()])
    );
    assert!(
        !control
            .fleet
            .wait_active(revision, Duration::from_millis(20))
            .await
    );
    edge.say(revision, ack(2)).await;
    assert!(
        control
            .fleet
            .wait_active(revision, Duration::from_secs(10))
            .await
    );

    let nack = Nack {
        key: "b".into(),
        reason: "on purpose".into(),
    };
    edge.say(revision, Body::Nack(nack)).await;
    let asking = control.fleet.collect("a", 3);
    let answering = async {
        let Some(Body::Collect(collect)) = edge.hear().await.body else {
            panic!("a question")
        };
        assert_eq!((collect.app.as_str(), collect.top), ("a", 3));
        edge.say(
            revision,
            Body::Report(Report {
                id: collect.id,
                ..Report::default()
            }),
        )
        .await;
    };
    let (reports, ()) = tokio::join!(asking, answering);
    assert_eq!((reports.len(), control.fleet.edges()[0].nacks), (1, 1));

    drop(edge);
    let gone = async {
        while !control.fleet.edges().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), gone)
        .await
        .expect("the edge leaves the roster");
}

#[tokio::test]
async fn an_edge_that_comes_back_gets_only_what_it_missed() {
    let control = Control::new();
    control.put("a", "x.example").await;
    control.put("b", "b.example").await;
    let held = control.registry.revision();
    control.put("a", "y.example").await;
    control.put("b", "x.example").await;
    control
        .registry
        .change(|staging| staging.delete_app("a", &Condition::Always))
        .await
        .unwrap();
    let (id, epoch) = (control.registry.cluster_id(), control.registry.epoch());

    let mut edge = control.connect(&id, epoch, held).await;
    let Some(Body::Delta(delta)) = edge.hear().await.body else {
        panic!("a delta")
    };
    assert_eq!((delta.from, delta.to), (held, control.registry.revision()));
    assert_eq!(names(&delta), ["-a", "b"], "each app once, removals first");

    // Up to date: it is active from the start, and hears of nothing but news.
    let mut current = control.connect(&id, epoch, delta.to).await;
    edge.say(delta.to, ack(1)).await;
    assert!(
        control
            .fleet
            .wait_active(delta.to, Duration::from_secs(10))
            .await
    );
    let revision = control.put("c", "c.example").await;
    let Some(Body::Delta(delta)) = current.hear().await.body else {
        panic!("a delta")
    };
    assert_eq!((delta.to, names(&delta)), (revision, vec!["c".to_owned()]));
}

#[tokio::test]
async fn an_edge_of_another_life_gets_the_whole_table() {
    let control = Control::new();
    control.put("a", "a.example").await;
    let (id, epoch) = (control.registry.cluster_id(), control.registry.epoch());
    for (id, epoch, revision) in [
        (id.as_str(), epoch, 99),
        (id.as_str(), epoch + 1, 1),
        ("another", epoch, 1),
    ] {
        let mut edge = control.connect(id, epoch, revision).await;
        assert_eq!(edge.snapshot().await.0, 1);
    }
}

#[tokio::test]
async fn a_large_table_comes_in_parts() {
    let control = Control::new();
    let specs: Vec<AppSpec> = (0..3_000)
        .map(|n| AppSpec {
            name: format!("app-{n}"),
            domains: (0..20)
                .map(|d| format!("host-{d}.of-app-{n}.a-rather-long-name.example"))
                .collect(),
            ..AppSpec::default()
        })
        .collect();
    control
        .registry
        .change(move |staging| Ok(staging.import(&specs, &mut ImportTally::default())?.len()))
        .await
        .unwrap();
    let mut edge = control.connect("", 0, 0).await;
    let (revision, apps) = edge.snapshot().await;
    assert_eq!((revision, apps.len()), (1, 3_000));
}

#[tokio::test]
async fn an_order_follows_the_changes_before_it_and_comes_before_later_questions() {
    let control = Control::new();
    let mut edge = control.connect("", 0, 0).await;
    edge.snapshot().await;
    edge.say(0, ack(0)).await;
    assert!(control.fleet.wait_active(0, Duration::from_secs(10)).await);
    let order = Order {
        verb: "readmit".into(),
        app: "a".into(),
        backend: "web.1".into(),
    };
    for round in 0..20 {
        control.put("a", &format!("{round}.example")).await;
        let asking = async {
            control.fleet.order(&order).await;
            control.fleet.collect("a", 1).await
        };
        let answering = async {
            assert!(matches!(edge.hear().await.body, Some(Body::Delta(_))));
            assert_eq!(edge.hear().await.body, Some(Body::Order(order.clone())));
            let Some(Body::Collect(Collect { id, .. })) = edge.hear().await.body else {
                panic!("a question")
            };
            let report = Report {
                id,
                ..Report::default()
            };
            edge.say(0, Body::Report(report)).await;
        };
        let (reports, ()) = tokio::join!(asking, answering);
        assert_eq!(reports.len(), 1, "round {round}");
    }
}

#[tokio::test]
async fn a_pinned_edge_is_sent_no_table_and_still_answers() {
    let control = Control::new();
    control.put("a", "a.example").await;
    let hello = EdgeHello {
        pid: 8,
        is_pinned: true,
        ..EdgeHello::default()
    };
    let mut edge = control.greeted(hello, 0, 0).await;
    control.put("b", "b.example").await;
    let asking = control.fleet.collect("", 3);
    let answering = async {
        // The first thing it hears, changes or not.
        let Some(Body::Collect(Collect { id, .. })) = edge.hear().await.body else {
            panic!("a question")
        };
        let report = Report {
            id,
            ..Report::default()
        };
        edge.say(0, Body::Report(report)).await;
    };
    let (reports, ()) = tokio::join!(asking, answering);
    assert_eq!(reports.len(), 1);
    let status = &control.fleet.edges()[0];
    assert_eq!(
        (status.state(), status.active_revision),
        ("pinned", Some(0))
    );
    assert!(!control.fleet.is_serving());
}

#[tokio::test]
async fn a_standby_follows_and_counts_once_it_serves() {
    let control = Control::new();
    control.put("a", "a.example").await;
    let hello = EdgeHello {
        pid: 8,
        is_standby: true,
        ..EdgeHello::default()
    };
    let mut standby = control.greeted(hello, 0, 0).await;
    standby.snapshot().await;
    let standing_by = Ack {
        apps: 1,
        is_standby: true,
    };
    standby.say(1, Body::Ack(standing_by)).await;
    let mut serving = control.connect("", 0, 0).await;
    serving.snapshot().await;
    serving.say(1, ack(1)).await;
    let soon = Duration::from_secs(10);
    assert!(control.fleet.wait_active(1, soon).await);
    let revision = control.put("b", "b.example").await;
    serving.hear().await;
    serving.say(revision, ack(2)).await;
    assert!(
        control.fleet.wait_active(revision, soon).await,
        "it alone counts"
    );
    assert!(matches!(standby.hear().await.body, Some(Body::Delta(_))));
    drop(serving);
    standby.say(revision, ack(2)).await;
    let taken_over = async {
        while control.fleet.edges().len() > 1 || !control.fleet.is_serving() {
            tokio::task::yield_now().await;
        }
    };
    timeout(soon, taken_over).await.expect("it takes over");
    assert_eq!(control.fleet.active_revision(), Some(revision));
}

#[tokio::test]
async fn an_edge_that_refuses_this_control_is_told_of_once() {
    let control = Control::new();
    let told = |kind: &str| {
        let events = control.fleet.events().latest(100);
        events.iter().filter(|event| event.kind == kind).count()
    };
    let gone = || control.fleet.edges().is_empty();
    for _ in 0..5 {
        drop(control.connect("another", 1, 3).await);
        while !gone() {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!((told("edge_connected"), told("edge_disconnected")), (1, 1));
    // It was restarted, say, and stays.
    let edge = control.connect("", 0, 0).await;
    let staying = async {
        while told("edge_connected") < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), staying).await.unwrap();
    drop(edge);
    while !gone() {
        tokio::task::yield_now().await;
    }
    let left = async {
        while told("edge_disconnected") < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), left).await.unwrap();
}

#[tokio::test]
async fn limits_come_first_and_at_once_to_pinned_edges_too() {
    let control = Control::new();
    let pinned = EdgeHello {
        is_pinned: true,
        ..EdgeHello::default()
    };
    let mut edge = control.greeted(pinned, 1, 0).await;
    let (first, names) = edge.limits().await;
    assert!(names.is_empty());
    let limit = LimitRecord {
        name: "stop".into(),
        concurrency: Some(0),
        ..LimitRecord::default()
    };
    control
        .registry
        .change(move |staging| staging.put_limit(&limit, &Condition::Always))
        .await
        .unwrap();
    let (second, names) = edge.limits().await;
    assert!(second > first);
    assert_eq!(names, ["stop"]);
    let version = control.registry.limits().version();
    assert_eq!(second, version);
    let soon = Duration::from_millis(50);
    assert!(!control.fleet.wait_limited(version, soon).await);
    edge.say(0, Body::LimitsHeld(LimitsHeld { version })).await;
    let long = Duration::from_secs(10);
    assert!(control.fleet.wait_limited(version, long).await);
}
