//! Any bytes as frames of the feed: splits agree, and what decodes encodes to
//! something that decodes the same.
#![no_main]

use bytes::BytesMut;
use portico::feed::codec::{FrameError, decode, encode};
use portico::feed::messages::Envelope;

/// Every frame, as the bytes come `step` at a time, and how it ends.
fn frames(input: &[u8], step: usize) -> (Vec<Envelope>, Option<String>) {
    let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
    for piece in input.chunks(step.max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            match decode(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error.to_string())),
            }
        }
    }
    (frames, None)
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((choice, input)) = input.split_first() else {
        return;
    };
    let whole = frames(input, input.len());
    for step in [1, 1 + usize::from(*choice)] {
        assert_eq!(format!("{whole:?}"), format!("{:?}", frames(input, step)));
    }
    for frame in &whole.0 {
        let mut wire = BytesMut::new();
        match encode(frame, &mut wire) {
            Ok(()) => {}
            Err(FrameError::TooLong { .. }) => continue,
            Err(error) => panic!("{error}"),
        }
        let again = decode(&mut wire).expect("must decode").expect("must be whole");
        assert_eq!(format!("{again:?}"), format!("{frame:?}"));
        assert!(wire.is_empty());
    }
});
