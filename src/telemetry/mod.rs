//! What has happened, as data: the events of a speaker, and the bounded history of them.
//!
//! ```text
//! peers ─session changes, faults─┐
//! configuration ─what it changed─┤                     ┌→ show events (what is remembered)
//! FibSyncer ─refused writes──────┼→ History: numbered ─┤
//! problems ─new, gone────────────┘   and remembered    └→ monitor (as it happens)
//! ```
//!
//! [`mrt`] is the encoding of table dumps, [`bmp`] that of what a BMP collector is told.
//!
//! Whoever says an event never waits for those who read it: a full inbox loses the event and counts it.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod bmp;
mod event;
mod history;
pub mod mrt;

pub use event::{Event, MemoryAct, Subject};
pub use history::{Entry, Filter, History};
