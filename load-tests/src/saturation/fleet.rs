//! A process of backends, as the harness holds it.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::child::{OWN_PROGRAM, Plan, Running, StopSignal};
use crate::{http_client, interrupt, peer};

/// Requests each backend serves at once.
pub const SLOTS: u64 = 10;
/// What each takes.
pub const SERVICE_MS: u64 = 20;
/// What one backend answers a second.
pub const BACKEND_RATE: f64 = SLOTS as f64 * 1_000.0 / SERVICE_MS as f64;
/// How long they may take to listen.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// Backends that listen; ended when dropped.
#[derive(Debug)]
pub struct Fleet {
    /// Where.
    pub addresses: Vec<SocketAddr>,
    orders: PathBuf,
    running: Running,
}

impl Fleet {
    /// Starts `count` backends of this service; `name` tells their files from those of others.
    pub fn start(
        name: &'static str,
        count: usize,
        service_ms: u64,
        folder: &Path,
        core: Option<usize>,
    ) -> Result<Self> {
        let addresses: Vec<SocketAddr> = (0..count)
            .map(|_| peer::free_address())
            .collect::<Result<_>>()?;
        let orders = folder.join(format!("{name}.orders"));
        let mut command = vec![
            OWN_PROGRAM.into(),
            "saturation-backend".into(),
            format!("--slots={SLOTS}").into(),
            format!("--service-ms={service_ms}").into(),
            "--orders".into(),
            orders.clone().into(),
        ];
        command.extend(addresses.iter().map(|address| address.to_string().into()));
        let mut running = Running::start(&Plan {
            name,
            command,
            core,
            stop: StopSignal::Kill,
            stdout: folder.join(format!("{name}.out")),
            stderr: folder.join(format!("{name}.err")),
        })?;
        let request = http_client::request("backend.example", "/");
        let answers = |address: &SocketAddr| {
            let asked = http_client::connect(*address)
                .and_then(|mut stream| http_client::exchange(&mut stream, &request));
            asked.is_ok_and(|answer| answer.status == 200)
        };
        let mut ended = Ok(());
        interrupt::poll_until("backends listening", READY_TIMEOUT, || {
            ended = running.check_alive();
            ended.is_err() || addresses.iter().all(answers)
        })?;
        ended?;
        Ok(Self {
            addresses,
            orders,
            running,
        })
    }

    /// What a request takes from now on.
    pub fn take_ms(&self, service_ms: u64) -> Result<()> {
        UnixDatagram::unbound()?
            .send_to(service_ms.to_string().as_bytes(), &self.orders)
            .context("ordering the backends")?;
        Ok(())
    }

    /// An error if they have ended by themselves.
    pub fn check_alive(&mut self) -> Result<()> {
        self.running.check_alive()
    }
}
