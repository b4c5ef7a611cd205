//! Objects by collection, and the history of their changes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Which objects a request is about.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// `metadata.name=…`.
    pub name: Option<String>,
    /// `key=value`, `key`, `!key`.
    pub labels: Vec<Requirement>,
}

/// One requirement of a label selector.
#[derive(Clone, Debug)]
pub(super) enum Requirement {
    Equals(String, String),
    Exists(String),
    Absent(String),
}

impl Selection {
    /// Reads the selectors of a query. What this server does not know is an error, so that no test passes by it.
    pub fn read(namespace: Option<&str>, query: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut selection = Self { namespace: namespace.map(str::to_owned), ..Self::default() };
        if let Some(fields) = query.get("fieldSelector") {
            let name = fields.strip_prefix("metadata.name=").ok_or(format!("field selector {fields}"))?;
            selection.name = Some(name.to_owned());
        }
        for term in query.get("labelSelector").into_iter().flat_map(|labels| labels.split(',')) {
            selection.labels.push(match (term.strip_prefix('!'), term.split_once('=')) {
                (Some(key), _) => Requirement::Absent(key.to_owned()),
                (None, Some((key, value))) => Requirement::Equals(key.to_owned(), value.to_owned()),
                (None, None) => Requirement::Exists(term.to_owned()),
            });
        }
        Ok(selection)
    }

    fn has(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        let label = |key: &str| metadata["labels"].get(key).and_then(Value::as_str);
        self.namespace.as_ref().is_none_or(|namespace| metadata["namespace"] == namespace.as_str())
            && self.name.as_ref().is_none_or(|name| metadata["name"] == name.as_str())
            && self.labels.iter().all(|requirement| match requirement {
                Requirement::Equals(key, value) => label(key) == Some(value),
                Requirement::Exists(key) => label(key).is_some(),
                Requirement::Absent(key) => label(key).is_none(),
            })
    }
}

/// A change of one object.
#[derive(Clone, Debug)]
struct Change {
    version: u64,
    collection: String,
    before: Option<Value>,
    after: Option<Value>,
}

/// Everything that the server knows.
#[derive(Debug, Default)]
pub(super) struct Store {
    version: u64,
    objects: BTreeMap<(String, String, String), Value>,
    history: Vec<Change>,
    /// Changes up to here are forgotten.
    compacted: u64,
}

/// Namespace and name of an object.
fn identity(object: &Value) -> (String, String) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

impl Store {
    /// The newest version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Creates or replaces an object.
    pub fn put(&mut self, collection: &str, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let (namespace, name) = identity(&object);
        let before = self.objects.insert((collection.to_owned(), namespace, name), object.clone());
        self.history.push(Change { version: self.version, collection: collection.to_owned(), before, after: Some(object) });
    }

    /// An object of the cluster.
    pub fn get(&self, collection: &str, name: &str) -> Option<&Value> {
        self.objects.get(&(collection.to_owned(), String::new(), name.to_owned()))
    }

    /// Deletes an object; one that is not there is none.
    pub fn delete(&mut self, collection: &str, namespace: &str, name: &str) {
        if let Some(before) = self.objects.remove(&(collection.to_owned(), namespace.to_owned(), name.to_owned())) {
            self.version += 1;
            self.history.push(Change { version: self.version, collection: collection.to_owned(), before: Some(before), after: None });
        }
    }

    /// Forgets the history: no watch may go on from before.
    pub fn compact(&mut self) {
        self.compacted = self.version;
        self.history.clear();
    }

    /// Whether a watch may go on from this version.
    pub fn remembers(&self, version: u64) -> bool {
        version >= self.compacted
    }

    /// The objects of a collection, in order of their names.
    pub fn list(&self, collection: &str, selection: &Selection) -> Vec<Value> {
        let start = (collection.to_owned(), String::new(), String::new());
        let objects = self.objects.range(start..).take_while(|((found, _, _), _)| found == collection).map(|(_, object)| object);
        objects.filter(|object| selection.has(object)).cloned().collect()
    }

    /// The objects of a collection as they were at a version, in order of their names; none where it is forgotten.
    pub fn list_at(&self, version: u64, collection: &str, selection: &Selection) -> Option<Vec<Value>> {
        if !self.remembers(version) {
            return None;
        }
        let mut objects: BTreeMap<(String, String), Value> =
            self.list(collection, &Selection::default()).into_iter().map(|object| (identity(&object), object)).collect();
        let later = self.history.iter().rev().take_while(|change| change.version > version);
        for change in later.filter(|change| change.collection == collection) {
            match (&change.before, &change.after) {
                (Some(before), _) => drop(objects.insert(identity(before), before.clone())),
                (None, Some(after)) => drop(objects.remove(&identity(after))),
                (None, None) => {}
            }
        }
        Some(objects.into_values().filter(|object| selection.has(object)).collect())
    }

    /// What a watch from this version has to say, and up to which version that is; none where changes after that version
    /// are forgotten, so that the watch would skip them unnoticed.
    pub fn since(&self, version: u64, collection: &str, selection: &Selection) -> Option<(Vec<Value>, u64)> {
        if !self.remembers(version) {
            return None;
        }
        let start = self.history.partition_point(|change| change.version <= version);
        let changes = self.history[start..].iter().filter(|change| change.collection == collection);
        Some((changes.filter_map(|change| change.event(selection)).collect(), self.version))
    }
}

impl Change {
    /// As the event of a watch with this selection: an object that begins to be selected is added, one that ceases to be is
    /// deleted.
    fn event(&self, selection: &Selection) -> Option<Value> {
        let selected = |object: &Option<Value>| object.clone().filter(|object| selection.has(object));
        let (kind, object) = match (selected(&self.before), selected(&self.after)) {
            (None, None) => return None,
            (None, Some(after)) => ("ADDED", after),
            (Some(_), Some(after)) => ("MODIFIED", after),
            (Some(mut before), None) => {
                before["metadata"]["resourceVersion"] = self.version.to_string().into();
                ("DELETED", before)
            }
        };
        Some(json!({ "type": kind, "object": object }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(store: &mut Store, name: &str, asn: u32) {
        store.put("/nodes", json!({ "metadata": { "name": name }, "asn": asn }));
    }

    fn shown(objects: &[Value]) -> Vec<String> {
        objects.iter().map(|object| format!("{}={}", object["metadata"]["name"].as_str().unwrap(), object["asn"])).collect()
    }

    #[test]
    fn a_list_at_a_version_knows_nothing_of_what_came_later() {
        let mut store = Store::default();
        ["a", "b", "c"].iter().for_each(|name| put(&mut store, name, 1));
        let version = store.version();
        put(&mut store, "b", 2);
        store.delete("/nodes", "", "a");
        put(&mut store, "d", 2);
        put(&mut store, "b", 3);
        let at = |store: &Store, version| store.list_at(version, "/nodes", &Selection::default()).map(|objects| shown(&objects));
        assert_eq!(at(&store, version).unwrap(), ["a=1", "b=1", "c=1"]);
        assert_eq!(at(&store, version + 2).unwrap(), ["b=2", "c=1"]);
        assert_eq!(at(&store, store.version()).unwrap(), shown(&store.list("/nodes", &Selection::default())));
        store.compact();
        assert_eq!(at(&store, version), None, "forgotten");
        assert!(at(&store, store.version()).is_some());
    }

    #[test]
    fn a_watch_that_is_behind_what_is_forgotten_cannot_go_on() {
        let mut store = Store::default();
        put(&mut store, "a", 1);
        let version = store.version();
        put(&mut store, "a", 2);
        let since = |store: &Store, version| store.since(version, "/nodes", &Selection::default());
        assert_eq!(since(&store, version).unwrap().0.len(), 1);
        store.compact();
        assert_eq!(since(&store, version), None, "it would miss the change");
        assert_eq!(since(&store, store.version()), Some((Vec::new(), store.version())));
    }
}
