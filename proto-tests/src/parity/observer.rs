//! Observers: the neighbours of a side, all in one thread inside the outside's network namespace.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ipnet::IpNet;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use super::case::{Announcement, Observer};
use super::message::{self, KEEPALIVE, Key, NOTIFICATION, OPEN, Opened, ROUTE_REFRESH, UPDATE};
use crate::live::signature;

/// What an observer knows of its node.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// The OPEN, and whose address the session came from, when it is established.
    pub session: Option<(Opened, IpAddr)>,
    /// End-of-RIB came.
    pub end_of_rib: bool,
    /// What the node announces now.
    pub paths: BTreeMap<Key, String>,
    /// Why the last session ended, or never began.
    pub ended: String,
    /// Messages that no speaker may send.
    pub faults: Vec<String>,
}

/// What an observer is told to do.
#[derive(Clone, Debug)]
pub enum Command {
    Announce(Announcement),
    Withdraw(IpNet),
    Password(String),
    Leave,
}

/// The pause between two attempts.
const RETRY: Duration = Duration::from_millis(50);

type Book = Arc<Mutex<BTreeMap<String, Heard>>>;

/// The observers of a side.
pub struct Observers {
    book: Book,
    commands: BTreeMap<String, UnboundedSender<Command>>,
    stop: UnboundedSender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Observers {
    /// Starts them in the network namespace of the process `pid`.
    pub fn start(observers: &BTreeMap<String, Observer>, pid: u32) -> Result<Self> {
        let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
        let book = Book::default();
        let (stop, mut stopped) = unbounded_channel();
        let (mut commands, mut tasks) = (BTreeMap::new(), Vec::new());
        for (name, observer) in observers {
            let (sender, receiver) = unbounded_channel();
            commands.insert(name.clone(), sender);
            tasks.push(Task { voice: Voice { name: name.clone(), book: book.clone() }, observer: observer.clone(), commands: receiver });
        }
        let run = move || {
            if let Err(error) = move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)) {
                eprintln!("observers: cannot enter the namespace: {error}");
                return;
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let mut all: JoinSet<()> = tasks.into_iter().map(Task::run).collect();
                tokio::select! { _ = stopped.recv() => {}, () = async { while all.join_next().await.is_some() {} } => { stopped.recv().await; } }
            });
        };
        Ok(Self { book, commands, stop, thread: Some(std::thread::spawn(run)) })
    }

    /// What each heard.
    pub fn heard(&self) -> BTreeMap<String, Heard> {
        self.book.lock().expect("no observer panics").clone()
    }

    /// Tells one what to do.
    pub fn tell(&self, name: &str, command: Command) -> Result<()> {
        let sender = self.commands.get(name).with_context(|| format!("there is no observer `{name}`"))?;
        sender.send(command).ok().with_context(|| format!("observer {name} is gone"))
    }
}

impl Drop for Observers {
    fn drop(&mut self) {
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Task {
    voice: Voice,
    observer: Observer,
    commands: UnboundedReceiver<Command>,
}

/// Writes down what one observer hears.
struct Voice {
    name: String,
    book: Book,
}

/// The observer has been told to leave.
struct Left;

impl Task {
    async fn run(mut self) {
        let mut table: BTreeMap<(IpNet, u32), Announcement> =
            self.observer.announces.iter().map(|path| ((path.prefix, path.id), path.clone())).collect();
        self.voice.note(|_| ());
        let listener = match self.observer.listen.map(|port| SocketAddr::new(self.observer.address, port)) {
            Some(address) => TcpListener::bind(address).await.map(Some),
            None => Ok(None),
        };
        let listener = match listener {
            Ok(Some(listener)) => sign(&listener, &self.observer).map(|()| Some(listener)),
            other => other,
        };
        loop {
            let result = match &listener {
                Ok(listener) => self.session(listener.as_ref(), &mut table).await,
                Err(error) => Err(anyhow::anyhow!("cannot listen: {error}")),
            };
            let left = result.is_ok();
            let ended = result.map_or_else(|error| format!("{error:#}"), |Left| "left".into());
            self.voice.note(|heard| *heard = Heard { ended, faults: std::mem::take(&mut heard.faults), ..Heard::default() });
            if left {
                return;
            }
            // What it is told meanwhile is for the next session.
            match tokio::time::timeout(RETRY, self.commands.recv()).await {
                Err(_) => {}
                Ok(Some(Command::Announce(path))) => drop(table.insert((path.prefix, path.id), path)),
                Ok(Some(Command::Withdraw(prefix))) => drop(table.remove(&(prefix, 1))),
                Ok(Some(Command::Password(key))) => {
                    self.observer.password = Some(key);
                    // A listener that cannot be signed takes no session, and the case shows that.
                    let _ = listener.as_ref().map(|listener| listener.as_ref().map(|listener| sign(listener, &self.observer)));
                }
                Ok(Some(Command::Leave) | None) => return,
            }
        }
    }

    async fn connect(&self, listener: Option<&TcpListener>) -> Result<TcpStream> {
        if let Some(listener) = listener {
            return Ok(listener.accept().await?.0);
        }
        let socket = if self.observer.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        sign(&socket, &self.observer)?;
        socket.bind(SocketAddr::new(self.observer.address, 0))?;
        let node = SocketAddr::new(self.observer.node, self.observer.port.unwrap_or(179));
        Ok(tokio::time::timeout(Duration::from_secs(1), socket.connect(node)).await??)
    }

    /// One session, from the connection to its end.
    async fn session(&mut self, listener: Option<&TcpListener>, table: &mut BTreeMap<(IpNet, u32), Announcement>) -> Result<Left> {
        let mut stream = self.connect(listener).await?;
        let from = stream.peer_addr()?.ip();
        let id = match (self.observer.id, self.observer.address) {
            (Some(id), _) | (None, IpAddr::V4(id)) => id,
            (None, IpAddr::V6(_)) => Ipv4Addr::new(192, 0, 2, 1),
        };
        stream.write_all(&message::open(&self.observer, id)).await?;
        let (kind, body) = read(&mut stream).await?;
        ensure!(kind == OPEN, "{}", unexpected(kind, &body));
        let opened = message::read_open(&body)?;
        let add_path = opened.add_path && self.observer.calico;
        stream.write_all(&message::message(KEEPALIVE, &[])).await?;
        let (kind, body) = read(&mut stream).await?;
        ensure!(kind == KEEPALIVE, "{}", unexpected(kind, &body));
        self.voice.note(|heard| heard.session = Some((opened, from)));
        for path in table.values() {
            stream.write_all(&message::announce(path, add_path)?).await?;
        }
        stream.write_all(&message::end_of_rib(self.observer.address)).await?;
        let (mut reader, mut writer) = stream.into_split();
        let (again, mut asked) = unbounded_channel();
        let hear = async {
            loop {
                let (kind, body) = read(&mut reader).await?;
                if let (ROUTE_REFRESH, [_, _, 0, _]) = (kind, &body[..]) {
                    // The other end of the channel lives as long as this session.
                    let _ = again.send(());
                }
                self.voice.hear(kind, &body, add_path)?;
            }
        };
        let tell = async {
            loop {
                tokio::select! {
                    Some(()) = asked.recv() => {
                        for path in table.values() {
                            writer.write_all(&message::announce(path, add_path)?).await?;
                        }
                    }
                    command = self.commands.recv() => match command {
                        Some(Command::Password(key)) => {
                            writer.write_all(&message::message(NOTIFICATION, &[6, 4])).await?;
                            self.observer.password = Some(key);
                            listener.map_or(Ok(()), |listener| sign(listener, &self.observer))?;
                            bail!("another key");
                        }
                        command => {
                            if let Some(left) = obey(command, table, &mut writer, add_path).await? {
                                return Ok(left);
                            }
                        }
                    },
                }
            }
        };
        tokio::select! { ended = hear => ended, left = tell => left }
    }
}

impl Voice {
    fn note(&self, write: impl FnOnce(&mut Heard)) {
        write(self.book.lock().expect("no observer panics").entry(self.name.clone()).or_default());
    }

    fn hear(&self, kind: u8, body: &[u8], add_path: bool) -> Result<()> {
        match kind {
            KEEPALIVE | ROUTE_REFRESH => Ok(()),
            UPDATE => {
                let said = match message::read_update(body, add_path) {
                    Ok(said) => said,
                    Err(error) => {
                        self.note(|heard| heard.faults.push(format!("{error:#}: {body:02x?}")));
                        return Ok(());
                    }
                };
                self.note(|heard| {
                    said.withdrawn.iter().for_each(|key| drop(heard.paths.remove(key)));
                    heard.paths.extend(said.announced);
                    heard.end_of_rib |= said.end_of_rib;
                });
                Ok(())
            }
            _ => bail!("{}", unexpected(kind, body)),
        }
    }
}

/// Does as it is told; the answer is there when it is told to leave.
async fn obey(
    command: Option<Command>,
    table: &mut BTreeMap<(IpNet, u32), Announcement>,
    writer: &mut OwnedWriteHalf,
    add_path: bool,
) -> Result<Option<Left>> {
    match command {
        Some(Command::Announce(path)) => {
            writer.write_all(&message::announce(&path, add_path)?).await?;
            table.insert((path.prefix, path.id), path);
        }
        Some(Command::Withdraw(prefix)) => {
            writer.write_all(&message::withdraw(prefix, 1, add_path)).await?;
            table.remove(&(prefix, 1));
        }
        Some(Command::Password(_)) => {}
        Some(Command::Leave) | None => {
            writer.write_all(&message::message(NOTIFICATION, &[6, 2])).await?;
            return Ok(Some(Left));
        }
    }
    Ok(None)
}

/// Signs what is exchanged with the node, where the observer has a key.
fn sign(socket: &impl AsRawFd, observer: &Observer) -> std::io::Result<()> {
    match &observer.password {
        Some(key) => signature::sign(socket, SocketAddr::new(observer.node, 0), key.as_bytes()),
        None => Ok(()),
    }
}

fn unexpected(kind: u8, body: &[u8]) -> String {
    match (kind, body) {
        (NOTIFICATION, [code, subcode, ..]) => format!("notification {code}/{subcode}"),
        _ => format!("message {kind} {body:02x?}"),
    }
}

async fn read(stream: &mut (impl AsyncReadExt + Unpin)) -> Result<(u8, Vec<u8>)> {
    let mut header = [0; 19];
    stream.read_exact(&mut header).await.context("closed")?;
    ensure!(header[..16] == [0xff; 16], "a bad marker");
    let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
    ensure!((19..=4096).contains(&length), "a message of {length} bytes");
    let mut body = vec![0; length - 19];
    stream.read_exact(&mut body).await.context("closed")?;
    Ok((header[18], body))
}
