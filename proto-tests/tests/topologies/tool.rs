//! The runner as a tool: faults on a running lab, and `lab` as a person calls it, with root and without.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proto_tests::lab::fault::Direction;
use proto_tests::lab::image::{Missing, repository};
use proto_tests::lab::process::{Signal, run};
use proto_tests::lab::{Lab, Status, enclosure, vm};

/// Each fault does what it says and nothing else, its end undoes it, and the status tells of both.
pub fn faults(lab: &mut Lab) -> Result<()> {
    lab.expect()?;
    let well = |lab: &Lab| Status::of(lab).map(|status| (status.is_well(), status.to_string()));
    let (is_well, text) = well(lab)?;
    ensure!(is_well && text.contains("4 of 4 up") && text.contains("running bird:local") && !text.contains("fault"), "{text}");
    link(lab)?;
    loss(lab)?;
    latency(lab)?;

    // Frozen: nothing answers, yet the kernel forwards, and the sessions of others live on until a hold time.
    lab.freeze("node1")?;
    let node1 = lab.node("node1")?;
    ensure!(node1.exec("timeout 1 margay show health").is_err(), "a frozen margay answers");
    lab.node("client")?.ping("10.244.1.0").context("a frozen node's kernel forwards")?;
    ensure!(!well(lab)?.0 && well(lab)?.1.contains("frozen margay:local"), "{}", well(lab)?.1);
    lab.thaw("node1")?;
    lab.expect()?;

    // A program that ends is missed, and everything is mended at once.
    lab.kill("node1", Signal::KILL)?;
    lab.freeze("node2")?;
    lab.set_link(&lab.end("wl2a:eth0")?, false)?;
    let (is_well, text) = well(lab)?;
    ensure!(!is_well && text.contains("program has ended") && text.contains("set down"), "{text}");
    lab.heal()?;
    lab.expect()?;
    ensure!(well(lab)?.0 && !well(lab)?.1.contains("fault"), "{}", well(lab)?.1);

    let folder = lab.gather(&lab.logs().join("gathered"), "nothing failed")?;
    for (file, word) in [
        ("failure.txt", "nothing failed"),
        ("node1/peers.txt", "Established"),
        ("tor/routes.txt", "10.244.1.0/26"),
        ("lab.clab.yml", "topology:"),
    ] {
        let text = std::fs::read_to_string(folder.join(file)).with_context(|| file.to_owned())?;
        ensure!(text.contains(word), "{file} lacks `{word}`:\n{text}");
    }
    ensure!(folder.join("logs/node1.log").exists(), "the programs' logs are not gathered");
    Ok(())
}

/// The static routes and IPv6 addresses that the kernel forgets with a link come back with it.
fn link(lab: &Lab) -> Result<()> {
    let node1 = lab.node("node1")?;
    let routes = || -> Result<(String, String)> {
        Ok((node1.exec("ip -4 route show dev eth0 proto boot")?, node1.exec("ip -6 route show dev eth0 proto boot")?))
    };
    let before = routes()?;
    ensure!(before.0.contains("default via") && before.1.contains("default via"), "{before:?}");
    let end = lab.end("node1:eth0")?;
    lab.set_link(&end, false)?;
    ensure!(routes()? == (String::new(), String::new()), "the kernel kept routes through a link that is down: {:?}", routes()?);
    ensure!(lab.end("node1:eth9").is_err() && lab.end("node1").is_err(), "what is no link's end");
    lab.set_link(&end, true)?;
    ensure!(routes()? == before, "{before:?} became {:?}", routes()?);
    lab.expect()
}

/// One way and no other: what the workload sends arrives, what it would get does not.
fn loss(lab: &Lab) -> Result<()> {
    let (node1, workload) = (lab.node("node1")?, lab.node("wl1a")?);
    let requests = || -> Result<u64> {
        let said = node1.exec("nstat -a -s -z IcmpInEchos")?;
        said.split_whitespace().skip_while(|word| *word != "IcmpInEchos").nth(1).and_then(|count| count.parse().ok()).context(said)
    };
    let end = lab.end("node1:cali1a")?;
    let (before, own) = (requests()?, "172.20.0.1");
    workload.ping(own)?;
    lab.lose(&end, Direction::Out, 100)?;
    ensure!(workload.exec(&format!("ping -n -c 5 -i 0.01 -W 1 {own}")).is_err(), "a reply came through");
    ensure!(requests()? >= before + 6, "the requests were lost as well: {before}, {}", requests()?);
    lab.lose(&end, Direction::Out, 50)?;
    let said = workload.exec(&format!("sh -c 'ping -n -q -c 200 -i 0.002 -W 1 {own}; true'"))?;
    let received: u32 = said.split(" received").next().and_then(|text| text.rsplit(' ').next()?.parse().ok()).context("no count")?;
    ensure!((20..180).contains(&received), "half of 200 is lost: {said}");
    lab.lose(&end, Direction::Out, 0)?;
    workload.exec(&format!("ping -n -q -c 50 -i 0.002 -W 1 {own}")).map(drop)
}

/// With netem a link is slow; without, the refusal says so.
fn latency(lab: &Lab) -> Result<()> {
    let (end, workload) = (lab.end("node1:cali1a")?, lab.node("wl1a")?);
    match lab.delay(&end, Duration::from_millis(30)) {
        Ok(()) => {
            let said = workload.exec("ping -n -q -c 3 -i 0.05 172.20.0.1")?;
            let least: f64 = said.split("= ").nth(1).and_then(|text| text.split('/').next()?.parse().ok()).context("no times")?;
            ensure!(least >= 30.0, "{said}");
            lab.delay(&end, Duration::ZERO)
        }
        Err(error) => {
            ensure!(error.is::<Missing>() && error.to_string().contains("netem"), "{error:#}");
            println!("    latency: refused, as it should be: {}", error.to_string().lines().next().unwrap_or_default());
            Ok(())
        }
    }
}

/// A cable that is slow one way, and no more; in a guest where this kernel has no netem.
pub fn slow_cable(lab: &mut Lab) -> Result<()> {
    let (end, here) = (lab.end("here:eth0")?, lab.node("here")?);
    let least = || -> Result<f64> {
        let said = here.exec("ping -n -q -c 3 -i 0.3 192.0.2.2")?;
        said.split("= ").nth(1).and_then(|text| text.split('/').next()?.parse().ok()).context(said)
    };
    match lab.delay(&end, Duration::from_millis(200)) {
        Ok(()) => {
            let slow = least()?;
            lab.delay(&end, Duration::ZERO)?;
            let quick = least()?;
            println!("    a ping took {slow} ms, and then {quick} ms");
            ensure!(slow >= 200.0 && quick < 200.0, "{slow} ms, {quick} ms");
        }
        Err(error) => {
            ensure!(error.is::<Missing>(), "{error:#}");
            let program = std::env::current_exe()?;
            let said = vm::run(&[&program.display().to_string(), "slow_cable", "--exact"])?;
            ensure!(said.contains("test slow_cable ... ok"), "in user-mode Linux:\n{said}");
            let times = said.lines().find(|line| line.contains("a ping took")).unwrap_or_default();
            println!("{times}, in user-mode Linux, since this kernel has no netem");
        }
    }
    Ok(())
}

/// `lab up`, `status`, `fault`, `exec`, `down` by hand: once as whoever runs the tests, once as an ordinary user.
pub fn tool(_: &mut Lab) -> Result<()> {
    by_hand(&[])?;
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let program = env!("CARGO_BIN_EXE_lab");
    let may = Command::new(nobody[0]).args(&nobody[1..]).args(["test", "-x", program]).status().is_ok_and(|status| status.success());
    if enclosure::current() == Some(enclosure::Kind::Root) && may {
        return by_hand(&nobody);
    }
    println!("    as an ordinary user: not tried: this is no root, or others may not read {program}");
    Ok(())
}

fn by_hand(prefix: &[&str]) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("lab-tool-").tempdir()?;
    let file = copy_lab(folder.path())?;
    let lab = |arguments: &[&str]| {
        let words: Vec<&str> = prefix.iter().copied().chain([env!("CARGO_BIN_EXE_lab")]).chain(arguments.iter().copied()).collect();
        let mut command = Command::new(words[0]);
        // Not from inside: as a person would, from a terminal.
        command
            .args(&words[1..])
            .env_remove("MARGAY_LAB_ENCLOSURE")
            .env_remove("CARGO")
            .env("TMPDIR", folder.path())
            .current_dir(folder.path());
        run(command, None)
    };
    ensure!(format!("{:#}", lab(&["status", &file]).unwrap_err()).contains("is not up"), "a lab that was never up");
    lab(&["up", &file])?;
    let told = (|| {
        ensure!(format!("{:#}", lab(&["up", &file]).unwrap_err()).contains("up already"), "twice");
        let text = lab(&["status", &file, "--wait", "60"])?;
        ensure!(text.contains("6 of 6 hold") && text.contains("running margay:local"), "{text}");
        ensure!(lab(&["exec", &file, "node2", "hostname"])? == "node2\n", "exec");
        lab(&["fault", &file, "kill", "node1"])?;
        lab(&["fault", &file, "link", "node2:eth0", "down"])?;
        let error = format!("{:#}", lab(&["status", &file]).unwrap_err());
        ensure!(error.contains("program has ended") && error.contains("eth0 is down"), "{error}");
        ensure!(format!("{:#}", lab(&["fault", &file, "freeze", "node9"]).unwrap_err()).contains("no node `node9`"), "an unknown node");
        lab(&["fault", &file, "heal"])?;
        lab(&["status", &file, "--wait", "60"])?;
        // What an earlier call started is found by the next one.
        lab(&["fault", &file, "kill", "node1", "--gently"])?;
        lab(&["fault", &file, "restart", "node1"])?;
        lab(&["status", &file, "--wait", "60"]).map(drop)
    })();
    let ended = lab(&["down", &file]);
    told?;
    ended?;
    ensure!(lab(&["down", &file]).is_err(), "it is down");
    let left: Vec<String> =
        std::fs::read_dir(folder.path())?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    ensure!(left.iter().all(|name| !name.contains("json")), "{left:?}");
    Ok(())
}

/// The lab `pair` where an ordinary user may read it and write beside it.
fn copy_lab(folder: &Path) -> Result<String> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777))?;
    let from = repository().join("proto-tests/tests/lab");
    let mut copy = Command::new("cp");
    copy.arg("-r").args(["pair.clab.yml", "pair"].map(|name| from.join(name))).arg(folder);
    run(copy, None)?;
    let file: PathBuf = folder.join("pair.clab.yml");
    Ok(file.display().to_string())
}
