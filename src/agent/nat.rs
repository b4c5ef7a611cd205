//! natOutgoing and exposed ports: the nftables table `inet margay`, ours alone, replaced whole in one transaction of `nft`. No other table is
//! looked into or touched.
//!
//! - Out of a pool with `natOutgoing: true` to what is in no pool: masquerade, IPv4 and IPv6, as Felix does it.
//! - An exposed port: DNAT of what comes to the host, and of what the host itself sends there; a workload that reaches itself by it is masqueraded,
//!   so that the answer comes back the same way.
//!
//! Whether the table is as it should be is read from the kernel: the name of one empty chain holds a digest of the rules that were wanted,
//! the name of another one a digest of what the kernel made of them. Where either differs the table is written anew, and where both agree nothing is.

use std::fmt::Write as _;
use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::agent::resources::{Declared, Exposure, Protocol};

/// Our table.
const TABLE: &str = "inet margay";
/// Chains whose names are digests: of what was wanted, of what there is.
const WANTED: &str = "wanted_";
const SEEN: &str = "seen_";

/// The names of all tables and chains; none where nftables cannot be asked.
pub fn names() -> Vec<String> {
    let tables = nft(&["-j", "list", "tables"], "").unwrap_or_default();
    let chains = nft(&["-j", "list", "chains"], "").unwrap_or_default();
    let mut found = Vec::new();
    for text in [tables, chains] {
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        for item in value["nftables"].as_array().into_iter().flatten() {
            let name = item["table"]["name"].as_str().or_else(|| item["chain"]["name"].as_str());
            found.extend(name.map(str::to_owned));
        }
    }
    found
}

/// Makes the table what it should be; whether anything was written.
///
/// # Errors
/// `nft` is missing where there is something to write, or refuses.
pub fn ensure(declared: &Declared) -> Result<bool> {
    let wanted = rules(declared);
    // Without nft there can be no table of ours.
    let there = nft(&["-j", "list", "table", "inet", "margay"], "").ok();
    let Some(rules) = wanted else {
        let Some(_) = there else { return Ok(false) };
        nft(&["-f", "-"], &format!("delete table {TABLE}\n")).context("cannot remove our nftables table")?;
        return Ok(true);
    };
    let mark = format!("{WANTED}{}", digest(&rules));
    if there.as_deref().is_some_and(|text| is_whole(text, &mark)) {
        return Ok(false);
    }
    let text = format!("add table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n{rules}\tchain {mark} {{\n\t}}\n}}\n");
    nft(&["-f", "-"], &text).context("cannot write our nftables table")?;
    let seen = nft(&["-j", "list", "table", "inet", "margay"], "").context("cannot read our nftables table back")?;
    nft(&["-f", "-"], &format!("add chain {TABLE} {SEEN}{}\n", digest(&normal(&seen)))).context("cannot mark our nftables table")?;
    Ok(true)
}

/// Whether the table was written with this mark and is still what the kernel made of it then.
fn is_whole(text: &str, mark: &str) -> bool {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let chains: Vec<&str> = value["nftables"].as_array().into_iter().flatten().filter_map(|item| item["chain"]["name"].as_str()).collect();
    let seen = format!("{SEEN}{}", digest(&normal(text)));
    chains.contains(&mark) && chains.contains(&seen.as_str())
}

/// The table without what differs from run to run.
fn normal(text: &str) -> String {
    let mut value: Value = serde_json::from_str(text).unwrap_or_default();
    if let Some(items) = value["nftables"].as_array_mut() {
        items.retain(|item| item.get("metainfo").is_none() && !item["chain"]["name"].as_str().is_some_and(|name| name.starts_with(SEEN)));
        for item in items.iter_mut().flat_map(|item| item.as_object_mut()).flat_map(|object| object.values_mut()) {
            if let Some(object) = item.as_object_mut() {
                object.remove("handle");
            }
        }
    }
    value.to_string()
}

fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(8).map(|octet| format!("{octet:02x}")).collect()
}

/// The rules, without the table around them; none where nothing is declared that needs any.
fn rules(declared: &Declared) -> Option<String> {
    if declared.exposures.is_empty() && !declared.pools.values().any(|nat| *nat) {
        return None;
    }
    let mut text = String::new();
    let mut leave = String::new();
    for (family, kind) in [("ip", "ipv4_addr"), ("ip6", "ipv6_addr")] {
        let of = |net: &&IpNet| net.addr().is_ipv4() == (family == "ip");
        let all: Vec<String> = declared.pools.keys().filter(of).map(ToString::to_string).collect();
        let nat: Vec<String> = declared.pools.iter().filter(|(net, nat)| of(net) && **nat).map(|(net, _)| net.to_string()).collect();
        if nat.is_empty() {
            continue;
        }
        for (name, nets) in [("pools", all), ("nat", nat)] {
            // Writing into text cannot fail.
            let _ = writeln!(
                text,
                "\tset {name}_{family} {{\n\t\ttype {kind}\n\t\tflags interval\n\t\tauto-merge\n\t\telements = {{ {} }}\n\t}}",
                nets.join(", ")
            );
        }
        let _ = writeln!(leave, "\t\t{family} saddr @nat_{family} {family} daddr != @pools_{family} masquerade");
    }
    let (mut come, mut back) = (String::new(), String::new());
    for exposure in declared.exposures.values() {
        let _ = writeln!(come, "\t\t{}", translation(exposure));
        let family = family(exposure);
        let hairpin = format!("\t\tct status dnat {family} saddr {0} {family} daddr {0} masquerade\n", exposure.address);
        if !back.contains(&hairpin) {
            back.push_str(&hairpin);
        }
    }
    let _ = write!(text, "\tchain postrouting {{\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n{back}{leave}\t}}\n");
    if !come.is_empty() {
        for hook in ["prerouting", "output"] {
            let _ = write!(text, "\tchain {hook} {{\n\t\ttype nat hook {hook} priority -100; policy accept;\n{come}\t}}\n");
        }
    }
    Some(text)
}

fn family(exposure: &Exposure) -> &'static str {
    if exposure.address.is_ipv4() { "ip" } else { "ip6" }
}

fn translation(exposure: &Exposure) -> String {
    let Exposure { protocol, port, host_addresses, address, target_port } = exposure;
    let protocol = match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let family = family(exposure);
    let hosts: Vec<String> = host_addresses.iter().map(ToString::to_string).collect();
    let whom = if hosts.is_empty() {
        format!("meta nfproto {} fib daddr type local", if family == "ip" { "ipv4" } else { "ipv6" })
    } else {
        format!("{family} daddr {{ {} }}", hosts.join(", "))
    };
    let to = std::net::SocketAddr::new(*address, *target_port);
    format!("{whom} {protocol} dport {port} dnat {family} to {to}")
}

fn nft(arguments: &[&str], input: &str) -> Result<String> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("natOutgoing and exposed ports need the program `nft` (package nftables)")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).context("nft does not read")?;
    }
    let output = child.wait_with_output().context("nft does not end")?;
    if !output.status.success() {
        bail!("nft: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared() -> Declared {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let exposure =
            Exposure { protocol: Protocol::Tcp, port: 8080, host_addresses: vec![], address: "10.1.0.5".parse().unwrap(), target_port: 80 };
        let six = Exposure { host_addresses: vec!["fd00::1".parse().unwrap()], address: "fd00:10::5".parse().unwrap(), ..exposure.clone() };
        Declared {
            exposures: [("a".to_owned(), exposure), ("b".to_owned(), six)].into(),
            pools: [(net("10.1.0.0/16"), true), (net("10.2.0.0/16"), false), (net("fd00:10::/64"), false)].into(),
            ..Declared::default()
        }
    }

    #[test]
    fn rules_of_pools_and_ports() {
        let text = rules(&declared()).unwrap();
        for expected in [
            "elements = { 10.1.0.0/16, 10.2.0.0/16 }",
            "ip saddr @nat_ip ip daddr != @pools_ip masquerade",
            "meta nfproto ipv4 fib daddr type local tcp dport 8080 dnat ip to 10.1.0.5:80",
            "ip6 daddr { fd00::1 } tcp dport 8080 dnat ip6 to [fd00:10::5]:80",
            "ct status dnat ip saddr 10.1.0.5 ip daddr 10.1.0.5 masquerade",
            "hook prerouting",
            "hook output",
        ] {
            assert!(text.contains(expected), "{expected}:\n{text}");
        }
        assert!(!text.contains("@nat_ip6"), "no IPv6 pool wants it");
    }

    #[test]
    fn nothing_declared_needs_no_table() {
        let quiet = Declared { pools: [("10.1.0.0/16".parse().unwrap(), false)].into(), ..Declared::default() };
        assert_eq!(rules(&quiet), None);
        assert_eq!(rules(&Declared::default()), None);
    }

    #[test]
    fn a_table_is_whole_while_nobody_has_changed_it() {
        let table = |rule: &str, handle: u32, seen: &str| {
            format!(
                r#"{{"nftables":[{{"metainfo":{{"version":"{handle}"}}}},{{"chain":{{"name":"wanted_1","handle":{handle}}}}},
                {{"chain":{{"name":"{seen}","handle":3}}}},{{"rule":{{"expr":"{rule}","handle":{handle}}}}}]}}"#
            )
        };
        let seen = format!("seen_{}", digest(&normal(&table("a", 1, "seen_x"))));
        assert!(is_whole(&table("a", 7, &seen), "wanted_1"));
        assert!(!is_whole(&table("b", 7, &seen), "wanted_1"), "a rule is another");
        assert!(!is_whole(&table("a", 7, &seen), "wanted_2"), "others are wanted");
        assert!(!is_whole(&table("a", 7, "seen_"), "wanted_1"), "broken off before it was read back");
        assert!(!is_whole("nonsense", "wanted_1"));
    }
}
