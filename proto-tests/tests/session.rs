//! Peer machines as stories: two of them and a link in virtual time.
//! Long because it is a list: one short story a rule.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use margay::bfd::Report;
use margay::bfd::packet::{Diagnostic, State as BfdState};
use margay::config::{Authentication, BfdConfig, ConsecutiveRestarts, MaxPrefixAction, MaxPrefixes, PeerConfig};
use margay::session::{Event, Input, Output, Peer, PrefixCounts, Settings, State, StopReason};
use margay::types::{Asn, ConnectionId, Family, Outbox, PeerId, PerFamily, RouterId, ShardId};
use margay::wire::{Capability, Context, GracefulRestart, Message, Notification, Open, RouteRefresh, Update};
use proto_tests::story::{Dice, Pair, config};

const NONE: PerFamily<bool> = PerFamily { ipv4: false, ipv6: false };
const V4: PerFamily<bool> = PerFamily { ipv4: true, ipv6: false };
const SECOND: Duration = Duration::from_secs(1);

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// F11: started at the same instant, Established within 2 × ConnectRetry + 1 s, and no flap after.
#[test]
fn f11_simultaneous_starts() {
    for seed in 0..100 {
        let mut pair = Pair::new(seed, |_, _| {});
        pair.start();
        pair.run(seconds(11));
        assert_eq!(pair.states(), [State::Established; 2], "seed {seed}");
        pair.run(seconds(600));
        for end in &pair.ends {
            assert_eq!(end.ups().len(), 1, "seed {seed}: {:?}", end.reasons());
            assert_eq!(end.downs(), [], "seed {seed}");
        }
    }
}

/// F11, at its worst: both connect in the same millisecond, again and again.
#[test]
fn f11_truly_simultaneous_connects() {
    for seed in 0..100 {
        let mut pair = Pair::new(seed, |a, b| {
            (a.connect_delay, b.connect_delay) = (Duration::ZERO, Duration::ZERO);
        });
        pair.start();
        pair.run(seconds(11));
        assert_eq!(pair.states(), [State::Established; 2], "seed {seed}: {:?} {:?}", pair.ends[0].reasons(), pair.ends[1].reasons());
        pair.run(seconds(600));
        for end in &pair.ends {
            assert_eq!((end.ups().len(), end.downs().len()), (1, 0), "seed {seed}: {:?}", end.reasons());
        }
    }
}

/// F6: equal identifiers on eBGP are decided by the AS, at both ends alike.
#[test]
fn f6_equal_identifiers() {
    for seed in 0..100 {
        let mut pair = Pair::new(seed, |a, b| {
            (a.connect_delay, b.connect_delay) = (Duration::ZERO, Duration::ZERO);
            b.router_id = a.router_id;
            (b.local_asn, a.remote_asn) = (Asn(65001), Asn(65001));
        });
        pair.start();
        pair.run(seconds(11));
        assert_eq!(pair.states(), [State::Established; 2], "seed {seed}");
        assert!(pair.ends.iter().all(|end| end.downs().is_empty()), "seed {seed}");
    }
}

/// H1: the same story whatever the cut.
#[test]
fn h1_any_cut() {
    for segment in 1..=64 {
        let mut pair = Pair::new(7, |_, _| {});
        pair.segment = Some(segment);
        pair.establish();
        assert!(pair.ends.iter().all(|end| end.log.iter().any(|(_, output)| matches!(output, Output::EndOfRib(_)))));
    }
}

/// F15: a passive peer never connects, and is reached all the same; two passive ones wait for ever.
#[test]
fn f15_passive() {
    let mut pair = Pair::new(1, |_, b| b.passive = true);
    pair.establish();
    let status = pair.ends[1].peer.status(Instant::now());
    assert_eq!(status.outgoing, Some(false));
    let mut pair = Pair::new(1, |a, b| (a.passive, b.passive) = (true, true));
    pair.start();
    pair.run(seconds(1000));
    assert_eq!(pair.states(), [State::Active; 2]);
}

/// A silent peer: 4/0 after the hold time, its paths stale for its restart time.
#[test]
fn hold_expiry_keeps_paths_for_the_restart_time() {
    let mut pair = Pair::new(3, |_, _| {});
    pair.establish();
    pair.run(seconds(100));
    pair.blackhole = true;
    let before = pair.now();
    pair.run(seconds(91));
    for end in &pair.ends {
        assert_eq!(end.downs(), [V4]);
        assert!(end.reasons().contains(&(4, 0)));
    }
    pair.run(seconds(121));
    for end in &pair.ends {
        let [(at, Family::IPV4_UNICAST)] = end.sweeps()[..] else { panic!("{:?}", end.sweeps()) };
        let after = at - before;
        assert!(after >= seconds(60 + 120) && after <= seconds(90 + 121), "{after:?}");
    }
    pair.blackhole = false;
    pair.run(seconds(60));
    assert_eq!(pair.states(), [State::Established; 2]);
}

/// Section 11, the peer restarted: killed and back in time, End-of-RIB ends the wait.
#[test]
fn restart_in_time() {
    let mut pair = Pair::new(4, |_, _| {});
    pair.establish();
    pair.kill(1);
    pair.run(seconds(20));
    assert_eq!(pair.ends[0].downs(), [V4]);
    assert_eq!(pair.ends[0].sweeps(), []);
    pair.revive(1);
    pair.run(seconds(40));
    assert_eq!(pair.states(), [State::Established; 2]);
    let up = pair.ends[0].ups()[1];
    let [(swept, Family::IPV4_UNICAST)] = pair.ends[0].sweeps()[..] else { panic!("{:?}", pair.ends[0].sweeps()) };
    assert!(swept >= up && swept < up + SECOND, "swept on End-of-RIB: {swept:?} {up:?}");
}

/// Not back in time: the Restart timer sweeps.
#[test]
fn restart_too_late() {
    let mut pair = Pair::new(5, |_, b| b.restart_time = 40);
    pair.establish();
    pair.kill(1);
    let killed = pair.now();
    pair.run(seconds(60));
    let [(swept, Family::IPV4_UNICAST)] = pair.ends[0].sweeps()[..] else { panic!("{:?}", pair.ends[0].sweeps()) };
    assert!(swept >= killed + seconds(40) && swept < killed + seconds(41));
}

/// RFC 9494: not back in its restart time either, the peer's paths are long-lived; they go when that time is over, or with End-of-RIB.
#[test]
fn llgr_restart_much_too_late() {
    for back in [false, true] {
        let mut pair = Pair::new(5, |a, b| {
            b.restart_time = 40;
            (a.long_lived, b.long_lived) = (Some(5000), Some(1000));
        });
        pair.establish();
        pair.kill(1);
        let killed = pair.now();
        pair.run(seconds(100));
        let [(began, Family::IPV4_UNICAST)] = pair.ends[0].long_lived()[..] else { panic!("{:?}", pair.ends[0].long_lived()) };
        assert!(began >= killed + seconds(40) && began < killed + seconds(41));
        assert_eq!(pair.ends[0].sweeps(), []);
        if back {
            pair.revive(1);
        }
        pair.run(seconds(2000));
        let [(swept, Family::IPV4_UNICAST)] = pair.ends[0].sweeps()[..] else { panic!("{:?}", pair.ends[0].sweeps()) };
        match back {
            false => assert!(swept >= began + seconds(1000) && swept < began + seconds(1001)),
            true => assert!(swept >= pair.ends[0].ups()[1] && swept < pair.ends[0].ups()[1] + SECOND, "on End-of-RIB"),
        }
    }
}

/// A peer that dies again before it has told its table again: by default nothing goes, by the letter of RFC 4724 4.2 what is stale does.
#[test]
fn a_peer_that_dies_twice_in_a_row() {
    for (setting, swept) in [(ConsecutiveRestarts::Keep, 0), (ConsecutiveRestarts::Drop, 1)] {
        let mut pair = Pair::new(8, |a, _| a.consecutive_restarts = setting);
        pair.establish();
        pair.kill(1);
        pair.run(seconds(5));
        // It comes up, but its shards never end the initial table.
        pair.mute[1] = true;
        pair.revive(1);
        pair.run(seconds(20));
        assert_eq!((pair.ends[0].ups().len(), pair.ends[0].sweeps()), (2, vec![]), "{setting:?}");
        pair.kill(1);
        pair.run(seconds(5));
        assert_eq!((pair.ends[0].downs(), pair.ends[0].sweeps().len()), (vec![V4; 2], swept), "{setting:?}");
        pair.mute[1] = false;
        pair.revive(1);
        pair.run(seconds(20));
        assert_eq!(pair.states(), [State::Established; 2]);
        assert_eq!(pair.ends[0].sweeps().len(), swept + 1, "End-of-RIB sweeps what was not told again");
    }
}

/// Back without F: stale paths go at once.
#[test]
fn restart_without_forwarding_state() {
    let mut pair = Pair::new(6, |_, _| {});
    pair.establish();
    pair.kill(1);
    pair.run(SECOND);
    pair.crash(1, false);
    pair.revive(1);
    pair.run(seconds(40));
    let up = pair.ends[0].ups()[1];
    assert_eq!(pair.ends[0].sweeps(), [(up, Family::IPV4_UNICAST)]);
}

/// F8: the peer lost power and is back before we noticed; its new OPEN ends the old session without NOTIFICATION.
#[test]
fn f8_reboot_seen_by_its_new_open() {
    for seed in 0..50 {
        let mut pair = Pair::new(seed, |_, _| {});
        pair.establish();
        pair.run(seconds(5));
        let before = pair.ends[0].reasons().len();
        pair.crash(1, true);
        pair.tell(1, Input::Start);
        pair.run(seconds(10));
        assert_eq!(pair.states(), [State::Established; 2], "seed {seed}");
        assert_eq!(pair.ends[0].downs(), [V4], "seed {seed}");
        assert_eq!(pair.ends[0].reasons()[before..], [(0, 0)], "no NOTIFICATION");
    }
}

/// N on both sides: a reset by the operator keeps the paths, a shutdown is a hard reset.
#[test]
fn g7_reset_is_graceful_and_shutdown_is_hard() {
    let mut pair = Pair::new(10, |_, _| {});
    pair.establish();
    pair.tell(0, Input::Stop(StopReason::AdministrativeReset(String::new())));
    pair.run(seconds(30));
    assert_eq!(pair.states(), [State::Established; 2]);
    assert_eq!((pair.ends[0].downs(), pair.ends[1].downs()), (vec![V4], vec![V4]));
    assert_eq!(pair.ends[1].reasons().last(), Some(&(6, 4)));
    pair.tell(0, Input::Stop(StopReason::AdministrativeShutdown("bye".to_owned())));
    pair.run(seconds(30));
    assert_eq!(pair.states()[0], State::Idle);
    assert_eq!((pair.ends[0].downs()[1], pair.ends[1].downs()[1]), (NONE, NONE));
    assert!(pair.ends[1].reasons().contains(&(6, 9)));
}

/// Every transcript comes out as it is written.
#[test]
fn transcripts() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts/session");
    proto_tests::transcript::run_folder(&folder).unwrap_or_else(|error| panic!("{error:#}"));
}

/// What holds of every machine's outputs, whatever it hears.
#[derive(Default)]
struct Watch {
    open: BTreeSet<ConnectionId>,
    connecting: Option<ConnectionId>,
    up: bool,
    state: State,
}

impl Watch {
    fn hear(&mut self, input: &Input) {
        match input {
            Input::Connected { connection, .. } => {
                self.open.insert(*connection);
                self.connecting = self.connecting.filter(|connecting| connecting != connection);
            }
            Input::ConnectFailed { connection, .. } | Input::Closed { connection, .. } if self.connecting == Some(*connection) => {
                self.open.remove(connection);
                self.connecting = None;
            }
            _ => {}
        }
    }

    fn see(&mut self, output: &Output, story: &str) {
        match output {
            Output::Connect { connection } => {
                assert!(self.open.insert(*connection), "{story}: {output:?}");
                self.connecting = Some(*connection);
            }
            Output::Send { connection, .. } => assert!(self.open.contains(connection), "{story}: {output:?}"),
            Output::Close { connection, .. } => assert!(self.open.remove(connection), "{story}: {output:?}"),
            Output::Up(_) => assert!(!std::mem::replace(&mut self.up, true), "{story}: up twice"),
            Output::Down { .. } => assert!(std::mem::replace(&mut self.up, false), "{story}: down twice"),
            Output::Routes(..) | Output::EndOfRib(_) | Output::RefreshRequested(_) | Output::Pull { .. } => {
                assert!(self.up, "{story}: {output:?}");
            }
            Output::Event(Event::State { from, to }) => {
                assert_eq!(*from, self.state, "{story}");
                self.state = *to;
            }
            Output::SweepStale(_) | Output::Reload(_) | Output::LongLived(_) | Output::Event(_) => {}
        }
        assert!(self.open.len() <= 3, "{story}: {:?}", self.open);
    }
}

/// One machine, its clock, and the watch over it.
struct Lone {
    dice: Dice,
    settings: PeerConfig,
    peer: Peer,
    watch: Watch,
    now: Instant,
    greatest: u32,
    out: Outbox<Output>,
}

impl Lone {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let mut settings = config([10, 0, 0, 1], [10, 0, 0, 2]);
        settings.passive = dice.below(3) == 0;
        settings.hold_time = [0, 3, 90][dice.below(3) as usize];
        let shards = 1 + dice.below(2) as u16;
        let peer = Peer::new(PeerId(1), Arc::new(settings.clone()), Settings { seed, shards, ..Settings::default() });
        Self { dice, settings, peer, watch: Watch::default(), now: Instant::now(), greatest: 0, out: Outbox::new() }
    }

    fn pass(&mut self, time: Duration, story: &str) {
        self.now += time;
        for turn in 0.. {
            assert!(turn < 5, "{story}: due for ever");
            self.peer.on_deadline(self.now, &mut self.out);
            if self.peer.deadline().is_none_or(|at| at > self.now) {
                break;
            }
        }
        self.check(story);
    }

    fn tell(&mut self, input: Input, story: &str) {
        self.watch.hear(&input);
        self.peer.handle(self.now, input, &mut self.out);
        self.check(story);
    }

    fn check(&mut self, story: &str) {
        for output in self.out.drain() {
            if let Output::Connect { connection } = &output {
                self.greatest = self.greatest.max(connection.0);
            }
            self.watch.see(&output, story);
        }
        assert_eq!(self.peer.state(), self.watch.state, "{story}");
    }

    /// Mostly connections that are there, now and then another number.
    fn connection(&mut self) -> ConnectionId {
        let open: Vec<ConnectionId> = self.watch.open.iter().copied().collect();
        match self.dice.below(8) {
            0 => ConnectionId(self.dice.below(u64::from(self.greatest) + 3) as u32),
            _ => open.get(self.dice.below(open.len() as u64) as usize).copied().unwrap_or(ConnectionId(0)),
        }
    }

    fn input(&mut self) -> Input {
        let connection = self.connection();
        match self.dice.below(24) {
            0 | 1 => Input::Start,
            2 => Input::Stop(self.reason()),
            3 => Input::Configure(Arc::new(self.changed())),
            4..=6 => self.connected(connection, true),
            7 | 8 => {
                let connection = self.peer.allocate();
                self.greatest = self.greatest.max(connection.0);
                self.connected(connection, false)
            }
            9 => Input::ConnectFailed { connection, error: "refused".to_owned() },
            10 => Input::Closed { connection, error: None },
            11 => Input::Written { connection, waiting: self.dice.below(100_000) as usize },
            12 => Input::Paused { connection, paused: self.dice.below(2) == 0 },
            13 => {
                let (frames, ended) = (vec![Bytes::from_static(&[0; 100])], vec![Family::IPV4_UNICAST]);
                Input::Frames { connection, shard: ShardId(self.dice.below(3) as u16), frames, ended }
            }
            14 => {
                let received = self.dice.below(200_000);
                let counts = PrefixCounts { received, ..PrefixCounts::default() };
                Input::Counts { shard: ShardId(0), counts: PerFamily { ipv4: counts, ipv6: counts } }
            }
            15 => Input::RecoveryDone,
            16 => Input::RequestRefresh(Family::IPV4_UNICAST),
            _ => Input::Received { connection, bytes: self.bytes() },
        }
    }

    fn connected(&self, connection: ConnectionId, outgoing: bool) -> Input {
        let (local, remote) = ("10.0.0.1:179".parse().expect("an address"), "10.0.0.2:179".parse().expect("an address"));
        Input::Connected { connection, outgoing, local, remote, local_link: None }
    }

    fn reason(&mut self) -> StopReason {
        match self.dice.below(5) {
            0 => StopReason::AdministrativeShutdown("bye".to_owned()),
            1 => StopReason::AdministrativeReset(String::new()),
            2 => StopReason::Deconfigured,
            3 => StopReason::ConfigurationChange,
            _ => StopReason::ProcessRestart,
        }
    }

    fn changed(&mut self) -> PeerConfig {
        let mut settings = self.settings.clone();
        match self.dice.below(5) {
            0 => settings.passive = !settings.passive,
            1 => settings.authentication = Authentication::Missing("Secret bgp".to_owned()),
            2 => settings.remote_asn = Asn(65001),
            3 => settings.max_prefixes = MaxPrefixes { limit: 10, action: MaxPrefixAction::Idle },
            _ => {}
        }
        settings
    }

    /// Messages, often in the right order, sometimes with an octet changed or cut off.
    fn bytes(&mut self) -> Bytes {
        let gr =
            GracefulRestart { notification: true, restart_time: 120, families: vec![(Family::IPV4_UNICAST, true)], ..Default::default() };
        let open = Message::Open(Open {
            my_as: 64512,
            hold_time: 90,
            identifier: RouterId([10, 0, 0, [0, 2, 2, 2][self.dice.below(4) as usize]].into()),
            capabilities: vec![Capability::FourOctetAs(Asn(64512)), Capability::GracefulRestart(gr), Capability::EnhancedRouteRefresh],
        });
        let cease = Message::Notification(Notification::new(self.dice.roll() as u8, self.dice.roll() as u8));
        let refresh = Message::RouteRefresh(RouteRefresh::new(Family::IPV4_UNICAST, self.dice.below(4) as u8));
        let end = Message::Update(Update::end_of_rib(Family::IPV4_UNICAST));
        let messages: Vec<Message> = match self.dice.below(10) {
            0..=3 => vec![open, Message::Keepalive],
            4 => vec![open],
            5 => vec![Message::Keepalive],
            6 => vec![cease],
            7 => vec![refresh],
            _ => vec![end, Message::Keepalive],
        };
        let mut bytes: Vec<u8> = messages.iter().flat_map(|message| message.encode(&Context::default()).expect("it fits")).collect();
        match self.dice.below(8) {
            0 => bytes.truncate(self.dice.below(bytes.len() as u64) as usize),
            1 => {
                let at = self.dice.below(bytes.len() as u64) as usize;
                bytes[at] = self.dice.roll() as u8;
            }
            _ => {}
        }
        bytes.into()
    }
}

/// Law: whatever a machine hears, in any order, it does not panic, answers each connection with one Close, says Up
/// and Down in turn, and is never due again at once for ever (F1, V11, V12).
#[test]
fn law_any_inputs() {
    let mut ups = 0;
    for seed in 0..800 {
        let mut lone = Lone::new(seed);
        for step in 0..150 {
            let story = format!("seed {seed} step {step}");
            if lone.dice.below(5) == 0 {
                let time = Duration::from_millis(lone.dice.below(60_000) * lone.dice.below(5) / 4);
                lone.pass(time, &story);
            } else {
                let input = lone.input();
                let was_up = lone.watch.up;
                lone.tell(input, &story);
                ups += usize::from(lone.watch.up && !was_up);
            }
        }
        lone.tell(Input::Stop(StopReason::Deconfigured), "the end");
        assert!(lone.watch.open.is_empty() && !lone.watch.up, "seed {seed}: {:?}", lone.watch.open);
        assert_eq!(lone.peer.deadline(), None, "seed {seed}");
    }
    assert!(ups > 500, "only {ups} sessions came up: the law was hardly tried");
}

/// Law: two machines on a bad link, with cuts, crashes, stops on one side and on both at once (V13), and silences;
/// when all is calm again they are Established, stay so, and nothing is stale.
#[test]
fn law_calm_after_any_trouble() {
    for seed in 0..60 {
        let mut pair = Pair::new(seed, |a, b| (a.hold_time, b.hold_time) = (9, 9));
        let mut dice = Dice(seed ^ 0x5eed);
        pair.start();
        for _ in 0..25 {
            pair.run(Duration::from_millis(dice.below(8_000)));
            let end = dice.below(2) as usize;
            match dice.below(9) {
                0 => pair.cut(),
                1 => {
                    pair.crash(end, dice.below(2) == 0);
                    pair.tell(end, Input::Start);
                }
                2 => pair.kill(end),
                3 => pair.blackhole = true,
                4 => {
                    pair.tell(0, Input::Stop(StopReason::AdministrativeReset(String::new())));
                    pair.tell(1, Input::Stop(StopReason::AdministrativeReset(String::new())));
                }
                5 => pair.tell(end, Input::Stop(StopReason::AdministrativeShutdown("bye".to_owned()))),
                6 => pair.tell(end, Input::Stop(StopReason::ConfigurationChange)),
                _ => pair.blackhole = false,
            }
            pair.run(Duration::from_millis(dice.below(500)));
            pair.revive(0);
            pair.revive(1);
        }
        pair.blackhole = false;
        pair.run(seconds(120));
        assert_eq!(pair.states(), [State::Established; 2], "seed {seed}");
        let since = pair.now();
        pair.run(seconds(600));
        for end in &pair.ends {
            assert!(
                end.log.iter().all(|(at, output)| *at <= since || !matches!(output, Output::Up(_) | Output::Down { .. })),
                "seed {seed}"
            );
            assert!(end.peer.status(Instant::now()).stale.is_empty(), "seed {seed}");
        }
    }
}

/// V13: both ends are told to stop or to begin anew in the same instant, at any moment of a session's life, a thousand times.
#[test]
fn v13_both_ends_stop_at_once() {
    let reasons = [
        StopReason::AdministrativeShutdown("bye".to_owned()),
        StopReason::AdministrativeReset(String::new()),
        StopReason::HardReset(String::new()),
        StopReason::ConfigurationChange,
        StopReason::Deconfigured,
        StopReason::HandedOver,
    ];
    let (mut up, mut connecting) = (0, 0);
    for seed in 0..1000 {
        let mut dice = Dice(seed);
        // While connections are made, collide and come up; or long after.
        let (at_once, moment) = [(false, 60_000), (true, 60), (true, 200), (false, 3_000)][(seed % 4) as usize];
        let mut pair = Pair::new(seed, |a, b| {
            if at_once {
                (a.connect_delay, b.connect_delay) = (Duration::ZERO, Duration::ZERO);
            }
        });
        pair.start();
        pair.run(Duration::from_millis(dice.below(moment)));
        up += u32::from(pair.states() == [State::Established; 2]);
        connecting += u32::from(pair.states().iter().any(|state| matches!(state, State::OpenSent | State::OpenConfirm)));
        for end in [0, 1] {
            let reason = reasons[dice.below(reasons.len() as u64) as usize].clone();
            pair.tell(end, Input::Stop(reason));
        }
        pair.run(Duration::from_millis(dice.below(2_000)));
        for end in [0, 1] {
            pair.tell(end, Input::Start);
        }
        pair.run(seconds(60));
        assert_eq!(pair.states(), [State::Established; 2], "seed {seed}: {:?} {:?}", pair.ends[0].reasons(), pair.ends[1].reasons());
        for end in &pair.ends {
            let downs = end.log.iter().filter(|(_, output)| matches!(output, Output::Down { .. })).count();
            assert_eq!(end.ups().len(), downs + 1, "seed {seed}: each session ends once");
            assert!(end.peer.status(Instant::now()).stale.is_empty(), "seed {seed}");
        }
    }
    assert!(up > 200 && connecting > 20, "{up} stopped while Established, {connecting} on the way there");
}

/// Q12: a process that sleeps for ten minutes. The other end has dropped it, keeps its paths for the restart time and no longer; the
/// sleeper learns of it all when it wakes, and both are well again.
#[test]
fn q12_ten_minutes_asleep() {
    let mut pair = Pair::new(12, |_, _| {});
    pair.establish();
    pair.run(seconds(100));
    pair.blackhole = true;
    pair.run(seconds(600));
    assert_eq!((pair.ends[0].downs(), pair.ends[0].sweeps().len()), (vec![V4], 1), "kept, and then swept");
    pair.blackhole = false;
    pair.run(seconds(60));
    assert_eq!(pair.states(), [State::Established; 2]);
    assert!(pair.ends.iter().all(|end| end.peer.status(Instant::now()).stale.is_empty()));
}

/// W1: BIRD ends an Established session when its peer connects anew: whoever has a session tries nothing else.
#[test]
fn w1_who_has_a_session_does_not_connect() {
    for seed in 0..20 {
        let mut pair = Pair::new(seed, |_, _| {});
        pair.establish();
        let since = pair.now();
        pair.run(seconds(4 * 3600));
        for end in &pair.ends {
            let connects = end.log.iter().filter(|(at, output)| *at > since && matches!(output, Output::Connect { .. })).count();
            assert_eq!(connects, 0, "seed {seed}");
        }
    }
}

fn bfd(strict: bool, graceful: bool) -> BfdConfig {
    BfdConfig { interval: Duration::from_millis(50), multiplier: 3, multihop: false, strict, graceful }
}

fn report(state: BfdState, independent: bool) -> Input {
    Input::Bfd(Report { state, diagnostic: Diagnostic::TIME_EXPIRED, remote_is_off: false, independent })
}

/// B4, G8: BFD falls silent while TCP stands, or after it has gone, with the peer's C bit or without, as failure or as restart.
#[test]
fn b4_g8_bfd_down_row_by_row() {
    // graceful, C, the session is lost before; what stays at the loss, and whether it goes at once then
    let rows = [
        (false, false, false, NONE, 0),
        (false, true, false, NONE, 0),
        (true, false, false, V4, 0),
        (true, true, false, NONE, 0),
        (false, false, true, V4, 0),
        (false, true, true, V4, 1),
        (true, true, true, V4, 1),
    ];
    for (graceful, independent, lost_before, keep, sweeps) in rows {
        let row = format!("graceful {graceful}, C {independent}, lost before {lost_before}");
        let mut pair = Pair::new(3, |a, _| a.bfd = Some(bfd(false, graceful)));
        pair.establish();
        pair.tell(0, report(BfdState::Up, independent));
        if lost_before {
            pair.kill(1);
            pair.run(SECOND);
        }
        let reasons = pair.ends[0].reasons().len();
        pair.tell(0, report(BfdState::Down, independent));
        assert_eq!((pair.ends[0].downs(), pair.ends[0].sweeps().len()), (vec![keep], sweeps), "{row}");
        if !lost_before {
            assert_eq!(pair.ends[0].reasons()[reasons..], [(6, 10)], "{row}");
            pair.tell(0, report(BfdState::Up, independent));
            pair.run(seconds(5));
            assert_eq!(pair.states(), [State::Established; 2], "{row}: BFD is back, and so is the session, without a pause");
        }
    }
}

#[test]
fn b3_b4_a_path_that_was_never_up_or_is_out_of_service_costs_nothing() {
    let mut pair = Pair::new(4, |a, _| a.bfd = Some(bfd(false, false)));
    pair.establish();
    pair.tell(0, report(BfdState::Down, false));
    pair.tell(0, report(BfdState::Up, false));
    pair.tell(
        0,
        Input::Bfd(Report { state: BfdState::Down, diagnostic: Diagnostic::NEIGHBOUR_DOWN, remote_is_off: true, independent: false }),
    );
    pair.run(SECOND);
    assert_eq!((pair.states(), pair.ends[0].downs()), ([State::Established; 2], vec![]));
}

#[test]
fn b4_strict_waits_for_bfd_in_both_directions() {
    let mut pair = Pair::new(5, |a, _| a.bfd = Some(bfd(true, false)));
    pair.start();
    pair.run(seconds(60));
    assert!(pair.states()[0] == State::Idle && pair.ends[0].ups().is_empty(), "{:?}", pair.states());
    pair.tell(0, report(BfdState::Up, false));
    pair.run(seconds(20));
    assert_eq!(pair.states(), [State::Established; 2]);
    pair.tell(0, report(BfdState::Down, false));
    pair.run(seconds(60));
    assert_eq!((pair.states()[0], pair.ends[0].downs()), (State::Idle, vec![NONE]), "and it waits again");
}

/// Q3: too many prefixes, and another attempt when the configured time has passed, not before.
#[test]
fn q3_too_many_prefixes_restart_after_their_time() {
    let mut pair = Pair::new(6, |a, _| {
        a.max_prefixes = MaxPrefixes { limit: 10, action: MaxPrefixAction::Restart(seconds(600)) };
    });
    pair.establish();
    let counts = PrefixCounts { received: 11, accepted: 11, advertised: 0 };
    pair.tell(0, Input::Counts { shard: ShardId(0), counts: PerFamily { ipv4: counts, ipv6: PrefixCounts::default() } });
    pair.tell(0, Input::Counts { shard: ShardId(0), counts: PerFamily::default() });
    // 6/1 inside a hard reset, since both sides have N (G7).
    assert!(pair.ends[0].reasons().contains(&(6, 9)));
    pair.run(seconds(599));
    assert_eq!(pair.ends[0].ups().len(), 1, "not before");
    pair.run(seconds(60));
    assert_eq!(pair.states(), [State::Established; 2]);
}

/// Q2: no memory is left for what the peer says: it is told so, nothing of it stays, and it may come back after its time; also where the
/// operator resets it, and not where he has shut it down.
#[test]
fn q2_out_of_resources_ends_the_session_for_its_time() {
    let stop = || Input::Stop(StopReason::OutOfResources { text: "memory is at its ceiling".to_owned(), after: seconds(600) });
    let mut pair = Pair::new(6, |_, _| {});
    pair.establish();
    pair.tell(0, stop());
    // 6/8 inside a hard reset, since both sides have N (G7): nobody keeps anything.
    assert!(pair.ends[0].reasons().contains(&(6, 9)), "{:?}", pair.ends[0].reasons());
    pair.run(seconds(599));
    assert_eq!(pair.ends[0].ups().len(), 1, "not before");
    pair.run(seconds(60));
    assert_eq!(pair.states(), [State::Established; 2]);

    pair.tell(0, stop());
    pair.tell(0, Input::Stop(StopReason::AdministrativeReset(String::new())));
    pair.run(seconds(60));
    assert_eq!(pair.states(), [State::Established; 2], "the operator knows better");

    pair.tell(0, Input::Stop(StopReason::AdministrativeShutdown(String::new())));
    pair.tell(0, stop());
    pair.run(seconds(1200));
    assert_eq!(pair.states()[0], State::Idle, "what is shut down stays so");
}
