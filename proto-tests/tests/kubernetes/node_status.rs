//! The status of a CalicoNodeStatus: written with one patch, in either group, and not heard as news.

use margay::datastore::{Kind, Settings, StatusWriter, Updated};
use proto_tests::kube::objects::{Group, collection, object};
use proto_tests::kube::{ApiServer, Behaviour};
use serde_json::{Value, json};

use super::heard::{Heard, variables};

/// A writer for the node `node-1` with this environment.
pub fn writer_with(variables: Vec<(String, String)>) -> StatusWriter {
    StatusWriter::new(&Settings::new(Kind::Kubernetes, Vec::new(), "node-1".to_owned(), variables.into_iter().collect())).unwrap().unwrap()
}

/// A writer into this server.
pub fn writer(server: &ApiServer) -> StatusWriter {
    writer_with(variables(server, &[]))
}

fn asking(name: &str, node: &str) -> Value {
    let spec = json!({ "node": node, "classes": ["BGP"], "updatePeriodSeconds": 10 });
    json!({ "kind": "CalicoNodeStatus", "metadata": { "name": name }, "spec": spec })
}

fn says(time: u32, established: u32) -> Value {
    let time = format!("2026-01-01T00:00:{time:02}Z");
    json!({ "lastUpdated": time, "bgp": { "numberEstablishedV4": established } })
}

#[tokio::test]
async fn the_status_is_written_in_both_groups_and_is_no_news_to_the_reader() {
    for (group, name) in [(Group::Crd, "crd.projectcalico.org"), (Group::V3, "projectcalico.org")] {
        let server = ApiServer::start_with(Behaviour { groups: vec![name], ..Behaviour::default() }).unwrap();
        server.put([object(group, &asking("mine", "node-1")), object(group, &asking("theirs", "node-2"))]);
        let mut heard = Heard::start(&server, &[]);
        heard.told(1).await;
        assert!(heard.resources.contains_key("CalicoNodeStatus mine") && !heard.resources.contains_key("CalicoNodeStatus theirs"));
        let status = || server.get(&collection(group, "CalicoNodeStatus"), "mine").unwrap()["status"].clone();
        let patches = || server.asked().iter().filter(|asked| asked.verb == "patch").count();
        let mut writer = writer(&server);
        assert_eq!(writer.write("mine", &says(1, 3)).await.unwrap(), Updated::Written);
        assert_eq!(status(), says(1, 3));
        let before = patches();
        assert_eq!(writer.write("mine", &says(2, 3)).await.unwrap(), Updated::Unchanged, "but for the time");
        assert_eq!((status(), patches()), (says(1, 3), before));
        // A class that is asked for no more goes.
        let agent = json!({ "lastUpdated": "2026-01-01T00:00:03Z", "agent": { "birdV4": { "state": "Ready" } } });
        assert_eq!(writer.write("mine", &agent).await.unwrap(), Updated::Written);
        assert_eq!(status(), agent);
        assert_eq!(writer.write("nobody's", &agent).await.unwrap(), Updated::Missing);
        // Behind a change that is news, our own writes have been heard: they told nothing.
        server.put([object(group, &asking("another", "node-1"))]);
        heard.until("the change behind", |heard| heard.resources.contains_key("CalicoNodeStatus another")).await;
        assert_eq!((heard.count("upsert"), heard.count("remove")), (2, 0));
    }
}

#[tokio::test]
async fn a_right_that_is_missing_is_named_and_a_server_that_is_away_is_found_again() {
    let forbidden = ["caliconodestatuses/status".to_owned()].into_iter().collect();
    let mut server = ApiServer::start_with(Behaviour { forbidden, ..Behaviour::default() }).unwrap();
    server.put([object(Group::Crd, &asking("mine", "node-1"))]);
    let mut writer = writer(&server);
    let why = format!("{:#}", writer.write("mine", &says(1, 3)).await.unwrap_err());
    let rule = "grant verb patch on resource `caliconodestatuses/status` of API group `crd.projectcalico.org`";
    assert!(why.contains(rule) && why.contains("rbac.yaml"), "{why}");
    server.behave(|behaviour| behaviour.forbidden.clear());
    server.kill();
    assert!(writer.write("mine", &says(2, 3)).await.is_err());
    server.restart().unwrap();
    assert_eq!(writer.write("mine", &says(3, 3)).await.unwrap(), Updated::Written);
    let status = server.get(&collection(Group::Crd, "CalicoNodeStatus"), "mine").unwrap()["status"].clone();
    assert_eq!(status, says(3, 3));
}
