//! Forwarding never breaks, shown by force: margays are killed, ended and replaced under traffic, with each kind of router at the other end.
//! No kernel route is removed anywhere, no packet of a running stream is lost, and no router hears a withdrawal.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proto_tests::lab::process::{Signal, wait_until};
use proto_tests::lab::suite::{self, Story};
use proto_tests::lab::{Lab, Pings, RouteWatch, Witness};
use proto_tests::story::{Dice, fresh_seed};

fn main() -> ExitCode {
    suite::main(&[
        Story { name: "bird", file: "topologies/tor-bird.clab.yml", run: bird },
        Story { name: "frr", file: "topologies/tor-frr.clab.yml", run: frr },
        Story { name: "gobgp", file: "topologies/tor-gobgp.clab.yml", run: gobgp },
        Story { name: "margay", file: "topologies/quickstart.clab.yml", run: margay },
        Story { name: "unfit_successor", file: "topologies/tor-bird.clab.yml", run: unfit_successor },
        Story { name: "kill_a_hundred_times", file: "topologies/quickstart.clab.yml", run: kill_a_hundred_times },
    ])
}

/// By then a margay that has been started again has its sessions back, and End-of-RIB on each.
const RECOVERY: Duration = Duration::from_secs(60);

/// How a margay goes and another comes.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// `kill -9`, and a start.
    Killed,
    /// SIGTERM, and a start, as a service manager does it.
    Ended,
    /// Another copy of the binary is started with `--replace` while the old one runs.
    Replaced,
}

const WAYS: [Way; 3] = [Way::Killed, Way::Ended, Way::Replaced];

/// Everything that could notice a restart.
struct Notice {
    pings: Vec<Pings>,
    kernels: Vec<(String, RouteWatch)>,
}

impl Notice {
    /// Streams between these, and the kernels of all nodes that route.
    fn begin(lab: &Lab, streams: &[(&str, &str)]) -> Result<Self> {
        let routers = lab.nodes().filter(|node| node.program().is_ok());
        let kernels = routers.map(|node| Ok((node.name().to_owned(), node.watch_routes()?))).collect::<Result<_>>()?;
        let pings = streams.iter().map(|(from, to)| lab.node(from)?.pings(to)).collect::<Result<_>>()?;
        Ok(Self { pings, kernels })
    }

    /// Lets this many hundredths of a second pass.
    fn pass(&self, replies: usize) -> Result<()> {
        self.pings[0].wait_for_replies(replies)
    }

    /// Nothing was lost, nothing was removed.
    fn end(self) -> Result<()> {
        self.pings.into_iter().try_for_each(Pings::finish_without_loss)?;
        for (node, kernel) in &self.kernels {
            ensure!(kernel.removed()?.is_empty(), "{node}: routes were removed from the kernel: {:#?}", kernel.removed()?);
        }
        Ok(())
    }
}

/// The program of `node` goes this way and is back, not yet recovered.
fn go(lab: &mut Lab, node: &str, way: Way, notice: &Notice) -> Result<()> {
    let signal = match way {
        Way::Killed => Signal::KILL,
        Way::Ended => Signal::TERM,
        Way::Replaced => return replace(lab, node),
    };
    lab.kill(node, signal)?;
    notice.pass(50)?;
    lab.restart(node)
}

fn replace(lab: &mut Lab, node: &str) -> Result<()> {
    lab.node(node)?.exec("sh -c 'cp -f $(command -v margay) /run/margay-new'")?;
    let words = &lab.node(node)?.spec().command;
    lab.hand_over(node, &format!("/run/margay-new {} --replace", words[1..].join(" ")))?;
    let program = std::fs::read_link(format!("/proc/{}/exe", lab.node(node)?.program()?))?;
    ensure!(program.ends_with("margay-new"), "{node} runs {}", program.display());
    Ok(())
}

/// `victim` goes in each way, under `streams`; the other nodes hear nothing of it.
fn goes_in_every_way(lab: &mut Lab, victim: &str, streams: &[(&str, &str)], prefixes: &[&str]) -> Result<()> {
    lab.expect()?;
    let others: Vec<String> =
        lab.nodes().filter(|node| node.program().is_ok() && node.name() != victim).map(|node| node.name().to_owned()).collect();
    let witnesses: Vec<Witness> = others.iter().map(|name| Witness::of(lab.node(name)?, prefixes)).collect::<Result<_>>()?;
    let notice = Notice::begin(lab, streams)?;
    for way in WAYS {
        let what = || format!("{victim} is {way:?}");
        go(lab, victim, way, &notice).with_context(what)?;
        lab.node(victim)?.recovers(RECOVERY).with_context(what)?;
        lab.expect().with_context(what)?;
        // For the sweep of the past life's routes, and for what should not happen.
        notice.pass(200)?;
        for witness in &witnesses {
            witness.heard_nothing(lab.node(witness.name())?).with_context(what)?;
        }
    }
    notice.end()?;
    // The witnesses are awake: a route that does go is heard of.
    for witness in &witnesses {
        hears(lab, victim, witness)?;
    }
    Ok(())
}

/// An address borrowed from nobody's block comes at `origin` and goes: the witness says so.
fn hears(lab: &Lab, origin: &str, witness: &Witness) -> Result<()> {
    let (origin, node) = (lab.node(origin)?, lab.node(witness.name())?);
    let device = origin.exec("sh -c 'ls /sys/class/net | grep ^cali | head -1'")?;
    let prefix = PROBE;
    origin.exec(&format!("ip route add {prefix} dev {} scope link metric 1024", device.trim()))?;
    wait_until(RECOVERY, "a new route comes", || {
        ensure!(node.learned()?.contains_key(prefix), "{} has no path to {prefix}", node.name());
        Ok(())
    })?;
    origin.exec(&format!("ip route del {prefix} dev {}", device.trim()))?;
    wait_until(RECOVERY, "its withdrawal is heard", || {
        ensure!(!witness.withdrawals(node)?.is_empty(), "{} heard nothing", node.name());
        Ok(())
    })
}

/// What comes and goes at the end of a story.
const PROBE: &str = "10.244.200.255/32";

/// Both families, within the rack and beyond it.
const RACK: [(&str, &str); 6] = [
    ("wl1a", "10.244.2.0"),
    ("wl2b", "10.244.1.255"),
    ("client", "10.244.1.0"),
    ("wl1a", "fd00:10:244:2::a"),
    ("client", "fd00:10:244:1::b"),
    ("client", "fd00:10:244:2::a"),
];
/// What node1 announces.
const OF_NODE1: [&str; 3] = ["10.244.1.0/26", "fd00:10:244:1::/122", PROBE];

fn bird(lab: &mut Lab) -> Result<()> {
    goes_in_every_way(lab, "node1", &RACK, &OF_NODE1)
}

fn frr(lab: &mut Lab) -> Result<()> {
    goes_in_every_way(lab, "node1", &RACK, &OF_NODE1)
}

/// GoBGP writes nothing to the kernel: its way back is written by hand, and the way to it is what the nodes learned from it.
fn gobgp(lab: &mut Lab) -> Result<()> {
    let tor = lab.node("tor")?;
    for line in [
        "ip addr add 203.0.113.1/32 dev lo",
        "ip addr add 2001:db8:203::1/128 dev lo nodad",
        "ip route add 10.244.1.0/26 via 172.20.0.1",
        "ip route add fd00:10:244:1::/122 via fd00:172:20::1",
    ] {
        tor.exec(line)?;
    }
    let streams = [
        ("wl1a", "10.244.2.0"),
        ("wl2b", "10.244.1.255"),
        ("wl1a", "203.0.113.1"),
        ("wl1a", "fd00:10:244:2::a"),
        ("wl1b", "2001:db8:203::1"),
    ];
    goes_in_every_way(lab, "node1", &streams, &OF_NODE1)
}

/// A node, and then the router that it has its other sessions with.
fn margay(lab: &mut Lab) -> Result<()> {
    goes_in_every_way(lab, "node1", &RACK, &OF_NODE1)?;
    lab.expect()?;
    let notice = Notice::begin(lab, &RACK)?;
    let prefixes = ["203.0.113.0/24", "2001:db8:203::/64"];
    let witness = Witness::of(lab.node("node2")?, &prefixes)?;
    for way in WAYS {
        go(lab, "tor", way, &notice).with_context(|| format!("tor is {way:?}"))?;
        lab.node("tor")?.recovers(RECOVERY)?;
        notice.pass(200)?;
        witness.heard_nothing(lab.node("node2")?).with_context(|| format!("tor is {way:?}"))?;
    }
    lab.expect()?;
    notice.end()
}

/// What cannot take the place does not get it: without resources, as another node, or unasked; and the one that runs goes on.
fn unfit_successor(lab: &mut Lab) -> Result<()> {
    lab.expect()?;
    let node1 = lab.node("node1")?;
    let (program, since) = (node1.program()?, node1.exec("margay show health --json")?);
    for (line, why) in [
        ("margay run --node node1 --replace --resources /etc/nowhere", "not replaced, the daemon that runs goes on"),
        ("margay run --node node2 --replace", "is that of node `node1`, this one would be `node2`"),
        ("margay run --node node1", "take its place with --replace"),
    ] {
        let error = node1.exec(line).err().with_context(|| format!("`{line}` succeeded"))?;
        ensure!(format!("{error:#}").contains(why), "`{line}`: {error:#}");
    }
    ensure!(node1.program()? == program && node1.exec("margay show health --json")? == since, "it did not go on: {since}");
    lab.expect()
}

/// One margay after the other is killed at random moments, its own restart among them, a hundred times.
fn kill_a_hundred_times(lab: &mut Lab) -> Result<()> {
    const KILLS: usize = 100;
    let seed = match std::env::var("MARGAY_RESTARTS_SEED") {
        Ok(seed) => seed.parse().context("MARGAY_RESTARTS_SEED")?,
        Err(_) => fresh_seed(),
    };
    let again = || format!("again: MARGAY_RESTARTS_SEED={seed} cargo test --workspace --test restarts -- kill_a_hundred_times");
    kill(lab, KILLS, &mut Dice(seed)).with_context(again)
}

fn kill(lab: &mut Lab, wanted: usize, dice: &mut Dice) -> Result<()> {
    lab.expect()?;
    let notice = Notice::begin(lab, &RACK)?;
    let (mut kills, mut rounds) = (0, 0);
    let mut below = |bound: usize| dice.below(bound as u64) as usize;
    while kills < wanted {
        let victim = ["node1", "node2", "node3", "tor"][below(4)];
        // Again and again before it has recovered. Then another one's turn: two at once may cost routes (RFC 4724 section 4.2).
        for _ in 0..(1 + below(11)).min(wanted - kills) {
            lab.kill(victim, Signal::KILL)?;
            notice.pass(below(5))?;
            lab.restart(victim)?;
            notice.pass(below(60))?;
            kills += 1;
        }
        lab.node(victim)?.recovers(RECOVERY).with_context(|| format!("{victim} after {kills} kills"))?;
        rounds += 1;
    }
    lab.expect()?;
    notice.pass(300)?;
    notice.end()?;
    println!("    {kills} kills in {rounds} rounds, nothing lost");
    Ok(())
}
