//! A datastore under test and what it has told.

use std::collections::BTreeMap;
use std::time::Duration;

use margay::calico::{Document, Input, ResourceKey};
use margay::datastore::etcd::{EtcdDatastore, EtcdSettings};
use margay::datastore::{Datastore, Variables, Word, link};
use margay::types::Sync;
use proto_tests::lab::etcd::Etcd;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

pub const DEADLINE: Duration = Duration::from_secs(60);
pub const RESOURCES: &str = "/calico/resources/v3/projectcalico.org";

/// Whether the test can run; says so if not.
pub fn possible(test: &str) -> bool {
    let installed = proto_tests::lab::etcd::installed();
    assert!(installed || std::env::var_os("CI").is_none(), "{test} needs the packages etcd-server and etcd-client");
    if !installed {
        proto_tests::lab::skip::skipped(test, "it needs the packages etcd-server and etcd-client");
    }
    installed
}

/// A story with one etcd. etcd is started by this thread and ends with it.
pub fn with_etcd(test: &str, story: impl AsyncFnOnce(&mut Etcd)) {
    if possible(test) {
        let folder = TempDir::new().unwrap();
        let mut etcd = Etcd::start(&folder.path().join("etcd")).unwrap();
        on_a_runtime(story(&mut etcd));
    }
}

pub fn on_a_runtime(story: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(story);
}

pub fn settings(variables: &[(&str, &str)]) -> EtcdSettings {
    let variables: Variables = variables.iter().copied().collect();
    EtcdSettings::from_variables(&variables).unwrap()
}

pub fn node(number: usize, version: usize) -> (String, String) {
    let value = format!(
        r#"{{"kind":"Node","apiVersion":"projectcalico.org/v3","metadata":{{"name":"n{number}"}},"spec":{{"bgp":{{"asNumber":{version}}}}}}}"#
    );
    (format!("{RESOURCES}/nodes/n{number}"), value)
}

/// See the module.
pub struct World {
    words: mpsc::Receiver<Word>,
    pub again: mpsc::Sender<()>,
    pub table: BTreeMap<ResourceKey, Document>,
    under_way: Option<BTreeMap<ResourceKey, Document>>,
    /// Whole tables told.
    pub listings: usize,
    /// Live changes told.
    pub changes: usize,
    /// Live changes that said what was known already.
    pub repeated: usize,
    /// Why the datastore is away.
    pub away: Option<String>,
}

impl World {
    pub fn new(settings: EtcdSettings, node: &str) -> Self {
        let (link, words, again) = link(64);
        let datastore = Box::new(EtcdDatastore::new(settings, node));
        tokio::spawn(async move { datastore.run(link).await.unwrap() });
        Self { words, again, table: BTreeMap::new(), under_way: None, listings: 0, changes: 0, repeated: 0, away: None }
    }

    pub async fn of(etcd: &Etcd) -> Self {
        let mut world = Self::new(settings(&[("ETCD_ENDPOINTS", &etcd.url())]), "host-a");
        world.until("the first listing", |world| world.listings == 1).await;
        world
    }

    /// Hears words until it is as wanted.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !wanted(self) {
                let word = self.words.recv().await.expect("the datastore has ended");
                self.hear(word);
            }
        };
        let in_time = timeout(DEADLINE, waiting).await.is_ok();
        assert!(
            in_time,
            "{what}: {} resources, {} listings, {} changes, away: {:?}",
            self.table.len(),
            self.listings,
            self.changes,
            self.away
        );
    }

    /// The AS number of a Node as far as it has been told.
    pub fn version(&self, number: usize) -> Option<u64> {
        let key = ResourceKey { kind: "Node".into(), namespace: String::new(), name: format!("n{number}") };
        self.table.get(&key)?.object["spec"]["bgp"]["asNumber"].as_u64()
    }

    fn hear(&mut self, word: Word) {
        match word {
            Word::Away(why) => self.away = Some(why),
            Word::Here => self.away = None,
            Word::HoldsBack(_) => unreachable!("etcd tells whole tables"),
            Word::Input(Input::SourceProblems(problems)) => assert!(problems.is_empty(), "{problems:?}"),
            Word::Input(Input::Resource(Sync::Begin)) => self.under_way = Some(BTreeMap::new()),
            Word::Input(Input::Resource(Sync::End)) => {
                self.table = self.under_way.take().expect("Begin before End");
                self.listings += 1;
                self.away = None;
            }
            Word::Input(Input::Resource(Sync::Upsert(key, document))) => match &mut self.under_way {
                Some(table) => assert!(table.insert(key, document).is_none(), "told twice in one listing"),
                None => {
                    self.changes += 1;
                    self.repeated += usize::from(self.table.get(&key) == Some(&document));
                    self.table.insert(key, document);
                }
            },
            Word::Input(Input::Resource(Sync::Remove(key))) => {
                assert!(self.under_way.is_none(), "a removal in a listing");
                self.changes += 1;
                self.repeated += usize::from(self.table.remove(&key).is_none());
            }
        }
    }
}
