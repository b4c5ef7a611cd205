//! proof
pub mod lab;
pub mod story;
pub mod transcript;
pub mod wire;
