//! `GET /v1/complete/…`: words that begin as somebody has begun to type them.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;
use tokio::sync::watch;

use crate::control::ask;
use crate::rib::{self, Answer};
use crate::runtime::directory::Directory;

/// Words that are told at most: more are no help.
const WORDS: usize = 64;
/// Routes that are looked at for them at most, a shard.
const ROUTES: usize = 20_000;

/// What has been typed.
#[derive(Debug, Deserialize)]
pub struct Begun {
    #[serde(default)]
    text: String,
}

type Shared = State<watch::Receiver<Arc<Directory>>>;

/// Session names; addresses where the text begins one.
pub async fn peers(State(directory): Shared, Query(Begun { text }): Query<Begun>) -> Json<Vec<String>> {
    let directory = Arc::clone(&directory.borrow());
    let names = directory.peers.keys().cloned();
    let addresses = directory.peers.values().map(|entry| entry.config.address.to_string()).filter(|_| !text.is_empty());
    Json(names.chain(addresses).filter(|word| word.starts_with(&text)).take(WORDS).collect())
}

/// Prefixes that have a route. The tables are walked from where the text points, and not for long.
pub async fn prefixes(State(directory): Shared, Query(Begun { text }): Query<Begun>) -> Json<Vec<String>> {
    let directory = Arc::clone(&directory.borrow());
    let Some(within) = within(&text) else { return Json(Vec::new()) };
    let question = rib::Query::Routes { prefix: within, longer: within.is_some(), family: None, received: None, advertised: None };
    let mut words = BTreeSet::new();
    for mut answer in ask::routes(&directory, question).await {
        let mut seen = 0;
        while let Some(Answer::Routes(rows)) = answer.recv().await {
            seen += rows.len();
            words.extend(rows.iter().map(|row| row.prefix).filter(|prefix| prefix.to_string().starts_with(&text)));
            if words.len() >= WORDS || seen >= ROUTES {
                break;
            }
        }
    }
    Json(words.iter().take(WORDS).map(ToString::to_string).collect())
}

/// The smallest prefix that everything lies in whose text begins so: `Some(None)` for all, none where no prefix begins so.
fn within(text: &str) -> Option<Option<IpNet>> {
    let address = text.split('/').next().unwrap_or_default();
    if text.is_empty() {
        return Some(None);
    }
    if address.contains(':') { ipv6(address).map(Some) } else { ipv4(address) }
}

/// `10.24` is 10.0.0.0/8, for 10.240 begins so as well. A number that may be the first of either family is in neither.
fn ipv4(text: &str) -> Option<Option<IpNet>> {
    let Some((whole, _)) = text.rsplit_once('.') else {
        return text.chars().all(|digit| digit.is_ascii_hexdigit()).then_some(None);
    };
    let mut octets = [0; 4];
    let numbers = whole.split('.').map(|octet| octet.parse::<u8>().ok()).collect::<Option<Vec<u8>>>()?;
    octets.get_mut(..numbers.len())?.copy_from_slice(&numbers);
    Ipv4Net::new(Ipv4Addr::from(octets), u8::try_from(numbers.len() * 8).ok()?).ok().map(|net| Some(net.into()))
}

/// `fd00:1:2` is fd00:1::/32: what comes before the last group, up to `::`, is whole.
fn ipv6(text: &str) -> Option<IpNet> {
    let (before, _) = text.split_once("::").unwrap_or_else(|| text.rsplit_once(':').unwrap_or((text, "")));
    let groups: Vec<u16> =
        before.split(':').filter(|group| !group.is_empty()).map(|group| u16::from_str_radix(group, 16).ok()).collect::<Option<_>>()?;
    let mut segments = [0; 8];
    segments.get_mut(..groups.len())?.copy_from_slice(&groups);
    Ipv6Net::new(Ipv6Addr::from(segments), u8::try_from(groups.len() * 16).ok()?).ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_look_for_what_has_begun() {
        let rows = [
            ("", Some(None)),
            ("1", Some(None)),
            ("fd", Some(None)),
            ("10.", Some(Some("10.0.0.0/8"))),
            ("10.24", Some(Some("10.0.0.0/8"))),
            ("10.244.1", Some(Some("10.244.0.0/16"))),
            ("10.244.1.0/2", Some(Some("10.244.1.0/24"))),
            ("fd00:", Some(Some("fd00::/16"))),
            ("fd00:1", Some(Some("fd00::/16"))),
            ("fd00:1:2", Some(Some("fd00:1::/32"))),
            ("fd00:1::", Some(Some("fd00:1::/32"))),
            ("fd00:1::5/1", Some(Some("fd00:1::/32"))),
            ("::", Some(Some("::/0"))),
            ("Mesh_", None),
            ("10.256.", None),
            ("1.2.3.4.5.6", None),
            ("1:2:3:4:5:6:7:8:9:", None),
        ];
        for (text, expected) in rows {
            let expected = expected.map(|net: Option<&str>| net.map(|net| net.parse().unwrap()));
            assert_eq!(within(text), expected, "{text}");
        }
    }
}
