//! What this node is asked to tell of itself: its CalicoNodeStatus objects, found in what goes to the Compiler.

use std::collections::BTreeMap;

use crate::calico::{Document, Input, NodeStatus, Report, ResourceKey};
use crate::types::Sync;

/// What is asked, by the object's name.
pub type Asked = BTreeMap<String, NodeStatus>;

/// Hears what the Compiler hears.
#[derive(Debug)]
pub(super) struct Listener {
    node: String,
    asked: Asked,
    under_way: Option<Asked>,
}

impl Listener {
    /// Nothing is asked of this node yet.
    pub fn new(node: String) -> Self {
        Self { node, asked: Asked::new(), under_way: None }
    }

    /// What is asked now, if that has changed.
    pub fn hear(&mut self, input: &Input) -> Option<&Asked> {
        let Input::Resource(word) = input else { return None };
        match word {
            Sync::Begin => self.under_way = Some(Asked::new()),
            Sync::End => {
                let table = self.under_way.take()?;
                if table != self.asked {
                    self.asked = table;
                    return Some(&self.asked);
                }
            }
            Sync::Upsert(key, document) if is_one(key) => return self.change(key, self.read(key, document)),
            Sync::Remove(key) if is_one(key) => return self.change(key, None),
            Sync::Upsert(..) | Sync::Remove(_) => {}
        }
        None
    }

    fn change(&mut self, key: &ResourceKey, status: Option<NodeStatus>) -> Option<&Asked> {
        let live = self.under_way.is_none();
        let table = self.under_way.as_mut().unwrap_or(&mut self.asked);
        let changed = table.get(&key.name) != status.as_ref();
        match status {
            Some(status) => drop(table.insert(key.name.clone(), status)),
            None => drop(table.remove(&key.name)),
        }
        (live && changed).then_some(&self.asked)
    }

    /// What cannot be read is the Compiler's to report.
    fn read(&self, key: &ResourceKey, document: &Document) -> Option<NodeStatus> {
        NodeStatus::decode(document, &mut Report::new(key, document)).filter(|status| status.node == self.node)
    }
}

fn is_one(key: &ResourceKey) -> bool {
    key.kind == "CalicoNodeStatus"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(kind: &str, name: &str) -> ResourceKey {
        ResourceKey { kind: kind.to_owned(), namespace: String::new(), name: name.to_owned() }
    }

    fn upsert(name: &str, node: &str, period: u32) -> Input {
        let document = json!({ "spec": { "node": node, "classes": ["BGP"], "updatePeriodSeconds": period } });
        Input::Resource(Sync::Upsert(key("CalicoNodeStatus", name), Document::new(document, "store")))
    }

    fn names(asked: Option<&Asked>) -> Option<Vec<&str>> {
        asked.map(|asked| asked.keys().map(String::as_str).collect())
    }

    #[test]
    fn ours_are_found_and_followed() {
        let mut listener = Listener::new("a".to_owned());
        assert_eq!(listener.hear(&Input::Resource(Sync::Begin)), None);
        assert_eq!(listener.hear(&upsert("mine", "a", 10)), None);
        assert_eq!(listener.hear(&upsert("theirs", "b", 10)), None);
        assert_eq!(names(listener.hear(&Input::Resource(Sync::End))), Some(vec!["mine"]));
        assert_eq!(listener.hear(&upsert("mine", "a", 10)), None, "nothing new");
        assert_eq!(listener.hear(&upsert("mine", "a", 20)).unwrap()["mine"].period, Some(20));
        assert_eq!(names(listener.hear(&upsert("theirs", "a", 1))), Some(vec!["mine", "theirs"]), "it is ours now");
        assert_eq!(names(listener.hear(&upsert("mine", "b", 20))), Some(vec!["theirs"]), "it is ours no more");
        assert_eq!(names(listener.hear(&Input::Resource(Sync::Remove(key("CalicoNodeStatus", "theirs"))))), Some(vec![]));
        assert_eq!(listener.hear(&Input::Resource(Sync::Remove(key("Node", "a")))), None);
    }
}
