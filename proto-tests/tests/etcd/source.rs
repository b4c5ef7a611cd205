//! What is in etcd, as margay understands it; ways in; writing back.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use margay::calico::{Compiler, Environment, Input, Output};
use margay::config::NodeConfig;
use margay::datastore::etcd::{EtcdSettings, Updated, update};
use margay::datastore::load;
use margay::datastore::{Kind, Settings, StatusWriter};
use margay::types::{Outbox, Sync};
use proto_tests::lab::etcd::{Etcd, Tls, dump};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::world::{RESOURCES, World, node, on_a_runtime, possible, settings, with_etcd};

fn fixture(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

fn compile(node: &str, inputs: impl IntoIterator<Item = Input>) -> NodeConfig {
    let mut compiler = Compiler::new(node.to_owned(), Environment::default());
    let mut out = Outbox::new();
    for input in inputs {
        compiler.handle(Instant::now(), input, &mut out);
    }
    let Some(Output::Compiled { config, problems }) = out.drain().last() else { panic!("not compiled") };
    (*config.unwrap_or_else(|| panic!("{problems:?}"))).clone()
}

/// The affinities of the dump as resource files have them.
fn affinities() -> String {
    let mut text = String::new();
    for (key, _) in dump(&fs::read_to_string(fixture("etcd-dump.txt")).unwrap()) {
        if let Some((node, block)) = key.strip_prefix("/calico/ipam/v2/host/").and_then(|rest| rest.split_once('/')) {
            let (address, length) = block.rsplit('/').next().unwrap().rsplit_once('-').unwrap();
            let name = format!("{node}-{address}-{length}").replace(['.', ':'], "-");
            text += &format!(
                "---\nkind: BlockAffinity\nmetadata: {{name: {name}}}\nspec: {{node: {node}, cidr: \"{address}/{length}\", state: confirmed}}\n"
            );
        }
    }
    assert_eq!(text.matches("kind:").count(), 5);
    text
}

#[test]
fn what_calicoctl_wrote_gives_the_same_configuration_as_the_files_it_was_given() {
    with_etcd("what_calicoctl_wrote_gives_the_same_configuration_as_the_files_it_was_given", async |etcd| {
        etcd.put(&dump(&fs::read_to_string(fixture("etcd-dump.txt")).unwrap())).unwrap();
        let folder = TempDir::new().unwrap();
        fs::copy(fixture("calico-resources.yaml"), folder.path().join("resources.yaml")).unwrap();
        fs::write(folder.path().join("affinities.yaml"), affinities()).unwrap();
        for name in ["host-a", "host-b", "rr-1"] {
            let mut world = World::new(settings(&[("ETCD_ENDPOINTS", &etcd.url())]), name);
            world.until("the listing", |world| world.listings == 1).await;
            let told = world.table.clone().into_iter().map(|(key, document)| Input::Resource(Sync::Upsert(key, document)));
            let begin = std::iter::once(Input::Resource(Sync::Begin));
            let from_etcd = compile(name, begin.chain(told).chain([Input::Resource(Sync::End)]));
            let from_files = compile(name, load(&[folder.path().to_owned()]));
            assert_eq!(json!(from_etcd), json!(from_files), "{name}");
            assert!(from_etcd == from_files, "{name}: policies differ");
            let affinities = world.table.keys().filter(|key| key.kind == "BlockAffinity").count();
            assert_eq!(affinities, BTreeMap::from([("host-a", 3), ("host-b", 2), ("rr-1", 0)])[name], "only its own are read");
            assert!(!world.table.keys().any(|key| key.kind == "WorkloadEndpoint"), "only what BGP needs is read");
        }
    });
}

#[test]
fn live_changes_are_told_once_each() {
    with_etcd("live_changes_are_told_once_each", async |etcd| {
        etcd.put(&[node(1, 1), node(2, 1)]).unwrap();
        let mut world = World::of(etcd).await;
        assert_eq!(world.table.len(), 2);
        let affinity = "/calico/ipam/v2/host/host-a/ipv4/block/10.1.0.0-26";
        etcd.put(&[node(1, 2), node(3, 1)]).unwrap();
        etcd.ctl(&["del", &node(2, 0).0]).unwrap();
        etcd.ctl(&["put", affinity, ""]).unwrap();
        etcd.ctl(&["put", &affinity.replace("host-a", "host-b"), ""]).unwrap();
        etcd.ctl(&["put", &format!("{RESOURCES}/workloadendpoints/default/w"), "{}"]).unwrap();
        etcd.ctl(&["put", "/calico/v1/Ready", "true"]).unwrap();
        etcd.put(&[node(4, 1)]).unwrap();
        world.until("the last change", |world| world.version(4).is_some()).await;
        let names: Vec<String> = world.table.keys().map(ToString::to_string).collect();
        assert_eq!(names, ["BlockAffinity host-a-10-1-0-0-26", "Node n1", "Node n3", "Node n4"]);
        assert_eq!((world.version(1), world.changes, world.repeated, world.listings), (Some(2), 5, 0, 1));
        world.again.send(()).await.unwrap();
        world.until("a fresh listing when asked", |world| world.listings == 2).await;
        assert_eq!(world.table.len(), 4);
    });
}

#[test]
fn a_value_that_cannot_be_read_is_named_by_its_key_and_the_last_good_one_stays() {
    with_etcd("a_value_that_cannot_be_read_is_named_by_its_key_and_the_last_good_one_stays", async |etcd| {
        let peer = format!("{RESOURCES}/bgppeers/tor");
        let mut own = node(0, 64512);
        own.1 = r#"{"kind":"Node","metadata":{"name":"host-a"},"spec":{"bgp":{"ipv4Address":"10.0.0.1/24"}}}"#.into();
        own.0 = format!("{RESOURCES}/nodes/host-a");
        let good =
            r#"{"kind":"BGPPeer","metadata":{"name":"tor"},"spec":{"peerIP":"192.0.2.1","asNumber":65001,"maxRestartTime":"1m30s"}}"#;
        etcd.put(&[own, (peer.clone(), good.into())]).unwrap();
        let mut world = World::of(etcd).await;
        let mut compiler = Compiler::new("host-a".to_owned(), Environment::default());
        let mut out = Outbox::new();
        let mut tell = |world: &World| {
            compiler.handle(Instant::now(), Input::Resource(Sync::Begin), &mut out);
            for (key, document) in &world.table {
                compiler.handle(Instant::now(), Input::Resource(Sync::Upsert(key.clone(), document.clone())), &mut out);
            }
            compiler.handle(Instant::now(), Input::Resource(Sync::End), &mut out);
            let Some(Output::Compiled { config, problems }) = out.drain().last() else { panic!("not compiled") };
            (config.unwrap().peers.len(), problems.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(tell(&world), (1, Vec::new()));
        etcd.ctl(&["put", &peer, "{\"kind\": \"BGPP"]).unwrap();
        world.until("the change", |world| world.changes == 1).await;
        let (peers, problems) = tell(&world);
        assert_eq!((peers, problems.len()), (1, 1));
        assert!(problems[0].starts_with(&format!("{peer}: error: BGPPeer tor: the value cannot be read: EOF")), "{problems:?}");
        assert!(problems[0].ends_with("the last good one stays in force"), "{problems:?}");
    });
}

/// An authority, and a certificate of it for 127.0.0.1 that servers and clients may use.
fn certificates(folder: &TempDir, name: &str) -> Tls {
    let mut authority = CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let file = |part: &str, text: String| {
        let path = folder.path().join(format!("{name}-{part}.pem"));
        fs::write(&path, text).unwrap();
        path
    };
    Tls { ca: file("ca", authority.pem()), certificate: file("cert", certificate.pem()), key: file("key", key.serialize_pem()) }
}

#[test]
fn tls_with_certificates_of_both_sides() {
    if !possible("tls_with_certificates_of_both_sides") {
        return;
    }
    let folder = TempDir::new().unwrap();
    let (ours, strange) = (certificates(&folder, "ours"), certificates(&folder, "strange"));
    let etcd = Etcd::start_with(&folder.path().join("etcd"), Some(ours.clone())).unwrap();
    etcd.put(&[node(1, 1)]).unwrap();
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let with = |ca: &Tls, identity: Option<&Tls>| -> EtcdSettings {
        let (url, ca) = (etcd.url(), path(&ca.ca));
        let mut variables = vec![("ETCD_ENDPOINTS", url), ("ETCD_CA_CERT_FILE", ca)];
        if let Some(identity) = identity {
            variables.extend([("ETCD_CERT_FILE", path(&identity.certificate)), ("CALICO_ETCD_KEY_FILE", path(&identity.key))]);
        }
        EtcdSettings::from_variables(&variables.into_iter().collect()).unwrap()
    };
    on_a_runtime(async {
        let mut world = World::new(with(&ours, Some(&ours)), "host-a");
        world.until("the listing", |world| world.listings == 1).await;
        assert_eq!(world.version(1), Some(1));
        // What a server says to a client that it does not know may be lost with the connection (TLS 1.3).
        for (settings, words) in [(with(&strange, Some(&ours)), "certificate"), (with(&ours, None), ""), (with(&ours, Some(&strange)), "")]
        {
            let mut world = World::new(settings, "host-a");
            world.until("the refusal", |world| world.away.is_some()).await;
            let why = world.away.unwrap();
            assert!(why.contains(words) && why.contains(&etcd.url()), "{why}");
            assert_eq!(world.listings, 0);
        }
    });
}

#[test]
fn users_sign_in_and_a_lost_token_is_renewed() {
    with_etcd("users_sign_in_and_a_lost_token_is_renewed", async |etcd| {
        etcd.put(&[node(1, 1)]).unwrap();
        for command in [
            &["user", "add", "root:secret"] as &[&str],
            &["user", "grant-role", "root", "root"],
            &["user", "add", "margay:pass"],
            &["role", "add", "reader"],
            &["role", "grant-permission", "--prefix=true", "reader", "readwrite", "/calico/"],
            &["user", "grant-role", "margay", "reader"],
            &["user", "add", "nobody:pass"],
            &["auth", "enable"],
        ] {
            etcd.ctl(command).unwrap();
        }
        etcd.sign_in("root:secret");
        let url = etcd.url();
        let user = |name, password| settings(&[("ETCD_ENDPOINTS", &url), ("ETCD_USERNAME", name), ("ETCD_PASSWORD", password)]);
        for (settings, words) in [
            (user("margay", "wrong"), "`margay` cannot sign in"),
            (user("nobody", "pass"), "permission denied"),
            (settings(&[("ETCD_ENDPOINTS", &url)]), "user name is empty"),
        ] {
            let mut refused = World::new(settings, "host-a");
            refused.until("the refusal", |world| world.away.is_some()).await;
            let why = refused.away.unwrap();
            assert!(why.contains(words), "wanted {words}: {why}");
        }
        let mut world = World::new(user("margay", "pass"), "host-a");
        world.until("the listing", |world| world.listings == 1).await;
        // Its simple tokens live in etcd's memory: a restart forgets ours.
        etcd.restart().unwrap();
        etcd.put(&[node(1, 2), node(2, 1)]).unwrap();
        world.until("changes after the restart", |world| world.version(2).is_some()).await;
        assert_eq!((world.version(1), world.listings, world.changes, world.repeated), (Some(2), 1, 2, 0));
        // An etcd without users lets everybody in.
        etcd.ctl(&["auth", "disable"]).unwrap();
        etcd.restart().unwrap();
        etcd.put(&[node(3, 1)]).unwrap();
        world.until("a change without users", |world| world.version(3).is_some()).await;
    });
}

#[test]
fn a_status_is_written_back_unless_somebody_else_wrote() {
    with_etcd("a_status_is_written_back_unless_somebody_else_wrote", async |etcd| {
        let key = format!("{RESOURCES}/caliconodestatuses/mine");
        let document = |generation: u32| json!({ "kind": "CalicoNodeStatus", "metadata": { "name": "mine" }, "spec": { "node": "host-a", "updatePeriodSeconds": generation } });
        etcd.put(&[(key.clone(), document(10).to_string())]).unwrap();
        let settings = settings(&[("ETCD_ENDPOINTS", &etcd.url())]);
        let mut world = World::of(etcd).await;
        let status = |value: &mut Value| value["status"] = json!({ "bgp": { "numberEstablishedV4": 3 } });
        assert_eq!(update(&settings, "CalicoNodeStatus", "mine", status).await.unwrap(), Updated::Written);
        assert_eq!(update(&settings, "CalicoNodeStatus", "mine", status).await.unwrap(), Updated::Unchanged);
        assert_eq!(update(&settings, "CalicoNodeStatus", "other", status).await.unwrap(), Updated::Missing);
        // But for the time of the writing it is the same.
        let variables = [("ETCD_ENDPOINTS", etcd.url())].into_iter().collect();
        let mut writer = StatusWriter::new(&Settings::new(Kind::Etcd, Vec::new(), "host-a".to_owned(), variables)).unwrap().unwrap();
        for (time, three, expected) in [("2026-01-01T00:00:00Z", 3, Updated::Written), ("2026-01-01T00:00:10Z", 3, Updated::Unchanged)] {
            let status = json!({ "lastUpdated": time, "bgp": { "numberEstablishedV4": three, "numberNotEstablishedV4": 0 } });
            assert_eq!(writer.write("mine", &status).await.unwrap(), expected);
        }
        let rival = |value: &mut Value| {
            etcd.ctl(&["put", &key, &document(20).to_string()]).unwrap();
            value["status"] = json!("too late");
        };
        assert_eq!(update(&settings, "CalicoNodeStatus", "mine", rival).await.unwrap(), Updated::Conflict);
        let kept: Value = serde_json::from_str(&etcd.ctl(&["get", "--print-value-only", &key]).unwrap()).unwrap();
        assert_eq!(kept, document(20));
        world.until("the rival's", |world| world.table.values().any(|document| document.object["spec"]["updatePeriodSeconds"] == 20)).await;
        assert_eq!(world.repeated, 2, "our own status comes back as what is known");
    });
}
