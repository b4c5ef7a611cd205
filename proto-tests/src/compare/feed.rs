//! What a sender says, encoded before any clock runs.

use bytes::{Bytes, BytesMut};
use ipnet::{IpNet, Ipv4Net};
use margay::types::{Attributes, Ipv4Unicast, Nlri, PathId, PerFamily};
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

/// How sessions encode: four-octet AS numbers, IPv4, standard messages.
pub fn context(ebgp: bool) -> Context {
    Context { four_octet_as: true, families: PerFamily { ipv4: true, ipv6: false }, ebgp, ..Context::default() }
}

impl Feed {
    /// Messages for `prefixes` in runs that share the attribute set which `set` gives for the number of the run.
    pub fn new(prefixes: &[IpNet], runs: &[usize], ebgp: bool, mut set: impl FnMut(usize) -> Attributes) -> Self {
        let context = context(ebgp);
        let (mut announce, mut withdraw) = (Vec::new(), Vec::new());
        let mut left = prefixes;
        for (number, length) in runs.iter().enumerate() {
            let (run, rest) = left.split_at(*length);
            announce_run(run, &set(number), &context, &mut announce);
            left = rest;
        }
        pack::withdraw::<Ipv4Unicast>(&nlri(prefixes), &context, &mut withdraw);
        Self { announce: pieces(&announce), withdraw: pieces(&withdraw) }
    }
}

/// Frames that announce prefixes with one attribute set.
pub fn announce_run(prefixes: &[IpNet], attributes: &Attributes, context: &Context, frames: &mut Vec<Bytes>) {
    let left = pack::announce::<Ipv4Unicast>(attributes, &nlri(prefixes), context, frames);
    assert!(left.is_empty(), "no message can carry {attributes:?}");
}

fn nlri(prefixes: &[IpNet]) -> Vec<Nlri<Ipv4Net>> {
    let ipv4 = |prefix: &IpNet| match prefix {
        IpNet::V4(prefix) => Some(Nlri { prefix: *prefix, path_id: PathId(0) }),
        IpNet::V6(_) => None,
    };
    prefixes.iter().filter_map(ipv4).collect()
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
