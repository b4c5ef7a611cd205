//! Packets between nodes: one ping, or a stream of them beside an action, with every missing reply known by its number.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use super::{Node, process};

/// A stream of pings that runs until [`Pings::finish`].
#[derive(Debug)]
pub struct Pings {
    child: Child,
    output: PathBuf,
    what: String,
}

/// What a stream of pings saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How many replies came.
    pub received: usize,
    /// The numbers of the requests without a reply; the last request may still have been under way and does not count.
    pub lost: Vec<u32>,
}

impl Node<'_> {
    /// One ping to `address` with a second's patience.
    pub fn ping(&self, address: &str) -> Result<()> {
        let Err(error) = self.exec(&format!("ping -n -c 1 -W 1 {address}")) else { return Ok(()) };
        let text = format!("{error:#}");
        // Somebody on the way may have said why.
        let why = text.lines().find(|line| line.starts_with("From ") || line.contains("ping: ")).unwrap_or("no reply");
        bail!("{} does not reach {address}: {why}", self.name())
    }

    /// Pings `address` a hundred times a second until told to finish.
    pub fn pings(&self, address: &str) -> Result<Pings> {
        let output = self.logs().join(format!("ping-{}-{}.log", self.name(), address.replace(':', "_")));
        let file = File::create(&output)?;
        // Without this, ping's buffered lines would be seen in blocks only.
        let mut command = self.background(&["stdbuf", "-oL", "ping", "-n", "-i", "0.01", address])?;
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn().context("cannot run ping")?;
        let pings = Pings { child, output, what: format!("pings from {} to {address}", self.name()) };
        pings.wait_for_replies(1)?;
        Ok(pings)
    }
}

/// A tcpdump that runs until it is dropped.
#[derive(Debug)]
pub struct PacketWatch {
    child: Child,
    output: PathBuf,
}

impl Node<'_> {
    /// Begins to look for packets on an interface; `filter` is in tcpdump's words (pcap-filter).
    pub fn watch_packets(&self, interface: &str, filter: &str) -> Result<PacketWatch> {
        let name = format!("packets-{}-{interface}-{}", self.name(), filter.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
        let (output, errors) = (self.logs().join(format!("{name}.log")), self.logs().join(format!("{name}.err")));
        let mut command = self.background(&["tcpdump", "-l", "-n", "-i", interface, filter])?;
        let child = command.stdin(Stdio::null()).stdout(File::create(&output)?).stderr(File::create(&errors)?).spawn();
        let watch = PacketWatch { child: child.context("cannot run tcpdump")?, output };
        process::wait_until(Duration::from_secs(10), "tcpdump listens", || {
            let said = std::fs::read_to_string(&errors)?;
            ensure!(said.contains("listening on"), "tcpdump (package tcpdump) says: {said}");
            Ok(())
        })?;
        Ok(watch)
    }
}

impl PacketWatch {
    /// What it has seen so far, a line a packet.
    pub fn seen(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.output)?)
    }
}

impl Drop for PacketWatch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Pings {
    /// Waits until `more` further replies have come, so that a story knows that time has passed.
    pub fn wait_for_replies(&self, more: usize) -> Result<()> {
        let before = self.replies()?.len();
        process::wait_until(Duration::from_secs(20), &format!("{more} more replies: {}", self.what), || {
            let now = self.replies()?.len();
            ensure!(now >= before + more, "{} came", now - before);
            Ok(())
        })
    }

    fn replies(&self) -> Result<BTreeSet<u32>> {
        let text = std::fs::read_to_string(&self.output)?;
        let numbers = text
            .lines()
            .filter(|line| line.contains(" time="))
            .filter_map(|line| line.split_once("icmp_seq=")?.1.split(' ').next()?.parse().ok());
        Ok(numbers.collect())
    }

    /// Ends the stream and counts.
    pub fn finish(mut self) -> Result<Report> {
        process::signal(self.child.id(), Signal::INT);
        self.child.wait()?;
        let replies = self.replies()?;
        let text = std::fs::read_to_string(&self.output)?;
        let sent = text.lines().find_map(|line| line.split_once(" packets transmitted")?.0.parse::<u32>().ok());
        let sent = sent.with_context(|| format!("{} ended badly: {text}", self.what))?;
        Ok(Report { received: replies.len(), lost: (1..sent).filter(|number| !replies.contains(number)).collect() })
    }

    /// Ends the stream, which must have lost nothing.
    pub fn finish_without_loss(self) -> Result<()> {
        let what = self.what.clone();
        let Report { received, lost } = self.finish()?;
        ensure!(lost.is_empty(), "{what}: {} of {} lost: numbers {lost:?}", lost.len(), received + lost.len());
        Ok(())
    }
}

impl Drop for Pings {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
