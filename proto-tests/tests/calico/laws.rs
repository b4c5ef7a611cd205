//! Laws of compiling: the order of resources does not matter, and nothing makes it panic.

use margay::calico::selector::Selector;
use std::time::Instant;

use margay::calico::{Compiler, Document, Environment, Input, Output, ResourceKey, Store, check, compile};
use margay::datastore::load;
use margay::types::{Outbox, Sync};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::cluster::fixture;

fn resources() -> Vec<(ResourceKey, Document)> {
    let upsert = |input| match input {
        Input::Resource(Sync::Upsert(key, document)) => Some((key, document)),
        _ => None,
    };
    load(&[fixture("calico-resources.yaml")]).into_iter().filter_map(upsert).collect()
}

fn told(resources: impl IntoIterator<Item = (ResourceKey, Document)>) -> Store {
    let mut store = Store::default();
    store.apply(Sync::Begin);
    for (key, document) in resources {
        store.apply(Sync::Upsert(key, document));
    }
    store.apply(Sync::End);
    store
}

/// Any JSON, with the words of Calico's API among its keys and values.
fn any_value() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "",
        "all()",
        "10.0.0.1",
        "10.0.0.0/8",
        "fe80::1%eth0",
        "[::1]:1",
        "1.10",
        "90s",
        "Always",
        "Keep",
        "default",
        "has(a)",
        "64512:1",
        "a",
        "true",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    let field = prop::sample::select(vec![
        "spec",
        "metadata",
        "name",
        "bgp",
        "peerIP",
        "asNumber",
        "localASNumber",
        "nodeSelector",
        "peerSelector",
        "node",
        "cidr",
        "ipipMode",
        "vxlanMode",
        "filters",
        "password",
        "secretKeyRef",
        "key",
        "reachableBy",
        "ttlSecurity",
        "maxRestartTime",
        "ipv4Address",
        "ipv6Address",
        "labels",
        "annotations",
        "margay.io/hold-time",
        "margay.io/max-prefixes",
        "communities",
        "prefixAdvertisements",
        "serviceClusterIPs",
        "listenPort",
        "data",
        "stringData",
        "state",
        "orchRefs",
        "wireguard",
        "exportV4",
        "action",
        "nextHopMode",
        "bindMode",
        "value",
    ]);
    leaf.prop_recursive(5, 60, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((field.clone(), inner), 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>())),
        ]
    })
}

fn any_kind() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "Node",
        "BGPConfiguration",
        "BGPPeer",
        "BGPFilter",
        "IPPool",
        "BlockAffinity",
        "Secret",
        "Service",
        "Nonsense",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_resources_does_not_matter(order in Just(resources()).prop_shuffle()) {
        let (shuffled, sorted) = (told(order), told(resources()));
        for node in ["host-a", "host-b", "rr-1", "nobody"] {
            prop_assert_eq!(compile(&shuffled, node, &Environment::default()), compile(&sorted, node, &Environment::default()));
        }
    }

    #[test]
    fn told_twice_and_in_pieces_is_told_once(cut in 0usize..12) {
        let all = resources();
        let mut store = told(all[..cut.min(all.len())].to_vec());
        store.apply(Sync::Begin);
        for (key, document) in all.iter().cloned().chain(all.iter().cloned()) {
            store.apply(Sync::Upsert(key, document));
        }
        store.apply(Sync::End);
        prop_assert_eq!(compile(&store, "host-a", &Environment::default()), compile(&told(all), "host-a", &Environment::default()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn compiling_is_total(documents in prop::collection::vec((any_kind(), "(default|node\\.n|n|m)", any_value()), 0..8)) {
        let mut all: Vec<(ResourceKey, Document)> = documents
            .into_iter()
            .map(|(kind, name, value)| {
                let object = if value.get("spec").is_some() { value } else { json!({ "spec": value }) };
                (ResourceKey { kind: kind.to_owned(), namespace: String::new(), name }, Document::new(object, "anything"))
            })
            .collect();
        let own = json!({ "spec": { "bgp": { "ipv4Address": "10.0.0.1/24", "ipv6Address": "fd00::1/64" } } });
        all.push((ResourceKey { kind: "Node".into(), namespace: String::new(), name: "me".into() }, Document::new(own, "own")));
        let store = told(all);
        prop_assert!(compile(&store, "me", &Environment::default()).0.is_some());
        check(&store, &Environment::default());
    }

    #[test]
    fn selectors_are_total(text in "[a-z!&|()='\"{} ,.]{0,60}", any in ".{0,40}") {
        let _ = Selector::parse(&text);
        let _ = Selector::parse(&any);
        let _ = Selector::parse(&format!("has({text}) && !({any})"));
    }
}

/// Small changes of a small cluster in which everything touches everything: two nodes may have one address, BGPPeers select
/// each other's, slices come before their Service.
fn any_change() -> impl Strategy<Value = (ResourceKey, Option<Value>)> {
    let key = |kind: &str, namespace: &str, name: String| ResourceKey { kind: kind.to_owned(), namespace: namespace.to_owned(), name };
    let node = (0..4u8, 1..5u8, prop::option::of(1..3u8), any::<bool>(), prop::sample::select(vec!["x", "y"]), any::<bool>()).prop_map(
        move |(name, address, asn, reflector, rack, excluded)| {
            let bgp = json!({
                "ipv4Address": format!("10.0.0.{address}/24"),
                "ipv6Address": format!("fd00::{name}/64"),
                "asNumber": asn.map(|asn| 64512 + u32::from(asn)),
                "routeReflectorClusterID": reflector.then_some("1.1.1.1"),
            });
            let labels = json!({ "rack": rack, "node.kubernetes.io/exclude-from-external-load-balancers": excluded.to_string() });
            (key("Node", "", format!("n{name}")), json!({ "metadata": { "labels": labels }, "spec": { "bgp": bgp } }))
        },
    );
    let peer = (0..3u8, 0..4u8, 1..6u8, any::<bool>()).prop_map(move |(name, kind, address, missing)| {
        let filters = if missing { json!(["f", "missing"]) } else { json!(["f"]) };
        let spec = match kind {
            0 => json!({ "peerIP": format!("10.0.0.{address}"), "asNumber": 64513, "filters": filters }),
            1 => json!({ "nodeSelector": "rack == 'x'", "peerSelector": "rack == 'y'", "filters": filters }),
            2 => json!({ "node": "n1", "peerIP": format!("10.0.0.{address}:1179"), "asNumber": 64512, "reachableBy": "10.0.0.9" }),
            _ => json!({ "peerSelector": "has(rack)", "password": { "secretKeyRef": { "name": "s", "key": "k" } } }),
        };
        (key("BGPPeer", "", format!("p{name}")), json!({ "spec": spec }))
    });
    let configuration = (prop::sample::select(vec!["default", "node.n0", "node.n1", "node.n2"]), any::<bool>(), 179..181u16).prop_map(
        move |(name, mesh, port)| {
            let lists = json!([{ "cidr": "10.96.0.0/12" }]);
            let spec = json!({ "nodeToNodeMeshEnabled": mesh, "listenPort": port, "serviceClusterIPs": lists });
            (key("BGPConfiguration", "", name.to_owned()), json!({ "spec": spec }))
        },
    );
    let other = (0..3u8, any::<bool>()).prop_map(move |(name, second)| match name {
        0 => {
            let spec = json!({ "exportV4": [{ "action": if second { "Accept" } else { "Reject" } }] });
            (key("BGPFilter", "", "f".to_owned()), json!({ "spec": spec }))
        }
        1 => (key("IPPool", "", "pool".to_owned()), json!({ "spec": { "cidr": "10.1.0.0/16", "disableBGPExport": second } })),
        _ => (key("Secret", "kube-system", "s".to_owned()), json!({ "stringData": { "k": if second { "a" } else { "b" } } })),
    });
    let block = (0..3u8, 0..2u8).prop_map(move |(name, node)| {
        let spec = json!({ "cidr": format!("10.1.0.{}/26", 64 * name), "node": format!("n{node}"), "state": "confirmed" });
        (key("BlockAffinity", "", format!("b{name}")), json!({ "spec": spec }))
    });
    let service = (0..2u8, 1..4u8).prop_map(move |(name, address)| {
        let address = format!("10.96.0.{address}");
        let spec = json!({ "type": "NodePort", "externalTrafficPolicy": "Local", "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"] });
        (key("Service", "ns", format!("s{name}")), json!({ "spec": spec }))
    });
    let slice = (0..3u8, 0..2u8, 0..3u8, any::<bool>()).prop_map(move |(name, service, node, ready)| {
        let endpoints = json!([{ "nodeName": format!("n{node}"), "conditions": { "ready": ready } }]);
        let labels = json!({ "kubernetes.io/service-name": format!("s{service}") });
        (
            key("EndpointSlice", "ns", format!("e{name}")),
            json!({ "metadata": { "labels": labels }, "addressType": "IPv4", "endpoints": endpoints }),
        )
    });
    let resource = prop_oneof![4 => node, 2 => peer, 1 => configuration, 1 => other, 1 => block, 2 => service, 2 => slice];
    (resource, prop::bool::weighted(0.8)).prop_map(|((key, object), there)| (key, there.then_some(object)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_change_gives_what_a_compile_from_nothing_gives(changes in prop::collection::vec(any_change(), 1..40)) {
        let mut compiler = Compiler::new("n0".to_owned(), Environment::default());
        let (mut now, mut out) = (Instant::now(), Outbox::new());
        compiler.handle(now, Input::Resource(Sync::Begin), &mut out);
        compiler.handle(now, Input::Resource(Sync::End), &mut out);
        let mut last = None;
        for (key, object) in changes {
            let word = match object {
                Some(object) => Sync::Upsert(key, Document::new(object, "law")),
                None => Sync::Remove(key),
            };
            compiler.handle(now, Input::Resource(word), &mut out);
            if let Some(due) = compiler.deadline() {
                now = due;
                compiler.on_deadline(due, &mut out);
            }
            let (config, problems) = compile(compiler.store(), "n0", &Environment::default());
            if let Some(Output::Compiled { config: said, problems: named }) = out.drain().last() {
                if config.is_some() {
                    last.clone_from(&config);
                }
                prop_assert_eq!(said.as_deref(), last.as_ref());
                prop_assert_eq!(&*named, &problems[..]);
            }
        }
    }
}
