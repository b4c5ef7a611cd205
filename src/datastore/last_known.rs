//! Resources in `--state DIR`: what a remote datastore told last in `last-known.json`; where changes of files are on trial, what
//! was confirmed last in `confirmed.json`. Each is a `List` of documents as `calicoctl` and `kubectl` print them, so that
//! `margay check` and `margay render` read it too.
//!
//! A file is replaced in one step and its mode is 0600, for it holds everything that the datastore told us, the password
//! Secrets among it: without them the sessions that need one could not come up while the datastore is away. (BIRD's
//! configuration file holds the same passwords.) Nothing else is kept in the folder.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{BufWriter, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Kind;
use super::document::key;
use super::intake::LastKnown;
use super::second_look::Table;
use super::trial::Saved;
use crate::calico::{Document, ResourceKey};

/// What a remote datastore told last.
const LAST_KNOWN: &str = "last-known.json";

/// What was confirmed last.
const CONFIRMED: &str = "confirmed.json";

/// Whose resources they are: those of another node or datastore are not taken.
const NODE: &str = "margay.io/node";
const DATASTORE: &str = "margay.io/datastore";
const SAVED: &str = "margay.io/saved";
/// How the trial of a change was, as JSON.
const TRIAL: &str = "margay.io/trial";

/// The file, and what must be true of what it holds.
#[derive(Clone, Debug)]
pub struct StateFile {
    folder: PathBuf,
    name: &'static str,
    node: String,
    datastore: Kind,
}

#[derive(Serialize, Deserialize)]
struct List {
    kind: String,
    #[serde(rename = "apiVersion")]
    api_version: String,
    metadata: Metadata,
    items: Vec<Value>,
}

#[derive(Serialize, Deserialize)]
struct Metadata {
    annotations: Map<String, Value>,
}

impl StateFile {
    /// The file of this node and datastore in a folder that need not exist yet.
    pub fn new(folder: PathBuf, node: String, datastore: Kind) -> Self {
        Self { folder, name: LAST_KNOWN, node, datastore }
    }

    /// The same, of what was confirmed last.
    pub fn confirmed(folder: PathBuf, node: String) -> Self {
        Self { folder, name: CONFIRMED, node, datastore: Kind::File }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self) -> PathBuf {
        self.folder.join(self.name)
    }

    /// What an earlier run has saved; none if there was none.
    ///
    /// # Errors
    /// There is something that cannot be used, and why.
    pub fn load(&self) -> anyhow::Result<Option<LastKnown>> {
        Ok(self.read()?.map(|(known, _)| known))
    }

    /// What an earlier run has left of trials of changes; none if there was nothing.
    ///
    /// # Errors
    /// There is something that cannot be used, and why.
    pub fn load_trial(&self) -> anyhow::Result<Option<Saved>> {
        let Some((known, trial)) = self.read()? else { return Ok(None) };
        let standing = serde_json::from_str(&trial).with_context(|| format!("{} cannot be used: {TRIAL}", self.path().display()))?;
        Ok(Some(Saved { confirmed: known.resources, standing }))
    }

    /// Replaces what is left of trials of changes, or removes it.
    ///
    /// # Errors
    /// The file system's, with the path.
    pub fn save_trial(&self, saved: Option<&Saved>, now: Timestamp) -> anyhow::Result<()> {
        let path = self.path();
        let done = match saved {
            Some(saved) => self.write(&path, &saved.confirmed, now, Some(json!(saved.standing).to_string())),
            None => match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
                _ => Ok(()),
            },
        };
        done.with_context(|| format!("what was confirmed last cannot be kept in {}", path.display()))
    }

    fn read(&self) -> anyhow::Result<Option<(LastKnown, String)>> {
        let path = self.path();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(anyhow!("{} cannot be read: {error}", path.display())),
        };
        self.parse(&path, &bytes).with_context(|| format!("{} cannot be used", path.display())).map(Some)
    }

    fn parse(&self, path: &Path, bytes: &[u8]) -> anyhow::Result<(LastKnown, String)> {
        let list: List = serde_json::from_slice(bytes)?;
        let says = |name: &str| list.metadata.annotations.get(name).and_then(Value::as_str).unwrap_or_default();
        ensure!(says(NODE) == self.node, "it is node `{}`'s, and this is `{}`", says(NODE), self.node);
        let datastore = json!(self.datastore);
        ensure!(datastore == says(DATASTORE), "it comes from the datastore `{}`, and this one is {datastore}", says(DATASTORE));
        let saved: Timestamp = says(SAVED).parse().context("when it was saved")?;
        let place = path.display().to_string();
        let entry = |object: Value| -> anyhow::Result<(ResourceKey, Document)> {
            Ok((key(&object).map_err(|what| anyhow!(what))?, Document::new(object, place.clone())))
        };
        let trial = says(TRIAL).to_owned();
        Ok((LastKnown { resources: list.items.into_iter().map(entry).collect::<anyhow::Result<Table>>()?, saved }, trial))
    }

    /// Replaces what is saved, in one step: a power cut leaves the old or the new.
    ///
    /// # Errors
    /// The file system's, with the path.
    pub fn save(&self, resources: &Table, now: Timestamp) -> anyhow::Result<()> {
        let path = self.path();
        self.write(&path, resources, now, None).with_context(|| format!("the last known resources cannot be saved as {}", path.display()))
    }

    fn write(&self, path: &Path, resources: &Table, now: Timestamp, trial: Option<String>) -> anyhow::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let fresh = path.with_extension("fresh");
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        // A file that was left behind keeps the mode it had.
        file.set_permissions(Permissions::from_mode(0o600))?;
        let mut writer = BufWriter::new(&file);
        serde_json::to_writer(&mut writer, &self.list(resources, now, trial))?;
        writer.flush()?;
        drop(writer);
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        Ok(File::open(&self.folder)?.sync_all()?)
    }

    fn list(&self, resources: &Table, now: Timestamp, trial: Option<String>) -> List {
        let annotations = [
            (NODE.to_owned(), json!(self.node)),
            (DATASTORE.to_owned(), json!(self.datastore)),
            (SAVED.to_owned(), json!(format!("{now:.0}"))),
        ];
        let trial = trial.map(|trial| (TRIAL.to_owned(), json!(trial)));
        List {
            kind: "List".to_owned(),
            api_version: "v1".to_owned(),
            metadata: Metadata { annotations: annotations.into_iter().chain(trial).collect() },
            items: resources.iter().filter_map(|(key, document)| item(key, document)).collect(),
        }
    }
}

/// A document with its kind and name, which items of a listing may lack. A value that could not be read is left out.
fn item(key: &ResourceKey, document: &Document) -> Option<Value> {
    let mut object = document.object.as_object()?.clone();
    object.entry("kind").or_insert_with(|| json!(key.kind));
    let metadata = object.entry("metadata").or_insert_with(|| json!({})).as_object_mut()?;
    metadata.entry("name").or_insert_with(|| json!(key.name));
    if !key.namespace.is_empty() {
        metadata.entry("namespace").or_insert_with(|| json!(key.namespace));
    }
    Some(Value::Object(object))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datastore::trial::Standing;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("margay-last-known-{name}-{}", std::process::id()));
            drop(fs::remove_dir_all(&path));
            Self(path)
        }

        fn file(&self, node: &str, datastore: Kind) -> StateFile {
            StateFile::new(self.0.join("state"), node.to_owned(), datastore)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn table() -> Table {
        let key =
            |kind: &str, namespace: &str, name: &str| ResourceKey { kind: kind.into(), namespace: namespace.into(), name: name.into() };
        let node = json!({ "kind": "Node", "metadata": { "name": "a" }, "spec": { "bgp": { "asNumber": 64512 } } });
        [
            (key("Node", "", "a"), Document::new(node, "/calico/…/nodes/a")),
            (key("Secret", "kube-system", "bgp"), Document::new(json!({ "data": { "tor": "c2VjcmV0" } }), "secrets")),
            (key("BGPPeer", "", "unreadable"), Document::new(json!("EOF while parsing"), "/calico/…/bgppeers/unreadable")),
        ]
        .into_iter()
        .collect()
    }

    #[test]
    fn what_is_saved_is_loaded_and_only_its_owner_may_read_it() {
        let folder = Folder::new("round-trip");
        let file = folder.file("a", Kind::Etcd);
        assert!(file.load().unwrap().is_none());
        let now: Timestamp = "2026-11-25T22:00:00Z".parse().unwrap();
        file.save(&table(), now).unwrap();
        file.save(&table(), now).unwrap();
        let known = file.load().unwrap().unwrap();
        assert_eq!(known.saved, now);
        assert_eq!(known.resources.keys().map(ToString::to_string).collect::<Vec<_>>(), ["Node a", "Secret kube-system/bgp"]);
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&file.folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&file.folder).unwrap().count(), 1, "nothing else is kept there");
    }

    #[test]
    fn what_was_confirmed_is_loaded_with_how_the_trial_was_and_goes_when_it_is_not_needed() {
        let folder = Folder::new("trial");
        let file = StateFile::confirmed(folder.0.join("state"), "a".to_owned());
        assert_eq!(file.load_trial().unwrap(), None);
        let mut confirmed = table();
        confirmed.retain(|_, document| document.object.is_object());
        let until: Timestamp = "2026-11-25T22:10:00Z".parse().unwrap();
        let standing = Standing::OnTrial { until, seconds: 600, digest: "ab".to_owned() };
        file.save_trial(Some(&Saved { confirmed: confirmed.clone(), standing: standing.clone() }), until).unwrap();
        let loaded = file.load_trial().unwrap().unwrap();
        assert_eq!((loaded.standing, loaded.confirmed.len()), (standing, confirmed.len()));
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        file.save_trial(None, until).unwrap();
        file.save_trial(None, until).unwrap();
        assert_eq!(file.load_trial().unwrap(), None);
    }

    #[test]
    fn another_nodes_another_datastores_or_a_broken_file_is_not_used() {
        let folder = Folder::new("foreign");
        folder.file("a", Kind::Etcd).save(&table(), Timestamp::UNIX_EPOCH).unwrap();
        let refused = |file: StateFile| format!("{:#}", file.load().unwrap_err());
        assert!(refused(folder.file("b", Kind::Etcd)).contains("node `a`"));
        assert!(refused(folder.file("a", Kind::Kubernetes)).contains("datastore `etcd`"));
        fs::write(folder.file("a", Kind::Etcd).path(), "{\"kind\": \"Li").unwrap();
        assert!(refused(folder.file("a", Kind::Etcd)).contains("last-known.json"));
    }
}
