//! `margay run --record DIR`: what a live session heard, told to a new machine, makes it say the same.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use proto_tests::lab::process::wait_until;
use proto_tests::live::message::{NEXT_HOP, announce, as_path, next_hop, notification, origin, withdraw};
use proto_tests::live::{Neighbour, Plan, enclosed};
use proto_tests::transcript;
use rustix::process::Signal;

use crate::session::WAIT;

/// In a Secret.
const KEY: &str = "hunter2hunter2";

#[test]
fn t5_a_recorded_session_is_a_transcript_that_runs_again_and_holds_no_key() {
    enclosed(|| {
        let folder = tempfile::tempdir()?;
        let arguments = vec!["--record".to_owned(), folder.path().display().to_string()];
        let secret = format!("kind: Secret\nmetadata: {{name: some, namespace: kube-system}}\nstringData: {{tor: {KEY}}}\n");
        let plan = Plan { arguments, documents: vec![secret], ..Plan::default() }.external(3).internal(1);
        let mut daemon = Plan { peers: plan.peers.into_iter().map(|peer| peer.annotated("hold-time", "9")).collect(), ..plan }.start()?;
        let [one, two, three, inside] = &daemon.peers.clone()[..] else { unreachable!("four peers") };
        let mut first = Neighbour::establish(&daemon, one)?;
        let mut others = [Neighbour::establish(&daemon, two)?, Neighbour::establish(&daemon, inside)?];
        let attributes = [origin(0), as_path(&[one.asn, 400_000]), next_hop(NEXT_HOP)];
        first.send(&announce(&attributes, &["10.1.0.0/16", "10.2.0.0/16"]))?;
        first.send(&withdraw(&["10.2.0.0/16"]))?;
        let advertised = |daemon: &proto_tests::live::Daemon, peer| -> Result<()> {
            let view = daemon.peer_view(peer)?;
            ensure!(view["families"]["ipv4-unicast"]["advertised"] == 1, "{view}");
            Ok(())
        };
        wait_until(WAIT, "the route is told", || advertised(&daemon, two).and_then(|()| advertised(&daemon, inside)))?;
        // A session that breaks off amid a message, and one that is ended with words.
        let mut third = Neighbour::establish(&daemon, three)?;
        third.send(&announce(&attributes, &["10.3.0.0/16"])[..25])?;
        third.finish()?;
        others[0].send(&notification(6, 2, b"\x05words"))?;
        wait_until(WAIT, "it is down", || {
            let view = daemon.peer_view(two)?;
            ensure!(view["last_error"]["code"] == 6, "{view}");
            Ok(())
        })?;
        ensure!(daemon.margay(&["reset", daemon.peer_view(inside)?["name"].as_str().context("no name")?])?.status.success());
        wait_until(WAIT, "a deadline is met", || {
            let name = format!("session-{}.txt", daemon.peer_view(three)?["name"].as_str().context("no name")?);
            let text = fs::read_to_string(folder.path().join(name))?;
            ensure!(text.contains("< DUE"), "{text}");
            Ok(())
        })?;
        daemon.end(Signal::TERM)?;
        let mut replayed = 0;
        for entry in fs::read_dir(folder.path())? {
            let entry = entry?;
            ensure!(entry.metadata()?.permissions().mode() & 0o077 == 0, "others may read {:?}", entry.path());
            let text = fs::read_to_string(entry.path())?;
            if !entry.file_name().to_string_lossy().starts_with("session-") {
                continue;
            }
            ensure!(text.contains("> UP "), "{text}");
            let again = transcript::replay(&text).with_context(|| text.clone())?;
            let apart = text.lines().zip(again.lines()).find(|(recorded, replayed)| recorded != replayed);
            ensure!(apart.is_none() && again.len() == text.len(), "{:?}: {apart:?}", entry.path());
            replayed += 1;
        }
        ensure!(replayed == 4, "{replayed} of 4 sessions");
        let of = |name: &str| fs::read_to_string(folder.path().join(format!("{name}.txt"))).with_context(|| name.to_owned());
        for (machine, heard, said) in [
            ("compiler", "< Resource(Upsert(ResourceKey { kind: \"BGPPeer\"", "> Compiled {"),
            ("origin", "< Configure(", "> Local(End)"),
            ("shard-0", "< Routes(RouteBatch {", "> Frames {"),
            ("fib", "< Changes([", "> Pull {"),
        ] {
            let text = of(machine)?;
            let has = |sign: &str| text.lines().any(|line| line.starts_with(sign));
            ensure!(text.starts_with("at ") && has(heard) && has(said), "{machine}:\n{text}");
        }
        ensure!(of("compiler")?.contains("kind: \"Secret\"") && !of("compiler")?.contains(KEY), "a key is recorded");
        Ok(())
    });
}
