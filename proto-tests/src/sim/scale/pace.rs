//! How long things take: the way between two nodes, and the work of one. A model, not a measurement.
//!
//! | way | one way |
//! |---|---|
//! | within a rack | 50 µs |
//! | within a zone | 250 µs |
//! | between zones | 1 ms |
//!
//! each with up to a fifth more, by the dice. A node has one core: what comes while it works waits in its inbox, and is then taken
//! together, so that batches grow with the load as they do in the runtime.

use std::time::Duration;

use super::plan::Place;
use crate::story::Dice;

/// A system call that reads or writes a segment, with what the kernel does for it.
pub const SEGMENT: Duration = Duration::from_micros(10);
/// 64 octets decoded or handed to the socket: most messages are that long.
const OCTETS: Duration = Duration::from_micros(1);
/// A path taken in or a change told to the FIB: import, decision, export. `cargo bench --bench compare` has seen 1.3 to 1.8 µs.
pub const PATH: Duration = Duration::from_micros(2);
/// A round of a shard, whatever is in it.
pub const ROUND: Duration = Duration::from_micros(5);

/// Messages of so many octets decoded, or handed to the socket.
pub fn octets(count: usize) -> Duration {
    OCTETS * count.div_ceil(64) as u32
}

/// One way between two nodes.
pub fn way(from: Place, to: Place, dice: &mut Dice) -> Duration {
    let least = if from.zone != to.zone {
        1_000_000
    } else if from.rack != to.rack {
        250_000
    } else {
        50_000
    };
    Duration::from_nanos(least + dice.below(least / 5))
}
