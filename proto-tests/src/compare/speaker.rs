//! The speakers: where their programs are, how each is configured for a scenario, how it is started and ended.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::scenario::{ASN, HOLD, PORT, Peer, Role, Scenario, Shape, TARGET, TARGET6};
use super::usage;
use crate::lab::image;
use crate::lab::process::{self, Signal, wait_until, wait_until_calm};

/// Which configuration a program reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Calico resources.
    Margay,
    /// BIRD, of any version.
    Bird,
    /// FRR's bgpd alone.
    Frr,
    /// GoBGP's, which RustyBGP reads too.
    Gobgp,
    /// OpenBGPD.
    Openbgpd,
}

/// A program to be measured.
#[derive(Clone, Debug)]
pub struct Speaker {
    /// Under which name it is reported; it begins with the name of its kind.
    pub name: String,
    /// How it is configured.
    pub kind: Kind,
    /// Its path.
    pub program: PathBuf,
}

/// Names of speakers begin with one of these; where the program is by default.
const KINDS: [(&str, Kind, &str); 6] = [
    ("margay", Kind::Margay, ""),
    ("bird", Kind::Bird, "/usr/sbin/bird"),
    ("frr", Kind::Frr, "/usr/lib/frr/bgpd"),
    ("gobgp", Kind::Gobgp, "/usr/bin/gobgpd"),
    ("rustybgp", Kind::Gobgp, "/usr/local/bin/rustybgpd"),
    ("openbgpd", Kind::Openbgpd, "/usr/sbin/bgpd"),
];

/// It must listen, and have read its configuration, by then.
const START: Duration = Duration::from_secs(60);
/// As long without using CPU it has read its configuration.
const CALM: Duration = Duration::from_millis(600);

impl Speaker {
    /// The speaker of a name like `bird` or `bird3`; `program` where it is not the one of the system.
    ///
    /// # Errors
    /// The name begins with no known one.
    pub fn named(name: &str, program: Option<PathBuf>) -> Result<Self> {
        let row = KINDS.iter().find(|(known, ..)| name.starts_with(known));
        let known = || KINDS.map(|(known, ..)| known).join(", ");
        let (_, kind, usual) = row.with_context(|| format!("speaker `{name}` begins with none of {}", known()))?;
        let program = match (program, kind) {
            (Some(program), _) => std::path::absolute(program)?,
            (None, Kind::Margay) => image::margay_folder()?.join("margay"),
            (None, _) => PathBuf::from(usual),
        };
        Ok(Self { name: name.to_owned(), kind: *kind, program })
    }

    /// All that are installed, margay first.
    pub fn installed() -> Vec<Self> {
        let all = KINDS.iter().filter_map(|(name, ..)| Self::named(name, None).ok());
        all.filter(|speaker| speaker.program.exists()).collect()
    }

    /// Those of these names, else all that are installed; and for each `NAME=PATH` that program in the place of its name's own. Then what is
    /// left out since its program is not there, in words.
    ///
    /// # Errors
    /// A name that begins with no known one, or nothing is left.
    pub fn chosen(names: &[String], programs: &[String]) -> Result<(Vec<Self>, Vec<String>)> {
        let mut all: Vec<Self> = match names {
            [] => Self::installed(),
            names => names.iter().map(|name| Self::named(name, None)).collect::<Result<_>>()?,
        };
        for pair in programs {
            let (name, path) = pair.split_once('=').with_context(|| format!("--bin {pair}: NAME=PATH is wanted"))?;
            all.retain(|speaker| speaker.name != name);
            all.push(Self::named(name, Some(path.into()))?);
        }
        let (there, lacking): (Vec<Self>, Vec<Self>) = all.into_iter().partition(|speaker| speaker.program.exists());
        let lacking: Vec<String> = lacking
            .iter()
            .map(|speaker| {
                let (name, path) = (&speaker.name, speaker.program.display());
                format!("SKIPPED: {name}: there is no {path}; --bin {name}=PATH says where it is")
            })
            .collect();
        ensure!(!there.is_empty(), "none of the speakers is there: {}", lacking.join("; "));
        Ok((there, lacking))
    }

    /// Writes its configuration and starts it; returns when it listens and has become calm.
    ///
    /// # Errors
    /// It does not start; with the end of what it said.
    pub fn start(&self, scenario: &Scenario) -> Result<Running> {
        let folder = tempfile::Builder::new().prefix("margay-compare-").tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let arguments = self.configure(folder.path(), scenario)?;
        let log = File::create(folder.path().join("log"))?;
        let child = Command::new(&self.program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        let mut running = Running { child, folder };
        // A thousand peers that are not there yet are called again and again, which is a few hundredths of a core.
        wait_until(START, "it listens", || running.listens())
            .and_then(|()| wait_until_calm(START, CALM, "it is calm", || Ok((running.usage()?.cpu * 20.0) as u64)))
            .with_context(|| format!("{} has not started: {}", self.name, running.last_words()))?;
        if self.kind == Kind::Gobgp {
            self.originate(scenario)?;
        }
        Ok(running)
    }

    /// GoBGP and RustyBGP originate routes by their API alone, which GoBGP's client speaks to.
    fn originate(&self, scenario: &Scenario) -> Result<()> {
        let beside = self.program.with_file_name("gobgp");
        let client = if beside.exists() { beside } else { PathBuf::from("gobgp") };
        for block in scenario.own_blocks() {
            let mut command = Command::new(&client);
            command.args(["-p", self.api_port(), "global", "rib", "add", &block.to_string(), "-a", "ipv4"]);
            process::run(command, None).context("GoBGP's client (package gobgpd, or beside the daemon)")?;
        }
        Ok(())
    }

    /// RustyBGP has no option for it.
    fn api_port(&self) -> &'static str {
        if self.name.starts_with("gobgp") { "50999" } else { "50051" }
    }

    /// Its version, as it tells it.
    pub fn version(&self) -> String {
        let flag = if self.kind == Kind::Openbgpd { "-V" } else { "--version" };
        let program = if self.kind == Kind::Openbgpd { self.program.with_file_name("bgpctl") } else { self.program.clone() };
        let Ok(output) = Command::new(program).arg(flag).output() else { return String::new() };
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
    }

    fn configure(&self, folder: &Path, scenario: &Scenario) -> Result<Vec<String>> {
        let place = folder.display();
        let arguments = match self.kind {
            Kind::Margay => return Ok([margay(folder, scenario)?, shards(&self.name)].concat()),
            Kind::Bird => {
                fs::write(folder.join("bird.conf"), bird(scenario, self.name.contains('3')))?;
                format!("-f -c {place}/bird.conf -s {place}/bird.ctl -P {place}/bird.pid")
            }
            Kind::Frr => {
                fs::write(folder.join("frr.conf"), frr(scenario))?;
                fs::create_dir_all("/var/run/frr")?;
                let ipv6 = if scenario.ipv6 > 0 { format!("-l {TARGET6} ") } else { String::new() };
                format!(
                    "-f {place}/frr.conf -l {TARGET} {ipv6}-p {PORT} -n -Z -S -i {place}/frr.pid -u root -g root -P 0 --vty_socket {place}"
                )
            }
            Kind::Gobgp => {
                fs::write(folder.join("gobgp.toml"), gobgp(scenario))?;
                match self.name.starts_with("gobgp") {
                    true => format!("-f {place}/gobgp.toml --api-hosts 127.0.0.1:{} -l error --pprof-disable", self.api_port()),
                    false => format!("-f {place}/gobgp.toml"),
                }
            }
            Kind::Openbgpd => {
                let path = folder.join("bgpd.conf");
                fs::write(&path, openbgpd(scenario, folder))?;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
                fs::create_dir_all("/run/openbgpd")?;
                format!("-d -f {place}/bgpd.conf")
            }
        };
        Ok(arguments.split(' ').map(str::to_owned).collect())
    }
}

/// What a configuration says of a peer.
impl Peer {
    /// It is a client of the speaker, a reflector.
    fn is_client(&self, scenario: &Scenario) -> bool {
        self.role == Role::Sender && scenario.shape == Shape::Reflector
    }

    /// It is of the speaker's AS.
    fn is_internal(&self) -> bool {
        self.asn == ASN
    }

    /// The speaker's address on the session.
    pub(super) fn target(&self) -> IpAddr {
        if self.address.is_ipv6() { TARGET6.into() } else { TARGET.into() }
    }

    fn family(&self) -> &'static str {
        if self.address.is_ipv6() { "ipv6" } else { "ipv4" }
    }
}

/// `margay-2` divides its table among two threads.
fn shards(name: &str) -> Vec<String> {
    let number = name.strip_prefix("margay-").filter(|rest| rest.parse::<u16>().is_ok());
    number.map_or_else(Vec::new, |number| vec!["--shards".into(), number.into()])
}

fn margay(folder: &Path, scenario: &Scenario) -> Result<Vec<String>> {
    let cluster = if scenario.shape == Shape::Reflector { ", routeReflectorClusterID: 10.7.0.1" } else { "" };
    let ipv6 = if scenario.ipv6 > 0 { format!(", ipv6Address: '{TARGET6}/16'") } else { String::new() };
    let (accept, reject) = ("[{action: Accept}]", "[{action: Reject}]");
    let filter = |name: &str, export: &str| {
        format!(
            "---\napiVersion: projectcalico.org/v3\nkind: BGPFilter\nmetadata: {{name: {name}}}\n\
             spec: {{importV4: {accept}, exportV4: {export}, importV6: {accept}, exportV6: {export}}}\n"
        )
    };
    let mut text = format!(
        "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {{name: bench}}\nspec: {{bgp: {{ipv4Address: {TARGET}/8{ipv6}, asNumber: {ASN}{cluster}}}}}\n---\n\
         apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {{name: default}}\n\
         spec: {{nodeToNodeMeshEnabled: false, asNumber: {ASN}, listenPort: {PORT}}}\n{}{}",
        filter("all", accept),
        filter("quiet", reject),
    );
    for (number, peer) in scenario.peers().iter().enumerate() {
        let filter = if peer.role == Role::Idler { "quiet" } else { "all" };
        write!(
            text,
            "---\napiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: p{number:04}}}\n\
             spec: {{node: bench, peerIP: '{}', asNumber: {}, filters: [{filter}]}}\n",
            peer.address, peer.asn
        )?;
    }
    for (number, block) in scenario.own_blocks().iter().enumerate() {
        write!(
            text,
            "---\napiVersion: projectcalico.org/v3\nkind: BlockAffinity\nmetadata: {{name: block-{number}}}\n\
             spec: {{node: bench, cidr: {block}, state: confirmed}}\n"
        )?;
    }
    for name in ["resources", "state"] {
        fs::create_dir(folder.join(name))?;
    }
    fs::write(folder.join("resources/all.yaml"), text)?;
    let place = |name: &str| folder.join(name).display().to_string();
    let kernel = if scenario.keeps_kernel_rows { "--dry-run" } else { "--no-fib" };
    let words = ["run", "--node", "bench", kernel, "--log-level", "error", "--resources"].map(str::to_owned).into_iter();
    Ok(words.chain([place("resources"), "--socket".into(), place("socket"), "--state".into(), place("state")]).collect())
}

fn bird(scenario: &Scenario, threads: bool) -> String {
    let mut text = String::from(if threads { "threads 2;\n" } else { "" }) + "router id 10.7.0.1;\nprotocol device {}\n";
    if scenario.blocks > 0 {
        text += "protocol static { ipv4;";
        for block in scenario.own_blocks() {
            text += &format!(" route {block} blackhole;");
        }
        text += " }\n";
    }
    for (number, peer) in scenario.peers().iter().enumerate() {
        let Peer { address, asn, .. } = peer;
        let client = if peer.is_client(scenario) { " rr client;" } else { "" };
        let export = if peer.role == Role::Idler { "none" } else { "all" };
        text += &format!(
            "protocol bgp p{number} {{ local {} port {PORT} as {ASN}; neighbor {address} as {asn}; multihop; passive; \
             hold time {HOLD};{client} {} {{ import all; export {export}; }}; }}\n",
            peer.target(),
            peer.family()
        );
    }
    text
}

fn frr(scenario: &Scenario) -> String {
    let mut text = format!(
        "frr defaults datacenter\nlog file /dev/null\nip prefix-list quiet seq 5 deny any\nrouter bgp {ASN}\n bgp router-id 10.7.0.1\n \
         no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n no bgp network import-check\n timers bgp {} {HOLD}\n \
         bgp cluster-id 10.7.0.1\n",
        HOLD / 3
    );
    let peers = scenario.peers();
    for peer in &peers {
        let address = peer.address;
        for line in [
            format!("remote-as {}", peer.asn),
            "passive".to_owned(),
            format!("update-source {}", peer.target()),
            "disable-connected-check".to_owned(),
            "advertisement-interval 0".to_owned(),
        ] {
            text += &format!(" neighbor {address} {line}\n");
        }
        if !peer.is_internal() {
            text += &format!(" neighbor {address} ebgp-multihop 64\n");
        }
    }
    for family in ["ipv4", "ipv6"] {
        let of_family = || peers.iter().filter(|peer| peer.family() == family);
        if of_family().next().is_none() {
            continue;
        }
        text += &format!(" address-family {family} unicast\n");
        for block in scenario.own_blocks().iter().filter(|_| family == "ipv4") {
            text += &format!("  network {block}\n");
        }
        for peer in of_family() {
            text += &format!("  neighbor {} activate\n", peer.address);
            if peer.is_client(scenario) {
                text += &format!("  neighbor {} route-reflector-client\n", peer.address);
            }
            if peer.role == Role::Idler {
                text += &format!("  neighbor {} prefix-list quiet out\n", peer.address);
            }
        }
        text += " exit-address-family\n";
    }
    text
}

fn gobgp(scenario: &Scenario) -> String {
    let ipv6 = if scenario.ipv6 > 0 { format!(", \"{TARGET6}\"") } else { String::new() };
    let mut text =
        format!("[global.config]\nas = {ASN}\nrouter-id = \"10.7.0.1\"\nport = {PORT}\nlocal-address-list = [\"{TARGET}\"{ipv6}]\n");
    if scenario.idlers > 0 {
        let idlers: Vec<String> =
            scenario.peers().iter().filter(|peer| peer.role == Role::Idler).map(|peer| format!("\"{}\"", peer.address)).collect();
        text += &format!(
            "[global.apply-policy.config]\nexport-policy-list = [\"quiet\"]\ndefault-export-policy = \"accept-route\"\n\
             default-import-policy = \"accept-route\"\n[[defined-sets.neighbor-sets]]\nneighbor-set-name = \"idlers\"\n\
             neighbor-info-list = [{}]\n[[policy-definitions]]\nname = \"quiet\"\n[[policy-definitions.statements]]\nname = \"quiet\"\n\
             [policy-definitions.statements.conditions.match-neighbor-set]\nneighbor-set = \"idlers\"\nmatch-set-options = \"any\"\n\
             [policy-definitions.statements.actions]\nroute-disposition = \"reject-route\"\n",
            idlers.join(", ")
        );
    }
    for peer in scenario.peers() {
        text += &format!(
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{}\"\npeer-as = {}\n[neighbors.transport.config]\n\
             passive-mode = true\nlocal-address = \"{}\"\n[neighbors.timers.config]\nhold-time = {HOLD}\nkeepalive-interval = {}\n",
            peer.address,
            peer.asn,
            peer.target(),
            HOLD / 3
        );
        text += match (peer.is_internal(), peer.is_client(scenario)) {
            (_, true) => "[neighbors.route-reflector.config]\nroute-reflector-client = true\nroute-reflector-cluster-id = \"10.7.0.1\"\n",
            (true, false) => "",
            (false, false) => "[neighbors.ebgp-multihop.config]\nenabled = true\nmultihop-ttl = 64\n",
        };
        text += &format!("[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{}-unicast\"\n", peer.family());
    }
    text
}

fn openbgpd(scenario: &Scenario, folder: &Path) -> String {
    let ipv6 = if scenario.ipv6 > 0 { format!("listen on {TARGET6} port {PORT}\n") } else { String::new() };
    let mut text = format!(
        "AS {ASN}\nrouter-id 10.7.0.1\nlisten on {TARGET} port {PORT}\n{ipv6}fib-update no\nholdtime {HOLD}\nsocket \"{}/bgpd.sock\"\n",
        folder.display()
    );
    for block in scenario.own_blocks() {
        text += &format!("network {block}\n");
    }
    for peer in scenario.peers() {
        let client = if peer.is_client(scenario) { " route-reflector\n" } else { "" };
        let family = if peer.address.is_ipv6() { "IPv6" } else { "IPv4" };
        text += &format!(
            "neighbor {} {{\n remote-as {}\n passive\n multihop 64\n local-address {}\n announce {family} unicast\n{client}}}\n",
            peer.address,
            peer.asn,
            peer.target()
        );
    }
    text += "allow from any\nallow to any\n";
    for peer in scenario.peers().iter().filter(|peer| peer.role == Role::Idler) {
        text += &format!("deny to {}\n", peer.address);
    }
    text
}

/// A speaker that runs. Dropping it ends it and what it has started.
#[derive(Debug)]
pub struct Running {
    child: Child,
    folder: TempDir,
}

impl Running {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its configuration, socket and log are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// It has ended.
    pub fn usage(&self) -> Result<usage::Usage> {
        usage::of(self.pid())
    }

    /// Whether its process runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    /// The end of what it has said.
    pub fn last_words(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" / ")
    }

    fn listens(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("it has ended: {status}");
        }
        let wanted = format!(":{PORT:04X}");
        let sockets = fs::read_to_string("/proc/net/tcp")? + &fs::read_to_string("/proc/net/tcp6").unwrap_or_default();
        let listens = sockets.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.get(1).is_some_and(|local| local.ends_with(&wanted)) && fields.get(3) == Some(&"0A")
        });
        ensure!(listens, "nobody listens on port {PORT}");
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for pid in usage::tree(self.child.id()) {
            process::signal(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_left_out_with_a_line() {
        let programs = ["rustybgp=/none/rustybgpd".to_owned(), "bird3=/bin/true".to_owned()];
        let (there, lacking) = Speaker::chosen(&["bird3".to_owned(), "rustybgp".to_owned()], &programs).unwrap();
        assert_eq!(there.iter().map(|speaker| (&*speaker.name, speaker.kind)).collect::<Vec<_>>(), [("bird3", Kind::Bird)]);
        assert_eq!(lacking, ["SKIPPED: rustybgp: there is no /none/rustybgpd; --bin rustybgp=PATH says where it is"]);
        assert!(Speaker::chosen(&["rustybgp".to_owned()], &programs[..1]).is_err(), "nothing is left");
        assert!(Speaker::chosen(&["quagga".to_owned()], &[]).is_err());
    }

    #[test]
    fn every_configuration_names_every_peer_and_what_it_must_not_be_told() {
        assert_eq!((shards("margay-2").join(" "), shards("margay"), shards("margay-old")), ("--shards 2".into(), vec![], vec![]));
        let scenario = Scenario { idlers: 3, ipv6: 5, blocks: 2, ..Scenario::named("S2").unwrap() };
        let folder = tempfile::tempdir().unwrap();
        margay(folder.path(), &scenario).unwrap();
        let texts = [
            (fs::read_to_string(folder.path().join("resources/all.yaml")).unwrap(), "filters: [quiet]"),
            (bird(&scenario, true), "export none"),
            (frr(&scenario), "prefix-list quiet out"),
            (gobgp(&scenario), "\"127.3.0.3\""),
            (openbgpd(&scenario, folder.path()), "deny to 127.3.0.3"),
        ];
        for (text, quiet) in &texts {
            for peer in scenario.peers() {
                assert!(text.contains(&peer.address.to_string()) && text.contains(&peer.asn.to_string()), "{peer:?}: {text}");
            }
            assert!(text.contains(quiet), "{quiet}: {text}");
            // GoBGP is told its own routes by its API.
            let blocks = scenario.own_blocks();
            assert!(text == &texts[3].0 || blocks.iter().all(|block| text.contains(&block.to_string())), "{blocks:?}: {text}");
        }
    }
}
