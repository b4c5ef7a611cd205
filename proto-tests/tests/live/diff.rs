//! `margay diff`: what it says beforehand is what happens then.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use proto_tests::lab::process::wait_until;
use proto_tests::live::daemon::{external, program, replace};
use proto_tests::live::message::{announce, basics};
use proto_tests::live::{Daemon, Neighbour, Observer, Plan, enclosed};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::session::WAIT;

/// A copy of the resources in force, to be changed.
fn copy(daemon: &Daemon) -> Result<TempDir> {
    let folder = TempDir::new()?;
    for file in fs::read_dir(daemon.resources())? {
        let file = file?;
        fs::copy(file.path(), folder.path().join(file.file_name()))?;
    }
    Ok(folder)
}

fn edit(folder: &Path, file: &str, from: &str, to: &str) -> Result<()> {
    let path = folder.join(file);
    let text = fs::read_to_string(&path)?;
    ensure!(text.contains(from), "{from} in {text}");
    Ok(fs::write(path, text.replace(from, to))?)
}

/// The exit code and the answer.
fn diff(daemon: &Daemon, arguments: &[&str]) -> Result<(i32, Value)> {
    let output = Command::new(program()?).arg("diff").arg("--json").arg("--socket").arg(daemon.socket()).args(arguments).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let answer = serde_json::from_slice(&output.stdout).with_context(|| format!("margay said: {said}"))?;
    Ok((output.status.code().context("an exit code")?, answer))
}

fn whole(daemon: &Daemon, folder: &TempDir) -> Result<(i32, Value)> {
    diff(daemon, &[folder.path().to_str().context("a path")?])
}

/// A peer's change and its reasons.
fn verdict(answer: &Value, name: &str) -> (String, Vec<String>) {
    let peer = peer(answer, name);
    let because = peer["because"].as_array().into_iter().flatten().filter_map(|field| Some(field.as_str()?.to_owned()));
    (peer["change"].as_str().unwrap_or("not named").to_owned(), because.collect())
}

fn peer<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let named = answer["peers"].as_array().and_then(|peers| peers.iter().find(|peer| peer["name"] == name));
    named.unwrap_or(&Value::Null)
}

const NARROW: &str = "apiVersion: projectcalico.org/v3\nkind: BGPFilter\nmetadata: {name: narrow}\nspec:\n  importV4: [{action: Accept}]\n  \
                      exportV4: [{action: Accept, matchOperator: Equal, cidr: 10.1.0.0/16}, {action: Reject}]\n";

#[test]
fn what_diff_says_beforehand_is_what_happens() {
    enclosed(|| {
        let daemon = Plan::default().external(4).start()?;
        let [source, narrowed, reset, removed] = &daemon.peers[..] else { unreachable!("four peers") };
        let mut session = Neighbour::establish(&daemon, source)?;
        session.send(&announce(&basics(source.asn), &["10.1.0.0/16", "10.2.0.0/16"]))?;
        let mut told = Observer::establish(&daemon, narrowed)?;
        told.route("10.2.0.0/16")?;
        let mut ending = Neighbour::establish(&daemon, reset)?;
        let name = |peer: &proto_tests::live::PeerPlan| -> Result<String> {
            Ok(daemon.peer_view(peer)?["name"].as_str().context("a name")?.to_owned())
        };
        let [source_name, narrowed_name, reset_name, removed_name] = [name(source)?, name(narrowed)?, name(reset)?, name(removed)?];

        let proposal = copy(&daemon)?;
        let (code, answer) = whole(&daemon, &proposal)?;
        ensure!((code, &answer["changes"], &answer["unchanged"]) == (0, &json!(false), &json!(4)), "the same resources: {answer}");

        fs::write(proposal.path().join("narrow.yaml"), NARROW)?;
        edit(proposal.path(), "external-1.yaml", "filters: [all]", "filters: [narrow]")?;
        edit(proposal.path(), "external-2.yaml", &reset.asn.to_string(), "64999")?;
        fs::remove_file(proposal.path().join("external-3.yaml"))?;
        fs::write(proposal.path().join("external-9.yaml"), external(9).document())?;
        fs::write(proposal.path().join("external-0.yaml"), source.clone().annotated("hold-time", "30s").document())?;
        let (code, answer) = whole(&daemon, &proposal)?;
        ensure!(code == 1 && answer["valid"] == true, "{answer}");
        ensure!(verdict(&answer, &source_name) == ("keep".into(), vec!["hold_time".into()]), "a timer: {answer}");
        let (change, because) = verdict(&answer, &narrowed_name);
        ensure!(change == "keep" && because.contains(&"export".to_owned()), "a filter: {answer}");
        let vanish = &peer(&answer, &narrowed_name)["told"]["vanish"];
        ensure!(*vanish == json!({ "count": 1, "prefixes": ["10.2.0.0/16"] }), "the route that it filters: {answer}");
        ensure!(verdict(&answer, &reset_name) == ("reset".into(), vec!["remote_asn".into()]), "another AS: {answer}");
        ensure!(peer(&answer, &reset_name)["state"] == "Established", "{answer}");
        ensure!(verdict(&answer, &removed_name).0 == "remove", "{answer}");
        let added = answer["peers"].as_array().is_some_and(|peers| peers.iter().any(|peer| peer["change"] == "add"));
        ensure!(
            added
                && answer["best"]
                    == json!({ "appear": {"count": 0, "prefixes": []}, "vanish": {"count": 0, "prefixes": []}, "change": {"count": 0, "prefixes": []} }),
            "{answer}"
        );
        ensure!(told.knows("10.2.0.0/16") && daemon.peer_view(narrowed)?["state"] == "Established", "nothing has happened by asking");

        // And so it comes.
        for file in fs::read_dir(proposal.path())? {
            let file = file?;
            replace(&daemon.resources().join(file.file_name()), &fs::read_to_string(file.path())?)?;
        }
        fs::remove_file(daemon.resources().join("external-3.yaml"))?;
        told.until("10.2.0.0/16 is withdrawn", |told| !told.knows("10.2.0.0/16"))?;
        ensure!(told.knows("10.1.0.0/16"), "the rest stays");
        ending.expect_notification(6, 6)?;
        wait_until(WAIT, "all of it is in force", || {
            let (code, answer) = whole(&daemon, &proposal)?;
            ensure!(code == 0, "{answer}");
            Ok(())
        })?;
        for (peer, kept) in [(source, true), (narrowed, true), (reset, false)] {
            let view = daemon.peer_view(peer)?;
            ensure!((view["state"] == "Established") == kept, "{view}");
        }
        Ok(())
    });
}

#[test]
fn a_source_that_goes_takes_its_routes_along() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let [source, other] = &daemon.peers[..] else { unreachable!("two peers") };
        let mut session = Neighbour::establish(&daemon, source)?;
        session.send(&announce(&basics(source.asn), &["10.1.0.0/16"]))?;
        let mut told = Observer::establish(&daemon, other)?;
        told.route("10.1.0.0/16")?;
        let proposal = copy(&daemon)?;
        fs::remove_file(proposal.path().join("external-0.yaml"))?;
        let (_, answer) = whole(&daemon, &proposal)?;
        let gone = json!({ "count": 1, "prefixes": ["10.1.0.0/16"] });
        ensure!(answer["best"]["vanish"] == gone, "{answer}");
        let name = daemon.peer_view(other)?["name"].as_str().context("a name")?.to_owned();
        ensure!(verdict(&answer, &name) == ("keep".into(), Vec::new()), "nothing of it changes: {answer}");
        ensure!(peer(&answer, &name)["told"]["vanish"] == gone, "but it is told less: {answer}");
        Ok(())
    });
}

#[test]
fn additions_bad_resources_and_nobody_there() {
    enclosed(|| {
        let mut daemon = Plan::default().external(1).start()?;
        let folder = TempDir::new()?;
        let file = folder.path().join("more.yaml");
        let path = file.to_str().context("a path")?.to_owned();
        fs::write(&file, external(5).document())?;
        let (code, answer) = diff(&daemon, &["--add", &path])?;
        ensure!(code == 1 && answer["unchanged"] == 1 && answer["peers"][0]["change"] == "add", "one more: {answer}");
        // Without --add this is all there is: no Node, no filter.
        let (code, answer) = diff(&daemon, &[&path])?;
        ensure!(code == 1 && answer["valid"] == false, "{answer}");
        fs::write(&file, external(5).document().replace("asNumber: ", "asNumber: x"))?;
        let (code, answer) = diff(&daemon, &["--add", &path])?;
        ensure!(code == 1 && answer["changes"] == false && answer["valid"] == false, "refused, so nothing changes: {answer}");
        ensure!(answer["problems"].to_string().contains("asNumber"), "{answer}");
        // In words.
        let output = Command::new(program()?).args(["diff", "--add", &path]).arg("--socket").arg(daemon.socket()).output()?;
        let text = String::from_utf8(output.stdout)?;
        ensure!(text.contains("more.yaml:") && text.ends_with("nothing would change\n"), "{text}");
        // Without a daemon: two folders; or the reason.
        let resources = daemon.resources();
        let offline = Command::new(program()?)
            .args(["diff", "--json", "--node", "bench", "--against"])
            .arg(&resources)
            .arg("--")
            .arg(&resources)
            .output()?;
        ensure!(offline.status.code() == Some(0), "{}", String::from_utf8_lossy(&offline.stderr));
        daemon.end(rustix::process::Signal::TERM)?;
        let nobody = Command::new(program()?).args(["diff", &path]).arg("--socket").arg(daemon.socket()).output()?;
        ensure!(nobody.status.code() == Some(3), "{}", String::from_utf8_lossy(&nobody.stderr));
        let usage = Command::new(program()?).arg("diff").output()?;
        ensure!(usage.status.code() == Some(2));
        Ok(())
    });
}
