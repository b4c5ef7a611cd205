//! A panic in one peer's task (V9).

use serde_json::json;

use super::*;
use crate::calico::{self, Document, Environment, ResourceKey};
use crate::rib::Input as RibInput;
use crate::telemetry::Filter;
use crate::types::Sync;

/// Two passive peers, so that nothing connects anywhere.
fn config() -> Arc<NodeConfig> {
    let mut store = calico::Store::default();
    store.apply(Sync::Begin);
    let mut add = |kind: &str, name: &str, spec: serde_json::Value| {
        let key = ResourceKey { kind: kind.to_owned(), namespace: String::new(), name: name.to_owned() };
        let metadata = json!({ "name": name, "annotations": { "margay.io/passive": "true" } });
        let object = json!({ "apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec });
        store.apply(Sync::Upsert(key, Document::new(object, "test")));
    };
    add("BGPConfiguration", "default", json!({ "asNumber": 64512, "nodeToNodeMeshEnabled": false }));
    add("Node", "node1", json!({ "bgp": { "ipv4Address": "10.0.0.1/24" } }));
    add("BGPPeer", "one", json!({ "peerIP": "10.0.0.2", "asNumber": 64601 }));
    add("BGPPeer", "two", json!({ "peerIP": "10.0.0.3", "asNumber": 64602 }));
    store.apply(Sync::End);
    Arc::new(calico::compile(&store, "node1", &Environment::default()).0.unwrap())
}

/// What is on the other end of the supervisor's words.
struct Others {
    shard: mpsc::Receiver<ShardMessage>,
    directory: watch::Receiver<Arc<Directory>>,
    chronicle: Chronicle,
    /// Open ends: whoever sends there must not think that the process ends.
    _open: Vec<Box<dyn std::any::Any>>,
}

fn speaker(config: Arc<NodeConfig>) -> (Speaker, Others) {
    let (shard, heard) = mpsc::channel(64);
    let (fib, fib_heard) = mpsc::channel(64);
    let (origin, origin_heard) = mpsc::channel(64);
    let (recovery, recovery_heard) = mpsc::channel(64);
    let (handover, handover_heard) = mpsc::channel(64);
    let (releases, released) = mpsc::channel(1);
    let (directory, watched) = watch::channel(Arc::new(Directory::default()));
    let (listeners, listened) = watch::channel(Arc::new(ListenTable { addresses: Vec::new(), peers: Vec::new() }));
    let (bfd, bfd_heard) = mpsc::channel(64);
    let (orders, ordered) = mpsc::channel(1);
    let chronicle = Chronicle::start(crate::runtime::metrics::Metrics::default());
    let parts = Parts {
        inboxes: Inboxes { shards: vec![shard], fib, origin, recovery, handover },
        released,
        directory,
        listeners,
        recovered: watch::channel(true).0,
        chronicle: chronicle.clone(),
        seed: 1,
        past_life: PastLife::default(),
        bfd,
        orders,
        recording: None,
    };
    let open: Vec<Box<dyn std::any::Any>> =
        vec![Box::new((fib_heard, origin_heard, recovery_heard, handover_heard)), Box::new((releases, listened, bfd_heard, ordered))];
    (Speaker::new(parts, config), Others { shard: heard, directory: watched, chronicle, _open: open })
}

#[tokio::test]
async fn v9_a_panic_in_a_peers_task_ends_that_session_and_nothing_else() {
    let (mut speaker, mut others) = speaker(config());
    speaker.start(Arc::default()).await;
    let entries = |others: &Others| others.directory.borrow().peers.clone();
    let before = entries(&others);
    let [one, two] = ["Global_10_0_0_2", "Global_10_0_0_3"].map(|name| before[name].clone());
    one.inbox.send(PeerMessage::Panic(bytes::Bytes::from_static(&[0xff, 1]))).await.unwrap();
    let call = speaker.next().await;
    assert!(matches!(&call, Call::Panicked(name) if name == "Global_10_0_0_2"), "{call:?}");
    speaker.take(call).await;

    let after = entries(&others);
    assert_ne!(after["Global_10_0_0_2"].id, one.id, "a new task with a new number: nothing that was meant for the old one reaches it");
    assert_eq!(after["Global_10_0_0_3"].id, two.id, "the other peer does not notice");
    for entry in after.values() {
        let (reply, status) = oneshot::channel();
        entry.inbox.send(PeerMessage::Status(reply)).await.unwrap();
        assert!(status.await.unwrap().held.is_none(), "both run");
    }
    let downs: Vec<PeerId> = std::iter::from_fn(|| others.shard.try_recv().ok())
        .filter_map(|message| match message {
            ShardMessage::Input(RibInput::PeerDown { peer, keep, .. }) if keep.is_empty() => Some(peer),
            _ => None,
        })
        .collect();
    assert_eq!(downs, [one.id], "what it had told is forgotten");
    let told = others.chronicle.ask(Filter::default()).await;
    let panics = told.iter().filter(|entry| matches!(&entry.event, Event::Panic { peer } if peer == "Global_10_0_0_2"));
    assert_eq!(panics.count(), 1);
    let evidence = told.iter().filter(|entry| matches!(&entry.event, Event::Fault { message, .. } if message == "ff01"));
    assert_eq!(evidence.count(), 1, "what it had just read is there");
}
