//! The listening sockets: who may connect, with which key; everybody else is turned away before anything is
//! allocated for them (F13).

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tracing::{debug, error, info, warn};

use crate::config::Authentication;
use crate::runtime::message::PeerMessage;
use crate::runtime::socket;

/// Pause after the system had no descriptor for a connection.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);
/// Pause before a listening socket that could not be opened is tried again.
const REOPEN: Duration = Duration::from_secs(5);
/// Connections from strangers between two log lines about them.
const STRANGERS_A_LINE: u64 = 1000;

/// Where to listen and whom to hear; replaced whole.
#[derive(Clone, Debug, Default)]
pub struct ListenTable {
    /// Listening addresses.
    pub addresses: Vec<SocketAddr>,
    /// Peers in the order of their names: the first whose address fits gets the connection.
    pub peers: Vec<ListenPeer>,
}

/// One configured peer, as listeners know it.
#[derive(Clone, Debug)]
pub struct ListenPeer {
    /// Its address.
    pub address: IpAddr,
    /// Interface of a link-local address.
    pub interface: Option<String>,
    /// Our address that it must connect to, if one is configured.
    pub local: Option<IpAddr>,
    /// Its key.
    pub authentication: Authentication,
    /// Its task.
    pub inbox: mpsc::Sender<PeerMessage>,
}

/// Opens the sockets; at start an error here is an error of the process.
///
/// # Errors
/// The first address that cannot be listened on, with what to do about it.
pub fn open(addresses: &[SocketAddr]) -> io::Result<BTreeMap<SocketAddr, TcpListener>> {
    addresses.iter().map(|address| Ok((*address, open_one(*address)?))).collect()
}

fn open_one(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::from_std(socket::listening(address)?.into())
}

/// See the module.
pub struct Listener {
    table: watch::Receiver<Arc<ListenTable>>,
    sockets: BTreeMap<SocketAddr, TcpListener>,
    keys: BTreeMap<IpAddr, (SocketAddr, Authentication)>,
    strangers: u64,
}

impl Listener {
    /// A task over `sockets`, following `table`.
    pub fn new(table: watch::Receiver<Arc<ListenTable>>, sockets: BTreeMap<SocketAddr, TcpListener>) -> Self {
        Self { table, sockets, keys: BTreeMap::new(), strangers: 0 }
    }

    /// Runs until the table's owner is gone.
    pub async fn run(mut self) {
        loop {
            let missing = self.follow();
            tokio::select! {
                changed = self.table.changed() => if changed.is_err() { return },
                accepted = accept(&self.sockets) => self.accepted(accepted).await,
                () = tokio::time::sleep(REOPEN), if missing => {}
            }
        }
    }

    /// Brings sockets and keys in line with the table; whether a socket is still missing.
    fn follow(&mut self) -> bool {
        let table = Arc::clone(&self.table.borrow_and_update());
        let before = self.sockets.len();
        self.sockets.retain(|address, _| table.addresses.contains(address));
        let mut changed = self.sockets.len() != before;
        let mut missing = false;
        for address in &table.addresses {
            if self.sockets.contains_key(address) {
                continue;
            }
            match open_one(*address) {
                Ok(socket) => {
                    info!(%address, "listening");
                    self.sockets.insert(*address, socket);
                    changed = true;
                }
                Err(error) => {
                    error!(%error, "no listener; trying again every {} s", REOPEN.as_secs());
                    missing = true;
                }
            }
        }
        self.follow_keys(&table, changed);
        missing
    }

    fn follow_keys(&mut self, table: &ListenTable, sockets_changed: bool) {
        let wanted: BTreeMap<IpAddr, (SocketAddr, Authentication)> = table.peers.iter().filter_map(key_of).collect();
        let none = Authentication::None;
        for (address, (remote, old)) in &self.keys {
            if !wanted.contains_key(address) {
                self.set_key(*remote, old, &none);
            }
        }
        for (address, (remote, new)) in &wanted {
            let old = self.keys.get(address).map_or(&none, |(_, old)| old);
            if sockets_changed || old != new {
                self.set_key(*remote, old, new);
            }
        }
        self.keys = wanted;
    }

    fn set_key(&self, remote: SocketAddr, old: &Authentication, new: &Authentication) {
        for (address, socket) in &self.sockets {
            if address.is_ipv4() == remote.is_ipv4()
                && let Err(error) = socket::change_keys(socket, remote, old, new)
            {
                error!(%error, "the peer cannot connect to us");
            }
        }
    }

    async fn accepted(&mut self, accepted: io::Result<(TcpStream, SocketAddr)>) {
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "accept failed");
                return tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
            }
        };
        let table = Arc::clone(&self.table.borrow());
        let local = stream.local_addr().map(|local| local.ip().to_canonical());
        match table.peers.iter().find(|peer| fits(peer, remote, local.as_ref().ok().copied())) {
            // A task that cannot take one more message is busy enough: the peer tries again.
            Some(peer) => {
                if peer.inbox.try_send(PeerMessage::Accepted(Box::new((stream, remote)))).is_err() {
                    debug!(%remote, "connection refused: its peer's inbox is full");
                }
            }
            None => self.stranger(remote),
        }
    }

    fn stranger(&mut self, remote: SocketAddr) {
        if self.strangers.is_multiple_of(STRANGERS_A_LINE) {
            info!(%remote, total = self.strangers + 1, "connection from an address that is no configured peer: closed");
        }
        self.strangers += 1;
    }
}

fn key_of(peer: &ListenPeer) -> Option<(IpAddr, (SocketAddr, Authentication))> {
    match &peer.authentication {
        key @ (Authentication::Md5(_) | Authentication::Ao(_)) => Some((peer.address, (SocketAddr::new(peer.address, 0), key.clone()))),
        Authentication::None | Authentication::Missing(_) => None,
    }
}

/// A peer is found by its address, the interface of link-local ones, and our address (F14).
fn fits(peer: &ListenPeer, remote: SocketAddr, local: Option<IpAddr>) -> bool {
    if peer.address != remote.ip().to_canonical() {
        return false;
    }
    if let (SocketAddr::V6(v6), Some(interface)) = (remote, &peer.interface)
        && v6.ip().is_unicast_link_local()
    {
        return socket::interface_index(interface).is_ok_and(|index| index == v6.scope_id());
    }
    peer.local.is_none() || peer.local == local
}

async fn accept(sockets: &BTreeMap<SocketAddr, TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    poll_fn(|cx| {
        for socket in sockets.values() {
            if let Poll::Ready(accepted) = socket.poll_accept(cx) {
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    })
    .await
}
