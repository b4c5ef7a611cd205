//! The runtime: tokio tasks, threads, sockets and signals around the machines.
//!
//! ```text
//! files ─▶ compiler ─(newest config)─▶ Speaker ─diff─▶ peers, listeners, origin, FibSyncer, shards
//! kernel monitor ─▶ kernel task ─┬▶ FibSyncer task ─writes─▶ kernel writer
//! control API ─▶ agents task ─────┼▶ origin task ─local routes─▶ shard tasks
//!                                └▶ shard tasks (next hops)
//! socket ◀▶ peer task ─batches─▶ shard task ─frames (pulled)─▶ peer task
//!                └─▶ recovery task           └─Loc-RIB changes (pulled)─▶ FibSyncer task
//! ```
//!
//! Beside them: [`bmp`] tells collectors what the shards say when asked, `pulse` asks each of these for a sign of life, [`memory_guard`] keeps
//! the process below its ceiling of memory, `manager` tells the service manager.
//!
//! Tasks run on half of the cores' worth of workers; with fewer than four cores that is one, the main thread. A shard that has much to do moves
//! to a thread of its own, and the kernel's writer, BFD and the service manager have theirs.
//!
//! Peers and shards keep their machines' deadlines with an [`alarm`]: many sessions share its wakes.
//!
//! Await graph: sockets → peer → shard; a shard waits for nobody. A panic in a peer's task ends that peer; one in a
//! shard or the FibSyncer ends the process, whose kernel routes stay.

pub mod agents;
pub mod alarm;
pub mod bfd_thread;
pub mod bmp;
mod connections;
pub mod directory;
mod fib_task;
mod handover_task;
pub mod history;
mod listener;
pub mod log;
mod manager;
pub mod memory_guard;
pub mod message;
pub mod metrics;
mod peer_task;
pub mod pulse;
mod questions;
pub mod recording;
pub mod rehearsal;
pub mod settings;
mod shard_meters;
mod shard_task;
mod socket;
mod speaker;
mod talk;
mod tasks;
mod word_queue;

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use crate::calico::{Compiler, Environment};
use crate::config::NodeConfig;
use crate::control::node_status;
use crate::datastore::{self, Judgement, StatusWriter, Workloads};
use crate::fib::FibSyncer;
use crate::node::first_telling::PastLife;
use crate::node::recovery::Recovery;
use crate::node::wiring::rib_config;
use crate::origin::{self, Origin};
use crate::rib::Shard;
use crate::runtime::agents::AgentsTask;
use crate::runtime::bmp::Collectors;
use crate::runtime::directory::{Copies, Directory};
use crate::runtime::fib_task::FibTask;
use crate::runtime::handover_task::HandoverTask;
use crate::runtime::history::Chronicle;
use crate::runtime::listener::{ListenTable, Listener};
use crate::runtime::manager::Manager;
use crate::runtime::memory_guard::MemoryGuardTask;
use crate::runtime::message::{Order, Question, RecoveryStatus, ShardMessage};
use crate::runtime::metrics::Metrics;
use crate::runtime::pulse::{Pulse, Silent};
use crate::runtime::recording::Recording;
use crate::runtime::settings::Settings;
use crate::runtime::shard_task::{Apart, ShardTask};
use crate::runtime::speaker::{Inboxes, Parts, Speaker, listen_addresses};
use crate::runtime::tasks::{Compiled, KernelAudience};
use crate::types::ShardId;

/// Messages that may wait for a shard. Each may hold what a peer said in one read, decoded: with a table coming in, as much memory as this
/// allows is in use, so it is no more than keeps a shard busy.
const SHARD_INBOX: usize = 64;
const INBOX: usize = 256;
/// Orders of operators that may wait for the one being carried out.
const ORDERS: usize = 8;

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// What keeps it from starting, with the next step: a busy port, a missing capability, a control socket in use.
pub async fn run(settings: Settings) -> Result<()> {
    if !settings.dry_run && !crate::kernel::may_write() {
        bail!(
            "writing routes to the kernel needs CAP_NET_ADMIN: run as root, give the capability, or only look on with --dry-run, or with --no-fib where no packet passes"
        );
    }
    let manager = Manager::start().context("cannot start the thread for the service manager")?;
    let mut signals = Signals::new(manager.clone())?;
    let now = jiff::Timestamp::now();
    let (directory, watched) = watch::channel(Arc::new(Directory {
        node: settings.datastore.node.clone(),
        managed: manager.is_some(),
        started: now,
        configured: now,
        ..Directory::default()
    }));
    if let Some(folder) = &settings.bird_sockets {
        crate::control::bird::serve(folder, &watched)?;
    }
    let recording = settings.record.as_deref().map(Recording::start).transpose()?;
    let metrics = Metrics::default();
    feel_the_pulse(&directory, manager.clone(), &metrics);
    MemoryGuardTask::start(settings.memory_limit, &directory, &metrics);
    let registry = Arc::new(metrics.registry());
    if let Some(address) = settings.metrics {
        crate::control::metrics::serve(address, Arc::clone(&registry), watched.clone()).await?;
    }
    if let Some(address) = settings.page {
        crate::control::page::serve(address, settings.page_beyond_loopback, watched.clone()).await?;
    }
    let control = crate::control::serve(&settings.socket, registry, watched)?;
    let (compiler, copied) = mpsc::channel(ORDERS);
    let (compiled, datastore, verdicts) = start_compiler(&settings, &metrics, directory.subscribe(), copied, recording.as_ref())?;
    directory.send_modify(|now| {
        let copies = Copies { compiler: Some(compiler), ..now.copies.clone() };
        *now = Arc::new(Directory { datastore: Some(datastore), verdicts: Some(verdicts), copies, ..Directory::clone(now) });
    });
    let Some((config, compiled)) = first_config(compiled, &metrics, &directory, &mut signals).await else {
        return Ok(());
    };
    let collectors = Collectors::start(&settings.bmp, &directory, &metrics);
    let (orders, ordered) = mpsc::channel(ORDERS);
    let (mut speaker, done) = start_speaker(&settings, Arc::clone(&config), directory, (orders, recording.clone()), metrics).await?;
    // Only looked at: a configuration that has come since `config` is news to `supervise`.
    let problems = Arc::clone(&compiled.borrow().problems);
    speaker.start(problems).await;
    let agents = speaker.directory().agents.clone();
    signals.say(Manager::ready);
    info!(node = settings.datastore.node, "running");
    supervise(&mut speaker, (config, compiled), done, control, ordered, &mut signals).await?;
    if let Some(manager) = manager {
        manager.stopping().await;
    }
    collectors.stop().await;
    agents::keep(agents).await;
    speaker.stop().await;
    if let Some(recording) = recording {
        recording.finish().await;
    }
    Ok(())
}

/// Starts to ask machines for signs of life, and to keep the service manager's status true.
fn feel_the_pulse(directory: &watch::Sender<Arc<Directory>>, manager: Option<Manager>, metrics: &Metrics) {
    let (told, silent) = watch::channel(Silent::default());
    directory.send_modify(|now| *now = Arc::new(Directory { silent: Some(silent.clone()), ..Directory::clone(now) }));
    if let Some(manager) = manager.clone() {
        tokio::spawn(manager.tell_status(directory.subscribe(), silent));
    }
    tokio::spawn(Pulse::new(directory.subscribe(), told, manager, metrics.clone()).run());
}

async fn supervise(
    speaker: &mut Speaker,
    (config, mut compiled): (Arc<NodeConfig>, watch::Receiver<Compiled>),
    mut done: oneshot::Receiver<()>,
    mut control: tokio::task::JoinHandle<Result<()>>,
    mut ordered: mpsc::Receiver<Order>,
    signals: &mut Signals,
) -> Result<()> {
    let mut recovering = true;
    let mut in_force = Some(config);
    loop {
        tokio::select! {
            changed = compiled.changed() => {
                changed.context("the compiler has ended")?;
                let newest = compiled.borrow_and_update().clone();
                match newest.config {
                    Some(config) if in_force.as_ref() != Some(&config) => {
                        in_force = Some(Arc::clone(&config));
                        signals.say(Manager::reloading);
                        speaker.apply(config, newest.problems).await;
                        signals.say(Manager::ready);
                    }
                    _ => speaker.problems(newest.problems),
                }
            }
            Some(order) = ordered.recv() => speaker.carry_out(order).await,
            event = speaker.next() => speaker.take(event).await,
            _ = &mut done, if recovering => {
                recovering = false;
                speaker.recovered().await;
            }
            ended = &mut control => {
                ended.context("the control API panicked")?.context("the control API has ended")?;
                bail!("the control API has ended");
            }
            name = signals.next() => {
                info!(signal = name, "stopping: sessions close without a NOTIFICATION, kernel routes stay");
                return Ok(());
            }
        }
    }
}

/// Starts the datastore, the compiler behind it and what is written back: what is to be in force, how the datastore is, and who
/// takes operators' words about changes on trial.
fn start_compiler(
    settings: &Settings,
    metrics: &Metrics,
    directory: watch::Receiver<Arc<Directory>>,
    copies: mpsc::Receiver<Question<Compiler>>,
    recording: Option<&Recording>,
) -> Result<(watch::Receiver<Compiled>, watch::Receiver<datastore::Status>, mpsc::Sender<Judgement>)> {
    let mut machine = compiler_of(settings);
    // Before the first word of the datastore, so that no session is made without them and then again.
    let mut workloads = Workloads::new(&settings.datastore.variables);
    machine.set_workloads(Instant::now(), workloads.read().0.unwrap_or_default());
    let (found, selected) = mpsc::channel(1);
    tokio::spawn(workloads.watch(found));
    let meters = metrics.datastore.clone();
    let feed = datastore::start(&settings.datastore, settings.state.clone(), meters.clone())?;
    if let Some(writer) = StatusWriter::new(&settings.datastore)? {
        let task = node_status::Task { asked: feed.asked, directory, writer, problems: feed.complaints, meters };
        tokio::spawn(task.run());
    }
    let (newest, compiled) = watch::channel(Compiled::default());
    let recorder = recording.map(|recording| recording.machine("compiler"));
    tokio::spawn(tasks::compiler(machine, feed.inputs, selected, copies, newest, recorder));
    tokio::spawn(tasks::log_level(settings.log.clone(), compiled.clone()));
    Ok((compiled, feed.status, feed.verdicts))
}

/// The Compiler of this node, which knows no resource yet.
fn compiler_of(settings: &Settings) -> Compiler {
    let variables = &settings.datastore.variables;
    let of_variables = Environment::from_variables(|name| variables.exactly(name).map(str::to_owned));
    Compiler::new(settings.datastore.node.clone(), Environment { listen: settings.listen.clone(), ..of_variables })
}

/// Waits for the first configuration; says what is missing meanwhile. None when a signal came first.
async fn first_config(
    mut compiled: watch::Receiver<Compiled>,
    metrics: &Metrics,
    directory: &watch::Sender<Arc<Directory>>,
    signals: &mut Signals,
) -> Option<(Arc<NodeConfig>, watch::Receiver<Compiled>)> {
    loop {
        let newest = compiled.borrow_and_update().clone();
        if let Some(config) = newest.config {
            return Some((config, compiled));
        }
        if newest.spoken {
            signals.say(Manager::ready);
            metrics.problems(&newest.problems);
            for problem in newest.problems.iter() {
                warn!(%problem, "cannot start yet");
            }
            directory.send_modify(|now| *now = Arc::new(Directory { problems: newest.problems, ..Directory::clone(now) }));
        }
        tokio::select! {
            changed = compiled.changed() => if changed.is_err() { return None },
            _ = signals.next() => return None,
        }
    }
}

/// Starts every machine with the first configuration, in an order that tells the truth to peers: kernel and local
/// routes are known before the first session comes up (G3).
async fn start_speaker(
    settings: &Settings,
    config: Arc<NodeConfig>,
    directory: watch::Sender<Arc<Directory>>,
    (orders, recording): (mpsc::Sender<Order>, Option<Recording>),
    metrics: Metrics,
) -> Result<(Speaker, oneshot::Receiver<()>)> {
    let sockets = listener::open(&listen_addresses(&config))?;
    let seed = seed();
    let (fib, fib_inbox) = mpsc::channel(INBOX);
    let (changes, changed) = mpsc::channel(usize::from(settings.shards) * 4);
    let shards = start_shards((settings.shards, &config), seed, &changes, &metrics, recording.as_ref())?;
    let (operations, events) = crate::kernel::spawn(&crate::kernel::Settings {
        table: config.fib.table,
        protocol: config.fib.protocol,
        dry_run: settings.dry_run,
        ..crate::kernel::Settings::default()
    })?;
    let fib_syncer = FibSyncer::new(&config.fib, seed);
    let fib_syncer = match settings {
        Settings { no_fib: true, .. } => fib_syncer.idle(),
        Settings { dry_run: true, .. } => fib_syncer.looking_on(),
        Settings { next_hop_objects: true, .. } => fib_syncer.with_objects(),
        _ => fib_syncer,
    };
    let chronicle = Chronicle::start(metrics);
    let of = |name: &str| recording.as_ref().map(|recording| recording.machine(name));
    let fib_task = FibTask::new(fib_syncer, fib_inbox, changed, shards.clone(), operations.clone(), chronicle.clone()).recorded(of("fib"));
    tokio::spawn(ends_the_process("the FibSyncer", fib_task.run()));

    let (origin, origin_inbox) = mpsc::channel(INBOX);
    let (origin_ready, local_routes_told) = oneshot::channel();
    let (origin_copies, copied) = mpsc::channel(ORDERS);
    tokio::spawn(tasks::origin(Origin::new(), origin_inbox, copied, shards.clone(), origin_ready, of("origin")));
    origin.send(origin::Input::Configure(Arc::new(config.origin.clone()))).await.context("the origin task has ended")?;
    // What agents had told before our restart is there before the kernel's first word, and so before the first session.
    let agents = AgentsTask::start(settings, origin.clone(), chronicle.clone(), of("agents")).await;

    let (kernel_ready, kernel_told) = oneshot::channel();
    let (reach, reach_inbox) = mpsc::channel(INBOX);
    tokio::spawn(tasks::reach(reach_inbox, directory.subscribe()));
    let audience =
        KernelAudience { protocol: config.fib.protocol, fib: fib.clone(), origin: origin.clone(), shards: shards.clone(), reach };
    tokio::spawn(tasks::kernel(events, audience, kernel_ready));
    let past_life: PastLife = kernel_told.await.context("the kernel monitor ended before it had told the tables")?;
    local_routes_told.await.context("the origin task ended before it had told the local routes")?;
    if past_life.is_some() {
        info!(ipv4 = past_life.routes.ipv4, ipv6 = past_life.routes.ipv6, "adopting routes of a past life");
    }

    let (recovery, recovery_inbox) = mpsc::channel(INBOX);
    let (done, is_done) = oneshot::channel();
    let (waited_for, recovery_status) = watch::channel(RecoveryStatus::default());
    let (handover, handover_inbox) = mpsc::channel(INBOX);
    let (releases, released) = mpsc::channel(INBOX);
    tokio::spawn(HandoverTask::new(handover_inbox, handover.clone(), shards.clone(), releases).run());
    tokio::spawn(tasks::recovery(
        Recovery::new(past_life.is_some(), config.keep_without_peers),
        recovery_inbox,
        done,
        waited_for,
        handover.clone(),
    ));
    directory.send_modify(|now| {
        let copies = Copies { origin: Some(origin_copies), ..now.copies.clone() };
        let (recovery, kernel, agents) = (Some(recovery_status), Some(operations), Some(agents));
        *now = Arc::new(Directory { recovery, copies, kernel, agents, ..Directory::clone(now) });
    });
    let (listeners, table) = watch::channel(Arc::new(ListenTable { addresses: sockets.keys().copied().collect(), peers: Vec::new() }));
    tokio::spawn(Listener::new(table, sockets).run());
    let addresses = listen_addresses(&config).into_iter().map(|address| address.ip()).collect();
    let bfd = bfd_thread::spawn(seed, addresses).context("cannot start the thread for BFD")?;
    let parts = Parts {
        bfd,
        inboxes: Inboxes { shards, fib, origin, recovery, handover },
        released,
        directory,
        listeners,
        recovered: watch::channel(false).0,
        chronicle,
        seed,
        past_life,
        orders,
        recording,
    };
    Ok((Speaker::new(parts, config), is_done))
}

fn start_shards(
    (shards, config): (u16, &NodeConfig),
    seed: u64,
    changes: &mpsc::Sender<(ShardId, crate::fib::Input)>,
    metrics: &Metrics,
    recording: Option<&Recording>,
) -> Result<Vec<mpsc::Sender<ShardMessage>>> {
    let rib_config = Arc::new(rib_config(config));
    (0..shards)
        .map(|number| {
            let (sender, inbox) = mpsc::channel(SHARD_INBOX);
            let machine = Shard::new(ShardId(number), seed, Arc::clone(&rib_config));
            let recorder = recording.map(|recording| recording.machine(&format!("shard-{number}")));
            let task = ShardTask::new(ShardId(number), machine, inbox, changes.clone(), &metrics.shards).recorded(recorder);
            let apart = Apart::start(ShardId(number)).context("cannot start a shard's thread")?;
            tokio::spawn(ends_the_process("a shard", task.run(apart)));
            Ok(sender)
        })
        .collect()
}

/// Runs a task whose state is suspect after a panic: then the process ends, its routes stay, and its successor adopts them.
async fn ends_the_process(what: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    if let Err(error) = tokio::spawn(task).await
        && error.is_panic()
    {
        error!("{what} panicked; the process ends and kernel routes stay");
        std::process::exit(101);
    }
}

/// A seed that peers cannot guess: hash keys and jitter come from it.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

struct Signals {
    manager: Option<Manager>,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new(manager: Option<Manager>) -> Result<Self> {
        Ok(Self {
            manager,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Tells the service manager, if there is one.
    fn say(&self, word: fn(&Manager)) {
        if let Some(manager) = &self.manager {
            word(manager);
        }
    }

    async fn next(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => {
                    info!("SIGHUP: resources are watched, there is nothing to reload");
                    self.say(Manager::reloading);
                    self.say(Manager::ready);
                }
            }
        }
    }
}
