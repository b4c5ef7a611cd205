//! One connection to a collector: what the shards say is written, and only then are they asked for more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};

use super::statistics::Numbers;
use super::teller::Teller;
use crate::rib::{self, MonitorId, Watch};
use crate::runtime::directory::Directory;
use crate::runtime::message::{MonitorWords, ShardMessage};
use crate::runtime::metrics::CollectorMeter;
use crate::telemetry::bmp::{self, Moment, Subject, TerminationReason, View};
use crate::types::{Asn, RouterId, ShardId};

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// Why a session is over.
#[derive(Debug)]
pub(super) enum End {
    /// margay stops.
    Stopped,
    /// What it was told of ourselves is no longer so.
    Outdated,
    /// The collector has gone, or did not keep up; in words.
    Lost(String),
}

/// See the module.
pub(super) struct Session {
    id: MonitorId,
    watch: Watch,
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    directory: watch::Receiver<Arc<Directory>>,
    stop: watch::Receiver<bool>,
    meter: CollectorMeter,
    shards: Vec<mpsc::Sender<ShardMessage>>,
    /// Words of shards; from each at most one answer, and one that it gives us up.
    words: mpsc::Receiver<MonitorWords>,
    sender: mpsc::Sender<MonitorWords>,
    /// Came while something was being written.
    waiting: VecDeque<MonitorWords>,
}

/// What happens next.
enum Turn {
    Words(ShardId, Vec<rib::Monitored>),
    Statistics,
}

impl Session {
    /// A session on a fresh connection.
    pub(super) fn new(
        id: MonitorId,
        watch: Watch,
        stream: TcpStream,
        directory: watch::Receiver<Arc<Directory>>,
        stop: watch::Receiver<bool>,
        meter: CollectorMeter,
    ) -> Self {
        let shards = directory.borrow().shards.clone();
        let (sender, words) = mpsc::channel(2 * shards.len());
        let (reader, writer) = stream.into_split();
        Self { id, watch, reader, writer, directory, stop, meter, shards, words, sender, waiting: VecDeque::new() }
    }

    /// Tells until the end.
    pub(super) async fn run(mut self, statistics: Duration) -> End {
        let end = self.tell(statistics).await;
        for shard in &self.shards {
            // A closed inbox means that the process ends.
            let _ = shard.send(ShardMessage::Input(rib::Input::MonitorEnds(self.id))).await;
        }
        let reason = match &end {
            End::Stopped => TerminationReason::AdministrativelyClosed,
            End::Outdated => TerminationReason::Unspecified,
            End::Lost(_) => TerminationReason::OutOfResources,
        };
        // To a collector that has gone, or takes nothing, nothing can be said.
        let _ = tokio::time::timeout(GOODBYE, self.writer.write_all(&bmp::termination(reason))).await;
        let _ = tokio::time::timeout(GOODBYE, self.writer.shutdown()).await;
        end
    }

    async fn tell(&mut self, statistics: Duration) -> End {
        let Some(ourselves) = ourselves(&self.directory.borrow()) else { return End::Outdated };
        let (asn, identifier, node) = ourselves;
        let mut teller = Teller::new(self.shards.len(), Subject::loc_rib(asn, identifier));
        let mut messages = vec![bmp::initiation(concat!("margay ", env!("CARGO_PKG_VERSION"), ", BGP speaker for Calico networks"), &node)];
        messages.extend(self.watch.wants(View::LocRib).then(|| bmp::loc_rib_up(teller.loc_rib(), now())));
        for shard in &self.shards {
            let _ = shard.send(ShardMessage::Monitor(self.id, self.watch, self.sender.clone())).await;
            let _ = shard.send(ShardMessage::Input(rib::Input::PullMonitor(self.id))).await;
        }
        let mut reports = tokio::time::interval_at(tokio::time::Instant::now() + statistics, statistics);
        loop {
            if let Err(end) = self.write(std::mem::take(&mut messages)).await {
                return end;
            }
            match self.turn(&mut reports, (asn, identifier)).await {
                Err(end) => return end,
                Ok(Turn::Words(_, words)) if words.is_empty() => return overrun(),
                Ok(Turn::Words(shard, words)) => {
                    teller.tell(shard, words, now(), &mut messages);
                    if let Err(end) = self.write(std::mem::take(&mut messages)).await {
                        return end;
                    }
                    if let Some(inbox) = self.shards.get(usize::from(shard.0)) {
                        let _ = inbox.send(ShardMessage::Input(rib::Input::PullMonitor(self.id))).await;
                    }
                }
                Ok(Turn::Statistics) => {
                    let directory = Arc::clone(&self.directory.borrow());
                    Numbers::ask(&directory).await.report(&teller, |view| self.watch.wants(view), now(), &mut messages);
                }
            }
        }
    }

    async fn turn(&mut self, reports: &mut tokio::time::Interval, before: (Asn, RouterId)) -> Result<Turn, End> {
        if let Some((shard, words)) = self.waiting.pop_front() {
            return Ok(Turn::Words(shard, words));
        }
        let mut ignored = [0; 256];
        loop {
            tokio::select! {
                Some((shard, words)) = self.words.recv() => return Ok(Turn::Words(shard, words)),
                _ = reports.tick() => return Ok(Turn::Statistics),
                _ = self.stop.wait_for(|stop| *stop) => return Err(End::Stopped),
                read = self.reader.read(&mut ignored) => match read {
                    Ok(0) => return Err(End::Lost("the collector closed the connection".to_owned())),
                    Err(error) => return Err(End::Lost(error.to_string())),
                    // A collector has nothing to say (RFC 7854 section 3.2).
                    Ok(_) => {}
                },
                changed = self.directory.changed() => {
                    let now = ourselves(&self.directory.borrow_and_update());
                    if changed.is_err() || now.is_some_and(|(asn, identifier, _)| (asn, identifier) != before) {
                        return Err(End::Outdated);
                    }
                }
            }
        }
    }

    /// Writes all of it; ends early where the collector is given up meanwhile, or margay stops.
    async fn write(&mut self, messages: Vec<Bytes>) -> Result<(), End> {
        if messages.is_empty() {
            return Ok(());
        }
        let octets = messages.concat();
        self.meter.told(messages.len(), octets.len());
        let Self { writer, words, waiting, stop, .. } = self;
        let mut writing = std::pin::pin!(writer.write_all(&octets));
        loop {
            tokio::select! {
                written = &mut writing => return written.map_err(|error| End::Lost(error.to_string())),
                Some((shard, words)) = words.recv() => match words.is_empty() {
                    true => return Err(overrun()),
                    false => waiting.push_back((shard, words)),
                },
                _ = stop.wait_for(|stop| *stop) => return Err(End::Stopped),
            }
        }
    }
}

fn overrun() -> End {
    End::Lost(format!("it did not keep up: more than {} changed paths waited for it", super::WAITING))
}

/// Our AS, our identifier and our name.
fn ourselves(directory: &Directory) -> Option<(Asn, RouterId, String)> {
    directory.config.as_ref().map(|config| (config.asn, config.router_id, directory.node.clone()))
}

fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment { seconds: u32::try_from(since.as_secs()).unwrap_or(u32::MAX), micros: since.subsec_micros() }
}
