//! A program on a terminal of its own, as somebody sits before it: `script` of util-linux makes the terminal.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::lab::process::wait_until;

/// What is awaited on a screen comes within this.
const WAIT: Duration = Duration::from_secs(20);

/// A terminal and the program on it; dropping it ends both.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keys: Option<ChildStdin>,
    words: mpsc::Receiver<Vec<u8>>,
    screen: String,
}

impl Terminal {
    /// Starts `line`, a shell's line, on a terminal of so many columns and 24 lines.
    ///
    /// # Errors
    /// There is no `script`.
    pub fn start(columns: u16, line: &str, environment: &[(&str, &str)]) -> Result<Self> {
        let line = format!("stty cols {columns} rows 24 && exec {line}");
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "script", "--quiet", "--flush", "--return", "--command", &line, "/dev/null"])
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("script (package bsdutils)")?;
        let mut output = child.stdout.take().context("no output")?;
        let (tell, words) = mpsc::sync_channel(1024);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                if tell.send(buffer[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok(Self { keys: child.stdin.take(), child, words, screen: String::new() })
    }

    /// Presses keys.
    ///
    /// # Errors
    /// The program has ended.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        let stdin = self.keys.as_mut().context("the keyboard is gone")?;
        stdin.write_all(keys.as_bytes())?;
        Ok(stdin.flush()?)
    }

    /// All that has been written so far, control sequences included.
    pub fn screen(&mut self) -> &str {
        while let Ok(words) = self.words.try_recv() {
            self.screen.push_str(&String::from_utf8_lossy(&words));
        }
        &self.screen
    }

    /// Waits until the text has been written, and forgets everything up to its end; returns what came before it.
    ///
    /// # Errors
    /// It does not come.
    pub fn see(&mut self, text: &str) -> Result<String> {
        let at = wait_until(WAIT, text, || {
            let screen = self.screen();
            screen.find(text).with_context(|| format!("no `{text}` in {screen:?}"))
        })?;
        let rest = self.screen.split_off(at + text.len());
        let before = std::mem::replace(&mut self.screen, rest);
        Ok(before)
    }

    /// Waits for the end of the program: its exit status, and what is left on the screen.
    ///
    /// # Errors
    /// It does not end.
    pub fn end(mut self) -> Result<(ExitStatus, String)> {
        let status = wait_until(WAIT, "the program on the terminal ends", || match self.child.try_wait()? {
            Some(status) => Ok(status),
            None => bail!("it runs, and says {:?}", self.screen()),
        })?;
        // The reader ends with the terminal, and closes the channel.
        while let Ok(words) = self.words.recv_timeout(WAIT) {
            self.screen.push_str(&String::from_utf8_lossy(&words));
        }
        Ok((status, std::mem::take(&mut self.screen)))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
