//! Servers that are old, refuse, forget, close every watch, die and come back: nothing is lost, nothing is told twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proto_tests::kube::objects::{Group, object};
use proto_tests::kube::{ApiServer, Behaviour};
use serde_json::{Value, json};

use super::heard::Heard;

const NODES: usize = 1000;

fn node(name: &str, asn: usize) -> (String, Value) {
    let bgp = json!({ "ipv4Address": "198.51.100.1/24", "asNumber": asn });
    object(Group::Crd, &json!({ "kind": "Node", "metadata": { "name": name }, "spec": { "bgp": bgp } }))
}

/// A thousand nodes, node-1 among them, with this as AS.
fn nodes(asn: usize) -> impl Iterator<Item = (String, Value)> {
    (0..NODES).map(move |number| node(&format!("node-{number}"), asn))
}

/// All thousand nodes have this AS.
fn all_have(heard: &Heard, asn: usize) -> bool {
    let nodes: Vec<&Value> = heard.resources.iter().filter(|(key, _)| key.starts_with("Node ")).map(|(_, node)| node).collect();
    nodes.len() == NODES && nodes.iter().all(|node| node["spec"]["bgp"]["asNumber"] == asn)
}

#[tokio::test]
async fn a_server_with_an_old_etcd_and_an_old_server_are_listed_and_watched() {
    for behaviour in [
        Behaviour { initial_events: false, page: 100, ..Behaviour::default() },
        Behaviour { ancient: true, page: 100, ..Behaviour::default() },
    ] {
        let server = ApiServer::start_with(behaviour).unwrap();
        server.put(nodes(64601));
        let mut heard = Heard::start(&server, &[]);
        heard.told(1).await;
        assert!(all_have(&heard, 64601) && heard.problems.is_empty(), "{:?}", heard.problems);
        let pages = server.asked().iter().filter(|asked| asked.resource == "nodes" && asked.verb == "list").count();
        assert_eq!(pages, NODES / 100);
        server.put([node("node-7", 64607)]);
        heard.until("a change after the list", |heard| heard.resources["Node node-7"]["spec"]["bgp"]["asNumber"] == 64607).await;
        assert_eq!(heard.count("upsert"), NODES + 1);
    }
}

#[tokio::test]
async fn pages_that_expire_are_asked_for_in_one_piece() {
    let server = ApiServer::start_with(Behaviour { ancient: true, page: 100, pages_expire: true, ..Behaviour::default() }).unwrap();
    server.put(nodes(64601));
    let mut heard = Heard::start(&server, &[]);
    heard.told(1).await;
    assert!(all_have(&heard, 64601));
    assert_eq!(heard.count("upsert"), NODES, "the first page is not told twice");
}

#[tokio::test]
async fn nodes_are_asked_for_without_their_status_and_told_small() {
    let server = ApiServer::start().unwrap();
    server.put(nodes(64601));
    let mut heard = Heard::start(&server, &[]);
    heard.told(1).await;
    assert!(server.asked().iter().filter(|asked| asked.resource == "nodes").all(|asked| asked.metadata_only));
    let (_, whole) = node("node-1", 64601);
    let told = heard.resources["Node node-1"].to_string();
    assert!(told.len() < 400 && whole.to_string().len() > 1500, "{} of {}", told.len(), whole.to_string().len());
    // A heartbeat changes the status: nothing is told.
    let upserts = heard.count("upsert");
    let beaten = nodes(64601).map(|(collection, mut node)| {
        node["status"]["conditions"] = json!([{ "lastHeartbeatTime": "2026-11-23T21:30:36Z" }]);
        (collection, node)
    });
    server.put(beaten);
    server.put([node("node-5", 5)]);
    heard.until("a change behind the heartbeats", |heard| heard.resources["Node node-5"]["spec"]["bgp"]["asNumber"] == 5).await;
    assert_eq!(heard.count("upsert"), upserts + 1);
}

#[tokio::test]
async fn watches_closed_again_and_again_while_a_thousand_nodes_change_lose_nothing_and_double_nothing() {
    // Closed twenty times as often as the rule "each second", so that the test is short.
    let behaviour = Behaviour { watches_last: Duration::from_millis(50), bookmarks: Duration::from_millis(20), ..Behaviour::default() };
    let server = ApiServer::start_with(behaviour).unwrap();
    server.put(nodes(1));
    let mut heard = Heard::start(&server, &[]);
    heard.told(1).await;
    for round in 2..=4 {
        // A change every few microseconds would be one event; in portions they fall before, into and after the gaps.
        for portion in nodes(round).collect::<Vec<_>>().chunks(50) {
            server.put(portion.iter().cloned());
            heard.until("the portion", |heard| portion.iter().all(|(_, node)| told(heard, node, round))).await;
        }
    }
    assert!(all_have(&heard, 4));
    assert_eq!(heard.count("upsert"), NODES * 4, "each change once");
    assert_eq!((heard.count("begin"), heard.count("end"), heard.count("remove"), heard.count("away")), (1, 1, 0, 0));
    assert_eq!(server.listed("nodes"), 1, "one listing, and then on from the last version");
    assert!(server.resumed("nodes") > 5, "{}", server.resumed("nodes"));
}

fn told(heard: &Heard, node: &Value, asn: usize) -> bool {
    let name = node["metadata"]["name"].as_str().unwrap();
    heard.resources[&format!("Node {name}")]["spec"]["bgp"]["asNumber"] == asn
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_and_started_under_load_loses_nothing_and_doubles_nothing() {
    let mut server = ApiServer::start().unwrap();
    server.put(nodes(1));
    let mut heard = Heard::start(&server, &[]);
    heard.told(1).await;
    for round in 2..=4 {
        server.put(nodes(round).take(NODES / 2));
        server.kill();
        // What changes while it is away is in its store when it comes back.
        server.put(nodes(round).skip(NODES / 2));
        server.restart().unwrap();
        heard.until("the changes of before and after", |heard| all_have(heard, round)).await;
    }
    assert_eq!(heard.count("upsert"), NODES * 4, "each change once");
    assert_eq!((heard.count("begin"), heard.count("end"), heard.count("remove")), (1, 1, 0));
    assert_eq!(server.listed("nodes"), 1, "no listing anew: the versions are remembered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_has_forgotten_is_listed_anew_and_only_differences_are_told() {
    let mut server = ApiServer::start().unwrap();
    server.put(nodes(1));
    let mut heard = Heard::start(&server, &[]);
    heard.told(1).await;
    server.kill();
    server.put(nodes(2).take(10));
    server.delete("/api/v1/nodes", "", "node-999");
    server.compact();
    server.restart().unwrap();
    heard.until("the differences", |heard| told(heard, &node("node-9", 2).1, 2) && !heard.resources.contains_key("Node node-999")).await;
    assert_eq!((heard.count("upsert"), heard.count("remove")), (NODES + 10, 1), "ten changes, one removal, and nothing else");
    assert_eq!(server.listed("nodes"), 2);
    assert_eq!((heard.count("begin"), heard.count("end")), (1, 1), "a listing anew is no new beginning");
}

#[tokio::test]
async fn a_server_that_is_away_at_the_start_is_waited_for() {
    let mut server = ApiServer::start().unwrap();
    server.put(nodes(1));
    server.kill();
    let mut heard = Heard::start(&server, &[]);
    heard.until("it is away", |heard| heard.away.is_some() && !heard.problems.is_empty()).await;
    let (away, problem) = (heard.away.clone().unwrap(), heard.problems[0].to_string());
    assert!(away.contains(&server.url()) && away.contains("onnect"), "{away}");
    assert!(problem.contains("tried again"), "{problem}");
    assert_eq!((heard.count("begin"), heard.count("end")), (0, 0), "nothing is told of what is not known");
    server.restart().unwrap();
    heard.told(1).await;
    assert!(all_have(&heard, 1) && heard.problems.is_empty());
}

#[tokio::test]
async fn a_server_that_dies_is_said_to_be_away_and_to_be_here() {
    let mut server = ApiServer::start().unwrap();
    server.put(nodes(1));
    let mut heard = Heard::start(&server, &[]);
    heard.told(1).await;
    server.kill();
    heard.until("it is away", |heard| heard.away.is_some() && heard.has_problem("stays in force")).await;
    assert!(all_have(&heard, 1), "what was told stays");
    server.restart().unwrap();
    heard.until("it is here", |heard| heard.away.is_none() && heard.problems.is_empty()).await;
    assert_eq!(heard.count("upsert"), NODES);
}

#[tokio::test]
async fn a_server_that_only_fails_is_away_with_its_own_words() {
    let server = ApiServer::start_with(Behaviour { failing: Some(503), ..Behaviour::default() }).unwrap();
    let mut heard = Heard::start(&server, &[("CALICO_API_GROUP", "crd.projectcalico.org/v1")]);
    heard.until("it is away", |heard| heard.away.as_ref().is_some_and(|why| why.contains("503") && why.contains("unable to handle"))).await;
    server.behave(|behaviour| behaviour.failing = None);
    heard.told(1).await;
    heard.until("it is here", |heard| heard.away.is_none()).await;
}

#[tokio::test]
async fn a_kind_that_may_not_be_read_names_the_rule_and_does_not_stop_the_others() {
    let forbidden = ["bgpfilters", "services"].map(str::to_owned).into_iter().collect();
    let server = ApiServer::start_with(Behaviour { forbidden, ..Behaviour::default() }).unwrap();
    server.put(nodes(1));
    let mut heard = Heard::start(&server, &[("CALICO_ADVERTISE_CLUSTER_IPS", "10.96.0.0/12")]);
    heard.told(1).await;
    heard.until("both are named", |heard| heard.problems.len() == 2).await;
    assert!(all_have(&heard, 1) && heard.away.is_none());
    for (plural, group) in [("bgpfilters", "crd.projectcalico.org"), ("services", "")] {
        let rule = format!("grant verbs list and watch on resource `{plural}` of API group `{group}`");
        assert!(heard.has_problem(&rule), "{:#?}", heard.problems);
    }
}

#[tokio::test]
async fn a_kind_that_is_not_served_is_named_and_does_not_stop_the_others() {
    let missing = BTreeSet::from(["bgpfilters".to_owned()]);
    let server = ApiServer::start_with(Behaviour { missing, ..Behaviour::default() }).unwrap();
    server.put(nodes(1));
    let mut heard = Heard::start(&server, &[]);
    heard.told(1).await;
    heard.until("it is named", |heard| heard.has_problem("bgpfilters.crd.projectcalico.org")).await;
    assert!(all_have(&heard, 1) && heard.problems.len() == 1);
    let tries = server.asked().iter().filter(|asked| asked.resource == "bgpfilters").count();
    assert_eq!(tries, 1, "it is not asked for again and again");
}

#[tokio::test]
async fn a_cluster_without_calico_is_waited_for() {
    let server = ApiServer::start_with(Behaviour { groups: vec!["apps"], ..Behaviour::default() }).unwrap();
    server.put(nodes(1));
    let mut heard = Heard::start(&server, &[]);
    heard.until("it is said", |heard| heard.has_problem("neither crd.projectcalico.org nor projectcalico.org")).await;
    assert_eq!(heard.count("begin"), 0);
    server.behave(|behaviour| behaviour.groups = vec!["projectcalico.org"]);
    heard.told(1).await;
    assert!(all_have(&heard, 1) && heard.problems.is_empty());
}

#[tokio::test]
async fn a_token_that_is_wrong_is_told_in_the_servers_words() {
    let server = ApiServer::start_with(Behaviour { token: Some("good".to_owned()), ..Behaviour::default() }).unwrap();
    let mut wrong = Heard::start(&server, &[("K8S_API_TOKEN", "bad")]);
    wrong.until("it is said", |heard| heard.away.as_ref().is_some_and(|why| why.contains("401") && why.contains("Unauthorized"))).await;
    let mut right = Heard::start(&server, &[("K8S_API_TOKEN", "good")]);
    right.told(1).await;
}

#[tokio::test]
async fn asked_to_look_again_it_tells_everything_anew() {
    let server = ApiServer::start().unwrap();
    server.put(nodes(1));
    let mut heard = Heard::start(&server, &[]);
    heard.told(1).await;
    heard.again.send(()).await.unwrap();
    heard.told(2).await;
    assert_eq!((heard.count("begin"), heard.count("upsert")), (2, NODES * 2));
    assert_eq!(server.listed("nodes"), 2);
}

#[tokio::test]
async fn it_ends_when_nobody_listens() {
    let server = ApiServer::start().unwrap();
    let mut heard = Heard::start(&server, &[]);
    heard.told(1).await;
    heard.ended().await.unwrap();
    // One that never came through ends, too.
    let dead = Heard::with(vec![("K8S_API_ENDPOINT".to_owned(), "http://127.0.0.1:1".to_owned())]);
    dead.ended().await.unwrap();
}

#[tokio::test]
async fn bad_objects_are_named_and_left_out() {
    let server = ApiServer::start().unwrap();
    server.put(nodes(1));
    let (collection, mut odd) = node("node-3", 1);
    odd["metadata"]["annotations"]["projectcalico.org/ASNumber"] = "many".into();
    server.put([(collection.clone(), odd)]);
    let (_, mut broken) = node("odd", 1);
    broken["metadata"]["labels"] = json!({ "a": 7 });
    server.put([(collection, broken)]);
    let mut heard = Heard::start(&server, &[]);
    heard.told(1).await;
    heard.until("both are named", |heard| heard.problems.len() == 2).await;
    assert!(heard.has_problem("projectcalico.org/ASNumber") && heard.has_problem("the object odd cannot be read"), "{:#?}", heard.problems);
    assert!(heard.resources["Node node-3"]["spec"]["bgp"].get("asNumber").is_none());
    assert_eq!(heard.resources["Node node-3"]["spec"]["bgp"]["ipv4Address"], "198.51.100.1/24", "the rest of it counts");
    server.put([node("node-3", 7)]);
    heard.until("it is mended", |heard| heard.problems.len() == 1).await;
}

#[tokio::test]
async fn changes_that_are_forgotten_before_an_open_watch_has_sent_them_are_listed() {
    let server = ApiServer::start_with(Behaviour { bookmarks: Duration::from_millis(10), ..Behaviour::default() }).unwrap();
    server.put(nodes(1));
    let mut heard = Heard::start(&server, &[]);
    heard.told(1).await;
    server.put_and_forget([node("node-3", 7)]);
    heard.until("the forgotten change", |heard| told(heard, &node("node-3", 7).1, 7)).await;
    assert_eq!((heard.count("upsert"), heard.count("remove")), (NODES + 1, 0), "and nothing else");
    assert_eq!(server.listed("nodes"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_ends_in_the_truth() {
    let behaviour = Behaviour { watches_last: Duration::from_millis(30), bookmarks: Duration::from_millis(10), ..Behaviour::default() };
    let mut server = ApiServer::start_with(behaviour).unwrap();
    server.put(nodes(1));
    let mut heard = Heard::start(&server, &[]);
    heard.told(1).await;
    let mut truth: BTreeMap<String, usize> = (0..NODES).map(|number| (format!("node-{number}"), 1)).collect();
    for step in 2..60usize {
        match step % 5 {
            0 => server.compact(),
            1 => server.restart().unwrap(),
            2 => server.behave(|behaviour| behaviour.initial_events = !behaviour.initial_events),
            3 => {
                let name = format!("node-{}", step * 7 % NODES);
                server.delete("/api/v1/nodes", "", &name);
                truth.remove(&name);
            }
            _ => {
                let some = (0..NODES).filter(|number| number % step == 0).map(|number| format!("node-{number}"));
                for name in some {
                    server.put([node(&name, step)]);
                    truth.insert(name, step);
                }
            }
        }
    }
    heard.until_none("differs from the truth", |heard| differences(heard, &truth)).await;
}

/// Nodes whose AS, as told, is not the true one: name, told, true.
fn differences(heard: &Heard, truth: &BTreeMap<String, usize>) -> Vec<(String, Option<usize>, Option<usize>)> {
    let asn = |node: &Value| Some(node["spec"]["bgp"]["asNumber"].as_u64()? as usize);
    let told: BTreeMap<&str, Option<usize>> =
        heard.resources.iter().filter_map(|(key, node)| Some((key.strip_prefix("Node ")?, asn(node)))).collect();
    let names: BTreeSet<&str> = told.keys().copied().chain(truth.keys().map(String::as_str)).collect();
    let both = names.into_iter().map(|name| (name.to_owned(), told.get(name).copied().flatten(), truth.get(name).copied()));
    both.filter(|(_, told, truth)| told != truth).collect()
}
