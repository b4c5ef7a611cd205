//! The numbers of a Statistics Report: from the peers' tasks and from the shards.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::teller::Teller;
use crate::control::ask;
use crate::rib::{Answer, Needless, Query};
use crate::runtime::directory::Directory;
use crate::session::PeerStatus;
use crate::telemetry::bmp::{self, Moment, Statistic, Subject, View};
use crate::types::{Family, PeerId, PerFamily};

/// What the collectors of one moment are told.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    peers: BTreeMap<PeerId, PeerStatus>,
    needless: BTreeMap<PeerId, Needless>,
    loc_rib: PerFamily<u64>,
}

impl Numbers {
    /// Asks everybody who knows.
    pub(super) async fn ask(directory: &Directory) -> Self {
        let asked = directory.peers.values().map(|entry| async move { Some((entry.id, ask::status(entry).await?)) });
        let peers = futures::future::join_all(asked).await.into_iter().flatten().collect();
        let mut numbers = Self { peers, ..Self::default() };
        for mut answer in ask::routes(directory, Query::Totals).await {
            while let Some(Answer::Totals(loc_rib, needless)) = answer.recv().await {
                numbers.loc_rib.ipv4 += loc_rib.ipv4;
                numbers.loc_rib.ipv6 += loc_rib.ipv6;
                for (peer, more) in needless {
                    let sum = numbers.needless.entry(peer).or_default();
                    sum.announcements = sum.announcements.saturating_add(more.announcements);
                    sum.withdrawals = sum.withdrawals.saturating_add(more.withdrawals);
                }
            }
        }
        numbers
    }

    /// Appends a report for each peer that the collector knows, and one for the Loc-RIB if it is told of it.
    pub(super) fn report(&self, teller: &Teller, wants: impl Fn(View) -> bool, at: Moment, out: &mut Vec<Bytes>) {
        for (peer, subject) in teller.peers() {
            if let Some(status) = self.peers.get(&peer) {
                out.push(self.of_peer(peer, status, subject, &wants, at));
            }
        }
        if wants(View::LocRib) {
            let mut numbers = vec![Statistic::LocRib(self.loc_rib.ipv4 + self.loc_rib.ipv6)];
            numbers.extend(self.loc_rib.iter().map(|(family, count)| Statistic::LocRibOf(family, *count)));
            out.push(bmp::statistics(teller.loc_rib(), &numbers, at));
        }
    }

    fn of_peer(&self, peer: PeerId, status: &PeerStatus, subject: &Subject, wants: impl Fn(View) -> bool, at: Moment) -> Bytes {
        let needless = self.needless.get(&peer).copied().unwrap_or_default();
        let families = || status.families.iter().filter(|(family, _)| status.families_in_use.contains(family));
        let received: u64 = families().map(|(_, counts)| counts.received).sum();
        let accepted: u64 = families().map(|(_, counts)| counts.accepted).sum();
        let advertised: u64 = families().map(|(_, counts)| counts.advertised).sum();
        let mut numbers = vec![
            Statistic::Rejected(short(received.saturating_sub(accepted))),
            Statistic::DuplicateAnnouncements(needless.announcements),
            Statistic::DuplicateWithdrawals(needless.withdrawals),
            Statistic::AdjRibIn(received),
            Statistic::FaultyUpdates(short(status.faulty_updates)),
        ];
        numbers.extend(families().map(|(family, counts)| Statistic::AdjRibInOf(family, counts.received)));
        if wants(View::AdjRibOut) {
            numbers.push(Statistic::AdjRibOut(advertised));
            numbers.extend(families().map(|(family, counts): (Family, _)| Statistic::AdjRibOutOf(family, counts.advertised)));
        }
        bmp::statistics(subject, &numbers, at)
    }
}

fn short(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
