//! What a test starts: settings, a state folder, a way to launch.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::Router;
use super::router::PORTICO;

/// What to start, and where its state lives.
pub struct Setup {
    folder: TempDir,
    settings: Vec<String>,
    wrapper: Option<String>,
    binary: PathBuf,
}

impl Setup {
    /// A fresh state folder, free ports, two data threads.
    pub fn new() -> Setup {
        Setup {
            folder: tempfile::tempdir().expect("the temporary folder must be writable"),
            settings: Vec::new(),
            wrapper: None,
            binary: PathBuf::from(PORTICO),
        }
    }

    /// Runs a copy of the program, in the test's own folder, so that the test
    /// can put another in its place.
    pub fn installed(mut self) -> Setup {
        let folder = self.folder.path().join("bin");
        fs::create_dir_all(&folder).expect("the temporary folder must be writable");
        self.binary = folder.join("portico");
        super::binary::put(Path::new(PORTICO), 0o755, &self.binary);
        self
    }

    /// What is run.
    pub fn program(&self) -> &Path {
        &self.binary
    }

    /// Adds a `--set KEY=TOML`.
    pub fn set(mut self, setting: &str) -> Setup {
        self.settings.push(setting.to_owned());
        self
    }

    /// Runs this shell text before the router, in the same process.
    pub fn after(mut self, shell: &str) -> Setup {
        self.wrapper = Some(shell.to_owned());
        self
    }

    /// Runs this copy of the router.
    pub fn binary(mut self, path: &Path) -> Setup {
        self.binary = path.to_owned();
        self
    }

    /// The state folder.
    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The folder around it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes the settings file.
    pub fn write_settings(&self) -> PathBuf {
        let folder = self.folder.path().display();
        let file = self.folder.path().join("portico.toml");
        let text = format!(
            "state_dir = \"{folder}/state\"\n\
             [edge]\nhttp = [\"127.0.0.1:0\"]\nthreads = 2\n\
             [api]\nlisten = \"127.0.0.1:0\"\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n\
             [log]\naccess = \"file:{folder}/access.log\"\n"
        );
        fs::write(&file, text).expect("the temporary folder must be writable");
        file
    }

    /// The command that would run it.
    pub fn command(&self) -> Command {
        let mut arguments = vec!["run".to_owned(), "--config".to_owned()];
        arguments.push(self.write_settings().display().to_string());
        for setting in &self.settings {
            arguments.push("--set".to_owned());
            arguments.push(setting.clone());
        }
        let mut command = match &self.wrapper {
            None => Command::new(&self.binary),
            Some(shell) => {
                let mut command = Command::new("bash");
                command.args(["-c", &format!("{shell}; exec \"$@\""), "bash"]);
                command.arg(&self.binary);
                command
            }
        };
        command
            .args(arguments)
            .process_group(0)
            .stdin(Stdio::null());
        command
    }

    /// Runs a router that is expected to give up by itself.
    pub fn fails(&self) -> Output {
        self.command().output().expect("portico must run")
    }

    /// Starts it without waiting for more than its addresses.
    #[track_caller]
    pub fn launch(self) -> Router {
        let _ = fs::remove_file(self.state_dir().join("addresses.json"));
        let words = self.folder.path().join("words.log");
        let output = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&words)
            .expect("the temporary folder must be writable");
        let child = self
            .command()
            .stdout(output.try_clone().expect("a file must be cloneable"))
            .stderr(output)
            .spawn()
            .expect("portico must run");
        Router::launched(self, child)
    }

    /// Starts it and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Router {
        let router = self.launch();
        router.wait_ready();
        router
    }
}
