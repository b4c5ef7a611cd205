//! What the words are printed on: a terminal with a width and colours, or a file or pipe with neither.

use std::io::{IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use anyhow::Context;
use clap::Args;
use terminal_size::{Height, Width};

/// How a cell is meant. It only ever underlines what the word in the cell says already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// As everything else.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// On its way, or worth a look.
    Uneasy,
    /// Somebody should do something.
    Bad,
}

impl Tone {
    fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Uneasy => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
        }
    }
}

/// How tables look.
#[derive(Clone, Copy, Debug, Args)]
pub struct Look {
    /// Show all columns in full, also where they do not fit the terminal.
    #[arg(long, global = true)]
    wide: bool,
}

/// What a table is drawn for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Screen {
    /// Columns that a line may take; none where nothing limits it.
    pub width: Option<usize>,
    /// Lines that are seen at once; none where it is no terminal.
    pub height: Option<usize>,
    /// Whether colours may be used.
    colour: bool,
}

impl Screen {
    /// Standard output: lines of a terminal are limited unless `look` says otherwise, those of a pipe never; colours are for terminals that
    /// know them, and for people who have not set `NO_COLOR` (<https://no-color.org>).
    pub fn of_stdout(look: Look) -> Self {
        let stdout = std::io::stdout();
        if !stdout.is_terminal() {
            return Self::default();
        }
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let colour = set("NO_COLOR").is_none() && set("TERM").is_none_or(|terminal| terminal != "dumb");
        let size = terminal_size::terminal_size_of(stdout).filter(|(Width(columns), _)| *columns > 0);
        Self {
            width: size.map(|(Width(columns), _)| usize::from(columns)).filter(|_| !look.wide),
            height: size.map(|(_, Height(lines))| usize::from(lines)),
            colour,
        }
    }

    /// The text in the colour of its tone.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        if !self.colour || tone == Tone::Plain || text.is_empty() {
            return text.to_owned();
        }
        let style = tone.style();
        format!("{style}{text}{style:#}")
    }

    /// A screen for tests.
    #[cfg(test)]
    pub fn of(width: Option<usize>, colour: bool) -> Self {
        Self { width, height: None, colour }
    }
}

/// Where a verb's answer goes: straight out, or onto a sheet that takes the place of the one before.
#[derive(Debug)]
pub enum Paper {
    /// Standard output, as it comes.
    Stdout,
    /// What fits a screen.
    Sheet {
        /// What has been written.
        text: String,
        /// Lines that still fit.
        room: usize,
    },
}

/// A sheet is full: whoever writes can stop.
#[derive(Debug, thiserror::Error)]
#[error("the screen is full")]
pub struct Full;

impl Paper {
    /// Writes; a reader that has gone (`| head`) is no error.
    ///
    /// # Errors
    /// What the system says, or [`Full`].
    pub fn put(&mut self, words: &str) -> anyhow::Result<()> {
        let Self::Sheet { text, room } = self else { return print(words) };
        for line in words.split_inclusive('\n') {
            if *room == 0 {
                return Err(Full.into());
            }
            text.push_str(line);
            *room -= usize::from(line.ends_with('\n'));
        }
        Ok(())
    }

    /// Says why there is no answer, where errors are said.
    pub fn complain(&mut self, why: &str) {
        match self {
            Self::Stdout => eprintln!("margay: {}", why.trim()),
            // A sheet without room for it has said more already.
            Self::Sheet { .. } => drop(self.put(&format!("margay: {}\n", why.trim()))),
        }
    }
}

/// Prints; a reader that has gone (`| head`) is no error.
///
/// # Errors
/// What the system says.
pub fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("cannot print"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_takes_what_fits() {
        let mut paper = Paper::Sheet { text: String::new(), room: 2 };
        assert!(paper.put("one\n").is_ok());
        let error = paper.put("two\nthree\n").unwrap_err();
        assert!(error.is::<Full>());
        assert!(matches!(paper, Paper::Sheet { text, room: 0 } if text == "one\ntwo\n"));
    }

    #[test]
    fn colours_only_where_they_may_be() {
        assert_eq!(Screen::of(None, true).paint(Tone::Good, "Established"), "\u{1b}[32mEstablished\u{1b}[0m");
        assert_eq!(Screen::of(None, true).paint(Tone::Plain, "x"), "x");
        assert_eq!(Screen::of(None, false).paint(Tone::Bad, "failed"), "failed");
    }
}
