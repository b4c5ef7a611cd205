//! TCP-MD5: T1 to T5 and V18, with the key in a Secret.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proto_tests::lab::process::wait_until;
use proto_tests::live::daemon::{ADDRESS, external, replace};
use proto_tests::live::message::{announce, basics, keepalive};
use proto_tests::live::signature::sign;
use proto_tests::live::{Daemon, Heard, Neighbour, Observer, PeerPlan, Plan, enclosed};

const KEY: &str = "a key of a rack";

/// Longer than a connect on the loopback could take, were it answered.
const UNANSWERED: Duration = Duration::from_millis(1500);

fn unanswered(daemon: &Daemon, plan: &PeerPlan, key: Option<&str>) -> Result<()> {
    let attempt = Neighbour::connect_from(daemon, plan, key, UNANSWERED);
    ensure!(attempt.is_err(), "{} connected with the key {key:?}", plan.address);
    Ok(())
}

#[test]
fn t1_t2_t3_t5_the_right_key_and_nothing_else() {
    enclosed(|| {
        let daemon = Plan::default().peer(external(0).keyed(KEY)).peer(external(1)).peer(external(2).keyed(KEY)).start()?;
        let [keyed, plain, other] = &daemon.peers[..] else { unreachable!("three peers") };
        unanswered(&daemon, keyed, Some("a key of another rack"))?;
        unanswered(&daemon, keyed, None)?;
        let name = daemon.peer_view(keyed)?["name"].as_str().context("no name")?.to_owned();
        let why = String::from_utf8(daemon.margay(&["explain", "peer", &name])?.stdout)?;
        for words in ["segments without the key that is configured here", "segments with another key than the one configured here"] {
            ensure!(why.contains(words), "{words}: {why}");
        }
        let mut observer = Observer::establish(&daemon, plain)?;
        let mut session = Neighbour::establish(&daemon, keyed).context("the right key")?;
        session.send(&announce(&basics(keyed.asn), &["10.1.0.0/16"]))?;
        observer.route("10.1.0.0/16")?;
        // T3: a peer without key is not reachable with one.
        unanswered(&daemon, &external(1), Some(KEY))?;
        // Two peers may have the same key; their sessions are their own.
        Neighbour::establish(&daemon, other)?;
        ensure!(!daemon.log().contains(KEY) && !daemon.api_text("/v1/config")?.contains(KEY), "T5: the key is shown");
        Ok(())
    });
}

/// V18: a NOTIFICATION on a signed connection is read to its end, although both sides have been talking and margay closes: its last
/// segments are signed, and no RST overtakes them.
#[test]
fn v18_a_notification_on_a_signed_connection_arrives() {
    enclosed(|| {
        let daemon = Plan::default().peer(external(0).keyed(KEY)).start()?;
        let plan = &daemon.peers[0];
        let mut session = Neighbour::establish(&daemon, plan)?;
        // The reset is asked for while margay has megabytes of us to read.
        for number in 0..200u32 {
            session.send(&announce(&basics(plan.asn), &[&format!("10.{number}.0.0/16")]))?;
        }
        daemon.post(&format!("/v1/peers/{}/reset?reason=new%20key%20tomorrow", plan.address))?;
        session.send(&keepalive().repeat(2000)).ok();
        let data = session.expect_notification(6, 4)?;
        ensure!(data == [&[16][..], b"new key tomorrow"].concat(), "{data:02x?}");
        Ok(())
    });
}

#[test]
fn t1_margay_signs_the_connections_that_it_opens() {
    enclosed(|| {
        let plan = external(0).keyed(KEY);
        let listener = plan.listen()?;
        sign(&listener, (ADDRESS, 0).into(), KEY.as_bytes())?;
        let daemon = Plan::default().peer(plan.clone()).start()?;
        let (stream, _) = listener.accept()?;
        let mut session = Neighbour::over(stream, &plan);
        session.send(&plan.open().message())?;
        session.confirm()?;
        drop(daemon);
        Ok(())
    });
}

#[test]
fn a_missing_secret_holds_the_session_and_says_so() {
    enclosed(|| {
        let daemon = Plan::default().peer(external(0).keyed(KEY)).external(1).start()?;
        // The Secret loses its key.
        let base = daemon.resources().join("base.yaml");
        let text = std::fs::read_to_string(&base)?;
        let mut session = Neighbour::establish(&daemon, &daemon.peers[0])?;
        replace(&base, &text.replace("external-0:", "another:"))?;
        ensure!(session.expect_end()?.is_some_and(|said| said[0] == 6), "the session ends with a Cease");
        wait_until(super::session::WAIT, "the problem is told", || {
            let problems = daemon.api_text("/v1/problems")?;
            ensure!(problems.contains("keys") && problems.contains("BGPPeer"), "{problems}");
            Ok(())
        })?;
        unanswered_or_closed(&daemon, &daemon.peers[0])?;
        Ok(())
    });
}

/// Fails closed: no session with a peer whose key is not known, signed or not.
fn unanswered_or_closed(daemon: &Daemon, plan: &PeerPlan) -> Result<()> {
    for key in [None, Some(KEY)] {
        if let Ok(mut connection) = Neighbour::connect_from(daemon, plan, key, UNANSWERED) {
            let heard = connection.hear(super::session::WAIT)?;
            ensure!(!matches!(heard, Heard::Message(..)), "{heard:?} with {key:?}");
        }
    }
    Ok(())
}

#[test]
fn t4_a_new_key_takes_over() {
    enclosed(|| {
        let daemon = Plan::default().peer(external(0).keyed(KEY)).peer(external(1)).start()?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[1])?;
        let mut old = Neighbour::establish(&daemon, &daemon.peers[0])?;
        old.send(&announce(&basics(daemon.peers[0].asn), &["10.1.0.0/16"]))?;
        observer.route("10.1.0.0/16")?;
        let base = daemon.resources().join("base.yaml");
        let text = std::fs::read_to_string(&base)?;
        replace(&base, &text.replace(KEY, "next year's key"))?;
        drop(old);
        let fresh = daemon.peers[0].clone().keyed("next year's key");
        let mut session = wait_until(super::session::WAIT, "the new key is in force", || {
            let mut session = Neighbour::connect_from(&daemon, &fresh, fresh.key.as_deref(), UNANSWERED)?;
            session.send(&[fresh.open().message(), keepalive()].concat())?;
            session.confirm()?;
            Ok(session)
        })?;
        session.send(&announce(&basics(fresh.asn), &["10.2.0.0/16"]))?;
        observer.route("10.2.0.0/16")?;
        unanswered(&daemon, &daemon.peers[0], Some(KEY))?;
        ensure!(daemon.peer_view(&daemon.peers[1])?["flaps"] == 0);
        Ok(())
    });
}
