//! What the supervisor knows of its children, as it tells control and the
//! operator; and what a process of ours can only say of itself.

use serde::{Deserialize, Serialize};

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The kernel: parent of the others.
    Supervisor,
    /// Registry, store, admin port.
    Control,
    /// The data plane.
    Edge,
}

impl Role {
    /// The name in logs, in the process table and in settings.
    pub fn name(self) -> &'static str {
        match self {
            Role::Supervisor => "supervisor",
            Role::Control => "control",
            Role::Edge => "edge",
        }
    }
}

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    /// Started, not serving yet.
    Starting,
    /// An edge that holds the table and takes over at once if the one that
    /// serves dies.
    Standby,
    /// Serving.
    Ready,
    /// Told to finish what it has and exit.
    Draining,
    /// Dead; its replacement waits for the backoff to pass.
    Waiting,
}

/// Descriptors this process has open. Others can count them only if they run
/// as its user, so each tells of itself. `None`: there is no `/proc`.
pub fn open_descriptors() -> Option<u64> {
    let found = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    // One of them is what was just read.
    Some(found.saturating_sub(1))
}

/// One row of the process table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// What it is.
    pub role: Role,
    /// Its process id; 0 while [`ProcessState::Waiting`].
    pub pid: u32,
    /// Where it is in its life.
    pub state: ProcessState,
    /// When it was started, Unix milliseconds.
    pub started_at_ms: u64,
    /// How often this role was restarted after an unwanted death.
    pub restarts: u64,
    /// How the last one of this role ended.
    pub last_exit: Option<Obituary>,
    /// Descriptors it had open when the table was made; in the supervisor's
    /// row alone, since the others tell control by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_descriptors: Option<u64>,
    /// How the last upgrade went, or goes; in the supervisor's row alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<UpgradeStatus>,
    /// How the last ones of every role ended, the latest first; in the
    /// supervisor's row alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub obituaries: Vec<Departed>,
}

/// A process that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Departed {
    /// What it was. Not called `role`: whoever looks for the process of a role
    /// must not find the dead.
    pub process: Role,
    /// How it ended.
    #[serde(flatten)]
    pub obituary: Obituary,
}

/// An upgrade to another binary, as the operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeStatus {
    /// Counts the attempts of this supervisor, over its own replacements too.
    pub attempt: u64,
    /// When it began, Unix milliseconds.
    pub began_at_ms: u64,
    /// Where it is.
    pub stage: UpgradeStage,
    /// What it does, or why it failed: a sentence for people.
    pub text: String,
}

/// Where an upgrade is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpgradeStage {
    /// Under way; the old processes serve.
    Running,
    /// Every process is of the new binary.
    Done,
    /// Given up: the old processes serve on.
    Failed,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Obituary {
    /// Who.
    pub pid: u32,
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// How long it lived, milliseconds.
    pub lived_ms: u64,
    /// Its exit code, if it exited.
    pub exit_code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// Why, in a few words: `exited with 1`, `killed by signal 9`,
    /// `killed: no answer for 10s`.
    pub reason: String,
    /// The last lines it wrote to standard error, oldest first.
    pub last_words: Vec<String>,
}
