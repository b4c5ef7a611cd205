//! Compiler machine: Calico v3 resources in, [`NodeConfig`] and problems out.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod builtin_policy;
pub mod filter;
pub mod resource;

use std::sync::Arc;

use serde::Serialize;

use crate::config::NodeConfig;
use crate::types::Sync;

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

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing: a field that margay does not act on, a value put in canonical form.
    Info,
    /// Something was left out or replaced by a default.
    Warning,
    /// A resource or a file is refused.
    Error,
}

/// What is wrong, where, and what was done instead. Data, not an error.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// How bad.
    pub severity: Severity,
    /// Which resource, if it is known.
    pub resource: Option<ResourceKey>,
    /// Where it stands.
    pub location: Location,
    /// Field path, for instance `spec.peerIP`; empty for the whole resource.
    pub field: String,
    /// What is wrong, in words.
    pub what: String,
    /// What margay does instead, or what to do next.
    pub instead: String,
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
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The whole object.
    pub object: Arc<serde_json::Value>,
    /// Where it stands.
    pub location: Location,
}

/// What the Compiler says, once the store is in sync and then after every change.
#[derive(Clone, Debug)]
pub enum Output {
    /// What to do now, and all that is wrong. No configuration while our Node has never been seen; the last
    /// one stays in force when it vanishes.
    Compiled {
        /// The configuration, if there is one.
        config: Option<Arc<NodeConfig>>,
        /// Every problem of now.
        problems: Arc<[Problem]>,
    },
}
