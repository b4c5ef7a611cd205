//! What a lab that failed leaves behind: a folder for each node with what its kernel holds and what its speaker answers now, and one
//! with what all its programs said.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::image::Speaker;
use super::{Lab, Node};

/// What every kernel is asked: file name, command.
const KERNEL: [(&str, &str); 7] = [
    ("links", "ip -d link show"),
    ("addresses", "ip address show"),
    ("routes", "ip -d -4 route show table all"),
    ("routes6", "ip -d -6 route show table all"),
    ("rules", "ip rule show"),
    ("neighbours", "ip neighbour show"),
    ("sockets", "ss -tanp"),
];

fn questions(speaker: Speaker) -> &'static [(&'static str, &'static str)] {
    match speaker {
        Speaker::Margay => &[
            ("peers", "margay show peers"),
            ("speaker-routes", "margay show routes"),
            ("fib", "margay show kernel"),
            ("problems", "margay show problems"),
            ("events", "margay show events"),
            ("health", "margay show health"),
        ],
        Speaker::Bird => &[("peers", "birdc show protocols all"), ("speaker-routes", "birdc show route all")],
        Speaker::Frr => &[
            ("peers", "vtysh -c 'show bgp neighbors'"),
            ("speaker-routes", "vtysh -c 'show bgp ipv4 unicast' -c 'show bgp ipv6 unicast'"),
            ("bfd", "vtysh -c 'show bfd peers'"),
        ],
        Speaker::Gobgp => &[("peers", "gobgp neighbor"), ("speaker-routes", "gobgp global rib")],
        Speaker::Openbgpd => &[("peers", "bgpctl show neighbor"), ("speaker-routes", "bgpctl show rib detail")],
        Speaker::None => &[],
    }
}

impl Lab {
    /// Gathers everything below `folder`, one folder a node, beside what was not true. What a node does not answer is written down as well.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn gather(&self, folder: &Path, failure: &str) -> Result<PathBuf> {
        let write = |path: PathBuf, text: &[u8]| fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()));
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        write(folder.join("failure.txt"), failure.as_bytes())?;
        fs::copy(&self.topology().file, folder.join("lab.clab.yml")).context("the lab file")?;
        for node in self.nodes() {
            let place = folder.join(node.name());
            fs::create_dir_all(&place)?;
            for (name, line) in KERNEL.iter().chain(questions(node.speaker())) {
                write(place.join(format!("{name}.txt")), answer(node, line).as_bytes())?;
            }
        }
        let logs = folder.join("logs");
        fs::create_dir_all(&logs)?;
        for log in fs::read_dir(self.logs())?.flatten().filter(|entry| entry.path().is_file()) {
            fs::copy(log.path(), logs.join(log.file_name())).with_context(|| log.path().display().to_string())?;
        }
        Ok(folder.to_owned())
    }
}

fn answer(node: Node<'_>, line: &str) -> String {
    let said = node.exec(line).unwrap_or_else(|error| format!("{error:#}\n"));
    format!("# {line}\n{said}")
}
