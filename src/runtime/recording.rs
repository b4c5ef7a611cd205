//! `--record DIR`: what every machine hears and says, a file a machine. Those of sessions, a peer each, are transcripts that can be run again
//! (`node::transcript`). Those of shards, the FibSyncer, Origin and the Compiler (`shard-0`, `fib`, `origin`, `compiler`) have the same form, but their
//! lines are Rust's view of the values: they are for reading. Answers to questions are left out.
//!
//! A thread writes; its inbox is bounded. A peer never waits for it: lines that find no room are dropped, and a line says how many, after
//! which the file cannot be run again. A file that has grown to [`LIMIT`] becomes `NAME.old.txt`, in the place of an older one, and a new one
//! goes on from it; only what begins with its `config` line can be run again. Files are the owner's alone: they hold what was said, octet by
//! octet, though no keys.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::config::PeerConfig;
use crate::node::transcript;
use crate::session::{Input, Output, Settings};
use crate::types::PeerId;

/// Octets of a file before a new one begins.
pub const LIMIT: u64 = 64 << 20;
/// Pieces of text that may wait for the writer; each is what one input led to.
const INBOX: usize = 256;
/// How long the end may wait for what is still to be written.
const FINISH: Duration = Duration::from_secs(2);

/// To the writer.
enum Message {
    Text(Arc<str>, String),
    Flush(oneshot::Sender<()>),
}

/// The way to the files; cheap to clone.
#[derive(Clone, Debug)]
pub struct Recording {
    inbox: mpsc::Sender<Message>,
}

impl Recording {
    /// Starts the writer, which writes into `folder`.
    ///
    /// # Errors
    /// The folder cannot be made, or written to.
    pub fn start(folder: &Path) -> Result<Self> {
        let hint = || format!("cannot record in {}: give --record a folder that can be written to", folder.display());
        std::fs::create_dir_all(folder).with_context(hint)?;
        let (inbox, messages) = mpsc::channel(INBOX);
        let writer = Writer { folder: folder.to_owned(), files: BTreeMap::new(), limit: LIMIT };
        // Only to see whether it can be done.
        drop(writer.open("margay").with_context(hint)?);
        std::fs::remove_file(writer.path("margay")).with_context(hint)?;
        std::thread::Builder::new().name("recording".to_owned()).spawn(move || writer.run(messages)).with_context(hint)?;
        info!(folder = %folder.display(), "recording what sessions hear and say");
        Ok(Self { inbox })
    }

    /// A recorder of one peer's machine, made just now.
    pub fn session(&self, number: PeerId, config: &PeerConfig, settings: &Settings) -> Recorder {
        let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        let name: String = config.name.chars().map(safe).collect();
        let text = format!("# margay {}\n{}\n", env!("CARGO_PKG_VERSION"), transcript::session_config(number, config, settings));
        let mut recorder = self.machine(&format!("session-{name}"));
        recorder.write(text);
        recorder
    }

    /// A recorder of a machine of this name, made just now.
    pub fn machine(&self, name: &str) -> Recorder {
        Recorder { file: name.into(), inbox: self.inbox.clone(), origin: Instant::now(), shown: None, dropped: 0 }
    }

    /// Waits, not for long, until everything is written.
    pub async fn finish(&self) {
        let (reply, done) = oneshot::channel();
        let flush = async {
            if self.inbox.send(Message::Flush(reply)).await.is_ok() {
                // The writer may have ended.
                let _ = done.await;
            }
        };
        if tokio::time::timeout(FINISH, flush).await.is_err() {
            warn!("not everything could be recorded in time");
        }
    }
}

/// Records one machine.
#[derive(Debug)]
pub struct Recorder {
    file: Arc<str>,
    inbox: mpsc::Sender<Message>,
    origin: Instant,
    shown: Option<Duration>,
    dropped: u64,
}

impl Recorder {
    /// The session heard this (none: its deadline was met), and said that.
    pub fn note(&mut self, now: Instant, heard: Option<&str>, said: &[Output]) {
        let heard = std::iter::once(('<', heard.unwrap_or("DUE").to_owned()));
        self.lines(now, heard.chain(said.iter().map(|output| ('>', transcript::session_output(output)))));
    }

    /// Another machine heard this; see [`Recorder::said`].
    pub fn heard(&mut self, now: Instant, input: &impl fmt::Debug) {
        self.lines(now, std::iter::once(('<', format!("{input:?}"))));
    }

    /// A machine whose lines are Rust's view of the values said this.
    pub fn said(&mut self, now: Instant, outputs: impl Iterator<Item = impl fmt::Debug>) {
        self.lines(now, outputs.map(|output| ('>', format!("{output:?}"))));
    }

    fn lines(&mut self, now: Instant, lines: impl Iterator<Item = (char, String)>) {
        let mut lines = lines.peekable();
        if lines.peek().is_none() {
            return;
        }
        let at = now.saturating_duration_since(self.origin);
        let mut text = String::new();
        if self.shown.replace(at) != Some(at) {
            text = format!("at {}\n", transcript::time(at));
        }
        for (sign, line) in lines {
            text.push_str(&format!("{sign} {}\n", line.replace(char::is_control, " ")));
        }
        self.write(text);
    }

    fn write(&mut self, text: String) {
        let text = match self.dropped {
            0 => text,
            dropped => format!("# {dropped} pieces were dropped here: the writer did not keep up\n{text}"),
        };
        match self.inbox.try_send(Message::Text(Arc::clone(&self.file), text)) {
            Ok(()) => self.dropped = 0,
            Err(_) => self.dropped += 1,
        }
    }
}

/// What a session hears, before the machine takes it.
pub fn heard(input: &Input) -> String {
    transcript::session_input(input)
}

struct Writer {
    folder: PathBuf,
    files: BTreeMap<Arc<str>, (BufWriter<File>, u64)>,
    limit: u64,
}

impl Writer {
    fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        let mut failed = false;
        while let Some(message) = inbox.blocking_recv() {
            let mut next = Some(message);
            while let Some(message) = next {
                match message {
                    Message::Text(file, text) => {
                        if let Err(error) = self.write(file, &text)
                            && !std::mem::replace(&mut failed, true)
                        {
                            warn!(%error, "recording fails; what is missing is not told again");
                        }
                    }
                    Message::Flush(done) => {
                        self.flush();
                        // Whoever waited may have gone.
                        let _ = done.send(());
                    }
                }
                next = inbox.try_recv().ok();
            }
            self.flush();
        }
    }

    fn write(&mut self, name: Arc<str>, text: &str) -> Result<()> {
        if !self.files.contains_key(&name) {
            let file = self.open(&name)?;
            self.files.insert(Arc::clone(&name), (file, 0));
        }
        let Some((file, octets)) = self.files.get_mut(&name) else { return Ok(()) };
        file.write_all(text.as_bytes())?;
        *octets += text.len() as u64;
        if *octets >= self.limit {
            file.flush()?;
            std::fs::rename(self.path(&name), self.path(&format!("{name}.old")))?;
            let mut fresh = self.open(&name)?;
            writeln!(fresh, "# goes on from {name}.old.txt")?;
            self.files.insert(name, (fresh, 0));
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.txt"))
    }

    fn open(&self, name: &str) -> Result<BufWriter<File>> {
        let path = self.path(name);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        Ok(BufWriter::new(file.with_context(|| path.display().to_string())?))
    }

    fn flush(&mut self) {
        for (file, _) in self.files.values_mut() {
            // A full disk has been told by the write that found it.
            let _ = file.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ShardId;

    #[test]
    fn a_file_that_is_full_gives_way_to_a_new_one() {
        let folder = std::env::temp_dir().join(format!("margay-recording-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut writer = Writer { folder: folder.clone(), files: BTreeMap::new(), limit: 10 };
        for text in ["0123456\n", "789\n", "more\n"] {
            writer.write("peer".into(), text).unwrap();
        }
        writer.flush();
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!((read("peer.old.txt").as_str(), read("peer.txt").as_str()), ("0123456\n789\n", "# goes on from peer.old.txt\nmore\n"));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn machines_without_words_of_their_own_are_shown_as_rust_shows_them() {
        let (inbox, mut messages) = mpsc::channel(8);
        let mut recorder = Recorder { file: "fib".into(), inbox, origin: Instant::now(), shown: None, dropped: 0 };
        let now = recorder.origin + Duration::from_secs(1);
        recorder.heard(now, &Some("a\nb"));
        recorder.said(now, [1, 2].iter());
        recorder.said(now, std::iter::empty::<u8>());
        let mut text = String::new();
        while let Ok(Message::Text(_, more)) = messages.try_recv() {
            text.push_str(&more);
        }
        assert_eq!(text, "at 1s\n< Some(\"a\\nb\")\n> 1\n> 2\n");
    }

    #[test]
    fn what_finds_no_room_is_counted_and_told() {
        let (inbox, mut messages) = mpsc::channel(1);
        let mut recorder = Recorder { file: "peer".into(), inbox, origin: Instant::now(), shown: None, dropped: 0 };
        for _ in 0..3 {
            recorder.note(recorder.origin, Some("START"), &[]);
        }
        assert!(matches!(messages.try_recv(), Ok(Message::Text(_, text)) if text == "at 0s\n< START\n"));
        recorder.note(recorder.origin, None, &[Output::Pull { shard: ShardId(1), credit: 7 }]);
        let Ok(Message::Text(_, text)) = messages.try_recv() else { panic!("nothing was written") };
        assert_eq!(text, "# 2 pieces were dropped here: the writer did not keep up\n< DUE\n> PULL 1 7\n");
    }
}
