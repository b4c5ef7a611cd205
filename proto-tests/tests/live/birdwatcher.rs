//! `/birdwatcher` as the looking glass alice-lg reads it: every field that its parsers take, by the type that they assert.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use anyhow::{Context, Result, ensure};
use proto_tests::lab::process::wait_until;
use proto_tests::live::daemon::replace;
use proto_tests::live::message::{self, announce, as_path, attribute, basics, communities, next_hop, origin};
use proto_tests::live::{Daemon, Neighbour, Observer, Plan, enclosed};
use serde_json::{Value, json};

use super::session::WAIT;

const PAGE: &str = "127.0.0.1:9181";
/// Routes in an answer, at most.
const ROUTES: usize = 100_000;

const NARROW: &str = "apiVersion: projectcalico.org/v3\nkind: BGPFilter\nmetadata: {name: narrow}\nspec:\n  importV4: [{action: Reject, \
                      matchOperator: Equal, cidr: 10.66.0.0/16}, {action: Accept}]\n  exportV4: [{action: Reject, matchOperator: In, cidr: 192.0.2.0/24}, {action: Accept}]\n";

/// Status and text of an answer.
fn get_text(path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(PAGE)?;
    stream.set_read_timeout(Some(WAIT))?;
    stream.write_all(format!("GET /birdwatcher{path} HTTP/1.0\r\nHost: {PAGE}\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("no HTTP: {text}"))?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).with_context(|| head.to_owned())?;
    Ok((status, body.to_owned()))
}

/// Status and body of an answer.
fn get(path: &str) -> Result<(u16, Value)> {
    let (status, text) = get_text(path)?;
    Ok((status, serde_json::from_str(&text).with_context(|| format!("{path}: {status}"))?))
}

/// `2026-08-22T10:00:05Z` with `T` and `Z`, or `2026-08-22 10:00:05` with a space and nothing.
fn is_time(value: &Value, pattern: &str) -> bool {
    value.as_str().is_some_and(|text| {
        text.len() == pattern.len() && text.chars().zip(pattern.chars()).all(|(c, p)| if p == '0' { c.is_ascii_digit() } else { c == p })
    })
}

const STAMP: &str = "0000-00-00T00:00:00Z";
const SHORT: &str = "0000-00-00 00:00:00";

/// An answer with what alice-lg asserts of each.
fn read(path: &str) -> Result<Value> {
    let (status, answer) = get(path)?;
    ensure!(status == 200, "{path}: {status} {answer}");
    let api = &answer["api"];
    ensure!(api["Version"].is_string() && api["result_from_cache"].is_boolean(), "{path}: {api}");
    ensure!(is_time(&api["cache_status"]["cached_at"]["date"], STAMP) && is_time(&answer["ttl"], STAMP), "{path}: {answer}");
    Ok(answer)
}

fn is_list(value: &Value, of: fn(&Value) -> bool) -> bool {
    value.as_array().is_some_and(|list| list.iter().all(of))
}

/// The routes of an answer, each with every field that is read.
fn routes(path: &str) -> Result<Vec<Value>> {
    let answer = read(path)?;
    let routes = answer["routes"].as_array().with_context(|| format!("{path}: {answer}"))?;
    for route in routes {
        for name in ["from_protocol", "network", "gateway", "interface", "learnt_from"] {
            ensure!(route[name].is_string(), "{path}: {name} of {route}");
        }
        ensure!(route["metric"].is_u64() && route["primary"].is_boolean() && is_time(&route["age"], SHORT), "{path}: {route}");
        ensure!(is_list(&route["type"], Value::is_string), "{path}: {route}");
        let bgp = &route["bgp"];
        if bgp.is_null() {
            ensure!(route["type"][0] != "BGP", "{path}: {route}");
            continue;
        }
        for name in ["origin", "next_hop", "local_pref", "med"] {
            ensure!(bgp[name].is_string(), "{path}: {name} of {route}");
        }
        ensure!(is_list(&bgp["as_path"], Value::is_string), "{path}: {route}");
        for name in ["communities", "large_communities"] {
            ensure!(is_list(&bgp[name], |community| is_list(community, Value::is_u64)), "{path}: {name} of {route}");
        }
        let three_words = |community: &Value| is_list(community, Value::is_string) && community.as_array().is_some_and(|c| c.len() == 3);
        ensure!(is_list(&bgp["ext_communities"], three_words), "{path}: {route}");
    }
    Ok(routes.clone())
}

fn networks(routes: &[Value]) -> Vec<&str> {
    let mut networks: Vec<&str> = routes.iter().filter_map(|route| route["network"].as_str()).collect();
    networks.sort_unstable();
    networks
}

/// One refused by its filter, one because its path has our own AS.
fn talkative(daemon: &Daemon) -> Result<Neighbour> {
    let plan = &daemon.peers[0];
    replace(&daemon.resources().join("external-0.yaml"), &plan.document().replace("filters: [all]", "filters: [narrow]"))?;
    let mut neighbour = Neighbour::establish(daemon, plan)?;
    let attributes = [
        origin(2),
        as_path(&[plan.asn, 4_200_000_001]),
        next_hop(message::NEXT_HOP),
        attribute(0x80, 4, &7_u32.to_be_bytes()),
        communities(&[0xfbf0_0001, 0xfbf0_0002]),
        attribute(0xc0, 16, &[0, 2, 0xfb, 0xf0, 0, 0, 0, 9]),
        attribute(0xc0, 32, &[64512_u32, 1, 2].map(u32::to_be_bytes).concat()),
    ];
    neighbour.send(&announce(&attributes, &["10.1.0.0/16"]))?;
    neighbour.send(&announce(&basics(plan.asn), &["10.66.0.0/16"]))?;
    neighbour.send(&announce(&[origin(0), as_path(&[plan.asn, daemon.asn]), next_hop(message::NEXT_HOP)], &["10.67.0.0/16"]))?;
    Ok(neighbour)
}

fn start(peers: u16) -> Result<Daemon> {
    let arguments = ["--page", PAGE].map(str::to_owned).to_vec();
    Plan { arguments, documents: vec![NARROW.to_owned()], ..Plan::default().external(peers) }.start()
}

fn name(daemon: &Daemon, number: usize) -> Result<String> {
    Ok(daemon.peer_view(&daemon.peers[number])?["name"].as_str().context("no name")?.to_owned())
}

#[test]
fn alice_lg_reads_peers_and_their_accepted_refused_and_untold_routes() {
    enclosed(|| {
        let daemon = start(3)?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[1])?;
        let _talkative = talkative(&daemon)?;
        observer.route("10.1.0.0/16")?;
        let [first, second, down] = [name(&daemon, 0)?, name(&daemon, 1)?, name(&daemon, 2)?];
        wait_until(WAIT, "two routes are refused", || {
            let refused = routes(&format!("/routes/filtered/{first}"))?;
            ensure!(networks(&refused) == ["10.66.0.0/16", "10.67.0.0/16"], "{refused:?}");
            let peers = read("/protocols/bgp")?;
            ensure!(peers["protocols"][&first]["routes"] == json!({"imported": 1, "filtered": 2, "exported": 0}), "{peers}");
            ensure!(peers["protocols"][&second]["routes"]["exported"] == 1, "{peers}");
            Ok(())
        })?;

        let status = &read("/status")?["status"];
        ensure!(status["router_id"] == "127.0.0.1" && status["version"].is_string() && status["message"].is_string(), "{status}");
        for moment in ["current_server", "last_reboot", "last_reconfig"] {
            ensure!(is_time(&status[moment], SHORT), "{moment} of {status}");
        }

        let peers = read("/protocols/bgp")?;
        let peers = peers["protocols"].as_object().context("no map")?;
        let short = read("/protocols/short?uncached=true")?;
        ensure!(peers.len() == 3, "{peers:?}");
        for (id, state) in [(&first, "up"), (&second, "up"), (&down, "start")] {
            let peer = &peers[id];
            ensure!(peer["state"] == state && peer["bird_protocol"] == "BGP" && is_time(&peer["state_changed"], SHORT), "{peer}");
            for name in ["description", "last_error", "neighbor_address"] {
                ensure!(peer[name].is_string(), "{name} of {peer}");
            }
            ensure!(peer["routes"].as_object().is_some_and(|counts| counts.values().all(Value::is_u64)), "{peer}");
            let brief = &short["protocols"][id];
            ensure!(brief["state"] == state && is_time(&brief["since"], SHORT), "{brief}");
        }
        let peer = &peers[&first];
        ensure!(peer["neighbor_address"] == daemon.peers[0].address.to_string() && peer["neighbor_as"] == daemon.peers[0].asn, "{peer}");
        ensure!(peer["channels"]["ipv4"]["routes_count"] == peer["routes"], "{peer}");

        let accepted = routes(&format!("/routes/protocol/{first}"))?;
        ensure!(networks(&accepted) == ["10.1.0.0/16"], "{accepted:?}");
        let route = &accepted[0];
        ensure!(route["from_protocol"] == *first && route["primary"] == true && route["metric"] == 100, "{route}");
        ensure!(route["gateway"] == "192.0.2.66" && route["interface"] == "link0", "{route}");
        let bgp = json!({
            "origin": "Incomplete", "as_path": [daemon.peers[0].asn.to_string(), "4200000001"], "next_hop": "192.0.2.66", "local_pref": "100",
            "med": "7", "communities": [[64496, 1], [64496, 2]], "large_communities": [[64512, 1, 2]], "ext_communities": [["rt", "64496", "9"]],
        });
        ensure!(route["bgp"] == bgp, "{route}");

        let refused = routes(&format!("/routes/filtered/{first}"))?;
        for route in &refused {
            let address = daemon.peers[0].address.to_string();
            ensure!(route["gateway"] == address && route["learnt_from"] == address, "{route}");
            ensure!(route["from_protocol"] == *first && route["rejected_by"].is_string() && route["primary"] == false, "{route}");
        }
        ensure!(refused.iter().any(|route| route["rejected_by"].as_str().is_some_and(|rule| rule.contains("narrow"))), "{refused:?}");
        ensure!(routes(&format!("/routes/filtered/{second}"))?.is_empty());

        // The link's own prefix stays at home; a peer's own routes are no news to it.
        let untold = routes(&format!("/routes/noexport/{second}"))?;
        ensure!(networks(&untold).contains(&"192.0.2.0/24") && !networks(&untold).contains(&"10.1.0.0/16"), "{untold:?}");
        ensure!(!networks(&routes(&format!("/routes/noexport/{first}"))?).contains(&"10.1.0.0/16"));
        ensure!(routes(&format!("/routes/noexport/{down}"))?.is_empty(), "its session is down");

        for table in ["master", "master4"] {
            let all = routes(&format!("/routes/table/{table}"))?;
            let all = networks(&all);
            ensure!(all.contains(&"10.1.0.0/16") && all.contains(&"192.0.2.0/24") && !all.contains(&"10.66.0.0/16"), "{table}: {all:?}");
            let refused = routes(&format!("/routes/table/{table}/filtered"))?;
            ensure!(networks(&refused) == ["10.66.0.0/16", "10.67.0.0/16"], "{table}: {refused:?}");
        }
        let sixth = routes("/routes/table/master6")?;
        ensure!(networks(&sixth).iter().all(|network| network.contains(':')), "{sixth:?}");
        ensure!(routes("/routes/table/master6/filtered")?.is_empty());

        for path in ["/routes/protocol/nobody", "/routes/filtered/nobody", "/routes/noexport/nobody", "/routes/table/nothing"] {
            let (status, answer) = get(path)?;
            ensure!(status == 404 && answer["error"].is_string() && answer["api"].is_null(), "{path}: {status} {answer}");
        }
        Ok(())
    });
}

#[test]
fn an_answer_has_so_many_routes_and_says_that_there_are_more() {
    enclosed(|| {
        let daemon = start(1)?;
        let plan = &daemon.peers[0];
        let mut neighbour = Neighbour::establish(&daemon, plan)?;
        let prefixes: Vec<String> =
            (0..ROUTES as u32 + 500).map(|number| format!("{}/24", Ipv4Addr::from(0x1400_0000 + (number << 8)))).collect();
        for some in prefixes.chunks(900) {
            neighbour.send(&announce(&basics(plan.asn), &some.iter().map(String::as_str).collect::<Vec<_>>()))?;
        }
        let name = name(&daemon, 0)?;
        wait_until(WAIT, "all routes are accepted", || {
            let peers = read("/protocols/bgp")?;
            ensure!(peers["protocols"][&name]["routes"]["imported"] == prefixes.len(), "{peers}");
            Ok(())
        })?;
        // Counted in the text: to parse all of it takes long, and the other test does.
        let (_, text) = get_text("/routes/table/master")?;
        ensure!(text.matches("\"network\":").count() == ROUTES && text.ends_with("],\"truncated\":true}\n"), "{} octets", text.len());
        ensure!(daemon.log().contains("an answer under /birdwatcher was cut off"), "{}", daemon.log());
        let refused = read(&format!("/routes/filtered/{name}"))?;
        ensure!(refused["routes"] == json!([]) && refused["truncated"] == false, "{refused}");
        Ok(())
    });
}
