//! Calico's etcdv3 datastore: list, then watch from the next revision.
//!
//! ```text
//! connect to a member ─▶ hello ─┬─ same cluster, not older ─▶ watch from where we were ─▶ (changes) ──┐
//!        ▲                      └─ first time, other cluster, older, compacted ─▶ list ─▶ watch       │
//!        └──────────────────────── next member, later and later ◀── connection lost ◀─────────────────┘
//! ```
//!
//! - [`key`] has Calico's layout: only what BGP needs is listed and watched, in eight ranges on one stream.
//! - A listing is one consistent state: all its pages are of one revision, and each watch begins at the next one.
//! - Each watch remembers how far it has come; a reconnect goes on from there, so that nothing is lost or told twice.
//!   etcd says from time to time how far a silent watch has come, lest its place be compacted away meanwhile.
//! - A compaction of our place, another cluster under the same address, or a store that went back (restored from a
//!   backup) is seen, and everything is listed anew; [`super::second_look`] looks at what that would take away.
//! - Members are tried in turn, beginning with a different one on each node; each connection signs in anew, so a token
//!   that has expired costs one reconnect. After a whole round without success the datastore is *away*, and rounds come
//!   later and later, up to 10 s apart, not at the same time on all nodes.
//! - Secrets and Services are not in etcd; `--resources` adds files that have them.
//! - `ETCD_DISCOVERY_SRV` is refused with words: list the members.

mod client;
pub mod key;
mod message;
mod settings;

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use serde_json::Value;
use tokio::time::timeout;
use tonic::Streaming;
use tracing::{debug, info};

pub use super::Updated;
use super::{Datastore, Link, Word};
use crate::calico::Input;
use crate::types::Sync;
use client::{Client, words};
use message::{Event, KeyValue, RangeRequest, ResponseHeader, WatchCreateRequest, WatchResponse};

pub use settings::EtcdSettings;

/// Keys in one answer of a listing.
const PAGE: i64 = 1000;
/// All watches must have begun by then.
const BEGIN: Duration = Duration::from_secs(30);
/// Pause after the first whole round of members without success; twice as long after each further attempt, …
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// … up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A connection that lasted as long was a good one: what follows it begins to count anew.
const GOOD: Duration = Duration::from_secs(5);

/// etcd as a datastore.
#[derive(Debug)]
pub struct EtcdDatastore {
    settings: EtcdSettings,
    prefixes: Vec<String>,
    position: Option<Position>,
}

/// How far we have come.
#[derive(Clone, Debug)]
struct Position {
    cluster_id: u64,
    /// By prefix: the first revision that would be news.
    next: Vec<i64>,
}

impl Position {
    /// Whether a member with this header can go on from here.
    fn continues(&self, header: &ResponseHeader) -> bool {
        let seen = self.next.iter().max().map_or(0, |next| next - 1);
        self.cluster_id == header.cluster_id && header.revision >= seen
    }
}

/// Why following a member came to an end without an error.
enum Ended {
    NobodyListens,
    /// Our place was compacted away, or a fresh listing was asked for.
    MustList,
}

impl EtcdDatastore {
    /// The resources that concern this node.
    pub fn new(settings: EtcdSettings, node: &str) -> Self {
        Self { settings, prefixes: key::prefixes(node), position: None }
    }

    async fn serve(mut self, mut link: Link) -> anyhow::Result<()> {
        let members = self.settings.endpoints.clone();
        let seed = seed();
        let mut turn = usize::try_from(seed).unwrap_or_default() % members.len();
        let mut failures = 0;
        let mut reasons: Vec<Option<String>> = vec![None; members.len()];
        loop {
            let began = Instant::now();
            match self.session(&members[turn], &mut link).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    if began.elapsed() >= GOOD {
                        failures = 0;
                        reasons.fill(None);
                    }
                    debug!(member = members[turn], error = format!("{error:#}"), "etcd");
                    reasons[turn] = Some(format!("{}: {error:#}", members[turn]));
                }
            }
            failures += 1;
            turn = (turn + 1) % members.len();
            if failures < members.len() {
                continue;
            }
            let why = reasons.iter().flatten().cloned().collect::<Vec<_>>().join("; ");
            if !link.say(Word::Away(why)).await {
                return Ok(());
            }
            tokio::select! {
                () = link.out.closed() => return Ok(()),
                () = tokio::time::sleep(pause(failures - members.len(), seed)) => {}
            }
        }
    }

    /// Everything that is done with one connection. Ends well when nobody listens any more.
    async fn session(&mut self, member: &str, link: &mut Link) -> anyhow::Result<()> {
        let mut client = Client::connect(&self.settings, member).await?;
        let header = hello(&mut client).await?;
        let mut resumed = self.position.as_ref().is_some_and(|position| position.continues(&header));
        loop {
            if !resumed && !self.list(&mut client, link).await? {
                return Ok(());
            }
            info!(member, resumed, "watching etcd");
            match self.follow(&mut client, link, resumed).await? {
                Ended::NobodyListens => return Ok(()),
                Ended::MustList => resumed = false,
            }
        }
    }

    /// Tells everything as of one revision; false when nobody listens any more.
    async fn list(&mut self, client: &mut Client, link: &mut Link) -> anyhow::Result<bool> {
        self.position = None;
        link.listings.inc();
        let ResponseHeader { cluster_id, revision } = hello(client).await?;
        if !link.say(Word::Input(Input::Resource(Sync::Begin))).await {
            return Ok(false);
        }
        for prefix in &self.prefixes {
            let mut from = prefix.as_bytes().to_vec();
            loop {
                let range = RangeRequest { key: from, range_end: key::range_end(prefix), limit: PAGE, revision, keys_only: false };
                let page = client.range(range).await.with_context(|| format!("cannot list {prefix}"))?;
                let after_last = page.kvs.last().map(|kv| [kv.key.as_slice(), &[0]].concat());
                for kv in page.kvs {
                    if let Some(word) = put(kv)
                        && !link.say(word).await
                    {
                        return Ok(false);
                    }
                }
                match after_last.filter(|_| page.more) {
                    Some(next) => from = next,
                    None => break,
                }
            }
        }
        self.position = Some(Position { cluster_id, next: vec![revision + 1; self.prefixes.len()] });
        Ok(link.say(Word::Input(Input::Resource(Sync::End))).await)
    }

    /// Tells changes from our position on.
    async fn follow(&mut self, client: &mut Client, link: &mut Link, resumed: bool) -> anyhow::Result<Ended> {
        let Some(position) = &mut self.position else { return Ok(Ended::MustList) };
        let mut watching = Watching { ids: Vec::new(), stream: client.watch(ranges(&self.prefixes, position)).await? };
        let begin = tokio::time::sleep(BEGIN);
        tokio::pin!(begin);
        let all = self.prefixes.len();
        loop {
            let response = tokio::select! {
                () = link.out.closed() => return Ok(Ended::NobodyListens),
                Some(()) = link.again.recv() => return Ok(Ended::MustList),
                () = &mut begin, if watching.ids.len() < all => bail!("not all watches began within {} s", BEGIN.as_secs()),
                response = watching.next() => response?,
            };
            if response.created && !response.canceled {
                watching.ids.push(response.watch_id);
                if watching.ids.len() == all && resumed && !link.say(Word::Here).await {
                    return Ok(Ended::NobodyListens);
                }
            }
            if response.canceled {
                if response.compact_revision != 0 {
                    info!(compacted = response.compact_revision, "etcd has compacted what we have not seen; listing anew");
                    return Ok(Ended::MustList);
                }
                bail!("the watch was ended: {}", response.cancel_reason);
            }
            if let Some(next) = watching.ids.iter().position(|id| *id == response.watch_id).and_then(|at| position.next.get_mut(at)) {
                *next = progress(&response).max(*next);
            }
            for event in response.events {
                if let Some(word) = change(event)
                    && !link.say(word).await
                {
                    return Ok(Ended::NobodyListens);
                }
            }
        }
    }
}

impl Datastore for EtcdDatastore {
    fn run(self: Box<Self>, link: Link) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>> {
        Box::pin(self.serve(link))
    }
}

/// The watches on one stream, by the order in which they began.
struct Watching {
    ids: Vec<i64>,
    stream: Streaming<WatchResponse>,
}

impl Watching {
    async fn next(&mut self) -> anyhow::Result<WatchResponse> {
        let next = self.stream.message().await.map_err(|status| anyhow!(words(&status)))?;
        next.ok_or_else(|| anyhow!("the member has ended the watch"))
    }
}

/// Who answers, and at which revision; an answer that the whole cluster stands by.
async fn hello(client: &mut Client) -> anyhow::Result<ResponseHeader> {
    let answer = client.range(RangeRequest { key: b"/calico/".to_vec(), limit: 1, keys_only: true, ..RangeRequest::default() }).await?;
    answer.header.ok_or_else(|| anyhow!("an answer without a header"))
}

fn ranges(prefixes: &[String], position: &Position) -> Vec<WatchCreateRequest> {
    let create = |(number, (prefix, next)): (usize, (&String, &i64))| WatchCreateRequest {
        key: prefix.as_bytes().to_vec(),
        range_end: key::range_end(prefix),
        start_revision: *next,
        progress_notify: true,
        watch_id: i64::try_from(number).unwrap_or_default() + 1,
        fragment: true,
    };
    prefixes.iter().zip(&position.next).enumerate().map(create).collect()
}

/// The first revision that would be news after this response; 0 if it says nothing of that. The rest of a revision may
/// still come in further fragments; the header may be ahead of the events.
fn progress(response: &WatchResponse) -> i64 {
    let last = response.events.iter().filter_map(|event| event.kv.as_ref()).map(|kv| kv.mod_revision).max();
    match (last, &response.header) {
        _ if response.fragment || response.created => 0,
        (Some(last), _) => last + 1,
        (None, Some(header)) => header.revision + 1,
        (None, None) => 0,
    }
}

fn put(KeyValue { key, value, .. }: KeyValue) -> Option<Word> {
    let key = String::from_utf8(key).ok()?;
    let resource = key::resource(&key)?;
    Some(Word::Input(Input::Resource(Sync::Upsert(resource, key::document(&key, &value)))))
}

fn change(event: Event) -> Option<Word> {
    let kv = event.kv?;
    match event.kind {
        0 => put(kv),
        _ => Some(Word::Input(Input::Resource(Sync::Remove(key::resource(std::str::from_utf8(&kv.key).ok()?)?)))),
    }
}

/// Reads a cluster-wide resource, and writes back what `change` makes of it, unless somebody else has written meanwhile.
///
/// # Errors
/// No member can be reached or lets us, or the value cannot be read.
pub async fn update(settings: &EtcdSettings, kind: &str, name: &str, change: impl FnOnce(&mut Value)) -> anyhow::Result<Updated> {
    let key = key::of_resource(kind, name).with_context(|| format!("{kind} is not in etcd"))?;
    let mut client = any(settings).await?;
    let range = RangeRequest { key: key.as_bytes().to_vec(), ..RangeRequest::default() };
    let Some(kv) = client.range(range).await?.kvs.into_iter().next() else { return Ok(Updated::Missing) };
    let before: Value = serde_json::from_slice(&kv.value).with_context(|| format!("{key} cannot be read"))?;
    let mut after = before.clone();
    change(&mut after);
    if before == after {
        return Ok(Updated::Unchanged);
    }
    let written = client.put_if(&key, kv.mod_revision, serde_json::to_vec(&after)?).await?;
    Ok(if written { Updated::Written } else { Updated::Conflict })
}

async fn any(settings: &EtcdSettings) -> anyhow::Result<Client> {
    let mut last = anyhow!("there is no endpoint");
    for member in &settings.endpoints {
        let attempt = async {
            let mut client = Client::connect(settings, member).await?;
            hello(&mut client).await?;
            Ok::<_, anyhow::Error>(client)
        };
        match timeout(BEGIN, attempt).await {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(error)) => last = error.context(member.clone()),
            Err(_) => last = anyhow!("{member}: no answer"),
        }
    }
    Err(last)
}

/// The pause after so many attempts beyond the first round, a bit different on each node.
fn pause(attempts: usize, seed: u64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << attempts.min(10)).min(LONGEST_PAUSE);
    let share = u32::try_from(seed.rotate_left(u32::try_from(attempts % 64).unwrap_or_default()) % 256).unwrap_or_default();
    doubled / 2 + doubled / 512 * share
}

fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_are_not_the_same_everywhere() {
        for seed in [0, 1, 0xdead_beef, u64::MAX] {
            for attempts in 0..100 {
                let full = FIRST_PAUSE.saturating_mul(1 << attempts.min(10)).min(LONGEST_PAUSE);
                let pause = pause(attempts, seed);
                assert!(pause >= full / 2 && pause <= full, "{attempts} {pause:?}");
            }
        }
        assert_ne!(pause(3, 5), pause(3, 6));
    }

    #[test]
    fn a_position_continues_in_the_same_store_only() {
        let position = Position { cluster_id: 7, next: vec![10, 21, 3] };
        for (cluster_id, revision, expected) in [(7, 20, true), (7, 30, true), (7, 19, false), (8, 30, false)] {
            assert_eq!(position.continues(&ResponseHeader { cluster_id, revision }), expected, "{cluster_id} {revision}");
        }
    }

    #[test]
    fn progress_is_what_has_been_told_whole() {
        let event = |mod_revision| Event { kind: 0, kv: Some(KeyValue { mod_revision, ..KeyValue::default() }) };
        let header = Some(ResponseHeader { cluster_id: 1, revision: 50 });
        let response = WatchResponse { header, ..WatchResponse::default() };
        assert_eq!(progress(&response), 51, "a silent watch has come as far as the store");
        let events = WatchResponse { events: vec![event(30), event(31)], ..response.clone() };
        assert_eq!(progress(&events), 32, "the header may be ahead of the events");
        assert_eq!(progress(&WatchResponse { fragment: true, ..events }), 0, "the rest of the revision is still to come");
        assert_eq!(progress(&WatchResponse { created: true, ..response }), 0, "old events are still to come");
    }
}
