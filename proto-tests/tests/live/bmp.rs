//! BMP: what pmacct's collector makes of it, and collectors that do not read, or come back.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use margay::types::PerFamily;
use margay::wire::{self, Kind, Message};
use proto_tests::lab::process::wait_until;
use proto_tests::live::message::{NEXT_HOP, announce, as_path, communities, next_hop, notification, origin, withdraw};
use proto_tests::live::{Daemon, Heard, Neighbour, Plan, enclosed};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::session::WAIT;

const COLLECTOR: &str = "127.0.0.1:1799";

fn arguments(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// pmacct's collector and its log.
struct Pmacct {
    child: Child,
    folder: TempDir,
}

impl Pmacct {
    fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("config");
        let log = folder.path().join("bmp.json");
        let (address, port) = COLLECTOR.split_once(':').context("no port")?;
        let text = format!(
            "bmp_daemon_ip: {address}\nbmp_daemon_port: {port}\nbmp_daemon_msglog_file: {}\nbmp_daemon_msglog_output: json\nlogfile: {}\n",
            log.display(),
            folder.path().join("log").display()
        );
        fs::write(&config, text)?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "/usr/sbin/pmbmpd", "-f"]).arg(&config);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("pmbmpd (package pmacct)")?;
        Ok(Self { child, folder })
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("bmp.json")
    }

    /// All that it has logged of messages of this type.
    fn said(&self, kind: &str) -> Result<Vec<Value>> {
        let text = fs::read_to_string(self.path()).unwrap_or_default();
        // The last line may not be whole yet.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines: Vec<Value> = whole.lines().map(serde_json::from_str).collect::<Result<_, _>>().with_context(|| whole.to_owned())?;
        Ok(lines.into_iter().filter(|line| line["bmp_msg_type"] == kind).collect())
    }

    /// Waits for a message for which `is` holds.
    fn wait(&self, kind: &str, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
        wait_until(WAIT, what, || {
            let said = self.said(kind)?;
            let found = said.iter().find(|line| is(line)).cloned();
            found.with_context(|| said.iter().map(|line| format!("{line}\n")).collect::<String>())
        })
    }
}

impl Drop for Pmacct {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn z1_pmacct_reads_sessions_routes_of_every_view_and_numbers() {
    enclosed(|| {
        let pmacct = Pmacct::start()?;
        let flags = arguments(&["--bmp", COLLECTOR, "--bmp-views", "pre,post,out,loc", "--bmp-statistics", "1"]);
        let mut daemon = Plan { arguments: flags, ..Plan::default() }.external(2).start()?;
        let [one, two] = &daemon.peers.clone()[..] else { unreachable!("two peers") };
        let mut first = Neighbour::establish(&daemon, one)?;
        let _second = Neighbour::establish(&daemon, two)?;
        let (peer, other) = (one.address.to_string(), two.address.to_string());
        let init = pmacct.wait("init", "Initiation", |_| true)?;
        ensure!(init.to_string().contains("margay") && init.to_string().contains("bench"), "{init}");
        let up = pmacct.wait("peer_up", "Peer Up", |line| line["peer_ip"] == peer.as_str())?;
        ensure!(up["peer_asn"] == one.asn && up["local_port"] == 1790, "{up}");
        first.send(&announce(
            &[origin(0), as_path(&[one.asn, 400_000]), next_hop(NEXT_HOP), communities(&[0xfde8_0001])],
            &["10.1.0.0/16"],
        ))?;
        let route = |pmacct: &Pmacct, what: &str, is: &dyn Fn(&Value) -> bool| {
            pmacct.wait("route_monitor", what, |line| line["ip_prefix"] == "10.1.0.0/16" && is(line))
        };
        let from_peer = |line: &Value| line["peer_ip"] == peer.as_str();
        let pre = route(&pmacct, "before policy", &|line| from_peer(line) && line["log_type"] == "update" && line["is_post"] == 0)?;
        ensure!(pre["as_path"] == format!("{} 400000", one.asn) && pre["bgp_nexthop"] == NEXT_HOP.to_string(), "{pre}");
        ensure!(pre["comms"] == "65000:1", "{pre}");
        route(&pmacct, "after policy", &|line| from_peer(line) && line["log_type"] == "update" && line["is_post"] == 1)?;
        route(&pmacct, "Loc-RIB", &|line| line["is_loc"] == 1 && line["log_type"] == "update")?;
        let sent = route(&pmacct, "Adj-RIB-Out", &|line| line["peer_ip"] == other.as_str() && line["is_out"] == 1)?;
        ensure!(sent["as_path"] == format!("{} {} 400000", daemon.asn, one.asn), "{sent}");
        pmacct
            .wait("stats", "numbers", |line| line["peer_ip"] == peer.as_str() && line["counter_type"] == 7 && line["counter_value"] == 1)?;
        first.send(&withdraw(&["10.1.0.0/16"]))?;
        route(&pmacct, "withdrawn", &|line| from_peer(line) && line["log_type"] == "withdraw")?;
        first.send(&notification(6, 4, &[]))?;
        let down = pmacct.wait("peer_down", "Peer Down", |line| line["peer_ip"] == peer.as_str())?;
        ensure!(down["reason_type"] == 3, "the peer's NOTIFICATION: {down}");
        daemon.end(Signal::TERM)?;
        pmacct.wait("term", "Termination", |_| true)?;
        Ok(())
    });
}

/// What a collector of our own has been told on one connection.
#[derive(Debug, Default)]
struct Told {
    kinds: Vec<u8>,
    /// Peer Up by peer type.
    up: Vec<u8>,
    /// Prefixes before policy whose communities are those of the round, and prefixes of the Loc-RIB.
    pre: BTreeSet<String>,
    loc: BTreeSet<String>,
    /// End-of-RIB for IPv4 in these views: flags of the per-peer header behind its type.
    ended: BTreeSet<(u8, u8)>,
}

impl Told {
    /// Takes one message, header and all.
    fn take(&mut self, message: &[u8], round: u32) -> Result<()> {
        let (kind, body) = (message[5], &message[6..]);
        self.kinds.push(kind);
        match kind {
            3 => self.up.push(body[0]),
            0 => {
                let context =
                    wire::Context { four_octet_as: true, families: PerFamily { ipv4: true, ipv6: true }, ..wire::Context::default() };
                let Message::Update(update) = Message::decode(Kind::Update, &body[42 + 19..], &context)? else { bail!("no UPDATE") };
                self.ended.extend(update.end_of_rib.filter(|family| family.afi.0 == 1).map(|_| (body[0], body[1])));
                for (attributes, list) in &update.announced {
                    let table = if body[0] == 3 { &mut self.loc } else { &mut self.pre };
                    if attributes.communities.iter().any(|community| community.0 == mark(round)) {
                        table.extend(list.iter().map(|nlri| nlri.prefix.to_string()));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn read_message(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut message = vec![0; 6];
    stream.read_exact(&mut message)?;
    ensure!(message[0] == 3, "version {}", message[0]);
    let length = u32::from_be_bytes(message[1..5].try_into()?) as usize;
    message.resize(length, 0);
    stream.read_exact(&mut message[6..])?;
    Ok(message)
}

/// A number of `/metrics`.
fn metric(daemon: &Daemon, name: &str) -> Result<u64> {
    let text = daemon.api_text("/metrics")?;
    let line = text.lines().find(|line| line.starts_with(name)).with_context(|| format!("no {name} in {text}"))?;
    Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
}

const PREFIXES: usize = 1000;

/// The community of a round.
fn mark(round: u32) -> u32 {
    0xabcd_0000 | round
}

/// Announces every prefix anew, each in a message of its own with many communities, and waits until the other peer has heard the last of them.
fn flap(round: u32, speaker: &mut Neighbour, listener: &mut Neighbour) -> Result<()> {
    for number in 0..PREFIXES as u32 {
        // None shares its attributes with another.
        let filling: Vec<u32> = (0..200).map(|filling| 0x0001_0000 | filling).chain([mark(round), 0x0002_0000 | number]).collect();
        let attributes = [origin(0), as_path(&[speaker.plan.asn]), next_hop(NEXT_HOP), communities(&filling)];
        speaker.send(&announce(&attributes, &[&format!("10.{}.{}.0/24", number / 250, number % 250)]))?;
    }
    let mark = mark(round).to_be_bytes();
    let mut heard = 0;
    while heard < PREFIXES {
        match listener.hear(WAIT)? {
            Heard::Message(2, body) => heard += usize::from(body.windows(4).any(|octets| octets == mark)),
            Heard::Message(..) => {}
            other => bail!("{heard} prefixes of round {round}, then {other:?}"),
        }
    }
    Ok(())
}

/// Rounds that a silent collector misses.
const ROUNDS: u64 = 60;

#[test]
fn z1_a_collector_that_does_not_read_holds_up_nobody_and_is_told_everything_when_it_comes_back() {
    enclosed(|| {
        let address: SocketAddr = COLLECTOR.parse()?;
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_recv_buffer_size(64 << 10)?;
        socket.bind(&address.into())?;
        socket.listen(1)?;
        let listener = std::net::TcpListener::from(socket);
        let flags = arguments(&["--bmp", COLLECTOR, "--bmp-views", "pre,loc"]);
        let daemon = Plan { arguments: flags, ..Plan::default() }.external(2).start()?;
        let (silent, _) = listener.accept()?;
        let mut speaker = Neighbour::establish(&daemon, &daemon.peers[0])?;
        let mut other = Neighbour::establish(&daemon, &daemon.peers[1])?;
        // Messages of some 900 octets in two views: soon more than the sockets hold.
        let mut told = 0;
        let mut round = 0;
        loop {
            round += 1;
            flap(round, &mut speaker, &mut other)?;
            let now = metric(&daemon, "margay_bmp_octets_total")?;
            if now == told {
                break;
            }
            ensure!(round < 60, "the collector has not read an octet, and yet it has been told {now}");
            told = now;
        }
        let resident = daemon.resident()?;
        // Attribute sets that nobody uses go within a second: what a few rounds leave behind says nothing yet.
        for _ in 0..ROUNDS {
            round += 1;
            flap(round, &mut speaker, &mut other)?;
        }
        ensure!(metric(&daemon, "margay_bmp_octets_total")? == told, "nothing more was encoded for it");
        let queued = ROUNDS * 2 * 900 * PREFIXES as u64;
        let grown = daemon.resident()?.saturating_sub(resident);
        ensure!(grown < queued / 3, "{grown} octets more, where a queue would have {queued}");
        ensure!(metric(&daemon, "margay_bmp_connected")? == 1, "it is slow, no more");

        drop(silent);
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(WAIT))?;
        let mut told = Told::default();
        while !(told.pre.len() == PREFIXES && told.loc.len() == PREFIXES && told.ended.contains(&(3, 0)) && told.ended.contains(&(0, 0))) {
            let message =
                read_message(&mut stream).with_context(|| format!("{} and {}, {:?}", told.pre.len(), told.loc.len(), told.ended))?;
            told.take(&message, round)?;
        }
        ensure!(told.kinds.first() == Some(&4), "Initiation comes first: {:?}", &told.kinds[..4]);
        told.up.sort_unstable();
        ensure!(told.up == [0, 0, 3], "two peers and the Loc-RIB: {:?}", told.up);
        let health = daemon.margay(&["show", "health"])?;
        let words = String::from_utf8_lossy(&health.stdout).into_owned();
        ensure!(words.contains(&format!("bmp        {COLLECTOR} connected, since ")), "{words}");
        let events = daemon.api_text("/v1/events")?;
        ensure!(events.contains("\"event\":\"collector\"") && events.contains("\"connected\":false"), "{events}");
        Ok(())
    });
}
