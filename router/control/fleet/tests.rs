//! Who counts for what is active, and for how long.

use super::*;

fn fleet() -> Arc<Fleet> {
    Arc::new(Fleet::new(Arc::default(), Arc::default()))
}

fn ack(is_standby: bool) -> Ack {
    Ack {
        apps: 1,
        is_standby,
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_an_edge_that_stands_by_or_is_pinned() {
    let fleet = fleet();
    let standby = EdgeHello {
        is_standby: true,
        ..EdgeHello::default()
    };
    let pinned = EdgeHello {
        is_pinned: true,
        ..EdgeHello::default()
    };
    let (standby, _asks) = fleet.admit(&standby, Some(1));
    let (_pinned, _asks) = fleet.admit(&pinned, Some(1));
    assert!(!fleet.is_serving(), "neither of them serves by control");
    let (serving, _asks) = fleet.admit(&EdgeHello::default(), Some(5));
    assert_eq!(fleet.active_revision(), Some(5));
    standby.acked(2, &ack(true));
    assert_eq!(fleet.active_revision(), Some(5));
    serving.acked(6, &ack(false));
    assert!(fleet.wait_active(6, Duration::from_secs(1)).await);
    let states: Vec<_> = fleet.edges().iter().map(EdgeStatus::state).collect();
    assert_eq!(states, ["standby", "pinned", "serving"]);
    // Healthy, it is waited for a moment, and then no longer.
    let since = tokio::time::Instant::now();
    assert!(fleet.wait_active(6, Duration::from_secs(1)).await);
    assert_eq!(since.elapsed(), STANDBY_MOMENT);
    standby.acked(6, &ack(true));
    assert!(fleet.wait_active(6, Duration::from_secs(1)).await);
    assert_eq!(since.elapsed(), STANDBY_MOMENT);
    // From now on it serves, and counts.
    standby.acked(2, &ack(false));
    assert_eq!(fleet.active_revision(), Some(2));
    assert_eq!(fleet.events.latest(1)[0].kind, "edge_serves");
}

fn edge_row(pid: u32, state: ProcessState) -> ProcessStatus {
    ProcessStatus {
        role: Role::Edge,
        pid,
        state,
        started_at_ms: 0,
        restarts: 0,
        last_exit: None,
        open_descriptors: None,
        upgrade: None,
        obituaries: Vec::new(),
    }
}

#[test]
fn an_edge_that_carries_traffic_and_is_not_connected_is_waited_for() {
    let fleet = fleet();
    let hello = |pid| EdgeHello {
        pid,
        ..EdgeHello::default()
    };
    let serving = edge_row(7, ProcessState::Ready);
    let leaving = edge_row(6, ProcessState::Draining);
    let loading = edge_row(8, ProcessState::Starting);
    let waiting = edge_row(0, ProcessState::Waiting);
    let table = [serving.clone(), leaving, loading, waiting];
    fleet.told_of(&table);
    let (_serving, _asks) = fleet.admit(&hello(7), Some(5));
    assert_eq!((fleet.active_revision(), fleet.missing()), (None, vec![6]));
    let (left, _asks) = fleet.admit(&hello(6), Some(4));
    assert_eq!(fleet.active_revision(), Some(4));
    // Cut off, it may route by anything; with its last word said, by nothing.
    drop(left);
    assert_eq!(fleet.active_revision(), None);
    let (left, _asks) = fleet.admit(&hello(6), Some(4));
    left.reported(&Report::default());
    drop(left);
    fleet.told_of(&table);
    assert_eq!(fleet.active_revision(), Some(5));
    fleet.told_of(&[serving]);
    assert!(fleet.roster().finished.is_empty());
}

#[test]
fn a_revision_is_timed_until_the_last_serving_edge_has_it() {
    let fleet = fleet();
    let timed = || fleet.propagation.activations().buckets.iter().sum::<u64>();
    let (first, _asks) = fleet.admit(&EdgeHello::default(), Some(0));
    let (second, _asks) = fleet.admit(&EdgeHello::default(), Some(0));
    fleet
        .propagation
        .durable(1, 4, Instant::now(), std::iter::empty());
    first.acked(4, &ack(false));
    assert_eq!(timed(), 0);
    second.acked(3, &ack(false));
    assert_eq!(timed(), 3);
    // An edge that goes is waited for no longer.
    drop(second);
    assert_eq!(timed(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_revision_is_active_when_the_slowest_edge_has_it() {
    let fleet = fleet();
    assert_eq!(fleet.active_revision(), None);
    assert!(
        !fleet.wait_active(0, Duration::from_secs(1)).await,
        "no edge, nothing active"
    );
    let (first, _asks) = fleet.admit(&EdgeHello::default(), Some(4));
    let (second, _asks) = fleet.admit(&EdgeHello::default(), None);
    assert!(!fleet.is_serving());
    second.acked(7, &ack(false));
    assert_eq!(fleet.active_revision(), Some(4));
    let waiting = tokio::spawn({
        let fleet = fleet.clone();
        async move { fleet.wait_active(7, Duration::from_secs(5)).await }
    });
    tokio::task::yield_now().await;
    first.acked(8, &ack(false));
    assert!(waiting.await.unwrap());
    drop(first);
    assert_eq!(fleet.edges().len(), 1);
}
