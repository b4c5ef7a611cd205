//! Which of two connections with one peer survives (RFC 4271 6.8, RFC 6286, RFC 4724 section 5): a pure function.
//!
//! It is asked when a connection has received a good OPEN while another one of the same peer exists. Both ends must
//! come to the same answer by themselves, so it rests on what both know: who opened which connection, and the two
//! identifiers. Two things are not known, and care is taken of both, or each end might close another connection:
//!
//! * A connection on which the peer's OPEN has not come proves nothing: perhaps the peer has closed it already. It is
//!   kept, and one that could become Established waits a moment for it where it would be preferred ([`awaits`]).
//! * Once our KEEPALIVE is out the peer may be Established, and then closes the new connection. So the connection in
//!   OpenConfirm that is to lose is closed when the peer's KEEPALIVE on the other one shows that it agrees, or after
//!   [`COLLISION_WINDOW`](super::timer::COLLISION_WINDOW) without a word ([`Verdict::CloseOtherLater`]).

use crate::types::{Asn, RouterId};

/// One end's identity in the contest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Speaker {
    /// Its BGP identifier, compared as an unsigned number.
    pub identifier: RouterId,
    /// Its AS, which decides between equal identifiers (RFC 6286).
    pub asn: Asn,
}

/// The other connection of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rival {
    /// We opened it.
    pub outgoing: bool,
    /// How far it is.
    pub phase: Phase,
}

/// How far the other connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Connect or Active: no TCP connection yet.
    Trying,
    /// The peer's OPEN has not come.
    OpenSent,
    /// The peer's OPEN has come.
    OpenConfirm,
    /// Routes flow.
    Established {
        /// Graceful restart has been negotiated on it.
        graceful: bool,
        /// It became so just now: a connection that the other side opens may have been under way before.
        young: bool,
    },
}

/// What becomes of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing yet: the other one's OPEN decides.
    KeepBoth,
    /// This one goes on; the other is dropped without a word.
    DropOther,
    /// This one goes on; the other gets 6/7 unless the peer wants it otherwise.
    CloseOtherLater,
    /// This one gets 6/7.
    CloseThis,
    /// The peer has restarted: the other is closed without NOTIFICATION and its routes turn stale (F8).
    Restarted,
}

/// Judges a connection that received a good OPEN (`outgoing`: we opened it) against the other one.
pub(super) fn judge(outgoing: bool, rival: Rival, us: Speaker, peer: Speaker) -> Verdict {
    let both_opened_by_one = outgoing == rival.outgoing;
    let preferred = ours_preferred(us, peer) == outgoing;
    match rival.phase {
        Phase::Trying => Verdict::DropOther,
        Phase::OpenSent => Verdict::KeepBoth,
        Phase::OpenConfirm if both_opened_by_one || !preferred => Verdict::CloseThis,
        Phase::OpenConfirm => Verdict::CloseOtherLater,
        Phase::Established { young: true, .. } if !both_opened_by_one => Verdict::CloseThis,
        Phase::Established { graceful: true, .. } => Verdict::Restarted,
        Phase::Established { .. } => Verdict::CloseThis,
    }
}

/// Whether a connection gives way to the other one where that may still get on.
pub(super) fn awaits(outgoing: bool, rival: Option<Rival>, us: Speaker, peer: Speaker) -> bool {
    rival.is_some_and(|rival| {
        matches!(rival.phase, Phase::OpenSent | Phase::OpenConfirm)
            && rival.outgoing != outgoing
            && ours_preferred(us, peer) == rival.outgoing
    })
}

/// Whether the connection that we opened is preferred to the one that the peer opened.
fn ours_preferred(us: Speaker, peer: Speaker) -> bool {
    us > peer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speaker(identifier: [u8; 4], asn: u32) -> Speaker {
        Speaker { identifier: RouterId(identifier.into()), asn: Asn(asn) }
    }

    const OPEN_SENT: Phase = Phase::OpenSent;
    const OPEN_CONFIRM: Phase = Phase::OpenConfirm;

    /// (we have the higher identifier, we opened this one, we opened the other, the other's phase, verdict)
    const LADDER: [(bool, bool, bool, Phase, Verdict); 17] = [
        (true, true, false, Phase::Trying, Verdict::DropOther),
        (false, false, true, Phase::Trying, Verdict::DropOther),
        (true, true, false, OPEN_SENT, Verdict::KeepBoth),
        (false, true, false, OPEN_SENT, Verdict::KeepBoth),
        (true, true, false, OPEN_CONFIRM, Verdict::CloseOtherLater),
        (true, false, true, OPEN_CONFIRM, Verdict::CloseThis),
        (false, true, false, OPEN_CONFIRM, Verdict::CloseThis),
        (false, false, true, OPEN_CONFIRM, Verdict::CloseOtherLater),
        (true, false, false, OPEN_CONFIRM, Verdict::CloseThis),
        (true, false, true, Phase::Established { graceful: false, young: false }, Verdict::CloseThis),
        (false, false, true, Phase::Established { graceful: false, young: false }, Verdict::CloseThis),
        (true, false, true, Phase::Established { graceful: true, young: false }, Verdict::Restarted),
        (false, false, false, Phase::Established { graceful: true, young: false }, Verdict::Restarted),
        (true, false, true, Phase::Established { graceful: true, young: true }, Verdict::CloseThis),
        (false, false, true, Phase::Established { graceful: true, young: true }, Verdict::CloseThis),
        (false, false, true, Phase::Established { graceful: false, young: true }, Verdict::CloseThis),
        (false, false, false, Phase::Established { graceful: true, young: true }, Verdict::Restarted),
    ];

    #[test]
    fn f6_f7_f8_ladder() {
        let (low, high) = (speaker([10, 0, 0, 1], 64512), speaker([200, 0, 0, 1], 64512));
        for (we_are_higher, this, other, phase, verdict) in LADDER {
            let (us, peer) = if we_are_higher { (high, low) } else { (low, high) };
            let rival = Rival { outgoing: other, phase };
            assert_eq!(judge(this, rival, us, peer), verdict, "higher={we_are_higher} this={this} {rival:?}");
        }
    }

    #[test]
    fn f6_equal_identifiers_are_decided_by_the_as() {
        let (low, high) = (speaker([10, 0, 0, 1], 64512), speaker([10, 0, 0, 1], 4_200_000_000));
        let rival = Rival { outgoing: false, phase: OPEN_CONFIRM };
        assert_eq!(judge(true, rival, high, low), Verdict::CloseOtherLater);
        assert_eq!(judge(true, rival, low, high), Verdict::CloseThis);
    }

    #[test]
    fn f9_both_ends_keep_the_same_connection() {
        // Connection A is opened by the first end, B by the second; each end judges the one whose OPEN came last.
        let ends = [speaker([10, 0, 0, 1], 1), speaker([10, 0, 0, 2], 1)];
        for (first, second) in [(ends[0], ends[1]), (ends[1], ends[0])] {
            for (last_at_first_is_a, last_at_second_is_a) in [(true, true), (true, false), (false, true), (false, false)] {
                let keeps_a = |opened_a: bool, last_is_a: bool, us, peer| {
                    let this = opened_a == last_is_a;
                    let verdict = judge(this, Rival { outgoing: !this, phase: OPEN_CONFIRM }, us, peer);
                    (verdict == Verdict::CloseOtherLater) == last_is_a
                };
                let at_first = keeps_a(true, last_at_first_is_a, first, second);
                let at_second = keeps_a(false, last_at_second_is_a, second, first);
                assert_eq!(at_first, at_second);
            }
        }
    }

    #[test]
    fn only_the_preferred_connection_is_awaited() {
        let (low, high) = (speaker([10, 0, 0, 1], 1), speaker([10, 0, 0, 2], 1));
        let rival = |outgoing, phase| Some(Rival { outgoing, phase });
        assert!(awaits(false, rival(true, OPEN_SENT), high, low));
        assert!(awaits(true, rival(false, OPEN_SENT), low, high));
        assert!(!awaits(true, rival(false, OPEN_SENT), high, low));
        assert!(!awaits(false, rival(true, Phase::Trying), high, low));
        assert!(!awaits(false, None, high, low));
    }
}
