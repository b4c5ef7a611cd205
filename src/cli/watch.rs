//! `--watch`: the same answer again and again, each in the place of the one before.

use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::terminal::{Full, Paper, Screen, print};
use crate::cli::{Ended, Failure};

/// Lines that the heading and the prompt below take.
const MARGIN: usize = 3;
/// Lines of an answer that goes to no terminal.
const UNSEEN: usize = 100_000;
/// Cursor to the upper left corner.
const HOME: &str = "\u{1b}[H";
/// Erases from the cursor to the end of the line, and to the end of the screen.
const REST: (&str, &str) = ("\u{1b}[K", "\u{1b}[J");

/// A number of seconds that makes sense.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no number of seconds from 0.1 to 3600");
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    if (0.1..=3600.0).contains(&seconds) { Ok(Duration::from_secs_f64(seconds)) } else { Err(wrong()) }
}

/// Draws every so often until Ctrl-C, which is the way to end it and so no failure. If the first drawing fails, so does all of it; later
/// ones say what is wrong and go on, for a daemon that restarts is worth watching.
///
/// # Errors
/// What the first drawing says.
pub fn redraw<D>(every: Duration, screen: Screen, draw: D) -> Result<Ended, Failure>
where
    D: Fn(&mut Paper) -> Result<Ended, Failure> + Clone + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().context("cannot start the runtime")?;
    let ended = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
        let mut first = true;
        loop {
            let (draw, room) = (draw.clone(), screen.height.map_or(UNSEEN, |height| height.saturating_sub(MARGIN).max(1)));
            let drawing = tokio::task::spawn_blocking(move || sheet(&draw, room));
            let drawn = tokio::select! {
                _ = interrupt.recv() => return Ok(Ended::Done),
                drawn = drawing => drawn.context("the drawing broke off")?,
            };
            match drawn {
                Err(failure) if first => return Err(failure),
                Err(failure) => show(&screen, every, &format!("margay: {failure}\n"))?,
                Ok(text) => show(&screen, every, &text)?,
            }
            first = false;
            tokio::select! {
                _ = interrupt.recv() => return Ok(Ended::Done),
                () = tokio::time::sleep(every) => {}
            }
        }
    });
    // A question that is still open waits for an answer that nobody wants any more.
    runtime.shutdown_background();
    if screen.height.is_some() {
        print("\n")?;
    }
    ended
}

fn sheet(draw: &impl Fn(&mut Paper) -> Result<Ended, Failure>, room: usize) -> Result<String, Failure> {
    let mut paper = Paper::Sheet { text: String::new(), room };
    let more = match draw(&mut paper) {
        Ok(_) => "",
        Err(Failure::Other(error)) if error.is::<Full>() => "…",
        Err(failure) => return Err(failure),
    };
    let Paper::Sheet { text, .. } = paper else { return Ok(String::new()) };
    Ok(format!("{text}{more}"))
}

/// On a terminal in the place of what is there; elsewhere after it.
fn show(screen: &Screen, every: Duration, text: &str) -> anyhow::Result<()> {
    let heading = format!("{:.0}   every {} s, Ctrl-C ends\n", jiff::Timestamp::now(), every.as_secs_f64());
    if screen.height.is_none() {
        return print(text);
    }
    let (line, below) = REST;
    let lines: String = [heading.as_str(), "\n", text].concat().lines().map(|one| format!("{one}{line}\n")).collect();
    print(&format!("{HOME}{}{below}", lines.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_make_sense() {
        assert_eq!(seconds("2"), Ok(Duration::from_secs(2)));
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "inf", "NaN", "1e9", "soon", ""] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_long_answer_ends_with_the_screen() {
        let draw = |paper: &mut Paper| {
            for number in 0..100 {
                paper.put(&format!("{number}\n"))?;
            }
            Ok(Ended::Done)
        };
        assert_eq!(sheet(&draw, 3).unwrap(), "0\n1\n2\n…");
        assert_eq!(sheet(&draw, 200).unwrap().lines().count(), 100);
    }
}
