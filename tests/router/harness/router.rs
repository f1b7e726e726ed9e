//! A running router: started, registered with, looked at, ended.
//!
//! Owns the state folder and the process tree; both are gone when it is
//! dropped, also by a failing test, which then shows the router's last words.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::logs::{self, Fields};
use super::{Answer, Backend, Client, Setup, eventually, processes};

/// The program under test.
pub const PORTICO: &str = env!("CARGO_BIN_EXE_portico");

/// A running router.
pub struct Router {
    setup: Option<Setup>,
    child: Child,
    http: Vec<SocketAddr>,
    api: SocketAddr,
    admin: SocketAddr,
}

impl Router {
    /// A ready router with the harness's settings.
    #[track_caller]
    pub fn start() -> Router {
        Setup::new().start()
    }

    /// A ready router with these `--set`s.
    #[track_caller]
    pub fn with(settings: &[&str]) -> Router {
        settings
            .iter()
            .fold(Setup::new(), |setup, setting| setup.set(setting))
            .start()
    }

    /// Takes charge of a router just launched; waits for its addresses.
    #[track_caller]
    pub fn launched(setup: Setup, child: Child) -> Router {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut router = Router {
            setup: Some(setup),
            child,
            http: Vec::new(),
            api: nowhere,
            admin: nowhere,
        };
        router.learn_addresses();
        router
    }

    fn learn_addresses(&mut self) {
        let file = self.state_dir().join("addresses.json");
        let found: Value = eventually("addresses.json is written", || {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!(
                    "portico ended ({status}) instead of starting: {}",
                    self.words()
                );
            }
            serde_json::from_slice(&fs::read(&file).ok()?).ok()
        });
        let address = |value: &Value| -> SocketAddr {
            value
                .as_str()
                .and_then(|text| text.parse().ok())
                .unwrap_or_else(|| panic!("not an address: {value} in {found}"))
        };
        let listeners = found["http"].as_array().expect("`http` must be a list");
        self.http = listeners.iter().map(address).collect();
        self.api = address(&found["api"]);
        self.admin = address(&found["admin"]);
    }

    /// Waits until `/readyz` says yes.
    #[track_caller]
    pub fn wait_ready(&self) {
        eventually("/readyz answers 200", || {
            (self.ready_status() == Some(200)).then_some(())
        });
    }

    /// What `/readyz` says, if anyone answers.
    pub fn ready_status(&self) -> Option<u16> {
        self.admin_status("/readyz")
    }

    /// What the admin port answers, if anyone does.
    pub fn admin_status(&self, path: &str) -> Option<u16> {
        Some(self.try_admin_get(path)?.status)
    }

    /// What the admin port shows, if anyone does: for polls that may meet a
    /// control that goes, or the next before it is ready.
    pub fn shown(&self, path: &str) -> Option<Value> {
        let answer = self.try_admin_get(path)?;
        let is_whole = answer.status == 200 && answer.complete;
        is_whole.then(|| answer.json())
    }

    fn try_admin_get(&self, path: &str) -> Option<Answer> {
        let mut client = Client::try_connect(self.admin).ok()?;
        client.try_send(format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.admin
        ));
        client.try_answer_to("GET").ok()
    }

    fn setup(&self) -> &Setup {
        self.setup.as_ref().expect("only `stop` takes the setup")
    }

    /// The state folder.
    pub fn state_dir(&self) -> PathBuf {
        self.setup().state_dir()
    }

    /// What is run.
    pub fn program(&self) -> &Path {
        self.setup().program()
    }

    /// The settings file.
    pub fn settings_file(&self) -> PathBuf {
        self.setup().folder().join("portico.toml")
    }

    /// The first public listener.
    pub fn http(&self) -> SocketAddr {
        self.http[0]
    }

    /// Every public listener.
    pub fn listeners(&self) -> &[SocketAddr] {
        &self.http
    }

    /// The API's listener.
    pub fn api(&self) -> SocketAddr {
        self.api
    }

    /// The admin port.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The supervisor's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the router wrote to its standard output and error.
    pub fn words(&self) -> String {
        fs::read_to_string(self.setup().folder().join("words.log")).unwrap_or_default()
    }

    /// The operator token.
    pub fn token(&self) -> String {
        let file = self.state_dir().join("token");
        eventually("the token is written", || {
            let text = fs::read_to_string(&file).ok()?;
            (!text.trim().is_empty()).then(|| text.trim().to_owned())
        })
    }

    /// A new client connection to the first public listener.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(self.http())
    }

    /// Sends one request on a connection of its own; gives the answer.
    #[track_caller]
    pub fn send(&self, request: impl AsRef<[u8]>) -> Answer {
        self.client().send(request).answer()
    }

    /// `GET` of a path of an app registered by [`Router::serve`].
    #[track_caller]
    pub fn get(&self, app: &str, path: &str) -> Answer {
        self.send(format!(
            "GET {path} HTTP/1.1\r\nHost: {app}.example\r\n\r\n"
        ))
    }

    /// Registers an app at `{app}.example` with these backends, `web.1` and
    /// so on, and returns when it is routed.
    #[track_caller]
    pub fn serve(&self, app: &str, backends: &[&Backend]) {
        self.serve_with(app, &json!({}), backends);
    }

    /// As [`Router::serve`], with a policy.
    #[track_caller]
    pub fn serve_with(&self, app: &str, policy: &Value, backends: &[&Backend]) {
        let addresses: Vec<SocketAddr> = backends.iter().map(|backend| backend.address()).collect();
        self.serve_at(app, policy, &addresses);
    }

    /// As [`Router::serve_with`], by address.
    #[track_caller]
    pub fn serve_at(&self, app: &str, policy: &Value, backends: &[SocketAddr]) {
        let record = json!({ "domains": [format!("{app}.example")], "policy": policy });
        self.put(&format!("/v1/apps/{app}?wait=active"), &record)
            .expect(201);
        for (index, address) in backends.iter().enumerate() {
            let path = format!("/v1/apps/{app}/backends/web.{}?wait=active", index + 1);
            self.put(&path, &json!({ "address": address.to_string() }))
                .expect(201);
        }
    }

    /// `PUT` on the API with the operator token.
    #[track_caller]
    pub fn put(&self, path: &str, body: &Value) -> Answer {
        self.call("PUT", path, &[], Some(body))
    }

    /// `POST` on the API with the operator token.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, &[], Some(body))
    }

    /// `GET` on the API with the operator token.
    #[track_caller]
    pub fn read(&self, path: &str) -> Answer {
        self.call("GET", path, &[], None)
    }

    /// `DELETE` on the API with the operator token.
    #[track_caller]
    pub fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, &[], None)
    }

    /// Any call on the API with the operator token.
    #[track_caller]
    pub fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let bearer = format!("Bearer {}", self.token());
        let mut all = vec![("Authorization", bearer.as_str())];
        all.extend_from_slice(headers);
        let text = body.map(Value::to_string);
        if text.is_some() && !headers.iter().any(|(name, _)| *name == "Content-Type") {
            all.push(("Content-Type", "application/json"));
        }
        request(
            self.api,
            method,
            path,
            &all,
            text.as_deref().unwrap_or_default(),
        )
    }

    /// `GET` on the admin port, without a token; fails if nobody answers, as
    /// while control is replaced: see [`Router::shown`].
    #[track_caller]
    pub fn admin_get(&self, path: &str) -> Answer {
        request(self.admin, "GET", path, &[], "")
    }

    /// Runs a command of the operator's against this router.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.operator(arguments).output().expect("portico must run")
    }

    /// As [`Router::run`], not started yet.
    pub fn operator(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PORTICO);
        command
            .args(arguments)
            .env("PORTICO_API", format!("http://{}", self.api))
            .env("PORTICO_ADMIN", format!("http://{}", self.admin))
            .env("PORTICO_TOKEN", self.token())
            .current_dir(self.setup().folder())
            .stdin(Stdio::null());
        command
    }

    /// The access log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.setup().folder().join("access.log")).unwrap_or_default()
    }

    /// The log line of a request for this path; waits for it.
    #[track_caller]
    pub fn logged(&self, path: &str) -> Fields {
        eventually(&format!("a log line for {path}"), || {
            let log = self.log();
            let lines = log
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'));
            lines
                .map(|line| {
                    if line.starts_with('{') {
                        logs::json(line)
                    } else {
                        logs::logfmt(line)
                    }
                })
                .find(|fields| fields.get("path").is_some_and(|logged| logged == path))
        })
    }

    /// Fails unless the request for this path was logged with this code.
    #[track_caller]
    pub fn logged_code(&self, path: &str, code: &str) -> Fields {
        let fields = self.logged(path);
        assert_eq!(
            fields.get("code").map(String::as_str),
            Some(code),
            "{fields:?}"
        );
        fields
    }

    /// The process of a role (`edge`, `control`), from the admin port.
    #[track_caller]
    pub fn process(&self, role: &str) -> u32 {
        eventually(&format!("/processes names a running {role}"), || {
            let pid = find_pid(&self.shown("/processes")?, role)?;
            processes::alive(pid).then_some(pid)
        })
    }

    /// Sends the supervisor a signal.
    pub fn signal(&self, signal: Signal) {
        processes::signal(self.pid(), signal);
    }

    /// Waits for the supervisor to end.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        eventually("portico ends", || {
            self.child.try_wait().expect("a child must be waitable")
        })
    }

    /// SIGTERM, wait, and hand the state folder on for another start.
    #[track_caller]
    pub fn stop(mut self) -> Setup {
        let below: BTreeSet<u32> = processes::descendants(self.pid()).into_iter().collect();
        self.signal(Signal::TERM);
        let status = self.ended();
        assert_eq!(
            status.code(),
            Some(0),
            "SIGTERM must end it with 0: {}",
            self.words()
        );
        eventually("its processes are gone", || {
            below
                .iter()
                .all(|&pid| !processes::alive(pid))
                .then_some(())
        });
        self.setup.take().expect("only `stop` takes the setup")
    }

    /// SIGKILL to everything at once, as a power cut would, and hand the state
    /// folder on.
    pub fn crash(mut self) -> Setup {
        processes::kill_tree(self.pid());
        let _ = self.child.wait();
        self.setup
            .take()
            .expect("only `stop` and `crash` take the setup")
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        processes::kill_tree(self.child.id());
        let _ = self.child.wait();
        if std::thread::panicking()
            && let Some(setup) = &self.setup
        {
            let words = fs::read_to_string(setup.folder().join("words.log"));
            let log = fs::read_to_string(setup.folder().join("access.log"));
            eprintln!(
                "--- the router's words\n{}",
                tail(&words.unwrap_or_default())
            );
            eprintln!("--- its access log\n{}", tail(&log.unwrap_or_default()));
        }
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// One request on a connection of its own.
#[track_caller]
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || method == "POST" || method == "PUT" {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    let mut client = Client::connect(address);
    client.send(text + "\r\n");
    // A refusal may come, and the connection close, before the body is read.
    client.try_send(body);
    client.answer_to(method)
}

/// The pid of the first running process of this role, wherever it stands.
fn find_pid(value: &Value, role: &str) -> Option<u32> {
    match value {
        Value::Array(items) => items.iter().find_map(|item| find_pid(item, role)),
        Value::Object(fields) => {
            let here = fields.get("role").and_then(Value::as_str) == Some(role);
            let pid = fields.get("pid").and_then(Value::as_u64);
            match (here, pid) {
                (true, Some(pid)) if pid > 0 => u32::try_from(pid).ok(),
                _ => fields.values().find_map(|field| find_pid(field, role)),
            }
        }
        _ => None,
    }
}

/// How long a test lets something be that should be at once: a busy machine
/// needs less, and a timeout that would see to it as well is longer.
pub const AT_ONCE: Duration = Duration::from_secs(10);
