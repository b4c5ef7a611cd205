//! Whole configurations against files; `BLESS=1` rewrites them.

use std::path::Path;
use std::sync::Arc;

use margay::policy::Policy;
use serde_json::{Value, json};

use crate::cluster::{Cluster, fixture, problem_line};

/// Configuration and problems of a node; a policy shows the names of its terms.
fn golden(cluster: &Cluster, node: &str) -> Value {
    let (config, problems) = cluster.compile(node);
    let mut value = serde_json::to_value(&config).unwrap();
    let terms = |policy: &Arc<Policy>| policy.terms.iter().map(|term| Value::from(&*term.name)).collect::<Value>();
    for (name, peer) in config.iter().flat_map(|config| &config.peers) {
        value["peers"][name]["import"] = json!({ "ipv4": terms(&peer.import.ipv4), "ipv6": terms(&peer.import.ipv6) });
        value["peers"][name]["export"] = json!({ "ipv4": terms(&peer.export.ipv4), "ipv6": terms(&peer.export.ipv6) });
    }
    json!({ "config": value, "problems": problems.iter().map(problem_line).collect::<Vec<_>>() })
}

fn assert_golden(name: &str, value: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/calico").join(format!("{name}.json"));
    let text = format!("{value:#}\n");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read(&path).unwrap_or_default();
    assert!(expected == text.as_bytes(), "{} differs; see what BLESS=1 changes in it", path.display());
}

#[test]
fn every_field_of_calico_on_three_nodes() {
    let cluster = Cluster::of_file(&fixture("calico-resources.yaml"));
    for node in ["host-a", "host-b", "rr-1"] {
        assert_golden(node, &golden(&cluster, node));
    }
}
