//! Why a change was not made.
//!
//! Owns the reasons; how each is answered over HTTP is decided in
//! [`api`](super::api).

use super::store::StoreFailure;

/// Nothing was changed, and why.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No such app.
    #[error("there is no app `{0}`")]
    NoApp(String),
    /// No such backend.
    #[error("app `{app}` has no backend `{id}`")]
    NoBackend {
        /// The app.
        app: String,
        /// The backend.
        id: String,
    },
    /// The app does not hold this host.
    #[error("app `{app}` does not hold the host `{host}`")]
    NoDomain {
        /// The app.
        app: String,
        /// The host pattern.
        host: String,
    },
    /// No such token.
    #[error("there is no token `{0}`")]
    NoToken(String),
    /// No such limit.
    #[error("there is no limit `{0}`")]
    NoLimit(String),
    /// Another app holds this host.
    #[error("the host `{host}` is held by app `{holder}`")]
    HostTaken {
        /// The host pattern.
        host: String,
        /// Who holds it.
        holder: String,
    },
    /// The app, or limit, is not at the revision the caller expected.
    #[error("it is {}, not as the request's condition expects", .current.map_or("not there".to_owned(), |revision| format!("at revision {revision}")))]
    Lost {
        /// The app's revision; `None`: there is no such app.
        current: Option<u64>,
    },
    /// A limit on what one app may register.
    #[error("at most {limit} {what}")]
    TooMany {
        /// What there would be too many of.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// An import that is more likely a mistake than meant.
    #[error(
        "the lines would leave {dropped} fewer of the {registered} backends registered; none of this group was \
         taken. If that is meant, import with ?confirm=shrink"
    )]
    HastyImport {
        /// Backends of all apps when the import began.
        registered: u64,
        /// How many fewer there would be.
        dropped: u64,
    },
    /// It could not be made durable.
    #[error("the change could not be stored: {0}")]
    Store(#[from] StoreFailure),
    /// Control is stopping.
    #[error("control is stopping")]
    Stopping,
}
