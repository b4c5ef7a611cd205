//! One collector's task: connects, lets a session run, and tries again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tracing::{info, warn};

use super::CollectorStatus;
use super::session::{End, Session};
use crate::rib::{MonitorId, Watch};
use crate::runtime::directory::Directory;
use crate::runtime::metrics::CollectorMeter;
use crate::telemetry::Event;

/// The first pause after a failure, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long a connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(super) struct Collector {
    pub(super) id: MonitorId,
    pub(super) address: SocketAddr,
    pub(super) watch: Watch,
    pub(super) statistics: Duration,
    pub(super) directory: watch::Receiver<Arc<Directory>>,
    pub(super) status: watch::Sender<CollectorStatus>,
    pub(super) meter: CollectorMeter,
    pub(super) stop: watch::Receiver<bool>,
}

impl Collector {
    /// Runs until all of it stops.
    pub(super) async fn run(mut self) {
        let mut pause = PAUSES.0;
        loop {
            let mut stop = self.stop.clone();
            let reached = tokio::select! {
                stream = self.reach() => stream,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let end = match reached {
                Ok(stream) => {
                    pause = PAUSES.0;
                    self.connected();
                    let session = Session::new(self.id, self.watch, stream, self.directory.clone(), stop.clone(), self.meter.clone());
                    session.run(self.statistics).await
                }
                Err(end) => end,
            };
            match end {
                End::Stopped => return,
                End::Outdated => self.away("our AS or identifier has changed: it is told anew".to_owned()),
                End::Lost(why) => {
                    self.away(why);
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        _ = stop.wait_for(|stop| *stop) => return,
                    }
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
    }

    /// Connects, as soon as there is something to tell: not before the first configuration.
    async fn reach(&mut self) -> Result<TcpStream, End> {
        if self.directory.wait_for(|now| now.config.is_some() && now.chronicle.is_some() && !now.shards.is_empty()).await.is_err() {
            return Err(End::Stopped);
        }
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(self.address)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(End::Lost(format!("cannot connect: {error}"))),
            Err(_) => Err(End::Lost(format!("no answer to the TCP connect within {} s", CONNECT_TIMEOUT.as_secs()))),
        }
    }

    fn connected(&self) {
        info!(collector = %self.address, "BMP: connected; it is told everything");
        self.publish(true, None);
        self.tell(Event::Collector { collector: self.address.to_string(), connected: true, why: None });
    }

    /// Says so once for as long as nothing changes.
    fn away(&self, why: String) {
        let before = self.status.borrow().clone();
        if !before.connected && before.why.as_ref() == Some(&why) {
            return;
        }
        warn!(collector = %self.address, %why, "BMP: the collector is away; it is tried again");
        self.publish(false, Some(why.clone()));
        self.tell(Event::Collector { collector: self.address.to_string(), connected: false, why: Some(why) });
    }

    fn publish(&self, connected: bool, why: Option<String>) {
        self.meter.connected(connected);
        let since = format!("{:.0}", jiff::Timestamp::now());
        self.status.send_replace(CollectorStatus { collector: self.address, connected, since, why });
    }

    fn tell(&self, event: Event) {
        if let Some(chronicle) = &self.directory.borrow().chronicle {
            chronicle.tell(event);
        }
    }
}
