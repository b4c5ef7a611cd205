//! A hundred peers at once, on a shard without sockets: what joiners and refresh requests cost the others, in rounds and messages.

use std::collections::BTreeMap;

use ipnet::IpNet;
use proto_tests::shard::{Announced, Bench, Told};

const PREFIXES: usize = 4000;
/// Everything is told by it.
const SOURCE: u32 = 1;
/// It has everything, and keeps up.
const BYSTANDER: u32 = 1001;
/// What a round encodes for single members at most, but for the last one's message.
const PRIVATE: usize = 256 << 10;
/// What each asks for at once: as much as one large message.
const WINDOW: usize = 4 << 10;

fn crowd() -> std::ops::Range<u32> {
    2001..2101
}

fn table() -> Announced {
    Announced::new(SOURCE, PREFIXES)
}

/// A shard whose bystander has been told the whole table.
fn bench(table: &Announced) -> Bench {
    let mut bench = Bench::new(SOURCE, 0);
    bench.join(BYSTANDER);
    bench.announce(SOURCE, table);
    let mut told = Told::default();
    for _ in 0..PREFIXES {
        let Some(more) = bench.serve([BYSTANDER], WINDOW).remove(&BYSTANDER) else { break };
        told.add(more);
    }
    assert_eq!((told.announced.len(), told.ended), (PREFIXES, 1));
    bench
}

/// The same when the crowd has just come up.
fn crowded(table: &Announced) -> Bench {
    let mut bench = bench(table);
    crowd().for_each(|peer| bench.join(peer));
    bench
}

/// Serves the crowd until everybody's table has ended, while the source changes a prefix in each round, by an AS after `first`. What each
/// was told; and the rounds.
fn serve(bench: &mut Bench, table: &Announced, first: u32) -> (BTreeMap<u32, Told>, u32) {
    let mut told: BTreeMap<u32, Told> = crowd().map(|peer| (peer, Told::default())).collect();
    let mut rounds = 0;
    while told.values().any(|told| told.ended == 0) {
        rounds += 1;
        assert!(rounds < 2000, "the crowd is never done");
        let changed = bench.change(SOURCE, table, rounds as usize * 7, first + rounds);
        let mut round = bench.serve(crowd().chain([BYSTANDER]), WINDOW);
        let bystander = round.remove(&BYSTANDER).expect("the bystander hears of the change in the same round");
        let prefixes: Vec<IpNet> = bystander.announced.iter().map(|(prefix, _)| *prefix).collect();
        assert_eq!((prefixes, bystander.messages), (vec![changed], 1), "and of nothing else, in round {rounds}");
        let private: usize = round.values().map(|more| more.octets).sum();
        assert!(private < PRIVATE + WINDOW, "the bystander waits until {private} octets are encoded for others");
        for (peer, more) in round {
            assert!(more.octets <= WINDOW, "{peer} was told more than it had room for: {}", more.octets);
            told.get_mut(&peer).expect("one of the crowd").add(more);
        }
    }
    (told, rounds)
}

/// The latest that each prefix was told with.
fn holds(told: &Told) -> BTreeMap<IpNet, usize> {
    told.announced.iter().copied().collect()
}

fn assert_served(bench: &mut Bench, table: &Announced, told: BTreeMap<u32, Told>, rounds: u32) {
    println!("    {rounds} rounds, {} sets, {} messages to the first", table.sets.len(), told[&crowd().start].messages);
    assert!(rounds >= 10, "changes came in the midst of it");
    // What is left of the changes.
    let mut told = told;
    for _ in 0..20 {
        for (peer, more) in bench.serve(crowd().chain([BYSTANDER]), WINDOW) {
            if let Some(told) = told.get_mut(&peer) {
                told.add(more);
            }
        }
    }
    // What a newcomer hears now is what there is.
    bench.join(3000);
    let mut fresh = Told::default();
    while fresh.ended == 0 {
        fresh.add(bench.serve([3000], WINDOW).remove(&3000).expect("it hears the table"));
    }
    let truth = holds(&fresh);
    assert_eq!(truth.len(), PREFIXES);
    for (peer, told) in &told {
        assert!(holds(told) == truth, "{peer} holds something else");
        assert_eq!((told.withdrawn, told.ended), (0, 1), "{peer}");
        // Each prefix once, and each change once more at most; and packed as for one alone.
        let again = told.announced.len() - PREFIXES;
        assert!(again <= rounds as usize, "{peer} was told {again} prefixes more than once");
        let packed = table.sets.len() + 2 * rounds as usize;
        assert!(told.messages <= packed, "{peer}: {} messages for {} sets and {rounds} changes", told.messages, table.sets.len());
    }
}

#[test]
fn a_hundred_joiners_at_once_get_the_table_and_keep_nobody_from_hearing_of_changes() {
    let table = table();
    let mut bench = crowded(&table);
    let (told, rounds) = serve(&mut bench, &table, 70_000);
    assert_served(&mut bench, &table, told, rounds);
}

#[test]
fn a_hundred_refresh_requests_at_once_are_answered_and_keep_nobody_from_hearing_of_changes() {
    let table = table();
    let mut bench = crowded(&table);
    let (told, _) = serve(&mut bench, &table, 70_000);
    assert!(told.values().all(|told| told.ended == 1));
    for _ in 0..20 {
        bench.serve(crowd().chain([BYSTANDER]), WINDOW);
    }
    crowd().for_each(|peer| bench.refresh(peer));
    let (told, rounds) = serve(&mut bench, &table, 80_000);
    assert_served(&mut bench, &table, told, rounds);
}
