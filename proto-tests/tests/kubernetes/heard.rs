//! A running datastore, and what it has told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use margay::calico::{Compiler, Environment, Input, Output, Problem};
use margay::config::NodeConfig;
use margay::datastore::{self, Kind, Settings, Variables, Word, link};
use margay::types::{Outbox, Sync};
use proto_tests::kube::ApiServer;
use proto_tests::kube::objects::{Group, object};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Whatever is waited for must have come by then.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// What a datastore has told, and how often it said what.
pub struct Heard {
    words: mpsc::Receiver<Word>,
    /// Asks for everything anew.
    pub again: mpsc::Sender<()>,
    /// The resources now, by key; their whole objects.
    pub resources: BTreeMap<String, Value>,
    /// What is wrong now.
    pub problems: Vec<Problem>,
    /// Why the source is away, if it is.
    pub away: Option<String>,
    /// Words by kind: `begin`, `end`, `upsert`, `remove`, `away`, `here`.
    pub counts: BTreeMap<&'static str, usize>,
    compiler: Compiler,
    config: Option<Arc<NodeConfig>>,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

/// The environment that leads to this server.
pub fn variables(server: &ApiServer, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    [("K8S_API_ENDPOINT".to_owned(), server.url())].into_iter().chain(more.iter().map(own)).collect()
}

impl Heard {
    /// A datastore of node `node-1` that reads from this server.
    pub fn start(server: &ApiServer, more: &[(&str, &str)]) -> Self {
        Self::with(variables(server, more))
    }

    /// A datastore of node `node-1` with this environment.
    pub fn with(variables: Vec<(String, String)>) -> Self {
        let variables: Variables = variables.into_iter().collect();
        let environment = Environment::from_variables(|name| variables.exactly(name).map(str::to_owned));
        let settings = Settings::new(Kind::Kubernetes, Vec::new(), "node-1".to_owned(), variables);
        let source = datastore::open(&settings).unwrap();
        let (link, words, again) = link(64);
        let task = tokio::spawn(source.run(link));
        let compiler = Compiler::new("node-1".to_owned(), environment);
        let (resources, counts) = (BTreeMap::new(), BTreeMap::new());
        Self { words, again, resources, problems: Vec::new(), away: None, counts, compiler, config: None, task }
    }

    /// How often a word was said.
    pub fn count(&self, word: &str) -> usize {
        self.counts.get(word).copied().unwrap_or_default()
    }

    /// Whether a problem has this in it.
    pub fn has_problem(&self, part: &str) -> bool {
        self.problems.iter().any(|problem| problem.to_string().contains(part))
    }

    /// Hears on until it is so.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&Self) -> bool) {
        self.until_none(what, |heard| if wanted(heard) { Vec::new() } else { vec!["not so"] }).await;
    }

    /// Hears on until nothing is missing; fails with what is missing then.
    pub async fn until_none<T: std::fmt::Debug>(&mut self, what: &str, missing: impl Fn(&Self) -> Vec<T>) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let missing = missing(self);
            if missing.is_empty() {
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(word) = timeout(left, self.words.recv()).await else {
                panic!(
                    "{what}: {missing:?}; away {:?}, counts {:?}, problems {:#?}, keys {:?}",
                    self.away,
                    self.counts,
                    self.problems,
                    self.resources.keys().take(50).collect::<Vec<_>>()
                );
            };
            self.hear(word.expect("the datastore has ended"));
        }
    }

    /// Hears on until the whole table was told so often.
    pub async fn told(&mut self, times: usize) {
        self.until("the whole table is told", |heard| heard.count("end") >= times).await;
    }

    fn hear(&mut self, word: Word) {
        let name = match &word {
            Word::Away(_) => "away",
            Word::Here => "here",
            Word::HoldsBack(_) => "holds-back",
            Word::Input(Input::SourceProblems(_)) => "problems",
            Word::Input(Input::Resource(Sync::Begin)) => "begin",
            Word::Input(Input::Resource(Sync::Upsert(..))) => "upsert",
            Word::Input(Input::Resource(Sync::Remove(_))) => "remove",
            Word::Input(Input::Resource(Sync::End)) => "end",
        };
        *self.counts.entry(name).or_default() += 1;
        let input = match word {
            Word::Away(why) => return self.away = Some(why),
            Word::Here => return self.away = None,
            Word::HoldsBack(_) => return,
            Word::Input(input) => input,
        };
        match &input {
            Input::SourceProblems(problems) => self.problems.clone_from(problems),
            Input::Resource(Sync::Upsert(key, document)) => drop(self.resources.insert(key.to_string(), (*document.object).clone())),
            Input::Resource(Sync::Remove(key)) => {
                let removed = self.resources.remove(&key.to_string());
                assert!(removed.is_some(), "{key} is removed, and was not there");
            }
            Input::Resource(Sync::Begin | Sync::End) => {}
        }
        let mut outbox = Outbox::new();
        self.compiler.handle(Instant::now(), input, &mut outbox);
        self.take(&mut outbox);
    }

    fn take(&mut self, outbox: &mut Outbox<Output>) {
        if let Some(Output::Compiled { config, .. }) = outbox.drain().last() {
            self.config = config;
        }
    }

    /// What the node does with all that was heard.
    pub fn config(&mut self) -> NodeConfig {
        let mut outbox = Outbox::new();
        self.compiler.on_deadline(Instant::now() + Duration::from_secs(60), &mut outbox);
        self.take(&mut outbox);
        (**self.config.as_ref().expect("a configuration")).clone()
    }

    /// How the datastore ended, after its listener has gone.
    pub async fn ended(self) -> anyhow::Result<()> {
        drop(self.words);
        timeout(DEADLINE, self.task).await.expect("it goes on").unwrap()
    }
}

/// Documents of a YAML text.
pub fn documents(yaml: &str) -> Vec<Value> {
    let texts = yaml.split("\n---\n").filter(|text| !text.trim().is_empty());
    texts.map(|text| serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))).collect()
}

/// Puts documents into the server, as Calico's tools would.
pub fn apply(server: &ApiServer, group: Group, yaml: &str) {
    server.put(documents(yaml).iter().map(|document| object(group, document)));
}
