//! BFD's own thread: a packet every 50 ms and a detection of 150 ms must hold while the rest of the process is busy with a
//! million routes, so nothing else runs here, and the thread asks the scheduler for precedence.
//!
//! One listening socket for each port and listening address, opened when the first session is wanted; one sending socket for
//! each session, from a source port that it keeps (RFC 5881 section 4).

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, error, info, warn};

use crate::bfd::{Bfd, Input, MULTIHOP_PORT, Output, Report, SINGLE_HOP_PORT, SessionConfig, SessionStatus};
use crate::config::PeerConfig;
use crate::runtime::socket;
use crate::types::{Outbox, PeerId};

/// Messages that may wait.
const INBOX: usize = 256;
/// Packets in a row before timers get their turn.
const PACKETS_A_TURN: usize = 64;
/// Pause before a socket that could not be opened is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// To the thread.
#[derive(Debug)]
pub enum BfdMessage {
    /// The peer's configuration: with BFD or without. Reports go to the watcher, the newest counts.
    Configure(PeerId, Arc<PeerConfig>, Arc<watch::Sender<Option<Report>>>),
    /// The peer is gone.
    Remove(PeerId),
    /// Tell how the sessions are.
    Status(oneshot::Sender<BTreeMap<PeerId, SessionStatus>>),
    /// Give a sign of life.
    Ping(oneshot::Sender<()>),
}

/// See the module.
struct BfdThread {
    machine: Bfd,
    inbox: mpsc::Receiver<BfdMessage>,
    /// Where to listen.
    addresses: Vec<IpAddr>,
    listeners: Vec<(UdpSocket, bool)>,
    peers: BTreeMap<PeerId, Wanted>,
    /// Something could not be opened: when to try again.
    again: Option<Instant>,
    outbox: Outbox<Output>,
}

struct Wanted {
    config: Arc<PeerConfig>,
    reports: Arc<watch::Sender<Option<Report>>>,
    socket: Option<UdpSocket>,
    /// The failure that was logged last.
    told: Option<String>,
}

/// A datagram as the machine hears it.
type Datagram = (IpAddr, u32, Option<u8>, Vec<u8>);

/// Starts the thread, which ends with its inbox.
///
/// # Errors
/// The system gives no thread.
pub fn spawn(seed: u64, addresses: Vec<IpAddr>) -> io::Result<mpsc::Sender<BfdMessage>> {
    let (sender, inbox) = mpsc::channel(INBOX);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("bfd".to_owned()).spawn(move || {
        let thread = BfdThread {
            machine: Bfd::new(seed),
            inbox,
            addresses,
            listeners: Vec::new(),
            peers: BTreeMap::new(),
            again: None,
            outbox: Outbox::new(),
        };
        socket::prefer_this_thread();
        runtime.block_on(thread.run());
    })?;
    Ok(sender)
}

impl BfdThread {
    async fn run(mut self) {
        loop {
            let deadline = self.machine.deadline();
            tokio::select! {
                biased;
                message = self.inbox.recv() => match message {
                    Some(message) => self.message(message),
                    None => break,
                },
                datagrams = receive(&self.listeners) => self.received(datagrams),
                () = until(deadline) => {}
                () = until(self.again) => self.try_again(),
            }
            // Also after packets: a flood must not keep us from sending, or from noticing who is silent.
            let now = Instant::now();
            if self.machine.deadline().is_some_and(|deadline| deadline <= now) {
                self.machine.on_deadline(now, &mut self.outbox);
            }
            self.deliver();
        }
        self.part();
    }

    fn message(&mut self, message: BfdMessage) {
        match message {
            BfdMessage::Configure(peer, config, reports) => {
                let kept = self.peers.remove(&peer).filter(|old| !needs_another_socket(&old.config, &config));
                let (socket, told) = kept.map_or((None, None), |old| (old.socket, old.told));
                if config.bfd.is_none() {
                    self.peers.insert(peer, Wanted { config, reports, socket, told });
                    return self.forget(peer);
                }
                self.peers.insert(peer, Wanted { config, reports, socket, told });
                self.open_listeners();
                self.configure(peer);
            }
            BfdMessage::Remove(peer) => self.forget(peer),
            // Whoever asked may be gone.
            BfdMessage::Ping(reply) => _ = reply.send(()),
            BfdMessage::Status(reply) => {
                let now = Instant::now();
                let all = self.peers.keys().filter_map(|peer| Some((*peer, self.machine.status(now, *peer)?))).collect();
                // Whoever asked may be gone.
                let _ = reply.send(all);
            }
        }
    }

    /// Ends a session with a last packet that says so.
    fn forget(&mut self, peer: PeerId) {
        self.machine.handle(Instant::now(), Input::Remove(peer), &mut self.outbox);
        self.deliver();
        if let Some(wanted) = self.peers.remove(&peer) {
            wanted.reports.send_replace(None);
        }
    }

    /// The process ends: that is no failure of the path.
    fn part(&mut self) {
        for peer in self.peers.keys().copied().collect::<Vec<_>>() {
            self.machine.handle(Instant::now(), Input::Remove(peer), &mut self.outbox);
        }
        for output in self.outbox.drain() {
            if let Output::Send(peer, octets) = output {
                send(self.peers.get(&peer), &octets);
            }
        }
    }

    fn configure(&mut self, peer: PeerId) {
        let Some(wanted) = self.peers.get_mut(&peer) else { return };
        let opened = session_config(&wanted.config).and_then(|session| {
            if wanted.socket.is_none() {
                let port = if session.multihop { MULTIHOP_PORT } else { SINGLE_HOP_PORT };
                wanted.socket = Some(UdpSocket::from_std(socket::bfd_sending(&wanted.config, port)?)?);
            }
            Ok(session)
        });
        match opened {
            Ok(session) => {
                wanted.told = None;
                self.machine.handle(Instant::now(), Input::Configure(peer, session), &mut self.outbox);
            }
            Err(error) => {
                let words = error.to_string();
                if wanted.told.as_ref() != Some(&words) {
                    warn!(peer = wanted.config.name, error = words, "no BFD session yet; tried again every {} s", AGAIN.as_secs());
                    wanted.told = Some(words);
                }
                self.again = Some(Instant::now() + AGAIN);
            }
        }
    }

    fn open_listeners(&mut self) {
        if !self.listeners.is_empty() {
            return;
        }
        let wanted = [(SINGLE_HOP_PORT, false), (MULTIHOP_PORT, true)];
        let wanted = wanted.into_iter().flat_map(|(port, multihop)| self.addresses.iter().map(move |address| (*address, port, multihop)));
        let opened: io::Result<Vec<(UdpSocket, bool)>> = wanted
            .map(|(address, port, multihop)| Ok((UdpSocket::from_std(socket::bfd_listening(SocketAddr::new(address, port))?)?, multihop)))
            .collect();
        match opened {
            Ok(listeners) => self.listeners = listeners,
            Err(error) => {
                error!(%error, "BFD hears nothing; trying again every {} s", AGAIN.as_secs());
                self.again = Some(Instant::now() + AGAIN);
            }
        }
    }

    fn try_again(&mut self) {
        self.again = None;
        self.open_listeners();
        let waiting: Vec<PeerId> = self.peers.iter().filter(|(_, wanted)| wanted.told.is_some()).map(|(peer, _)| *peer).collect();
        for peer in waiting {
            self.configure(peer);
        }
    }

    fn received(&mut self, (multihop, datagrams): (bool, Vec<Datagram>)) {
        let now = Instant::now();
        for (remote, interface, ttl, payload) in datagrams {
            let input = Input::Received { remote, interface, multihop, ttl, payload };
            self.machine.handle(now, input, &mut self.outbox);
        }
    }

    fn deliver(&mut self) {
        for output in self.outbox.drain() {
            match output {
                Output::Send(peer, octets) => send(self.peers.get(&peer), &octets),
                Output::State(peer, report) => {
                    if let Some(wanted) = self.peers.get(&peer) {
                        info!(peer = wanted.config.name, state = ?report.state, diagnostic = %report.diagnostic, "BFD");
                        wanted.reports.send_replace(Some(report));
                    }
                }
            }
        }
    }
}

/// A packet that the system does not take now is lost as on any link: the next one follows.
fn send(wanted: Option<&Wanted>, octets: &[u8]) {
    if let Some(wanted) = wanted
        && let Some(socket) = &wanted.socket
        && let Err(error) = socket.try_send(octets)
    {
        debug!(peer = wanted.config.name, %error, "a BFD packet was not sent");
    }
}

fn session_config(config: &PeerConfig) -> io::Result<SessionConfig> {
    let link_local = matches!(config.address, IpAddr::V6(address) if address.is_unicast_link_local());
    let interface = match config.interface.as_deref().filter(|_| link_local) {
        Some(name) => Some(socket::interface_index(name)?),
        None => None,
    };
    SessionConfig::of(config, interface).ok_or_else(|| io::Error::other("BFD is off"))
}

fn needs_another_socket(old: &PeerConfig, new: &PeerConfig) -> bool {
    let ends = |config: &PeerConfig| (config.address, config.local_address, config.interface.clone(), config.bfd.map(|bfd| bfd.multihop));
    ends(old) != ends(new)
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// What has come to one of the sockets, a bounded number of datagrams.
async fn receive(listeners: &[(UdpSocket, bool)]) -> (bool, Vec<Datagram>) {
    poll_fn(|cx| {
        for (listener, multihop) in listeners {
            if listener.poll_recv_ready(cx).is_ready() {
                let datagrams: Vec<Datagram> = std::iter::from_fn(|| take(listener)).take(PACKETS_A_TURN).collect();
                if !datagrams.is_empty() {
                    return Poll::Ready((*multihop, datagrams));
                }
                // Readiness was stale and is cleared now: ask again, to be woken.
                if listener.poll_recv_ready(cx).is_ready() {
                    cx.waker().wake_by_ref();
                }
            }
        }
        Poll::Pending
    })
    .await
}

fn take(listener: &UdpSocket) -> Option<Datagram> {
    let mut buffer = [0; 128];
    // An error other than "nothing there" concerns a packet of ours that was refused: nothing to hear.
    let (length, remote, ttl) = listener.try_io(Interest::READABLE, || socket::receive_with_ttl(listener, &mut buffer)).ok()?;
    let interface = match remote {
        SocketAddr::V6(v6) => v6.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    Some((remote.ip().to_canonical(), interface, ttl, buffer.get(..length).unwrap_or_default().to_vec()))
}
