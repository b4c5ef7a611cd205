//! The sockets: who may connect, how much, how long. A client is never trusted with more than a line.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::answer::{Source, answer, refuse};
use super::request::{Refusal, parse};
use super::status::VERSION;
use crate::control::bind;
use crate::runtime::directory::Directory;
use crate::types::Family;

/// Octets of a line at most, as BIRD has it.
pub const MAX_LINE: usize = 4096;
/// Clients of one socket at a time; one more is turned away.
pub const MAX_CLIENTS: usize = 64;
/// A client that takes nothing of what was sent for this long is dropped.
pub const SLOWEST: Duration = Duration::from_secs(30);
/// A client that asks nothing for this long is dropped.
const IDLE: Duration = Duration::from_secs(3600);
/// Pieces of a reply that may wait to be written.
const PIECES: usize = 4;

/// Opens `bird.ctl` and `bird6.ctl` in `folder` and serves them until the process ends.
///
/// # Errors
/// The folder cannot be made, or somebody else serves one of the sockets there.
pub fn serve(folder: &Path, directory: &watch::Receiver<Arc<Directory>>) -> Result<()> {
    for (name, family) in [("bird.ctl", Family::IPV4_UNICAST), ("bird6.ctl", Family::IPV6_UNICAST)] {
        let path: PathBuf = folder.join(name);
        let listener = bind(&path, "stop that BIRD (or margay), or give this one its own --bird-sockets")
            .with_context(|| format!("cannot open {}", path.display()))?;
        tokio::spawn(accept(listener, Source { directory: directory.clone(), family }));
    }
    Ok(())
}

async fn accept(listener: UnixListener, source: Source) {
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "a BIRD socket takes no clients for now");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            debug!(family = %source.family, "a client of the BIRD socket was turned away: there are {MAX_CLIENTS} already");
            continue;
        };
        let source = source.clone();
        tokio::spawn(async move {
            if let Err(error) = client(stream, &source).await {
                debug!(%error, "a client of the BIRD socket was dropped");
            }
            drop(place);
        });
    }
}

/// One client: its lines are answered in turn. Dropping the writer's inbox tells it to finish.
async fn client(stream: UnixStream, source: &Source) -> io::Result<()> {
    let (reader, writer) = stream.into_split();
    let (out, pieces) = mpsc::channel(PIECES);
    let writing = tokio::spawn(write(writer, pieces));
    let mut lines = Lines { reader, buffer: Vec::new() };
    let _ = out.send(format!("0001 BIRD {VERSION} ready.\n")).await;
    loop {
        let done = match within(IDLE, lines.next()).await? {
            Line::End => break,
            Line::TooLong => refuse(Refusal(9000, "Command too long".to_owned()), &out).await.is_err(),
            Line::Text(line) => match parse(&String::from_utf8_lossy(&line)) {
                Ok(command) => answer(source, command, &out).await.is_err(),
                Err(refusal) => refuse(refusal, &out).await.is_err(),
            },
        };
        if done {
            break;
        }
    }
    drop(out);
    writing.await.map_err(io::Error::other)?
}

async fn write(mut writer: OwnedWriteHalf, mut pieces: mpsc::Receiver<String>) -> io::Result<()> {
    while let Some(text) = pieces.recv().await {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let written = within(SLOWEST, writer.write(rest)).await?;
            rest = &rest[written..];
        }
    }
    Ok(())
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, work).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

struct Lines {
    reader: OwnedReadHalf,
    buffer: Vec<u8>,
}

enum Line {
    Text(Vec<u8>),
    /// Longer than [`MAX_LINE`]; all of it has been passed over.
    TooLong,
    End,
}

impl Lines {
    async fn next(&mut self) -> io::Result<Line> {
        let mut too_long = false;
        loop {
            if let Some(end) = self.buffer.iter().position(|octet| *octet == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                let line = std::mem::replace(&mut self.buffer, rest);
                return Ok(if too_long || line.len() > MAX_LINE { Line::TooLong } else { Line::Text(line) });
            }
            if self.buffer.len() >= MAX_LINE {
                too_long = true;
                self.buffer.clear();
            }
            let mut chunk = [0; 1024];
            let length = self.reader.read(&mut chunk).await?;
            if length == 0 {
                return Ok(Line::End);
            }
            self.buffer.extend_from_slice(&chunk[..length]);
        }
    }
}
