//! Watches of a real API server 1.37, recorded: the datastore reads them, and the tests' own server speaks like them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use proto_tests::kube::{ApiServer, Behaviour};
use serde_json::Value;

use super::heard::Heard;

const NODES: &str = include_str!("../../fixtures/kube-watch-nodes.jsonl");
const PEERS: &str = include_str!("../../fixtures/kube-watch-bgppeers.jsonl");
const SERVICES: &str = include_str!("../../fixtures/kube-watch-services.jsonl");
const SLICES: &str = include_str!("../../fixtures/kube-watch-endpointslices.jsonl");

/// Collections and their recordings.
const RECORDINGS: [(&str, &str); 4] = [
    ("/api/v1/nodes", NODES),
    ("/apis/crd.projectcalico.org/v1/bgppeers", PEERS),
    ("/api/v1/services", SERVICES),
    ("/apis/discovery.k8s.io/v1/endpointslices", SLICES),
];

#[tokio::test]
async fn recordings_are_read() {
    let recordings = RECORDINGS.map(|(path, text)| (path.to_owned(), text.to_owned())).into_iter().collect();
    let server = ApiServer::start_with(Behaviour { recordings, ..Behaviour::default() }).unwrap();
    let mut heard = Heard::start(&server, &[("CALICO_ADVERTISE_CLUSTER_IPS", "10.96.0.0/12")]);
    heard.told(1).await;
    let spec = |key: &str, path: &str| heard.resources[key].pointer(path).cloned().unwrap_or_default();
    assert_eq!(spec("Node host-a", "/spec/bgp/ipv4Address"), "192.0.2.1/24");
    assert_eq!(spec("Node host-a", "/spec/bgp/ipv6Address"), "2001:db8::1/64");
    assert_eq!(spec("Node host-a", "/spec/bgp/asNumber"), 64512);
    assert_eq!(spec("Node host-a", "/spec/bgp/routeReflectorClusterID"), Value::Null, "the annotation is empty");
    assert_eq!(spec("Node host-a", "/metadata/labels/rack"), "r1");
    assert_eq!(spec("Node host-b", "/spec/bgp/ipv4Address"), "192.0.2.2/24");
    assert_eq!(spec("Service default/web", "/spec/externalTrafficPolicy"), "Local");
    assert_eq!(spec("EndpointSlice default/web-1", "/endpoints/0/conditions/ready"), true);
    heard.until("the peer of the recording is changed and deleted", |heard| heard.count("remove") == 1).await;
    assert!(!heard.resources.contains_key("BGPPeer tor-v1"));
    assert_eq!(heard.problems, []);
}

/// The lines of a recording without what is the recorded server's own affair: versions, and empty required fields of bookmarks.
fn essence(text: &str) -> Vec<Value> {
    let essential = |line: &str| {
        let mut event: Value = serde_json::from_str(line).unwrap();
        let object = event["object"].as_object_mut().unwrap();
        object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        if event["type"] == "BOOKMARK" {
            event["object"] = serde_json::json!({ "metadata": event["object"]["metadata"] });
        }
        event
    };
    text.lines().map(essential).collect()
}

#[tokio::test]
async fn the_tests_server_speaks_like_the_recorded_one() {
    for (collection, recording) in RECORDINGS {
        let server = ApiServer::start().unwrap();
        let events: Vec<Value> = recording.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let end = events.iter().position(|event| event["type"] == "BOOKMARK").unwrap();
        server.put(events[..end].iter().map(|event| (collection.to_owned(), event["object"].clone())));
        let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
        let mut watch = Raw::get(&server, &format!("{collection}?{query}"));
        let mut lines = watch.lines(end + 1);
        for event in &events[end + 1..] {
            match event["type"].as_str() {
                Some("DELETED") => server.delete(collection, "", event["object"]["metadata"]["name"].as_str().unwrap()),
                _ => server.put([(collection.to_owned(), event["object"].clone())]),
            }
            lines.extend(watch.lines(1));
        }
        assert_eq!(essence(&lines.join("\n")), essence(recording), "{collection}");
    }
}

#[tokio::test]
async fn refusals_have_the_recorded_words() {
    let server = ApiServer::start_with(Behaviour { initial_events: false, ..Behaviour::default() }).unwrap();
    server.put([("/api/v1/nodes".to_owned(), serde_json::json!({ "metadata": { "name": "a" } }))]);
    let first = |path: &str| serde_json::from_str::<Value>(&Raw::get(&server, path).lines(1)[0]).unwrap();
    let old_etcd = first("/api/v1/nodes?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true");
    assert_eq!((&old_etcd["type"], &old_etcd["object"]["code"]), (&"ERROR".into(), &500.into()));
    assert_eq!(
        old_etcd["object"]["message"],
        "a watch stream was requested by the client but the required storage feature RequestWatchProgress is disabled"
    );
    server.put([("/api/v1/nodes".to_owned(), serde_json::json!({ "metadata": { "name": "a" } }))]);
    server.compact();
    let gone = first("/api/v1/nodes?watch=true&resourceVersion=1");
    assert_eq!((&gone["object"]["code"], &gone["object"]["reason"]), (&410.into(), &"Expired".into()));
    assert_eq!(gone["object"]["message"], "too old resource version: 1 (2)");
}

/// A GET by hand, so that nothing of the datastore is trusted; HTTP/1.0 answers come without chunks.
struct Raw(BufReader<TcpStream>);

impl Raw {
    fn get(server: &ApiServer, path: &str) -> Self {
        let mut stream = TcpStream::connect(server.url().trim_start_matches("http://")).unwrap();
        stream.set_read_timeout(Some(super::heard::DEADLINE)).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: test\r\n\r\n").as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let mut byte = [0];
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            reader.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.0 200"), "{}", String::from_utf8_lossy(&head));
        Self(reader)
    }

    fn lines(&mut self, count: usize) -> Vec<String> {
        let mut line = || {
            let mut text = String::new();
            self.0.read_line(&mut text).unwrap();
            text.trim_end().to_owned()
        };
        (0..count).map(|_| line()).collect()
    }
}
