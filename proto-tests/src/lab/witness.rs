//! What a speaker hears of routes that go, while others restart: its own count or words of withdrawals.
//!
//! | speaker | where it says so |
//! |---|---|
//! | BIRD | `show protocols all`: Import withdraws, received; the counts outlive a graceful restart |
//! | FRR | no counter: its log, with `debug bgp updates in` |
//! | GoBGP | `gobgp monitor global rib`: its counters begin anew with a session |
//! | margay | `margay monitor --prefix`: the prefix has no route any more |

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::image::Speaker;
use super::{Node, process};

/// Listens to one node's speaker from its making on.
#[derive(Debug)]
pub struct Witness {
    node: String,
    sources: Vec<Source>,
}

#[derive(Debug)]
enum Source {
    /// BIRD's counters.
    Counters,
    /// A file, from this octet on, and what a line that tells of a withdrawal holds.
    Words { file: PathBuf, from: usize, word: &'static str, _teller: Option<Teller> },
}

/// A program that tells until it is dropped.
#[derive(Debug)]
struct Teller(Child);

impl Drop for Teller {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Witness {
    /// Begins to listen; a margay is asked about these prefixes, the others tell of all.
    pub fn of(node: Node<'_>, prefixes: &[&str]) -> Result<Self> {
        let sources = match node.speaker() {
            Speaker::Bird => vec![Source::Counters],
            Speaker::Frr => {
                node.exec("vtysh -c 'configure terminal' -c 'log stdout debugging' -c 'debug bgp updates in'")?;
                let file = node.logs().join(format!("{}.log", node.name()));
                let from = std::fs::read_to_string(&file)?.len();
                vec![Source::Words { file, from, word: "-- withdrawn", _teller: None }]
            }
            Speaker::Gobgp => ["ipv4", "ipv6"]
                .map(|family| Source::told(node, family, &["gobgp", "monitor", "global", "rib", "-a", family], "[DELROUTE]"))
                .into_iter()
                .collect::<Result<_>>()?,
            Speaker::Margay => prefixes
                .iter()
                .map(|prefix| {
                    let name = prefix.replace(['/', ':'], "_");
                    Source::told(node, &name, &["margay", "monitor", "--prefix", prefix], "no route any more")
                })
                .collect::<Result<_>>()?,
            other => bail!("{}: nothing tells what {other:?} hears", node.name()),
        };
        Ok(Self { node: node.name().to_owned(), sources })
    }

    /// The node.
    pub fn name(&self) -> &str {
        &self.node
    }

    /// What it has heard of routes that went: a line each.
    pub fn withdrawals(&self, node: Node<'_>) -> Result<Vec<String>> {
        ensure!(node.name() == self.node, "the witness is of {}", self.node);
        Ok(self.sources.iter().map(|source| source.withdrawals(node)).collect::<Result<Vec<_>>>()?.concat())
    }

    /// Nothing went.
    pub fn heard_nothing(&self, node: Node<'_>) -> Result<()> {
        let heard = self.withdrawals(node)?;
        ensure!(heard.is_empty(), "{} heard withdrawals: {heard:#?}", self.node);
        Ok(())
    }
}

impl Source {
    fn told(node: Node<'_>, name: &str, words: &[&str], word: &'static str) -> Result<Self> {
        let file = node.logs().join(format!("heard-{}-{name}.log", node.name()));
        let line: Vec<&str> = ["stdbuf", "-oL"].into_iter().chain(words.iter().copied()).collect();
        let output = File::create(&file)?;
        let child = node.background(&line)?.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn();
        let teller = Teller(child.with_context(|| format!("cannot run {words:?}"))?);
        Ok(Self::Words { file, from: 0, word, _teller: Some(teller) })
    }

    fn withdrawals(&self, node: Node<'_>) -> Result<Vec<String>> {
        match self {
            Self::Counters => {
                let said = node.exec("birdc show protocols all")?;
                let counts = said.lines().filter(|line| line.contains("Import withdraws:"));
                let heard = |line: &&str| line.split_whitespace().nth(2).is_some_and(|received| received != "0" && received != "---");
                Ok(counts.filter(heard).map(str::to_owned).collect())
            }
            Self::Words { file, from, word, .. } => {
                let text = std::fs::read_to_string(file)?;
                Ok(text[*from..].lines().filter(|line| line.contains(word)).map(str::to_owned).collect())
            }
        }
    }
}

impl Node<'_> {
    /// The node's margay has all its sessions, and its own restart is over.
    pub fn has_recovered(&self) -> Result<()> {
        let health = self.json("margay show health --json")?;
        let sessions = &health["sessions"];
        ensure!(health["restarting"] == false && sessions["established"] == sessions["configured"], "{}: {health}", self.name());
        Ok(())
    }

    /// Waits for that.
    pub fn recovers(&self, within: Duration) -> Result<()> {
        process::wait_until(within, &format!("{} has recovered", self.name()), || self.has_recovered())
    }
}
