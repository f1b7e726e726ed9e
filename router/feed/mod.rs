//! What control and the edge exchange, on a socket and in files.
//!
//! Owns the [`messages`], their framing, the snapshot file, the journal and the
//! file of limits beside them.
//! Never decides what a record means for traffic: that is [`crate::table`].

pub mod codec;
pub mod journal;
mod last_known_good;
pub mod limits_file;
pub mod messages;
pub mod proven;
pub mod snapshot;
mod table_files;

pub use last_known_good::{KnownHead, LastKnownGood, NoTable, known_head, last_known_good};
pub use proven::{proven_files, proven_table};
pub use table_files::TableFiles;
