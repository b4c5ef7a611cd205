//! What has changed in the store since it was compiled last: what a compile must look at again, and nothing else.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::ResourceKey;
use super::resource::{Resource, ServiceName};

/// See the module. It starts as everything, and then notes nothing more until it is taken.
#[derive(Clone, Debug)]
pub(super) struct Changes {
    /// A resource that concerns every session, or nothing was ever compiled.
    pub everything: bool,
    /// Nodes that came, changed or went.
    pub nodes: BTreeSet<String>,
    /// Their addresses, before and after; and those of local workloads.
    pub addresses: BTreeSet<IpAddr>,
    /// Nodes whose own BGPConfiguration is another.
    pub configurations: BTreeSet<String>,
    /// Nodes whose BlockAffinities are others.
    pub blocks_of: BTreeSet<String>,
    /// Services that are others, or have other EndpointSlices.
    pub services: BTreeSet<ServiceName>,
}

impl Default for Changes {
    fn default() -> Self {
        Self { everything: true, ..Self::nothing() }
    }
}

impl Changes {
    /// Nothing has changed.
    pub fn nothing() -> Self {
        Self {
            everything: false,
            nodes: BTreeSet::new(),
            addresses: BTreeSet::new(),
            configurations: BTreeSet::new(),
            blocks_of: BTreeSet::new(),
            services: BTreeSet::new(),
        }
    }

    /// Something is another at these addresses.
    pub fn note_addresses(&mut self, addresses: impl Iterator<Item = IpAddr>) {
        if !self.everything {
            self.addresses.extend(addresses);
        }
    }

    /// A resource has this form now, or had it until now.
    pub fn note(&mut self, key: &ResourceKey, resource: Option<&Resource>) {
        if self.everything {
            return;
        }
        match (key.kind.as_str(), resource) {
            ("Node", resource) => {
                self.nodes.insert(key.name.clone());
                if let Some(Resource::Node(node)) = resource {
                    self.addresses.extend(node.addresses().map(|address| address.address));
                }
            }
            ("BGPConfiguration", _) => match key.name.strip_prefix("node.") {
                Some(node) => drop(self.configurations.insert(node.to_owned())),
                None => self.everything = true,
            },
            ("BlockAffinity", Some(Resource::BlockAffinity(affinity))) => drop(self.blocks_of.insert(affinity.node.clone())),
            ("Service", _) => drop(self.services.insert(ServiceName::new(&key.namespace, &key.name))),
            ("EndpointSlice", Some(Resource::EndpointSlice(slice))) => self.services.extend(slice.service_in(&key.namespace)),
            ("BGPPeer" | "BGPFilter" | "IPPool" | "Secret", _) => self.everything = true,
            _ => {}
        }
        if self.everything {
            *self = Self::default();
        }
    }
}
