//! Whether Felix, or Calico's CNI, is at work on this host. Then workloads are theirs.
//!
//! Signs: a process `calico-felix`, or `calico-node` that is told to be it; chains named `cali-…` or a table `calico` in nftables (iptables-nft
//! keeps its chains there too); an interface `cali…` that is not ours. Not seen: chains of iptables-legacy, and a Felix in another PID
//! namespace that has not made any interface or rule yet. A file such as `/var/lib/calico/nodename` is none: it outlives Felix.

use std::fs;

use crate::agent::GROUP;
use crate::agent::nat;
use crate::kernel::plumbing::Interface;

/// What speaks for Felix being here, in words; none: nothing does.
pub fn sign(interfaces: &[Interface]) -> Option<String> {
    let foreign = interfaces.iter().find(|interface| interface.name.starts_with("cali") && interface.group != GROUP);
    process()
        .or_else(|| foreign.map(|interface| format!("interface {} is a workload's, and not of ours", interface.name)))
        .or_else(|| nat::names().iter().find(|name| is_felix(name)).map(|name| format!("nftables has `{name}`")))
}

fn is_felix(name: &str) -> bool {
    name == "calico" || name.starts_with("cali-")
}

fn process() -> Option<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().bytes().all(|octet| octet.is_ascii_digit())).find_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let words: Vec<String> = line.split(|octet| *octet == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        is_process(&words).then(|| format!("process {} is {}", entry.file_name().to_string_lossy(), words.join(" ").trim()))
    })
}

fn is_process(words: &[String]) -> bool {
    let program = words.first().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    program == "calico-felix" || program == "calico-node" && words.iter().any(|word| word == "-felix")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_felix_and_what_is_not() {
        let rows = [
            ("calico-felix", true),
            ("/usr/bin/calico-node -felix", true),
            ("calico-node -confd", false),
            ("vi calico-felix", false),
            ("", false),
        ];
        for (line, expected) in rows {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(is_process(&words), expected, "{line}");
        }
        assert!(is_felix("cali-FORWARD") && is_felix("calico") && !is_felix("calibration") && !is_felix("filter"));
    }
}
