//! Compiler machine: Calico v3 resources in, [`NodeConfig`] and problems out.
//!
//! ```text
//! datastore ─Sync<ResourceKey, Document>→ Store ─(decoded resources)→ compile ─→ NodeConfig, problems
//!                                           │                           ├ mesh      who are the peers
//!                         resource/*: one   │                           ├ peering   what a session is
//!                         document → one    │                           ├ filter    BGPFilter, pools → Policy
//!                         type, field by    │                           └ pool, service: kernel rules, origins
//!                         field             └ selector: labels
//! ```
//!
//! A document is decoded when it arrives, field by field, so that one bad field is named with its line. A resource
//! that cannot be used keeps its last good form; if it never had one it is left out (a BGPConfiguration or Node: only
//! the bad fields are). [`compile()`] is pure and total: the same store gives the same configuration in whatever order
//! it was filled.
//!
//! The [`Compiler`] remembers what it made of each address and of each Service, and looks again at what a change
//! concerns and at nothing else ([`Work`] counts it): a changed Node costs its own addresses, a changed EndpointSlice its
//! Service. A law in the tests holds every such step against a compile from nothing.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod builtin_policy;
mod changes;
mod compile;
mod compiler;
mod environment;
pub mod filter;
mod index;
mod mesh;
mod peering;
mod pool;
mod problem;
pub mod resource;
pub mod selector;
pub mod service;
mod service_note;
mod store;
mod work;
mod workload;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::config::NodeConfig;
use crate::types::Sync;

pub use compile::{check, compile};
pub use compiler::Compiler;
pub use environment::Environment;
pub use problem::{Problem, Report, Severity};
pub use resource::{NodeStatus, StatusClass};
pub use service_note::{AddressNote, RangeNote, ServiceNotes};
pub use store::Store;
pub use work::Work;
pub use workload::LocalWorkload;

/// What names a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ResourceKey {
    /// Kind, for instance `BGPPeer`.
    pub kind: String,
    /// Namespace, for Secret, Service and EndpointSlice; empty otherwise.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl fmt::Display for ResourceKey {
    /// `BGPPeer tor-a`, `Secret kube-system/bgp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// Where a resource (or a problem) was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Location {
    /// File, or datastore key.
    pub file: String,
    /// Line, from 1; 0 where there is none.
    pub line: u32,
    /// Column, from 1; 0 where there is none.
    pub column: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line != 0 {
            write!(f, ":{}", self.line)?;
        }
        if self.column != 0 {
            write!(f, ":{}", self.column)?;
        }
        Ok(())
    }
}

/// What the Compiler hears.
#[derive(Clone, Debug)]
pub enum Input {
    /// A word of the datastore: a decoded document, or one that could not be decoded.
    Resource(Sync<ResourceKey, Document>),
    /// Problems of the source itself, all of them: files that do not parse, unknown kinds.
    SourceProblems(Vec<Problem>),
}

/// A resource as a datastore hands it over.
#[derive(Clone, PartialEq)]
pub struct Document {
    /// The whole object; or, where it could not be decoded, a text that says why.
    pub object: Arc<serde_json::Value>,
    /// Where it stands.
    pub location: Location,
    /// Line and column of fields by path (`spec.filters[0]`); empty where the source has no lines.
    pub fields: Arc<BTreeMap<String, (u32, u32)>>,
}

impl fmt::Debug for Document {
    /// A Secret's content is not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Document");
        if self.object.get("data").is_none() && self.object.get("stringData").is_none() {
            shown.field("object", &self.object);
        }
        shown.field("location", &self.location).finish_non_exhaustive()
    }
}

impl Document {
    /// A document of a source without lines.
    pub fn new(object: serde_json::Value, file: impl Into<String>) -> Self {
        Self { object: Arc::new(object), location: Location { file: file.into(), line: 0, column: 0 }, fields: Arc::default() }
    }

    /// Where a field stands: its own place, else that of the nearest thing around it, else the document's.
    pub fn locate(&self, field: &str) -> Location {
        let mut path = field;
        loop {
            if let Some(&(line, column)) = self.fields.get(path) {
                return Location { file: self.location.file.clone(), line, column };
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return self.location.clone(),
            }
        }
    }
}

/// What the Compiler says, once the store is in sync and then after every change.
#[derive(Clone, Debug)]
pub enum Output {
    /// What to do now, and all that is wrong. No configuration while our Node has never been seen; the last
    /// one stays in force when it vanishes, as it does with BIRD.
    Compiled {
        /// The configuration, if there is one.
        config: Option<Arc<NodeConfig>>,
        /// Every problem of now.
        problems: Arc<[Problem]>,
    },
}
