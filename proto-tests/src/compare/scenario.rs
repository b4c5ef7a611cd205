//! The scenarios: which sessions, which tables, which phases.

use std::net::Ipv4Addr;

/// The speaker's AS.
pub const ASN: u32 = 65000;
/// The speaker's address, which is also the next hop that it tells: none of 127/8, since those are impossible as next hops.
pub const TARGET: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 2);
/// The speaker's port.
pub const PORT: u16 = 1790;
/// What every speaker is configured with, in seconds.
pub const HOLD: u16 = 240;

/// What is done, and when it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// All senders tell their tables, until every receiver has everything.
    Feed,
    /// All senders withdraw, until every receiver has nothing.
    Withdraw,
    /// Receivers come late, until they have everything.
    Late,
    /// Changes of one prefix each, a hundred a second, until each is heard.
    Churn,
    /// Nothing for so many seconds, but keepalives.
    Idle(u64),
}

/// One scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// In words.
    pub what: &'static str,
    /// Sessions that send.
    pub senders: usize,
    /// Sessions that only receive, from the start.
    pub receivers: usize,
    /// Sessions that receive, later.
    pub late: usize,
    /// IPv4 prefixes of each sender.
    pub ipv4: usize,
    /// All senders have the same prefixes, and each prefix a sender with the shortest path.
    pub same: bool,
    /// Senders are receivers too, clients of the speaker as a reflector, with blocks of a cluster's node; each tells them as soon as
    /// it is up, and the clock runs from the first connect.
    pub mesh: bool,
    /// Handshakes at a time.
    pub parallel: usize,
    /// Hold time that the generator offers.
    pub hold: u16,
    /// margay knows what it would write to the kernel (`--dry-run`), where it keeps nothing for it otherwise (`--no-fib`).
    pub keeps_kernel_rows: bool,
    /// Changes of one prefix each, for [`Phase::Churn`].
    pub changes: usize,
    /// The phases, and under which name each is reported, if it is.
    pub phases: &'static [(Phase, Option<&'static str>)],
}

const FULL: Scenario = Scenario {
    name: "S1",
    what: "1 sender, 1M IPv4 prefixes, 1 receiver",
    senders: 1,
    receivers: 1,
    late: 0,
    ipv4: 1_000_000,
    same: false,
    mesh: false,
    parallel: 1000,
    hold: HOLD,
    keeps_kernel_rows: false,
    changes: 2000,
    phases: &[(Phase::Feed, Some("S1"))],
};

const MESH: Scenario = Scenario {
    name: "S4",
    what: "reflector of 200 clients with 10 blocks each",
    senders: 200,
    receivers: 0,
    ipv4: 10,
    mesh: true,
    parallel: 4,
    phases: &[(Phase::Feed, Some("S4"))],
    ..FULL
};

/// All of them.
pub const ALL: [Scenario; 9] = [
    Scenario {
        late: 1,
        phases: &[(Phase::Feed, Some("S1")), (Phase::Withdraw, Some("S6")), (Phase::Feed, Some("refeed")), (Phase::Late, Some("S5"))],
        ..FULL
    },
    Scenario {
        name: "S2",
        what: "10 senders of 100k prefixes each, 10 receivers",
        senders: 10,
        receivers: 10,
        ipv4: 100_000,
        phases: &[(Phase::Feed, Some("S2"))],
        ..FULL
    },
    Scenario {
        name: "S3",
        what: "10 senders of the same 100k prefixes, 10 receivers: best paths move",
        senders: 10,
        receivers: 10,
        ipv4: 100_000,
        same: true,
        phases: &[(Phase::Feed, Some("S3"))],
        ..FULL
    },
    MESH,
    Scenario { name: "S4-herd", what: "S4, all connecting at once", parallel: 1000, phases: &[(Phase::Feed, Some("S4-herd"))], ..MESH },
    Scenario { name: "S4-500", what: "S4 with 500 clients", senders: 500, phases: &[(Phase::Feed, Some("S4-500"))], ..MESH },
    Scenario { name: "S4-1000", what: "S4 with 1,000 clients", senders: 1000, phases: &[(Phase::Feed, Some("S4-1000"))], ..MESH },
    Scenario {
        name: "S7",
        what: "latency of single changes, 100 a second, on 1M prefixes",
        phases: &[(Phase::Feed, None), (Phase::Churn, Some("S7"))],
        ..FULL
    },
    Scenario {
        name: "S8",
        what: "200 idle sessions for 20 s, keepalives each 5 s",
        hold: 15,
        phases: &[(Phase::Feed, None), (Phase::Idle(20), Some("S8"))],
        ..MESH
    },
];

impl Scenario {
    /// The scenario of that name.
    pub fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|scenario| scenario.name == name)
    }

    /// The same with a share of the prefixes and changes, for a quick look or a test; figures of it are no figures of the scenario.
    #[must_use]
    pub fn scaled(mut self, share: f64) -> Self {
        let scale = |count: usize| if count > 10 { ((count as f64 * share) as usize).max(10) } else { count };
        (self.ipv4, self.changes) = (scale(self.ipv4), scale(self.changes));
        self
    }

    /// Sender `number`: its address and AS.
    pub fn sender(&self, number: usize) -> (Ipv4Addr, u32) {
        (address(1, number), if self.mesh { ASN } else { 100_001 + number as u32 })
    }

    /// All peers of the speaker: senders, receivers, late ones.
    pub fn peers(&self) -> Vec<(Ipv4Addr, u32)> {
        let receivers = (0..self.receivers + self.late).map(|number| (address(2, number), 200_001 + number as u32));
        (0..self.senders).map(|number| self.sender(number)).chain(receivers).collect()
    }
}

fn address(network: u8, number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, network, (number / 250) as u8, (number % 250 + 1) as u8)
}
