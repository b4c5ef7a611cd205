//! What margay is shipped as, on a node of a rack: the Debian package is installed, its service started, and it speaks to BIRD; so does the
//! container image.
//!
//! A package is installed for good, by dpkg and with its scripts, into layers over `/usr`, `/etc` and `/var/lib` that only the node sees. There is
//! no systemd as the first process here: `proto_tests::package::unit` says what of the unit is kept when a test starts the service.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use proto_tests::lab::image::{Missing, Speaker, margay_folder, repository};
use proto_tests::lab::process::Signal;
use proto_tests::lab::suite::{self, Story};
use proto_tests::lab::{Lab, Node, enclosure};
use proto_tests::live::ServiceManager;
use proto_tests::package::unit::Unit;
use proto_tests::package::{deb, root};

const STORIES: [Story; 2] = [
    Story { name: "debian_package_serves_a_node", file: "topologies/tor-bird.clab.yml", run: debian_package },
    Story { name: "container_image_serves_a_node", file: "topologies/tor-bird.clab.yml", run: container_image },
];

fn main() -> ExitCode {
    suite::main(&STORIES)
}

/// The node has the margay of the lab no more, and may have another in its place, for dpkg or in a root of its own.
fn empty_node(lab: &mut Lab) -> Result<()> {
    if enclosure::current() != Some(enclosure::Kind::Root) {
        bail!(Missing("packages bring users of their own: run this as root".to_owned()));
    }
    lab.expect()?;
    lab.kill("node1", Signal::TERM)?;
    lab.node("node1")?.exec("umount /etc/margay/resources").map(drop)
}

const LAYER: &str = "mkdir -p /run/.lab/usr/upper /run/.lab/usr/work && \
                     mount -t overlay -o lowerdir=/usr,upperdir=/run/.lab/usr/upper,workdir=/run/.lab/usr/work overlay /usr && rm -rf /etc/margay";

fn shell(node: &Node<'_>, script: &str) -> Result<String> {
    proto_tests::lab::process::run(node.command(&["sh", "-ec", script])?, None).with_context(|| format!("on {}", node.name()))
}

/// Install, configure, start, speak, end, remove, purge.
fn debian_package(lab: &mut Lab) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let package = deb::build(&margay_folder()?.join("margay"), &folder.path().join("margay.deb"), &["--fast"])?;
    empty_node(lab)?;
    let node = lab.node("node1")?;
    shell(&node, LAYER)?;
    node.exec(&format!("dpkg --no-triggers --install {}", package.display()))?;
    is_installed(&node)?;

    shell(&node, &format!("cp {}/*.yaml /etc/margay/resources/", repository().join("topologies/rack/cluster").display()))?;
    shell(&node, "sed -i 's/^#NODENAME=.*/NODENAME=node1/' /etc/default/margay")?;
    shell(&node, "/usr/bin/margay check /etc/margay/resources")?;
    // The same package again stands for an upgrade: what the operator has written stays.
    node.exec(&format!("dpkg --no-triggers --install {}", package.display()))?;
    shell(&node, "grep -x NODENAME=node1 /etc/default/margay && test -e /etc/margay/resources/nodes.yaml")?;
    let unit = Unit::parse(&shell(&node, "cat /usr/lib/systemd/system/margay.service")?);
    let manager = ServiceManager::new(Duration::from_secs(30))?;
    let script = unit.script(&shell(&node, "cat /etc/default/margay")?, &manager.path().display().to_string())?;
    let (start, calls) = (folder.path().join("start"), folder.path().join("calls"));
    std::fs::write(&start, script)?;
    // -D: the service, not its tracer, is the process that a signal of the lab goes to.
    let line = format!("strace -D -f -qq -o {} unshare --mount --propagation private -- sh {}", calls.display(), start.display());
    lab.run("node1", Speaker::Margay, &line)?;
    manager.wait_for("READY=1")?;
    lab.expect()?;
    manager.wait_for("sessions Established; no problems")?;
    let node = lab.node("node1")?;
    confined(&node, &unit)?;

    let routes = shell(&node, "ip route show proto bird")?;
    ensure!(routes.contains("203.0.113.0/24 via 172.20.0.254"), "{routes}");
    lab.kill("node1", Signal::TERM)?;
    manager.wait_for("STOPPING=1")?;
    let node = lab.node("node1")?;
    ensure!(shell(&node, "ip route show proto bird")? == routes, "the kernel's routes stay when the service ends");
    only_allowed_calls(&std::fs::read_to_string(&calls)?, &unit)?;
    is_removed(&node, &routes)
}

/// Everything is where Debian has it; the service waits for its operator; the scripts have made the user.
fn is_installed(node: &Node<'_>) -> Result<()> {
    ensure!(shell(node, "/usr/bin/margay --version")?.starts_with("margay "));
    for path in [
        "/etc/margay/resources/README",
        "/usr/share/man/man1/margay-show-routes.1.gz",
        "/usr/share/bash-completion/completions/margay",
        "/usr/share/zsh/vendor-completions/_margay",
        "/usr/share/fish/vendor_completions.d/margay.fish",
        "/usr/share/doc/margay/README.md",
        "/usr/share/doc/margay/examples/agent.sh",
        "/usr/share/doc/margay/examples/agent.py",
    ] {
        shell(node, &format!("test -s {path}")).with_context(|| format!("{path} is not there"))?;
    }
    ensure!(shell(node, "cat /usr/share/doc/margay/copyright")?.contains("Apache License"), "no licence");
    let user = shell(node, "getent passwd margay")?;
    ensure!(user.contains("nologin") && !shell(node, "id -u margay")?.starts_with("0\n"), "{user}");
    ensure!(shell(node, "find /etc/systemd -name '*margay*'")?.is_empty(), "the service is enabled");
    let (status, conffiles) =
        (shell(node, "dpkg-query -W -f '${Depends}' margay")?, shell(node, "dpkg-query -W -f '${Conffiles}' margay")?);
    ensure!(status.contains("libc6 (>= ") && status.contains("libgcc-s1"), "{status}");
    ensure!(conffiles.contains("/etc/default/margay"), "{conffiles}");
    ensure!(shell(node, "dpkg --verify margay")?.is_empty(), "files differ from the package");
    knows_its_variables(node)?;
    if shell(node, "command -v systemd-analyze").is_err() {
        proto_tests::lab::skip::skipped("debian_package_serves_a_node", "the unit is not verified: systemd-analyze is in package systemd");
        return Ok(());
    }
    let complaints = shell(node, "systemd-analyze verify --man=no /usr/lib/systemd/system/margay.service 2>&1")?;
    ensure!(!complaints.contains("margay"), "{complaints}");
    Ok(())
}

/// Every variable of the environment file, commented out or not, is one that `margay run` or its datastores read.
fn knows_its_variables(node: &Node<'_>) -> Result<()> {
    let help = shell(node, "/usr/bin/margay run --help")?;
    let text = shell(node, "cat /etc/default/margay")?;
    let assigned = text.lines().filter_map(|line| Some(line.trim_start_matches('#').split_once('=')?.0));
    let names: Vec<&str> = assigned.filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_')).collect();
    ensure!(names.len() >= 8, "{names:?}");
    let unknown: Vec<_> = names.into_iter().filter(|name| !help.contains(name)).collect();
    ensure!(unknown.is_empty(), "margay run reads no {unknown:?}");
    Ok(())
}

/// CAP_NET_BIND_SERVICE is 10, CAP_NET_ADMIN 12, CAP_SYS_NICE 23 (capabilities(7)).
fn rights() -> String {
    format!("{:016x}", 1_u64 << 10 | 1 << 12 | 1 << 23)
}

/// The daemon has the rights that the unit gives it, and no others; the rest of the host is not its to write.
fn confined(node: &Node<'_>, unit: &Unit) -> Result<()> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.program()?))?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":")).unwrap_or_default().trim();
    let wanted = rights();
    ensure!(unit.value("AmbientCapabilities")?.split_whitespace().count() == 3, "the unit gives others");
    for set in ["CapEff", "CapPrm", "CapBnd", "CapAmb"] {
        ensure!(field(set) == wanted, "{set}: {}, not {wanted}", field(set));
    }
    ensure!(field("NoNewPrivs") == "1" && field("Name") == "margay", "{status}");
    let user = shell(node, "id -u margay")?;
    ensure!(field("Uid").split_whitespace().all(|id| id == user.trim()), "{}", field("Uid"));
    let program = node.program()?;
    let mounts = std::fs::read_to_string(format!("/proc/{program}/mounts"))?;
    let writable: Vec<&str> = mounts
        .lines()
        .filter(|line| line.split(' ').nth(3).is_some_and(|options| options.split(',').any(|option| option == "rw")))
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|place| !["/proc", "/sys", "/dev"].iter().any(|kernel| place.starts_with(kernel)))
        // Of the host, and covered by a mount of the lab.
        .filter(|place| Path::new(&format!("/proc/{program}/root{place}")).exists())
        .collect();
    ensure!(writable == ["/run/margay", "/var/lib/margay"], "{writable:?} can be written");
    let modes = shell(node, "stat -c '%a %U %n' /run/margay /var/lib/margay /run/margay/margay.sock")?;
    ensure!(modes.starts_with("755 margay /run/margay\n750 margay /var/lib/margay\n"), "{modes}");
    Ok(())
}

/// No system call since the start of margay is one that the unit's filter refuses.
fn only_allowed_calls(trace: &str, unit: &Unit) -> Result<()> {
    let allowed = match unit.allowed() {
        Ok(allowed) => allowed,
        Err(error) => {
            proto_tests::lab::skip::skipped("debian_package_serves_a_node", &format!("system calls are not compared: {error}"));
            return Ok(());
        }
    };
    let own = trace.lines().skip_while(|line| !line.contains("execve(\"/usr/bin/margay\""));
    let call = |line: &str| {
        let (_, rest) = line.trim_start().split_once(' ')?;
        let (name, _) = rest.trim_start().split_once('(')?;
        name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_').then(|| name.to_owned())
    };
    let made: BTreeSet<String> = own.filter_map(call).collect();
    ensure!(made.len() > 30 && made.contains("sendto") && made.contains("setpriority"), "the trace is not whole: {made:?}");
    let refused: Vec<_> = made.difference(&allowed).collect();
    ensure!(refused.is_empty(), "SystemCallFilter of the unit refuses {refused:?}");
    println!("    {} system calls are made, {} are allowed", made.len(), allowed.len());
    Ok(())
}

/// Removal keeps what the operator has written, what margay knew and the kernel's routes; a purge keeps the operator's resources alone.
fn is_removed(node: &Node<'_>, routes: &str) -> Result<()> {
    let there = |path: &str| shell(node, &format!("test -e {path}")).is_ok();
    shell(node, "touch /var/lib/margay/last-known.json")?;
    node.exec("dpkg --no-triggers --remove margay")?;
    ensure!(!there("/usr/bin/margay") && !there("/usr/lib/systemd/system/margay.service"));
    for kept in ["/etc/default/margay", "/etc/margay/resources/nodes.yaml", "/var/lib/margay/last-known.json"] {
        ensure!(there(kept), "{kept} went with the removal");
    }
    ensure!(shell(node, "grep -x NODENAME=node1 /etc/default/margay").is_ok(), "the operator's words are gone");
    node.exec("dpkg --no-triggers --purge margay")?;
    ensure!(
        !there("/etc/default/margay") && !there("/var/lib/margay") && !there("/etc/margay/resources/README"),
        "the purge left something"
    );
    ensure!(there("/etc/margay/resources/nodes.yaml") && shell(node, "getent passwd margay").is_ok(), "the purge took too much");
    let left = shell(node, "find /etc/systemd /var/lib/systemd -name '*margay*'")?;
    ensure!(left.is_empty(), "systemd still knows of it: {left}");
    ensure!(shell(node, "ip route show proto bird")? == routes, "the kernel's routes went with the package");
    Ok(())
}

/// As an engine would: the image's root is all that the process sees and nothing to write, but for the mounts that the kustomization has; the
/// node's network; root with three rights.
const CONTAINER: &str = "\
set -eu
root=$1; resources=$2; shift 2
mount --bind \"$root\" \"$root\"
mount --bind /run/margay \"$root/run/margay\"
mount -t tmpfs -o mode=0755 tmpfs \"$root/var/lib/margay\"
mount -t proc proc \"$root/proc\"
mount --bind \"$resources\" \"$root/etc/margay/resources\"
mount -o remount,bind,ro \"$root\"
drop=$(setpriv --list-caps | grep -vx -e net_admin -e net_bind_service -e sys_nice | sed 's/^/cap_/' | paste -sd,)
exec env -i PATH=/usr/sbin:/usr/bin capsh --chroot=\"$root\" --drop=\"$drop\" --shell=/usr/bin/margay -- \"$@\"
";

/// The image's root alone is enough for margay to peer with BIRD and to write routes.
fn container_image(lab: &mut Lab) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("root");
    root::assemble(&margay_folder()?.join("margay"), &image)?;
    empty_node(lab)?;
    let start = folder.path().join("start");
    std::fs::write(&start, CONTAINER)?;
    let resources = repository().join("topologies/rack/cluster");
    let places = format!("{} {} {}", start.display(), image.display(), resources.display());
    lab.run("node1", Speaker::Margay, &format!("unshare --mount --propagation private -- sh {places} run --node node1"))?;
    lab.expect()?;
    let node = lab.node("node1")?;
    let process = PathBuf::from(format!("/proc/{}", node.program()?));
    ensure!(std::fs::read_link(process.join("exe"))?.ends_with("usr/bin/margay"), "another program runs");
    ensure!(!process.join("root/usr/sbin").exists() && !process.join("root/etc/debian_version").exists(), "it sees the host's files");
    let status = std::fs::read_to_string(process.join("status"))?;
    ensure!(status.contains(&format!("CapEff:\t{}\n", rights())), "{status}");
    let mounts = std::fs::read_to_string(process.join("mounts"))?;
    ensure!(mounts.lines().next().is_some_and(|line| line.contains(" / ") && line.contains(" ro,")), "{mounts}");
    let routes = shell(&node, "ip route show proto bird")?;
    ensure!(routes.contains("203.0.113.0/24 via 172.20.0.254"), "{routes}");
    lab.kill("node1", Signal::TERM)
}
