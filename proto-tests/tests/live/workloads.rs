//! Local workloads as peers: named by Felix's files, which come and go.

use std::fs;

use anyhow::{Context, Result, ensure};
use proto_tests::lab::process::wait_until;
use proto_tests::live::daemon::{ADDRESS, PeerPlan, replace};
use proto_tests::live::{Observer, Plan, enclosed};

use super::session::WAIT;

#[test]
fn a_workload_that_a_selector_selects_is_a_peer() {
    enclosed(|| {
        let folder = tempfile::tempdir()?;
        let files = folder.path().join("endpoint-status");
        let peer =
            "kind: BGPPeer\nmetadata: {name: pods}\nspec: {localWorkloadSelector: \"app == 'router'\", asNumber: 65100, filters: [all]}\n";
        let plan = Plan {
            documents: vec![peer.to_owned()],
            environment: vec![("CALICO_ENDPOINT_STATUS_PATH_PREFIX".to_owned(), folder.path().display().to_string())],
            ..Plan::default()
        };
        let daemon = plan.start()?;
        let names = || -> Result<Vec<String>> {
            let peers = daemon.api("/v1/peers")?;
            Ok(peers.as_array().into_iter().flatten().filter_map(|peer| Some(peer["name"].as_str()?.to_owned())).collect())
        };
        ensure!(names()?.is_empty(), "no workload yet");
        fs::create_dir(&files)?;
        fs::write(files.join("other"), "{\"ifaceName\": \"cali0\", \"ipv4Nets\": [\"127.3.0.11/32\"], \"bgpPeerName\": \"\"}")?;
        let whole =
            "{\"ifaceName\": \"cali1\", \"mac\": \"\", \"ipv4Nets\": [\"127.3.0.10/32\"], \"ipv6Nets\": [], \"bgpPeerName\": \"pods\"}";
        fs::write(files.join("one"), &whole[..40])?;
        replace(&files.join("one"), whole)?;
        wait_until(WAIT, "the session is configured", || {
            ensure!(names()? == ["Local_Workload_127_3_0_10"], "{:?}", names()?);
            Ok(())
        })?;
        let plan = PeerPlan { name: "pod".to_owned(), address: "127.3.0.10".parse()?, asn: 65100, annotations: vec![], key: None };
        let mut pod = Observer::establish(&daemon, &plan)?;
        pod.until("End-of-RIB", |seen| !seen.ends.is_empty())?;
        pod.announce("10.9.9.0/24")?;
        wait_until(WAIT, "its route is learned", || {
            let routes = daemon.api_text("/v1/routes")?;
            ensure!(routes.contains("10.9.9.0/24"), "{routes}");
            Ok(())
        })?;
        fs::remove_file(files.join("one"))?;
        wait_until(WAIT, "the workload is gone", || {
            ensure!(names()?.is_empty(), "{:?}", names()?);
            Ok(())
        })
        .with_context(|| format!("margay at {ADDRESS}"))
    });
}
