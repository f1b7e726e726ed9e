//! The feed's thread against a control played by the test, over a real socket.

mod shrink;

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc;
use std::time::Instant;

use super::*;
use crate::feed::codec;
use crate::feed::journal::Journal;
use crate::feed::messages::{
    AppRecord, BackendRecord, Body, Change, Collect, Delta, EdgeHello, Envelope, Hello, Op, Report,
    Snapshot,
};
use crate::feed::snapshot::{Head, SnapshotWriter};

const PATIENCE: Duration = Duration::from_secs(10);
const CLUSTER: &str = "here";
const EPOCH: u64 = 5;

fn app(name: &str) -> AppRecord {
    AppRecord {
        name: name.to_owned(),
        domains: vec![format!("{name}.example")],
        backends: vec![BackendRecord {
            id: "web.1".to_owned(),
            address: "127.0.0.1:9001".to_owned(),
            weight: 1,
            ..BackendRecord::default()
        }],
        ..AppRecord::default()
    }
}

fn delta(from: u64, to: u64, records: Vec<AppRecord>) -> Body {
    let ops = records.into_iter().map(|record| Op {
        change: Some(Change::Put(record)),
    });
    Body::Delta(Delta {
        from,
        to,
        ops: ops.collect(),
        committed_at_ms: 0,
        ..Delta::default()
    })
}

fn snapshot(first: bool, last: bool, apps: Vec<AppRecord>) -> Body {
    Body::Snapshot(Snapshot {
        apps,
        first,
        last,
        ..Snapshot::default()
    })
}

/// An edge's feed, and the test in control's place.
struct Stage {
    /// Removed with the stage.
    _folder: tempfile::TempDir,
    listener: UnixListener,
    table: Arc<Table>,
    ready: mpsc::Receiver<()>,
    /// Whether the table was the newest there is, each time that was told.
    current: mpsc::Receiver<bool>,
    events: EventSender,
    sync: Option<SyncHandle>,
}

impl Stage {
    /// With a table on disk as of `revision`, or none.
    fn set(on_disk: Option<u64>) -> Stage {
        let folder = tempfile::tempdir().unwrap();
        let table_dir = folder.path().join("table");
        if let Some(revision) = on_disk {
            write_table(&table_dir, revision);
        }
        Stage::over(folder)
    }

    /// With whatever is in the folder.
    fn over(folder: tempfile::TempDir) -> Stage {
        Stage::on(folder, Footing::Newest)
    }

    /// The same, on this footing.
    fn on(folder: tempfile::TempDir, footing: Footing) -> Stage {
        let table_dir = folder.path().join("table");
        let feed_path = folder.path().join("feed.sock");
        let listener = UnixListener::bind(&feed_path).unwrap();
        let table = Arc::new(Table::new(1));
        let (held, ready) = mpsc::sync_channel(1);
        let (told, current) = mpsc::sync_channel(10);
        let (events, queue) = event_queue();
        let sync = Sync::start(SyncInputs {
            table: Arc::clone(&table),
            cells: vec![Arc::default()],
            prober_cells: Arc::default(),
            holdings: Arc::from([Holdings::default()]),
            footing,
            is_awaited: true,
            log: None,
            origin: Instant::now(),
            events: (events.clone(), queue),
            feed_path,
            table_dir,
            ready: Box::new(move |is_current| {
                let _ = told.try_send(is_current);
                let _ = held.try_send(());
            }),
        });
        Stage {
            _folder: folder,
            listener,
            table,
            ready,
            current,
            events,
            sync: Some(sync),
        }
    }

    fn accept(&self) -> Control {
        self.listener.set_nonblocking(true).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            match self.listener.accept() {
                Ok((stream, _)) => break stream,
                Err(_) => assert!(Instant::now() < deadline, "the edge must connect"),
            }
            std::thread::yield_now();
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Control { stream }
    }

    /// Accepts and says hello; what the edge said of itself.
    fn greet(&self) -> (Control, Envelope, EdgeHello) {
        let mut control = self.accept();
        let envelope = control.hear();
        let Some(Body::EdgeHello(hello)) = envelope.body.clone() else {
            panic!("the edge must begin with a hello: {envelope:?}");
        };
        control.say(EPOCH, 0, hello_of(CLUSTER));
        (control, envelope, hello)
    }

    fn routes(&self, host: &str) -> bool {
        self.table.route(host.as_bytes(), b"/").is_some()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(sync) = self.sync.take() {
            sync.stop();
        }
    }
}

fn hello_of(cluster_id: &str) -> Body {
    Body::Hello(Hello {
        cluster_id: cluster_id.to_owned(),
    })
}

/// A snapshot one revision behind, and a journal for the rest.
fn write_table(folder: &Path, revision: u64) {
    let head = Head {
        cluster_id: CLUSTER.to_owned(),
        epoch: EPOCH,
        revision: revision - 1,
    };
    let mut writer = SnapshotWriter::create(folder, &head).unwrap();
    writer.push(&app("disk")).unwrap();
    writer.finish().unwrap();
    let mut journal = Journal::begin(folder, &head).unwrap();
    let Body::Delta(delta) = delta(revision - 1, revision, vec![app("journal")]) else {
        unreachable!("it was just made");
    };
    journal.append(&delta).unwrap();
}

struct Control {
    stream: UnixStream,
}

impl Control {
    fn hear(&mut self) -> Envelope {
        codec::read(&mut self.stream).unwrap()
    }

    fn say(&mut self, epoch: u64, revision: u64, body: Body) {
        codec::write(&mut self.stream, &Envelope::new(epoch, revision, body)).unwrap();
    }

    fn hear_ack(&mut self) -> u64 {
        let envelope = self.hear();
        assert!(matches!(envelope.body, Some(Body::Ack(_))), "{envelope:?}");
        envelope.revision
    }

    fn hear_nack(&mut self) -> String {
        match self.hear().body {
            Some(Body::Nack(nack)) => nack.key,
            other => panic!("{other:?}"),
        }
    }

    fn collect(&mut self, app: &str) -> Report {
        let collect = Collect {
            id: 77,
            app: app.to_owned(),
            top: 10,
            ..Collect::default()
        };
        self.say(EPOCH, 0, Body::Collect(collect));
        match self.hear().body {
            Some(Body::Report(report)) if report.id == 77 => report,
            other => panic!("{other:?}"),
        }
    }

    /// Waits for the edge to close the connection.
    fn hear_end(mut self) {
        while codec::read(&mut self.stream).is_ok() {}
    }
}

fn counted(report: &Report, name: &str, label: &str) -> f64 {
    let is_it = |s: &&crate::feed::messages::Sample| {
        s.name == name && (label.is_empty() || s.labels.iter().any(|l| l == label))
    };
    report.samples.iter().find(is_it).map_or(-1.0, |s| s.value)
}

#[test]
fn it_serves_from_disk_and_follows_from_there() {
    let stage = Stage::set(Some(9));
    stage.ready.recv_timeout(PATIENCE).unwrap();
    assert!(stage.routes("disk.example") && stage.routes("journal.example"));
    let (mut control, envelope, hello) = stage.greet();
    assert_eq!((envelope.epoch, envelope.revision), (EPOCH, 9));
    assert_eq!((hello.cluster_id.as_str(), hello.threads), (CLUSTER, 1));
    assert_eq!(hello.pid, std::process::id());
    let mut bad = app("bad");
    bad.backends[0].address = "nowhere".to_owned();
    control.say(EPOCH, 11, delta(9, 11, vec![app("new"), bad]));
    assert_eq!(control.hear_nack(), "bad");
    assert_eq!(control.hear_ack(), 11);
    assert!(stage.routes("new.example") && stage.routes("disk.example"));
}

#[test]
fn without_a_table_it_is_ready_only_with_controls_first_whole_one() {
    let stage = Stage::set(None);
    let (mut control, envelope, hello) = stage.greet();
    assert_eq!((envelope.revision, hello.cluster_id.as_str()), (0, ""));
    control.say(EPOCH, 3, snapshot(true, false, vec![app("one")]));
    control.say(EPOCH, 3, Body::Beat(crate::feed::messages::Beat {}));
    assert!(control.collect("one").apps.is_empty());
    assert!(stage.ready.try_recv().is_err() && !stage.routes("one.example"));
    control.say(EPOCH, 3, snapshot(false, true, vec![app("two")]));
    assert_eq!(control.hear_ack(), 3);
    stage.ready.recv_timeout(PATIENCE).unwrap();
    assert!(stage.routes("one.example") && stage.routes("two.example"));
}

#[test]
fn a_gap_makes_it_ask_for_the_whole_table() {
    let stage = Stage::set(Some(9));
    let (mut control, ..) = stage.greet();
    control.say(EPOCH, 12, delta(11, 12, vec![app("unseen")]));
    control.hear_end();
    assert!(stage.routes("disk.example") && !stage.routes("unseen.example"));
    let (mut control, envelope, hello) = stage.greet();
    assert_eq!((envelope.revision, hello.cluster_id.as_str()), (0, ""));
    control.say(EPOCH, 12, snapshot(true, true, vec![app("unseen")]));
    assert_eq!(control.hear_ack(), 12);
    assert!(!stage.routes("disk.example") && stage.routes("unseen.example"));
    let report = control.collect("");
    assert_eq!(counted(&report, "portico_feed_refused_total", "gap"), 1.0);
    assert_eq!(counted(&report, "portico_feed_connects_total", ""), 2.0);
    assert_eq!(counted(&report, "portico_table_revision", ""), 12.0);
}

#[test]
fn a_control_that_dies_half_way_changes_nothing() {
    let stage = Stage::set(Some(9));
    let (mut control, ..) = stage.greet();
    control.say(EPOCH, 12, snapshot(true, false, vec![app("half")]));
    drop(control);
    let (_control, envelope, _) = stage.greet();
    assert_eq!(envelope.revision, 9);
    assert!(stage.routes("disk.example") && !stage.routes("half.example"));
}

#[test]
fn no_control_may_withdraw_the_table_held() {
    let stage = Stage::set(Some(9));
    stage.ready.recv_timeout(PATIENCE).unwrap();
    let nothing = || snapshot(true, true, Vec::new());
    // Of another installation.
    let mut control = stage.accept();
    control.say(EPOCH, 100, hello_of("elsewhere"));
    let _ = codec::write(&mut control.stream, &Envelope::new(EPOCH, 100, nothing()));
    control.hear_end();
    // Of an older epoch.
    let mut control = stage.accept();
    control.say(EPOCH - 1, 100, hello_of(CLUSTER));
    control.hear_end();
    // Of a later version.
    let mut control = stage.accept();
    let mut strange = Envelope::new(EPOCH, 100, hello_of(CLUSTER));
    strange.version = 2;
    codec::write(&mut control.stream, &strange).unwrap();
    control.hear_end();
    // With an older table.
    let (mut control, ..) = stage.greet();
    control.say(EPOCH, 8, nothing());
    control.hear_end();
    // Speaking no feed at all.
    let mut control = stage.accept();
    let _ = std::io::Write::write_all(&mut control.stream, b"HTTP/1.1 400 Bad Request\r\n\r\n");
    control.hear_end();
    // Gone.
    drop(stage.accept());
    assert!(stage.routes("disk.example") && stage.routes("journal.example"));
    let (mut control, envelope, _) = stage.greet();
    assert_eq!(envelope.revision, 9);
    let report = control.collect("");
    for (reason, times) in [("cluster", 1.0), ("older", 2.0), ("version", 1.0)] {
        let name = "portico_feed_refused_total";
        assert_eq!(counted(&report, name, reason), times, "{reason}");
    }
}

#[test]
fn a_damaged_table_is_served_and_a_whole_one_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let table_dir = folder.path().join("table");
    write_table(&table_dir, 9);
    let path = table_dir.join("snapshot");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(4).position(|four| four == b"disk").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let stage = Stage::over(folder);
    stage.ready.recv_timeout(PATIENCE).unwrap();
    assert!(stage.routes("journal.example") && !stage.routes("disk.example"));
    let (_control, envelope, hello) = stage.greet();
    assert_eq!((envelope.revision, hello.cluster_id.as_str()), (0, ""));
}

#[test]
fn it_reports_an_app_by_name_and_posts_events_over_a_reconnect() {
    let stage = Stage::set(Some(9));
    stage.ready.recv_timeout(PATIENCE).unwrap();
    let events = stage.events.clone();
    events.post("test", "disk", "web.1", "first".to_owned());
    let (mut control, ..) = stage.greet();
    let Some(Body::Event(event)) = control.hear().body else {
        panic!("the event posted before there was a link must come");
    };
    assert_eq!((event.app.as_str(), event.text.as_str()), ("disk", "first"));
    assert!(event.at_ms > 0);
    let found = stage.table.app("disk").unwrap();
    found.live().cells[0].begin();
    found.live().cells[0].answered(200, None, 10, 5);
    let report = control.collect("disk");
    assert_eq!(report.apps.len(), 1);
    assert_eq!(report.apps[0].requests(), 1);
    assert_eq!(report.apps[0].backends[0].id, "web.1");
    assert_eq!(control.collect("").apps.len(), 1);
    drop(control);
    events.post("test", "", "", "second".to_owned());
    let (mut control, ..) = stage.greet();
    let Some(Body::Event(event)) = control.hear().body else {
        panic!("the event must come on the next link");
    };
    assert_eq!(event.text, "second");
}

#[test]
fn events_beyond_the_queue_are_dropped_and_counted() {
    let stage = Stage::set(Some(9));
    stage.ready.recv_timeout(PATIENCE).unwrap();
    let events = stage.events.clone();
    for n in 0..3_000 {
        events.post("test", "", "", n.to_string());
    }
    let (mut control, ..) = stage.greet();
    // The queue's thousand, and one the pump held: then the answer.
    control.say(
        EPOCH,
        0,
        Body::Collect(Collect {
            id: 1,
            ..Collect::default()
        }),
    );
    let mut came = 0.0;
    let report = loop {
        match control.hear().body {
            Some(Body::Event(_)) => came += 1.0,
            Some(Body::Report(report)) => break report,
            other => panic!("{other:?}"),
        }
    };
    let dropped = counted(&report, "portico_edge_events_dropped_total", "");
    assert!((1_900.0..=2_000.0).contains(&dropped), "{dropped}");
    assert!(came <= 1_100.0);
}

mod standing;
