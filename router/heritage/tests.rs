//! The lifeline's conversation, and wills that must be refused.

use std::sync::mpsc::sync_channel;

use super::*;

fn hear(tether: &Tether) -> Heard {
    loop {
        match tether.hear() {
            Heard::Quiet => std::thread::yield_now(),
            heard => return heard,
        }
    }
}

#[test]
fn a_child_reports_answers_obeys_and_notices_that_it_is_alone() {
    let (tether, lifeline) = Lifeline::pair().unwrap();
    let (tell, told) = sync_channel(8);
    let keeper = lifeline.clone();
    let serving = std::thread::spawn(move || {
        keeper.serve(|| true, |order| tell.send(order).unwrap());
    });
    lifeline.ready();
    assert_eq!(hear(&tether), Heard::Report(Report::Ready));
    assert!(tether.ping(7));
    assert_eq!(hear(&tether), Heard::Report(Report::Pong(7)));
    let row = ProcessStatus {
        role: Role::Edge,
        pid: 1,
        state: ProcessState::Ready,
        started_at_ms: 2,
        restarts: 3,
        last_exit: None,
        open_descriptors: None,
        upgrade: None,
        obituaries: Vec::new(),
    };
    let processes = Order::Processes(vec![row]);
    for order in [
        Order::Serve,
        Order::HandOver,
        Order::Reopen(None),
        Order::Drain,
        processes,
    ] {
        assert!(tether.order(order.clone()));
        assert_eq!(told.recv().unwrap(), order);
    }
    drop(tether);
    assert_eq!(told.recv().unwrap(), Order::Orphaned);
    serving.join().unwrap();
}

#[test]
fn an_open_file_goes_down_the_lifeline() {
    use std::io::{Read, Seek, Write};
    let (tether, lifeline) = Lifeline::pair().unwrap();
    let (tell, told) = sync_channel(8);
    let serving = std::thread::spawn(move || {
        lifeline.serve(|| true, |order| tell.send(order).unwrap());
    });
    let mut file = tempfile::tempfile().unwrap();
    let parcel = Parcel::from(file.try_clone().unwrap());
    assert!(tether.order(Order::Reopen(Some(parcel))));
    let Order::Reopen(Some(parcel)) = told.recv().unwrap() else {
        panic!("the file was lost");
    };
    let below = std::sync::Arc::<File>::from(parcel);
    (&*below).write_all(b"from below").unwrap();
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "from below");
    drop(tether);
    serving.join().unwrap();
}

#[test]
fn a_child_that_is_stuck_does_not_answer() {
    let (tether, lifeline) = Lifeline::pair().unwrap();
    let (tell, told) = sync_channel(8);
    let serving = std::thread::spawn(move || {
        lifeline.serve(|| false, |order| tell.send(order).unwrap());
    });
    assert!(tether.ping(1));
    assert!(tether.order(Order::Reopen(None)));
    assert_eq!(
        told.recv().unwrap(),
        Order::Reopen(None),
        "the ping before it was read"
    );
    assert_eq!(tether.hear(), Heard::Quiet);
    drop(tether);
    serving.join().unwrap();
}

#[test]
fn a_dead_child_shows_and_sending_to_it_ends_nothing() {
    let (tether, lifeline) = Lifeline::pair().unwrap();
    drop(lifeline);
    assert_eq!(tether.hear(), Heard::Closed);
    assert!(!tether.ping(1));
}

#[test]
fn nonsense_is_heard_one_piece_at_a_time() {
    let (above, below) = pair().unwrap();
    let nonsense: [&[u8]; 3] = [b"{", b"\xff\xfe", b"{\"version\":9,\"say\":\"ready\"}"];
    for piece in nonsense {
        rustix::net::send(&below, piece, rustix::net::SendFlags::empty()).unwrap();
    }
    for _ in nonsense {
        assert_eq!(above.hear(), Heard::Unknown);
    }
    assert_eq!(above.hear(), Heard::Quiet);
}

#[test]
fn a_child_that_does_not_read_blocks_nobody() {
    let (tether, lifeline) = Lifeline::pair().unwrap();
    let filled = (0..1_000_000).any(|number| !tether.ping(number));
    assert!(filled, "the lifeline is bounded");
    drop(lifeline);
}

#[test]
fn a_will_is_read_back_as_written() {
    let bequest = Bequest::Edge {
        listeners: vec![vec![5, 6], vec![7]],
        log: Some(8),
        footing: Footing::Proven,
        is_awaited: true,
    };
    let will = Will::new(Settings::default(), (3, 4), bequest);
    let again: Will = serde_json::from_str(&will.to_json()).unwrap();
    assert_eq!(again.descriptors(), [3, 4, 5, 6, 7, 8]);
    assert_eq!(again.settings, Settings::default());
    assert_eq!(again.supervisor_pid, std::process::id());
}

#[test]
fn a_will_meant_for_another_process_is_refused() {
    let bequest = Bequest::Control {
        api: 5,
        admin: 6,
        feed: 7,
    };
    let mine = Will::new(Settings::default(), (3, 4), bequest);
    // This process is not its own child.
    let refused = claim_from(&mine.to_json()).unwrap_err().to_string();
    assert!(refused.contains("not meant for this process"), "{refused}");
    let refused = claim_from("{}").unwrap_err().to_string();
    assert!(refused.contains("does not hold a heritage"), "{refused}");
    let other = mine.to_json().replace("\"version\":1", "\"version\":2");
    let refused = claim_from(&other).unwrap_err().to_string();
    assert!(refused.contains("version 2"), "{refused}");
}
