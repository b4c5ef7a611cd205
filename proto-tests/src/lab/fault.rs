//! Faults on a running lab: what goes wrong in a network, and its end.
//!
//! | fault | how | without it |
//! |---|---|---|
//! | a link is down | the end is set down; the other end loses its carrier | |
//! | packets are lost, one way | nftables, at the ingress of the end that would have got them | refused: nftables is missing |
//! | a link is slow | netem at the end that sends | refused: the kernel has no netem |
//! | a program dies, and comes back | a signal; the command of the lab file | |
//! | a node freezes, and thaws | SIGSTOP and SIGCONT for every process in it: the kernel goes on forwarding | |
//!
//! An interface that is set down loses more than its carrier: the kernel forgets its static routes. They are noted in the node and come
//! back with the link, as do global IPv6 addresses (`keep_addr_on_down`); those of a routing protocol are the protocol's to bring back.
//! Each fault leaves a word in the node's `/run/.lab/faults`, from which `lab status` reads it, and by which [`Lab::heal`] ends it.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use super::image::Missing;
use super::topology::End;
use super::{Lab, Node, process};

/// Where the words are, inside the node.
const WORDS: &str = "/run/.lab/faults";

/// The way of packets, seen from an end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What it sends.
    Out,
    /// What it would get.
    In,
}

impl Lab {
    /// `NODE:INTERFACE`, which must be an end of a link.
    pub fn end(&self, text: &str) -> Result<End> {
        let ends = || self.topology().links.iter().flat_map(|link| &link.ends);
        let known = || ends().map(|end| format!("{}:{}", end.node, end.interface)).collect::<Vec<_>>().join(", ");
        let same = |end: &&End| text.split_once(':') == Some((&end.node, &end.interface));
        ends().find(same).cloned().with_context(|| format!("there is no link at `{text}`; ends of links: {}", known()))
    }

    fn other(&self, end: &End) -> Result<End> {
        let link = self.topology().links.iter().find(|link| link.ends.contains(end)).context("no such link")?;
        let [a, b] = &link.ends;
        Ok(if a == end { b.clone() } else { a.clone() })
    }

    /// Sets an end of a link down, or up again.
    pub fn set_link(&self, end: &End, up: bool) -> Result<()> {
        let (node, device) = (self.node(&end.node)?, &end.interface);
        let word = format!("link-{device}");
        if up {
            node.exec(&format!("ip link set dev {device} up"))?;
            for family in ["-4", "-6"] {
                // A route that has come back by itself is no error.
                node.exec(&format!("sh -c 'if [ -e {WORDS}{family}-{device} ]; then ip {family} -force -batch {WORDS}{family}-{device} 2>/dev/null; fi; true'"))?;
            }
            return node.forget_fault(&word);
        }
        if node.has_fault(&word) {
            return Ok(());
        }
        node.exec(&format!("mkdir -p {WORDS}"))?;
        for family in ["-4", "-6"] {
            let lines = static_routes(node, family, device)?;
            process::run(node.command(&["sh", "-c", &format!("cat > {WORDS}{family}-{device}")])?, Some(&lines))?;
        }
        node.exec(&format!("sysctl -q -w net.ipv6.conf.{}.keep_addr_on_down=1", device.replace('.', "/")))?;
        node.exec(&format!("ip link set dev {device} down"))?;
        node.note_fault(&word, &format!("{device} is down"))
    }

    /// Of what `end` sends or would get, `percent` is lost; 0 ends that.
    ///
    /// # Errors
    /// [`Missing`]: there is no nftables.
    pub fn lose(&self, end: &End, direction: Direction, percent: u32) -> Result<()> {
        ensure!(percent <= 100, "{percent} %: write 0 to 100");
        let getter = if direction == Direction::In { end.clone() } else { self.other(end)? };
        let node = self.node(&getter.node)?;
        let at = self.topology().links.iter().position(|link| link.ends.contains(&getter)).context("no such link")?;
        // A chain's name may hold fewer characters than an interface's.
        let (chain, word) = (format!("in_{at}"), format!("loss-{}", getter.interface));
        if percent == 0 {
            if node.has_fault(&word) {
                process::run(node.command(&["nft", "delete", "chain", "netdev", "margay_lab", &chain])?, None)?;
            }
            return node.forget_fault(&word);
        }
        let rule = if percent == 100 { "drop".to_owned() } else { format!("numgen random mod 100 < {percent} drop") };
        let hook = format!("type filter hook ingress device \"{}\" priority 0;", getter.interface);
        let script = format!(
            "add table netdev margay_lab\nadd chain netdev margay_lab {chain} {{ {hook} }}\n\
             flush chain netdev margay_lab {chain}\nadd rule netdev margay_lab {chain} {rule}\n"
        );
        if let Err(error) = process::run(node.command(&["nft", "-f", "-"])?, Some(&script)) {
            bail!(Missing(format!("no packet can be lost here: nftables (package nftables, CONFIG_NF_TABLES_NETDEV) refuses: {error:#}")));
        }
        node.note_fault(&word, &format!("{percent} % of what {} would get is lost", getter.interface))
    }

    /// What `end` sends arrives `delay` later; zero ends that.
    ///
    /// # Errors
    /// [`Missing`]: the kernel has no netem.
    pub fn delay(&self, end: &End, delay: Duration) -> Result<()> {
        let (node, device) = (self.node(&end.node)?, &end.interface);
        let word = format!("latency-{device}");
        if delay.is_zero() {
            if node.has_fault(&word) {
                node.exec(&format!("tc qdisc del dev {device} root"))?;
            }
            return node.forget_fault(&word);
        }
        let line = format!("tc qdisc replace dev {device} root netem delay {}us", delay.as_micros());
        if let Err(error) = node.exec(&line) {
            bail!(Missing(format!("no link can be made slow here: the kernel has no netem (CONFIG_NET_SCH_NETEM): {error:#}")));
        }
        node.note_fault(&word, &format!("what {device} sends is {delay:?} late"))
    }

    /// Stops every process of a node in its tracks; its kernel goes on forwarding.
    pub fn freeze(&self, node: &str) -> Result<()> {
        let node = self.node(node)?;
        node.note_fault("frozen", "frozen")?;
        node.signal_all(Signal::STOP)
    }

    /// Lets the processes of a frozen node go on.
    pub fn thaw(&self, node: &str) -> Result<()> {
        let node = self.node(node)?;
        node.signal_all(Signal::CONT)?;
        node.forget_fault("frozen")
    }

    /// Ends every fault: links, losses and latencies, frozen nodes, and programs that have ended start again.
    pub fn heal(&mut self) -> Result<()> {
        let nodes: Vec<String> = self.topology().nodes.keys().cloned().collect();
        for name in &nodes {
            if self.node(name)?.has_fault("frozen") {
                self.thaw(name)?;
            }
            if self.node(name)?.has_ended() {
                self.restart(name)?;
            }
        }
        let ends: Vec<End> = self.topology().links.iter().flat_map(|link| link.ends.clone()).collect();
        for end in ends {
            let has = |fault: &str| Ok::<_, anyhow::Error>(self.node(&end.node)?.has_fault(&format!("{fault}-{}", end.interface)));
            if has("link")? {
                self.set_link(&end, true)?;
            }
            if has("loss")? {
                self.lose(&end, Direction::In, 0)?;
            }
            if has("latency")? {
                self.delay(&end, Duration::ZERO)?;
            }
        }
        Ok(())
    }
}

/// The static routes through `device` as lines of `ip -batch`, those without a gateway first: the others' gateways need them.
fn static_routes(node: Node<'_>, family: &str, device: &str) -> Result<String> {
    let mut lines = Vec::new();
    for protocol in ["boot", "static"] {
        for line in node.exec(&format!("ip {family} route show dev {device} proto {protocol}"))?.lines() {
            let words: Vec<&str> = line.split_whitespace().filter(|word| !matches!(*word, "linkdown" | "dead")).collect();
            lines.push(format!(
                "route add {} dev {device} proto {protocol}
",
                words.join(" ")
            ));
        }
    }
    lines.sort_by_key(|line| line.contains(" via "));
    Ok(lines.concat())
}

impl Node<'_> {
    /// Whether its program lives; a node without one does not.
    pub fn runs(&self) -> bool {
        self.program().is_ok_and(process::alive)
    }

    /// Whether it should run a program, and does not.
    pub fn has_ended(&self) -> bool {
        !self.spec().command.is_empty() && !self.runs()
    }

    /// Whether its program is stopped where it is: it would answer nothing.
    pub fn is_frozen(&self) -> bool {
        let stat = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok();
        let stopped = |stat: String| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" T"));
        self.program().ok().and_then(stat).is_some_and(stopped)
    }

    /// What was done to it and has not ended, a line each.
    pub fn faults(&self) -> Result<Vec<String>> {
        let said = self.exec(&format!("sh -c 'if [ -d {WORDS} ]; then cat {WORDS}/*; fi 2>/dev/null; true'"))?;
        Ok(said.lines().map(str::to_owned).collect())
    }

    fn has_fault(&self, word: &str) -> bool {
        self.exec(&format!("test -e {WORDS}/{word}")).is_ok()
    }

    fn note_fault(&self, word: &str, text: &str) -> Result<()> {
        self.exec(&format!("sh -c 'mkdir -p {WORDS} && echo \"$1\" > {WORDS}/{word}' sh \"{text}\"")).map(drop)
    }

    fn forget_fault(&self, word: &str) -> Result<()> {
        self.exec(&format!("rm -f {WORDS}/{word}")).map(drop)
    }

    fn signal_all(&self, signal: Signal) -> Result<()> {
        let holder = self.holder()?;
        let pids = self.processes()?.into_iter().filter(|pid| *pid != holder);
        pids.for_each(|pid| process::signal(pid, signal));
        Ok(())
    }
}
