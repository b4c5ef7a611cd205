//! Twenty questions of operators, each asked of a daemon in trouble as a person would ask; and the guide that lists them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use proto_tests::lab::process::wait_until;
use proto_tests::live::daemon::{program, replace};
use proto_tests::live::message::{announce, basics};
use proto_tests::live::{Daemon, Neighbour, Observer, Plan, enclosed};
use proto_tests::questions::{ALL, Places, table};

use super::session::WAIT;

/// A Service without an endpoint here, a filter that refuses one prefix, and a BGPPeer that cannot be used.
fn trouble(daemon: &Daemon) -> Result<()> {
    let base = daemon.resources().join("base.yaml");
    let text = fs::read_to_string(&base)?;
    let ranges = "nodeToNodeMeshEnabled: false, serviceLoadBalancerIPs: [{cidr: 198.51.100.0/24}]";
    let refusing = "importV4: [{action: Reject, matchOperator: Equal, cidr: 10.66.0.0/16}, {action: Accept}]";
    let text = text.replace("nodeToNodeMeshEnabled: false", ranges).replacen("importV4: [{action: Accept}]", refusing, 1);
    ensure!(text.contains("10.66.0.0/16"), "the filter is not as it was: {text}");
    replace(&base, &text)?;
    fs::write(
        daemon.resources().join("trouble.yaml"),
        "kind: Service\nmetadata: {name: web, namespace: ns}\nspec: {type: LoadBalancer, externalTrafficPolicy: Local, clusterIP: 10.96.0.1}\n\
         status: {loadBalancer: {ingress: [{ip: 198.51.100.7}]}}\n---\n\
         kind: BGPPeer\nmetadata: {name: unusable}\nspec: {peerIP: nonsense, asNumber: 65001}\n---\n\
         kind: Node\nmetadata: {name: other}\nspec: {bgp: {ipv4Address: 10.9.9.9/24}}\n",
    )?;
    Ok(())
}

#[test]
fn twenty_questions_are_answered_with_one_command_each() {
    enclosed(|| {
        let daemon = Plan::default().external(3).start()?;
        trouble(&daemon)?;
        let mut listener = Observer::establish(&daemon, &daemon.peers[1])?;
        listener.route("198.51.100.0/24").context("the changed resources are in force")?;
        let plan = &daemon.peers[0];
        let mut neighbour = Neighbour::establish(&daemon, plan)?;
        neighbour.send(&announce(&basics(plan.asn), &["10.1.0.0/16", "10.66.0.0/16"]))?;
        listener.route("10.1.0.0/16")?;
        let name = |number: usize| {
            Ok::<_, anyhow::Error>(daemon.peer_view(&daemon.peers[number])?["name"].as_str().context("no name")?.to_owned())
        };
        let places = Places {
            values: vec![
                ("peer", name(0)?),
                ("listener", name(1)?),
                ("down", name(2)?),
                ("prefix", "10.1.0.0/16".to_owned()),
                ("refused", "10.66.0.0/16".to_owned()),
                ("range", "10.0.0.0/8".to_owned()),
                ("service", "198.51.100.7".to_owned()),
                ("resources", daemon.resources().display().to_string()),
            ],
        };
        for question in ALL {
            // The FibSyncer and the history hear of things a moment later.
            wait_until(WAIT, question.asked, || {
                let answer = question.ask(&program()?, &daemon.socket(), &places)?;
                let said = String::from_utf8([answer.stdout, answer.stderr].concat())?;
                ensure!(matches!(answer.status.code(), Some(0 | 1)) && said.contains(question.says), "{}:\n{said}", question.words);
                Ok(())
            })?;
        }
        let place = format!("{}:{}", plan.address, daemon.peer_view(plan)?["port"]);
        let up = String::from_utf8(daemon.margay(&["explain", "peer", &place])?.stdout)?;
        ensure!(up.contains("Both sides have offered: ipv4-unicast") && up.contains("We alone have offered: "), "{up}");
        Ok(())
    });
}

#[test]
fn the_guide_has_the_questions_as_they_are_asked() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/guides/questions.md");
    let text = fs::read_to_string(&path).unwrap();
    let (begin, end) = (text.find("| | question |").unwrap(), text.find("\n## ").unwrap_or(text.len()));
    let fresh = format!("{}{}{}", &text[..begin], table(), &text[end..]);
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &fresh).unwrap();
    }
    assert!(text == fresh, "packaging/guides/questions.md is not what is asked: BLESS=1 rewrites its table");
}
