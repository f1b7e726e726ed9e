//! A peer started with a configuration file that somebody else wrote.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Result, bail};

use crate::child::{Plan, Running, StopSignal};

/// Starts the program that reads files of this name: `nginx.conf`, `haproxy.cfg`
/// or `envoy.yaml`, which must lie in `folder`. `threads` 0 leaves it to the program.
pub fn start(
    name: &'static str,
    file: &str,
    folder: &Path,
    core: Option<usize>,
    threads: usize,
) -> Result<Running> {
    let path = folder.join(file);
    let mut command: Vec<OsString> = match file {
        // Its threads, and HAProxy's, are in the file.
        "nginx.conf" => vec![
            "nginx".into(),
            "-p".into(),
            folder.into(),
            "-e".into(),
            folder.join("error.log").into(),
            "-c".into(),
            path.into(),
        ],
        "haproxy.cfg" => vec!["haproxy".into(), "-db".into(), "-f".into(), path.into()],
        "envoy.yaml" => {
            let quiet = ["envoy", "--disable-hot-restart", "--log-level", "error"];
            let arguments = quiet.into_iter().map(Into::into);
            arguments.chain(["-c".into(), path.into()]).collect()
        }
        _ => bail!("nobody reads {file}"),
    };
    if file == "envoy.yaml" && threads > 0 {
        command.extend(["--concurrency".into(), threads.to_string().into()]);
    }
    Running::start(&Plan {
        name,
        command,
        core,
        stop: StopSignal::Term,
        stdout: folder.join("stdout"),
        stderr: folder.join("stderr"),
    })
}
