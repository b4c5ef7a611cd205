//! Laws of compiling: the order of resources does not matter, and nothing makes it panic.

use margay::calico::selector::Selector;
use margay::calico::{Document, Environment, Input, ResourceKey, Store, check, compile};
use margay::datastore::load;
use margay::types::Sync;
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
