//! Where resources come from. Every source speaks one vocabulary, [`Word`]: `Begin`, documents, `End`, then live
//! changes; the problems of the source itself; and whether it can be reached.
//!
//! ```text
//! file │ etcd │ kubernetes ─Word→ intake ─Input→ Compiler          second_look: listings of concern are held back
//!                 (selection)       │ ▲                            last_known: `--state DIR`
//!                                   ▼ └ files beside (`--resources` with etcd or Kubernetes)
//!                                 Status (readiness, metrics, `/v1/datastore`)
//! ```
//!
//! - `selection` chooses one: [`mod@file`] reads YAML and JSON from files and folders and watches them; `etcd` is Calico's
//!   etcdv3 datastore; `kubernetes` lists and watches the Kubernetes API.
//! - `intake` is a machine with the rules that are the same for all remote sources: what is in force stays while the
//!   source is away; a start without it uses what an earlier run knew; a listing that lacks most of what is in force gets
//!   a second look, as `second_look` says. Of files it asks the `trial`: a change that nobody confirms is undone.
//! - `feed` drives both; `asked` finds in what it tells the CalicoNodeStatus objects of this node, which a `status_writer`
//!   fills; `keeper` keeps on disk what a restart must know; `meters` are the numbers. Files are neither held back nor saved: what is in them is what somebody wrote.

mod asked;
mod document;
#[cfg(feature = "etcd")]
pub mod etcd;
mod feed;
pub mod file;
mod files;
mod intake;
mod keeper;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
mod last_known;
mod meters;
mod second_look;
mod selection;
mod status_writer;
mod trial;
mod variables;
mod workloads;
mod yaml;

use std::future::Future;
use std::pin::Pin;

use prometheus_client::metrics::counter::Counter;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::calico::Input;

pub use asked::Asked;
pub use feed::{Feed, Judgement, start};
pub use file::{FileDatastore, load};
pub use files::{FileText, parse_texts, texts};
#[cfg(feature = "kubernetes")]
pub use kubernetes::KubernetesDatastore;
pub use meters::Meters;
pub use selection::{Kind, Settings, open};
pub use status_writer::{StatusWriter, Updated};
pub use trial::{Standing, Verdict};
pub use variables::Variables;
pub use workloads::Workloads;

/// A source of resources.
pub trait Datastore: Send {
    /// Tells everything, then every change, until nobody listens any more (or the source is lost for good).
    /// A source that cannot be reached says so and tries again by itself; it never tells half a table as a whole one.
    fn run(self: Box<Self>, link: Link) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;
}

/// What a source says.
#[derive(Clone, Debug)]
pub enum Word {
    /// Resources, and problems of the source.
    Input(Input),
    /// It cannot be reached (any more), and why, in words. What it has told counts until it tells otherwise. May be
    /// said again with another reason.
    Away(String),
    /// It can be reached again, and what it has told, with the changes since, is up to date. An `End` says the same.
    Here,
    /// The source itself holds part of its last listing back for a second look, as Kubernetes does with a kind; or does so no more.
    HoldsBack(bool),
}

/// What connects a source with its listener.
#[derive(Debug)]
pub struct Link {
    /// Where it speaks.
    pub out: mpsc::Sender<Word>,
    /// It is asked to look again: to tell its whole table anew, from `Begin` to `End`, from a fresh listing.
    pub again: mpsc::Receiver<()>,
    /// Counts whole listings: of the table, or of one kind where kinds are listed one by one.
    pub listings: Counter,
}

impl Link {
    /// Says something; false when nobody listens any more.
    pub async fn say(&self, word: Word) -> bool {
        self.out.send(word).await.is_ok()
    }
}

/// Both ends of a link: the source's, what it says, and how it is asked to look again.
pub fn link(capacity: usize) -> (Link, mpsc::Receiver<Word>, mpsc::Sender<()>) {
    let (out, words) = mpsc::channel(capacity);
    let (ask, again) = mpsc::channel(1);
    (Link { out, again, listings: Counter::default() }, words, ask)
}

/// How a datastore is, for readiness, metrics and people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Which one.
    pub kind: Kind,
    /// How it is.
    #[serde(flatten)]
    pub state: State,
    /// When the resources in force were saved (RFC 3339), where they are those of an earlier run.
    pub last_known: Option<String>,
    /// Whether a change is on trial; none where there is no such thing.
    #[serde(flatten)]
    pub trial: Option<Standing>,
}

/// What a datastore is doing. Times are RFC 3339.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// It has not told everything yet.
    #[default]
    Starting,
    /// What it has told is in force.
    InSync,
    /// It cannot be reached; what it told last stays in force.
    Away {
        /// Since when.
        since: String,
        /// Why, in words.
        why: String,
    },
    /// Its last listing lacks most of what is in force and is held back.
    HeldBack {
        /// When it counts unless it changes.
        until: String,
    },
}
