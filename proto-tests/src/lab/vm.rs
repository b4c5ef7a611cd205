//! Another kernel for one run: user-mode Linux of Debian, for labs that need what this kernel lacks (`ipip`, netem, VRFs).
//!
//! It is an ordinary program that boots in a second or two, sees this machine's files and writes none of them: what is written goes to
//! its memory and with it. Nothing is installed: two packages are unpacked below `target/vm`. Root is needed, since files are read as who
//! runs it. Inside, starting a process costs some fifty times what it costs outside, so few labs run there, and nothing is measured.
//!
//! Seen: `/proc/modules` is there, modules are not loaded by themselves without a modprobe in the guest, so those that a lab may need are
//! loaded at boot, in the order of `modules.dep`.
//!
//! Seen: on a processor with AMX (Intel's since 2023) the guest dies before its first process has run, since this kernel refuses to
//! write back what the guest keeps of the processor's state. `xstate.c` stands between the two; any C compiler makes it, on each run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::image::{self, Missing};
use super::{enclosure, process};

/// What a lab may need; who is part of the kernel is not in `modules.dep` and needs no loading.
const MODULES: [&str; 9] = ["overlay", "ipv6", "af_packet", "veth", "bridge", "ipip", "sch_netem", "nf_tables", "nft_numgen"];

/// Debian packages that are unpacked.
const PACKAGES: [&str; 2] = ["user-mode-linux", "busybox-static"];

/// What lets the guest run on processors whose state is larger than its buffers.
const XSTATE: &str = include_str!("xstate.c");

/// How long a guest may take, boot and all.
const PATIENCE: Duration = Duration::from_secs(240);

fn folder() -> PathBuf {
    image::repository().join("target/vm")
}

fn kernel() -> PathBuf {
    folder().join("usr/bin/linux.uml")
}

/// What [`fetch`] unpacks, for who asks before.
pub fn packages() -> String {
    PACKAGES.join(" ")
}

/// Whether [`fetch`] has nothing to do.
pub fn is_there() -> bool {
    kernel().exists()
}

/// Whether this kernel has tunnels of IP in IP: asked by making one, in a namespace of its own.
pub fn host_has_ipip() -> bool {
    let probe = "ip link add probe0 type ipip local 192.0.2.1 remote 192.0.2.2";
    Command::new("unshare").args(["--net", "sh", "-c", probe]).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Fetches and unpacks the packages if they are not there yet.
///
/// # Errors
/// They cannot be had: no Debian, no network, another architecture.
pub fn fetch() -> Result<()> {
    if is_there() {
        return Ok(());
    }
    // Cargo may have its folder elsewhere.
    let beside = image::repository().join("target");
    std::fs::create_dir_all(&beside)?;
    let place = tempfile::Builder::new().prefix("vm-").tempdir_in(beside)?;
    let unpack =
        "apt-get -qq -o APT::Sandbox::User=root download $0 $1 >&2 && for deb in *.deb; do dpkg -x $deb . || exit 1; rm $deb; done";
    let mut command = Command::new("sh");
    command.args(["-ec", unpack]).args(PACKAGES).current_dir(place.path());
    process::run(command, None).with_context(|| format!("user-mode Linux (packages {}) cannot be fetched", PACKAGES.join(", ")))?;
    fs::rename(place.keep(), folder()).context("cannot put it in its place")
}

/// Why no guest can run here.
fn check() -> Result<()> {
    if !rustix::process::getuid().is_root() || enclosure::current() == Some(enclosure::Kind::User) {
        bail!(Missing("user-mode Linux reads this machine's files as root: run this as root".to_owned()));
    }
    if !is_there() {
        bail!(Missing(
            "this kernel has no ipip, and there is no user-mode Linux in target/vm: `cargo lab test --runner vm` fetches it".to_owned()
        ));
    }
    Ok(())
}

/// Runs `words` as root in a guest, in the repository; `Ok` with what it printed when it succeeded.
///
/// # Errors
/// [`Missing`]: there can be no guest here. Else what the command printed before it failed.
pub fn run(words: &[&str]) -> Result<String> {
    check()?;
    let place = tempfile::Builder::new().prefix("margay-vm-").tempdir()?;
    let init = place.path().join("init");
    fs::write(&init, script(place.path(), words)?)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", &PATIENCE.as_secs().to_string()]).arg(kernel());
    command.args([
        "mem=1500M",
        "rootfstype=hostfs",
        "rootflags=/",
        "ro",
        "quiet",
        "loglevel=1",
        "con=null",
        "con0=null,fd:2",
        "ssl=null",
        "umid=guest",
    ]);
    command.arg(format!("init={}", init.display())).arg(format!("uml_dir={}/", place.path().display()));
    command.env("HOME", place.path()).env("TMPDIR", place.path()).env("LD_PRELOAD", between(place.path())?);
    let booted = process::capture(&mut command, None)?;
    let said = fs::read_to_string(place.path().join("said")).unwrap_or_default();
    let Ok(status) = fs::read_to_string(place.path().join("status")) else {
        let console = String::from_utf8_lossy(&booted.stderr).into_owned();
        bail!("the guest ended without a result ({}):\n{said}\n{console}", booted.status);
    };
    ensure!(status.trim() == "0", "in the guest `{}` ended with {}:\n{said}", words.join(" "), status.trim());
    Ok(said)
}

/// The library of [`XSTATE`], made in `place`.
fn between(place: &Path) -> Result<PathBuf> {
    let library = place.join("xstate.so");
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-O2", "-x", "c", "-", "-ldl", "-o"]).arg(&library);
    process::run(command, Some(XSTATE)).context("cannot make the library that user-mode Linux needs (a C compiler: package gcc)")?;
    Ok(library)
}

/// The guest's first process: this machine's files below a layer of memory, the modules, then the command.
fn script(place: &Path, words: &[&str]) -> Result<String> {
    let busybox = ["bin/busybox", "usr/bin/busybox"].map(|path| folder().join(path)).into_iter().find(|path| path.exists());
    let busybox = busybox.context("no busybox in target/vm")?.display().to_string();
    let mut text = format!("#!{busybox} sh\nB={busybox}\nP={}\nR=/run/root\n", place.display());
    text.push_str("$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t tmpfs run /run\n");
    for module in modules()? {
        let _ = writeln!(text, "$B insmod {}", module.display());
    }
    text.push_str(
        "$B mkdir -p /run/upper /run/work /run/out $R\n\
         $B mount -t hostfs -o $P none /run/out\n\
         $B mount -t overlay -o lowerdir=/,upperdir=/run/upper,workdir=/run/work files $R\n\
         for d in proc sys dev; do $B mount --bind /$d $R/$d; done\n\
         $B mount -t tmpfs run $R/run; $B mount -t tmpfs tmp $R/tmp; $B mkdir -p $R/run/lock\n\
         $B ip link set lo up\n",
    );
    let quoted = words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect::<Vec<_>>().join(" ");
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    let _ = writeln!(
        text,
        "$B env -i PATH='{path}' HOME=/root TMPDIR=/tmp $B chroot $R /bin/sh -c 'cd {} && exec \"$@\"' sh {quoted} </dev/null >/run/out/said 2>&1",
        image::repository().display()
    );
    text.push_str("echo $? >/run/out/status\n$B sync\n$B poweroff -f\n");
    Ok(text)
}

/// The files of [`MODULES`] and of what they need, each after what it needs.
fn modules() -> Result<Vec<PathBuf>> {
    let all = folder().join("usr/lib/uml/modules");
    let version = fs::read_dir(&all).with_context(|| all.display().to_string())?.flatten().next().context("no modules")?.path();
    let text = fs::read_to_string(version.join("modules.dep"))?;
    Ok(in_order(&text, &MODULES).into_iter().map(|file| version.join(file)).collect())
}

/// `modules.dep` has a line for each module: its file, a colon, and the files that it needs, the deepest last.
fn in_order(text: &str, wanted: &[&str]) -> Vec<String> {
    let lines: BTreeMap<String, (&str, Vec<&str>)> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(file, needs)| (module_name(file), (file, needs.split_whitespace().rev().collect())))
        .collect();
    let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
    for (file, needs) in wanted.iter().filter_map(|name| lines.get(*name)) {
        for file in needs.iter().chain([file]) {
            if seen.insert(*file) {
                order.push((*file).to_owned());
            }
        }
    }
    order
}

fn module_name(file: &str) -> String {
    file.rsplit('/').next().unwrap_or(file).split('.').next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    #[test]
    fn modules_come_after_what_they_need() {
        let text = "kernel/net/ipv4/ipip.ko: kernel/net/ipv4/tunnel4.ko kernel/net/ipv4/ip_tunnel.ko\nkernel/net/ipv4/tunnel4.ko:\n\
                    kernel/net/bridge/bridge.ko: kernel/net/802/stp.ko kernel/net/llc/llc.ko\nkernel/net/802/stp.ko: kernel/net/llc/llc.ko\n";
        let order = super::in_order(text, &["bridge", "nothing", "ipip", "bridge"]);
        let at = |word: &str| order.iter().position(|file| file.contains(word)).unwrap();
        assert_eq!(order.len(), 6);
        assert!(at("llc.ko") < at("stp.ko") && at("stp.ko") < at("bridge.ko") && at("tunnel4") < at("ipip.ko"), "{order:?}");
    }
}
