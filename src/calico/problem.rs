//! What is wrong with a resource, where, and what was done instead.

use serde::Serialize;

use super::{Document, Location, ResourceKey};

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

impl Problem {
    /// A problem of the whole: no resource, no place.
    pub fn general(severity: Severity, what: impl Into<String>, instead: impl Into<String>) -> Self {
        Self { severity, resource: None, location: Location::default(), field: String::new(), what: what.into(), instead: instead.into() }
    }
}

impl std::fmt::Display for Problem {
    /// One line: `file:line:column: error: BGPPeer tor-a: spec.peerIP: what; instead`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.location.file.is_empty() {
            write!(f, "{}: ", self.location)?;
        }
        f.write_str(match self.severity {
            Severity::Info => "info: ",
            Severity::Warning => "warning: ",
            Severity::Error => "error: ",
        })?;
        if let Some(resource) = &self.resource {
            write!(f, "{resource}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.what)?;
        if !self.instead.is_empty() {
            write!(f, "; {}", self.instead)?;
        }
        Ok(())
    }
}

/// Collects the problems of one resource; knows where its fields stand.
#[derive(Debug)]
pub struct Report<'a> {
    key: &'a ResourceKey,
    document: &'a Document,
    problems: Vec<Problem>,
}

impl<'a> Report<'a> {
    /// Nothing is wrong yet.
    pub fn new(key: &'a ResourceKey, document: &'a Document) -> Self {
        Self { key, document, problems: Vec::new() }
    }

    /// The resource that is reported on.
    pub fn key(&self) -> &'a ResourceKey {
        self.key
    }

    /// The document that is reported on.
    pub fn document(&self) -> &'a Document {
        self.document
    }

    /// Worth knowing.
    pub fn info(&mut self, field: &str, what: impl Into<String>, instead: impl Into<String>) {
        self.push(Severity::Info, field, what.into(), instead.into());
    }

    /// Something is left out or replaced.
    pub fn warning(&mut self, field: &str, what: impl Into<String>, instead: impl Into<String>) {
        self.push(Severity::Warning, field, what.into(), instead.into());
    }

    /// The resource cannot be used as it stands.
    pub fn error(&mut self, field: &str, what: impl Into<String>, instead: impl Into<String>) {
        self.push(Severity::Error, field, what.into(), instead.into());
    }

    /// Problems that were found elsewhere in this resource; their places are filled in.
    pub fn adopt(&mut self, problems: Vec<Problem>) {
        for problem in problems {
            self.push(problem.severity, &problem.field, problem.what, problem.instead);
        }
    }

    /// Whether an error was reported.
    pub fn is_refused(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// What was reported, in order.
    pub fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    fn push(&mut self, severity: Severity, field: &str, what: String, instead: String) {
        let location = self.document.locate(field);
        self.problems.push(Problem { severity, resource: Some(self.key.clone()), location, field: field.to_owned(), what, instead });
    }
}
