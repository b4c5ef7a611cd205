//! One world of the soak: a margay, its datastore, its peers, and what must be true in a calm.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::sync::mpsc as std_mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use ipnet::IpNet;
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot, watch};

use super::kernel;
use super::measure::{Sample, Trend};
use super::model::{Best, Model};
use super::speaker::{Heard, Order, Speaker, Standing};
use crate::lab::etcd::Etcd;
use crate::lab::process::wait_until;
use crate::live::daemon::{self, internal};
use crate::live::remote::bgp_peer;
use crate::live::{Daemon, PeerPlan, Plan};
use crate::story::Dice;

/// Everything must be as the model says so long after the last trouble: a session that was lost may be held idle for half a minute, and
/// what a restarted margay has adopted waits for those that do not come.
const CALM: Duration = Duration::from_secs(120);
/// Orders that may wait for a speaker.
const ORDERS: usize = 64;
/// Differences that an error names.
const NAMED: usize = 8;
/// Where BGPPeers are in etcd.
pub const BGP_PEERS: &str = "/calico/resources/v3/projectcalico.org/bgppeers";

/// Which trouble there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// margay runs all the time, with etcd.
    Steady,
    /// margay is killed and ended, with files.
    Restarting,
}

/// A speaker, from outside.
#[derive(Debug)]
pub struct Handle {
    /// Who it is.
    pub plan: PeerPlan,
    orders: mpsc::Sender<Order>,
    standing: watch::Receiver<Standing>,
}

impl Handle {
    /// Gives an order.
    pub fn tell(&self, order: Order) -> Result<()> {
        self.orders.blocking_send(order).context("a speaker has ended")
    }

    /// How it is.
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    fn heard(&self) -> Result<Heard> {
        let (reply, heard) = oneshot::channel();
        self.tell(Order::Tell(reply))?;
        heard.blocking_recv().context("a speaker has ended")
    }
}

/// See the module.
pub struct World {
    /// Which one.
    pub kind: Kind,
    /// The margay.
    pub daemon: Daemon,
    /// Its datastore, where that is etcd.
    pub etcd: Option<Etcd>,
    /// The peers, in the order of the model's members.
    pub peers: Vec<Handle>,
    /// What they say.
    pub model: Model,
    /// Chooses what happens.
    pub dice: Dice,
    /// How often what has happened.
    pub events: BTreeMap<&'static str, u64>,
    /// Routes that strangers have added.
    pub foreign: BTreeSet<IpNet>,
    observers: Vec<Handle>,
    samples: Vec<Sample>,
    began: Instant,
    calms: u64,
    checked: u64,
    /// Ends by itself with the last sender of orders.
    _speakers: JoinHandle<()>,
    /// Nobody ever speaks: waiting for a word is a pause.
    pause: (std_mpsc::Sender<()>, std_mpsc::Receiver<()>),
    _folder: TempDir,
}

impl World {
    /// Everybody starts.
    pub fn new(kind: Kind, seed: u64) -> Result<Self> {
        crate::live::furnish();
        let mut dice = Dice(seed);
        let model = Model::new(&mut dice);
        let observers = vec![internal(100), internal_6()];
        let all: Vec<PeerPlan> = model.members.iter().map(|member| member.plan.clone()).chain(observers.clone()).collect();
        let folder = TempDir::new()?;
        let etcd = (kind == Kind::Steady).then(|| etcd(&folder, &all)).transpose()?;
        let environment = etcd.iter().flat_map(|etcd| {
            [("ETCD_ENDPOINTS", etcd.url()), ("DATASTORE_TYPE", "etcdv3".to_owned())].map(|(name, value)| (name.to_owned(), value))
        });
        let plan =
            Plan { peers: all, peers_elsewhere: etcd.is_some(), environment: environment.collect(), kernel: true, ..Plan::default() };
        let (daemon, began) = (plan.start()?, Instant::now());
        let (mut speakers, mut handles) = (Vec::new(), Vec::new());
        for (at, plan) in daemon.peers.iter().enumerate() {
            let (orders, ordered) = mpsc::channel(ORDERS);
            let (standing, seen) = watch::channel(Standing::default());
            let target = daemon.address(plan.address.is_ipv4());
            speakers.push(match model.members.get(at) {
                Some(member) => Speaker::peer(member, target, ordered, standing),
                None => Speaker::observer(plan.clone(), target, ordered, standing),
            });
            handles.push(Handle { plan: plan.clone(), orders, standing: seen });
        }
        let observers = handles.split_off(model.members.len());
        let (events, foreign, samples) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
        let (_speakers, pause, _folder) = (run(speakers)?, std_mpsc::channel(), folder);
        let peers = handles;
        Ok(Self {
            kind,
            daemon,
            etcd,
            peers,
            model,
            dice,
            events,
            foreign,
            observers,
            samples,
            began,
            calms: 0,
            checked: 0,
            _speakers,
            pause,
            _folder,
        })
    }

    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        let _ = self.pause.1.recv_timeout(time);
    }

    /// Counts an event.
    pub fn happens(&mut self, what: &'static str) {
        *self.events.entry(what).or_default() += 1;
    }

    /// All is well again, or comes to be: what must be held is held, nothing else is, and the process is measured.
    pub fn calm(&mut self) -> Result<()> {
        let best = self.model.best();
        wait_until(CALM, "all sessions are up", || self.everybody_is_up())?;
        wait_until(CALM, "the kernel holds what the model says", || self.kernel_is_right(&best))?;
        for observer in &self.observers {
            let wanted = self.to_be_observed(&best, observer.plan.address.is_ipv6());
            wait_until(CALM, "an observer holds what the model says", || as_observed(&observer.heard()?, &wanted))?;
        }
        let log = self.daemon.log();
        ensure!(
            !log.contains("panicked"),
            "margay has panicked: {}",
            log.lines().filter(|line| line.contains("panicked")).collect::<String>()
        );
        self.calms += 1;
        // In the kernel, and once more at the observer of its family.
        self.checked += 2 * best.len() as u64;
        let sample = Sample::of(&self.daemon, self.began.elapsed())?;
        println!(
            "{}: calm {} after {} s: {} routes, {:.1} MiB, {} descriptors, {} threads, {} tasks",
            self.kind.name(),
            self.calms,
            self.began.elapsed().as_secs(),
            best.len(),
            sample.memory,
            sample.descriptors,
            sample.threads,
            sample.tasks
        );
        self.samples.push(sample);
        Ok(())
    }

    fn everybody_is_up(&mut self) -> Result<()> {
        self.daemon.alive()?;
        let down: Vec<String> =
            self.everybody().filter(|handle| !handle.standing().settled).map(|handle| handle.plan.name.clone()).collect();
        ensure!(down.is_empty(), "{} are down: {}", down.len(), down[..down.len().min(NAMED)].join(" "));
        let faults: Vec<String> = self.everybody().filter_map(|handle| handle.standing().fault).collect();
        if !faults.is_empty() {
            bail!("margay sent what a strict reader complains of: {}", faults.join("; "));
        }
        Ok(())
    }

    fn everybody(&self) -> impl Iterator<Item = &Handle> {
        self.peers.iter().chain(&self.observers)
    }

    fn kernel_is_right(&self, best: &BTreeMap<IpNet, Best>) -> Result<()> {
        let held = kernel::held()?;
        let wanted = best.iter().map(|(prefix, best)| (*prefix, best.hops.clone())).collect();
        differ("the kernel", &held, &wanted)?;
        let foreign = kernel::foreign()?;
        ensure!(foreign == self.foreign, "strangers' routes: wanted {:?}, found {foreign:?}", self.foreign);
        Ok(())
    }

    /// What an observer of this family is to be told. What others have in the kernel is announced as this node's own, as Calico's BIRD does.
    fn to_be_observed(&self, best: &BTreeMap<IpNet, Best>, ipv6: bool) -> BTreeMap<IpNet, Best> {
        let own = self.foreign.iter().map(|prefix| (*prefix, Best::default()));
        let all = best.iter().map(|(prefix, best)| (*prefix, best.clone())).chain(own);
        all.filter(|(prefix, _)| matches!(prefix, IpNet::V6(_)) == ipv6).collect()
    }

    /// What margay says itself when something has gone wrong: its peers that are down, its problems, and where its log is kept.
    pub fn last_words(&self) -> Result<String> {
        let name = self.kind.name();
        let log = std::env::temp_dir().join(format!("margay-soak-{name}-{}.log", std::process::id()));
        std::fs::write(&log, self.daemon.log())?;
        // A margay that has ended answers nothing.
        let peers = self.daemon.api("/v1/peers").unwrap_or_default();
        let down: Vec<String> =
            peers.as_array().into_iter().flatten().filter(|peer| peer["state"] != "Established").map(ToString::to_string).collect();
        let known = peers.as_array().map_or(0, Vec::len);
        let problems = self.daemon.api_text("/v1/problems").unwrap_or_default();
        Ok(format!("{name}: {known} peers, down: {down:#?}\n{name}: problems: {problems}\n{name}: margay's log: {}", log.display()))
    }

    /// The end: what it has come to, and whether anything has grown.
    pub fn finish(self) -> Result<String> {
        let lost: u64 = self.everybody().map(|handle| handle.standing().losses).sum();
        let events: Vec<String> = self.events.iter().map(|(what, count)| format!("{what} {count}")).collect();
        let name = self.kind.name();
        let mut report = format!(
            "{name}: {} s, {} calms, {} routes checked: none lost, none extra\n{name}: {}; sessions lost {lost}\n",
            self.began.elapsed().as_secs(),
            self.calms,
            self.checked,
            events.join(", ")
        );
        if self.kind == Kind::Steady {
            let trend = Trend::of(&self.samples);
            report.push_str(&format!("{name}: {trend}\n"));
            trend.is_flat().with_context(|| report.clone())?;
        }
        Ok(report)
    }
}

impl Kind {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Restarting => "restarting",
        }
    }
}

/// The best path of each prefix, as an observer in our AS is told it.
fn as_observed(heard: &Heard, wanted: &BTreeMap<IpNet, Best>) -> Result<()> {
    let fits = |prefix: &IpNet, path: &[u32]| {
        let best = wanted.get(prefix);
        best.is_some_and(|best| path.len() == usize::from(best.length) && path.first().is_none_or(|asn| best.ases.contains(asn)))
    };
    let wrong: Vec<String> =
        heard.iter().filter(|(prefix, path)| !fits(prefix, path)).map(|(prefix, path)| format!("{prefix} {path:?}")).collect();
    let lacking: Vec<String> = wanted.keys().filter(|prefix| !heard.contains_key(*prefix)).map(ToString::to_string).collect();
    ensure!(wrong.is_empty() && lacking.is_empty(), "the observer: {}", differences(&lacking, &wrong));
    Ok(())
}

fn differ(who: &str, found: &kernel::Held, wanted: &kernel::Held) -> Result<()> {
    let lacking: Vec<String> =
        wanted.iter().filter(|(prefix, _)| !found.contains_key(*prefix)).map(|(prefix, _)| prefix.to_string()).collect();
    let wrong: Vec<String> = found
        .iter()
        .filter(|(prefix, hops)| wanted.get(*prefix) != Some(*hops))
        .map(|(prefix, hops)| format!("{prefix} via {hops:?}, not {:?}", wanted.get(prefix)))
        .collect();
    ensure!(wrong.is_empty() && lacking.is_empty(), "{who}: {}", differences(&lacking, &wrong));
    Ok(())
}

fn differences(lacking: &[String], wrong: &[String]) -> String {
    let some = |list: &[String]| list[..list.len().min(NAMED)].join(", ");
    format!("{} lost ({}), {} extra or wrong ({})", lacking.len(), some(lacking), wrong.len(), some(wrong))
}

fn etcd(folder: &TempDir, peers: &[PeerPlan]) -> Result<Etcd> {
    let etcd = Etcd::start(&folder.path().join("etcd"))?;
    let entries: Vec<(String, String)> =
        peers.iter().map(|peer| (format!("{BGP_PEERS}/{}", peer.name), bgp_peer(peer).to_string())).collect();
    etcd.put(&entries)?;
    Ok(etcd)
}

fn internal_6() -> PeerPlan {
    let address = Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 0x3f);
    PeerPlan { name: "internal-v6".to_owned(), address: address.into(), asn: daemon::ASN, annotations: vec![], key: None }
}

/// All speakers on a thread of their own: what the director waits for does not keep them.
fn run(speakers: Vec<Speaker>) -> Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let all = move || {
        runtime.block_on(async {
            let tasks: Vec<_> = speakers.into_iter().map(|speaker| tokio::spawn(speaker.run())).collect();
            futures::future::join_all(tasks).await;
        });
    };
    Ok(std::thread::Builder::new().name("speakers".into()).spawn(all)?)
}
