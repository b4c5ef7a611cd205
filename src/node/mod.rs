//! One speaker put together: which machine's word goes to whose inbox ([`wiring`]), when the kernel has been
//! heard whole ([`first_telling`]), which peers our links let us reach ([`reach`]),
//! when our own restart is over ([`recovery`]), who is read no more when memory runs short ([`memory`]), inputs and outputs as text
//! ([`transcript`]), and what a proposed configuration would do ([`proposal`]). Pure: the runtime drives it with tasks and threads, a
//! simulator may drive it with a queue.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod first_telling;
pub mod handover;
pub mod memory;
pub mod proposal;
pub mod reach;
pub mod recovery;
pub mod transcript;
pub mod wiring;
