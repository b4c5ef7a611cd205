//! BIRD 1.6: where its programs are, and the configuration that says what Calico's templates say, written from Calico's
//! documents in our own words and with its own structure.

use std::fmt::{self, Display, Write as _};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::case::{Bird, BirdFamily, BirdPeer};
use crate::lab::image::repository;

/// Where the programs `bird` and `bird6` are looked for and put.
///
/// Debian's package `bird` excludes `bird2`, which other tests need: so it is unpacked, not installed.
pub fn folder() -> PathBuf {
    repository().join("target/bird1")
}

/// Whether both programs are there.
pub fn present() -> bool {
    ["bird", "bird6"].iter().all(|name| folder().join(name).exists())
}

/// Fetches Debian's package and unpacks it, unless that is done.
pub fn fetch() -> Result<()> {
    if present() {
        return Ok(());
    }
    let target = repository().join("target");
    fs::create_dir_all(&target)?;
    let scratch = tempfile::Builder::new().prefix("bird1-").tempdir_in(&target)?;
    done(Command::new("apt-get").args(["-q", "-q", "download", "bird"]).current_dir(scratch.path()))?;
    let package =
        fs::read_dir(scratch.path())?.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "deb"));
    let root = scratch.path().join("root");
    done(Command::new("dpkg").arg("-x").arg(package.context("apt-get brought no package")?).arg(&root))?;
    let version = Command::new(root.join("usr/sbin/bird")).arg("--version").output().context("the program does not run")?;
    let version = String::from_utf8_lossy(&[version.stdout, version.stderr].concat()).into_owned();
    ensure!(version.contains(" 1.6."), "package bird is not BIRD 1.6 but {}", version.trim());
    // Somebody else may have been faster; what they put there is the same.
    let _ = fs::rename(root.join("usr/sbin"), folder());
    ensure!(present(), "{} lacks bird or bird6", folder().display());
    Ok(())
}

fn done(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{}: {}", command.get_program().to_string_lossy(), said.trim());
    Ok(())
}

/// The program of a family.
pub fn program(ipv6: bool) -> PathBuf {
    folder().join(if ipv6 { "bird6" } else { "bird" })
}

/// The configuration of one family's daemon.
pub fn configuration(node: &Bird, family: &BirdFamily, log: &Path) -> Result<String> {
    let mut text = String::new();
    Config { node, family, bits: if family.is_ipv6() { 128 } else { 32 } }.write(&mut text, log)?;
    Ok(text)
}

impl BirdFamily {
    fn is_ipv6(&self) -> bool {
        let cidrs = self.blocks.iter().chain(&self.services).chain(self.pools.iter().map(|pool| &pool.cidr));
        self.address.is_some_and(|address| address.is_ipv6()) || cidrs.into_iter().any(|cidr| cidr.addr().is_ipv6())
    }
}

struct Config<'a> {
    node: &'a Bird,
    family: &'a BirdFamily,
    bits: u8,
}

/// LOCAL_PREF and metric add up to this.
const TOP: u32 = i32::MAX as u32;

impl Config<'_> {
    fn write(&self, out: &mut String, log: &Path) -> fmt::Result {
        writeln!(out, "log \"{}\" all;\nrouter id {};", log.display(), self.node.router_id)?;
        self.family.listen.iter().try_for_each(|port| writeln!(out, "listen bgp port {port};"))?;
        writeln!(out, "protocol device {{ scan time 2; }}")?;
        let ignored = self.family.ignored_interfaces.iter().map(String::as_str).chain(["cali*", "kube-ipvs*"]);
        let ignored = ignored.map(|pattern| format!("-\"{pattern}\"")).collect::<Vec<_>>().join(", ");
        writeln!(out, "protocol direct {{ interface {ignored}, \"*\"; }}")?;
        self.statics(out)?;
        self.to_kernel(out)?;
        writeln!(out, "protocol kernel {{ learn; persist; scan time 2; merge paths on; graceful restart; export filter to_kernel; }}")?;
        for (ibgp, name) in [(true, "internal"), (false, "external")] {
            self.to_peers(out, ibgp, name)?;
        }
        self.family.peers.iter().try_for_each(|(name, peer)| self.peer(out, name, peer))
    }

    fn statics(&self, out: &mut String) -> fmt::Result {
        let family = self.family;
        writeln!(out, "protocol static {{")?;
        for block in family.blocks.iter().chain(&family.leaving_blocks).filter(|block| block.prefix_len() < self.bits) {
            writeln!(out, "  route {block} blackhole;")?;
        }
        family.services.iter().try_for_each(|cidr| writeln!(out, "  route {cidr} blackhole;"))?;
        family.reachable_by.iter().try_for_each(|(peer, gateway)| writeln!(out, "  route {peer}/{} via {gateway};", self.bits))?;
        writeln!(out, "}}")
    }

    fn to_kernel(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "filter to_kernel {{")?;
        self.family.rejects.iter().try_for_each(|cidr| writeln!(out, "  if net ~ {cidr} then reject;"))?;
        writeln!(out, "  if source = RTS_BGP then krt_metric = {TOP} - bgp_local_pref;")?;
        for pool in &self.family.pools {
            writeln!(out, "  if net ~ {} then {};", pool.cidr, if pool.programmed { "accept" } else { "reject" })?;
        }
        writeln!(out, "  accept;\n}}")
    }

    /// The export rules after the BGPFilters, for iBGP and for eBGP; `rank` is the route's metric.
    fn to_peers(&self, out: &mut String, ibgp: bool, name: &str) -> fmt::Result {
        let family = self.family;
        writeln!(out, "function to_{name}(int rank) {{")?;
        let say = |out: &mut String, cidr: &dyn Display, verdict: &str| writeln!(out, "  if net ~ {cidr} then {verdict};");
        for pool in family.pools.iter().filter(|pool| !pool.exported) {
            say(out, &pool.cidr, "reject")?;
        }
        if ibgp {
            writeln!(out, "  if ifname ~ \"*.cali\" || ifname ~ \"*.calico\" then reject;")?;
            if !family.owns_ipip {
                writeln!(out, "  if ifname = \"tunl0\" then reject;")?;
            }
        }
        writeln!(out, "  if ifname ~ \"bpf*.cali\" then reject;")?;
        for (cidr, values) in &family.communities {
            for value in values {
                let list = if value.split(':').count() == 2 { "bgp_community" } else { "bgp_large_community" };
                writeln!(out, "  if net ~ {cidr} then {list}.add(({}));", value.replace(':', ","))?;
            }
        }
        for block in &family.blocks {
            writeln!(out, "  if net = {block} then accept;")?;
            writeln!(out, "  if net ~ {block} then {{ if rank < {} then accept; reject; }}", self.priority())?;
        }
        for cidr in family.services.iter().chain(&family.reflected) {
            say(out, cidr, "accept")?;
        }
        for pool in family.pools.iter().filter(|pool| pool.exported) {
            say(out, &pool.cidr, "accept")?;
        }
        writeln!(out, "  reject;\n}}")
    }

    fn priority(&self) -> u32 {
        self.family.priority.unwrap_or(1024)
    }

    fn peer(&self, out: &mut String, name: &str, peer: &BirdPeer) -> fmt::Result {
        let local = peer.local_as.unwrap_or(self.node.asn);
        let address = peer.address.unwrap_or(IpAddr::from([0, 0, 0, 0]));
        self.filters(out, name, peer)?;
        writeln!(out, "protocol bgp {name} {{")?;
        write!(out, "  local as {local}; neighbor {address}")?;
        peer.port.map_or(Ok(()), |port| write!(out, " port {port}"))?;
        writeln!(out, " as {};\n  multihop; gateway recursive; add paths on; graceful restart;", peer.asn)?;
        writeln!(out, "  connect delay time 2; connect retry time 5; error wait time 5, 30;")?;
        if let Some(source) = self.family.address.filter(|_| !peer.any_source) {
            writeln!(out, "  source address {source};")?;
        }
        if let Some(cluster) = &peer.client_of {
            writeln!(out, "  rr client; rr cluster id {cluster};")?;
        }
        peer.next_hop.iter().try_for_each(|mode| writeln!(out, "  next hop {mode};"))?;
        peer.restart_time.iter().try_for_each(|seconds| writeln!(out, "  graceful restart time {seconds};"))?;
        peer.allow_local_as.iter().try_for_each(|count| writeln!(out, "  allow local as {count};"))?;
        peer.password.iter().try_for_each(|key| writeln!(out, "  password \"{key}\";"))?;
        for (on, option) in [(peer.passive, "passive on"), (peer.ttl_security, "ttl security on")] {
            if on {
                writeln!(out, "  {option};")?;
            }
        }
        writeln!(out, "  import filter from_{name}; export filter to_{name};\n}}")
    }

    /// The two filters of a session: the BGPFilters' rules, then Calico's own.
    fn filters(&self, out: &mut String, name: &str, peer: &BirdPeer) -> fmt::Result {
        let kind = if peer.local_as.unwrap_or(self.node.asn) == peer.asn { "internal" } else { "external" };
        writeln!(out, "filter from_{name} {{\n{}", indented(&peer.import))?;
        writeln!(out, "  if bgp_local_pref > {} then preference = 200;\n  accept;\n}}", TOP - self.priority())?;
        writeln!(out, "filter to_{name} int rank; {{\n  rank = {};", self.priority())?;
        writeln!(out, "  if source = RTS_BGP then rank = {TOP} - bgp_local_pref;")?;
        writeln!(out, "  else {{ if defined(krt_metric) then rank = krt_metric; bgp_local_pref = {TOP} - rank; }}")?;
        writeln!(out, "{}  to_{kind}(rank);\n}}", indented(&peer.export))
    }
}

fn indented(lines: &str) -> String {
    lines.lines().map(|line| format!("  {line}\n")).collect()
}

/// What BIRD calls an address is what we call it; kept here so that cases can be read without its manual.
#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::IpNet;

    #[test]
    fn a_family_is_told_by_its_cidrs_where_it_has_no_address() {
        let block: IpNet = "fd00::/122".parse().unwrap();
        assert!(BirdFamily { blocks: vec![block], ..BirdFamily::default() }.is_ipv6());
        assert!(!BirdFamily::default().is_ipv6());
    }
}
