//! `cargo prove`: installs what the tests need (asking first unless `CI` is set), runs them all, and sums up.
//! `cargo quickstart`: installs the few tools that the tour needs in the same way, and starts it.

use std::io::{BufRead, IsTerminal, Write};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use proto_tests::lab::{container, vm};

/// Debian packages and a program of each by which its presence is told.
const PACKAGES: [(&str, &str); 28] = [
    ("bgpdump", "/usr/bin/bgpdump"),
    ("binutils", "/usr/bin/strip"),
    ("bird2", "/usr/sbin/bird"),
    ("bsdutils", "/usr/bin/script"),
    ("chromium", "/usr/bin/chromium"),
    ("curl", "/usr/bin/curl"),
    ("dnsmasq-base", "/usr/sbin/dnsmasq"),
    ("dpkg-dev", "/usr/bin/dpkg-shlibdeps"),
    ("etcd-client", "/usr/bin/etcdctl"),
    ("etcd-server", "/usr/bin/etcd"),
    ("frr", "/usr/lib/frr/bgpd"),
    ("gobgpd", "/usr/bin/gobgpd"),
    ("libcap2-bin", "/usr/sbin/capsh"),
    ("nftables", "/usr/sbin/nft"),
    ("openbgpd", "/usr/sbin/bgpctl"),
    ("pmacct", "/usr/sbin/pmbmpd"),
    ("prometheus", "/usr/bin/promtool"),
    ("python3", "/usr/bin/python3"),
    ("iproute2", "/usr/sbin/ip"),
    ("iputils-ping", "/usr/bin/ping"),
    ("procps", "/usr/bin/ps"),
    ("socat", "/usr/bin/socat"),
    ("strace", "/usr/bin/strace"),
    ("systemd", "/usr/bin/systemd-analyze"),
    ("tcpdump", "/usr/bin/tcpdump"),
    ("udhcpc", "/usr/sbin/udhcpc"),
    ("util-linux", "/usr/bin/unshare"),
    ("valgrind", "/usr/bin/valgrind"),
];

fn main() -> ExitCode {
    match prove() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("prove: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Packages of the quickstart: margay and the kernel do the rest.
const TOUR: [&str; 4] = ["iproute2", "iputils-ping", "procps", "util-linux"];

fn prove() -> Result<bool> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    if std::env::args().nth(1).as_deref() == Some("quickstart") {
        install(|package| TOUR.contains(&package))?;
        run(Command::new(&cargo).args(["build", "--quiet", "--workspace", "--bins"]))?;
        return Ok(Command::new(&cargo)
            .args(["run", "--quiet", "--package", "proto-tests", "--bin", "lab", "--", "quickstart"])
            .status()?
            .success());
    }
    install(|_| true)?;
    packer(&cargo)?;
    other_kernel()?;
    run(Command::new(&cargo).args(["build", "--workspace", "--bins"]))?;
    let mut tests = Command::new(&cargo);
    tests.args(["test", "--workspace", "--no-fail-fast"]);
    let mut totals = test(&mut tests)?;
    in_containers(&mut totals)?;
    println!("\n{} passed, {} failed, {} skipped", totals.passed, totals.failed, totals.skipped);
    Ok(totals.failed == 0 && totals.whole)
}

fn install(wanted: impl Fn(&str) -> bool) -> Result<()> {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|(package, program)| wanted(package) && !std::path::Path::new(program).exists())
        .map(|(package, _)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let ask = std::env::var_os("CI").is_none();
    let root = rootly();
    println!("These Debian packages are needed: {}", missing.join(" "));
    if ask && !agreed(&format!("Install them with `{}apt-get install`?", if root { "" } else { "sudo " }))? {
        bail!("not installed, so nothing was run");
    }
    // Packages must not start daemons of their own on this machine: only tests start them, in namespaces.
    let script = format!(
        "apt-get update -q && printf '#!/bin/sh\\nexit 101\\n' > /tmp/margay-policy-rc.d && chmod +x /tmp/margay-policy-rc.d && \
         {{ [ -e /usr/sbin/policy-rc.d ] || {{ cp /tmp/margay-policy-rc.d /usr/sbin/policy-rc.d; added=1; }}; }} && \
         DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends {}; result=$?; [ -z \"$added\" ] || rm -f /usr/sbin/policy-rc.d; exit $result",
        missing.join(" ")
    );
    let mut command = if root { Command::new("sh") } else { Command::new("sudo") };
    if !root {
        command.arg("sh");
    }
    run(command.args(["-c", &script]))
}

/// cargo-deb, which packs margay for Debian; who does not want it has the tests of the package skipped.
fn packer(cargo: &str) -> Result<()> {
    if Command::new("cargo-deb").arg("--version").output().is_ok() {
        return Ok(());
    }
    println!("cargo-deb is needed, which Debian does not have.");
    if std::env::var_os("CI").is_none() && !agreed("Install it with `cargo install cargo-deb --locked`?")? {
        return Ok(());
    }
    run(Command::new(cargo).args(["install", "cargo-deb", "--locked", "--quiet"]))
}

/// The labs once more through containerlab, where one is at hand; where not, that is one SKIPPED line.
fn in_containers(totals: &mut Totals) -> Result<()> {
    if let Err(error) = container::check() {
        println!("SKIPPED: containerlab: {error:#}");
        totals.skipped += 1;
        return Ok(());
    }
    let lab = std::env::current_exe()?.with_file_name("lab");
    let done = run(Command::new(&lab).arg("images")).and_then(|()| run(Command::new(&lab).args(["test", "--runner", "containerlab"])));
    match done {
        Ok(()) => totals.passed += 1,
        Err(error) => {
            // Counted, so that the sum of all is printed whatever happens here.
            println!("containerlab: {error:#}");
            totals.failed += 1;
        }
    }
    Ok(())
}

/// User-mode Linux, for the labs with tunnels where this kernel has none; who does not want it has them skipped.
fn other_kernel() -> Result<()> {
    if vm::host_has_ipip() || vm::is_there() {
        return Ok(());
    }
    println!("This kernel has no ipip; user-mode Linux has, and runs as a program.");
    if std::env::var_os("CI").is_none() && !agreed(&format!("Unpack {} in target/vm?", vm::packages()))? {
        return Ok(());
    }
    vm::fetch()
}

fn rootly() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}

fn agreed(question: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("packages are missing and there is no terminal to ask on: install them, or set CI=1");
    }
    print!("{question} [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

/// Totals of all test binaries.
#[derive(Default)]
struct Totals {
    passed: u64,
    failed: u64,
    skipped: u64,
    /// The runner itself ended well.
    whole: bool,
}

/// Runs the tests, shows their output as it comes, and adds up the runners' summaries and the lines `SKIPPED: reason`.
fn test(command: &mut Command) -> Result<Totals> {
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run {command:?}"))?;
    let output = child.stdout.take().context("no output")?;
    let mut totals = Totals::default();
    for line in std::io::BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        totals.add(&line);
    }
    totals.whole = child.wait()?.success();
    if !totals.whole && totals.failed == 0 {
        eprintln!("a test program ended before it had a result: see above");
        totals.failed = 1;
    }
    Ok(totals)
}

impl Totals {
    fn add(&mut self, line: &str) {
        if let Some(summary) = line.strip_prefix("test result: ") {
            self.passed += number_before(summary, " passed");
            self.failed += number_before(summary, " failed");
            self.skipped += number_before(summary, " ignored");
        } else if line.contains("SKIPPED: ") {
            self.skipped += 1;
            self.passed = self.passed.saturating_sub(1);
        }
    }
}

fn number_before(text: &str, word: &str) -> u64 {
    let before = text.split(word).next().unwrap_or_default();
    before.rsplit([' ', ';']).next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proto_tests::lab::{Topology, cli, image};

    /// What a lab lacks on a fresh machine would be SKIPPED there, or fail.
    #[test]
    fn what_the_labs_need_is_installed() {
        for file in cli::all().unwrap() {
            for package in image::packages(&Topology::read(&file).unwrap()).unwrap() {
                assert!(super::PACKAGES.iter().any(|(name, _)| *name == package), "{} needs {package}", file.display());
            }
        }
    }
}
