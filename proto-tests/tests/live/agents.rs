//! The door of the local agents: the two clients that are shipped, killed at random; what peers and the kernel see of it; and agents that
//! misbehave.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proto_tests::lab::image::repository;
use proto_tests::lab::process::wait_until;
use proto_tests::live::daemon::{Daemon, replace};
use proto_tests::live::{Observer, Plan, enclosed};
use rustix::process::Signal;
use serde_json::Value;

use super::session::WAIT;

fn plan(hold: &str) -> Plan {
    Plan { arguments: vec!["--agent-hold".to_owned(), hold.to_owned()], kernel: true, ..Plan::default().external(1) }
}

/// One of the shipped clients; ended when dropped.
struct Client(Child);

impl Client {
    /// `agent.sh` or `agent.py` under that name, telling the routes of a file.
    fn start(daemon: &Daemon, program: &str, name: &str) -> Result<Self> {
        let log = fs::File::create(daemon.resources().with_file_name(format!("{name}.log")))?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(repository().join("packaging/agent").join(program))
            .arg(name)
            .arg(Self::file(daemon, name))
            .arg(daemon.socket())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self(child))
    }

    fn file(daemon: &Daemon, name: &str) -> std::path::PathBuf {
        daemon.resources().with_file_name(format!("{name}.routes"))
    }

    fn table(daemon: &Daemon, name: &str, prefixes: &[&str]) -> Result<()> {
        replace(&Self::file(daemon, name), &prefixes.iter().map(|prefix| format!("{prefix} link0\n")).collect::<String>())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One agent as `show agents` has it.
fn agent(daemon: &Daemon, name: &str) -> Result<Option<Value>> {
    let all = daemon.api("/v1/agents")?;
    Ok(all.as_array().and_then(|all| all.iter().find(|agent| agent["name"] == name)).cloned())
}

fn kernel(prefix: &str) -> Result<String> {
    let output = Command::new("ip").args(["route", "show", prefix]).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// A connection of an agent that the test itself is.
struct Door {
    stream: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Door {
    fn open(daemon: &Daemon, name: &str) -> Result<Self> {
        let mut stream = UnixStream::connect(daemon.socket())?;
        stream.set_read_timeout(Some(WAIT))?;
        write!(stream, "POST /v1/agents/{name} HTTP/1.1\r\nHost: margay\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        Ok(Self { answers: BufReader::new(stream.try_clone()?), stream })
    }

    fn say(&mut self, lines: &str) -> Result<()> {
        Ok(write!(self.stream, "{:x}\r\n{lines}\r\n", lines.len())?)
    }

    /// The next answer; what belongs to HTTP is passed over.
    fn answer(&mut self) -> Result<Value> {
        loop {
            let mut line = String::new();
            ensure!(self.answers.read_line(&mut line)? > 0, "the connection has ended");
            if line.starts_with('{') {
                return Ok(serde_json::from_str(&line)?);
            }
        }
    }
}

#[test]
fn the_shipped_clients_tell_routes_and_are_killed_at_random() {
    enclosed(|| {
        let daemon = plan("1m").start()?;
        let mut router = Observer::establish(&daemon, &daemon.peers[0])?;
        for (program, name, fixed) in [("agent.sh", "shell", "10.244.1.1/32"), ("agent.py", "python", "10.244.2.1/32")] {
            let other = |round: u32| fixed.replace(".1/32", &format!(".{}/32", round + 10));
            Client::table(&daemon, name, &[fixed])?;
            let mut client = Client::start(&daemon, program, name)?;
            router.route(fixed).with_context(|| format!("{program}: the table"))?;
            wait_until(WAIT, "the kernel has it", || {
                ensure!(kernel(fixed)?.contains("dev link0 proto bird scope link"), "{}", kernel(fixed)?);
                Ok(())
            })?;
            for round in 0..6 {
                // At another moment of its life each time: before, while and after it tells.
                let moment = (round * 7919) % 5;
                Client::table(&daemon, name, &[fixed, &other(round)])?;
                if moment > 2 {
                    router.route(&other(round))?;
                }
                drop(client);
                if moment > 0 {
                    wait_until(WAIT, "its end is noticed", || {
                        let agent = agent(&daemon, name)?.context("it is forgotten")?;
                        ensure!(agent["connected"] == false && agent["withdrawn_at"].is_string(), "{agent}");
                        Ok(())
                    })?;
                }
                client = Client::start(&daemon, program, name)?;
                router.route(&other(round)).with_context(|| format!("{program}: round {round}"))?;
                if round > 0 {
                    router.no_route(&other(round - 1)).with_context(|| format!("{program}: round {round}: not told again"))?;
                }
            }
            ensure!(!router.withdrawals.contains_key(&fixed.parse()?), "{program}: a route that stays was withdrawn in between");
        }
        ensure!(daemon.api_text("/v1/routes")?.contains(r#""source":"agent""#), "the source");
        let said = String::from_utf8(daemon.margay(&["explain", "10.244.2.1"])?.stdout)?;
        ensure!(said.contains("from agent") && said.contains("yes python: it gives the route"), "{said}");
        let shown = String::from_utf8(daemon.margay(&["show", "agents"])?.stdout)?;
        ensure!(shown.contains("python  gone") && shown.contains("shell   gone"), "{shown}");
        Ok(())
    });
}

#[test]
fn routes_of_an_agent_that_does_not_come_back_go_after_the_hold_time() {
    enclosed(|| {
        let daemon = plan("2s").start()?;
        let mut router = Observer::establish(&daemon, &daemon.peers[0])?;
        let mut door = Door::open(&daemon, "cni")?;
        door.say("{\"word\":\"upsert\",\"prefix\":\"10.244.1.1/32\",\"dev\":\"link0\"}\n{\"word\":\"upsert\",\"prefix\":\"10.244.1.2/32\",\"dev\":\"absent0\"}\n")?;
        router.route("10.244.1.1/32")?;
        let waits = &agent(&daemon, "cni")?.context("no agent")?;
        ensure!(waits["waiting_for"][0]["because"] == "there is no interface absent0", "{waits}");
        ensure!(daemon.api_text("/metrics")?.contains("margay_agent_routes{agent=\"cni\"} 2"), "the metric");
        drop(door);
        router.no_route("10.244.1.1/32").context("after the hold time")?;
        wait_until(WAIT, "it is forgotten", || {
            ensure!(agent(&daemon, "cni")?.is_none() && !daemon.api_text("/metrics")?.contains("cni"), "not yet");
            ensure!(kernel("10.244.1.1/32")?.is_empty(), "{}", kernel("10.244.1.1/32")?);
            Ok(())
        })?;
        let events = daemon.api_text("/v1/events")?;
        ensure!(events.contains("agent cni: has not come back; 2 routes are withdrawn"), "{events}");
        Ok(())
    });
}

#[test]
fn our_restart_takes_no_route_of_an_agent_away_before_it_could_come_back() {
    enclosed(|| {
        let mut daemon = plan("4s").start()?;
        let mut router = Observer::establish(&daemon, &daemon.peers[0])?;
        let mut door = Door::open(&daemon, "cni")?;
        door.say("{\"word\":\"begin\"}\n{\"word\":\"upsert\",\"prefix\":\"10.244.1.1/32\",\"dev\":\"link0\"}\n{\"word\":\"end\"}\n")?;
        router.route("10.244.1.1/32")?;
        let kept = daemon.resources().with_file_name("state").join("agents.json");
        wait_until(WAIT, "it is kept", || {
            ensure!(fs::read_to_string(&kept)?.contains("10.244.1.1/32"), "not yet");
            Ok(())
        })?;
        drop(router);
        daemon.end(Signal::KILL)?;
        drop(door);
        daemon.restart()?;
        ensure!(kernel("10.244.1.1/32")?.contains("dev link0"), "the kernel's route");
        let mut router = Observer::establish(&daemon, &daemon.peers[0])?;
        router.route("10.244.1.1/32").context("told though the agent has not come back yet")?;
        router.no_route("10.244.1.1/32").context("it does not come back")?;
        wait_until(WAIT, "nothing is kept", || {
            ensure!(!kept.exists(), "{}", fs::read_to_string(&kept)?);
            Ok(())
        })
    });
}

#[test]
fn an_agent_that_does_not_read_holds_up_itself_alone_and_its_successor_takes_over() {
    enclosed(|| {
        let daemon = plan("1m").start()?;
        let mut deaf = Door::open(&daemon, "deaf")?;
        deaf.stream.set_write_timeout(Some(Duration::from_secs(1)))?;
        let fences = "{\"word\":\"end\"}\n".repeat(4000);
        // Until our words find no room any more: margay has stopped to read them.
        let held_up = (0..1000).any(|_| deaf.say(&fences).is_err());
        ensure!(held_up, "60 MB of words, and no answer read");
        let mut other = Door::open(&daemon, "other")?;
        other.say("{\"word\":\"begin\"}\n{\"word\":\"end\"}\n")?;
        ensure!(other.answer()?["answer"] == "hello" && other.answer()?["answer"] == "end", "others are served");
        let mut successor = Door::open(&daemon, "deaf")?;
        ensure!(successor.answer()?["answer"] == "hello", "it takes over");
        // Closed while words of ours are unread it ends, behind the answers, in a reset; in an end of the stream if we look before that.
        match deaf.stream.read_to_end(&mut Vec::new()) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => return Err(error).context("the older connection ends"),
            _ => {}
        }
        successor.say("{\"word\":\"end\"}\n")?;
        ensure!(successor.answer()?["answer"] == "end", "and is heard");
        Ok(())
    });
}

#[test]
fn errors_name_the_line_and_a_line_without_end_ends_the_conversation() {
    enclosed(|| {
        let daemon = plan("0").start()?;
        let mut door = Door::open(&daemon, "cni")?;
        ensure!(door.answer()?["hold"] == 0, "hello");
        door.say("{\"word\":\"begin\"}\n\n{\"word\":\"upsert\",\"prefix\":\"10.244.1.300/32\",\"dev\":\"a\"}\n{\"word\":\"end\"}\n")?;
        let (error, end) = (door.answer()?, door.answer()?);
        ensure!(error["line"] == 3 && error["error"].to_string().contains("`10.244.1.300/32` is no prefix"), "{error}");
        ensure!(end["answer"] == "error" && end["line"] == 4, "{end}");
        door.say(&"x".repeat(5000))?;
        let bye = door.answer()?;
        ensure!(bye["answer"] == "bye" && bye["error"] == "line 5 is longer than 4096 octets", "{bye}");
        ensure!(door.answer().is_err(), "the connection ends");
        let refused = daemon.post("/v1/agents/a%20b").err().map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(refused.contains("an agent's name is 1 to 63"), "{refused}");
        Ok(())
    });
}
