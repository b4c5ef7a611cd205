//! The Compiler machine: hears the datastore, says what to do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::compile::Compilation;
use super::service::ServiceRules;
use super::{Document, Environment, Input, LocalWorkload, Output, Problem, ResourceKey, Store, Work};
use crate::config::NodeConfig;
use crate::types::{Outbox, Sync};

/// Live changes within this time are compiled together; a table that is told as a whole is compiled at its end.
const COALESCE: Duration = Duration::from_millis(20);

/// Keeps the resources and compiles them after each change, once they are all there.
#[derive(Clone, Debug)]
pub struct Compiler {
    node: String,
    environment: Environment,
    store: Store,
    compilation: Compilation,
    work: Work,
    source_problems: Vec<Problem>,
    last: Option<Arc<NodeConfig>>,
    due: Option<Instant>,
}

impl Compiler {
    /// A compiler for the node of this name.
    pub fn new(node: String, environment: Environment) -> Self {
        Self {
            node,
            environment,
            store: Store::default(),
            compilation: Compilation::default(),
            work: Work::default(),
            source_problems: Vec::new(),
            last: None,
            due: None,
        }
    }

    /// The resources as they are known now.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The rules that Services were judged by last; none before the first configuration.
    pub(super) fn service_rules(&self) -> Option<&ServiceRules> {
        self.compilation.service_rules()
    }

    /// What the last compile cost.
    pub fn work(&self) -> Work {
        self.work
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Instant, input: Input, out: &mut Outbox<Output>) {
        let was_in_sync = self.store.in_sync();
        let changed = match input {
            Input::Resource(word) => self.store.apply(word),
            Input::SourceProblems(problems) => {
                let changed = problems != self.source_problems;
                self.source_problems = problems;
                if changed && self.last.is_none() && !self.store.in_sync() {
                    // Nothing can be compiled yet; why not, can be said.
                    out.push(Output::Compiled { config: None, problems: self.source_problems.clone().into() });
                }
                changed
            }
        };
        if changed && self.due.is_none() {
            self.due = Some(now + COALESCE);
        }
        if !was_in_sync && self.store.in_sync() && self.due.is_some() {
            self.compile(out);
        }
    }

    /// Takes the local workloads that BGPPeers select, all of them.
    pub fn set_workloads(&mut self, now: Instant, workloads: Vec<LocalWorkload>) {
        if self.store.set_workloads(workloads) && self.due.is_none() {
            self.due = Some(now + COALESCE);
        }
    }

    /// When [`Self::on_deadline`] wants to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.due.filter(|_| self.store.in_sync())
    }

    /// Compiles what has changed by now.
    pub fn on_deadline(&mut self, now: Instant, out: &mut Outbox<Output>) {
        if self.deadline().is_some_and(|due| due <= now) {
            self.compile(out);
        }
    }

    /// What a proposal would come to if it were put before this compiler (a copy of the one in charge): the configuration, and
    /// all problems. With `whole` the documents replace all that is known, else they are added to it. The store must be in sync.
    pub fn propose(
        mut self,
        now: Instant,
        documents: impl IntoIterator<Item = (ResourceKey, Document)>,
        problems: Vec<Problem>,
        whole: bool,
    ) -> (Option<Arc<NodeConfig>>, Vec<Problem>) {
        let mut out = Outbox::new();
        let frame = |word| whole.then_some(Input::Resource(word));
        let words = documents.into_iter().map(|(key, document)| Input::Resource(Sync::Upsert(key, document)));
        for input in frame(Sync::Begin).into_iter().chain(words).chain(frame(Sync::End)) {
            self.handle(now, input, &mut out);
        }
        self.source_problems = problems;
        self.compile(&mut out);
        match out.drain().last() {
            Some(Output::Compiled { config, problems }) => (config, problems.to_vec()),
            None => (None, Vec::new()),
        }
    }

    fn compile(&mut self, out: &mut Outbox<Output>) {
        self.due = None;
        let changes = self.store.take_changes();
        let (config, mut problems, work) = self.compilation.update(&self.store, &self.node, &self.environment, changes);
        self.work = work;
        problems.splice(0..0, self.source_problems.iter().cloned());
        if let Some(config) = config
            && self.last.as_deref() != Some(&config)
        {
            self.last = Some(Arc::new(config));
        }
        out.push(Output::Compiled { config: self.last.clone(), problems: problems.into() });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::calico::{Document, ResourceKey};
    use crate::types::Sync;

    fn key(kind: &str, name: &str) -> ResourceKey {
        ResourceKey { kind: kind.to_owned(), namespace: String::new(), name: name.to_owned() }
    }

    fn upsert(kind: &str, name: &str, spec: Value) -> Input {
        Input::Resource(Sync::Upsert(key(kind, name), Document::new(json!({ "spec": spec }), "store")))
    }

    fn node(name: &str, address: &str) -> Input {
        upsert("Node", name, json!({ "bgp": { "ipv4Address": address } }))
    }

    /// A compiler with a clock, and what it said last.
    struct World {
        compiler: Compiler,
        now: Instant,
    }

    impl World {
        fn new() -> Self {
            #[expect(clippy::disallowed_methods, reason = "tests need some instant to start from")]
            let now = Instant::now();
            Self { compiler: Compiler::new("a".to_owned(), Environment::default()), now }
        }

        /// Hands over inputs; the last configuration and problems said, if any.
        fn hear(&mut self, inputs: impl IntoIterator<Item = Input>) -> Option<(Option<Arc<NodeConfig>>, Vec<String>)> {
            let mut out = Outbox::new();
            for input in inputs {
                self.compiler.handle(self.now, input, &mut out);
            }
            Self::said(&mut out)
        }

        /// Lets time pass until the next deadline.
        fn wait(&mut self) -> Option<(Option<Arc<NodeConfig>>, Vec<String>)> {
            let mut out = Outbox::new();
            self.now = self.compiler.deadline()?;
            self.compiler.on_deadline(self.now, &mut out);
            Self::said(&mut out)
        }

        fn said(out: &mut Outbox<Output>) -> Option<(Option<Arc<NodeConfig>>, Vec<String>)> {
            let said = out.drain().last();
            said.map(|Output::Compiled { config, problems }| (config, problems.iter().map(ToString::to_string).collect()))
        }

        fn started() -> Self {
            let mut world = Self::new();
            let told = [Input::Resource(Sync::Begin), node("a", "10.0.0.1/24"), node("b", "10.0.0.2/24"), Input::Resource(Sync::End)];
            assert!(world.hear(told).unwrap().0.is_some());
            world
        }
    }

    #[test]
    fn nothing_is_said_before_the_store_is_in_sync() {
        let mut world = World::new();
        assert!(world.hear([Input::Resource(Sync::Begin), node("a", "10.0.0.1/24")]).is_none());
        assert!(world.hear([Input::SourceProblems(Vec::new())]).is_none());
        assert_eq!(world.compiler.deadline(), None);
        let (config, problems) = world.hear([Input::Resource(Sync::End)]).unwrap();
        assert_eq!((config.unwrap().node.as_str(), problems.len()), ("a", 0));
    }

    #[test]
    fn an_empty_store_is_said_too() {
        let mut world = World::new();
        let (config, problems) = world.hear([Input::Resource(Sync::Begin), Input::Resource(Sync::End)]).unwrap();
        assert!(config.is_none() && problems[0].contains("there is no Node named `a`"), "{problems:?}");
    }

    #[test]
    fn live_changes_are_compiled_together() {
        let mut world = World::started();
        assert!(world.hear([node("c", "10.0.0.3/24"), node("d", "10.0.0.4/24")]).is_none());
        assert_eq!(world.wait().unwrap().0.unwrap().peers.len(), 3);
        assert_eq!(world.compiler.deadline(), None);
        assert!(world.hear([node("c", "10.0.0.3/24")]).is_none());
        assert_eq!(world.compiler.deadline(), None, "nothing changed");
    }

    #[test]
    fn a_source_that_has_told_nothing_yet_can_say_why() {
        let mut world = World::new();
        let (config, problems) =
            world.hear([Input::SourceProblems(vec![Problem::general(crate::calico::Severity::Error, "away", "")])]).unwrap();
        assert!(config.is_none());
        assert_eq!(problems, ["error: away"]);
        assert!(world.hear([Input::Resource(Sync::Begin), node("a", "10.0.0.1/24")]).is_none());
    }

    #[test]
    fn the_last_configuration_stays_when_our_node_vanishes() {
        let mut world = World::started();
        world.hear([Input::Resource(Sync::Remove(key("Node", "a")))]);
        let (config, problems) = world.wait().unwrap();
        assert_eq!((config.unwrap().peers.len(), problems.len()), (1, 1));
    }

    #[test]
    fn a_refused_resource_keeps_its_last_good_form() {
        let mut world = World::started();
        world.hear([upsert("BGPPeer", "p", json!({ "peerIP": "192.0.2.1", "asNumber": 65001 }))]);
        assert!(world.wait().unwrap().0.unwrap().peers.contains_key("Global_192_0_2_1"));
        world.hear([upsert("BGPPeer", "p", json!({ "peerIP": "nonsense", "asNumber": 65001 }))]);
        let (config, problems) = world.wait().unwrap();
        assert!(config.unwrap().peers.contains_key("Global_192_0_2_1"));
        assert!(problems[0].ends_with("the last good one stays in force"), "{problems:?}");
        // A relist does not forget it; deleting does.
        let relist = [
            Input::Resource(Sync::Begin),
            node("a", "10.0.0.1/24"),
            upsert("BGPPeer", "p", json!({ "peerIP": "worse" })),
            Input::Resource(Sync::End),
        ];
        assert!(world.hear(relist).unwrap().0.unwrap().peers.contains_key("Global_192_0_2_1"));
        world.hear([Input::Resource(Sync::Remove(key("BGPPeer", "p")))]);
        assert!(world.wait().unwrap().0.unwrap().peers.is_empty());
    }

    #[test]
    fn a_bad_cluster_configuration_does_not_bring_the_defaults_back() {
        let mut world = World::started();
        world.hear([upsert("BGPConfiguration", "default", json!({ "nodeToNodeMeshEnabled": false, "asNumber": 65000 }))]);
        assert!(world.wait().unwrap().0.unwrap().peers.is_empty());
        world.hear([upsert("BGPConfiguration", "default", json!({ "nodeToNodeMeshEnabled": false, "asNumber": "x" }))]);
        assert_eq!(world.wait().unwrap().0.unwrap().asn.0, 65000);
    }

    #[test]
    fn what_stays_the_same_is_the_same_in_memory() {
        let mut world = World::started();
        let before = world.compiler.last.clone().unwrap();
        world.hear([Input::SourceProblems(vec![Problem::general(crate::calico::Severity::Info, "x", "")])]);
        let (after, problems) = world.wait().unwrap();
        assert!(Arc::ptr_eq(&before, &after.unwrap()));
        assert_eq!(problems.len(), 1);
        world.hear([node("c", "10.0.0.3/24")]);
        let after = world.wait().unwrap().0.unwrap();
        assert!(!Arc::ptr_eq(&before, &after));
        let policy = |config: &NodeConfig, peer: &str| config.peers[peer].export.ipv4.clone();
        assert!(Arc::ptr_eq(&policy(&before, "Mesh_10_0_0_2"), &policy(&after, "Mesh_10_0_0_3")));
    }

    #[test]
    fn a_relist_is_compiled_once_at_its_end() {
        let mut world = World::started();
        assert!(world.hear([Input::Resource(Sync::Begin), node("a", "10.0.0.1/24"), node("c", "10.0.0.3/24")]).is_none());
        assert_eq!(world.compiler.deadline(), None);
        let config = world.hear([Input::Resource(Sync::End)]).unwrap().0.unwrap();
        assert_eq!(config.peers.keys().collect::<Vec<_>>(), ["Mesh_10_0_0_3"]);
    }
}
