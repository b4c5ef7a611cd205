//! The kernel's side of the wall: writes routes, and tells links, addresses and routes.
//!
//! ```text
//! FibSyncer ─Output::Write→ Command::Write ─→ ┌────────────┐ ─ many messages a send ─→ kernel
//! FibSyncer ─Output::Resync→ Command::Resync → │   thread   │ ←─ errors, by sequence ──
//! everyone  ←──── Vec<KernelEvent>, bounded ── │  "kernel"  │ ←─ dumps, multicast ─────
//!                                              └────────────┘
//! ```
//! How the runtime drives it:
//! - [`spawn`] is called once, in the network namespace that is meant (its sockets stay there). It answers a sender of
//!   [`Command`]s and a receiver of batches of [`KernelEvent`]s. Dropping either ends the thread; when the thread dies the
//!   receiver ends.
//! - The first thing to arrive is the whole state: links, then addresses, then next-hop objects of ours, then routes, each `Begin` … `End`. Every event goes
//!   to the FibSyncer and the Origin machine, and (except [`KernelEvent::Written`], [`KernelEvent::Flushed`] and [`KernelEvent::Object`]) to every shard.
//! - The FibSyncer's `Write` and `Resync` outputs go to the sender as they are; it never has more than two batches under way, so
//!   a capacity of [`COMMANDS`] never blocks it. The events of one channel must reach the FibSyncer in their order:
//!   `Written` comes after every event that the kernel told before it.
//! - A receiver that falls behind is waited for; then the kernel's own queue overruns (`ENOBUFS`) and all is told anew.
//!
//! Our own writes are not echoed (a filter inside the kernel drops what carries our port number), so a full table costs no
//! notifications; what strangers do to our routes is heard. Table and protocol stay the same while the process runs.

mod dry_run;
mod md5;
mod message;
mod monitor;
mod netlink;
mod object;
pub mod plumbing;

use std::io;

use tokio::sync::mpsc;
use tracing::{error, info, warn};

pub use dry_run::DryRun;
pub use md5::Md5Drops;
pub use netlink::NetlinkKernel;

use crate::fib::{KernelEvent, KernelOp, KernelOps};
use monitor::{DUMP_ATTEMPTS, DUMPS, Dump, GROUPS, View, read_dump};
use netlink::Route;

/// Something that routes can be written to: the kernel, or nothing ([`DryRun`]).
pub trait Kernel: Send {
    /// Carries out the operations and answers which failed: index and errno (positive). Operations of distinct keys are
    /// independent: deletions are carried out last, the others in the order given.
    fn apply(&mut self, ops: &[KernelOp]) -> Vec<(usize, i32)>;
}

/// How [`spawn`] is to work.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our routing table; table main is watched too.
    pub table: u32,
    /// Protocol number of our routes.
    pub protocol: u8,
    /// Write nothing; what would be written is the FibSyncer's to tell.
    pub dry_run: bool,
    /// Bytes that the kernel may queue for us before it drops and we ask for everything anew.
    pub receive_buffer: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { table: message::TABLE_MAIN, protocol: 12, dry_run: false, receive_buffer: 32 << 20 }
    }
}

/// What the kernel's thread is told.
#[derive(Clone, Debug)]
pub enum Command {
    /// Write these and answer [`KernelEvent::Written`].
    Write(KernelOps),
    /// Tell everything anew.
    Resync,
    /// Give a sign of life.
    Ping(mpsc::Sender<()>),
}

/// Capacity of the channel of commands.
pub const COMMANDS: usize = 8;
/// Capacity of the channel of events, in batches of at most [`BATCH`].
const EVENTS: usize = 64;
/// Events a batch.
const BATCH: usize = 512;
/// Room for a datagram; the kernel makes none above 32 KB.
const DATAGRAM: usize = 64 * 1024;

/// Bit of `CAP_NET_ADMIN` in a set of capabilities.
const NET_ADMIN: u32 = 12;

/// Whether this process has `CAP_NET_ADMIN`, without which every write fails; yes where the system does not tell.
pub fn may_write() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective(&status).is_none_or(|set| set & 1 << NET_ADMIN != 0)
}

/// The effective capabilities in the words of `/proc/PID/status`.
fn effective(status: &str) -> Option<u64> {
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

/// Opens the sockets in the network namespace of the calling thread and starts the thread that serves them.
///
/// Errors name the socket operation that failed; writing without `CAP_NET_ADMIN` is no error here, each write then fails
/// with `EPERM`.
pub fn spawn(settings: &Settings) -> io::Result<(mpsc::Sender<Command>, mpsc::Receiver<Vec<KernelEvent>>)> {
    let (commands, command_receiver) = mpsc::channel(COMMANDS);
    let (event_sender, events) = mpsc::channel(EVENTS);
    let worker = Worker::open(settings, event_sender)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    std::thread::Builder::new().name("kernel".into()).spawn(move || {
        if let Err(error) = runtime.block_on(worker.run(command_receiver)) {
            error!(%error, "kernel: reading from netlink failed for good");
        }
    })?;
    Ok((commands, events))
}

/// The receiver of events is gone: nobody listens any more.
struct NobodyListens;

/// The thread's state.
struct Worker {
    kernel: Box<dyn Kernel>,
    live: Route,
    dumps: Route,
    filtered: bool,
    view: View,
    pending: Vec<KernelEvent>,
    events: mpsc::Sender<Vec<KernelEvent>>,
    buffer: Vec<u8>,
    resync: bool,
}

impl Worker {
    fn open(settings: &Settings, events: mpsc::Sender<Vec<KernelEvent>>) -> io::Result<Self> {
        let live = Route::open(GROUPS, settings.receive_buffer)?;
        live.set_nonblocking()?;
        let dumps = Route::open(0, 1 << 20)?;
        let filtered = dumps.filter_dumps();
        let kernel: Box<dyn Kernel> = if settings.dry_run {
            Box::new(DryRun)
        } else {
            let kernel = NetlinkKernel::open()?;
            live.ignore_echo_of(kernel.port())?;
            Box::new(kernel)
        };
        let view = View::new(settings.table, settings.protocol);
        Ok(Self { kernel, live, dumps, filtered, view, pending: vec![], events, buffer: vec![0; DATAGRAM], resync: true })
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> io::Result<()> {
        let readable = self.live.readiness()?;
        loop {
            if self.resync {
                self.resync = false;
                if self.tell_everything().await?.is_err() {
                    return Ok(());
                }
            }
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    None => return Ok(()),
                    Some(Command::Resync) => self.resync = true,
                    // Whoever asked may be gone.
                    Some(Command::Ping(reply)) => _ = reply.try_send(()),
                    Some(Command::Write(ops)) => if self.write(ops).await?.is_err() { return Ok(()) },
                },
                () = self.events.closed() => return Ok(()),
                guard = readable.readable() => {
                    let mut guard = guard?;
                    if self.listen().await?.is_err() {
                        return Ok(());
                    }
                    guard.clear_ready();
                }
            }
        }
    }

    /// Writes a batch. What was told before its end goes out before its answer.
    async fn write(&mut self, KernelOps { batch, mut ops }: KernelOps) -> io::Result<Result<(), NobodyListens>> {
        if self.listen().await?.is_err() {
            return Ok(Err(NobodyListens));
        }
        ops.iter_mut().for_each(|op| self.spare_foreign(op));
        let failed = self.kernel.apply(&ops);
        let mut failures = failed.iter().map(|(index, _)| *index).peekable();
        for (index, op) in ops.iter().enumerate() {
            if failures.next_if_eq(&index).is_none() {
                self.view.wrote(op);
            }
        }
        if self.listen().await?.is_err() {
            return Ok(Err(NobodyListens));
        }
        self.pending.push(KernelEvent::Written { batch, failed });
        Ok(self.flush().await)
    }

    /// A stranger may have taken a key since the batch was made: such a replacement becomes a creation, which fails.
    fn spare_foreign(&self, op: &mut KernelOp) {
        if let KernelOp::Replace(route) = op
            && self.view.is_foreign(&route.key)
        {
            *op = KernelOp::Create(route.clone());
        }
    }

    /// Reads live messages until there are no more.
    async fn listen(&mut self) -> io::Result<Result<(), NobodyListens>> {
        loop {
            match self.live.receive(&mut self.buffer) {
                Ok(datagram) => {
                    message::Messages(datagram).for_each(|message| self.view.hear(message, &mut self.pending));
                    self.resync |= self.view.take_doubt();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(self.flush().await),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    warn!("kernel: notifications were lost; reading everything anew");
                    self.resync = true;
                }
                Err(error) => return Err(error),
            }
            if self.pending.len() >= BATCH && self.flush().await.is_err() {
                return Ok(Err(NobodyListens));
            }
        }
    }

    async fn tell_everything(&mut self) -> io::Result<Result<(), NobodyListens>> {
        for what in DUMPS {
            for attempt in 1.. {
                self.view.begin(what, &mut self.pending);
                match self.dump(what).await? {
                    Err(nobody) => return Ok(Err(nobody)),
                    Ok(true) if attempt < DUMP_ATTEMPTS => info!(?what, "kernel: changed while it was read; reading it again"),
                    Ok(_) => break,
                }
            }
            self.view.end(what, &mut self.pending);
        }
        Ok(self.flush().await)
    }

    /// Lists one kind of things; true when the kernel says that it changed meanwhile.
    async fn dump(&mut self, what: Dump) -> io::Result<Result<bool, NobodyListens>> {
        let mut interrupted = false;
        for request in what.requests(self.view.tables(), self.filtered) {
            self.dumps.send(&request)?;
            loop {
                let progress = read_dump(&self.dumps, &mut self.buffer, &mut self.view, &mut self.pending)?;
                interrupted |= progress.interrupted;
                if self.pending.len() >= BATCH && self.flush().await.is_err() {
                    return Ok(Err(NobodyListens));
                }
                if progress.done {
                    break;
                }
            }
        }
        Ok(Ok(interrupted))
    }

    async fn flush(&mut self) -> Result<(), NobodyListens> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.pending);
        self.events.send(batch).await.map_err(|_| NobodyListens)
    }
}

/// What datagrams of the kernel would be heard as, live: for tests, and for whoever wants to read a recording. They may hold anything.
pub fn events_of<'a>(datagrams: impl Iterator<Item = &'a [u8]>) -> Vec<KernelEvent> {
    let mut view = View::new(message::TABLE_MAIN, 12);
    let mut events = Vec::new();
    for message in datagrams.flat_map(message::Messages) {
        view.hear(message, &mut events);
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_status() {
        assert_eq!(effective("Name:\tmargay\nCapPrm:\t0\nCapEff:\t0000000000001400\n"), Some(0x1400));
        assert_eq!(effective("CapEff:\tx\n"), None);
    }
}
