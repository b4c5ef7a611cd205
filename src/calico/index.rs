//! Ways into the store by something else than a resource's name, so that nobody walks fifty thousand entries to find one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::ResourceKey;
use super::resource::{Resource, ServiceName};

/// See the module. Follows the entries one by one.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// Names of the Nodes that have a BGP address.
    pub nodes_at: BTreeMap<IpAddr, BTreeSet<String>>,
    /// BlockAffinities by `spec.node`.
    pub affinities_of: BTreeMap<String, BTreeSet<ResourceKey>>,
    /// EndpointSlices by their Service.
    pub slices_of: BTreeMap<ServiceName, BTreeSet<ResourceKey>>,
    /// Documents with problems.
    pub faulty: BTreeSet<ResourceKey>,
    /// Kinds that no speaker acts on, and how many there are.
    pub unused: BTreeMap<String, usize>,
}

impl Index {
    /// An entry has come.
    pub fn add(&mut self, key: &ResourceKey, resource: Option<&Resource>, faulty: bool) {
        if faulty {
            self.faulty.insert(key.clone());
        }
        match resource {
            Some(Resource::Node(node)) => {
                for address in node.addresses() {
                    self.nodes_at.entry(address.address).or_default().insert(key.name.clone());
                }
            }
            Some(Resource::BlockAffinity(affinity)) => insert(&mut self.affinities_of, &affinity.node, key),
            Some(Resource::EndpointSlice(slice)) => {
                if let Some(service) = slice.service_in(&key.namespace) {
                    insert(&mut self.slices_of, &service, key);
                }
            }
            Some(Resource::Unused) if !faulty => *self.unused.entry(key.kind.clone()).or_default() += 1,
            _ => {}
        }
    }

    /// An entry has gone.
    pub fn remove(&mut self, key: &ResourceKey, resource: Option<&Resource>) {
        let was_faulty = self.faulty.remove(key);
        match resource {
            Some(Resource::Node(node)) => {
                for address in node.addresses() {
                    remove(&mut self.nodes_at, &address.address, &key.name);
                }
            }
            Some(Resource::BlockAffinity(affinity)) => remove(&mut self.affinities_of, &affinity.node, key),
            Some(Resource::EndpointSlice(slice)) => {
                if let Some(service) = slice.service_in(&key.namespace) {
                    remove(&mut self.slices_of, &service, key);
                }
            }
            Some(Resource::Unused) if !was_faulty => {
                let left = self.unused.get(&key.kind).map_or(0, |count| count.saturating_sub(1));
                if left == 0 {
                    self.unused.remove(&key.kind);
                } else {
                    self.unused.insert(key.kind.clone(), left);
                }
            }
            _ => {}
        }
    }
}

fn insert<K: Ord + Clone>(index: &mut BTreeMap<K, BTreeSet<ResourceKey>>, by: &K, key: &ResourceKey) {
    index.entry(by.clone()).or_default().insert(key.clone());
}

fn remove<K: Ord, V: Ord>(index: &mut BTreeMap<K, BTreeSet<V>>, by: &K, value: &V) {
    if let Some(values) = index.get_mut(by) {
        values.remove(value);
        if values.is_empty() {
            index.remove(by);
        }
    }
}
