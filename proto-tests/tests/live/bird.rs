//! `bird.ctl` and `bird6.ctl` as their clients see them: BIRD's own birdcl, Calico's readers, bird_exporter, and people who mean no good.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use proto_tests::lab::process::wait_until;
use proto_tests::live::daemon::{external, external_6, internal};
use proto_tests::live::message::{announce, basics};
use proto_tests::live::{Daemon, Neighbour, Observer, Plan, enclosed};

use super::bird_readers::{self as readers, Client};
use super::session::WAIT;

/// A daemon with its sockets, in a folder of its own.
struct Bird {
    daemon: Daemon,
    folder: tempfile::TempDir,
}

impl Bird {
    fn start(plan: Plan) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let sockets = folder.path().join("calico").display().to_string();
        let daemon = Plan { arguments: vec!["--bird-sockets".into(), sockets, "--log-level".into(), "warn".into()], ..plan }.start()?;
        Ok(Self { daemon, folder })
    }

    fn v4(&self) -> PathBuf {
        self.folder.path().join("calico/bird.ctl")
    }

    fn v6(&self) -> PathBuf {
        self.folder.path().join("calico/bird6.ctl")
    }
}

/// What birdcl prints. It fails where the answer is a refusal, or where nobody answers.
fn birdcl(program: &str, socket: &Path, command: &str) -> Result<String> {
    let output = Command::new(program).arg("-s").arg(socket).args(command.split(' ')).output().with_context(|| program.to_owned())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(text.starts_with("BIRD "), "{program} {command}: {text}{}", String::from_utf8_lossy(&output.stderr));
    let refused = ["not in table", "is not a protocol", "denied"].iter().any(|words| text.contains(words));
    ensure!(output.status.success() != refused, "{program} {command}: {:?}, {text}", output.status);
    Ok(text)
}

#[test]
fn birdcl_of_debian_reads_it() {
    enclosed(|| {
        let bird = Bird::start(Plan::default().external(2).peer(external_6(0xa)))?;
        let mut up = Observer::establish(&bird.daemon, &bird.daemon.peers[0])?;
        up.announce("10.1.0.0/16")?;
        wait_until(WAIT, "the route", || {
            ensure!(birdcl("birdcl", &bird.v4(), "show route")?.contains("10.1.0.0/16"));
            Ok(())
        })?;
        let status = birdcl("birdcl", &bird.v4(), "show status")?;
        ensure!(status.starts_with("BIRD v") && status.contains("\nRouter ID is 127.0.0.1\n"), "liveness wants BIRD first: {status}");
        ensure!(status.ends_with("Daemon is up and running\n"), "{status}");
        let protocols = birdcl("birdcl", &bird.v4(), "show protocols")?;
        let row = |name: &str| protocols.lines().find(|line| line.starts_with(name)).with_context(|| format!("{name} in {protocols}"));
        ensure!(row("Node_127_1_0_10_port_1791")?.contains(" BGP      master   up     "), "{protocols}");
        ensure!(row("Node_127_1_0_11_port_1791")?.contains(" start "), "{protocols}");
        ensure!(row("static1")?.contains("Static") && !protocols.contains("2001"), "{protocols}");
        let all = birdcl("birdcl", &bird.v4(), "show protocols all Node_127_1_0_10_port_1791")?;
        for text in [
            "BGP state:          Established",
            "Neighbor address: 127.1.0.10",
            "Neighbor AS:      64600",
            "Session:          external multihop AS4",
            "Routes:         1 imported, 0 filtered, ",
        ] {
            ensure!(all.contains(text), "{text} in {all}");
        }
        let route = birdcl("birdcl", &bird.v4(), "show route 10.1.0.0/16 all")?;
        for text in [
            "10.1.0.0/16        via 192.0.2.66 on link0 [Node_127_1_0_10_port_1791 ",
            " from 127.1.0.10] * (100/0) [AS64600i]",
            "BGP.as_path: 64600",
            "BGP.next_hop: 192.0.2.66",
        ] {
            ensure!(route.contains(text), "{text} in {route}");
        }
        ensure!(birdcl("birdcl", &bird.v4(), "show route for 10.1.2.3")?.contains("10.1.0.0/16"));
        let count = birdcl("birdcl", &bird.v4(), "show route protocol Node_127_1_0_10_port_1791 count")?;
        ensure!(count.contains("1 of ") && count.contains(" routes for 1 networks"), "{count}");
        ensure!(birdcl("birdcl", &bird.v4(), "show route 10.9.0.0/16")?.contains("Network not in table"));
        ensure!(birdcl("birdcl", &bird.v4(), "show protocols nobody")?.contains("nobody is not a protocol"));
        ensure!(birdcl("birdcl", &bird.v4(), "show memory")?.contains("kB"));
        ensure!(birdcl("birdcl", &bird.v4(), "show symbols")?.contains("master"));
        for command in ["configure", "disable Node_127_1_0_10_port_1791", "down"] {
            ensure!(birdcl("birdcl", &bird.v4(), command)?.contains("Access denied"), "{command}");
        }
        // Read-only from the start to the end.
        let restricted = Command::new("birdcl").arg("-r").arg("-s").arg(bird.v4()).args(["show", "status"]).output()?;
        ensure!(String::from_utf8_lossy(&restricted.stdout).contains("Access restricted"), "{restricted:?}");
        // The other family is another socket, and needs nothing of this one.
        std::fs::remove_file(bird.v4())?;
        ensure!(birdcl("birdcl", &bird.v6(), "show protocols")?.contains("Node_2001_db8_7__a"));
        ensure!(bird.daemon.peer_view(&bird.daemon.peers[0])?["flaps"] == 0);
        Ok(())
    });
}

#[test]
fn calicos_readers_and_bird_exporter_read_it() {
    enclosed(|| {
        let filtered = "apiVersion: projectcalico.org/v3\nkind: BGPFilter\nmetadata: {name: unused}\nspec: {}\n".to_owned();
        let bird = Bird::start(Plan { documents: vec![filtered], ..Plan::default().external(1).internal(1).peer(external_6(0xa)) })?;
        let mut first = Observer::establish(&bird.daemon, &bird.daemon.peers[0])?;
        first.announce("10.1.0.0/16")?;
        first.announce("10.2.0.0/16")?;
        // One of two: a young node is not ready, an old one is.
        let ready = |young| readers::readiness(&bird.v4(), young);
        ensure!(ready(true).is_err_and(|error| error.to_string() == "BGP not established with 127.2.0.11.port.1791"));
        ready(false)?;
        let mut second = Observer::establish(&bird.daemon, &bird.daemon.peers[1])?;
        second.route("10.1.0.0/16")?;
        second.route("10.2.0.0/16")?;
        wait_until(WAIT, "ready", || ready(true))?;
        // IPv6 knows nothing of it.
        ensure!(readers::readiness(&bird.v6(), false).is_err());
        let agent = readers::agent(&bird.v4())?;
        ensure!(agent.router_id == "127.0.0.1" && agent.version.starts_with('v'), "{agent:?}");
        ensure!(agent.last_boot.len() == "2026-08-22 10:00:00".len() && agent.last_reconfiguration >= agent.last_boot, "{agent:?}");
        let (peers, established) = readers::bgp(&bird.v4())?;
        ensure!(established == 2 && peers.iter().all(|peer| peer.kind == "Node" && peer.state == "Established"), "{peers:?}");
        ensure!(peers.iter().any(|peer| peer.address == "127.1.0.10"), "{peers:?}");
        let routes = readers::routes(&bird.v4())?;
        let of = |destination: &str| routes.iter().find(|route| route.destination == destination).with_context(|| format!("{routes:?}"));
        let learned = of("10.1.0.0/16")?;
        ensure!(learned.gateway == "192.0.2.66" && learned.interface == "link0" && learned.fib, "{learned:?}");
        ensure!(learned.learned_from == "Node_127_1_0_10_port_1791", "{learned:?}");
        ensure!(of("192.0.2.0/24")?.learned_from == "direct1", "{routes:?}");
        ensure!(readers::routes(&bird.v6())?.iter().all(|route| route.destination.contains(':')));
        let exported = readers::exporter(&bird.v4())?;
        ensure!(exported["Node_127_1_0_10_port_1791"] == (true, 2, 0, 0), "{exported:?}");
        ensure!(exported["Node_127_2_0_11_port_1791"] == (true, 0, 0, 2), "{exported:?}");
        ensure!(exported["kernel1"].0 && exported["static1"].0, "{exported:?}");
        // A session that ends shows why.
        drop(first);
        wait_until(WAIT, "the end is told", || {
            let rows = readers::bgp_rows(&bird.v4())?;
            let row = rows.iter().find(|row| row.name.starts_with("Node_127_1")).context("its row")?;
            ensure!(row.state == "start" && row.info.starts_with("Socket: "), "{row:?}");
            Ok(())
        })?;
        drop(second);
        Ok(())
    });
}

#[test]
fn without_a_configuration_it_lives_and_is_not_ready() {
    enclosed(|| {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("resources"))?;
        let at = |name: &str| folder.path().join(name);
        let mut margay = Command::new("setpriv");
        margay.args(["--pdeathsig", "KILL", "--"]).arg(proto_tests::live::daemon::program()?);
        margay.args(["run", "--node", "bench", "--dry-run", "--log-level", "error"]);
        margay.arg("--resources").arg(at("resources")).arg("--socket").arg(at("socket")).arg("--bird-sockets").arg(folder.path());
        let mut child = margay.spawn()?;
        let seen = wait_until(WAIT, "its status", || birdcl("birdcl", &at("bird.ctl"), "show status"));
        let ready = readers::readiness(&at("bird.ctl"), false);
        child.kill()?;
        child.wait()?;
        ensure!(seen?.starts_with("BIRD v"), "alive");
        ensure!(ready.is_err_and(|error| error.to_string().contains("No configuration yet")), "and not ready");
        Ok(())
    });
}

#[test]
fn hostile_clients_are_bounded() {
    enclosed(|| {
        let bird = Bird::start(Plan::default().external(1))?;
        let mut feeder = Neighbour::establish(&bird.daemon, &bird.daemon.peers[0])?;
        let many: Vec<String> = (0..6_000).map(|n| format!("10.{}.{}.0/24", n / 250, n % 250)).collect();
        for some in many.chunks(500) {
            let some: Vec<&str> = some.iter().map(String::as_str).collect();
            feeder.send(&announce(&basics(64600), &some))?;
        }
        // A line without an end is refused once it ends, and the next one is heard.
        let mut client = Client::connect(&bird.v4())?;
        let refused = client.reply(&"x".repeat(100_000))?;
        ensure!(refused == ["9000 Command too long"], "{refused:?}");
        ensure!(client.reply("show status")?.last().is_some_and(|line| line.starts_with("0013")));
        // Binary.
        let mut binary = UnixStream::connect(bird.v4())?;
        binary.write_all(&[&(0..=255).filter(|octet| *octet != b'\n').collect::<Vec<u8>>()[..], b"\n"].concat())?;
        let mut answer = [0; 64];
        wait_until(WAIT, "its answer", || {
            let length = binary.read(&mut answer)?;
            ensure!(String::from_utf8_lossy(&answer[..length]).contains("9001 syntax error"));
            Ok(())
        })?;
        // Many clients: those beyond the bound are turned away, and there is room again when they go.
        let crowd: Vec<_> = (0..62).map(|_| Client::connect(&bird.v4())).collect::<Result<_>>()?;
        ensure!(Client::connect(&bird.v4()).is_err(), "one too many");
        drop(crowd);
        wait_until(WAIT, "room again", || Client::connect(&bird.v4()).map(drop))?;
        // One that asks for everything, again and again, and reads nothing, keeps nobody waiting.
        let mut deaf = UnixStream::connect(bird.v4())?;
        deaf.write_all(&b"show route all\n".repeat(50))?;
        wait_until(WAIT, "all routes", || {
            // A reply that is late is not to be taken for the next one's.
            let count = Client::connect(&bird.v4())?.reply("show route count")?;
            ensure!(count.last().is_some_and(|line| line.contains("for 600")), "{count:?}");
            Ok(())
        })?;
        let primary = client.reply("show route primary")?;
        ensure!(primary.len() > 6_000, "{} lines, the last one: {:?}", primary.len(), primary.last());
        ensure!(bird.daemon.peer_view(&bird.daemon.peers[0])?["state"] == "Established");
        drop((deaf, feeder, internal(0), external(0)));
        Ok(())
    });
}
