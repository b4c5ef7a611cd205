//! MRT dumps as `bgpdump` reads them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use proto_tests::lab::process::wait_until;
use proto_tests::live::daemon::{external_6, program};
use proto_tests::live::message::{
    NEXT_HOP, NEXT_HOP_6, announce, as_path, attribute, communities, local_pref, next_hop, nlri, nlri_with_ids, origin, reach, update,
};
use proto_tests::live::{Daemon, Neighbour, Plan, enclosed};
use serde_json::Value;

use crate::session::WAIT;

/// What a dump and `show routes --received` both say of a path: peer, prefix, identifier, AS path, origin, next hop, LOCAL_PREF, MED, communities.
type Told = [String; 9];

/// `margay dump mrt` into a file, and what `bgpdump` makes of it.
fn dumped(daemon: &Daemon, file: &Path) -> Result<Vec<Told>> {
    let dump = Command::new(program()?).args(["dump", "mrt"]).arg(file).arg("--socket").arg(daemon.socket()).output()?;
    ensure!(dump.status.success(), "{dump:?}");
    let read = Command::new("bgpdump").args(["-m", "-v"]).arg(file).output().context("bgpdump (package bgpdump)")?;
    ensure!(read.status.success(), "{read:?}");
    let text = String::from_utf8(read.stdout)?;
    text.lines().map(|line| line_of(line).with_context(|| format!("bgpdump says {line}"))).collect()
}

/// `TABLE_DUMP2|time|B|peer|as|prefix|as path|origin|next hop|local pref|med|communities|…`; of ADD-PATH records `TABLE_DUMP2_AP|…`, with the
/// path identifier behind the prefix.
fn line_of(line: &str) -> Option<Told> {
    let mut fields: Vec<&str> = line.split('|').collect();
    if fields[0] != "TABLE_DUMP2_AP" {
        fields.insert(6, "");
    }
    let [_, _, "B", peer, _, prefix, id, path, origin, next_hop, pref, med, communities, ..] = fields[..] else { return None };
    Some([peer, prefix, id, path, origin, next_hop, pref, med, communities].map(str::to_owned))
}

/// The same from `show routes --received`, for every peer.
fn received(daemon: &Daemon) -> Result<Vec<Told>> {
    let mut all = Vec::new();
    for peer in &daemon.peers {
        let name = daemon.peer_view(peer)?["name"].as_str().context("no name")?.to_owned();
        let shown =
            Command::new(program()?).args(["show", "routes", "--json", "--received", &name, "--socket"]).arg(daemon.socket()).output()?;
        let rows: Vec<Value> = serde_json::from_slice(&shown.stdout).with_context(|| format!("{shown:?}"))?;
        let add_path =
            daemon.peer_view(peer)?["capabilities"]["remote"]["add_path"].as_array().is_some_and(|families| !families.is_empty());
        all.extend(rows.iter().map(|row| row_of(&peer.address.to_string(), add_path, row)));
    }
    Ok(all)
}

fn row_of(peer: &str, add_path: bool, row: &Value) -> Told {
    let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let list =
        |name: &str| row[name].as_array().into_iter().flatten().map(|item| item.to_string().replace('"', "")).collect::<Vec<_>>().join(" ");
    // bgpdump shows what is not there as 0.
    let number = |name: &str| row[name].as_u64().unwrap_or(0).to_string();
    let origin = match text("origin").as_str() {
        "incomplete" => "INCOMPLETE".to_owned(),
        other => other.to_uppercase(),
    };
    let id = if add_path { row["path_id"].to_string() } else { String::new() };
    [
        peer.to_owned(),
        text("prefix"),
        id,
        list("as_path"),
        origin,
        text("next_hop"),
        number("local_pref"),
        number("med"),
        list("communities"),
    ]
}

fn sorted(told: &[Told]) -> BTreeSet<&Told> {
    told.iter().collect()
}

#[test]
fn bgpdump_reads_what_peers_have_told() {
    enclosed(|| {
        let daemon = Plan::default().external(2).internal(2).peer(external_6(0xa)).start()?;
        let [one, two, inside, many, six] = &daemon.peers[..] else { unreachable!("five peers") };
        let mut sessions = [Neighbour::establish(&daemon, one)?, Neighbour::establish(&daemon, two)?];
        let rich = [
            origin(2),
            as_path(&[one.asn, 400_000, 65001]),
            next_hop(NEXT_HOP),
            attribute(0x80, 4, &[0, 0, 0, 9]),
            communities(&[0xfde8_0001, 0xfde8_0002]),
        ];
        // Many prefixes, so that the dump comes in several parts.
        for block in 0..20 {
            let prefixes: Vec<String> = (0..100).map(|number| format!("10.{block}.{number}.0/24")).collect();
            sessions[0].send(&announce(&rich, &prefixes.iter().map(String::as_str).collect::<Vec<_>>()))?;
        }
        sessions[1]
            .send(&announce(&[origin(1), as_path(&[two.asn]), next_hop(NEXT_HOP)], &["10.0.0.0/24", "0.0.0.0/0", "203.0.113.7/32"]))?;
        let mut internal = Neighbour::establish(&daemon, inside)?;
        internal.send(&announce(&[origin(0), as_path(&[65010]), next_hop(NEXT_HOP), local_pref(300)], &["10.0.0.0/24"]))?;
        let mut paths = Neighbour::establish_with(&daemon, many, &many.open().with(69, &[0, 1, 1, 3]))?;
        for (id, asn) in [(0, 65020), (7, 65021)] {
            let attributes = [origin(0), as_path(&[asn]), next_hop(NEXT_HOP), local_pref(100)].concat();
            paths.send(&update(&[], &attributes, &nlri_with_ids(&[(id, "10.0.0.0/24")])))?;
        }
        let mut ipv6 = Neighbour::establish(&daemon, six)?;
        let mp = reach(2, 1, &NEXT_HOP_6.octets(), &nlri(&["2001:db8:100::/48", "2001:db8:200::/40"]));
        ipv6.send(&update(&[], &[mp, origin(0), as_path(&[six.asn])].concat(), &[]))?;
        let folder = tempfile::tempdir()?;
        wait_until(WAIT, "every path is there", || {
            let count = received(&daemon)?.len();
            ensure!(count == 2000 + 3 + 1 + 2 + 2, "{count} paths");
            Ok(())
        })?;
        let (dump, shown) = (dumped(&daemon, &folder.path().join("table.mrt"))?, received(&daemon)?);
        ensure!(dump.len() == shown.len(), "{} of {} paths", dump.len(), shown.len());
        let (dump, shown) = (sorted(&dump), sorted(&shown));
        let apart: Vec<_> = dump.symmetric_difference(&shown).take(6).collect();
        ensure!(apart.is_empty(), "{apart:#?}");
        ensure!(std::fs::read_dir(folder.path())?.count() == 1, "no part is left beside the dump");
        Ok(())
    });
}

#[test]
fn a_dump_that_cannot_be_written_leaves_nothing_and_says_where() {
    enclosed(|| {
        let daemon = Plan::default().external(1).start()?;
        let dump = |file: &Path| {
            Command::new(program()?)
                .args(["dump", "mrt"])
                .arg(file)
                .arg("--socket")
                .arg(daemon.socket())
                .output()
                .map_err(anyhow::Error::from)
        };
        let refused = dump(Path::new("/nonexistent/table.mrt"))?;
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(refused.status.code() == Some(1) && words.contains("/nonexistent/table.mrt"), "{words}");
        // An empty table is a dump all the same: the index of peers.
        let whole = dump(Path::new("-"))?;
        ensure!(whole.status.success() && whole.stdout[4..8] == [0, 13, 0, 1], "{whole:?}");
        Ok(())
    });
}
