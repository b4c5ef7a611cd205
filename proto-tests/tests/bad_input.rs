//! Bad input on the command line and to the daemon: each gives one clear line that says what to do, and the exit code that
//! `interface` promises: 0 done, 1 "no" or "invalid", 2 usage, 3 the daemon cannot be reached.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proto_tests::lab::process::wait_until;
use proto_tests::live::daemon::{program, replace};
use proto_tests::live::{Daemon, Neighbour, Plan, enclosed};
use tempfile::TempDir;

const WAIT: Duration = Duration::from_secs(20);

const NODE: &str =
    "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: bench}\nspec: {bgp: {ipv4Address: 127.0.0.1/8, asNumber: 64512}}\n";

fn configuration(port: u16) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {{name: default}}\nspec: {{nodeToNodeMeshEnabled: false, listenPort: {port}}}\n"
    )
}

fn peer(name: &str, spec: &str) -> String {
    format!("apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
}

/// A folder of resources.
fn folder(files: &[(&str, &str)]) -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("margay-bad-").tempdir()?;
    files.iter().try_for_each(|(name, text)| fs::write(folder.path().join(name), text))?;
    Ok(folder)
}

fn margay(arguments: &[&str]) -> Result<Output> {
    Ok(Command::new(program()?).args(arguments).stdin(Stdio::null()).output()?)
}

fn path(folder: &TempDir) -> &str {
    folder.path().to_str().unwrap_or_default()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn ended(output: &Output, code: i32, words: &[&str]) -> Result<()> {
    let text = said(output);
    ensure!(output.status.code() == Some(code), "exit code {:?}, wanted {code}: {text}", output.status.code());
    ensure!(words.iter().all(|word| text.contains(word)), "wanted {words:?} in: {text}");
    ensure!(!text.contains("panicked") && !text.contains("RUST_BACKTRACE"), "{text}");
    Ok(())
}

#[test]
fn exit_codes_of_the_command_line() {
    enclosed(|| {
        let good = folder(&[("a.yaml", NODE), ("b.yaml", &configuration(1790))])?;
        let wrong = folder(&[("a.yaml", NODE), ("b.yaml", &peer("tor", "peerIP: 10.0.0, asNumber: 1"))])?;
        let nothing = folder(&[])?;
        ended(&margay(&["check", path(&good)])?, 0, &[])?;
        ended(&margay(&["render", path(&good), "--node", "bench"])?, 0, &["127.0.0.1"])?;
        ended(&margay(&["check", path(&wrong)])?, 1, &["BGPPeer", "tor", "spec.peerIP", "b.yaml:4"])?;
        ended(&margay(&["check", path(&nothing)])?, 1, &["no file ending in .yaml"])?;
        ended(&margay(&["check", "/nonexistent"])?, 1, &["/nonexistent: error: there is no such file or folder"])?;
        ended(&margay(&["render", path(&good), "--node", "other"])?, 1, &["`other`"])?;
        for usage in [&[][..], &["frobnicate"], &["check"], &["show"], &["show", "nonsense"], &["run", "--no-such-flag"]] {
            ended(&margay(usage)?, 2, &["Usage"])?;
        }
        for verb in [&["show", "peers"][..], &["show", "routes"], &["show", "problems"], &["explain", "10.0.0.0/8"], &["reset", "x"]] {
            let unreachable = [verb, &["--socket", "/nonexistent/margay.sock"]].concat();
            let output = margay(&unreachable)?;
            ended(&output, 3, &["/nonexistent/margay.sock", "margay run"])?;
            ensure!(said(&output).lines().count() == 1, "one line: {}", said(&output));
        }
        Ok(())
    });
}

/// A daemon that is meant to fail, or to wait; `guard` is what it is started by.
struct Doomed {
    folder: TempDir,
    resources: PathBuf,
}

impl Doomed {
    fn new(resources: &Path) -> Result<Self> {
        Ok(Self { folder: tempfile::Builder::new().prefix("margay-doomed-").tempdir()?, resources: resources.to_owned() })
    }

    fn command(&self, guard: &[&str], arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).args(guard).arg("--").arg(program()?).args(["run", "--node", "bench", "--resources"]);
        command.arg(&self.resources).arg("--socket").arg(self.folder.path().join("socket")).arg("--state").arg(self.folder.path());
        command.args(arguments).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs to its end, which must come soon.
    fn fails(&self, guard: &[&str], arguments: &[&str], words: &[&str]) -> Result<()> {
        self.until(guard, arguments, words, Some(1))
    }

    /// Runs until it says the words; where a code is given it must end by itself with it.
    fn until(&self, guard: &[&str], arguments: &[&str], words: &[&str], code: Option<i32>) -> Result<()> {
        let path = self.folder.path().join("log");
        let log = fs::File::create(&path)?;
        let mut child = self.command(guard, arguments)?.stdout(log.try_clone()?).stderr(log).spawn()?;
        let result = wait_until(WAIT, "it says why", || {
            let status = child.try_wait()?;
            let text = fs::read_to_string(&path)?;
            let line = text.lines().find(|line| words.iter().all(|word| line.contains(word)));
            ensure!(line.is_some(), "wanted {words:?} in one line of: {text}");
            ensure!(status.and_then(|status| status.code()) == code, "ended as {status:?}, wanted {code:?}: {text}");
            ensure!(!text.contains("panicked"), "{text}");
            ensure!(text.lines().count() <= 6, "many words for one fault: {text}");
            Ok(())
        });
        let _ = child.kill();
        child.wait()?;
        result
    }
}

const NO_CAPABILITIES: [&str; 4] = ["--bounding-set", "-all", "--inh-caps", "-all"];

#[test]
fn a_busy_port() {
    enclosed(|| {
        let resources = folder(&[("a.yaml", NODE), ("b.yaml", &configuration(1790))])?;
        let holder = TcpListener::bind("0.0.0.0:1790")?;
        Doomed::new(resources.path())?.fails(&[], &["--dry-run"], &["1790", "taken", "listenPort"])?;
        drop(holder);
        Ok(())
    });
}

#[test]
fn a_missing_capability() {
    enclosed(|| {
        let privileged = folder(&[("a.yaml", NODE), ("b.yaml", &configuration(179))])?;
        Doomed::new(privileged.path())?.fails(&NO_CAPABILITIES, &["--dry-run"], &["179", "CAP_NET_BIND_SERVICE"])?;
        let resources = folder(&[("a.yaml", NODE), ("b.yaml", &configuration(1790))])?;
        Doomed::new(resources.path())?.fails(&NO_CAPABILITIES, &[], &["CAP_NET_ADMIN", "--dry-run"])?;
        // Neither is needed to look on.
        Doomed::new(resources.path())?.until(&NO_CAPABILITIES, &["--dry-run"], &["running"], None)
    });
}

#[test]
fn a_missing_node_an_empty_folder_no_folder() {
    enclosed(|| {
        let other = folder(&[("a.yaml", &NODE.replace("bench", "other")), ("b.yaml", &configuration(1790))])?;
        // A datastore may come to know the node later: margay waits, and says for what.
        Doomed::new(other.path())?.until(&[], &["--dry-run"], &["Node", "`bench`", "--node"], None)?;
        let nothing = folder(&[])?;
        Doomed::new(nothing.path())?.until(&[], &["--dry-run"], &["no file ending in .yaml", "--resources"], None)?;
        let missing = nothing.path().join("missing");
        Doomed::new(&missing)?.until(&[], &["--dry-run"], &["no such file or folder", "missing"], None)
    });
}

#[test]
fn a_node_that_comes_later_is_taken() {
    enclosed(|| {
        let resources = folder(&[("b.yaml", &configuration(1790))])?;
        let doomed = Doomed::new(resources.path())?;
        let path = doomed.folder.path().join("log");
        let log = fs::File::create(&path)?;
        let mut child = doomed.command(&[], &["--dry-run"])?.stdout(log.try_clone()?).stderr(log).spawn()?;
        let says = |word: &str| {
            wait_until(WAIT, word, || {
                let text = fs::read_to_string(&path)?;
                ensure!(text.contains(word), "{text}");
                Ok(())
            })
        };
        let result = says("`bench`").and_then(|()| Ok(fs::write(resources.path().join("a.yaml"), NODE)?)).and_then(|()| says("running"));
        child.kill()?;
        child.wait()?;
        result
    });
}

fn problems(daemon: &Daemon) -> Result<Vec<serde_json::Value>> {
    daemon.api("/v1/problems")?.as_array().cloned().context("a list")
}

#[test]
fn a_broken_file_next_to_good_ones() {
    enclosed(|| {
        let mut plan = Plan::default().external(2);
        plan.documents.push("kind: BGPPeer\nmetadata:\n  name: x\n   bad: [1,\n".to_owned());
        let daemon = plan.start()?;
        let all = problems(&daemon)?;
        ensure!(all.len() == 1, "{all:?}");
        let place = &all[0]["location"];
        ensure!(place["file"].as_str().is_some_and(|file| file.ends_with("more-0.yaml")), "{place}");
        ensure!(place["line"].as_u64().is_some_and(|line| (3..=5).contains(&line)) && place["column"].as_u64() > Some(0), "{place}");
        let mut session = Neighbour::establish(&daemon, &daemon.peers[0])?;

        // A live edit breaks a good file: what it said last stays in force, and the session with it.
        let file = daemon.resources().join("external-0.yaml");
        let good = fs::read_to_string(&file)?;
        replace(&file, &good.replace("spec: {", "spec: {{"))?;
        wait_until(WAIT, "the second problem", || {
            let all = problems(&daemon)?;
            ensure!(all.len() == 2 && all.iter().any(|problem| problem.to_string().contains("external-0.yaml")), "{all:?}");
            Ok(())
        })?;
        ensure!(daemon.peer_view(&daemon.peers[0])?["state"] == "Established", "the last good content stays");

        // Nonsense in a good file: refused by name, with field, line and column; others go on.
        replace(&file, &good.replace("asNumber: 64600", "asNumber: 0x7fffffffffffffff"))?;
        wait_until(WAIT, "the resource is named", || {
            let all = problems(&daemon)?;
            let named = all.iter().find(|problem| problem["resource"].to_string().contains("external-0")).context(format!("{all:?}"))?;
            ensure!(named["field"] == "spec.asNumber" && named["severity"] == "error" && named["location"]["line"] == 4, "{named}");
            Ok(())
        })?;
        replace(&file, &good)?;
        wait_until(WAIT, "the problems of that file are gone", || {
            ensure!(problems(&daemon)?.len() == 1, "{:?}", problems(&daemon)?);
            Ok(())
        })?;
        session.send(&proto_tests::live::message::keepalive())?;
        Ok(())
    });
}

#[test]
fn the_table_of_problems_is_one_line_each() {
    enclosed(|| {
        let mut plan = Plan::default().external(1);
        plan.documents.push(peer("nonsense", "peerIP: 10.0.0.0.1, asNumber: 64999"));
        let daemon = plan.start()?;
        let socket = daemon.socket();
        let output = margay(&["show", "problems", "--socket", socket.to_str().unwrap_or_default()])?;
        let text = said(&output);
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("BGPPeer nonsense: spec.peerIP")).collect();
        ensure!(lines.len() == 1 && lines[0].contains("more-0.yaml:4:"), "{text}");
        Neighbour::establish(&daemon, &daemon.peers[0]).map(drop)
    });
}
