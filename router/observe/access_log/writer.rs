//! From the data threads' buffers to standard output or a file.
//!
//! Each data thread fills a [`LogBuffer`] of its own and hands it over whole,
//! once it holds [`BATCH_BYTES`] or is [`BATCH_FLUSHES`] ticks old, through one
//! bounded channel to the one writer thread, which hands the emptied buffer
//! back. So the log's memory is bounded by the channel, a line costs its data
//! thread a copy, and a disk that is slow, full or gone costs lines, which are
//! counted, and nothing else.
//!
//! A thread has at most as many batches in the channel as it has places left for
//! others. One whose batch finds no place keeps it, tries again with each line,
//! and takes lines meanwhile up to [`HELD_BYTES`], each app's up to its share
//! ([`Shares`]): so an app that logs more than can be written loses lines, and
//! one that logs little loses none.
//!
//! A log file comes open, and comes anew when somebody moved it: it is opened
//! by whoever has the right to, never here.

use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::Line;
use super::shares::Shares;
use crate::feed::messages::Sample;
use crate::observe::metrics::{Kind, Merge, Row, sample};
use crate::settings::{self, AccessLog, LogFormat};

/// A buffer this full is handed over at once.
const BATCH_BYTES: usize = 48 * 1024;
/// What a buffer is made with: a batch and one more long line.
const BUFFER_BYTES: usize = 64 * 1024;
/// What a buffer may hold while the writer is behind, and one more long line. One
/// that grew beyond is not kept.
const HELD_BYTES: usize = 2 * BUFFER_BYTES;
/// Flushes (100 ms apart) after which even a nearly empty buffer is handed over.
const BATCH_FLUSHES: u32 = 2;
/// Batches waiting for the writer, over all threads: 64 of 64 KiB are 4 MiB; of
/// the largest that there are, 8 MiB.
const QUEUED_BATCHES: usize = 64;
/// Empty buffers waiting to be used again, for each thread.
const SPARE_BUFFERS: usize = 4;
/// How long a sink that would block may take before its batch is dropped.
const PATIENCE: Duration = Duration::from_secs(1);

static WRITTEN: Row = Row {
    name: "portico_access_log_lines_total",
    kind: Kind::Counter,
    unit: "lines",
    labels: &[],
    merge: Merge::Sum,
    help: "Access log lines written to their file or to standard output.",
};

static DROPPED: Row = Row {
    name: "portico_access_log_dropped_total",
    kind: Kind::Counter,
    unit: "lines",
    labels: &["reason"],
    merge: Merge::Sum,
    help: "Access log lines lost: the writer could not keep up (backlog; first those of the apps that log most), could not write (write_error: a full disk, a closed pipe), or there were more than the limit access_log lets through (limit). Requests are never held up for the log.",
};

/// The log's metrics.
pub(crate) fn rows() -> [&'static Row; 2] {
    [&WRITTEN, &DROPPED]
}

#[derive(Debug, Default)]
struct Shared {
    written: AtomicU64,
    dropped_backlog: AtomicU64,
    dropped_error: AtomicU64,
    dropped_limit: AtomicU64,
    /// Batches in the channel.
    waiting: AtomicUsize,
    /// The file to go on with.
    fresh: Mutex<Option<Arc<File>>>,
    closing: AtomicBool,
}

impl Shared {
    fn fresh(&self) -> MutexGuard<'_, Option<Arc<File>>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
enum Message {
    Batch(Batch),
    /// Look at the flags.
    Wake,
}

#[derive(Debug)]
struct Batch {
    bytes: Vec<u8>,
    lines: u64,
    /// Batches of its thread in the channel.
    waiting: Arc<AtomicUsize>,
    spare: SyncSender<Vec<u8>>,
}

/// The access log of a process. Closed by [`Log::close`].
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    format: LogFormat,
    /// `None`: the log is off.
    writer: Option<SyncSender<Message>>,
    done: Mutex<Receiver<()>>,
}

impl Log {
    /// Starts the log's writer; `file` is the open file of a log that is one.
    ///
    /// # Errors
    /// There should be a file and is none, standard output cannot be had, the
    /// thread not be started.
    pub fn open(settings: &settings::Log, file: Option<File>) -> io::Result<Log> {
        let sink = match &settings.access {
            AccessLog::Off => None,
            AccessLog::Stdout => Some(Sink::stdout()?),
            AccessLog::File(_) => {
                let missing = || io::Error::new(io::ErrorKind::NotFound, "no open file was given");
                Some(Sink::new(file.ok_or_else(missing)?))
            }
        };
        let shared = Arc::new(Shared::default());
        let (ended, done) = sync_channel(1);
        let writer = match sink {
            None => None,
            Some(sink) => {
                let (sender, queue) = sync_channel(QUEUED_BATCHES);
                let shared = Arc::clone(&shared);
                thread::Builder::new()
                    .name("access-log".into())
                    .spawn(move || {
                        drain(&queue, sink, &shared);
                        // Nobody may be waiting any more.
                        let _ = ended.try_send(());
                    })?;
                Some(sender)
            }
        };
        Ok(Log {
            shared,
            format: settings.format,
            writer,
            done: Mutex::new(done),
        })
    }

    /// A buffer for one data thread.
    pub fn buffer(&self) -> LogBuffer {
        LogBuffer::new(self.format, self.writer.clone(), &self.shared)
    }

    /// Goes on in this file, since somebody moved the one before away (SIGHUP).
    pub fn reopen(&self, file: Arc<File>) {
        *self.shared.fresh() = Some(file);
        self.wake();
    }

    /// Writes what was handed over and ends the writer, within `patience`.
    /// Buffers hand over what they hold when dropped or flushed; do that first.
    pub fn close(&self, patience: Duration) {
        self.shared.closing.store(true, Relaxed);
        self.wake();
        if self.writer.is_some() {
            // A writer that is stuck in a write ends with the process.
            let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = done.recv_timeout(patience);
        }
    }

    fn wake(&self) {
        if let Some(writer) = &self.writer {
            // A full queue wakes the writer just as well.
            let _ = writer.try_send(Message::Wake);
        }
    }

    /// Lines written and dropped, for the feed's report.
    pub fn samples(&self) -> Vec<Sample> {
        let value = |cell: &AtomicU64| cell.load(Relaxed) as f64;
        vec![
            sample(&WRITTEN, &[], value(&self.shared.written)),
            sample(&DROPPED, &["backlog"], value(&self.shared.dropped_backlog)),
            sample(
                &DROPPED,
                &["write_error"],
                value(&self.shared.dropped_error),
            ),
            sample(&DROPPED, &["limit"], value(&self.shared.dropped_limit)),
        ]
    }
}

/// One data thread's part of the log. Hands over what it holds when dropped.
#[derive(Debug)]
pub struct LogBuffer {
    bytes: Vec<u8>,
    lines: u64,
    flushes: u32,
    format: LogFormat,
    writer: Option<SyncSender<Message>>,
    spare: Receiver<Vec<u8>>,
    give_back: SyncSender<Vec<u8>>,
    shared: Arc<Shared>,
    /// Batches of this thread in the channel.
    waiting: Arc<AtomicUsize>,
    /// The last batch found no place.
    behind: bool,
    shares: Shares,
}

impl LogBuffer {
    fn new(
        format: LogFormat,
        writer: Option<SyncSender<Message>>,
        shared: &Arc<Shared>,
    ) -> LogBuffer {
        let (give_back, spare) = sync_channel(SPARE_BUFFERS);
        LogBuffer {
            bytes: Vec::new(),
            lines: 0,
            flushes: 0,
            format,
            writer,
            spare,
            give_back,
            shared: Arc::clone(shared),
            waiting: Arc::default(),
            behind: false,
            shares: Shares::new(),
        }
    }

    /// Whether the log is on: what is only gathered for a line may be left out
    /// when it is not.
    #[inline]
    pub fn enabled(&self) -> bool {
        self.writer.is_some()
    }

    /// Bytes of memory it has.
    pub fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// A line that there would have been is left out, by an operator's limit.
    pub fn leave_out(&mut self) {
        self.shared.dropped_limit.fetch_add(1, Relaxed);
    }

    /// Adds a line. Never waits.
    #[inline]
    pub fn push(&mut self, line: &Line<'_>) {
        if self.writer.is_none() {
            return;
        }
        if self.behind {
            return self.push_behind(line);
        }
        line.write(self.format, &mut self.bytes);
        self.lines += 1;
        if self.bytes.len() >= BATCH_BYTES {
            self.hand_over();
        }
    }

    #[cold]
    fn push_behind(&mut self, line: &Line<'_>) {
        self.hand_over();
        if !self.behind {
            return self.push(line);
        }
        let held = self.bytes.len();
        let slot = self.shares.slot(line.app);
        if !self.shares.may(slot, HELD_BYTES.saturating_sub(held)) {
            self.shared.dropped_backlog.fetch_add(1, Relaxed);
            return;
        }
        line.write(self.format, &mut self.bytes);
        self.lines += 1;
        self.shares.took(slot, self.bytes.len() - held);
    }

    /// Called about every 100 ms by the thread that owns the buffer: hands over
    /// lines that have waited for two calls.
    #[inline]
    pub fn flush(&mut self) {
        if self.lines == 0 {
            return;
        }
        self.flushes += 1;
        if self.flushes >= BATCH_FLUSHES {
            self.hand_over();
        }
    }

    /// Hands over whatever is held, if there is a place for it. Never waits.
    pub fn hand_over(&mut self) {
        let waiting = self.shared.waiting.load(Relaxed) + self.waiting.load(Relaxed);
        self.offer(waiting < QUEUED_BATCHES);
    }

    fn offer(&mut self, has_place: bool) {
        let Some(writer) = self.writer.as_ref().filter(|_| self.lines > 0) else {
            return;
        };
        if has_place {
            let empty = self.spare.try_recv();
            let empty = empty.unwrap_or_else(|_| Vec::with_capacity(BUFFER_BYTES));
            let batch = Batch {
                bytes: std::mem::replace(&mut self.bytes, empty),
                lines: self.lines,
                waiting: Arc::clone(&self.waiting),
                spare: self.give_back.clone(),
            };
            // Counted first: the writer may have it before this goes on.
            batch.enters(&self.shared);
            let Err(refused) = writer.try_send(Message::Batch(batch)) else {
                (self.lines, self.flushes, self.behind) = (0, 0, false);
                return;
            };
            let (TrySendError::Full(refused) | TrySendError::Disconnected(refused)) = refused;
            self.take_back(refused);
        }
        if !self.behind {
            self.behind = true;
            self.shares.begin();
        }
    }

    fn take_back(&mut self, refused: Message) {
        if let Message::Batch(batch) = refused {
            batch.leaves(&self.shared);
            let empty = std::mem::replace(&mut self.bytes, batch.bytes);
            // Enough spares: it is freed.
            let _ = self.give_back.try_send(empty);
        }
    }
}

impl Drop for LogBuffer {
    fn drop(&mut self) {
        // Nothing comes after it: it may have the last place.
        self.offer(true);
        self.shared.dropped_backlog.fetch_add(self.lines, Relaxed);
    }
}

impl Batch {
    fn enters(&self, shared: &Shared) {
        self.waiting.fetch_add(1, Relaxed);
        shared.waiting.fetch_add(1, Relaxed);
    }

    fn leaves(&self, shared: &Shared) {
        self.waiting.fetch_sub(1, Relaxed);
        shared.waiting.fetch_sub(1, Relaxed);
    }
}

fn recycle(batch: Batch) {
    let Batch {
        mut bytes, spare, ..
    } = batch;
    if bytes.capacity() <= HELD_BYTES {
        bytes.clear();
        // Enough spares, or the thread is gone: the buffer is freed.
        let _ = spare.try_send(bytes);
    }
}

/// The writer thread: ends when every sender is gone, or when closing and the
/// queue is empty.
fn drain(queue: &Receiver<Message>, mut sink: Sink, shared: &Shared) {
    loop {
        let message = match queue.try_recv() {
            Ok(message) => message,
            Err(_) if shared.closing.load(Relaxed) => return,
            Err(_) => match queue.recv() {
                Ok(message) => message,
                Err(_) => return,
            },
        };
        if let Some(file) = shared.fresh().take() {
            sink.file = file;
            sink.torn = false;
        }
        let Message::Batch(batch) = message else {
            continue;
        };
        batch.leaves(shared);
        match sink.write(&batch.bytes) {
            Ok(()) => shared.written.fetch_add(batch.lines, Relaxed),
            Err(_) => shared.dropped_error.fetch_add(batch.lines, Relaxed),
        };
        recycle(batch);
    }
}

/// Where lines go.
#[derive(Debug)]
struct Sink {
    file: Arc<File>,
    /// The last write ended inside a line.
    torn: bool,
    /// The last write failed; said once, not for every batch.
    failing: bool,
}

impl Sink {
    fn new(file: File) -> Sink {
        Sink {
            file: Arc::new(file),
            torn: false,
            failing: false,
        }
    }

    fn stdout() -> io::Result<Sink> {
        // A descriptor of its own, past the standard library's lock and buffer.
        let file = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
        Ok(Sink::new(File::from(file)))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let result = self.write_lines(bytes);
        match &result {
            Err(error) if !self.failing => {
                tracing::error!(%error, "cannot write the access log; lines are dropped and counted");
            }
            Ok(()) if self.failing => tracing::info!("the access log is being written again"),
            _ => {}
        }
        self.failing = result.is_err();
        result
    }

    fn write_lines(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.torn {
            self.write_some(b"\n")?;
            self.torn = false;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.write_some(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) => {
                    let written = &bytes[..bytes.len() - rest.len()];
                    self.torn = written.last().is_some_and(|&byte| byte != b'\n');
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match (&*self.file).write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => return Ok(written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait()?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Standard output may be a terminal or pipe that someone made non-blocking.
    fn wait(&self) -> io::Result<()> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let patience = Timespec {
            tv_sec: PATIENCE.as_secs() as i64,
            tv_nsec: 0,
        };
        match poll(
            &mut [PollFd::new(&*self.file, PollFlags::OUT)],
            Some(&patience),
        ) {
            Ok(0) => Err(io::ErrorKind::TimedOut.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
