//! The Compiler machine: hears the datastore, says what to do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Environment, Input, Output, Problem, Store, compile};
use crate::config::NodeConfig;
use crate::types::Outbox;

/// Live changes within this time are compiled together; a table that is told as a whole is compiled at its end.
const COALESCE: Duration = Duration::from_millis(20);

/// Keeps the resources and compiles them after each change, once they are all there.
#[derive(Debug)]
pub struct Compiler {
    node: String,
    environment: Environment,
    store: Store,
    source_problems: Vec<Problem>,
    last: Option<Arc<NodeConfig>>,
    due: Option<Instant>,
}

impl Compiler {
    /// A compiler for the node of this name.
    pub fn new(node: String, environment: Environment) -> Self {
        Self { node, environment, store: Store::default(), source_problems: Vec::new(), last: None, due: None }
    }

    /// The resources as they are known now.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Instant, input: Input, out: &mut Outbox<Output>) {
        let was_in_sync = self.store.in_sync();
        let changed = match input {
            Input::Resource(word) => self.store.apply(word),
            Input::SourceProblems(problems) => {
                let changed = problems != self.source_problems;
                self.source_problems = problems;
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

    fn compile(&mut self, out: &mut Outbox<Output>) {
        self.due = None;
        let (config, mut problems) = compile(&self.store, &self.node, &self.environment);
        problems.splice(0..0, self.source_problems.iter().cloned());
        if let Some(config) = config
            && self.last.as_deref() != Some(&config)
        {
            self.last = Some(Arc::new(config));
        }
        out.push(Output::Compiled { config: self.last.clone(), problems: problems.into() });
    }
}
