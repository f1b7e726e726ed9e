//! Open-loop clients: requests at set times, whatever became of the ones
//! before, each with an id of its own in its path.
//!
//! Owns the clients' threads and what each request met. Time is counted from
//! when a request was due, so that a stall is not hidden by the clients it
//! stalls (coordinated omission).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Answer, Client, Router, eventually, pause};

/// Clients that share the schedule: enough for a rate of a few hundred a second
/// of which some wait for a second.
const CLIENTS: usize = 32;

/// Requests going on; stopped by [`Load::stop`].
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Vec<Sent>>>,
}

struct Shared {
    address: SocketAddr,
    app: String,
    method: &'static str,
    per_second: u32,
    began: Instant,
    next: AtomicUsize,
    answered: AtomicUsize,
    stop: AtomicBool,
}

/// One request and what came of it.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Its path: unique in this load.
    pub path: String,
    /// When it was really sent.
    pub at: Instant,
    /// From when it was due to the end of its answer.
    pub took: Duration,
    /// The answer, or why there is none.
    pub result: Result<Answer, String>,
}

impl Sent {
    /// Answered with this status, whole.
    pub fn is(&self, status: u16) -> bool {
        matches!(&self.result, Ok(answer) if answer.status == status && answer.complete)
    }
}

impl Load {
    /// `GET`s to an app of [`Router::serve`], this many a second.
    pub fn gets(router: &Router, app: &str, per_second: u32) -> Load {
        Load::start(router, app, "GET", per_second)
    }

    /// `POST`s with a small body.
    pub fn posts(router: &Router, app: &str, per_second: u32) -> Load {
        Load::start(router, app, "POST", per_second)
    }

    fn start(router: &Router, app: &str, method: &'static str, per_second: u32) -> Load {
        let shared = Arc::new(Shared {
            address: router.http(),
            app: app.to_owned(),
            method,
            per_second,
            began: Instant::now(),
            next: AtomicUsize::new(0),
            answered: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let clients = (0..CLIENTS)
            .map(|_| {
                let shared = shared.clone();
                std::thread::spawn(move || shared.run())
            })
            .collect();
        Load { shared, clients }
    }

    /// Answered so far, whatever the answer.
    pub fn answered(&self) -> usize {
        self.shared.answered.load(Ordering::SeqCst)
    }

    /// Waits until this many more are answered.
    #[track_caller]
    pub fn wait(&self, more: usize) {
        let enough = self.answered() + more;
        eventually(&format!("{more} more requests are answered"), || {
            (self.answered() >= enough).then_some(())
        });
    }

    /// Ends it and gives every request that was sent, in order of sending.
    pub fn stop(mut self) -> Vec<Sent> {
        self.shared.stop.store(true, Ordering::SeqCst);
        let clients = std::mem::take(&mut self.clients);
        let mut sent: Vec<Sent> = clients
            .into_iter()
            .flat_map(|client| client.join().expect("a client must not panic"))
            .collect();
        sent.sort_by_key(|sent| sent.at);
        sent
    }

    /// As [`Load::stop`]; fails unless every request was answered 200.
    #[track_caller]
    pub fn stop_all_well(self) -> Vec<Sent> {
        let sent = self.stop();
        let failed: Vec<&Sent> = sent.iter().filter(|sent| !sent.is(200)).collect();
        assert!(
            failed.is_empty(),
            "{} of {} failed, the first: {:?}",
            failed.len(),
            sent.len(),
            failed[0]
        );
        assert!(!sent.is_empty(), "nothing was sent");
        sent
    }
}

/// A failing test must not leave its clients running.
impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    fn run(&self) -> Vec<Sent> {
        let mut sent = Vec::new();
        let mut kept = None;
        loop {
            let id = self.next.fetch_add(1, Ordering::SeqCst);
            let due = self.began + Duration::from_secs(1) * id as u32 / self.per_second;
            while let Some(left) = due.checked_duration_since(Instant::now()) {
                if self.stop.load(Ordering::SeqCst) {
                    return sent;
                }
                pause(left.min(Duration::from_millis(20)));
            }
            if self.stop.load(Ordering::SeqCst) {
                return sent;
            }
            let path = format!("/{}/{id}", self.method.to_lowercase());
            let at = Instant::now();
            let result = self.ask(&path, &mut kept);
            self.answered.fetch_add(1, Ordering::SeqCst);
            let took = due.elapsed();
            sent.push(Sent {
                path,
                at,
                took,
                result,
            });
        }
    }

    /// One request, on the kept connection if there is one.
    fn ask(&self, path: &str, kept: &mut Option<Client>) -> Result<Answer, String> {
        let mut client = match kept.take() {
            Some(client) => client,
            None => Client::try_connect(self.address).map_err(|error| error.to_string())?,
        };
        let body = if self.method == "GET" { "" } else { "body" };
        let length = match self.method {
            "GET" => String::new(),
            _ => format!("Content-Length: {}\r\n", body.len()),
        };
        let head = format!(
            "{} {path} HTTP/1.1\r\nHost: {}.example\r\n{length}\r\n{body}",
            self.method, self.app
        );
        if !client.try_send(head) {
            return Err("the router closed the connection".to_owned());
        }
        let answer = client
            .try_answer_to(self.method)
            .map_err(|error| error.to_string())?;
        if answer.complete && answer.header("connection") != Some("close") {
            *kept = Some(client);
        }
        Ok(answer)
    }
}
