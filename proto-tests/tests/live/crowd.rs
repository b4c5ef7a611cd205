//! Many peers at once, counted instead of timed: scenarios of the comparing bench in small; and a large answer beside changes.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proto_tests::compare::run::{Prepared, Row};
use proto_tests::compare::scenario::{Phase, Scenario};
use proto_tests::compare::speaker::Speaker;
use proto_tests::live::message::{announce, basics, communities};
use proto_tests::live::{Daemon, Neighbour, Observer, Plan, enclosed};

use crate::compare::prepare;

const LIMIT: Duration = Duration::from_secs(120);

fn rows(scenario: Scenario, margay: &Speaker) -> Result<Vec<Row>> {
    let rows = Prepared::new(scenario).run(margay, LIMIT);
    for row in &rows {
        ensure!(row.error.is_none(), "{}: {:?}", row.row, row.error);
    }
    Ok(rows)
}

/// A reflector's clients, and the members of a mesh, hear each set of attributes in one message: so messages grow with the sessions
/// in a mesh, and with their square, which is what there is to tell, at a reflector.
#[test]
fn messages_grow_no_faster_than_what_there_is_to_tell() {
    enclosed(|| {
        let margay = prepare()?;
        for name in ["S4", "mesh-125"] {
            for senders in [20, 40, 80] {
                let like = Scenario::named(name).context("a scenario of that name")?;
                let phases = &[(Phase::Feed, Some("feed"))];
                let row = rows(Scenario { senders, phases, ..like }, &margay)?.remove(0);
                println!("    {name} with {senders}: {} messages, {} octets, {} would do", row.messages, row.octets, row.least);
                ensure!(row.announced >= row.least && row.again == 0, "each prefix once: {row:?}");
                // Its own address, which a reflector tells each client as well, and what no longer fits into one message.
                ensure!(row.messages <= row.least + senders as u64 + 4, "{name} with {senders} sessions: {row:?}");
            }
        }
        Ok(())
    });
}

/// Keepalives leave beside a storm: while one session tells a table, withdraws it and tells it again, no hold timer of 3 s expires on any of
/// the others, on neither side (either would fail the row).
#[test]
fn no_session_is_lost_while_another_one_tells_a_table() {
    enclosed(|| {
        let margay = prepare()?;
        let storm = Scenario::named("storm-1000").context("a scenario of that name")?;
        let rows = rows(Scenario { idlers: 195, ..storm.scaled(0.1) }, &margay)?;
        ensure!(rows.len() == 3, "told, withdrawn, told again: {rows:?}");
        for row in rows {
            println!(
                "    {}: {:.1} s, no session was silent for longer than {:.1} s",
                row.row,
                row.seconds,
                row.silence.unwrap_or_default()
            );
            ensure!(row.sessions == 200 && row.silence.is_some_and(|silence| silence > 0.0), "{row:?}");
        }
        Ok(())
    });
}

/// An answer that is read bit by bit.
struct Answer {
    stream: UnixStream,
    text: Vec<u8>,
}

impl Answer {
    fn ask(daemon: &Daemon, path: &str) -> Result<Self> {
        let mut stream = UnixStream::connect(daemon.socket())?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: margay\r\nConnection: close\r\n\r\n").as_bytes())?;
        Ok(Self { stream, text: Vec::new() })
    }

    /// Reads so many octets more; whether there were as many.
    fn read(&mut self, octets: u64) -> Result<bool> {
        Ok(Read::by_ref(&mut self.stream).take(octets).read_to_end(&mut self.text)? as u64 == octets)
    }

    /// The chunks of the body.
    fn chunks(&self) -> Result<Vec<&[u8]>> {
        let head = self.text.windows(4).position(|four| four == b"\r\n\r\n").context("no end of the head")?;
        let (mut chunks, mut rest) = (Vec::new(), &self.text[head + 4..]);
        loop {
            let line = rest.windows(2).position(|two| two == b"\r\n").context("no size of a chunk")?;
            let size = usize::from_str_radix(std::str::from_utf8(&rest[..line])?, 16)?;
            rest = &rest[line + 2..];
            if size == 0 {
                return Ok(chunks);
            }
            chunks.push(rest.get(..size).context("half a chunk")?);
            rest = &rest[size + 2..];
        }
    }
}

/// `show routes` on a large table streams: in chunks of bounded size, for a reader who pauses as well, and changes reach peers meanwhile.
#[test]
fn a_large_answer_streams_and_neither_stalls_the_shards_nor_fills_memory() {
    const ROUTES: u32 = 40_000;
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let [source, fast] = &daemon.peers[..] else { unreachable!("two peers") };
        let mut source = Neighbour::establish(&daemon, source)?;
        let mut fast = Observer::establish(&daemon, fast)?;
        let labels: Vec<u32> = (0..40).map(|number| 0xfde8_0000 + number).collect();
        let attributes = [basics(source.plan.asn), vec![communities(&labels)]].concat();
        let prefix = |number: u32| format!("{}.{}.{}.0/24", 11 + (number >> 16), number >> 8 & 255, number & 255);
        for part in (0..ROUTES).collect::<Vec<_>>().chunks(200) {
            let prefixes: Vec<String> = part.iter().copied().map(prefix).collect();
            source.send(&announce(&attributes, &prefixes.iter().map(String::as_str).collect::<Vec<_>>()))?;
        }
        fast.until("everything", |seen| seen.routes.len() == ROUTES as usize)?;
        let before = daemon.resident()?;
        let mut most = before;
        let mut answer = Answer::ask(&daemon, "/v1/routes")?;
        // Nothing is read at first, and then a little before each change: it has not ended.
        for number in 0..60 {
            ensure!(answer.read(if number < 30 { 1 } else { 64 << 10 })?, "the answer has ended with change {number}");
            let prefix = format!("99.0.{number}.0/24");
            source.send(&announce(&attributes, &[&prefix]))?;
            fast.route(&prefix)?;
            most = most.max(daemon.resident()?);
        }
        let early = answer.text.len();
        ensure!(!answer.read(1 << 40)?, "it ends");
        most = most.max(daemon.resident()?);
        let chunks = answer.chunks()?;
        let (octets, largest) = (answer.text.len(), chunks.iter().map(|chunk| chunk.len()).max().unwrap_or(0));
        println!(
            "    {octets} octets in {} chunks of {largest} at most, {early} before the last change; {} octets more in memory",
            chunks.len(),
            most - before
        );
        ensure!(octets > 2 * early && largest <= 2 << 20, "{octets} octets, {early} early, {largest} in a chunk");
        ensure!(most - before < (octets / 2) as u64, "{} octets more in memory for {octets}", most - before);
        let text = chunks.concat();
        let told = text.split(|octet| *octet == b'\n').filter(|line| !line.is_empty()).map(serde_json::from_slice::<serde_json::Value>);
        let mut prefixes = std::collections::BTreeSet::new();
        for route in told {
            ensure!(prefixes.insert(route?["prefix"].to_string()), "a prefix is there twice");
        }
        ensure!((0..ROUTES).all(|number| prefixes.contains(&format!("\"{}\"", prefix(number)))), "{} prefixes", prefixes.len());
        Ok(())
    });
}
