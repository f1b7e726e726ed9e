//! Sockets: shared, spread over threads, moved, refused by name.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use super::sockets::Sockets;
use crate::heritage::{BACKLOG, Bequest, Footing};
use crate::settings::Settings;

fn settings(state_dir: &Path, overrides: &[&str]) -> Settings {
    let mut all = vec![
        format!("state_dir={}", state_dir.display()),
        "edge.http=127.0.0.1:0".to_owned(),
        "api.listen=127.0.0.1:0".to_owned(),
        "admin.listen=127.0.0.1:0".to_owned(),
        "edge.threads=2".to_owned(),
    ];
    all.extend(overrides.iter().map(ToString::to_string));
    Settings::load(None, &all).unwrap()
}

/// As the edge that has them, when it begins to serve.
fn open_doors(sockets: &Sockets) {
    let (_, descriptors) = sockets.for_edge(2, (Footing::Newest, true), None);
    for descriptor in descriptors {
        rustix::net::listen(descriptor, BACKLOG).unwrap();
    }
}

fn http_address(sockets: &Sockets) -> SocketAddr {
    sockets.addresses()["http"][0]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

fn layout(sockets: &Sockets, threads: usize) -> Vec<usize> {
    let (bequest, descriptors) = sockets.for_edge(threads, (Footing::Newest, true), None);
    let Bequest::Edge { listeners, .. } = bequest else {
        panic!("an edge's bequest");
    };
    let lent: usize = listeners.iter().map(Vec::len).sum();
    assert_eq!(lent, descriptors.len(), "every socket has a thread");
    listeners.iter().map(Vec::len).collect()
}

#[test]
fn one_port_has_a_socket_per_thread_even_when_the_system_picks_it() {
    let temp = tempfile::tempdir().unwrap();
    let sockets = Sockets::bind(&settings(temp.path(), &[]), false).unwrap();
    assert_eq!(layout(&sockets, 2), [1, 1]);
    TcpStream::connect(http_address(&sockets)).unwrap();
}

#[test]
fn more_threads_get_more_sockets_and_fewer_share_them() {
    let temp = tempfile::tempdir().unwrap();
    let mut sockets = Sockets::bind(&settings(temp.path(), &[]), false).unwrap();
    let address = http_address(&sockets);
    sockets
        .follow(&settings(temp.path(), &["edge.threads=3"]))
        .unwrap();
    assert_eq!(layout(&sockets, 3), [1, 1, 1]);
    assert_eq!(http_address(&sockets), address, "the port stays");
    sockets
        .follow(&settings(temp.path(), &["edge.threads=2"]))
        .unwrap();
    assert_eq!(
        layout(&sockets, 2),
        [2, 1],
        "no socket is left without a thread"
    );
}

/// How many of so many connections are accepted by the sockets of a two-thread
/// edge that was started before there were more.
fn reached(sockets: &Sockets, first_two: &[std::os::fd::OwnedFd], count: usize) -> usize {
    let address = http_address(sockets);
    let made: Vec<TcpStream> = (0..count)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let accepted = first_two
        .iter()
        .map(|socket| std::iter::from_fn(|| rustix::net::accept(socket).ok()).count());
    let accepted = accepted.sum();
    drop(made);
    accepted
}

#[test]
fn nobody_connects_to_a_socket_that_no_edge_accepts_from() {
    let temp = tempfile::tempdir().unwrap();
    let mut sockets = Sockets::bind(&settings(temp.path(), &[]), false).unwrap();
    sockets.lend(1);
    let (_, lent) = sockets.for_edge(2, (Footing::Newest, true), None);
    let first_two: Vec<_> = lent
        .into_iter()
        .map(|fd| fd.try_clone_to_owned().unwrap())
        .collect();
    let more = settings(temp.path(), &["edge.threads=8"]);
    sockets.follow(&more).unwrap();
    assert_eq!(reached(&sockets, &first_two, 64), 64, "bound is not open");
    // The edge that has them begins; then the older one takes over.
    sockets.lend(2);
    open_doors(&sockets);
    assert!(reached(&sockets, &first_two, 64) < 64);
    sockets.close_but_to(2);
    assert!(reached(&sockets, &first_two, 64) < 64, "it serves");
    sockets.close_but_to(1);
    assert_eq!(reached(&sockets, &first_two, 64), 64);
    // And the next one opens them again.
    open_doors(&sockets);
    assert!(reached(&sockets, &first_two, 64) < 64);
}

#[test]
fn new_settings_bind_what_appears_and_close_what_is_gone() {
    let temp = tempfile::tempdir().unwrap();
    let mut sockets = Sockets::bind(&settings(temp.path(), &[]), false).unwrap();
    let (old, old_api) = (http_address(&sockets), sockets.addresses()["api"].clone());
    let moved = ["edge.http=[\"127.0.0.2:0\"]", "api.listen=127.0.0.2:0"];
    sockets.follow(&settings(temp.path(), &moved)).unwrap();
    assert!(TcpStream::connect(old).is_err());
    let new = http_address(&sockets);
    assert!(TcpStream::connect(new).is_err(), "nobody accepts there yet");
    open_doors(&sockets);
    TcpStream::connect(new).unwrap();
    assert_ne!(sockets.addresses()["api"], old_api);
}

#[test]
fn a_port_in_use_is_named_with_its_key_and_changes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let mut sockets = Sockets::bind(&settings(temp.path(), &[]), false).unwrap();
    let before = sockets.addresses();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for key in ["edge.http", "api.listen", "admin.listen"] {
        let wanted = settings(temp.path(), &[&format!("{key}={address}")]);
        let error = sockets.follow(&wanted).unwrap_err().to_string();
        assert!(
            error.contains(key) && error.contains(&address.to_string()),
            "{error}"
        );
        assert!(error.contains("in use"), "{error}");
    }
    assert_eq!(sockets.addresses(), before);
    TcpStream::connect(http_address(&sockets)).unwrap();
}

#[test]
fn two_routers_do_not_share_a_port_silently() {
    let temp = tempfile::tempdir().unwrap();
    let first = Sockets::bind(&settings(temp.path(), &[]), false).unwrap();
    let address = http_address(&first);
    let other = tempfile::tempdir().unwrap();
    let same = settings(other.path(), &[&format!("edge.http={address}")]);
    let error = Sockets::bind(&same, false).unwrap_err().to_string();
    assert!(
        error.contains("edge.http") && error.contains("in use"),
        "{error}"
    );
}

#[test]
fn a_stale_feed_socket_is_replaced_and_a_served_one_is_not() {
    let temp = tempfile::tempdir().unwrap();
    let wanted = settings(temp.path(), &[]);
    drop(Sockets::bind(&wanted, false).unwrap());
    assert!(wanted.feed_path().exists());
    let serving = Sockets::bind(&wanted, false).unwrap();
    let error = Sockets::bind(&wanted, false).unwrap_err().to_string();
    assert!(
        error.contains("feed.sock") && error.contains("in use"),
        "{error}"
    );
    drop(serving);
}
