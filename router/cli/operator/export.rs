//! `export`: every app, streamed.

use std::io::{self, Read, Write};

use super::CommandError;
use super::client::{Client, Port};

const CHUNK_BYTES: usize = 64 * 1024;

/// `portico export`
pub(super) fn export(client: &Client<'_>) -> Result<(), CommandError> {
    let mut stream = client.stream(Port::Api, "/v1/export")?;
    let mut out = io::stdout().lock();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(CommandError::Failed(format!(
                    "the export broke off: {error}"
                )));
            }
        };
        out.write_all(&chunk[..read])
            .map_err(CommandError::Output)?;
    }
    out.flush().map_err(CommandError::Output)
}
