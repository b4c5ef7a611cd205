//! Where resources come from. Every source speaks one vocabulary, [`Input`]: `Begin`, documents, `End`, then live
//! changes; and the problems of the source itself.
//!
//! `file` reads YAML and JSON from files and folders and watches them.

mod document;
pub mod file;
mod files;
mod yaml;

use std::future::Future;
use std::pin::Pin;

use tokio::sync::mpsc;

use crate::calico::Input;

pub use file::{FileDatastore, load};

/// A source of resources.
pub trait Datastore: Send {
    /// Tells everything, then every change, until nobody listens any more (or the source is lost for good).
    fn run(self: Box<Self>, out: mpsc::Sender<Input>) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;
}
