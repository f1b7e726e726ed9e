//! An edge that stands by, one that is pinned, and what each says of itself.

use super::*;
use crate::feed::messages::Ack;

impl Control {
    /// The next acknowledgement: revision, and whether the edge stands by.
    fn hear_standing(&mut self) -> (u64, bool) {
        let envelope = self.hear();
        match envelope.body {
            Some(Body::Ack(Ack { is_standby, .. })) => (envelope.revision, is_standby),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_edge_that_stands_by_follows_and_says_at_once_that_it_serves() {
    let stage = Stage::set(Some(9));
    stage.ready.recv_timeout(PATIENCE).unwrap();
    let (mut control, _, hello) = stage.greet();
    assert!(hello.is_standby && !hello.is_pinned);
    control.say(EPOCH, 11, delta(9, 11, vec![app("new")]));
    assert_eq!(control.hear_standing(), (11, true));
    stage.sync.as_ref().unwrap().serves();
    assert_eq!(control.hear_standing(), (11, false));
    control.say(EPOCH, 12, delta(11, 12, vec![app("newer")]));
    assert_eq!(control.hear_standing(), (12, false));
    drop(control);
    let (_control, envelope, hello) = stage.greet();
    assert_eq!((envelope.revision, hello.is_standby), (12, false));
}

#[test]
fn a_table_behind_controls_is_not_the_newest_until_it_followed() {
    let stage = Stage::set(Some(9));
    let told = || stage.current.recv_timeout(PATIENCE).unwrap();
    assert!(!told());
    let mut control = stage.accept();
    control.hear();
    control.say(EPOCH, 11, hello_of(CLUSTER));
    control.collect("");
    assert!(stage.current.try_recv().is_err());
    control.say(EPOCH, 11, delta(9, 11, vec![app("new")]));
    assert!(told());
    assert!(stage.routes("new.example"));
}

#[test]
fn without_a_control_the_table_on_disk_is_the_newest() {
    let stage = Stage::set(Some(9));
    let told = || stage.current.recv_timeout(PATIENCE).unwrap();
    assert!(!told());
    drop(stage.accept());
    assert!(told());
    assert!(stage.current.try_recv().is_err());
}

#[test]
fn the_word_to_serve_is_not_lost_between_two_hellos() {
    let stage = Stage::set(Some(9));
    stage.ready.recv_timeout(PATIENCE).unwrap();
    let mut control = stage.accept();
    let Some(Body::EdgeHello(hello)) = control.hear().body else {
        panic!("the edge must begin with a hello");
    };
    assert!(hello.is_standby);
    // Said while control's hello is on its way.
    stage.sync.as_ref().unwrap().serves();
    control.say(EPOCH, 9, hello_of(CLUSTER));
    assert_eq!(control.hear_standing(), (9, false));
}

#[test]
fn what_is_not_exactly_a_revision_is_not_told_as_one() {
    let stage = Stage::set(None);
    let (mut control, ..) = stage.greet();
    stage.sync.as_ref().unwrap().serves();
    assert_eq!(control.hear_standing(), (0, false));
    control.say(EPOCH, 3, snapshot(true, true, vec![app("one")]));
    assert_eq!(control.hear_standing(), (3, false));
}

#[test]
fn a_pinned_edge_boots_from_the_table_that_ran_well_and_stays_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let table_dir = folder.path().join("table");
    write_table(&table_dir, 5);
    let proven = table_dir.join(crate::feed::proven::FILE);
    std::fs::rename(table_dir.join("snapshot"), proven).unwrap();
    write_table(&table_dir, 9);
    let stage = Stage::on(folder, Footing::Proven);
    stage.ready.recv_timeout(PATIENCE).unwrap();
    assert!(stage.routes("disk.example") && !stage.routes("journal.example"));
    let (mut control, envelope, hello) = stage.greet();
    assert!(hello.is_pinned);
    assert_eq!((envelope.revision, hello.cluster_id.as_str()), (4, CLUSTER));
    let Some(Body::Event(event)) = control.hear().body else {
        panic!("it must say that it is pinned");
    };
    assert_eq!(event.kind, "edge_pinned");
    assert!(event.text.contains("revision 4"), "{}", event.text);
    // Neither changes anything, nor is answered.
    control.say(EPOCH, 10, delta(4, 10, vec![app("new")]));
    control.say(EPOCH, 10, snapshot(true, true, vec![app("new")]));
    let report = control.collect("");
    assert_eq!(counted(&report, "portico_table_pinned", ""), 1.0);
    assert_eq!(counted(&report, "portico_table_revision", ""), 4.0);
    assert!(stage.routes("disk.example") && !stage.routes("new.example"));
}

#[test]
fn an_edge_that_was_to_be_pinned_and_has_no_table_takes_controls() {
    let stage = Stage::on(tempfile::tempdir().unwrap(), Footing::Proven);
    let (mut control, _, hello) = stage.greet();
    assert!(!hello.is_pinned);
    control.say(EPOCH, 3, snapshot(true, true, vec![app("one")]));
    assert_eq!(control.hear_ack(), 3);
    assert!(stage.routes("one.example"));
}

#[test]
fn what_memory_goes_to_is_told_where_asked() {
    let stage = Stage::set(Some(9));
    stage.ready.recv_timeout(PATIENCE).unwrap();
    let (mut control, ..) = stage.greet();
    assert!(control.collect("").memory.is_empty());
    let collect = Collect {
        id: 5,
        memory: true,
        ..Collect::default()
    };
    control.say(EPOCH, 0, Body::Collect(collect));
    let Some(Body::Report(report)) = control.hear().body else {
        panic!("a report must come");
    };
    assert_eq!(report.id, 5);
    assert!(!report.samples.is_empty());
    let bytes = |name: &str| {
        let part = report.memory.iter().find(|part| part.part == name);
        part.unwrap_or_else(|| panic!("no {name}: {:?}", report.memory))
            .bytes
    };
    assert!(bytes("apps") > 0 && bytes("routes") > 0 && bytes("backends") > 0);
    assert!(bytes("resident") > bytes("apps"));
}

#[test]
fn its_last_word_is_what_it_counted() {
    let mut stage = Stage::set(Some(9));
    stage.ready.recv_timeout(PATIENCE).unwrap();
    let (mut control, ..) = stage.greet();
    // A message later than the link: it is there.
    control.collect("");
    let found = stage.table.app("disk").unwrap();
    found.live().cells[0].begin();
    found.live().cells[0].answered(200, None, 10, 5);
    stage.sync.take().unwrap().stop();
    let Some(Body::Report(report)) = control.hear().body else {
        panic!("it must tell what it counted");
    };
    assert_eq!((report.id, report.apps[0].requests()), (0, 1));
    control.hear_end();
}
