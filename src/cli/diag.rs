//! `margay diag FILE`: what a bug report needs, in one `.tar.gz`, without secrets.
//!
//! The daemon is asked what anybody may ask it on the control socket; host facts are read where the command runs, so in a container it is
//! run inside. Passwords and keys never get out of the daemon; what could hold one all the same (an URL with a password in it, a
//! document that was quoted because it could not be read) is blotted out here, in every file.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::cli::client::{Reply, Target};
use crate::cli::show::pretty;
use crate::cli::terminal::print;
use crate::cli::{Ended, Failure, whole_file};

/// Pack version, health, peers, problems, events, configuration, kernel view, metrics, memory and host facts into one archive, secrets removed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  margay diag report.tar.gz           all of it, in one file
  margay diag report.tar.gz --json    and what is in it, for a program")]
pub struct Diag {
    #[command(flatten)]
    target: Target,
    /// The archive (.tar.gz); an older one is replaced.
    file: PathBuf,
}

/// What is asked of the daemon: path, name in the archive.
const ANSWERS: [(&str, &str); 8] = [
    ("/v1/health", "health.json"),
    ("/v1/peers", "peers.json"),
    ("/v1/problems", "problems.json"),
    ("/v1/config", "config.json"),
    ("/v1/datastore", "datastore.json"),
    ("/v1/drain", "drain.json"),
    ("/v1/events", "events.ndjson"),
    ("/metrics", "metrics.txt"),
];

/// Files of the host that say what margay runs on.
const HOST: [&str; 6] = ["/proc/version", "/proc/meminfo", "/proc/loadavg", "/proc/cpuinfo", "/proc/net/dev", "/etc/os-release"];

/// Settings of the kernel that decide over forwarding, next hops and BGP's TCP.
const SYSCTLS: [&str; 14] = [
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/all/forwarding",
    "net/ipv4/fib_multipath_hash_policy",
    "net/ipv4/tcp_md5sig_pool_users",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/neigh/default/gc_thresh3",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/all/disable_ipv6",
    "net/ipv6/route/max_size",
    "net/ipv6/neigh/default/gc_thresh3",
    "net/core/rmem_max",
    "net/core/somaxconn",
    "net/core/optmem_max",
];

/// Rows of the kernel view that are told at most; those that are as they should be are only counted.
const ROWS: usize = 10_000;

impl Diag {
    /// Asks, reads and packs.
    pub fn carry_out(self) -> Result<Ended, Failure> {
        let mut files = daemon(&self.target)?;
        let protocol = files.iter().find(|file| file.name == "config.json").and_then(|file| protocol(&file.text));
        files.extend(host(protocol));
        files.insert(0, Packed::new("README.txt", readme(&files)));
        let octets = pack(&self.file, &files)?;
        let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
        print(&if self.target.json {
            pretty(&json!({ "file": self.file, "octets": octets, "files": names }))
        } else {
            format!(
                "{}: {} files, {octets} octets. Secrets are removed; addresses, names and routes are in it: look before you hand it on.\n",
                self.file.display(),
                names.len()
            )
        })?;
        Ok(Ended::Done)
    }
}

/// One file of the archive.
#[derive(Debug)]
struct Packed {
    name: String,
    text: String,
}

impl Packed {
    fn new(name: impl Into<String>, text: impl AsRef<str>) -> Self {
        Self { name: name.into(), text: blotted(text.as_ref()) }
    }
}

/// What the daemon says. A single answer that fails is told in its place.
fn daemon(target: &Target) -> Result<Vec<Packed>, Failure> {
    let mut files = vec![Packed::new("version.json", pretty(&json!({ "command": env!("CARGO_PKG_VERSION") })))];
    for (path, name) in ANSWERS {
        files.push(Packed::new(name, text(target, path)?));
    }
    files.push(Packed::new("kernel.json", kernel(&text(target, "/v1/kernel")?)));
    if let Some(id) = target.daemon() {
        for what in ["status", "limits", "smaps_rollup", "cgroup"] {
            files.push(Packed::new(format!("daemon/{what}.txt"), read(&format!("/proc/{id}/{what}"))));
        }
    }
    Ok(files)
}

fn text(target: &Target, path: &str) -> Result<String, Failure> {
    let mut octets = Vec::new();
    let asked = target.octets(path, |chunk| {
        octets.extend_from_slice(chunk);
        Ok(())
    });
    match asked {
        Ok(Reply::Found(())) => {
            let text = String::from_utf8_lossy(&octets).into_owned();
            Ok(serde_json::from_str::<Value>(&text).map_or(text, |value| pretty(&value)))
        }
        Ok(Reply::Missing(why)) => Ok(format!("none: {why}")),
        Err(Failure::Other(error)) => Ok(format!("not told: {error:#}\n")),
        Err(unreachable) => Err(unreachable),
    }
}

/// The kernel view: how many prefixes are in which state, and those that are not installed.
fn kernel(text: &str) -> String {
    let Ok(Value::Array(rows)) = serde_json::from_str::<Value>(text) else { return text.to_owned() };
    let mut states = serde_json::Map::new();
    for row in &rows {
        let state = row["state"].as_str().unwrap_or("unknown");
        let count = states.get(state).and_then(Value::as_u64).unwrap_or(0);
        states.insert(state.to_owned(), json!(count + 1));
    }
    let others: Vec<&Value> = rows.iter().filter(|row| row["state"] != "installed").take(ROWS).collect();
    pretty(&json!({ "states": states, "not_installed": others }))
}

/// The protocol number of our kernel routes.
fn protocol(config: &str) -> Option<u64> {
    serde_json::from_str::<Value>(config).ok()?["fib"]["protocol"].as_u64()
}

fn host(protocol: Option<u64>) -> Vec<Packed> {
    let mut files: Vec<Packed> =
        HOST.iter().map(|path| Packed::new(format!("host/{}.txt", path.rsplit('/').next().unwrap_or(path)), read(path))).collect();
    let sysctl = |name: &&str| format!("{name} = {}\n", read(&format!("/proc/sys/{name}")).trim());
    files.push(Packed::new("host/sysctl.txt", SYSCTLS.iter().map(sysctl).collect::<String>()));
    let protocol = protocol.map_or_else(|| "12".to_owned(), |number| number.to_string());
    let routes = |family: &str| ip(&[family, "-details", "route", "show", "table", "all", "proto", &protocol]);
    files.push(Packed::new("host/links.txt", ip(&["-details", "-statistics", "link", "show"])));
    files.push(Packed::new("host/addresses.txt", ip(&["address", "show"])));
    files.push(Packed::new("host/routes-of-ours.txt", routes("-4") + &routes("-6")));
    files.push(Packed::new("host/rules.txt", ip(&["-4", "rule", "show"]) + &ip(&["-6", "rule", "show"])));
    files
}

/// What `ip` says, or why it says nothing.
fn ip(arguments: &[&str]) -> String {
    match Command::new("ip").args(arguments).output() {
        Ok(output) => format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        Err(error) => format!("ip {}: {error} (package iproute2)\n", arguments.join(" ")),
    }
}

fn read(path: &str) -> String {
    fs::read(path).map_or_else(|error| format!("{path}: {error}\n"), |octets| String::from_utf8_lossy(&octets).into_owned())
}

fn readme(files: &[Packed]) -> String {
    let list: String = files.iter().map(|file| format!("  {}\n", file.name)).collect();
    format!(
        "A report of margay {}, made at {:.0}.\n\nPasswords, keys and credentials are not in it, or stand as {BLOT}. Addresses, names, prefixes and\n\
         communities are in it.\nThe daemon does not keep its log: add it from where it goes, for instance\n  journalctl --unit margay --lines 2000\n\n{list}",
        env!("CARGO_PKG_VERSION"),
        jiff::Timestamp::now()
    )
}

/// Stands where something was taken out.
const BLOT: &str = "(removed)";

/// Words in front of something that nobody else should read, in lower case.
const TELLTALES: [&str; 5] = ["password", "passwd", "secret", "token", "private_key"];

/// The text without what may be a secret: the user's part of URLs, and what follows `password:` and the like.
fn blotted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        out.push_str(&without_values(&without_userinfo(line)));
    }
    out
}

/// `scheme://user:password@host` becomes `scheme://(removed)@host`.
fn without_userinfo(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || "/\"'?#".contains(c)).unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(sign) => {
                out.push_str(BLOT);
                &after[sign..]
            }
            None => after,
        };
    }
    out + rest
}

/// `password: value` and `password=value` lose the value; what is a name of a key, an object or nothing stays.
fn without_values(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    // Letters that change their length with their case would shift places; such lines are not ours.
    if lower.len() != line.len() {
        return line.to_owned();
    }
    let mut cuts: Vec<(usize, usize)> =
        TELLTALES.iter().flat_map(|word| lower.match_indices(word)).filter_map(|(at, word)| value_at(line, at + word.len())).collect();
    cuts.sort_unstable();
    let mut out = String::with_capacity(line.len());
    let mut from = 0;
    for (start, end) in cuts {
        // Two words may stand in front of one value.
        if start < from {
            continue;
        }
        out.push_str(&line[from..start]);
        out.push_str(BLOT);
        from = end;
    }
    out + &line[from..]
}

/// Where the value stands whose name ends at `end`, if there is one.
fn value_at(line: &str, end: usize) -> Option<(usize, usize)> {
    let after = line.get(end..)?;
    let gap = after.trim_start_matches(['"', '\'', '\\', ' ']);
    let value = gap.strip_prefix([':', '='])?.trim_start_matches(['"', '\'', '\\', ' ']);
    let start = line.len() - value.len();
    let length = value.find(|c: char| c.is_whitespace() || "\"'\\,}".contains(c)).unwrap_or(value.len());
    let text = &value[..length];
    let is_no_value = text.is_empty() || text.starts_with(['{', '[']) || text == "null";
    (!is_no_value).then_some((start, start + length))
}

/// Writes the archive; how many octets it has.
fn pack(file: &Path, files: &[Packed]) -> Result<u64, Failure> {
    let octets = whole_file::write(file, 0o600, |out| {
        archive(out, files).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Some(out.metadata().with_context(|| format!("cannot see {}", file.display()))?.len()))
    })?;
    Ok(octets.unwrap_or_default())
}

fn archive(out: &mut File, files: &[Packed]) -> std::io::Result<()> {
    let mut archive = tar::Builder::new(GzEncoder::new(out, Compression::default()));
    let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
    for file in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(file.text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(now);
        archive.append_data(&mut header, format!("margay-diag/{}", file.name), file.text.as_bytes())?;
    }
    archive.into_inner()?.finish()?.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_is_blotted_out() {
        let rows = [
            (
                "cannot reach http://root:hush@192.0.2.1:2379/v3, tried twice",
                "cannot reach http://(removed)@192.0.2.1:2379/v3, tried twice",
            ),
            ("\"password\": \"hush\",\n", "\"password\": \"(removed)\",\n"),
            ("found \\\"password: hush\\\" at line 3", "found \\\"password: (removed)\\\" at line 3"),
            ("stringData: {token: hush, other: x}", "stringData: {token: (removed), other: x}"),
            ("ETCD_PASSWORD=hush", "ETCD_PASSWORD=(removed)"),
            ("\"password\": {\"secretKeyRef\": {\"name\": \"keys\"}}", "\"password\": {\"secretKeyRef\": {\"name\": \"keys\"}}"),
            ("the Secret keys has no key `tor`", "the Secret keys has no key `tor`"),
            ("GET http://192.0.2.1/path?a=user@b", "GET http://192.0.2.1/path?a=user@b"),
        ];
        for (text, expected) in rows {
            assert_eq!(blotted(text), expected, "{text}");
        }
    }

    #[test]
    fn the_kernel_view_counts_what_is_well_and_names_the_rest() {
        let text = r#"[{"prefix":"10.0.0.0/8","state":"installed"},{"prefix":"10.1.0.0/16","state":"failed","because":"no gateway"}]"#;
        let view: Value = serde_json::from_str(&kernel(text)).unwrap();
        assert_eq!(view["states"], json!({"installed": 1, "failed": 1}));
        assert_eq!(view["not_installed"][0]["prefix"], "10.1.0.0/16");
        assert_eq!(view["not_installed"].as_array().unwrap().len(), 1);
    }
}
