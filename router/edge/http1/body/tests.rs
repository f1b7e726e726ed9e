//! Bodies in one piece, in two, and by the byte.

use super::*;

/// Feeds `input` in pieces as long as `sizes` says (the last repeats), keeping
/// what is left unconsumed as a journey does.
fn filter(
    framing: Framing,
    mode: Mode,
    input: &[u8],
    sizes: &[usize],
) -> Result<(Vec<u8>, Vec<u8>, u64, bool), Broken> {
    let mut body = Body::new(framing, mode);
    let (mut out, mut held, mut at, mut piece) = (Vec::new(), Vec::new(), 0, 0);
    loop {
        let size = sizes[piece.min(sizes.len() - 1)].min(input.len() - at);
        held.extend_from_slice(&input[at..at + size]);
        at += size;
        piece += 1;
        let progress = body.advance(&mut held)?;
        assert!(progress.produced <= progress.consumed);
        out.extend_from_slice(&held[..progress.produced]);
        held.drain(..progress.consumed);
        if progress.done {
            held.extend_from_slice(&input[at..]);
            return Ok((out, held, body.payload(), true));
        }
        assert!(held.len() <= HELD_BYTES, "{} held", held.len());
        if at == input.len() {
            return Ok((out, held, body.payload(), false));
        }
    }
}

#[track_caller]
fn chunked(mode: Mode, input: &str) -> Result<(String, String, u64, bool), Broken> {
    let input = input.as_bytes();
    let whole = filter(Framing::Chunked, mode, input, &[input.len().max(1)]);
    for size in 1..=7 {
        let split = filter(Framing::Chunked, mode, input, &[size]);
        assert_eq!(whole, split, "pieces of {size}: {}", input.escape_ascii());
    }
    for first in 1..input.len() {
        let split = filter(Framing::Chunked, mode, input, &[first, input.len()]);
        assert_eq!(whole, split, "cut at {first}: {}", input.escape_ascii());
    }
    whole.map(|(out, rest, payload, done)| {
        let text = |bytes| String::from_utf8(bytes).expect("must be text");
        (text(out), text(rest), payload, done)
    })
}

#[test]
fn well_formed_chunks_pass_as_they_came() {
    for input in [
        "0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
        "00000005\r\nhello\r\n000\r\n\r\n",
        "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n",
        "1\r\n\r\r\n1\r\n\n\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX-Sum: 1\r\nEmpty:\r\nRetry-After: caf\u{e9}\r\n\r\n",
    ] {
        let (out, rest, _, done) = chunked(Mode::Forward, &format!("{input}NEXT")).unwrap();
        assert_eq!((out.as_str(), rest.as_str(), done), (input, "NEXT", true));
    }
}

#[test]
fn extensions_and_forbidden_trailers_are_dropped() {
    for (input, passed) in [
        (
            "5;a=b\r\nhello\r\n0;x;y=z;w\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "0\r\nContent-Length: 5\r\nX: y\r\n\r\n",
            "0\r\nX: y\r\n\r\n",
        ),
        (
            "0\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n",
            "0\r\nX: y\r\n\r\n",
        ),
        (
            "0\r\nX: y\r\ncontent_length: 5\r\nZ: w\r\n\r\n",
            "0\r\nX: y\r\nZ: w\r\n\r\n",
        ),
        (
            "0\r\nHost: a\r\nConnection: close\r\nAuthorization: x\r\nCookie: x\r\nSet-Cookie: x\r\nX-Forwarded-For: x\r\nTrailer: x\r\nTE: x\r\nUpgrade: x\r\nX-Request-Id: x\r\n\r\n",
            "0\r\n\r\n",
        ),
    ] {
        let (out, rest, _, done) = chunked(Mode::Forward, &format!("{input}NEXT")).unwrap();
        assert_eq!((out.as_str(), rest.as_str(), done), (passed, "NEXT", true));
    }
}

#[test]
fn unchunked_only_the_payload_passes() {
    let input = "5;a\r\nhello\r\n7\r\n, world\r\n0\r\nX: y\r\n\r\nNEXT";
    let (out, rest, payload, done) = chunked(Mode::Unchunk, input).unwrap();
    assert_eq!((out.as_str(), rest.as_str()), ("hello, world", "NEXT"));
    assert_eq!((payload, done), (12, true));
    let input = "5;a\r\nhello\r\n7\r\n, world\r\n0\r\nX: y\r\n\r\nNEXT";
    assert_eq!(chunked(Mode::Forward, input).unwrap().2, 12);
}

#[test]
fn broken_chunks_are_refused() {
    let long_extension = format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(255));
    let long_name = format!("0\r\n{}: y\r\n\r\n", "a".repeat(257));
    let long_trailer = format!("0\r\nX: {}\r\n\r\n", "a".repeat(17_000));
    let many_trailers = format!("0\r\n{}\r\n", "X: y\r\n".repeat(2731));
    for input in [
        "\r\n",
        "\n",
        "x\r\n",
        "-1\r\n",
        "+1\r\nx\r\n",
        "0x1\r\nx\r\n",
        " 1\r\nx\r\n",
        "1 \r\nx\r\n",
        "1\t\r\nx\r\n",
        "1\nx\r\n",
        "1\rx\r\n",
        "1\r\nx\n0\r\n\r\n",
        "1\r\nxy\r\n",
        "1\r\nx0\r\n\r\n",
        "1\r\nx\rx",
        "00000000000000001\r\nx\r\n",
        "fffffffffffffffff\r\n",
        "1,\r\nx\r\n",
        ";a\r\n",
        "1;\r\nx\r\n",
        "1;;\r\nx\r\n",
        "1; a\r\nx\r\n",
        "1;a \r\nx\r\n",
        "1;a=\r\nx\r\n",
        "1;a=\"b\"\r\nx\r\n",
        "1;a=b=c\r\nx\r\n",
        "1;=b\r\nx\r\n",
        "1;a\nx\r\n",
        "1;a\rx\r\n",
        "1;\0\r\nx\r\n",
        "1;a=b;\r\nx\r\n",
        "1;\u{e9}\r\nx\r\n",
        "0\r\n\n",
        "0\r\n\rx",
        "0\r\nX\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\nX: y\r\n z\r\n\r\n",
        "0\r\n: y\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\nX: y\rz\r\n\r\n",
        "0\r\nX: \0\r\n\r\n",
        "0\r\nGET / HTTP/1.1\r\n\r\n",
        &long_extension,
        &long_name,
    ] {
        assert!(
            chunked(Mode::Forward, input).is_err(),
            "{}",
            input.escape_debug()
        );
        assert!(
            chunked(Mode::Unchunk, input).is_err(),
            "{}",
            input.escape_debug()
        );
    }
    for input in [&long_trailer, &many_trailers] {
        for size in [1, 7, 4096, input.len()] {
            assert!(filter(Framing::Chunked, Mode::Forward, input.as_bytes(), &[size]).is_err());
        }
    }
}

#[test]
fn unfinished_chunks_are_not_done() {
    let input = "5\r\nhello\r\n0\r\nX: y\r\n\r\n";
    for len in 0..input.len() {
        let (_, _, _, done) = filter(
            Framing::Chunked,
            Mode::Forward,
            &input.as_bytes()[..len],
            &[100],
        )
        .unwrap();
        assert!(!done, "{len}");
    }
    let mut body = Body::new(Framing::Chunked, Mode::Forward);
    body.advance(&mut b"ffffffffffffffff\r\n".to_vec()).unwrap();
    assert!(!body.ends_with_connection() && !body.done());
    assert_eq!(body.remaining(), None);
}

#[test]
fn other_framings_count_bytes() {
    let (out, rest, payload, done) =
        filter(Framing::Length(5), Mode::Forward, b"helloNEXT", &[2]).unwrap();
    assert_eq!(
        (out.as_slice(), rest.as_slice(), payload, done),
        (b"hello".as_slice(), b"NEXT".as_slice(), 5, true)
    );
    let mut none = Body::new(Framing::None, Mode::Forward);
    assert!(none.done() && none.ends_with_connection());
    assert_eq!(
        none.advance(&mut b"x".to_vec()),
        Ok(Progress {
            consumed: 0,
            produced: 0,
            done: true
        })
    );
    let mut close = Body::new(Framing::UntilClose, Mode::Forward);
    assert_eq!(
        close.advance(&mut b"xyz".to_vec()),
        Ok(Progress {
            consumed: 3,
            produced: 3,
            done: false
        })
    );
    assert!(close.ends_with_connection() && close.payload() == 3);
    let mut length = Body::new(Framing::Length(u64::MAX), Mode::Forward);
    length.advance(&mut b"x".to_vec()).unwrap();
    assert_eq!(length.remaining(), Some(u64::MAX - 1));
    assert!(!length.ends_with_connection());
}

#[test]
fn prefixes_are_chunk_sizes() {
    for len in [1, 9, 15, 16, 255, 256, 65_536, u64::MAX] {
        let mut out = [0; PREFIX_BYTES];
        let written = chunk_prefix(len, &mut out);
        assert_eq!(out[..written], *format!("{len:x}\r\n").as_bytes());
    }
}
