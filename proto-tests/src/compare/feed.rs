//! What a sender says, encoded before any clock runs.

use bytes::{Bytes, BytesMut};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use margay::types::{Attributes, Family, Ipv4Unicast, Ipv6Unicast, Nlri, PathId, PerFamily};
use margay::wire::{Context, pack};

/// Octets of a piece that is handed to a session at once.
const PIECE: usize = 256 << 10;

/// One sender's messages.
#[derive(Clone, Debug, Default)]
pub struct Feed {
    /// Announces its whole table.
    pub announce: Vec<Bytes>,
    /// Withdraws it again.
    pub withdraw: Vec<Bytes>,
}

/// How sessions encode: four-octet AS numbers, one family, standard messages.
pub fn context(ebgp: bool, family: Family) -> Context {
    let ipv6 = family == Family::IPV6_UNICAST;
    Context { four_octet_as: true, families: PerFamily { ipv4: !ipv6, ipv6 }, ebgp, ..Context::default() }
}

/// The family of prefixes, which are all of one.
pub fn family(prefixes: &[IpNet]) -> Family {
    if let Some(IpNet::V6(_)) = prefixes.first() { Family::IPV6_UNICAST } else { Family::IPV4_UNICAST }
}

impl Feed {
    /// Messages for `prefixes` in runs that share the attribute set which `set` gives for the number of the run.
    pub fn new(prefixes: &[IpNet], runs: &[usize], ebgp: bool, mut set: impl FnMut(usize) -> Attributes) -> Self {
        let context = context(ebgp, family(prefixes));
        let (mut announce, mut withdraw) = (Vec::new(), Vec::new());
        let mut left = prefixes;
        for (number, length) in runs.iter().enumerate() {
            let (run, rest) = left.split_at(*length);
            announce_run(run, &set(number), &context, &mut announce);
            left = rest;
        }
        match family(prefixes) {
            Family::IPV6_UNICAST => pack::withdraw::<Ipv6Unicast>(&ipv6(prefixes), &context, &mut withdraw),
            _ => pack::withdraw::<Ipv4Unicast>(&ipv4(prefixes), &context, &mut withdraw),
        }
        Self { announce: pieces(&announce), withdraw: pieces(&withdraw) }
    }
}

/// Frames that announce prefixes with one attribute set.
pub fn announce_run(prefixes: &[IpNet], attributes: &Attributes, context: &Context, frames: &mut Vec<Bytes>) {
    let all_fit = match family(prefixes) {
        Family::IPV6_UNICAST => pack::announce::<Ipv6Unicast>(attributes, &ipv6(prefixes), context, frames).is_empty(),
        _ => pack::announce::<Ipv4Unicast>(attributes, &ipv4(prefixes), context, frames).is_empty(),
    };
    assert!(all_fit, "no message can carry {attributes:?}");
}

fn ipv4(prefixes: &[IpNet]) -> Vec<Nlri<Ipv4Net>> {
    let ipv4 = |prefix: &IpNet| match prefix {
        IpNet::V4(prefix) => Some(Nlri { prefix: *prefix, path_id: PathId(0) }),
        IpNet::V6(_) => None,
    };
    prefixes.iter().filter_map(ipv4).collect()
}

fn ipv6(prefixes: &[IpNet]) -> Vec<Nlri<Ipv6Net>> {
    let ipv6 = |prefix: &IpNet| match prefix {
        IpNet::V6(prefix) => Some(Nlri { prefix: *prefix, path_id: PathId(0) }),
        IpNet::V4(_) => None,
    };
    prefixes.iter().filter_map(ipv6).collect()
}

/// Messages one behind the other, cut only between messages.
fn pieces(frames: &[Bytes]) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let mut open = BytesMut::new();
    for frame in frames {
        if !open.is_empty() && open.len() + frame.len() > PIECE {
            pieces.push(open.split().freeze());
        }
        open.extend_from_slice(frame);
    }
    if !open.is_empty() {
        pieces.push(open.freeze());
    }
    pieces
}
