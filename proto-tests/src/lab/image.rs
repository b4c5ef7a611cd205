//! The image table: which programs of the host an image stands for, and which Debian package brings them.

use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::topology::Topology;
use super::{enclosure, vm};

/// The speaker that an image runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Speaker {
    /// `margay`, from this workspace's target folder.
    Margay,
    /// BIRD 2.
    Bird,
    /// FRR: zebra and bgpd.
    Frr,
    /// GoBGP.
    Gobgp,
    /// OpenBGPD.
    Openbgpd,
    /// None: a workload or a switch.
    None,
}

/// One row of the table.
struct Image {
    /// What stands before the `:` of the image.
    name: &'static str,
    speaker: Speaker,
    /// Whether its programs change to a user of their own, which exists only where root made the enclosure.
    own_user: bool,
    /// Programs, and the package that has each.
    programs: &'static [(&'static str, &'static str)],
}

const IMAGES: [Image; 9] = [
    Image { name: "margay", speaker: Speaker::Margay, own_user: false, programs: &[] },
    Image { name: "bird", speaker: Speaker::Bird, own_user: false, programs: &[("bird", "bird2"), ("birdc", "bird2")] },
    // A node on its way from BIRD to margay.
    Image { name: "calico", speaker: Speaker::Bird, own_user: false, programs: &[("bird", "bird2"), ("birdc", "bird2")] },
    Image {
        name: "frr",
        speaker: Speaker::Frr,
        own_user: true,
        programs: &[("/usr/lib/frr/zebra", "frr"), ("/usr/lib/frr/bgpd", "frr"), ("vtysh", "frr")],
    },
    Image { name: "gobgp", speaker: Speaker::Gobgp, own_user: false, programs: &[("gobgpd", "gobgpd"), ("gobgp", "gobgpd")] },
    Image {
        name: "openbgpd",
        speaker: Speaker::Openbgpd,
        own_user: true,
        programs: &[("/usr/sbin/bgpd", "openbgpd"), ("bgpctl", "openbgpd")],
    },
    // A compute host of OpenStack: margay, and the DHCP server and the taps' backend beside it.
    Image { name: "compute", speaker: Speaker::Margay, own_user: false, programs: &[("dnsmasq", "dnsmasq-base"), ("socat", "socat")] },
    // What runs on it.
    Image { name: "vm", speaker: Speaker::None, own_user: false, programs: &[("udhcpc", "udhcpc"), ("socat", "socat")] },
    Image { name: "workload", speaker: Speaker::None, own_user: false, programs: &[] },
];

/// What every node needs, whatever its image.
const EVERYWHERE: [(&str, &str); 4] = [("ip", "iproute2"), ("ping", "iputils-ping"), ("sysctl", "procps"), ("unshare", "util-linux")];

/// Something that the host lacks: a test says SKIPPED instead of failing.
#[derive(Debug)]
pub struct Missing(pub String);

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

/// The speaker of an image; an image that the table does not know is an error.
pub fn speaker(image: &str) -> Result<Speaker> {
    row(image).map(|row| row.speaker)
}

fn row(image: &str) -> Result<&'static Image> {
    let name = image.split(':').next().unwrap_or_default();
    let known = || IMAGES.iter().map(|row| row.name).collect::<Vec<_>>().join(", ");
    IMAGES
        .iter()
        .find(|row| row.name == name)
        .with_context(|| format!("image `{image}` stands for no program of the host; known: {}", known()))
}

fn programs(topology: &Topology) -> Result<BTreeSet<(&'static str, &'static str)>> {
    let mut all = BTreeSet::from(EVERYWHERE);
    for node in topology.nodes.values() {
        all.extend(row(&node.image)?.programs);
    }
    Ok(all)
}

/// The Debian packages that a lab needs, sorted.
pub fn packages(topology: &Topology) -> Result<BTreeSet<&'static str>> {
    Ok(programs(topology)?.into_iter().map(|(_, package)| package).collect())
}

/// The names of all images, without `:local`.
pub fn names() -> impl Iterator<Item = &'static str> {
    IMAGES.iter().map(|row| row.name)
}

/// The Debian packages that the nodes of any lab need.
pub fn all_packages() -> BTreeSet<&'static str> {
    EVERYWHERE.iter().chain(IMAGES.iter().flat_map(|row| row.programs)).map(|(_, package)| *package).collect()
}

/// Fails with [`Missing`] if the host lacks a program that the lab needs.
pub fn check(topology: &Topology) -> Result<()> {
    for node in topology.nodes.values() {
        let row = row(&node.image)?;
        if row.own_user && enclosure::current() == Some(enclosure::Kind::User) {
            bail!(Missing(format!("{} changes to a user of its own: run this as root", row.name)));
        }
    }
    check_kernel(topology)?;
    let lacking: Vec<_> = programs(topology)?.into_iter().filter(|(program, _)| find(program).is_none()).collect();
    if lacking.is_empty() {
        return check_margay(topology);
    }
    let programs: Vec<_> = lacking.iter().map(|(program, _)| *program).collect();
    let packages: BTreeSet<_> = lacking.iter().map(|(_, package)| *package).collect();
    let packages: Vec<_> = packages.into_iter().collect();
    bail!(Missing(format!("{} not found: apt-get install --no-install-recommends {}", programs.join(", "), packages.join(" "))))
}

/// The label `lab-needs` names what a node needs of the kernel, where kernels differ: `ipip`.
pub(super) fn check_kernel(topology: &Topology) -> Result<()> {
    for (name, node) in &topology.nodes {
        match node.labels.get("lab-needs").map(String::as_str) {
            None => {}
            Some("ipip") if vm::host_has_ipip() => {}
            Some("ipip") => {
                bail!(Missing(format!("this kernel has no ipip (CONFIG_NET_IPIP), which {name} needs: `lab test --runner vm` has one")))
            }
            Some(other) => bail!("node {name}: lab-needs: `{other}` is not known; known: ipip"),
        }
    }
    Ok(())
}

/// A margay that does not even tell its version would let a lab wait for nothing.
fn check_margay(topology: &Topology) -> Result<()> {
    let runs = |image: &str| image.starts_with("calico:") || speaker(image).is_ok_and(|speaker| speaker == Speaker::Margay);
    let wanted = topology.nodes.values().any(|node| runs(&node.image));
    let program = margay_folder()?.join("margay");
    let answers =
        || Command::new(&program).arg("--version").output().is_ok_and(|output| output.status.success() && !output.stdout.is_empty());
    if wanted && !answers() {
        bail!(Missing(format!("no working margay at {}: cargo build, or set MARGAY", program.display())));
    }
    Ok(())
}

const SYSTEM: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn find(program: &str) -> Option<PathBuf> {
    if program.starts_with('/') {
        return Some(PathBuf::from(program)).filter(|path| path.exists());
    }
    SYSTEM.split(':').map(|folder| Path::new(folder).join(program)).find(|path| path.exists())
}

/// The `PATH` inside nodes: margay's folder first.
pub fn path() -> Result<String> {
    Ok(format!("{}:{SYSTEM}", margay_folder()?.display()))
}

/// The folder of the `margay` to run: that of `$MARGAY`, or the build folder of the running program.
pub fn margay_folder() -> Result<PathBuf> {
    if let Some(program) = env::var_os("MARGAY") {
        return Ok(std::path::absolute(&program)?.parent().unwrap_or(Path::new("/")).to_owned());
    }
    let program = env::current_exe()?;
    let folder = program.parent().unwrap_or(Path::new("/"));
    // A test runs from `deps`, the program from the folder above.
    Ok(if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder }.to_owned())
}

/// Builds margay when run by cargo, so that a lab never tests yesterday's speaker; `$MARGAY` names another one to run.
pub fn build_margay() -> Result<()> {
    let (Some(cargo), None) = (env::var_os("CARGO"), env::var_os("MARGAY")) else { return Ok(()) };
    let mut command = Command::new(cargo);
    // Of the whole workspace, so that dependencies have the features that they are tested with, and are not built a second time.
    command.args(["build", "--quiet", "--workspace", "--bin", "margay"]).current_dir(repository());
    if margay_folder()?.ends_with("release") {
        command.arg("--release");
    }
    // The caller's own build settings are not ours to hand on.
    command.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_PKG_NAME");
    anyhow::ensure!(command.status().context("cannot run cargo")?.success(), "margay does not build");
    Ok(())
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}
