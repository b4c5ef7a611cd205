//! The resources now, decoded, and whether they are all there.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::changes::Changes;
use super::filter::CompiledFilter;
use super::index::Index;
use super::resource::{
    BgpConfiguration, BgpPeer, BlockAffinity, Decoded, EndpointSlice, IpPool, Node, Resource, Secret, Service, ServiceName, decode,
};
use super::{Document, LocalWorkload, Location, Problem, Report, ResourceKey, Severity};
use crate::types::Sync;

/// Every resource that the datastore told of.
#[derive(Clone, Debug, Default)]
pub struct Store {
    entries: BTreeMap<ResourceKey, Entry>,
    /// What is looked up by something else than its name.
    index: Index,
    /// Local workloads that BGPPeers select.
    workloads: Vec<LocalWorkload>,
    /// What is not compiled yet.
    changes: Changes,
    /// Inside a `Begin` … `End`.
    telling: bool,
    /// An `End` has been heard.
    told: bool,
}

#[derive(Clone, Debug)]
struct Entry {
    document: Document,
    /// What is in force: the last good form, or what could be made of a document that never had one.
    resource: Option<Resource>,
    /// `resource` was free of errors.
    good: bool,
    problems: Vec<Problem>,
    marked: bool,
}

impl Store {
    /// Whether the datastore has told everything and is not just telling it anew.
    pub fn in_sync(&self) -> bool {
        self.told && !self.telling
    }

    /// Takes a word of the datastore; says whether anything changed.
    pub fn apply(&mut self, word: Sync<ResourceKey, Document>) -> bool {
        match word {
            Sync::Begin => {
                self.telling = true;
                self.entries.values_mut().for_each(|entry| entry.marked = true);
                false
            }
            Sync::Upsert(key, document) => self.upsert(key, document),
            Sync::Remove(key) => match self.entries.remove(&key) {
                Some(entry) => {
                    self.forget(&key, &entry);
                    true
                }
                None => false,
            },
            Sync::End => {
                let first = !self.told;
                let gone: Vec<_> = self.entries.extract_if(.., |_, entry| entry.marked).collect();
                gone.iter().for_each(|(key, entry)| self.forget(key, entry));
                (self.telling, self.told) = (false, true);
                first || !gone.is_empty()
            }
        }
    }

    /// Takes the local workloads; says whether anything changed.
    pub fn set_workloads(&mut self, workloads: Vec<LocalWorkload>) -> bool {
        if workloads == self.workloads {
            return false;
        }
        let before = std::mem::replace(&mut self.workloads, workloads);
        let addresses = before.iter().chain(&self.workloads).flat_map(|workload| workload.addresses.iter().copied());
        self.changes.note_addresses(addresses);
        true
    }

    /// Every local workload that a BGPPeer selects.
    pub fn workloads(&self) -> &[LocalWorkload] {
        &self.workloads
    }

    /// What has changed since this was asked last; everything, the first time.
    pub(super) fn take_changes(&mut self) -> Changes {
        std::mem::replace(&mut self.changes, Changes::nothing())
    }

    fn forget(&mut self, key: &ResourceKey, entry: &Entry) {
        self.changes.note(key, entry.resource.as_ref());
        self.index.remove(key, entry.resource.as_ref());
    }

    fn upsert(&mut self, key: ResourceKey, document: Document) -> bool {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.marked = false;
            if entry.document == document {
                return false;
            }
        }
        let mut report = Report::new(&key, &document);
        let decoded = decode(&key, &document, &mut report);
        let mut problems = report.into_problems();
        let before = self.entries.remove(&key);
        if let Some(entry) = &before {
            self.forget(&key, entry);
        }
        let before = before.filter(|entry| entry.good).and_then(|entry| entry.resource);
        let (resource, good) = match (decoded, before) {
            (Decoded::Good(resource), _) => (Some(resource), true),
            (Decoded::Refused(_), Some(before)) => {
                name_consequence(&mut problems, "the last good one stays in force", true);
                (Some(before), true)
            }
            (Decoded::Refused(partial), None) => {
                let consequence = if partial.is_some() { "the field is left out" } else { "the resource is left out" };
                name_consequence(&mut problems, consequence, false);
                (partial, false)
            }
        };
        self.changes.note(&key, resource.as_ref());
        self.index.add(&key, resource.as_ref(), !problems.is_empty());
        self.entries.insert(key, Entry { document, resource, good, problems, marked: false });
        true
    }

    /// The problems of the documents themselves.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.index.faulty.iter().filter_map(|key| self.entries.get(key)).flat_map(|entry| &entry.problems)
    }

    /// Kinds that no speaker acts on, and how many there are of each.
    pub fn unused(&self) -> &BTreeMap<String, usize> {
        &self.index.unused
    }

    /// A problem of a resource in its relation to others.
    pub fn problem(&self, kind: &str, name: &str, severity: Severity, field: &str, what: String, instead: &str) -> Problem {
        let key = key(kind, "", name);
        let location = self.entries.get(&key).map_or_else(Location::default, |entry| entry.document.locate(field));
        Problem { severity, resource: Some(key), location, field: field.to_owned(), what, instead: instead.to_owned() }
    }

    /// A Node by name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        match self.entries.get(&key("Node", "", name))?.resource.as_ref()? {
            Resource::Node(node) => Some(node),
            _ => None,
        }
    }

    /// Every Node, by name.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.of_kind("Node").filter_map(|(key, resource)| match resource {
            Resource::Node(node) => Some((key.name.as_str(), node)),
            _ => None,
        })
    }

    /// The Nodes that have this BGP address, by name.
    pub fn nodes_at(&self, address: IpAddr) -> impl Iterator<Item = (&str, &Node)> {
        let names = self.index.nodes_at.get(&address).into_iter().flatten();
        names.filter_map(|name| Some((name.as_str(), self.node(name)?)))
    }

    /// Every BGP address of a Node.
    pub fn node_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.index.nodes_at.keys().copied()
    }

    /// A BGPConfiguration by name.
    pub fn configuration(&self, name: &str) -> Option<&BgpConfiguration> {
        match self.entries.get(&key("BGPConfiguration", "", name))?.resource.as_ref()? {
            Resource::BgpConfiguration(configuration) => Some(configuration),
            _ => None,
        }
    }

    /// Every BGPPeer, by name.
    pub fn peers(&self) -> impl Iterator<Item = (&str, &BgpPeer)> {
        self.of_kind("BGPPeer").filter_map(|(key, resource)| match resource {
            Resource::BgpPeer(peer) => Some((key.name.as_str(), &**peer)),
            _ => None,
        })
    }

    /// A BGPFilter by name.
    pub fn filter(&self, name: &str) -> Option<&CompiledFilter> {
        match self.entries.get(&key("BGPFilter", "", name))?.resource.as_ref()? {
            Resource::BgpFilter(filter) => Some(filter),
            _ => None,
        }
    }

    /// Every IPPool, by name.
    pub fn pools(&self) -> impl Iterator<Item = (&str, &IpPool)> {
        self.of_kind("IPPool").filter_map(|(key, resource)| match resource {
            Resource::IpPool(pool) => Some((key.name.as_str(), pool)),
            _ => None,
        })
    }

    /// The BlockAffinities of a node, by name.
    pub fn affinities_of(&self, node: &str) -> impl Iterator<Item = &BlockAffinity> {
        let keys = self.index.affinities_of.get(node).into_iter().flatten();
        keys.filter_map(|key| match self.entries.get(key)?.resource.as_ref()? {
            Resource::BlockAffinity(affinity) => Some(affinity),
            _ => None,
        })
    }

    /// A Service.
    pub fn service(&self, name: &ServiceName) -> Option<&Service> {
        match self.entries.get(&key("Service", &name.namespace, &name.name))?.resource.as_ref()? {
            Resource::Service(service) => Some(service),
            _ => None,
        }
    }

    /// Every Service, by namespace and name.
    pub fn services(&self) -> impl Iterator<Item = (ServiceName, &Service)> {
        self.of_kind("Service").filter_map(|(key, resource)| match resource {
            Resource::Service(service) => Some((ServiceName::new(&key.namespace, &key.name), service)),
            _ => None,
        })
    }

    /// The EndpointSlices of a Service.
    pub fn slices_of(&self, service: &ServiceName) -> impl Iterator<Item = &EndpointSlice> {
        let keys = self.index.slices_of.get(service).into_iter().flatten();
        keys.filter_map(|key| match self.entries.get(key)?.resource.as_ref()? {
            Resource::EndpointSlice(slice) => Some(slice),
            _ => None,
        })
    }

    /// A Secret of the speaker's namespace, or one that was given without a namespace.
    pub fn secret(&self, namespace: &str, name: &str) -> Option<&Secret> {
        let found = |namespace: &str| self.entries.get(&key("Secret", namespace, name));
        match found(namespace).or_else(|| found(""))?.resource.as_ref()? {
            Resource::Secret(secret) => Some(secret),
            _ => None,
        }
    }

    fn of_kind(&self, kind: &str) -> impl Iterator<Item = (&ResourceKey, &Resource)> {
        let kind = kind.to_owned();
        self.entries
            .range(key(&kind, "", "")..)
            .take_while(move |(key, _)| key.kind == kind)
            .filter_map(|(key, entry)| Some((key, entry.resource.as_ref()?)))
    }
}

fn key(kind: &str, namespace: &str, name: &str) -> ResourceKey {
    ResourceKey { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
}

/// Says what becomes of the resource, in the errors that leave it open (or, with `always`, in all of them).
fn name_consequence(problems: &mut [Problem], consequence: &str, always: bool) {
    for problem in problems.iter_mut().filter(|problem| problem.severity == Severity::Error) {
        if always || problem.instead.is_empty() {
            problem.instead = consequence.to_owned();
        }
    }
}
