//! The same labs as real containerlab runs them: images for the nodes, `containerlab deploy`, and a way into the containers.
//!
//! The images hold Debian's packages of every speaker and this workspace's margay: one root filesystem by `debootstrap`, imported into the
//! engine under each name that lab files use (`margay:local`, `bird:local`, …). No registry is asked.
//!
//! What is needed: root, a containerlab on the `PATH` (or `$CONTAINERLAB`), an engine that `docker version` reaches (`DOCKER_HOST`), and that
//! this process is in the engine's network namespace, where containerlab makes the links.
//!
//! Seen with containerlab 0.79.0 (its tag, built with `CGO_ENABLED=0 go build`; it then calls itself 0.0.0) and Docker 20.10 of Debian 12:
//! - every lab of `topologies/` passed (`lab test --runner containerlab FILE`) but `ipip-…`, which are SKIPPED where the kernel has no ipip;
//! - every lab file is valid by `schemas/clab.schema.json` of that tag;
//! - a lab takes half a minute where namespaces take three seconds;
//! - a host whose root lacks a capability cannot start privileged containers until runc is told not to ask for it;
//! - on a kernel without loadable modules there is no `/proc/modules`, and containerlab stops there.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::image::{self, Missing};
use super::process;
use super::topology::Topology;

/// What the image holds beside a minimal Debian and what [`image`] says that nodes need: for faults, and to look at packets.
const TOOLS: [&str; 2] = ["nftables", "tcpdump"];

/// A lab that containerlab deployed; dropping it destroys it.
#[derive(Debug)]
pub struct Deployed {
    file: PathBuf,
}

fn program() -> Command {
    let mut command = Command::new(env::var_os("CONTAINERLAB").unwrap_or_else(|| "containerlab".into()));
    command.env("CLAB_VERSION_CHECK", "disable");
    command
}

fn docker(words: &[&str]) -> Result<String> {
    let mut command = Command::new("docker");
    command.args(words);
    process::run(command, None)
}

/// The versions of both; fails with [`Missing`] where one is not at hand.
pub fn check() -> Result<String> {
    let mut version = program();
    version.args(["version", "--short"]);
    let containerlab = process::run(version, None).map_err(|error| Missing(format!("no containerlab: {error:#}")))?;
    let engine =
        docker(&["version", "--format", "{{.Server.Version}}"]).map_err(|error| Missing(format!("no container engine: {error:#}")))?;
    Ok(format!("containerlab {}, Docker {}", containerlab.trim(), engine.trim()))
}

/// Fails with [`Missing`] if the engine lacks an image of the lab.
fn check_images(topology: &Topology) -> Result<()> {
    for node in topology.nodes.values() {
        if docker(&["image", "inspect", "--format", "{{.Id}}", &node.image]).is_err() {
            bail!(Missing(format!("the engine has no image {}: `cargo lab images` makes those of this repository's labs", node.image)));
        }
    }
    Ok(())
}

/// Makes the images: a minimal Debian of this machine's release and mirror, with the speakers' packages, and the margay that was just built.
///
/// # Errors
/// No root, no debootstrap, no engine.
pub fn images() -> Result<()> {
    check()?;
    let place = tempfile::Builder::new().prefix("images-").tempdir_in(image::repository().join("target"))?;
    let margay = image::margay_folder()?.join("margay");
    ensure!(margay.exists(), "no margay at {}: cargo build", margay.display());
    let script = "\
root=$1/root; release=$(. /etc/os-release && echo \"$VERSION_CODENAME\")
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -n 1)
debootstrap --variant=minbase --include=\"$3\" \"$release\" \"$root\" \"$mirror\" >&2
rm -rf \"$root\"/var/cache/apt/archives/*.deb \"$root\"/var/lib/apt/lists/*
install -m 755 \"$2\" \"$root/usr/bin/margay\"
tar -C \"$root\" -c . | docker import --change 'CMD [\"sleep\",\"infinity\"]' \
  --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - margay:local";
    let mut command = Command::new("sh");
    command
        .args(["-ec", script, "sh"])
        .arg(place.path())
        .arg(&margay)
        .arg(image::all_packages().into_iter().chain(TOOLS).collect::<Vec<_>>().join(","));
    process::run(command, None).context("making the image (needs root and the package debootstrap)")?;
    image::names()
        .filter(|name| *name != "margay")
        .try_for_each(|name| docker(&["tag", "margay:local", &format!("{name}:local")]).map(drop))
}

/// The container of a node, by containerlab's rule: `clab-LAB-NODE`, or with the file's `prefix`.
pub(super) fn name(topology: &Topology, node: &str) -> String {
    match topology.prefix.as_deref() {
        Some("") => node.to_owned(),
        Some("__lab-name") => format!("{}-{node}", topology.name),
        prefix => format!("{}-{}-{node}", prefix.unwrap_or("clab"), topology.name),
    }
}

impl Deployed {
    /// `containerlab deploy`: afterwards links are made and `exec` lines have run.
    pub fn deploy(topology: &Topology) -> Result<Self> {
        check_images(topology)?;
        let deployed = Self { file: topology.file.clone() };
        deployed.containerlab(&["deploy", "--reconfigure"])?;
        Ok(deployed)
    }

    fn containerlab(&self, words: &[&str]) -> Result<String> {
        let mut command = program();
        command.args(words).arg("--topo").arg(&self.file).current_dir(self.file.parent().unwrap_or(Path::new("/")));
        process::run(command, None)
    }
}

impl Drop for Deployed {
    fn drop(&mut self) {
        if let Err(error) = self.containerlab(&["destroy", "--cleanup"]) {
            eprintln!("{}: not destroyed: {error:#}", self.file.display());
        }
    }
}
