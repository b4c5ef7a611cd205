//! What the service manager is told (systemd's notification protocol, `sd_notify(3)`): that margay serves, how it is, that it is
//! alive, that it ends.
//!
//! | word | when |
//! |---|---|
//! | `READY=1` | sessions run; or there is no configuration yet, and margay waits for one |
//! | `STATUS=` | with each change: sessions up and configured, problems, the datastore, who does not answer |
//! | `RELOADING=1` | while a new configuration is put in force, and on SIGHUP; then `READY=1` |
//! | `WATCHDOG=1` | at half of `WatchdogSec=`, while every machine answers (`runtime::pulse`) |
//! | `STOPPING=1` | on SIGTERM and SIGINT |
//!
//! A thread of its own says them: a manager that does not read holds up nobody.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use crate::control::health;
use crate::runtime::directory::Directory;
use crate::runtime::pulse::Silent;
use crate::telemetry::Filter;

/// Words that may wait for the manager.
const WORDS: usize = 16;
/// Events that may wait to be told as a status: what counts is that there are any.
const EVENTS: usize = 64;
/// Changes within this are told as one.
const COALESCED: Duration = Duration::from_millis(250);
/// How long the last word may take.
const LAST_WORD: Duration = Duration::from_secs(1);

enum Word {
    Ready,
    Reloading,
    Status(String),
    Watchdog,
    Stopping(oneshot::Sender<()>),
}

/// The way to the service manager; cheap to clone.
#[derive(Clone, Debug)]
pub struct Manager {
    words: mpsc::Sender<Word>,
    watchdog: Option<Duration>,
}

impl Manager {
    /// Starts its thread; none where no manager listens (`NOTIFY_SOCKET` is not set).
    ///
    /// # Errors
    /// The system has no thread for us.
    pub fn start() -> std::io::Result<Option<Self>> {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Ok(None);
        }
        let (words, said) = mpsc::channel(WORDS);
        std::thread::Builder::new().name("manager".into()).spawn(move || say_all(said))?;
        Ok(Some(Self { words, watchdog: sd_notify::watchdog_enabled() }))
    }

    /// Within which time the manager wants a sign of life, if it wants any.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// margay serves.
    pub fn ready(&self) {
        self.say(Word::Ready);
    }

    /// A configuration is being put in force; [`Manager::ready`] ends it.
    pub fn reloading(&self) {
        self.say(Word::Reloading);
    }

    /// Every machine has just answered.
    pub fn watchdog_is_fed(&self) {
        if self.watchdog.is_some() {
            self.say(Word::Watchdog);
        }
    }

    /// margay ends; returns when that is said.
    pub async fn stopping(&self) {
        let (said, is_said) = oneshot::channel();
        self.say(Word::Stopping(said));
        // A manager that does not read does not keep us.
        let _ = tokio::time::timeout(LAST_WORD, is_said).await;
    }

    fn say(&self, word: Word) {
        // Full: the manager has not read for a long time, and will hear of its own watchdog next.
        let _ = self.words.try_send(word);
    }

    /// Keeps `STATUS=` true until the process ends.
    pub async fn tell_status(self, mut directory: watch::Receiver<Arc<Directory>>, mut silent: watch::Receiver<Silent>) {
        let mut told = String::new();
        let (_, mut events) = mpsc::channel(1);
        loop {
            let now = Arc::clone(&directory.borrow_and_update());
            silent.mark_unchanged();
            let sentence = health::of(&now).await.to_string();
            if sentence != told {
                self.say(Word::Status(sentence.clone()));
                told = sentence;
            }
            if events.is_closed()
                && let Some(chronicle) = &now.chronicle
            {
                let (entries, followed) = mpsc::channel(EVENTS);
                chronicle.follow(Filter::default(), entries).await;
                events = followed;
            }
            tokio::select! {
                changed = directory.changed() => if changed.is_err() { return },
                _ = silent.changed() => {}
                Some(_) = events.recv() => {}
                // Whatever else a sentence may say.
                () = tokio::time::sleep(COALESCED * 40) => {}
            }
            tokio::time::sleep(COALESCED).await;
            while events.try_recv().is_ok() {}
        }
    }
}

fn say_all(mut words: mpsc::Receiver<Word>) {
    let mut complained = false;
    while let Some(word) = words.blocking_recv() {
        let said = match &word {
            Word::Ready => sd_notify::notify(&[NotifyState::Ready]),
            Word::Reloading => NotifyState::monotonic_usec_now().and_then(|now| sd_notify::notify(&[NotifyState::Reloading, now])),
            Word::Status(text) => sd_notify::notify(&[NotifyState::Status(text)]),
            Word::Watchdog => sd_notify::notify(&[NotifyState::Watchdog]),
            Word::Stopping(_) => sd_notify::notify(&[NotifyState::Stopping]),
        };
        if let Err(error) = said
            && !std::mem::replace(&mut complained, true)
        {
            warn!(%error, "the service manager cannot be told anything (NOTIFY_SOCKET)");
        }
        if let Word::Stopping(said) = word {
            // Whoever waited may have lost patience.
            let _ = said.send(());
        }
    }
}
