//! The sockets of one peer: the connect under way, open connections with their write queues, and their readiness as
//! one future. Reads and writes never block; what the socket does not take waits here, bounded by the Peer's credit.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tracing::warn;

use crate::config::{Authentication, PeerConfig};
use crate::runtime::socket;
use crate::types::ConnectionId;

/// A connect that hangs is abandoned after this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a closing connection waits for the peer to read the NOTIFICATION (H5).
const LINGER: Duration = Duration::from_secs(1);
/// Octets of a read. What is decoded from them takes several times as much memory until a shard has taken it over.
const READ_CHUNK: usize = 32 * 1024;

thread_local! {
    /// What a read fills, one for all connections that a thread serves: a thousand sessions that say little have none of their own.
    static CHUNK: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_CHUNK]);
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// What happened to a socket.
#[derive(Debug)]
pub enum SocketEvent {
    /// The connect succeeded.
    Connected(ConnectionId, SocketAddr, SocketAddr),
    /// The connect failed.
    Failed(ConnectionId, io::Error),
    /// There is something to read (or an end to be seen).
    Readable(ConnectionId),
    /// There is room to write, and something waits.
    Writable(ConnectionId),
}

/// What one read gave.
#[derive(Debug)]
pub enum Read {
    /// Bytes.
    Bytes(Bytes),
    /// Nothing for now.
    Nothing,
    /// The peer closed, or the connection broke.
    Closed(Option<io::Error>),
}

/// See the module.
#[derive(Default)]
pub struct Connections {
    connecting: Option<(ConnectionId, Connecting)>,
    open: BTreeMap<ConnectionId, Open>,
}

struct Open {
    stream: TcpStream,
    queue: VecDeque<Bytes>,
    waiting: usize,
}

impl Connections {
    /// Starts the connect that the Peer machine asked for; it replaces one under way.
    #[inline(never)]
    pub fn connect(&mut self, id: ConnectionId, config: &PeerConfig) {
        let attempt = socket::connecting(config).and_then(|socket| Ok((socket, socket::peer_address(config)?)));
        let connecting: Connecting = Box::pin(async move {
            let (socket, remote) = attempt?;
            let socket = tokio::net::TcpSocket::from_std_stream(socket.into());
            match tokio::time::timeout(CONNECT_TIMEOUT, socket.connect(remote)).await {
                Ok(result) => result,
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()))),
            }
        });
        self.connecting = Some((id, connecting));
    }

    /// Takes over an accepted connection.
    pub fn adopt(&mut self, id: ConnectionId, stream: TcpStream) {
        self.open.insert(id, Open { stream, queue: VecDeque::new(), waiting: 0 });
    }

    /// Queues bytes and writes what the socket takes; the bytes left waiting, or none if the connection is gone.
    pub fn send(&mut self, id: ConnectionId, bytes: Bytes) -> Option<usize> {
        let open = self.open.get_mut(&id)?;
        open.waiting += bytes.len();
        open.queue.push_back(bytes);
        self.write(id)
    }

    /// Writes what the socket takes; the bytes left waiting. A broken connection is noticed by the next read.
    pub fn write(&mut self, id: ConnectionId) -> Option<usize> {
        let open = self.open.get_mut(&id)?;
        while let Some(first) = open.queue.front_mut() {
            match open.stream.try_write(first) {
                Ok(written) => {
                    open.waiting -= written;
                    first.advance(written);
                    if first.is_empty() {
                        open.queue.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    open.queue.clear();
                    break;
                }
            }
        }
        Some(open.waiting)
    }

    /// Reads once.
    pub fn read(&mut self, id: ConnectionId) -> Read {
        let Some(open) = self.open.get_mut(&id) else { return Read::Nothing };
        CHUNK.with_borrow_mut(|chunk| match read_once(&open.stream, chunk) {
            Ok(0) => Read::Closed(None),
            Ok(length) => Read::Bytes(Bytes::copy_from_slice(&chunk[..length])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Read::Nothing,
            Err(error) => Read::Closed(Some(error)),
        })
    }

    /// Closes; lingering, what waits is still written and the peer gets time to read it.
    #[inline(never)]
    pub fn close(&mut self, id: ConnectionId, linger: bool) {
        if self.connecting.as_ref().is_some_and(|(connecting, _)| *connecting == id) {
            self.connecting = None;
        }
        if let Some(open) = self.open.remove(&id)
            && linger
        {
            tokio::spawn(async move {
                // Past the time the connection is dropped: the peer had its chance.
                let _ = tokio::time::timeout(LINGER, say_goodbye(open)).await;
            });
        }
    }

    /// The open connections.
    pub fn open(&self) -> Vec<ConnectionId> {
        self.open.keys().copied().collect()
    }

    /// Puts the configured key on live sockets, so that a new key resets nothing (T4).
    pub fn set_key(&self, old: &Authentication, config: &PeerConfig) {
        for open in self.open.values() {
            if let Ok(remote) = open.stream.peer_addr()
                && let Err(error) = socket::roll_over(&open.stream, remote, old, &config.authentication)
            {
                warn!(%error, "the live session keeps its old key");
            }
        }
    }

    /// The next thing that happens to any of the sockets; pending while `reading` is off and nothing waits to be written.
    pub fn next(&mut self, reading: bool) -> impl Future<Output = SocketEvent> + '_ {
        poll_fn(move |cx| self.poll_next(reading, cx))
    }

    fn poll_next(&mut self, reading: bool, cx: &mut Context<'_>) -> Poll<SocketEvent> {
        if let Some((id, connecting)) = &mut self.connecting
            && let Poll::Ready(result) = connecting.as_mut().poll(cx)
        {
            let id = *id;
            self.connecting = None;
            return Poll::Ready(self.connected(id, result));
        }
        for (id, open) in &self.open {
            if reading && open.stream.poll_read_ready(cx).is_ready() {
                return Poll::Ready(SocketEvent::Readable(*id));
            }
            if !open.queue.is_empty() && open.stream.poll_write_ready(cx).is_ready() {
                return Poll::Ready(SocketEvent::Writable(*id));
            }
        }
        Poll::Pending
    }

    #[inline(never)]
    fn connected(&mut self, id: ConnectionId, result: io::Result<TcpStream>) -> SocketEvent {
        let opened = result.and_then(|stream| Ok((stream.local_addr()?, stream.peer_addr()?, stream)));
        match opened {
            Ok((local, remote, stream)) => {
                self.adopt(id, stream);
                SocketEvent::Connected(id, local, remote)
            }
            Err(error) => SocketEvent::Failed(id, error),
        }
    }
}

/// Reads what is there. A read that leaves room has emptied the socket: asking once more would only be told so, which for a peer that says
/// one thing at a time is every other system call. tokio forgets what it knew of the socket unless it has been told anew meanwhile.
fn read_once(stream: &TcpStream, chunk: &mut [u8]) -> io::Result<usize> {
    let mut some = 0;
    let read = stream.try_io(Interest::READABLE, || match SockRef::from(stream).deref().read(chunk)? {
        length if 0 < length && length < chunk.len() => {
            some = length;
            Err(io::ErrorKind::WouldBlock.into())
        }
        length => Ok(length),
    });
    if some > 0 { Ok(some) } else { read }
}

/// Writes what is left, ends our direction, and reads until the peer ends its own: closing with unread input would
/// make Linux send RST and destroy the NOTIFICATION in the peer's queue (H5).
async fn say_goodbye(mut open: Open) -> io::Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    for bytes in open.queue {
        open.stream.write_all(&bytes).await?;
    }
    open.stream.shutdown().await?;
    let mut discarded = [0; 4096];
    while open.stream.read(&mut discarded).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    async fn read(connections: &mut Connections) -> Read {
        let event = tokio::time::timeout(DEADLINE, connections.next(true)).await.unwrap();
        let SocketEvent::Readable(id) = event else { panic!("{event:?}") };
        connections.read(id)
    }

    #[tokio::test]
    async fn what_comes_after_a_read_that_left_room_is_heard_of_and_so_is_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut connections = Connections::default();
        connections.adopt(ConnectionId(1), listener.accept().await.unwrap().0);
        for word in [b"one", b"two"] {
            peer.write_all(word).await.unwrap();
            let Read::Bytes(bytes) = read(&mut connections).await else { panic!("nothing was read") };
            assert_eq!(&bytes[..], word);
            assert!(matches!(connections.read(ConnectionId(1)), Read::Nothing));
        }
        peer.write_all(b"end").await.unwrap();
        peer.shutdown().await.unwrap();
        assert!(matches!(read(&mut connections).await, Read::Bytes(bytes) if &bytes[..] == b"end"));
        assert!(matches!(read(&mut connections).await, Read::Closed(None)));
    }
}
