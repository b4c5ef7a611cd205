//! The books of the datastore: what every source has told, as one table.
//!
//! The sources list and watch independently; their listener hears one conversation: `Begin`, all resources, `End` once
//! each source has told its table, then changes only. A source that lists anew is compared with what it told before, so
//! that only differences are told. Kept of a resource is its key and a fingerprint.
//!
//! What some resources name is watched because they name it: the Secrets of passwords, and Services and EndpointSlices
//! while BGPConfiguration `default` advertises any.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use super::reflector::{Said, Trouble};
use super::roll::Lack;
use super::source::{Converted, Plan, Source};
use crate::calico::{Document, Input, Location, Problem, ResourceKey, Severity};
use crate::datastore::Word;
use crate::datastore::second_look::{HOLD, LOOK_EVERY};
use crate::types::Sync;

/// What a source's task reports: words of its reflector, objects already converted.
#[derive(Debug)]
pub(super) enum Report {
    Begin,
    There(Converted),
    Gone(Converted),
    End,
    Trouble(Option<Trouble>),
    Unreadable(String),
}

impl Report {
    /// A word of the reflector, with its object converted.
    pub fn new(said: Said, convert: impl Fn(super::object::Object) -> Converted) -> Self {
        match said {
            Said::Begin => Self::Begin,
            Said::Upsert(object) => Self::There(convert(*object)),
            Said::Remove(object) => Self::Gone(convert(*object)),
            Said::End => Self::End,
            Said::Trouble(trouble) => Self::Trouble(trouble),
            Said::Unreadable(what) => Self::Unreadable(what),
        }
    }
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Output {
    Say(Word),
    /// Watch this, too.
    Start(Source),
    /// Watch this no more.
    Stop(Source),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ledger {
    plan: Plan,
    sources: BTreeMap<Source, Standing>,
    known: BTreeMap<ResourceKey, Known>,
    wishes: BTreeMap<ResourceKey, BTreeSet<Source>>,
    noted: BTreeMap<ResourceKey, Vec<Problem>>,
    /// Between `Begin` and `End`.
    telling: bool,
    problems_changed: bool,
    away: Option<String>,
    /// The last listing of some kind is held back.
    holds: bool,
    out: Vec<Output>,
}

/// How a source stands.
#[derive(Debug, Default)]
struct Standing {
    /// It has told its table since the last `Begin` of all.
    told: bool,
    trouble: Option<Trouble>,
    unreadable: Vec<String>,
}

#[derive(Debug)]
struct Known {
    fingerprint: u64,
    /// Who told of it last; of two sources that tell of one resource, only that one's removal counts.
    holder: Source,
    /// Its holder lists anew and has not told of it yet.
    marked: bool,
}

impl Ledger {
    /// Nothing has been told; the sources of the plan are started.
    pub fn new(plan: Plan) -> Self {
        let mut ledger = Self {
            sources: BTreeMap::new(),
            known: BTreeMap::new(),
            wishes: BTreeMap::new(),
            noted: BTreeMap::new(),
            telling: true,
            // Whatever was wrong before there was a connection is so no more.
            problems_changed: true,
            away: None,
            holds: false,
            out: vec![Output::Say(Word::Input(Input::Resource(Sync::Begin)))],
            plan,
        };
        ledger.reconsider();
        ledger
    }

    /// What is to be done since the last time.
    pub fn take(&mut self) -> Vec<Output> {
        if std::mem::take(&mut self.problems_changed) {
            self.out.push(Output::Say(Word::Input(Input::SourceProblems(self.problems()))));
        }
        std::mem::take(&mut self.out)
    }

    /// Whether the server knows a kind of Calico's group no more (or not yet).
    pub fn misses_calico(&self) -> bool {
        self.sources.iter().any(|(source, standing)| source.is_calico() && standing.trouble == Some(Trouble::Missing))
    }

    /// Everything is told anew, once every source has listed anew.
    pub fn tell_again(&mut self) {
        self.known.values_mut().for_each(|known| known.fingerprint = 0);
        self.sources.values_mut().for_each(|standing| standing.told = false);
        self.telling = true;
        self.say(Sync::Begin);
    }

    /// Takes a report.
    pub fn handle(&mut self, source: &Source, report: Report) {
        // A source that was stopped may have left words behind.
        if !self.sources.contains_key(source) {
            return;
        }
        match report {
            Report::Begin => {
                self.known.values_mut().filter(|known| known.holder == *source).for_each(|known| known.marked = true);
                self.unreadable(source, None);
            }
            Report::There(converted) => {
                let key = converted.resources.first().map(|(key, _)| key.clone());
                for (key, document) in converted.resources {
                    match document {
                        Some(document) => self.there(source, key, document),
                        None => self.gone(source, &key),
                    }
                }
                if let Some(key) = key {
                    self.note(key, converted.problems);
                }
            }
            Report::Gone(converted) => converted.resources.iter().for_each(|(key, _)| self.gone(source, key)),
            Report::End => self.end(source),
            Report::Trouble(trouble) => self.trouble(source, trouble),
            Report::Unreadable(what) => self.unreadable(source, Some(what)),
        }
    }

    fn there(&mut self, source: &Source, key: ResourceKey, document: Value) {
        let fingerprint = fingerprint(&document);
        let before = self.known.insert(key.clone(), Known { fingerprint, holder: source.clone(), marked: false });
        if before.is_some_and(|before| before.fingerprint == fingerprint) {
            return;
        }
        self.wish(&key, Some(&document));
        let location = format!("{}/{}", source.path(&self.plan), key.name);
        self.say(Sync::Upsert(key, Document::new(document, location)));
    }

    fn gone(&mut self, source: &Source, key: &ResourceKey) {
        if self.known.get(key).is_some_and(|known| known.holder == *source) {
            self.known.remove(key);
            self.wish(key, None);
            self.note(key.clone(), Vec::new());
            self.say(Sync::Remove(key.clone()));
        }
    }

    fn end(&mut self, source: &Source) {
        let swept = self.known.iter().filter(|(_, known)| known.marked && known.holder == *source);
        let swept: Vec<ResourceKey> = swept.map(|(key, _)| key.clone()).collect();
        swept.iter().for_each(|key| self.gone(source, key));
        if let Some(standing) = self.sources.get_mut(source) {
            standing.told = true;
        }
        self.reconsider();
        self.end_of_all();
    }

    /// A kind that we may not read, or that is not there, does not hold up the others, unless it has told before: then
    /// what it told stays until it can tell again.
    fn end_of_all(&mut self) {
        let settled = |(source, standing): (&Source, &Standing)| {
            let refused = matches!(standing.trouble, Some(Trouble::Forbidden(_) | Trouble::Missing));
            standing.told || (refused && !self.known.values().any(|known| known.holder == *source))
        };
        if self.telling && self.sources.iter().all(settled) {
            self.telling = false;
            self.say(Sync::End);
            self.reconsider();
        }
    }

    fn trouble(&mut self, source: &Source, trouble: Option<Trouble>) {
        let Some(standing) = self.sources.get_mut(source) else { return };
        if standing.trouble == trouble {
            return;
        }
        standing.trouble = trouble;
        self.problems_changed = true;
        self.end_of_all();
        let away = self.sources.values().find_map(|standing| match &standing.trouble {
            Some(Trouble::Away(why)) => Some(why.clone()),
            _ => None,
        });
        if away != self.away {
            self.out.push(Output::Say(away.clone().map_or(Word::Here, Word::Away)));
            self.away = away;
        }
        let holds = self.sources.values().any(|standing| matches!(standing.trouble, Some(Trouble::Shrunk(_))));
        if holds != self.holds {
            self.out.push(Output::Say(Word::HoldsBack(holds)));
            self.holds = holds;
        }
    }

    fn unreadable(&mut self, source: &Source, what: Option<String>) {
        let Some(standing) = self.sources.get_mut(source) else { return };
        match what {
            None if standing.unreadable.is_empty() => return,
            None => standing.unreadable.clear(),
            Some(what) if standing.unreadable.contains(&what) || standing.unreadable.len() >= 20 => return,
            Some(what) => standing.unreadable.push(what),
        }
        self.problems_changed = true;
    }

    fn note(&mut self, key: ResourceKey, problems: Vec<Problem>) {
        let before = self.noted.get(&key).map_or(&[] as &[Problem], Vec::as_slice);
        if before != problems {
            self.problems_changed = true;
            if problems.is_empty() {
                self.noted.remove(&key);
            } else {
                self.noted.insert(key, problems);
            }
        }
    }

    /// Remembers what a resource wants to be watched.
    fn wish(&mut self, key: &ResourceKey, document: Option<&Value>) {
        let wishes = document.map(|document| wishes(key, document)).unwrap_or_default();
        let before = if wishes.is_empty() { self.wishes.remove(key) } else { self.wishes.insert(key.clone(), wishes.clone()) };
        if !self.telling && before.unwrap_or_default() != wishes {
            self.reconsider();
        }
    }

    /// Starts what is wanted and not watched, stops what is watched and not wanted. While a table is being told, what it
    /// has not named yet may still come: nothing is stopped.
    fn reconsider(&mut self) {
        let mut wanted: BTreeSet<Source> = self.plan.sources().into_iter().collect();
        wanted.extend(self.wishes.values().flatten().cloned());
        if self.plan.services {
            wanted.extend([Source::Services, Source::EndpointSlices]);
        }
        let missing: Vec<Source> = wanted.iter().filter(|source| !self.sources.contains_key(source)).cloned().collect();
        for source in missing {
            self.sources.insert(source.clone(), Standing::default());
            self.out.push(Output::Start(source));
        }
        if self.telling {
            return;
        }
        let useless: Vec<Source> = self.sources.keys().filter(|source| !wanted.contains(source)).cloned().collect();
        for source in useless {
            let standing = self.sources.remove(&source).unwrap_or_default();
            self.problems_changed |= standing.trouble.is_some() || !standing.unreadable.is_empty();
            self.out.push(Output::Stop(source.clone()));
            let told: Vec<ResourceKey> =
                self.known.iter().filter(|(_, known)| known.holder == source).map(|(key, _)| key.clone()).collect();
            told.iter().for_each(|key| self.gone(&source, key));
        }
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = Vec::new();
        for (source, standing) in &self.sources {
            problems.extend(standing.trouble.as_ref().map(|trouble| self.problem(source, trouble)));
            problems.extend(standing.unreadable.iter().map(|what| {
                let what = format!("{source}: {what}");
                Problem::general(Severity::Error, what, "the object is left out")
            }));
        }
        // The server is away for all sources at once: once is enough.
        problems.dedup();
        problems.extend(self.noted.values().flatten().cloned());
        problems
    }

    fn problem(&self, source: &Source, trouble: &Trouble) -> Problem {
        let (plural, group) = (source.plural(), source.api_group(&self.plan));
        let place = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
        let (severity, what, instead) = match trouble {
            Trouble::Away(why) => {
                let instead = "what was last heard stays in force; it is tried again without end";
                (Severity::Warning, format!("the Kubernetes API server cannot be read: {why}"), instead.to_owned())
            }
            Trouble::Forbidden(why) => {
                let scope = match source {
                    Source::Secret(name) => format!("in a Role of namespace {} with resourceNames [{name}]", self.plan.namespace),
                    _ => "in a ClusterRole".to_owned(),
                };
                let instead = format!(
                    "grant verbs list and watch on resource `{plural}` of API group `{group}` {scope} to this node's service account \
                     (see packaging/kubernetes/rbac.yaml); the other kinds are read meanwhile"
                );
                (Severity::Error, format!("{place} may not be read: {why}"), instead)
            }
            Trouble::Missing => {
                let instead = "install the CustomResourceDefinition if it is wanted; until then there is nothing of this kind, or what was last heard";
                (Severity::Warning, format!("the API server knows no {place}"), instead.to_owned())
            }
            Trouble::Shrunk(Lack { missing, in_force }) => {
                let instead = format!(
                    "held back: what was there stays in force; it is listed anew every {} s, and if it still says so {} s after the first time \
                     that counts",
                    LOOK_EVERY.as_secs(),
                    HOLD.as_secs()
                );
                let what = format!("the API server no longer lists {missing} of {in_force} {place}, which may be a mistake");
                (Severity::Error, what, instead)
            }
        };
        let location = match trouble {
            Trouble::Away(_) => Location::default(),
            _ => Location { file: source.path(&self.plan), ..Location::default() },
        };
        Problem { location, ..Problem::general(severity, what, instead) }
    }

    fn say(&mut self, word: Sync<ResourceKey, Document>) {
        self.out.push(Output::Say(Word::Input(Input::Resource(word))));
    }
}

/// What a resource wants to be watched.
fn wishes(key: &ResourceKey, document: &Value) -> BTreeSet<Source> {
    let spec = &document["spec"];
    let mut wishes = BTreeSet::new();
    let password = match key.kind.as_str() {
        "BGPPeer" => &spec["password"],
        "BGPConfiguration" => &spec["nodeMeshPassword"],
        _ => return wishes,
    };
    if let Some(name) = password["secretKeyRef"]["name"].as_str().filter(|name| is_name(name)) {
        wishes.insert(Source::Secret(name.to_owned()));
    }
    let lists = ["serviceClusterIPs", "serviceExternalIPs", "serviceLoadBalancerIPs"];
    let advertises = lists.iter().any(|list| spec[list].as_array().is_some_and(|list| !list.is_empty()));
    if key.kind == "BGPConfiguration" && key.name == "default" && advertises {
        wishes.extend([Source::Services, Source::EndpointSlices]);
    }
    wishes
}

/// Whether a Secret can have this name.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 253 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
}

/// Never 0, which stands for "told anew".
fn fingerprint(document: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    document.to_string().hash(&mut hasher);
    hasher.finish().max(1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(kind: &str, name: &str) -> ResourceKey {
        ResourceKey { kind: kind.to_owned(), namespace: String::new(), name: name.to_owned() }
    }

    fn there(kind: &str, name: &str, spec: Value) -> Report {
        Report::There(Converted { resources: vec![(key(kind, name), Some(json!({ "spec": spec })))], problems: Vec::new() })
    }

    fn gone(kind: &str, name: &str) -> Report {
        Report::Gone(Converted { resources: vec![(key(kind, name), None)], problems: Vec::new() })
    }

    struct World(Ledger);

    impl World {
        fn new() -> Self {
            Self(Ledger::new(Plan { node: "a".to_owned(), namespace: "kube-system".to_owned(), ..Plan::default() }))
        }

        /// Every source has told an empty table.
        fn told() -> Self {
            let mut world = Self::new();
            world.all_end();
            world.said();
            world
        }

        fn all_end(&mut self) {
            let sources: Vec<Source> = self.0.sources.keys().cloned().collect();
            for source in sources {
                self.0.handle(&source, Report::Begin);
                self.0.handle(&source, Report::End);
            }
        }

        fn hear(&mut self, source: &Source, report: Report) -> String {
            self.0.handle(source, report);
            self.said()
        }

        /// What is said, a word each.
        fn said(&mut self) -> String {
            let word = |output: Output| match output {
                Output::Start(source) => format!("start({source})"),
                Output::Stop(source) => format!("stop({source})"),
                Output::Say(Word::Away(why)) => format!("away({why})"),
                Output::Say(Word::Here) => "here".to_owned(),
                Output::Say(Word::HoldsBack(holds)) => format!("holds({holds})"),
                Output::Say(Word::Input(Input::SourceProblems(problems))) => format!("problems({})", problems.len()),
                Output::Say(Word::Input(Input::Resource(word))) => match word {
                    Sync::Begin => "begin".to_owned(),
                    Sync::Upsert(key, _) => format!("+{}", key.name),
                    Sync::Remove(key) => format!("-{}", key.name),
                    Sync::End => "end".to_owned(),
                },
            };
            self.0.take().into_iter().map(word).collect::<Vec<_>>().join(" ")
        }
    }

    #[test]
    fn the_end_comes_when_every_source_has_told() {
        let mut world = World::new();
        assert!(world.said().starts_with("begin start(bgpconfigurations) start(bgpfilters)"));
        world.hear(&Source::Nodes, Report::Begin);
        assert_eq!(world.hear(&Source::Nodes, there("Node", "a", json!({}))), "+a");
        assert_eq!(world.hear(&Source::Nodes, Report::End), "");
        let others: Vec<Source> = world.0.sources.keys().filter(|source| **source != Source::Nodes).cloned().collect();
        let (last, first) = others.split_last().unwrap();
        for source in first {
            assert_eq!(world.hear(source, Report::End), "");
        }
        assert_eq!(world.hear(last, Report::End), "end");
    }

    #[test]
    fn only_differences_are_told() {
        let mut world = World::told();
        let node = |asn: u32| there("Node", "a", json!({ "bgp": { "asNumber": asn } }));
        assert_eq!(world.hear(&Source::Nodes, node(1)), "+a");
        assert_eq!(world.hear(&Source::Nodes, node(1)), "", "a status that changed");
        assert_eq!(world.hear(&Source::Nodes, node(2)), "+a");
        world.hear(&Source::Nodes, there("Node", "b", json!({})));
        world.hear(&Source::Nodes, Report::Begin);
        assert_eq!(world.hear(&Source::Nodes, node(2)), "", "a listing that finds the same");
        assert_eq!(world.hear(&Source::Nodes, Report::End), "-b", "and one that is gone");
        assert_eq!(world.hear(&Source::Nodes, gone("Node", "b")), "", "which is not told twice");
    }

    #[test]
    fn an_affinity_may_move_from_one_watch_to_the_other_in_any_order() {
        let affinity = || there("BlockAffinity", "x", json!({ "node": "a" }));
        let mut world = World::told();
        world.hear(&Source::UnlabelledAffinities, affinity());
        assert_eq!(world.hear(&Source::OwnAffinities, affinity()), "");
        assert_eq!(world.hear(&Source::UnlabelledAffinities, gone("BlockAffinity", "x")), "");
        assert_eq!(world.hear(&Source::OwnAffinities, gone("BlockAffinity", "x")), "-x");
    }

    #[test]
    fn secrets_are_watched_while_a_resource_names_them() {
        let mut world = World::told();
        let peer = |secret: &str| there("BGPPeer", "tor", json!({ "password": { "secretKeyRef": { "name": secret, "key": "k" } } }));
        assert_eq!(world.hear(&Source::BgpPeers, peer("one")), "start(secret one) +tor");
        let one = Source::Secret("one".to_owned());
        assert_eq!(world.hear(&one, there("Secret", "one", json!({}))), "+one");
        assert_eq!(world.hear(&Source::BgpPeers, peer("two")), "start(secret two) stop(secret one) -one +tor");
        assert_eq!(world.hear(&one, there("Secret", "one", json!({}))), "", "words that were under way");
        assert_eq!(world.hear(&Source::BgpPeers, gone("BGPPeer", "tor")), "stop(secret two) -tor");
        assert_eq!(world.hear(&Source::BgpPeers, peer("../nodes")), "+tor", "which is no name");
    }

    #[test]
    fn the_first_end_waits_for_what_is_named() {
        let mut world = World::new();
        world.said();
        let mesh = json!({ "nodeMeshPassword": { "secretKeyRef": { "name": "mesh", "key": "k" } }, "serviceClusterIPs": [{ "cidr": "10.96.0.0/12" }] });
        world.hear(&Source::BgpConfigurations, Report::Begin);
        world.hear(&Source::BgpConfigurations, there("BGPConfiguration", "default", mesh));
        assert_eq!(world.hear(&Source::BgpConfigurations, Report::End), "start(services) start(endpointslices) start(secret mesh)");
        let named = [Source::Services, Source::EndpointSlices, Source::Secret("mesh".to_owned())];
        let others: Vec<Source> =
            world.0.sources.keys().filter(|source| !named.contains(source) && **source != Source::BgpConfigurations).cloned().collect();
        others.iter().for_each(|source| assert_eq!(world.hear(source, Report::End), ""));
        assert_eq!(world.hear(&named[0], Report::End), "");
        assert_eq!(world.hear(&named[1], Report::End), "");
        assert_eq!(world.hear(&named[2], Report::End), "end");
    }

    #[test]
    fn what_may_not_be_read_does_not_stop_the_others() {
        let mut world = World::new();
        world.said();
        let filters = Source::BgpFilters;
        world.0.handle(&filters, Report::Trouble(Some(Trouble::Forbidden("no".to_owned()))));
        let problems = world.0.problems();
        let text = problems[0].to_string();
        for part in ["list and watch", "`bgpfilters`", "`crd.projectcalico.org`", "rbac.yaml"] {
            assert!(text.contains(part), "{text}");
        }
        world.said();
        for source in world.0.plan.sources().iter().filter(|source| **source != filters) {
            world.0.handle(source, Report::End);
        }
        assert_eq!(world.said(), "end");
        assert_eq!(world.hear(&filters, there("BGPFilter", "f", json!({}))), "+f", "permission is granted");
    }

    #[test]
    fn what_was_told_stays_when_permission_is_taken_away() {
        let mut world = World::told();
        world.hear(&Source::BgpPeers, there("BGPPeer", "tor", json!({})));
        assert_eq!(world.hear(&Source::BgpPeers, Report::Trouble(Some(Trouble::Forbidden(String::new())))), "problems(1)");
        world.0.tell_again();
        assert_eq!(world.said(), "begin");
        for source in world.0.plan.sources().iter().filter(|source| **source != Source::BgpPeers) {
            world.0.handle(source, Report::End);
        }
        assert_eq!(world.said(), "", "no end without the peers");
        world.0.handle(&Source::BgpPeers, Report::Trouble(None));
        world.0.handle(&Source::BgpPeers, Report::Begin);
        world.0.handle(&Source::BgpPeers, there("BGPPeer", "tor", json!({})));
        world.0.handle(&Source::BgpPeers, Report::End);
        assert_eq!(world.said(), "+tor end problems(0)", "told again, the same or not");
    }

    #[test]
    fn a_listing_that_is_held_back_is_said_once_and_so_is_its_end() {
        let mut world = World::told();
        let shrunk = || Report::Trouble(Some(Trouble::Shrunk(Lack { missing: 9, in_force: 10 })));
        assert_eq!(world.hear(&Source::Nodes, shrunk()), "holds(true) problems(1)");
        assert_eq!(world.hear(&Source::BgpPeers, shrunk()), "problems(2)");
        assert_eq!(world.hear(&Source::Nodes, Report::Trouble(None)), "problems(1)");
        assert_eq!(world.hear(&Source::BgpPeers, Report::Trouble(None)), "holds(false) problems(0)");
    }

    #[test]
    fn a_server_that_is_away_is_said_once() {
        let mut world = World::told();
        let away = |why: &str| Report::Trouble(Some(Trouble::Away(why.to_owned())));
        assert_eq!(world.hear(&Source::Nodes, away("refused")), "away(refused) problems(1)");
        assert_eq!(world.hear(&Source::BgpPeers, away("refused")), "problems(1)");
        assert_eq!(world.hear(&Source::Nodes, Report::Trouble(None)), "problems(1)");
        assert_eq!(world.hear(&Source::BgpPeers, Report::Trouble(None)), "here problems(0)");
    }
}
