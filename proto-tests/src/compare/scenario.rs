//! The scenarios: which sessions, which tables, which phases.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

/// The speaker's AS.
pub const ASN: u32 = 65000;
/// The speaker's address, which is also the next hop that it tells: none of 127/8, since those are impossible as next hops.
pub const TARGET: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 2);
/// Its IPv6 address, for sessions that carry IPv6.
pub const TARGET6: Ipv6Addr = Ipv6Addr::new(0xfd07, 0, 0, 0, 0, 0, 0, 2);
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
    /// Changes of one prefix each by the first sender, a hundred a second, until each is heard by the first receiver; and until what is
    /// done meanwhile is over.
    Churn(Meanwhile),
    /// Nothing for so many seconds, but keepalives.
    Idle(u64),
}

/// What goes on while single changes are timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meanwhile {
    /// Nothing.
    Nothing,
    /// The other senders withdraw everything and, when that is heard, tell it again; over and over.
    Reload,
    /// Receivers come late, all at once, until they have everything.
    Join,
    /// All receivers but the first ask for everything again (ROUTE-REFRESH), until they have it.
    Refresh,
}

/// What the speaker and the senders are to one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Everybody is in an AS of his own; senders tell a table like the internet's, and receivers hear it.
    Transit,
    /// Senders are clients of the speaker, a reflector: each tells the blocks of a cluster's node as soon as it is up, and hears those of all
    /// others. The clock runs from the first connect.
    Reflector,
    /// Senders are members of one full mesh with the speaker: each tells its blocks likewise, and hears the speaker's alone. Receivers are
    /// of other ASes and hear all blocks.
    Member,
}

/// One scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// In words.
    pub what: &'static str,
    /// Who is what.
    pub shape: Shape,
    /// Sessions that send.
    pub senders: usize,
    /// Sessions that only receive, from the start.
    pub receivers: usize,
    /// Sessions that receive, later.
    pub late: usize,
    /// Sessions that say nothing and, since the speaker is configured so, are told nothing.
    pub idlers: usize,
    /// IPv4 prefixes of each sender.
    pub ipv4: usize,
    /// IPv4 prefixes of the first sender, where it has another number of them.
    pub first: Option<usize>,
    /// IPv6 prefixes of the one IPv6 sender that there is besides, and one IPv6 receiver, if this is not 0.
    pub ipv6: usize,
    /// All senders have the same prefixes, and each prefix a sender with the shortest path.
    pub same: bool,
    /// Blocks that the speaker itself announces.
    pub blocks: usize,
    /// So many of the first receivers, and the first sender, live in a thread of their own (if any): what they are told is timed whatever
    /// the generator has to do for the others.
    pub apart: usize,
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

/// What a peer of the speaker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It tells a table; and hears, in shapes in which senders do.
    Sender,
    /// It hears.
    Receiver,
    /// It hears, later.
    Late,
    /// Neither.
    Idler,
}

/// A peer of the speaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What it does.
    pub role: Role,
    /// Its address, whose family is what the session carries.
    pub address: IpAddr,
    /// Its AS.
    pub asn: u32,
}

const FULL: Scenario = Scenario {
    name: "S1",
    what: "1 sender, 1M IPv4 prefixes, 1 receiver",
    shape: Shape::Transit,
    senders: 1,
    receivers: 1,
    late: 0,
    idlers: 0,
    ipv4: 1_000_000,
    first: None,
    ipv6: 0,
    same: false,
    blocks: 0,
    apart: 0,
    parallel: 1000,
    hold: HOLD,
    keeps_kernel_rows: false,
    changes: 2000,
    phases: &[(Phase::Feed, Some("S1"))],
};

const REFLECTOR: Scenario = Scenario {
    name: "S4",
    what: "reflector of 200 clients with 10 blocks each",
    shape: Shape::Reflector,
    senders: 200,
    receivers: 0,
    ipv4: 10,
    parallel: 4,
    phases: &[(Phase::Feed, Some("S4"))],
    ..FULL
};

/// Hold time 90 s, so that each session has a keepalive in the 30 s of idling.
const MEMBER: Scenario = Scenario {
    name: "mesh-1000",
    what: "full mesh of 1,000 members with 10 blocks each, the speaker with as many of its own; an eBGP peer hears all; then 30 s of nothing",
    shape: Shape::Member,
    senders: 1000,
    receivers: 1,
    blocks: 10,
    hold: 90,
    phases: &[(Phase::Feed, Some("mesh-1000")), (Phase::Idle(30), Some("mesh-1000-idle"))],
    ..REFLECTOR
};

/// The first sender changes single prefixes of its own, and the first receiver times them.
const TIMED: Scenario = Scenario { first: Some(10_000), apart: 1, ..FULL };

/// All of them.
pub const ALL: [Scenario; 22] = [
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
    REFLECTOR,
    Scenario {
        name: "S4-herd",
        what: "S4, all connecting at once",
        parallel: 1000,
        phases: &[(Phase::Feed, Some("S4-herd"))],
        ..REFLECTOR
    },
    Scenario { name: "S4-125", what: "S4 with 125 clients", senders: 125, phases: &[(Phase::Feed, Some("S4-125"))], ..REFLECTOR },
    Scenario { name: "S4-250", what: "S4 with 250 clients", senders: 250, phases: &[(Phase::Feed, Some("S4-250"))], ..REFLECTOR },
    Scenario { name: "S4-500", what: "S4 with 500 clients", senders: 500, phases: &[(Phase::Feed, Some("S4-500"))], ..REFLECTOR },
    Scenario {
        name: "S4-1000",
        what: "S4 with 1,000 clients, then 30 s of nothing",
        senders: 1000,
        hold: 90,
        phases: &[(Phase::Feed, Some("S4-1000")), (Phase::Idle(30), Some("S4-1000-idle"))],
        ..REFLECTOR
    },
    Scenario { name: "mesh-125", what: "full mesh of 125", senders: 125, phases: &[(Phase::Feed, Some("mesh-125"))], ..MEMBER },
    Scenario { name: "mesh-250", what: "full mesh of 250", senders: 250, phases: &[(Phase::Feed, Some("mesh-250"))], ..MEMBER },
    Scenario { name: "mesh-500", what: "full mesh of 500", senders: 500, phases: &[(Phase::Feed, Some("mesh-500"))], ..MEMBER },
    MEMBER,
    Scenario {
        name: "S7",
        what: "latency of single changes, 100 a second, on 1M prefixes",
        phases: &[(Phase::Feed, None), (Phase::Churn(Meanwhile::Nothing), Some("S7"))],
        ..FULL
    },
    Scenario {
        name: "S7-reload",
        what: "the same among 10k prefixes, at rest and while another sender withdraws 1M and tells them again, over and over",
        senders: 2,
        phases: &[
            (Phase::Feed, None),
            (Phase::Churn(Meanwhile::Nothing), Some("S7-reload-rest")),
            (Phase::Churn(Meanwhile::Reload), Some("S7-reload")),
        ],
        ..TIMED
    },
    Scenario {
        name: "S8",
        what: "200 idle sessions for 20 s, keepalives each 5 s",
        hold: 15,
        phases: &[(Phase::Feed, None), (Phase::Idle(20), Some("S8"))],
        ..REFLECTOR
    },
    joiners("S5-100", 100_000, "100 receivers come at once to 100k prefixes, while single changes of 10k others are timed", JOIN),
    joiners("S5-100-1M", 1_000_000, "100 receivers come at once to 1M prefixes, while single changes of 10k others are timed", JOIN_1M),
    Scenario {
        late: 0,
        receivers: 101,
        ..joiners(
            "refresh-100",
            100_000,
            "100 receivers of 100k prefixes ask for them again at once, while single changes are timed",
            REFRESH,
        )
    },
    Scenario {
        late: 0,
        receivers: 101,
        ..joiners(
            "refresh-100-1M",
            1_000_000,
            "100 receivers of 1M prefixes ask for them again at once, while single changes are timed",
            REFRESH_1M,
        )
    },
    Scenario {
        name: "storm-1000",
        what: "1,000 sessions with hold time 3 s, while one of them tells 1M prefixes to four, withdraws them and tells them again",
        receivers: 4,
        idlers: 995,
        apart: 4,
        hold: 3,
        phases: &[(Phase::Feed, Some("storm-1000")), (Phase::Withdraw, Some("storm-withdrawn")), (Phase::Feed, Some("storm-again"))],
        ..FULL
    },
    Scenario {
        name: "D1",
        what: "1M IPv4 prefixes on one session a side, 200k IPv6 prefixes on another",
        ipv6: 200_000,
        phases: &[(Phase::Feed, Some("D1"))],
        ..FULL
    },
];

const JOIN: &[(Phase, Option<&str>)] =
    &[(Phase::Feed, None), (Phase::Churn(Meanwhile::Nothing), Some("S5-100-rest")), (Phase::Churn(Meanwhile::Join), Some("S5-100"))];
const JOIN_1M: &[(Phase, Option<&str>)] =
    &[(Phase::Feed, None), (Phase::Churn(Meanwhile::Nothing), Some("S5-100-1M-rest")), (Phase::Churn(Meanwhile::Join), Some("S5-100-1M"))];
const REFRESH: &[(Phase, Option<&str>)] = &[
    (Phase::Feed, None),
    (Phase::Churn(Meanwhile::Nothing), Some("refresh-100-rest")),
    (Phase::Churn(Meanwhile::Refresh), Some("refresh-100")),
];
const REFRESH_1M: &[(Phase, Option<&str>)] = &[
    (Phase::Feed, None),
    (Phase::Churn(Meanwhile::Nothing), Some("refresh-100-1M-rest")),
    (Phase::Churn(Meanwhile::Refresh), Some("refresh-100-1M")),
];

const fn joiners(name: &'static str, ipv4: usize, what: &'static str, phases: &'static [(Phase, Option<&'static str>)]) -> Scenario {
    Scenario { name, what, senders: 2, late: 100, ipv4, changes: 500, phases, ..TIMED }
}

impl Scenario {
    /// The scenario of that name.
    pub fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|scenario| scenario.name == name)
    }

    /// The same with a share of the prefixes and changes, for a quick look or a test; figures of it are no figures of the scenario.
    #[must_use]
    pub fn scaled(mut self, share: f64) -> Self {
        let scale = |count: usize| if count > 10 { ((count as f64 * share) as usize).max(10) } else { count };
        (self.ipv4, self.ipv6, self.changes) = (scale(self.ipv4), scale(self.ipv6), scale(self.changes));
        self.first = self.first.map(scale);
        self
    }

    /// Senders are of the speaker's AS and hear too.
    pub fn is_mesh(&self) -> bool {
        self.shape != Shape::Transit
    }

    /// All senders, that of IPv6 too.
    pub fn all_senders(&self) -> usize {
        self.senders + usize::from(self.ipv6 > 0)
    }

    /// All receivers that are there from the start.
    pub fn all_receivers(&self) -> usize {
        self.receivers + usize::from(self.ipv6 > 0)
    }

    /// Sender `number`: its address and AS.
    pub fn sender(&self, number: usize) -> (IpAddr, u32) {
        let address = if number < self.senders { ipv4(1, number) } else { ipv6(1, number - self.senders) };
        (address, if self.is_mesh() { ASN } else { 100_001 + number as u32 })
    }

    fn receiver(&self, number: usize) -> (IpAddr, u32) {
        // The IPv6 one stands between those of the start and those that come late.
        let address = match number.cmp(&self.receivers) {
            std::cmp::Ordering::Equal if self.ipv6 > 0 => ipv6(2, 0),
            _ => ipv4(2, number),
        };
        (address, 200_001 + number as u32)
    }

    /// All peers of the speaker: senders, receivers, late ones, idlers.
    pub fn peers(&self) -> Vec<Peer> {
        let peer = |role, (address, asn)| Peer { role, address, asn };
        let there = self.all_receivers();
        let idler = |number| (ipv4(3, number), 300_001 + number as u32);
        (0..self.all_senders())
            .map(|number| peer(Role::Sender, self.sender(number)))
            .chain((0..there).map(|number| peer(Role::Receiver, self.receiver(number))))
            .chain((there..there + self.late).map(|number| peer(Role::Late, self.receiver(number))))
            .chain((0..self.idlers).map(|number| peer(Role::Idler, idler(number))))
            .collect()
    }

    /// The numbers of a sender's prefixes among all.
    pub fn told_by(&self, sender: usize) -> Range<usize> {
        if self.same {
            return 0..self.ipv4;
        }
        let size = |sender: usize| match sender {
            0 => self.first.unwrap_or(self.ipv4),
            _ if sender >= self.senders => self.ipv6,
            _ => self.ipv4,
        };
        let start = (0..sender).map(size).sum();
        start..start + size(sender)
    }

    /// The numbers of all IPv4 prefixes that senders tell.
    pub fn all_ipv4(&self) -> Range<usize> {
        0..self.told_by(self.senders - 1).end
    }

    /// The speaker's own blocks.
    pub fn own_blocks(&self) -> Vec<ipnet::IpNet> {
        super::table::blocks((self.senders * self.ipv4).div_ceil(self.blocks.max(1)), self.blocks)
    }
}

fn ipv4(network: u8, number: usize) -> IpAddr {
    Ipv4Addr::new(127, network, (number / 250) as u8, (number % 250 + 1) as u8).into()
}

fn ipv6(network: u16, number: usize) -> IpAddr {
    Ipv6Addr::new(0xfd07, network, 0, 0, 0, 0, 0, number as u16 + 1).into()
}
