//! A peer of the soak: connects until it is let in, says its table, changes it when told to, and can be made to misbehave. An observer
//! says nothing and remembers what it hears.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use bytes::{Buf, Bytes, BytesMut};
use ipnet::IpNet;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, interval, sleep_until, timeout};

use super::model::{Member, Table};
use crate::live::reading::{Terms, Update};
use crate::live::{PeerPlan, daemon, message};

/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(500);
/// An attempt that has not come to a session by then is given up.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Hold time in seconds: a silent peer is found out within a storm.
const HOLD: u16 = 6;
/// Prefixes in one UPDATE.
const TOGETHER: usize = 150;

/// Prefix → AS path, as an observer has heard it.
pub type Heard = BTreeMap<IpNet, Vec<u32>>;

/// How a session is lost.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    /// TCP is reset.
    Reset,
    /// TCP is closed without a word.
    Closed,
    /// Cease, administrative reset.
    Ceased,
}

/// What a speaker is told.
#[derive(Debug)]
pub enum Order {
    /// Paths of this length from now on, or none.
    Change(Vec<(IpNet, Option<u8>)>),
    /// Lose the session, and come again.
    Lose(Loss),
    /// Neither read nor write any more, or go on.
    Silence(bool),
    /// Tell what has been heard.
    Tell(oneshot::Sender<Heard>),
}

/// How a speaker is.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Its session is up, and everything that it has been told has been written.
    pub settled: bool,
    /// Sessions lost.
    pub losses: u64,
    /// What margay has said wrong.
    pub fault: Option<String>,
}

/// See the module.
pub struct Speaker {
    plan: PeerPlan,
    target: SocketAddr,
    next_hop: IpAddr,
    table: Table,
    /// What has been heard; none where nobody wants to know.
    heard: Option<Heard>,
    silent: bool,
    input: BytesMut,
    output: BytesMut,
    orders: mpsc::Receiver<Order>,
    standing: watch::Sender<Standing>,
}

/// How a session went on.
enum Next {
    On,
    Lost,
}

impl Speaker {
    /// A peer with the table of this member.
    pub fn peer(member: &Member, target: SocketAddr, orders: mpsc::Receiver<Order>, standing: watch::Sender<Standing>) -> Self {
        let (plan, table) = (member.plan.clone(), member.says.clone());
        let (input, output) = (BytesMut::new(), BytesMut::new());
        Self { plan, target, next_hop: member.next_hop, table, heard: None, silent: false, input, output, orders, standing }
    }

    /// An observer.
    pub fn observer(plan: PeerPlan, target: SocketAddr, orders: mpsc::Receiver<Order>, standing: watch::Sender<Standing>) -> Self {
        let (next_hop, heard) = (plan.address, Some(Heard::new()));
        let (input, output) = (BytesMut::new(), BytesMut::new());
        Self { plan, target, next_hop, table: Table::new(), heard, silent: false, input, output, orders, standing }
    }

    /// Until nobody can give orders any more.
    pub async fn run(mut self) {
        while let Some(stream) = self.connected().await {
            if self.session(stream).await.is_none() {
                return;
            }
            self.standing.send_modify(|standing| {
                standing.settled = false;
                standing.losses += 1;
            });
        }
    }

    /// A connection with OPEN and KEEPALIVE both ways; none when the orders have ended.
    async fn connected(&mut self) -> Option<TcpStream> {
        let mut due = Instant::now();
        loop {
            tokio::select! {
                order = self.orders.recv() => drop(self.take(order?, None)),
                () = sleep_until(due), if !self.silent => {
                    due = Instant::now() + RETRY;
                    self.input.clear();
                    self.output.clear();
                    if let Ok(Ok(stream)) = timeout(ATTEMPT, self.attempt()).await {
                        return Some(stream);
                    }
                }
            }
        }
    }

    async fn attempt(&mut self) -> Result<TcpStream> {
        let socket = if self.plan.address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(self.plan.address, 0))?;
        let mut stream = socket.connect(self.target).await?;
        stream.set_nodelay(true)?;
        let mut open = self.plan.open();
        open.hold = HOLD;
        // Every other peer tells of graceful restart, and with it that End-of-RIB comes.
        if self.table.len().is_multiple_of(2) {
            open = open.with(64, &[0, 120]);
        }
        stream.write_all(&[open.message(), message::keepalive()].concat()).await?;
        for wanted in [message::OPEN, message::KEEPALIVE] {
            let (kind, _) = loop {
                match self.message()? {
                    Some(message) => break message,
                    None => ensure!(stream.read_buf(&mut self.input).await? > 0, "closed"),
                }
            };
            ensure!(kind == wanted, "a message of type {kind}");
        }
        if let Some(heard) = &mut self.heard {
            heard.clear();
        }
        let whole: Vec<(IpNet, Option<u8>)> = self.table.iter().map(|(prefix, length)| (*prefix, Some(*length))).collect();
        self.say(&whole);
        self.output.extend_from_slice(&end_of_rib(self.plan.address.is_ipv6()));
        Ok(stream)
    }

    /// Some when the session is lost, none when the orders have ended.
    async fn session(&mut self, stream: TcpStream) -> Option<()> {
        let mut alive = interval(Duration::from_secs(u64::from(HOLD) / 3));
        loop {
            let settled = !self.silent && self.output.is_empty();
            self.standing.send_if_modified(|standing| std::mem::replace(&mut standing.settled, settled) != settled);
            let interest = if self.output.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
            let next = tokio::select! {
                order = self.orders.recv() => self.take(order?, Some(&stream)),
                _ = alive.tick(), if !self.silent => {
                    self.output.extend_from_slice(&message::keepalive());
                    Next::On
                }
                ready = stream.ready(interest), if !self.silent => match ready.and_then(|_| self.exchange(&stream)) {
                    Ok(()) => Next::On,
                    Err(_) => Next::Lost,
                }
            };
            if matches!(next, Next::Lost) || self.listen().is_err() {
                return Some(());
            }
        }
    }

    /// Reads and writes what can be at once.
    fn exchange(&mut self, stream: &TcpStream) -> io::Result<()> {
        match stream.try_read_buf(&mut self.input) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
        match stream.try_write(&self.output) {
            Ok(count) => self.output.advance(count),
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            Err(_) => {}
        }
        Ok(())
    }

    fn take(&mut self, order: Order, stream: Option<&TcpStream>) -> Next {
        match order {
            Order::Change(changes) => {
                for (prefix, length) in &changes {
                    match length {
                        Some(length) => drop(self.table.insert(*prefix, *length)),
                        None => drop(self.table.remove(prefix)),
                    }
                }
                if stream.is_some() {
                    self.say(&changes);
                }
                // A change that nobody was told of yet.
                self.standing.send_modify(|standing| standing.settled = false);
            }
            Order::Silence(silent) => self.silent = silent,
            // Whoever asked may be gone.
            Order::Tell(reply) => drop(reply.send(self.heard.clone().unwrap_or_default())),
            Order::Lose(loss) => {
                if let Some(stream) = stream {
                    lose(stream, loss);
                    return Next::Lost;
                }
            }
        }
        Next::On
    }

    /// UPDATEs for these changes, those of one kind together.
    fn say(&mut self, changes: &[(IpNet, Option<u8>)]) {
        // Of two changes of a prefix the later counts.
        let newest: BTreeMap<IpNet, Option<u8>> = changes.iter().copied().collect();
        let mut kinds: BTreeMap<Option<u8>, Vec<String>> = BTreeMap::new();
        for (prefix, length) in newest {
            kinds.entry(length).or_default().push(prefix.to_string());
        }
        for (length, prefixes) in kinds {
            for some in prefixes.chunks(TOGETHER) {
                let some: Vec<&str> = some.iter().map(String::as_str).collect();
                self.output.extend_from_slice(&self.update(length, &some));
            }
        }
    }

    fn update(&self, length: Option<u8>, prefixes: &[&str]) -> Vec<u8> {
        let path = vec![self.plan.asn; length.unwrap_or_default().into()];
        match (self.next_hop, length) {
            (IpAddr::V4(_), None) => message::withdraw(prefixes),
            (IpAddr::V4(hop), Some(_)) => {
                message::announce(&[message::origin(0), message::as_path(&path), message::next_hop(hop)], prefixes)
            }
            (IpAddr::V6(_), None) => message::update(&[], &message::unreach(2, 1, &message::nlri(prefixes)), &[]),
            (IpAddr::V6(hop), Some(_)) => {
                let reach = message::reach(2, 1, &hop.octets(), &message::nlri(prefixes));
                message::update(&[], &[reach, message::origin(0), message::as_path(&path)].concat(), &[])
            }
        }
    }

    /// Takes in what margay has said.
    fn listen(&mut self) -> Result<()> {
        while let Some((kind, body)) = self.message()? {
            match kind {
                message::NOTIFICATION => bail!("{body:?}"),
                message::UPDATE if self.heard.is_some() => {
                    if let Err(error) = self.hear(&body) {
                        self.standing.send_modify(|standing| standing.fault = Some(format!("{error:#}")));
                        bail!("a bad UPDATE");
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn hear(&mut self, body: &[u8]) -> Result<()> {
        let terms = Terms { sender: daemon::ASN, internal: self.plan.asn == daemon::ASN, add_path: false };
        let update = Update::read(body, &terms)?;
        ensure!(update.complaints.is_empty(), "{:?}: {body:02x?}", update.complaints);
        let Some(heard) = &mut self.heard else { return Ok(()) };
        for (prefix, _) in &update.withdrawn {
            heard.remove(prefix);
        }
        let path: Vec<u32> = update.as_path().unwrap_or_default().into_iter().flat_map(|(_, ases)| ases).collect();
        heard.extend(update.reached.iter().map(|(prefix, _)| (*prefix, path.clone())));
        Ok(())
    }

    /// The next whole message.
    fn message(&mut self) -> Result<Option<(u8, Bytes)>> {
        if self.input.len() < 19 {
            return Ok(None);
        }
        let length = usize::from(u16::from_be_bytes([self.input[16], self.input[17]]));
        ensure!((19..=4096).contains(&length), "a message of {length} octets");
        if self.input.len() < length {
            return Ok(None);
        }
        let mut message = self.input.split_to(length).freeze();
        let kind = message[18];
        message.advance(19);
        Ok(Some((kind, message)))
    }
}

fn lose(stream: &TcpStream, loss: Loss) {
    // The stream goes with the session; a word that cannot be written is a loss as well.
    match loss {
        Loss::Reset => drop(socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))),
        Loss::Ceased => drop(stream.try_write(&message::notification(6, 4, &[]))),
        Loss::Closed => {}
    }
}

fn end_of_rib(ipv6: bool) -> Vec<u8> {
    if ipv6 { message::update(&[], &message::unreach(2, 1, &[]), &[]) } else { message::update(&[], &[], &[]) }
}
