//! What people see: on a terminal, through a pipe, and when they press Tab.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use proto_tests::lab::process::wait_until;
use proto_tests::live::daemon::{external_6, program};
use proto_tests::live::message::{NEXT_HOP_6, announce, as_path, basics, nlri, origin, reach, update};
use proto_tests::live::terminal::Terminal;
use proto_tests::live::{Daemon, Neighbour, Observer, Plan, enclosed};

use super::session::WAIT;

/// The first peer's other end, once margay says so too: the KEEPALIVE that ends its OpenConfirm may still be under way.
fn established(daemon: &Daemon) -> Result<Neighbour> {
    let neighbour = Neighbour::establish(daemon, &daemon.peers[0])?;
    wait_until(WAIT, "Established", || {
        ensure!(daemon.peer_view(&daemon.peers[0])?["state"] == "Established", "not yet");
        Ok(())
    })?;
    Ok(neighbour)
}

/// A line of a shell that asks this daemon.
fn line(daemon: &Daemon, words: &str) -> Result<String> {
    Ok(format!("{} {words} --socket {}", program()?.display(), daemon.socket().display()))
}

/// What a terminal of so many columns shows.
fn shown(daemon: &Daemon, columns: u16, words: &str, environment: &[(&str, &str)]) -> Result<String> {
    let (status, text) = Terminal::start(columns, &line(daemon, words)?, environment)?.end()?;
    ensure!(status.success(), "{status}: {text}");
    Ok(text)
}

fn longest(text: &str) -> usize {
    text.lines().map(|line| line.trim_end().chars().count()).max().unwrap_or(0)
}

#[test]
fn tables_fit_the_terminal_and_pipes_get_everything() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let _neighbour = established(&daemon)?;
        let plain = [("NO_COLOR", "1")];
        for columns in [70, 90] {
            let text = shown(&daemon, columns, "show peers", &plain)?;
            ensure!(longest(&text) <= usize::from(columns), "{columns} columns:\n{text}");
            ensure!(text.contains("Established") && text.contains("--wide shows all"), "{text}");
        }
        let wide = shown(&daemon, 70, "show peers --wide", &plain)?;
        let pipe = String::from_utf8(daemon.margay(&["show", "peers"])?.stdout)?;
        for text in [&wide, &pipe] {
            for title in ["NAME", "ADDRESS", "TYPE", "SINCE", "RECEIVED", "ACCEPTED", "ADVERTISED", "LAST ERROR"] {
                ensure!(text.contains(title), "{title} in\n{text}");
            }
            ensure!(longest(text) > 90 && !text.contains("--wide"), "{text}");
        }
        Ok(())
    });
}

#[test]
fn colours_are_for_terminals_and_never_alone() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let _neighbour = established(&daemon)?;
        let text = shown(&daemon, 120, "show peers", &[])?;
        ensure!(text.contains("\u{1b}[32mEstablished\u{1b}[0m"), "{text:?}");
        let stripped = text.replace("\u{1b}[32m", "").replace("\u{1b}[33m", "").replace("\u{1b}[1m\u{1b}[31m", "").replace("\u{1b}[0m", "");
        ensure!(!stripped.contains('\u{1b}') && longest(&stripped) <= 120, "{text:?}");
        for environment in [("NO_COLOR", "1"), ("TERM", "dumb")] {
            let text = shown(&daemon, 120, "show peers", &[environment])?;
            ensure!(!text.contains('\u{1b}') && text.contains("Established"), "{environment:?}: {text:?}");
        }
        let pipe = daemon.margay(&["show", "peers"])?;
        ensure!(!pipe.stdout.contains(&0x1b) && pipe.stderr.is_empty(), "{pipe:?}");
        Ok(())
    });
}

#[test]
fn watch_redraws_until_ctrl_c_and_outlives_the_daemon() {
    enclosed(|| {
        let mut daemon = Plan::default().external(1).start()?;
        let mut terminal = Terminal::start(100, &line(&daemon, "show peers --watch=0.2")?, &[("NO_COLOR", "1")])?;
        terminal.see("every 0.2 s")?;
        terminal.see("external-0").or_else(|_| terminal.see("127.1.0.10"))?;
        let neighbour = Neighbour::establish(&daemon, &daemon.peers[0])?;
        terminal.see("Established")?;
        drop(neighbour);
        daemon.end(proto_tests::lab::process::Signal::TERM)?;
        terminal.see("cannot reach the daemon")?;
        terminal.press("\u{3}")?;
        let (status, text) = terminal.end()?;
        ensure!(status.success(), "{status}: {text:?}");
        // What does not work at the first time does not work.
        let gone = daemon.margay(&["show", "peers", "--watch"])?;
        ensure!(gone.status.code() == Some(3), "{gone:?}");
        Ok(())
    });
}

#[test]
fn bash_completes_verbs_peers_and_prefixes_of_the_running_daemon() {
    enclosed(|| {
        let daemon = Plan::default().external(2).peer(external_6(0x0a)).start()?;
        let (plan, plan_6) = (&daemon.peers[0], &daemon.peers[2]);
        let mut observer = Observer::establish(&daemon, &daemon.peers[1])?;
        let mut neighbour = Neighbour::establish(&daemon, plan)?;
        neighbour.send(&announce(&basics(plan.asn), &["10.244.1.0/26", "10.3.0.0/16"]))?;
        let mut neighbour_6 = Neighbour::establish(&daemon, plan_6)?;
        let reach = reach(2, 1, &NEXT_HOP_6.octets(), &nlri(&["2001:db8:77:1::/64"]));
        neighbour_6.send(&update(&[], &[origin(0), as_path(&[plan_6.asn]), reach].concat(), &[]))?;
        observer.route("10.3.0.0/16")?;

        let folder = program()?.parent().context("no folder")?.to_owned();
        let path = format!("{}:{}", folder.display(), std::env::var("PATH")?);
        let socket = daemon.socket().display().to_string();
        let environment = [("PATH", path.as_str()), ("MARGAY_SOCKET", socket.as_str()), ("NO_COLOR", "1")];
        let mut bash = Terminal::start(200, "bash --norc --noprofile -i", &environment)?;
        bash.see("bash-")?;
        bash.press("source <(margay completion bash); echo rea''dy\r")?;
        bash.see("ready")?;
        let name = daemon.peer_view(plan)?["name"].as_str().context("no name")?.to_owned();
        let begun = &name[..name.len() - 1];
        // Each line is run as it was completed: the answer tells what became of it.
        for (keys, answer) in [
            ("margay expl\t10.244\t\r".to_owned(), "10.244.1.0/26\r\n  best"),
            ("margay explain 10.3\t\r".to_owned(), "10.3.0.0/16\r\n  best"),
            ("margay explain 2001:db8:77\t\r".to_owned(), "2001:db8:77:1::/64\r\n"),
            (format!("margay show routes --received={begun}\t | head -2\r"), "10.244.1.0/26"),
            ("margay show peer 127.1.0.10\t | head -1\r".to_owned(), "address: 127.1.0.10"),
        ] {
            bash.press(&keys)?;
            bash.see(answer).with_context(|| format!("{keys:?}"))?;
        }
        bash.press("margay explain peer Node_127_1_0_1\t\t")?;
        let other = daemon.peer_view(&daemon.peers[1])?["name"].as_str().context("no name")?.to_owned();
        bash.see(&other).context("both names are offered")?;
        Ok(())
    });
}

#[test]
fn without_a_daemon_tab_is_quiet_and_quick() {
    enclosed(|| {
        let answer = Command::new(program()?)
            .args(["--", "margay", "show", "peer", "--socket", "/nonexistent/socket", ""])
            .envs([("COMPLETE", "bash"), ("_MARGAY_INDEX", "5")])
            .output()?;
        ensure!(answer.status.success() && answer.stderr.is_empty(), "{answer:?}");
        for shell in ["zsh", "fish", "elvish", "powershell", "bash"] {
            let script = Command::new(program()?).args(["completion", shell]).output()?;
            ensure!(script.status.success() && String::from_utf8_lossy(&script.stdout).contains("COMPLETE"), "{shell}: {script:?}");
        }
        Ok(())
    });
}

#[test]
fn manual_pages_hold_the_examples() {
    enclosed(|| {
        let folder = tempfile::tempdir()?;
        let written = Command::new(program()?).arg("man").arg(folder.path()).output()?;
        ensure!(written.status.success(), "{written:?}");
        let mut pages = 0;
        for entry in std::fs::read_dir(folder.path())? {
            let path = entry?.path();
            let page = std::fs::read_to_string(&path)?;
            ensure!(page.contains(".SH EXAMPLES") && !page.contains(".SH EXTRA"), "{}: {page}", path.display());
            pages += 1;
        }
        ensure!(pages >= 20, "{pages} pages");
        Ok(())
    });
}
