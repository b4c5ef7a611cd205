//! From resource files to what a node does.

use std::path::{Path, PathBuf};

use margay::calico::{Environment, Input, Problem, Store, compile};
use margay::config::NodeConfig;
use margay::datastore::load;
use serde_json::{Value, json};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// What a node makes of the file.
fn compiled(path: &Path, node: &str) -> (Option<NodeConfig>, Vec<Problem>) {
    let mut store = Store::default();
    let mut source = Vec::new();
    for input in load(&[path.to_path_buf()]) {
        match input {
            Input::Resource(word) => drop(store.apply(word)),
            Input::SourceProblems(problems) => source = problems,
        }
    }
    let (config, problems) = compile(&store, node, &Environment::default());
    source.extend(problems);
    (config, source)
}

/// The same in text; problems without the folder that the file is in.
fn golden(path: &Path, node: &str) -> Value {
    let (config, problems) = compiled(path, node);
    let folder = format!("{}/", path.parent().unwrap().display());
    let problems: Vec<String> = problems.iter().map(|problem| problem.to_string().replace(&folder, "")).collect();
    json!({ "config": config, "problems": problems })
}

/// Compares with `golden/calico/<name>.json`; `BLESS=1` rewrites it.
fn assert_golden(name: &str, value: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/calico").join(format!("{name}.json"));
    let text = format!("{value:#}\n");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == text, "{} differs; see what BLESS=1 changes in it", path.display());
}

#[test]
fn every_field_of_calico_on_three_nodes() {
    for node in ["host-a", "host-b", "rr-1"] {
        assert_golden(node, &golden(&fixture("calico-resources.yaml"), node));
    }
}
