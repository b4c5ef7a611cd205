//! The archive of a bug report: whole, and without secrets.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use proto_tests::lab::process::wait_until;
use proto_tests::live::daemon::{external, program};
use proto_tests::live::{Daemon, Neighbour, Plan, enclosed};
use serde_json::Value;

use crate::session::WAIT;

/// Wherever a secret can be, it has this in it.
const SECRET: &str = "hush-hush";

/// `margay diag`, read back by name.
fn packed(daemon: &Daemon, file: &Path) -> Result<BTreeMap<String, String>> {
    let made = Command::new(program()?).args(["diag"]).arg(file).arg("--socket").arg(daemon.socket()).output()?;
    ensure!(made.status.success(), "{made:?}");
    let mut archive = tar::Archive::new(GzDecoder::new(std::fs::File::open(file)?));
    let mut files = BTreeMap::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text)?;
        files.insert(name.strip_prefix("margay-diag/").context("no folder of its own")?.to_owned(), text);
    }
    Ok(files)
}

#[test]
fn t5_the_archive_has_what_a_report_needs_and_no_secret() {
    enclosed(|| {
        let documents = [
            // A key of TCP-AO.
            "kind: Secret\nmetadata: {name: ao}\nstringData: {\"1\": \"hush-hush-ao\"}",
            // A password where a reference belongs.
            "kind: BGPPeer\nmetadata: {name: plain}\nspec: {node: elsewhere, peerIP: 127.9.9.9, asNumber: 64999, password: hush-hush-plain}",
            "kind: BGPPeer\nmetadata: {name: value}\nspec: {node: elsewhere, peerIP: 127.9.9.8, asNumber: 64998, password: {secretKeyRef: hush-hush-value}}",
            // Secrets that cannot be read: whoever says why must not quote them.
            "kind: Secret\nmetadata: {name: broken}\nstringData: {tor: hush-hush-broken, [}",
            "kind: Secret\nmetadata: {name: wrong}\nstringData: hush-hush-wrong",
            "kind: Secret\nmetadata: {name: base}\ndata: {tor: \"hush-hush no base64 !\"}",
        ];
        let version = |text: &str| if text.starts_with("kind: Secret") { "v1" } else { "projectcalico.org/v3" };
        let mut plan = Plan::default().external(1).peer(external(1).keyed("hush-hush-md5")).peer(external(2).annotated("tcp-ao", "ao 1"));
        plan.documents = documents.iter().map(|text| format!("apiVersion: {}\n{text}\n", version(text))).collect();
        plan.environment = vec![
            ("ETCD_PASSWORD".into(), "hush-hush-etcd".into()),
            ("ETCD_USERNAME".into(), "root".into()),
            ("K8S_API_TOKEN".into(), "hush-hush-token".into()),
        ];
        let daemon = plan.start()?;
        let _neighbour = wait_until(WAIT, "a session", || Neighbour::establish(&daemon, &daemon.peers[0]))?;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("report.tar.gz");
        let files = packed(&daemon, &file)?;

        for (name, text) in &files {
            let found: Vec<&str> = text.lines().filter(|line| line.contains(SECRET)).collect();
            ensure!(found.is_empty(), "{name} tells a secret: {found:?}");
        }
        let json = |name: &str| -> Result<Value> {
            let text = files.get(name).with_context(|| format!("no {name} among {:?}", files.keys()))?;
            serde_json::from_str(text).with_context(|| format!("{name}: {text}"))
        };
        ensure!(json("health.json")?["live"] == true && json("datastore.json")?["state"] == "in-sync");
        ensure!(json("peers.json")?.as_array().is_some_and(|peers| peers.iter().any(|peer| peer["state"] == "Established")));
        ensure!(json("problems.json")?.as_array().is_some_and(|problems| problems.len() >= 2), "{}", json("problems.json")?);
        ensure!(json("config.json")?["node"] == "bench" && json("kernel.json")?["states"].is_object());
        ensure!(json("version.json")?["command"].is_string());
        let holds = |name: &str, words: &str| files.get(name).is_some_and(|text| text.contains(words));
        let expected = [
            ("README.txt", "peers.json"),
            ("events.ndjson", "\"event\": \"configured\""),
            ("metrics.txt", "margay_bgp_peer_up"),
            ("daemon/status.txt", "VmRSS"),
            ("host/version.txt", "Linux"),
            ("host/sysctl.txt", "net/ipv4/ip_forward = "),
            ("host/links.txt", "link0"),
            ("host/addresses.txt", "192.0.2.1/24"),
            ("host/rules.txt", "lookup main"),
        ];
        for (name, words) in expected {
            ensure!(
                holds(name, words) || holds(name, &words.replace("\": \"", "\":\"")),
                "{name} does not say {words}: {:?}",
                files.get(name)
            );
        }
        ensure!(std::fs::metadata(&file)?.permissions().mode() & 0o077 == 0, "it is nobody else's");
        ensure!(std::fs::read_dir(folder.path())?.count() == 1, "no part is left beside it");
        Ok(())
    });
}

#[test]
fn without_a_daemon_there_is_no_archive() {
    enclosed(|| {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("report.tar.gz");
        let made = Command::new(program()?).arg("diag").arg(&file).arg("--socket").arg(folder.path().join("nobody")).output()?;
        ensure!(made.status.code() == Some(3) && !file.exists(), "{made:?}");
        Ok(())
    });
}
