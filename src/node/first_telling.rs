//! The kernel's first whole telling: when it is over, and what it showed of a past life.

use crate::fib::KernelEvent;
use crate::types::{PerFamily, Sync, family_of};

/// What the kernel's first whole telling showed.
#[derive(Clone, Copy, Debug, Default)]
pub struct PastLife {
    /// Routes with our protocol number are there: we, or the BIRD before us, ran since the host booted.
    pub routes: PerFamily<usize>,
}

impl PastLife {
    /// Whether there has been one.
    pub fn is_some(self) -> bool {
        !self.forwarding().is_empty()
    }

    /// The families that the kernel has gone on forwarding for: what F bits say (RFC 4724).
    pub fn forwarding(self) -> PerFamily<bool> {
        self.routes.map(|_, routes| routes > 0)
    }
}

/// Follows the first telling of links, addresses and routes.
#[derive(Clone, Debug)]
pub struct FirstTelling {
    protocol: u8,
    links: bool,
    addresses: bool,
    routes: bool,
    past_life: PastLife,
}

impl FirstTelling {
    /// Nothing has been told. `protocol` is the number of our own routes.
    pub fn new(protocol: u8) -> Self {
        Self { protocol, links: false, addresses: false, routes: false, past_life: PastLife::default() }
    }

    /// Notes one event.
    pub fn note(&mut self, event: &KernelEvent) {
        match event {
            KernelEvent::Link(Sync::End) => self.links = true,
            KernelEvent::Address(Sync::End) => self.addresses = true,
            KernelEvent::Route(Sync::End) => self.routes = true,
            KernelEvent::Route(Sync::Upsert(key, route)) if !self.routes && route.protocol == self.protocol => {
                if let Some(routes) = self.past_life.routes.of_mut(family_of(&key.prefix)) {
                    *routes += 1;
                }
            }
            _ => {}
        }
    }

    /// Links, addresses and routes have each been told to their end.
    pub fn is_whole(&self) -> bool {
        self.links && self.addresses && self.routes
    }

    /// What was seen of a past life.
    pub fn past_life(&self) -> PastLife {
        self.past_life
    }
}
