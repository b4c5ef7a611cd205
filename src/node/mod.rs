//! One speaker put together: which machine's word goes to whose inbox ([`wiring`]), and when our own restart is over
//! ([`recovery`]). Pure: the runtime drives it with tasks and threads, a simulator may drive it with a queue.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod recovery;
pub mod wiring;
