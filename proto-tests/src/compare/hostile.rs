//! Malformed messages played against a speaker: the rows of [`live::faults`](crate::live::faults), one peer a row.
//!
//! Each row announces a prefix in order and then says it again with the fault. An observer's session tells what became of it; a canary
//! on the same session whether that lives, another on a bystander's whether anybody else noticed. A speaker that has died is started
//! again for the next row.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;

use super::scenario::{ASN, PORT, Peer, Phase, Scenario, TARGET};
use super::speaker::{Running, Speaker};
use crate::lab::process::wait_until;
use crate::live::faults::{Fate, MARK, Row, Subject};
use crate::live::message::{self, announce, basics, keepalive, update};
use crate::live::{Heard, Neighbour, Observer, PeerPlan};

/// The longest wait for a route; FRR takes 10 s for the first one of an update group.
const PATIENCE: Duration = Duration::from_secs(20);
/// So long what is told may differ from what it will be.
const SETTLE: Duration = Duration::from_millis(700);
/// A process whose sessions have gone may end until then.
const END: Duration = Duration::from_secs(3);
/// A look at each session in turn.
const LOOK: Duration = Duration::from_millis(5);

/// What became of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The faulty message counted; with this attribute of it that ought to be gone, if any.
    Announced(Option<u8>),
    /// The prefix has gone.
    Withdrawn,
    /// The route is as it was before.
    Kept,
    /// A NOTIFICATION ended the session.
    Reset(u8, u8),
    /// It ended without one.
    Closed,
    /// The session lives, but nothing more of it was passed on.
    Deaf,
    /// The process has ended.
    Died,
    /// Another session was lost, or its routes were not passed on.
    Spread,
}

impl Outcome {
    /// Whether it is what must become of it. Which subcode a reset has is the speaker's affair.
    pub fn is(&self, fate: Fate) -> bool {
        match fate {
            Fate::Announced(_) => *self == Self::Announced(None),
            Fate::Withdrawn => *self == Self::Withdrawn,
            Fate::Ignored => *self == Self::Kept,
            Fate::Reset(code, _) => matches!(self, Self::Reset(came, _) if *came == code),
        }
    }

    /// In a word or two.
    pub fn word(&self) -> String {
        match self {
            Self::Announced(None) => "announced".to_owned(),
            Self::Announced(Some(code)) => format!("sent on {code}"),
            Self::Withdrawn => "withdrawn".to_owned(),
            Self::Kept => "kept".to_owned(),
            Self::Reset(code, subcode) => format!("reset {code}/{subcode}"),
            Self::Closed => "closed".to_owned(),
            Self::Deaf => "deaf".to_owned(),
            Self::Died => "DIED".to_owned(),
            Self::Spread => "SPREAD".to_owned(),
        }
    }
}

/// A scenario of a peer for each row, one who observes and one who stands by.
pub fn scenario(rows: usize) -> Scenario {
    let like = Scenario::named("S1").expect("the first scenario");
    Scenario {
        name: "hostile",
        what: "malformed messages",
        senders: rows,
        receivers: 2,
        late: 0,
        phases: &[(Phase::Idle(0), None)],
        ..like
    }
}

/// Plays the rows; what became of each, and what a strict reader complained of in what the speaker sent, with how often.
///
/// # Errors
/// The speaker does not start, or does not pass on a good route.
pub fn play(speaker: &Speaker, rows: &[Row]) -> Result<(Vec<Outcome>, BTreeMap<String, usize>)> {
    let scenario = scenario(rows.len());
    let (mut stage, mut outcomes, mut complaints) = (None, Vec::new(), BTreeMap::new());
    let mut note =
        |here: Stage<'_>| here.observer.complaints.into_iter().for_each(|complaint| *complaints.entry(complaint).or_default() += 1);
    for (number, row) in rows.iter().enumerate() {
        let mut here = match stage.take() {
            Some(here) => here,
            None => Stage::start(speaker, &scenario)?,
        };
        let outcome = here.play(number, row).with_context(|| format!("{}: {}", speaker.name, row.what))?;
        if matches!(outcome, Outcome::Died | Outcome::Spread) {
            note(here);
        } else {
            stage = Some(here);
        }
        outcomes.push(outcome);
    }
    stage.into_iter().for_each(&mut note);
    Ok((outcomes, complaints))
}

/// A speaker that runs, and the two good sessions.
struct Stage<'a> {
    scenario: &'a Scenario,
    running: Running,
    observer: Observer,
    bystander: Neighbour,
}

impl<'a> Stage<'a> {
    fn start(speaker: &Speaker, scenario: &'a Scenario) -> Result<Self> {
        let running = speaker.start(scenario)?;
        let peers = scenario.peers();
        let [.., observer, bystander] = &peers[..] else { unreachable!("two receivers") };
        let observer = Observer::lenient(ASN, establish(*observer)?);
        let mut bystander = establish(*bystander)?;
        bystander.send(&announce(&basics(bystander.plan.asn), &["11.255.0.0/16"]))?;
        let mut stage = Self { scenario, running, observer, bystander };
        ensure!(stage.hears("11.255.0.0/16", PATIENCE)?, "{}: no good route is passed on: {}", speaker.name, stage.running.last_words());
        Ok(stage)
    }

    fn play(&mut self, number: usize, row: &Row) -> Result<Outcome> {
        let peer = self.scenario.peers()[number];
        let subject = Subject { asn: peer.asn, hearer: ASN, prefix: format!("10.{number}.0.0/24") };
        let mut session = establish(peer)?;
        session.send(&subject.before())?;
        ensure!(self.hears(&subject.prefix, PATIENCE)?, "the good route before the faulty one is not passed on");
        let canary = format!("10.{number}.1.0/24");
        let sent = session.send(&row.octets(&subject)).and_then(|()| session.send(&announce(&subject.unmarked(), &[&canary])));
        let outcome = match sent {
            Ok(()) => self.watch(&mut session, row.fate, &subject.prefix, &canary),
            Err(_) => self.farewell(&mut session),
        };
        drop(session);
        if self.running.runs() && outcome != Outcome::Spread && self.is_undisturbed(number) {
            return Ok(outcome);
        }
        // A process that ends may take its time about it.
        Ok(if wait_until(END, "it ends", || ends(&mut self.running)).is_ok() { Outcome::Died } else { Outcome::Spread })
    }

    /// Waits for the canary, or the end of the session, and then for the fate, a while.
    fn watch(&mut self, session: &mut Neighbour, fate: Fate, prefix: &str, canary: &str) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        let mut settled = None;
        while Instant::now() < deadline {
            if self.observer.listen(LOOK).is_err() {
                return Outcome::Spread;
            }
            match session.hear(LOOK) {
                Ok(Heard::Message(message::NOTIFICATION, body)) if body.len() >= 2 => return Outcome::Reset(body[0], body[1]),
                Ok(Heard::Fin | Heard::Reset) | Err(_) => return Outcome::Closed,
                Ok(_) => {}
            }
            if self.observer.knows(canary) {
                let now = self.judge(fate, prefix);
                if now.is(fate) || Instant::now() > *settled.get_or_insert(Instant::now() + SETTLE) {
                    return now;
                }
            }
        }
        Outcome::Deaf
    }

    /// What is left to read of a session that cannot be written to.
    fn farewell(&mut self, session: &mut Neighbour) -> Outcome {
        loop {
            match session.hear(SETTLE) {
                Ok(Heard::Message(message::NOTIFICATION, body)) if body.len() >= 2 => return Outcome::Reset(body[0], body[1]),
                Ok(Heard::Message(..)) => {}
                Ok(_) | Err(_) => return Outcome::Closed,
            }
        }
    }

    fn judge(&self, fate: Fate, prefix: &str) -> Outcome {
        let prefix: IpNet = prefix.parse().expect("a prefix");
        let Some(route) = self.observer.routes.get(&(prefix, None)) else { return Outcome::Withdrawn };
        if !route.communities().contains(&MARK) {
            return Outcome::Kept;
        }
        let lacking = if let Fate::Announced(codes) = fate { codes } else { &[] };
        Outcome::Announced(lacking.iter().copied().find(|code| route.attribute(*code).is_some()))
    }

    fn hears(&mut self, prefix: &str, within: Duration) -> Result<bool> {
        let deadline = Instant::now() + within;
        while !self.observer.knows(prefix) && Instant::now() < deadline && self.running.runs() {
            self.observer.listen(LOOK)?;
        }
        Ok(self.observer.knows(prefix))
    }

    /// The bystander's session lives, and what it says is passed on.
    fn is_undisturbed(&mut self, number: usize) -> bool {
        let canary = format!("11.{number}.0.0/24");
        let said = self.bystander.send(&announce(&basics(self.bystander.plan.asn), &[&canary]));
        let kept = self.observer.session.send(&keepalive()).and_then(|()| self.bystander.send(&keepalive()));
        // What it is told is read, so that nobody waits for it.
        let mut alive = said.is_ok() && kept.is_ok();
        while alive {
            match self.bystander.hear(LOOK) {
                Ok(Heard::Message(message::NOTIFICATION, _) | Heard::Fin | Heard::Reset) | Err(_) => alive = false,
                Ok(Heard::Silence) => break,
                Ok(Heard::Message(..)) => {}
            }
        }
        alive && self.hears(&canary, PATIENCE).unwrap_or(false) && self.observer.knows("11.255.0.0/16")
    }
}

fn ends(running: &mut Running) -> Result<()> {
    ensure!(!running.runs(), "it runs");
    Ok(())
}

/// A session as this peer, its own End-of-RIB said.
fn establish(Peer { address, asn, .. }: Peer) -> Result<Neighbour> {
    let plan = PeerPlan { name: address.to_string(), address, asn, annotations: Vec::new(), key: None };
    let mut session = Neighbour::connect_to(SocketAddr::from((TARGET, PORT)), &plan, None, PATIENCE)?;
    session.send(&[plan.open().message(), keepalive()].concat())?;
    session.confirm()?;
    session.send(&update(&[], &[], &[]))?;
    Ok(session)
}
