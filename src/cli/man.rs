//! The manual pages: what `--help` says, the examples under their own heading.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

/// Writes a page for each verb into `folder`, which must exist.
///
/// # Errors
/// The file system's.
pub fn write(command: clap::Command, folder: &Path) -> io::Result<()> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    pages(command, folder)
}

fn pages(command: clap::Command, folder: &Path) -> io::Result<()> {
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        pages(verb.clone(), folder)?;
    }
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let page = Man::new(command.after_help(None::<&str>));
    let mut file = File::create(folder.join(page.get_filename()))?;
    page.render(&mut file)?;
    examples(&after).to_writer(&mut file)?;
    file.flush()
}

/// `Examples:` and the indented lines below it as they are, then the rest in paragraphs.
fn examples(after: &str) -> Roff {
    let mut roff = Roff::default();
    let Some((before, text)) = after.split_once("Examples:\n") else { return roff };
    let lines: Vec<&str> = text.lines().take_while(|line| line.starts_with("  ")).collect();
    roff.control("SH", ["EXAMPLES"]).control("nf", []);
    for line in &lines {
        roff.text([roman(line.trim_start())]);
    }
    roff.control("fi", []);
    let rest: Vec<&str> = text.lines().skip(lines.len()).collect();
    for paragraph in [before.trim(), rest.join("\n").trim()].into_iter().filter(|paragraph| !paragraph.is_empty()) {
        roff.control("PP", []).text([roman(paragraph)]);
    }
    roff
}
