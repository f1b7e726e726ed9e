//! Framing: a big-endian `u32` length, then one encoded [`Envelope`].
//!
//! Owns the frame's bounds and the version check, for blocking and for async
//! streams. Never interprets a message, never buffers more than one frame.

use std::io::{Read, Write};

use bytes::{Buf, BufMut, BytesMut};
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::messages::{Body, Envelope, FEED_VERSION};

/// Bytes of the largest frame, its length not counted. A snapshot is sent in
/// parts well below it.
pub const MAX_FRAME_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of a frame's length.
const LENGTH_BYTES: usize = 4;
/// Bytes taken from a stream at a time: a length that lies costs no memory.
const READ_BYTES: usize = 64 * 1024;

/// Why a frame could not be read or written. After any of these but
/// [`Ended`](Self::Ended) the stream is not at a frame's start any more.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream ended between two frames.
    #[error("the peer closed the feed")]
    Ended,
    /// The stream ended inside a frame.
    #[error("the peer closed the feed inside a frame")]
    Cut,
    /// A frame over [`MAX_FRAME_BYTES`].
    #[error("a feed frame of {bytes} bytes is over the limit of {MAX_FRAME_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The peer speaks another major version.
    #[error("the peer speaks version {theirs} of the feed, this program {FEED_VERSION}")]
    Version {
        /// The peer's.
        theirs: u32,
    },
    /// Not an envelope.
    #[error("a feed frame does not decode: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// The stream failed.
    #[error("the feed's socket: {0}")]
    Io(std::io::Error),
}

impl From<std::io::Error> for FrameError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => FrameError::Cut,
            _ => FrameError::Io(error),
        }
    }
}

impl Envelope {
    /// An envelope of this program's version.
    pub fn new(epoch: u64, revision: u64, body: Body) -> Envelope {
        Envelope {
            version: FEED_VERSION,
            epoch,
            revision,
            body: Some(body),
        }
    }
}

/// Appends a frame to `out`.
///
/// # Errors
/// [`FrameError::TooLong`]; `out` is as it was.
pub fn encode(envelope: &Envelope, out: &mut BytesMut) -> Result<(), FrameError> {
    let bytes = envelope.encoded_len();
    if bytes > MAX_FRAME_BYTES {
        return Err(FrameError::TooLong { bytes });
    }
    out.reserve(LENGTH_BYTES + bytes);
    out.put_u32(bytes as u32);
    envelope
        .encode(out)
        .expect("a BytesMut must have room: it grows");
    Ok(())
}

/// Takes the first frame out of `buffer`; `None` if it is not there whole yet.
///
/// # Errors
/// A length over the limit (before its bytes are waited for), bytes that do not
/// decode, another version.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<Envelope>, FrameError> {
    let Some(length) = buffer.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let bytes = checked_length(*length)?;
    if buffer.len() < LENGTH_BYTES + bytes {
        return Ok(None);
    }
    buffer.advance(LENGTH_BYTES);
    envelope(buffer.split_to(bytes)).map(Some)
}

fn checked_length(length: [u8; LENGTH_BYTES]) -> Result<usize, FrameError> {
    let bytes = u32::from_be_bytes(length) as usize;
    if bytes > MAX_FRAME_BYTES {
        return Err(FrameError::TooLong { bytes });
    }
    Ok(bytes)
}

/// The version is read first: a later one may encode the rest in a way that
/// this one cannot decode.
fn envelope(frame: impl Buf + Clone) -> Result<Envelope, FrameError> {
    /// An envelope of any version.
    #[derive(Clone, PartialEq, Message)]
    struct AnyEnvelope {
        #[prost(uint32, tag = "1")]
        version: u32,
    }
    let theirs = AnyEnvelope::decode(frame.clone())?.version;
    if theirs != FEED_VERSION {
        return Err(FrameError::Version { theirs });
    }
    Ok(Envelope::decode(frame)?)
}

/// Writes a frame and flushes it.
///
/// # Errors
/// [`FrameError::TooLong`] before anything is written; [`FrameError::Io`].
pub fn write(stream: &mut impl Write, message: &Envelope) -> Result<(), FrameError> {
    let mut frame = BytesMut::new();
    encode(message, &mut frame)?;
    stream.write_all(&frame).map_err(FrameError::Io)?;
    stream.flush().map_err(FrameError::Io)
}

/// Reads a frame, waiting for it.
///
/// # Errors
/// Every [`FrameError`].
pub fn read(stream: &mut impl Read) -> Result<Envelope, FrameError> {
    let mut length = [0; LENGTH_BYTES];
    let first = loop {
        match stream.read(&mut length) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    if first == 0 {
        return Err(FrameError::Ended);
    }
    stream.read_exact(&mut length[first..])?;
    let bytes = checked_length(length)?;
    let mut frame = BytesMut::new();
    while frame.len() < bytes {
        let before = frame.len();
        frame.resize(bytes.min(before + READ_BYTES), 0);
        stream.read_exact(&mut frame[before..])?;
    }
    envelope(frame)
}

/// [`write`](fn@write) for an async stream.
///
/// # Errors
/// As [`write`](fn@write). Dropped half-way, the stream is lost.
pub async fn write_async(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &Envelope,
) -> Result<(), FrameError> {
    let mut frame = BytesMut::new();
    encode(message, &mut frame)?;
    stream.write_all(&frame).await.map_err(FrameError::Io)?;
    stream.flush().await.map_err(FrameError::Io)
}

/// Reads a frame from an async stream. May be dropped and called again with
/// the same `buffer`: what was read stays there.
///
/// # Errors
/// Every [`FrameError`].
pub async fn read_async(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> Result<Envelope, FrameError> {
    loop {
        if let Some(envelope) = decode(buffer)? {
            return Ok(envelope);
        }
        buffer.reserve(READ_BYTES);
        if stream.read_buf(buffer).await? == 0 {
            return Err(if buffer.is_empty() {
                FrameError::Ended
            } else {
                FrameError::Cut
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;
    use crate::feed::messages::{Beat, Delta, Hello, Nack, Op};

    fn any_envelope() -> impl Strategy<Value = Envelope> {
        let body = prop_oneof![
            Just(Body::Beat(Beat {})),
            "[a-z]{0,40}".prop_map(|cluster_id| Body::Hello(Hello { cluster_id })),
            ("\\PC{0,40}", "\\PC{0,40}").prop_map(|(key, reason)| Body::Nack(Nack { key, reason })),
            (any::<u64>(), 0usize..20).prop_map(|(to, ops)| Body::Delta(Delta {
                from: 1,
                to,
                ops: vec![Op { change: None }; ops],
                committed_at_ms: 5,
                ..Delta::default()
            })),
        ];
        (any::<u64>(), any::<u64>(), body)
            .prop_map(|(epoch, revision, body)| Envelope::new(epoch, revision, body))
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in(
            messages in proptest::collection::vec(any_envelope(), 0..8),
            cut in 1usize..50,
        ) {
            let mut wire = BytesMut::new();
            for message in &messages {
                encode(message, &mut wire).unwrap();
            }
            let mut stream = Cursor::new(wire.clone());
            for message in &messages {
                prop_assert_eq!(&read(&mut stream).unwrap(), message);
            }
            prop_assert!(matches!(read(&mut stream), Err(FrameError::Ended)));
            // The same, a few bytes at a time.
            let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
            for piece in wire.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Some(message) = decode(&mut buffer).unwrap() {
                    got.push(message);
                }
            }
            prop_assert_eq!(got, messages);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode(&mut buffer) {}
            let _ = read(&mut Cursor::new(bytes));
        }
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_by_its_length() {
        let mut buffer = BytesMut::from(&u32::MAX.to_be_bytes()[..]);
        assert!(matches!(
            decode(&mut buffer),
            Err(FrameError::TooLong { bytes: 0xffff_ffff })
        ));
        let long = Envelope::new(
            0,
            0,
            Body::Hello(Hello {
                cluster_id: "x".repeat(MAX_FRAME_BYTES),
            }),
        );
        let mut out = BytesMut::new();
        assert!(matches!(
            encode(&long, &mut out),
            Err(FrameError::TooLong { .. })
        ));
        assert!(out.is_empty());
    }

    #[test]
    fn another_version_is_named_even_if_its_body_is_strange() {
        let mut message = Envelope::new(1, 1, Body::Beat(Beat {}));
        message.version = 9;
        let mut wire = message.encode_to_vec();
        wire.extend([0x52, 0x01, 0xff]); // a hello that this version cannot decode
        let mut buffer = BytesMut::new();
        buffer.put_u32(wire.len() as u32);
        buffer.extend_from_slice(&wire);
        assert!(matches!(
            decode(&mut buffer),
            Err(FrameError::Version { theirs: 9 })
        ));
    }

    #[test]
    fn a_stream_cut_inside_a_frame_says_so() {
        let mut wire = Vec::new();
        write(&mut wire, &Envelope::new(1, 1, Body::Beat(Beat {}))).unwrap();
        for end in 1..wire.len() {
            assert!(matches!(
                read(&mut Cursor::new(&wire[..end])),
                Err(FrameError::Cut)
            ));
        }
    }
}
