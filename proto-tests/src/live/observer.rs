//! A well-behaved neighbour that remembers what it was told.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use ipnet::IpNet;

use super::daemon::{Daemon, PeerPlan};
use super::message;
use super::neighbour::{Heard, Neighbour, Open, PATIENCE};
use super::reading::{Attribute, Terms, Update};

/// A route as it was told last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// All attributes but those with prefixes inside.
    pub attributes: Vec<Attribute>,
    /// Next hop: one address, or a global and a link-local one.
    pub next_hop: Vec<IpAddr>,
    /// How often it was told.
    pub told: u32,
}

impl Route {
    /// The value of an attribute.
    pub fn attribute(&self, code: u8) -> Option<&[u8]> {
        self.attributes.iter().find(|attribute| attribute.code == code).map(|attribute| &attribute.value[..])
    }

    /// Whether it has the attribute with this value.
    pub fn has(&self, code: u8, value: &[u8]) -> bool {
        self.attribute(code) == Some(value)
    }

    /// Its communities.
    pub fn communities(&self) -> Vec<u32> {
        self.attribute(8).unwrap_or_default().chunks_exact(4).map(|c| u32::from_be_bytes([c[0], c[1], c[2], c[3]])).collect()
    }

    /// Its AS path, flat.
    pub fn as_path(&self) -> Vec<u32> {
        let update = Update { attributes: self.attributes.clone(), ..Update::default() };
        update.as_path().unwrap_or_default().into_iter().flat_map(|(_, ases)| ases).collect()
    }
}

/// An Established session whose peer judges every UPDATE and keeps what it says.
#[derive(Debug)]
pub struct Observer {
    /// The session.
    pub session: Neighbour,
    /// What has been told and not been withdrawn, by prefix and path identifier.
    pub routes: BTreeMap<(IpNet, Option<u32>), Route>,
    /// How often each prefix was withdrawn.
    pub withdrawals: BTreeMap<IpNet, u32>,
    /// AFIs whose End-of-RIB has come, in order.
    pub ends: Vec<u16>,
    /// ROUTE-REFRESH subtypes that have come, in order.
    pub refreshes: Vec<u8>,
    /// UPDATEs, counted.
    pub updates: u32,
    /// What a strict reader has to say of them, where that is not an error (see [`Observer::lenient`]).
    pub complaints: Vec<String>,
    strict: bool,
    terms: Terms,
}

impl Observer {
    /// Establishes a session as this peer.
    ///
    /// # Errors
    /// It does not come up.
    pub fn establish(daemon: &Daemon, plan: &PeerPlan) -> Result<Self> {
        Self::establish_with(daemon, plan, &plan.open())
    }

    /// The same with another OPEN.
    ///
    /// # Errors
    /// It does not come up.
    pub fn establish_with(daemon: &Daemon, plan: &PeerPlan, open: &Open) -> Result<Self> {
        let add_path = open.capabilities.iter().any(|(code, value)| *code == 69 && value.last().is_some_and(|mode| mode & 1 != 0));
        Ok(Self::of(daemon, Neighbour::establish_with(daemon, plan, open)?, add_path))
    }

    /// An Established session that is listened to from now on.
    pub fn of(daemon: &Daemon, session: Neighbour, add_path: bool) -> Self {
        Self::hearing(daemon.asn, session, add_path)
    }

    /// A session with any speaker of that AS, whose messages a strict reader may complain of.
    pub fn lenient(asn: u32, session: Neighbour) -> Self {
        Self { strict: false, ..Self::hearing(asn, session, false) }
    }

    fn hearing(asn: u32, session: Neighbour, add_path: bool) -> Self {
        let terms = Terms { sender: asn, internal: session.plan.asn == asn, add_path };
        let (routes, withdrawals) = (BTreeMap::new(), BTreeMap::new());
        let (ends, refreshes, complaints) = (Vec::new(), Vec::new(), Vec::new());
        Self { session, routes, withdrawals, ends, refreshes, updates: 0, complaints, strict: true, terms }
    }

    /// Takes what comes until nothing comes for so long.
    ///
    /// # Errors
    /// The session ends, or cannot be read.
    pub fn listen(&mut self, silence: Duration) -> Result<()> {
        loop {
            match self.session.hear(silence)? {
                Heard::Message(message::UPDATE, body) => self.take(&body)?,
                Heard::Message(..) => {}
                Heard::Silence => return Ok(()),
                other => bail!("{}: {other:?}", self.session.address()),
            }
        }
    }

    /// Listens until `enough`.
    ///
    /// # Errors
    /// It does not come true, the session ends, or margay sends what a strict reader complains of.
    pub fn until(&mut self, what: &str, enough: impl FnMut(&Self) -> bool) -> Result<()> {
        self.until_within(PATIENCE, what, enough)
    }

    /// The same with another patience.
    ///
    /// # Errors
    /// See [`Observer::until`].
    pub fn until_within(&mut self, within: Duration, what: &str, mut enough: impl FnMut(&Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + within;
        while !enough(self) {
            match self.session.hear(deadline.saturating_duration_since(Instant::now()))? {
                Heard::Message(message::UPDATE, body) => self.take(&body)?,
                Heard::Message(message::KEEPALIVE, _) => {}
                Heard::Message(message::REFRESH, body) => self.refreshes.extend(body.get(2)),
                Heard::Silence => bail!("{}: not true within {within:?}: {what}; it knows {}", self.session.address(), self.known()),
                other => bail!("{}: {other:?} while waiting: {what}", self.session.address()),
            }
        }
        Ok(())
    }

    /// Waits for a route and tells it.
    ///
    /// # Errors
    /// See [`Observer::until`].
    pub fn route(&mut self, prefix: &str) -> Result<Route> {
        let key = (net(prefix), None);
        self.until(&format!("{prefix} is told"), |seen| seen.routes.contains_key(&key))?;
        Ok(self.routes[&key].clone())
    }

    /// Waits until a route is not (any more) there.
    ///
    /// # Errors
    /// See [`Observer::until`].
    pub fn no_route(&mut self, prefix: &str) -> Result<()> {
        self.until(&format!("{prefix} is withdrawn"), |seen| !seen.knows(prefix))
    }

    /// Whether there is a route now, by any path identifier.
    pub fn knows(&self, prefix: &str) -> bool {
        let prefix = net(prefix);
        self.routes.keys().any(|(known, _)| *known == prefix)
    }

    /// Announces a route on this session.
    ///
    /// # Errors
    /// The session is gone.
    pub fn announce(&mut self, prefix: &str) -> Result<()> {
        let (asn, prefixes) = (self.session.plan.asn, [prefix]);
        let attributes = if self.terms.internal {
            vec![message::origin(0), message::as_path(&[]), message::next_hop(message::NEXT_HOP), message::local_pref(100)]
        } else {
            message::basics(asn)
        };
        self.session.send(&message::announce(&attributes, &prefixes))
    }

    fn known(&self) -> String {
        let prefixes: Vec<String> = self.routes.keys().take(12).map(|(prefix, _)| prefix.to_string()).collect();
        format!("{} routes: {}…", self.routes.len(), prefixes.join(" "))
    }

    fn take(&mut self, body: &[u8]) -> Result<()> {
        let update = Update::read(body, &self.terms).map_err(|error| error.context(format!("margay sent {body:02x?}")))?;
        if !update.complaints.is_empty() && !self.strict {
            self.complaints.extend(update.complaints.iter().cloned());
        } else if !update.complaints.is_empty() {
            bail!("margay sent what a strict reader complains of: {:?}: {body:02x?}", update.complaints);
        }
        self.updates += 1;
        self.ends.extend(update.end_of_rib);
        for key in &update.withdrawn {
            self.routes.remove(key);
            *self.withdrawals.entry(key.0).or_default() += 1;
        }
        for key in update.reached {
            let told = self.routes.get(&key).map_or(0, |old| old.told) + 1;
            let next_hop = update.next_hop.clone().unwrap_or_default();
            self.routes.insert(key, Route { attributes: update.attributes.clone(), next_hop, told });
        }
        Ok(())
    }
}

fn net(prefix: &str) -> IpNet {
    prefix.parse().expect("a prefix")
}
