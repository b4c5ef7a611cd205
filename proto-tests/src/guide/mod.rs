//! Guides whose every command is run: Markdown in, a lab up, each command in the node that it names, each output compared.
//!
//! ```text
//! packaging/guides/x.md ─read→ Guide { lab file, steps } ─run→ Lab: the steps in order ─words→ compared with what the guide shows
//! ```
//!
//! A guide names its lab by the first `topologies/NAME.clab.yml` in it. What its Markdown means to a test:
//!
//! - ```` ```console ````: lines `node1$ command` are run by `sh` in that node; the lines below are its output, in which `…` stands for anything in a line,
//!   and for any lines where it stands alone; how many blanks there are between words does not count. A command that only asks is asked again
//!   until its answer fits or a minute has passed, for a network needs its time; any other is run once. Without shown output a command must succeed.
//! - ```` ```yaml node1:/path ````: the file that the guide tells the reader to write; it is written.
//! - `` `margay …` `` and `` `birdc …` `` in a row of a table: run on the node that `<!-- inline: margay on node1, birdc on node3 -->` says, and must succeed.
//! - `<!-- node1$ command -->`, `<!-- kill node1 -->`, `<!-- restart node1 -->`: what makes a fault or takes it away, hidden from the reader.
//! - ```` ```sh ````: cannot be run here. A line above it must begin with `Not run by the tests:` and say why; it is counted as skipped.
//!
//! Every node that runs margay from a folder of the repository gets a copy of that folder which it may write to.

mod compare;
mod read;
mod run;

pub use read::{Guide, Step};
pub use run::run;
