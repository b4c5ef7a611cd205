//! What margay remembers of what happened, and tells as it happens.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, ensure};
use proto_tests::lab::process::wait_until;
use proto_tests::live::message::{announce, basics, notification, withdraw};
use proto_tests::live::{Daemon, Neighbour, Plan, enclosed};
use serde_json::Value;

use crate::session::WAIT;

fn remembered(daemon: &Daemon, query: &str) -> Result<Vec<Value>> {
    daemon
        .api_text(&format!("/v1/events{query}"))?
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["event"].as_str()).collect()
}

/// Follows the events that `query` asks for; the reader gives a line an event.
fn follow(daemon: &Daemon, query: &str) -> Result<impl Iterator<Item = Result<Value>> + use<>> {
    let mut stream = UnixStream::connect(daemon.socket())?;
    stream.set_read_timeout(Some(WAIT))?;
    stream.write_all(format!("GET /v1/events?follow=true{query} HTTP/1.0\r\nHost: margay\r\n\r\n").as_bytes())?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    // The head ends with an empty line: from then on we follow.
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    Ok(std::iter::from_fn(move || {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_str(&line).map_err(Into::into)),
            Err(error) => Some(Err(error.into())),
        }
    }))
}

#[test]
fn the_life_of_a_session_is_remembered_with_its_reasons() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let plan = &daemon.peers[0];
        let mut neighbour = Neighbour::establish(&daemon, plan)?;
        let text = b"moving the rack";
        neighbour.send(&notification(6, 2, &[&[text.len() as u8], &text[..]].concat()))?;
        let name = daemon.peer_view(plan)?["name"].as_str().context("no name")?.to_owned();
        let query = format!("?peer={name}");
        wait_until(WAIT, "the end of the session in the events", || {
            let events = remembered(&daemon, &query)?;
            ensure!(
                events
                    .iter()
                    .any(|event| event["event"] == "down" && event["text"].as_str().is_some_and(|t| t.contains("moving the rack")))
            );
            Ok(())
        })?;
        let events = remembered(&daemon, &query)?;
        ensure!(events.iter().all(|event| event["peer"] == name.as_str()), "only of that peer: {events:?}");
        ensure!(events.iter().any(|event| event["event"] == "state" && event["to"] == "Established"), "{events:?}");
        let down = events.iter().find(|event| event["code"] == 6).context("no NOTIFICATION among them")?;
        ensure!(down["by"] == "peer" && down["subcode"] == 2, "{down}");
        let all = remembered(&daemon, "")?;
        let numbers: Vec<u64> = all.iter().filter_map(|event| event["number"].as_u64()).collect();
        ensure!(numbers.is_sorted() && numbers[0] == 1, "{numbers:?}");
        ensure!(kinds(&all).contains(&"configured"), "{all:?}");

        let words = String::from_utf8(daemon.margay(&["show", "events", "--peer", &name])?.stdout)?;
        ensure!(words.lines().count() >= 2 && words.contains("moving the rack"), "{words}");
        Ok(())
    });
}

#[test]
fn a_changed_resource_says_what_it_changed() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let mut news = follow(&daemon, "")?;
        std::fs::write(
            daemon.resources().join("bad.yaml"),
            "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: bad}\nspec: {peerIP: nonsense, asNumber: 1}\n",
        )?;
        let problem = next(&mut news, "problem")?;
        ensure!(problem["severity"] == "error" && problem["text"].as_str().is_some_and(|text| text.contains("bad.yaml")), "{problem}");
        std::fs::remove_file(daemon.resources().join("bad.yaml"))?;
        next(&mut news, "solved")?;
        let name = daemon.peer_view(&daemon.peers[1])?["name"].clone();
        std::fs::remove_file(daemon.resources().join(file_of(&daemon, 1)?))?;
        let configured = next(&mut news, "configured")?;
        ensure!(configured["removed"] == serde_json::json!([name]) && configured["reset"] == serde_json::json!([]), "{configured}");
        Ok(())
    });
}

/// The file that holds the document of a peer.
fn file_of(daemon: &Daemon, number: usize) -> Result<std::ffi::OsString> {
    let address = daemon.peers[number].address.to_string();
    for entry in std::fs::read_dir(daemon.resources())? {
        let entry = entry?;
        let text = std::fs::read_to_string(entry.path())?;
        if text.contains("kind: BGPPeer") && text.contains(&address) {
            return Ok(entry.file_name());
        }
    }
    anyhow::bail!("no file for {address}")
}

fn next(news: &mut impl Iterator<Item = Result<Value>>, kind: &str) -> Result<Value> {
    for event in news {
        let event = event?;
        if event["event"] == kind {
            return Ok(event);
        }
    }
    anyhow::bail!("the stream ended before `{kind}`")
}

#[test]
fn best_paths_of_a_followed_prefix_are_told_as_they_change() {
    enclosed(|| {
        let daemon = Plan::default().external(1).start()?;
        let plan = &daemon.peers[0];
        let mut neighbour = Neighbour::establish(&daemon, plan)?;
        let mut news = follow(&daemon, "&prefix=10.1.0.0/16")?;
        neighbour.send(&announce(&basics(plan.asn), &["10.1.2.0/24", "10.2.0.0/24"]))?;
        let event = next(&mut news, "best-path")?;
        ensure!(event["prefix"] == "10.1.2.0/24" && event["source"] == "ebgp", "{event}");
        neighbour.send(&withdraw(&["10.2.0.0/24", "10.1.2.0/24"]))?;
        let event = next(&mut news, "best-path")?;
        ensure!(event["prefix"] == "10.1.2.0/24" && event["source"].is_null(), "10.2.0.0/24 was not asked for: {event}");
        Ok(())
    });
}
