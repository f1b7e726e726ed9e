//! The writer against files, pipes and disks that misbehave.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::*;

const DEADLINE: Duration = Duration::from_secs(10);

fn line(path: &[u8]) -> Line<'_> {
    Line {
        method: b"GET",
        path,
        host: b"a.example",
        request_id: b"id",
        fwd: b"127.0.0.1",
        client: None,
        app: "shop",
        backend: "web.1",
        release: "",
        tries: 1,
        queue_us: Some(0),
        connect_us: Some(0),
        first_byte_us: Some(0),
        total_us: 0,
        status: 200,
        bytes: 0,
        protocol: "http1.1",
        tls: "",
        code: None,
        cause: None,
    }
}

/// A log in this file, which is made if it is missing.
fn log_in(path: &Path) -> Log {
    let settings = settings::Log {
        access: AccessLog::File(PathBuf::from("the path does not matter")),
        format: LogFormat::Logfmt,
    };
    Log::open(&settings, Some(append_to(path))).unwrap()
}

fn append_to(path: &Path) -> File {
    let mut options = File::options();
    options.create(true).append(true).open(path).unwrap()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < DEADLINE, "{what} did not happen in time");
        thread::yield_now();
    }
}

fn value(log: &Log, label: &str) -> f64 {
    let samples = log.samples();
    let of = samples.iter().filter(|sample| match sample.labels.get(1) {
        Some(value) => value == label,
        None => label == "written",
    });
    of.map(|sample| sample.value).sum()
}

#[test]
fn lines_of_all_threads_arrive_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let log = log_in(&path);
    thread::scope(|scope| {
        for _ in 0..4 {
            let mut buffer = log.buffer();
            scope.spawn(move || {
                for _ in 0..2_000 {
                    buffer.push(&line(b"/x"));
                }
            });
        }
    });
    until("writing", || {
        value(&log, "written") + value(&log, "backlog") == 8_000.0
    });
    let written = value(&log, "written");
    log.close(DEADLINE);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count() as f64, written);
    assert!(
        text.lines()
            .all(|line| line.starts_with("at=info ") && line.ends_with(" tls="))
    );
}

#[test]
fn a_flush_waits_for_the_second_tick_and_an_empty_one_does_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let log = log_in(&path);
    let mut buffer = log.buffer();
    buffer.flush();
    buffer.flush();
    buffer.push(&line(b"/1"));
    buffer.flush();
    assert_eq!(buffer.lines, 1);
    buffer.flush();
    assert_eq!(buffer.lines, 0);
    until("writing", || value(&log, "written") == 1.0);
}

#[test]
fn reopening_starts_the_new_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let log = log_in(&path);
    let mut buffer = log.buffer();
    buffer.push(&line(b"/old"));
    buffer.hand_over();
    until("writing", || value(&log, "written") == 1.0);
    fs::rename(&path, folder.path().join("access.log.1")).unwrap();
    log.reopen(Arc::new(append_to(&path)));
    buffer.push(&line(b"/new"));
    drop(buffer);
    log.close(DEADLINE);
    assert!(fs::read_to_string(&path).unwrap().contains("/new"));
    assert!(
        fs::read_to_string(folder.path().join("access.log.1"))
            .unwrap()
            .contains("/old")
    );
}

#[test]
fn a_full_disk_costs_lines_and_nothing_else() {
    let log = log_in(Path::new("/dev/full"));
    let mut buffer = log.buffer();
    buffer.push(&line(b"/1"));
    buffer.push(&line(b"/2"));
    buffer.hand_over();
    until("dropping", || value(&log, "write_error") == 2.0);
    buffer.push(&line(b"/3"));
    buffer.hand_over();
    until("dropping on", || value(&log, "write_error") == 3.0);
    assert_eq!(value(&log, "written"), 0.0);
}

fn pipe() -> (OwnedFd, Sink) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    (read, Sink::new(File::from(write)))
}

#[test]
fn a_broken_pipe_is_an_error_and_not_the_end() {
    let (read, mut sink) = pipe();
    drop(read);
    let error = sink.write(b"at=info\n").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    assert!(sink.failing);
}

#[test]
fn a_stuck_reader_drops_lines_without_holding_up_the_thread() {
    let (read, sink) = pipe();
    let shared = Arc::new(Shared::default());
    let (writer, queue) = sync_channel(2);
    let drained = thread::spawn({
        let shared = Arc::clone(&shared);
        move || drain(&queue, sink, &shared)
    });
    let mut buffer = LogBuffer::new(LogFormat::Logfmt, Some(writer), &shared);
    let start = Instant::now();
    let mut pushed: u64 = 0;
    while shared.dropped_backlog.load(Relaxed) == 0 {
        buffer.push(&line(b"/x"));
        pushed += 1;
        assert!(start.elapsed() < DEADLINE, "nothing was dropped");
    }
    assert!(buffer.held_bytes() <= 2 * HELD_BYTES);
    drop(buffer);
    let text = io::read_to_string(File::from(read)).unwrap();
    drained.join().unwrap();
    let dropped = shared.dropped_backlog.load(Relaxed);
    assert_eq!(text.lines().count() as u64 + dropped, pushed);
    assert_eq!(shared.written.load(Relaxed) + dropped, pushed);
}

/// A log whose writer is this test.
fn unwritten() -> (Arc<Shared>, SyncSender<Message>, Receiver<Message>) {
    let (writer, queue) = sync_channel(QUEUED_BATCHES);
    (Arc::default(), writer, queue)
}

fn of<'a>(app: &'a str, path: &'a [u8]) -> Line<'a> {
    Line { app, ..line(path) }
}

/// What is written of the next batch, if there is one.
fn take(queue: &Receiver<Message>, shared: &Shared) -> Option<String> {
    let Ok(Message::Batch(batch)) = queue.try_recv() else {
        return None;
    };
    batch.leaves(shared);
    let text = String::from_utf8(batch.bytes.clone()).unwrap();
    assert_eq!(text.lines().count() as u64, batch.lines);
    recycle(batch);
    Some(text)
}

#[test]
fn who_logs_little_loses_nothing_to_who_logs_more_than_can_be_written() {
    let (shared, writer, queue) = unwritten();
    let mut noisy = LogBuffer::new(LogFormat::Logfmt, Some(writer.clone()), &shared);
    let mut other = LogBuffer::new(LogFormat::Logfmt, Some(writer), &shared);
    let mut text = String::new();
    for number in 0..200_000 {
        noisy.push(&of("noisy", b"/noisy"));
        // On the thread that the noisy one has filled, and on one it has not.
        if number % 1_000 == 0 {
            noisy.push(&of("quiet", b"/beside"));
            other.push(&of("quiet", b"/apart"));
        }
        if number % 5_000 == 0 {
            text.extend(take(&queue, &shared));
        }
    }
    assert!(noisy.behind);
    while let Some(more) = take(&queue, &shared) {
        text.push_str(&more);
        noisy.hand_over();
        other.hand_over();
    }
    assert_eq!(text.matches("/beside").count(), 200);
    assert_eq!(text.matches("/apart").count(), 200);
    let dropped = shared.dropped_backlog.load(Relaxed);
    assert!(dropped > 50_000, "{dropped}");
    assert_eq!(text.lines().count() as u64 + dropped, 200_400);
}

#[test]
fn a_log_that_nobody_writes_is_bounded_whoever_logs() {
    let (shared, writer, queue) = unwritten();
    let mut buffer = LogBuffer::new(LogFormat::Logfmt, Some(writer), &shared);
    for number in 0..100_000 {
        buffer.push(&of(&format!("app{number}"), b"/x"));
    }
    assert!(buffer.bytes.len() < HELD_BYTES + 1_024);
    drop(buffer);
    let batches = std::iter::from_fn(|| take(&queue, &shared));
    // Half of the places are others'; the last batch has one all the same.
    assert_eq!(batches.count(), QUEUED_BATCHES / 2 + 1);
    assert_eq!(shared.waiting.load(Relaxed), 0);
}

#[test]
fn a_torn_line_is_ended_before_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut sink = Sink::new(append_to(&path));
    sink.torn = true;
    sink.write(b"at=info\n").unwrap();
    assert_eq!(fs::read_to_string(path).unwrap(), "\nat=info\n");
    assert!(!sink.torn);
}

#[test]
fn a_log_that_is_off_takes_lines_and_keeps_none() {
    let off = settings::Log {
        access: AccessLog::Off,
        format: LogFormat::Json,
    };
    let log = Log::open(&off, None).unwrap();
    let mut buffer = log.buffer();
    assert!(!buffer.enabled());
    buffer.push(&line(b"/x"));
    assert!(buffer.bytes.is_empty());
    log.close(DEADLINE);
}
