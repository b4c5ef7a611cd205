//! proof
pub mod lab;
