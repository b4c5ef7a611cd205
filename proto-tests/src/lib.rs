//! proof
pub mod lab;
pub mod live;
pub mod parity;
pub mod story;
pub mod transcript;
pub mod wire;
