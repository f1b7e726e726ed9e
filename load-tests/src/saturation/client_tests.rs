//! The client against servers that answer, refuse, or are not there.

use super::*;
use std::net::TcpListener;
use std::thread;

/// Answers the requests of all connections together by `answers`, in turn.
fn answering(answers: fn(usize) -> &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut chunk = [0_u8; 1024];
        let mut number = 0;
        while stream.read(&mut chunk).is_ok_and(|read| read > 0) {
            if stream.write_all(answers(number)).is_err() {
                return;
            }
            number += 1;
        }
    });
    address
}

fn load(address: SocketAddr) -> Load {
    Load {
        address,
        request: b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        shape: Shape::steady(20.0, 200),
        start_us: now_us() + 10_000,
        deadline_us: 40_000,
        together_us: 0,
        connections_first: 1,
        core: None,
    }
}

fn ends(load: &Load) -> Vec<End> {
    let client = Client::new(load).unwrap();
    let exchanges = client.run(&AtomicBool::new(false)).unwrap();
    exchanges.iter().map(|one| one.end).collect()
}

#[test]
fn refused_requests_keep_their_connection_and_are_told_apart() {
    let address = answering(|number| match number {
        1 => b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno",
        3 => b"", // none: the client leaves
        _ => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    });
    assert_eq!(
        ends(&load(address)),
        [
            End::Answered,
            End::Status(503),
            End::Answered,
            End::Deadline
        ]
    );
}

#[test]
fn nobody_listening_is_not_connected() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    assert_eq!(ends(&load(address)), [End::NotConnected; 4]);
}

#[test]
fn keys_come_back() {
    assert_eq!(unkeyed(keyed(7, u32::MAX)), (7, u32::MAX));
}
