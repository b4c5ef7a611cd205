//! Whether one peer alone tells routes at present, or several in turn.
//!
//! A peer that is alone hands whole reads to the shards: in pieces a table takes a tenth more time. Where others have something to say they
//! wait for no more than a piece (`cargo bench --workspace --bench compare -- --scenarios S1,S7-reload`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::types::PeerId;

/// No peer, no time.
const NONE: u32 = u32::MAX;
const NEVER: u64 = u64::MAX;

/// How long a peer that has said something of its table counts as one that others should not keep waiting.
const TALK: Duration = Duration::from_secs(1);

/// See the module; all clones count together.
#[derive(Clone, Debug)]
pub struct Talk(Arc<TalkState>);

#[derive(Debug)]
struct TalkState {
    since: Instant,
    /// Who was the last; or `NONE`.
    last: AtomicU32,
    /// When it had last been somebody else before, in milliseconds from `since`, or `NEVER`.
    turned: AtomicU64,
}

impl Default for Talk {
    fn default() -> Self {
        Self(Arc::new(TalkState { since: Instant::now(), last: AtomicU32::new(NONE), turned: AtomicU64::new(NEVER) }))
    }
}

impl Talk {
    /// The peer tells routes; whether it has been alone for a while.
    pub fn tells(&self, peer: PeerId, now: Instant) -> bool {
        let TalkState { since, last, turned } = &*self.0;
        let at = u64::try_from(now.saturating_duration_since(*since).as_millis()).unwrap_or(NEVER);
        let before = last.swap(peer.0, Ordering::Relaxed);
        if before != peer.0 && before != NONE {
            turned.store(at, Ordering::Relaxed);
        }
        let turned = turned.load(Ordering::Relaxed);
        turned == NEVER || u128::from(at.saturating_sub(turned)) > TALK.as_millis()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_alone_until_another_one_speaks_and_again_a_second_after_it() {
        let (talk, start) = (Talk::default(), Instant::now());
        let (table, change) = (PeerId(1), PeerId(2));
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        assert!(talk.tells(table, after(0)) && talk.tells(table, after(1)));
        assert!(!talk.tells(change, after(2)));
        assert!(!talk.tells(table, after(3)) && !talk.tells(table, after(900)));
        assert!(talk.tells(table, after(1100)), "the other one has been silent for long");
    }
}
