//! margay's own: the writer alone, and a FibSyncer with its kernel thread, which gets the prefixes sorted.

use std::collections::VecDeque;
use std::time::Instant;

use ipnet::IpNet;
use margay::config::FibConfig;
use margay::fib::{FibChange, FibSyncer, Input, KernelEvent, KernelOp, Output};
use margay::kernel::{Command, Kernel, NetlinkKernel, Settings, spawn};
use margay::types::Outbox;
use tokio::sync::mpsc;

use crate::routes::{Family, Verb, World, scatter};
use crate::{Sample, sample};

/// Operations that the writer is given at a time, and changes that the FibSyncer is.
const BATCH: usize = 4096;

/// The writer, which gets the prefixes in the order that the FibSyncer would give them.
pub fn writer(world: &World, family: Family, prefixes: &[IpNet], tell: &mut impl FnMut(Sample)) {
    let mut prefixes = prefixes.to_vec();
    if family == Family::IPv4 {
        scatter(&mut prefixes);
    }
    let mut kernel = NetlinkKernel::open().expect("a socket");
    for verb in Verb::ALL {
        let routes = prefixes.iter().map(|prefix| world.route(family, *prefix, verb));
        let ops: Vec<_> = match verb {
            Verb::Add => routes.map(KernelOp::Create).collect(),
            Verb::Replace => routes.map(KernelOp::Replace).collect(),
            Verb::Delete => routes.map(KernelOp::Delete).collect(),
        };
        tell(sample("writer", family, verb, ops.len(), || {
            for batch in ops.chunks(BATCH) {
                assert_eq!(kernel.apply(batch), []);
            }
        }));
    }
}

/// A FibSyncer with its kernel thread; `objects`: routes go by next-hop objects, so that one message replaces them all.
pub fn syncer(world: &World, family: Family, prefixes: &[IpNet], objects: bool, tell: &mut impl FnMut(Sample)) {
    let fib = FibSyncer::new(&FibConfig::default(), 7);
    let (who, mut node) = if objects { ("FibSyncer, by objects", Node::of(fib.with_objects())) } else { ("FibSyncer", Node::of(fib)) };
    node.until(|node| node.told);
    for verb in Verb::ALL {
        let changes: Vec<Vec<FibChange>> =
            prefixes.chunks(BATCH).map(|chunk| chunk.iter().map(|prefix| world.change(family, *prefix, verb)).collect()).collect();
        tell(sample(who, family, verb, prefixes.len(), || {
            node.asked = 0;
            node.feed(changes);
            node.until(|node| node.under_way.is_empty());
        }));
        let few = if objects && verb == Verb::Replace { 1..4 } else { prefixes.len()..prefixes.len() + 4 };
        assert!(few.contains(&node.asked), "{verb:?}: {} writes", node.asked);
    }
}

/// A FibSyncer and its kernel thread.
pub struct Node {
    fib: FibSyncer,
    commands: mpsc::Sender<Command>,
    events: mpsc::Receiver<Vec<KernelEvent>>,
    out: Outbox<Output>,
    /// It has room for changes.
    pulled: bool,
    /// The kernel's table has been told whole.
    pub told: bool,
    /// Writes of each batch that is not answered.
    under_way: VecDeque<usize>,
    /// Writes asked for.
    pub asked: usize,
}

impl Node {
    pub fn start() -> Self {
        Self::of(FibSyncer::new(&FibConfig::default(), 7))
    }

    fn of(fib: FibSyncer) -> Self {
        let (commands, events) = spawn(&Settings::default()).expect("the kernel's thread");
        Self { fib, commands, events, out: Outbox::new(), pulled: false, told: false, under_way: VecDeque::new(), asked: 0 }
    }

    /// Gives the changes, each part when there is room for it, and hears between two parts what the kernel has said, as margay's task does.
    pub fn feed(&mut self, changes: Vec<Vec<FibChange>>) {
        for part in changes {
            while let Ok(events) = self.events.try_recv() {
                events.into_iter().for_each(|event| self.hear(event));
            }
            self.until(|node| node.pulled);
            self.pulled = false;
            self.handle(Input::Changes(part));
        }
    }

    /// Hears the kernel until `done`.
    pub fn until(&mut self, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            let events = self.events.blocking_recv().expect("the kernel's thread");
            events.into_iter().for_each(|event| self.hear(event));
        }
    }

    fn hear(&mut self, event: KernelEvent) {
        match &event {
            KernelEvent::Written { failed, .. } => {
                assert_eq!(failed[..], []);
                self.under_way.pop_front();
            }
            KernelEvent::Route(margay::types::Sync::End) => self.told = true,
            _ => {}
        }
        self.handle(Input::Kernel(event));
    }

    fn handle(&mut self, input: Input) {
        self.fib.handle(Instant::now(), input, &mut self.out);
        for output in self.out.drain() {
            match output {
                Output::Write(ops) => {
                    self.under_way.push_back(ops.ops.len());
                    self.asked += ops.ops.len();
                    self.commands.blocking_send(Command::Write(ops)).expect("the kernel's thread");
                }
                Output::Pull { .. } => self.pulled = true,
                _ => {}
            }
        }
    }
}
