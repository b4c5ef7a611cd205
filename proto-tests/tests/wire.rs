//! The wire against recorded messages, against mutations of them, and against a second codec.

use std::cell::RefCell;
use std::collections::BTreeMap;

use margay::wire::{Context, EncodeError, Message};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use proto_tests::wire::vector::{Vectors, decode};
use proto_tests::wire::{context, generate, mutate, oracle};

/// The same cases each time.
fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, rng_seed: RngSeed::Fixed(179), failure_persistence: None, ..Config::default() })
}

fn session(words: &str) -> Context {
    context(words).unwrap()
}

#[test]
fn o12_vectors_mean_what_they_say() {
    let bless = std::env::var_os("BLESS").is_some();
    let vectors = Vectors::all();
    assert!(vectors.len() > 5);
    for vectors in vectors {
        let (is, should) = (std::fs::read_to_string(&vectors.path).unwrap(), vectors.render());
        if bless {
            std::fs::write(&vectors.path, &should).unwrap();
        } else if is != should {
            let (line, (is, should)) =
                is.lines().zip(should.lines()).enumerate().find(|(_, (is, should))| is != should).unwrap_or((0, ("", "")));
            panic!("{}:{}: is\n  {is}\nshould be\n  {should}\n(BLESS=1 writes it anew)", vectors.path.display(), line + 1);
        }
    }
}

#[test]
fn vectors_cut_anywhere_and_with_any_bit_flipped_have_an_answer() {
    for vectors in Vectors::all() {
        for message in vectors.messages() {
            let mut message = message.to_vec();
            for end in (19..message.len()).rev() {
                message.truncate(end);
                let length = (end as u16).to_be_bytes();
                message[16..18].copy_from_slice(&length);
                mutate::stream(&message, &vectors.context);
            }
        }
        for message in vectors.messages() {
            for bit in 0..message.len() * 8 {
                let mut message = message.to_vec();
                message[bit / 8] ^= 1 << (bit % 8);
                mutate::stream(&message, &vectors.context);
            }
        }
    }
}

#[test]
fn q11_mutations_have_an_answer() {
    let messages: Vec<Vec<u8>> =
        Vectors::all().iter().flat_map(|vectors| vectors.messages().map(<[u8]>::to_vec).collect::<Vec<_>>()).collect();
    let contexts = mutate::contexts();
    for seed in 0..40_000_u64 {
        let message = &messages[seed as usize % messages.len()];
        let context = &contexts[seed as usize / messages.len() % contexts.len()];
        mutate::stream(&mutate::mutate(message, seed), context);
    }
    for seed in 0..256 {
        let octets = mutate::mutate(&[seed as u8; 64], seed);
        mutate::fuzz(&octets);
    }
}

const SESSIONS: [&str; 4] = [
    "ibgp as4 ipv4 ipv6 as-set",
    "ibgp as4 ipv4 ipv6 as-set add-path",
    "ibgp ipv4 ipv6 as-set",
    "ibgp as4 ipv4 ipv6 as-set extended-next-hop",
];

#[test]
fn what_we_say_is_heard_as_we_meant_it() {
    for words in SESSIONS {
        let context = session(words);
        let strategy = generate::message(words.contains("add-path"), true);
        let run = runner(150).run(&strategy, |message| {
            let octets = match message.encode(&context) {
                Ok(octets) => octets,
                Err(EncodeError::TooLong { .. }) => return Ok(()),
                Err(error) => panic!("{error}"),
            };
            mutate::stream(&octets, &context);
            Ok(())
        });
        run.unwrap();
    }
}

#[test]
fn q15_the_oracle_reads_what_we_write_and_writes_the_same() {
    for words in SESSIONS {
        let context = session(words);
        let strategy = generate::message(words.contains("add-path"), true);
        let run = runner(200).run(&strategy, |message| {
            let Ok(octets) = message.encode(&context) else { return Ok(()) };
            let again = oracle::opinion(&octets, &context).map_err(|error| TestCaseError::fail(format!("{octets:02x?}: {error}")))?;
            prop_assert_eq!(&octets[..], &again[..]);
            Ok(())
        });
        run.unwrap();
    }
}

#[test]
fn the_oracle_agrees_on_what_is_wrong() {
    let explained: RefCell<BTreeMap<&str, usize>> = RefCell::default();
    let unexplained: RefCell<Vec<String>> = RefCell::default();
    for words in SESSIONS {
        let context = session(words);
        let strategy = (generate::message(words.contains("add-path"), true), any::<u64>());
        let run = runner(400).run(&strategy, |(message, seed)| {
            let Ok(octets) = message.encode(&context) else { return Ok(()) };
            let octets = mutate::mutate(&octets, seed);
            let Ok(Some((_, length))) = margay::wire::frame::header(&octets, &context) else { return Ok(()) };
            if length != octets.len() {
                return Ok(());
            }
            match oracle::compare(&octets, &context, &decode(&octets, &context)) {
                Ok(name) => *explained.borrow_mut().entry(name.unwrap_or("they agree")).or_default() += 1,
                Err(difference) => unexplained.borrow_mut().push(format!("{words}: {octets:02x?}\n{difference}")),
            }
            Ok(())
        });
        run.unwrap();
    }
    let (explained, unexplained) = (explained.into_inner(), unexplained.into_inner());
    assert!(
        unexplained.is_empty(),
        "{} differences that nothing explains, such as\n{}",
        unexplained.len(),
        unexplained[..unexplained.len().min(3)].join("\n")
    );
    assert!(explained["they agree"] > explained.values().sum::<usize>() / 2, "{explained:?}");
}

#[test]
fn messages_keep_their_type() {
    let context = session("ebgp as4 ipv4 ipv6");
    let run = runner(50).run(&generate::message(false, false), |message: Message| {
        if let Ok(octets) = message.encode(&context) {
            prop_assert_eq!(octets[18], message.kind() as u8);
        }
        Ok(())
    });
    run.unwrap();
}
