//! One session of the generator: connects, feeds what it is ordered to, and counts what it hears.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use margay::types::{Asn, Family, RouterId};
use margay::wire::{Capability, Context, HEADER, Kind, Message, Open, RouteRefresh, cease, frame, keepalive};
use tokio::io::Interest;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::{sleep, sleep_until};

use super::feed;
use super::meter::Meter;
use super::said::Sayings;

/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(100);

/// Who a session is.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its address; of the same family is what it carries.
    pub address: IpAddr,
    /// Where the speaker listens.
    pub speaker: SocketAddr,
    /// Its AS.
    pub asn: Asn,
    /// It crosses an AS border.
    pub ebgp: bool,
    /// Its number among the receivers, if it is one.
    pub receiver: Option<usize>,
    /// What it says as soon as it is up.
    pub at_once: Vec<Bytes>,
}

/// What a session is to do.
#[derive(Clone, Debug)]
pub enum Order {
    /// Say this.
    Say(Vec<Bytes>),
    /// Ask for everything again.
    Refresh,
    /// Say this change of a prefix, and note when.
    Change(u32, Bytes),
}

/// What all sessions share.
#[derive(Debug)]
pub struct Shared {
    /// Hold time offered, in seconds.
    pub hold: u16,
    /// Octets read at once, at most: what is read at once is heard at once.
    pub read: usize,
    /// Handshakes that may be under way at a time.
    pub handshakes: Semaphore,
    /// Who has what.
    pub meter: RefCell<Meter>,
    /// What was said, once for all who hear it.
    pub sayings: RefCell<Sayings>,
    /// Sessions that are up.
    pub up: Cell<usize>,
    /// When the first connect began.
    pub began: Cell<Option<Instant>>,
    /// Something has changed: a session came up, a receiver arrived, or it went wrong.
    pub changed: Notify,
    /// What went wrong.
    pub failure: RefCell<Option<String>>,
}

/// Runs a session until its orders end.
pub async fn run(shared: Rc<Shared>, plan: Plan, orders: mpsc::Receiver<Order>) {
    let who = plan.address;
    if let Err(error) = Session::run(&shared, plan, orders).await {
        shared.failure.borrow_mut().get_or_insert_with(|| format!("session of {who}: {error:#}"));
        shared.changed.notify_waiters();
    }
}

struct Session<'a> {
    shared: &'a Shared,
    receiver: Option<usize>,
    stream: TcpStream,
    context: Context,
    family: Family,
    input: BytesMut,
    queue: VecDeque<Bytes>,
    /// When the speaker was heard last.
    heard: Instant,
}

impl<'a> Session<'a> {
    async fn run(shared: &'a Shared, plan: Plan, mut orders: mpsc::Receiver<Order>) -> Result<()> {
        let turn = shared.handshakes.acquire().await.context("no more handshakes")?;
        let mut session = loop {
            match Self::establish(shared, &plan).await {
                Ok(session) => break session,
                // Refused and reset connections are the speaker's way to say: not yet.
                Err(_) => sleep(RETRY).await,
            }
        };
        drop(turn);
        shared.up.set(shared.up.get() + 1);
        shared.changed.notify_waiters();
        session.queue.extend(plan.at_once);
        // What came with the last word of the handshake: there may be no more for a long time.
        session.hear()?;
        let pause = Duration::from_secs(u64::from(shared.hold / 3));
        let mut alive = tokio::time::Instant::now() + pause;
        loop {
            let interest = if session.queue.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
            tokio::select! {
                ready = session.stream.ready(interest) => {
                    let ready = ready?;
                    if ready.is_readable() {
                        session.read()?;
                    }
                    if ready.is_writable() {
                        session.write()?;
                    }
                }
                order = orders.recv() => match order {
                    None => return session.leave(),
                    Some(Order::Say(pieces)) => session.queue.extend(pieces),
                    Some(Order::Refresh) => session.queue.push_back(RouteRefresh::new(session.family, RouteRefresh::REQUEST).encode()),
                    Some(Order::Change(prefix, message)) => {
                        session.queue.push_back(message);
                        shared.meter.borrow_mut().stamp(prefix, Instant::now());
                        session.write()?;
                    }
                },
                () = sleep_until(alive) => {
                    alive += pause;
                    session.queue.push_back(keepalive());
                    let silence = session.heard.elapsed();
                    if silence > Duration::from_secs(u64::from(shared.hold)) {
                        bail!("the hold time of {} s is over: nothing for {silence:?}", shared.hold);
                    }
                }
            }
        }
    }

    async fn establish(shared: &'a Shared, plan: &Plan) -> Result<Self> {
        let (socket, family) = match plan.address {
            IpAddr::V4(_) => (TcpSocket::new_v4()?, Family::IPV4_UNICAST),
            IpAddr::V6(_) => (TcpSocket::new_v6()?, Family::IPV6_UNICAST),
        };
        socket.bind(SocketAddr::new(plan.address, 0))?;
        shared.began.set(shared.began.get().or(Some(Instant::now())));
        let stream = socket.connect(plan.speaker).await?;
        stream.set_nodelay(true)?;
        let mut session = Self {
            shared,
            receiver: plan.receiver,
            stream,
            context: feed::context(plan.ebgp, family),
            family,
            input: BytesMut::new(),
            queue: [open(plan, family, shared.hold).encode()].into(),
            heard: Instant::now(),
        };
        session.write()?;
        let Message::Open(_) = session.next().await? else { bail!("no OPEN") };
        session.queue.push_back(keepalive());
        session.write()?;
        let Message::Keepalive = session.next().await? else { bail!("no KEEPALIVE") };
        Ok(session)
    }

    async fn next(&mut self) -> Result<Message> {
        loop {
            if let Some(frame) = frame::next(&mut self.input, &self.context)? {
                return Ok(Message::decode(frame.kind, &frame.body, &self.context)?);
            }
            self.stream.readable().await?;
            self.fill()?;
        }
    }

    /// Reads once.
    fn fill(&mut self) -> Result<bool> {
        self.input.reserve(self.shared.read);
        match self.stream.try_read_buf(&mut (&mut self.input).limit(self.shared.read)) {
            Ok(0) => bail!("the speaker has closed it"),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn read(&mut self) -> Result<()> {
        if self.fill()? { self.hear() } else { Ok(()) }
    }

    /// Takes the whole messages of what has been read.
    fn hear(&mut self) -> Result<()> {
        let now = Instant::now();
        let mut meter = self.shared.meter.borrow_mut();
        let away = meter.away();
        let mut start = 0;
        while let Some((kind, length)) = frame::header(&self.input[start..], &self.context)? {
            let Some(body) = self.input.get(start + HEADER..start + length) else { break };
            start += length;
            meter.break_silence(now.duration_since(self.heard));
            self.heard = now;
            if let Some(receiver) = self.receiver.filter(|_| kind == Kind::Update) {
                let said = self.shared.sayings.borrow_mut().hear(receiver, &self.context, body)?;
                meter.hear(receiver, &said, length, now);
            } else if let Message::Notification(notification) = Message::decode(kind, body, &self.context)? {
                bail!("NOTIFICATION: {}", notification.name());
            }
        }
        self.input.advance(start);
        if away != meter.away() || (meter.away() == 0 && self.receiver.is_some()) {
            self.shared.changed.notify_waiters();
        }
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        while let Some(first) = self.queue.front_mut() {
            match self.stream.try_write(first) {
                Ok(written) => first.advance(written),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            if first.is_empty() {
                self.queue.pop_front();
            }
        }
        Ok(())
    }

    fn leave(mut self) -> Result<()> {
        let goodbye = margay::wire::Notification::cease_with_text(cease::ADMINISTRATIVE_SHUTDOWN, "");
        self.queue.push_back(goodbye.encode());
        self.write()
    }
}

fn open(plan: &Plan, family: Family, hold_time: u16) -> Open {
    let capabilities = vec![Capability::Multiprotocol(family), Capability::RouteRefresh, Capability::FourOctetAs(plan.asn)];
    let identifier = match plan.address {
        IpAddr::V4(address) => Ipv4Addr::from(u32::from(address) & 0x00ff_ffff | 0x0a00_0000),
        // Unlike those of the others: networks 1 to 3.
        IpAddr::V6(address) => Ipv4Addr::new(10, 100 + address.segments()[1] as u8, 0, address.segments()[7] as u8),
    };
    Open { my_as: plan.asn.two_octets(), hold_time, identifier: RouterId(identifier), capabilities }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::task::LocalSet;
    use tokio::time::timeout;

    use super::super::feed::Feed;
    use super::super::meter::{Goal, Wants};
    use super::super::table::{self, Index, Numbers};
    use super::*;

    #[tokio::test]
    async fn what_comes_with_the_last_word_of_the_handshake_is_heard_at_once() {
        let prefixes = ["10.1.0.0/26".parse().unwrap()];
        let attributes = table::attributes(Some(Asn(64512)), Ipv4Addr::new(10, 7, 0, 1).into(), None, &mut Numbers::new(1));
        let feed = Feed::new(&prefixes, &[1], true, |_| attributes.clone());
        let mut meter = Meter::new(1, [].into(), vec![Wants { all: 0..1, own: 0..0 }]);
        meter.aim(Goal::Full, 1);
        let shared = Rc::new(Shared {
            hold: 240,
            read: 4096,
            handshakes: Semaphore::new(1),
            sayings: RefCell::new(Sayings::new(Arc::new(Index::new(&prefixes)), 1)),
            meter: RefCell::new(meter),
            up: Cell::new(0),
            began: Cell::new(None),
            changed: Notify::new(),
            failure: RefCell::new(None),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = Ipv4Addr::LOCALHOST.into();
        let plan =
            Plan { address, speaker: listener.local_addr().unwrap(), asn: Asn(65001), ebgp: true, receiver: Some(0), at_once: vec![] };
        let words = [open(&plan, Family::IPV4_UNICAST, 240).encode(), keepalive(), feed.announce.concat().into()].concat();
        let (_orders, heard) = mpsc::channel(1);
        let world = LocalSet::new();
        world.spawn_local(run(Rc::clone(&shared), plan, heard));
        let speaker = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&words).await.unwrap();
            // It says no more, and hears everything.
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await
        };
        let arrived = async {
            while shared.meter.borrow().away() > 0 {
                shared.changed.notified().await;
            }
        };
        let either = async {
            tokio::select! {
                end = speaker => panic!("the session has ended: {end:?}, {:?}", shared.failure),
                () = arrived => {}
            }
        };
        timeout(Duration::from_secs(20), world.run_until(either)).await.expect("it has what it was told");
    }
}
