//! `expect.yaml` beside a lab's other files: what must come true once the lab is up. Read strictly, like the lab itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;

use super::{Lab, Node, Topology, process};

/// What must come true in a lab.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectations {
    /// Seconds until everything must be true at once.
    pub within: u64,
    /// Node → the addresses of peers with which it has a session.
    #[serde(default)]
    pub established: BTreeMap<String, Vec<String>>,
    /// Node → prefix → the next hops of the paths that its speaker learned, separated by blanks, or `absent`.
    #[serde(default)]
    pub learned: BTreeMap<String, BTreeMap<String, String>>,
    /// Node → prefix → the route in the kernel: `via GATEWAY…`, `through INTERFACE…`, `dev INTERFACE`, a type such
    /// as `blackhole`, or `absent`.
    #[serde(default)]
    pub kernel: BTreeMap<String, BTreeMap<String, String>>,
    /// Node → addresses that it can ping, once all of the above is true.
    #[serde(default)]
    pub ping: BTreeMap<String, Vec<String>>,
    /// What cables carry while somebody pings, once all of the above is true.
    #[serde(default)]
    pub carried: Vec<Carried>,
}

/// A ping, and what is seen of it at one end of a cable, in tcpdump's words (pcap-filter).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Carried {
    /// Who pings.
    pub node: String,
    /// The address.
    pub pings: String,
    /// Where it is looked: `NODE:INTERFACE`.
    pub at: String,
    /// Such a packet must be seen.
    pub packet: String,
    /// Such a one must not.
    pub never: Option<String>,
}

/// What of the expectations is true.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How many there are.
    pub wanted: usize,
    /// How many of them are true.
    pub held: usize,
    /// Those that are not, a line each; one line in place of all that a node would have to answer and does not.
    pub unmet: Vec<String>,
}

impl Expectations {
    /// Those of a lab: `<name>/expect.yaml` beside `<name>.clab.yml`.
    pub fn of(topology: &Topology) -> Result<Self> {
        Self::find(topology)?
            .with_context(|| format!("nothing is expected of {}: there is no {}", topology.name, Self::path(topology).display()))
    }

    /// The same; `None` where there is no such file.
    pub fn find(topology: &Topology) -> Result<Option<Self>> {
        let path = Self::path(topology);
        if !path.exists() {
            return Ok(None);
        }
        let named = || path.display().to_string();
        let text = std::fs::read_to_string(&path).with_context(named)?;
        let expectations: Self = serde_saphyr::from_str(&text).map_err(|error| anyhow!("{error}")).with_context(named)?;
        let names = [&expectations.learned, &expectations.kernel].into_iter().flat_map(BTreeMap::keys);
        let names = names.chain(expectations.established.keys()).chain(expectations.ping.keys());
        let names = names.chain(expectations.carried.iter().map(|carried| &carried.node));
        for name in names {
            topology.nodes.get(name).with_context(|| format!("{}: there is no node `{name}`", path.display()))?;
        }
        Ok(Some(expectations))
    }

    /// Where they are looked for.
    pub fn path(topology: &Topology) -> PathBuf {
        topology.file.with_file_name(&topology.name).join("expect.yaml")
    }

    /// Everything that is not true now, one line each; empty: all is well. Nobody pings before the rest is true.
    pub fn unmet(&self, lab: &Lab) -> Result<Vec<String>> {
        let mut verdict = Verdict::default();
        self.judge_speakers(lab, &mut verdict)?;
        if verdict.unmet.is_empty() {
            self.judge_traffic(lab, &mut verdict)?;
        }
        Ok(verdict.unmet)
    }

    /// The whole of it, once, traffic included.
    pub fn judge(&self, lab: &Lab) -> Result<Verdict> {
        let mut verdict = Verdict::default();
        self.judge_speakers(lab, &mut verdict)?;
        self.judge_traffic(lab, &mut verdict)?;
        Ok(verdict)
    }

    fn judge_speakers(&self, lab: &Lab, verdict: &mut Verdict) -> Result<()> {
        for (name, peers) in &self.established {
            verdict.collect(name, peers.len(), sessions(lab.node(name)?, peers));
        }
        for (name, prefixes) in &self.learned {
            verdict.collect(name, prefixes.len(), learned(lab.node(name)?, prefixes));
        }
        for (name, prefixes) in &self.kernel {
            verdict.collect(name, prefixes.len(), kernel(lab.node(name)?, prefixes));
        }
        Ok(())
    }

    fn judge_traffic(&self, lab: &Lab, verdict: &mut Verdict) -> Result<()> {
        for (name, addresses) in &self.ping {
            let node = lab.node(name)?;
            let silent = addresses.iter().filter_map(|address| node.ping(address).err());
            verdict.collect(name, addresses.len(), Ok(silent.map(|error| format!("{error:#}")).collect()));
        }
        for carried in &self.carried {
            let seen = carried.seen(lab).err().map(|error| format!("{error:#}"));
            verdict.collect(&carried.node, 1, Ok(seen.into_iter().collect()));
        }
        Ok(())
    }
}

impl Carried {
    fn seen(&self, lab: &Lab) -> Result<()> {
        let (end, from) = (lab.end(&self.at)?, lab.node(&self.node)?);
        let node = lab.node(&end.node)?;
        let wanted = node.watch_packets(&end.interface, &self.packet)?;
        let unwanted = self.never.as_ref().map(|filter| node.watch_packets(&end.interface, filter)).transpose()?;
        from.ping(&self.pings)?;
        let what = format!("while {} pings {}, {} carries `{}`", self.node, self.pings, self.at, self.packet);
        process::wait_until(Duration::from_secs(5), &what, || {
            anyhow::ensure!(!wanted.seen()?.is_empty(), "no such packet");
            Ok(())
        })?;
        let never = unwanted.map_or_else(|| Ok(String::new()), |watch| watch.seen())?;
        anyhow::ensure!(never.is_empty(), "while {} pings {}, {} carries what it must not: {never}", self.node, self.pings, self.at);
        Ok(())
    }
}

impl Verdict {
    fn collect(&mut self, name: &str, wanted: usize, checked: Result<Vec<String>>) {
        match checked {
            Ok(unmet) => {
                self.held += wanted - unmet.len();
                self.unmet.extend(unmet);
            }
            Err(error) => self.unmet.push(format!("{name}: {error:#}")),
        }
        self.wanted += wanted;
    }
}

fn sessions(node: Node<'_>, peers: &[String]) -> Result<Vec<String>> {
    let sessions = node.sessions()?;
    let state = |peer: &String| sessions.get(peer).map_or("there is none", String::as_str);
    let down = peers.iter().filter(|peer| state(peer) != "Established");
    Ok(down.map(|peer| format!("{}: session to {peer}: {}", node.name(), state(peer))).collect())
}

fn learned(node: Node<'_>, prefixes: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let all = node.learned()?;
    let mut unmet = Vec::new();
    for (prefix, wanted) in prefixes {
        let hops = all.get(prefix).into_iter().flatten().map(|path| path.next_hop.to_string());
        let found = hops.collect::<std::collections::BTreeSet<_>>();
        let right = if wanted == "absent" { found.is_empty() } else { found == wanted.split_whitespace().map(str::to_owned).collect() };
        if !right {
            unmet.push(format!("{}: learned {prefix}: wanted `{wanted}`, found {found:?}", node.name()));
        }
    }
    Ok(unmet)
}

fn kernel(node: Node<'_>, prefixes: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let all = node.kernel_routes()?;
    let mut unmet = Vec::new();
    for (prefix, wanted) in prefixes {
        let mut routes: Vec<_> = all.iter().filter(|route| route.prefix == *prefix).collect();
        routes.sort_by_key(|route| route.metric);
        let right = match routes.first() {
            None => wanted == "absent",
            Some(route) => route.looks_like(wanted)?,
        };
        if !right {
            let found: Vec<String> = routes.iter().map(ToString::to_string).collect();
            unmet.push(format!("{}: kernel route {prefix}: wanted `{wanted}`, found {found:?}", node.name()));
        }
    }
    Ok(unmet)
}

impl Lab {
    /// Waits until all that the lab's `expect.yaml` says is true at once; the error lists what is not.
    pub fn expect(&self) -> Result<()> {
        let expectations = Expectations::of(self.topology())?;
        process::wait_until(Duration::from_secs(expectations.within), "what expect.yaml says", || {
            let unmet = expectations.unmet(self)?;
            if unmet.is_empty() { Ok(()) } else { bail!("{}", unmet.join("\n")) }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use margay::calico;

    use super::*;
    use crate::lab::{cli, image};

    /// A typing error in a lab file or in its expectations is found without root and without any speaker.
    #[test]
    fn every_lab_of_the_repository_reads_and_has_expectations() {
        let files = cli::all().unwrap();
        assert!(files.len() >= 9, "{files:?}");
        for file in files {
            let topology = Topology::read(&file).unwrap();
            assert_eq!(file.file_name().unwrap().to_str().unwrap(), format!("{}.clab.yml", topology.name));
            Expectations::of(&topology).unwrap();
            image::packages(&topology).unwrap();
            for (name, bind) in topology.nodes.iter().flat_map(|(name, node)| node.binds.iter().map(move |bind| (name, bind))) {
                assert!(bind.source.exists(), "{}: {}", file.display(), bind.source.display());
                if bind.target.ends_with("margay/resources") {
                    compiles(name, &bind.source);
                }
            }
        }
    }

    /// The resources hold a configuration for the node, and nothing is wrong with them.
    fn compiles(node: &str, folder: &Path) {
        let mut store = calico::Store::default();
        for input in margay::datastore::load(&[folder.to_owned()]) {
            match input {
                calico::Input::Resource(word) => drop(store.apply(word)),
                calico::Input::SourceProblems(problems) => assert_eq!(problems, [], "{}", folder.display()),
            }
        }
        let (config, problems) = calico::compile(&store, node, &calico::Environment::default());
        assert_eq!(problems, [], "{}: {node}", folder.display());
        assert!(config.is_some_and(|config| !config.peers.is_empty()), "{}: {node}", folder.display());
    }
}
