//! The page, asked as a browser asks, as a browser must not, and shown in one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use proto_tests::lab::process::wait_until;
use proto_tests::lab::skip::skipped;
use proto_tests::live::daemon::program;
use proto_tests::live::message::{announce, basics, notification};
use proto_tests::live::{Daemon, Neighbour, Observer, Plan, enclosed};

use crate::session::WAIT;

const PAGE: &str = "127.0.0.1:9181";

fn start(plan: Plan) -> Result<Daemon> {
    Plan { arguments: vec!["--page".into(), PAGE.into()], ..plan }.start()
}

fn ask(head: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(PAGE)?;
    stream.set_read_timeout(Some(WAIT))?;
    stream.write_all(head.as_bytes())?;
    Ok(stream)
}

/// Status, head and body of an answer.
fn answer(method: &str, path: &str, host: &str) -> Result<(u16, String, String)> {
    let mut text = String::new();
    ask(&format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))?.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("no HTTP: {text}"))?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).with_context(|| head.to_owned())?;
    Ok((status, head.to_lowercase(), body.to_owned()))
}

#[test]
fn the_page_is_read_only_and_for_its_own_hosts() {
    enclosed(|| {
        let daemon = start(Plan::default().external(1))?;
        let (status, head, body) = answer("GET", "/", PAGE)?;
        ensure!(status == 200 && body.contains("</html>") && head.contains("text/html"), "{status} {head}");
        for line in [
            "default-src 'none'",
            "connect-src 'self'",
            "script-src 'sha256-",
            "x-content-type-options: nosniff",
            "cache-control: no-store",
        ] {
            ensure!(head.contains(line), "{line} in {head}");
        }
        for host in ["evil.example", "evil.example:9181", "127.0.0.1.evil.example:9181", ""] {
            for path in ["/", "/v1/peers", "/page/news"] {
                let (status, _, body) = answer("GET", path, host)?;
                ensure!(status == 421 && !body.contains("127.1.0.10"), "{host} {path}: {status} {body}");
            }
        }
        for host in ["localhost:9181", "bench", "[::1]:9181"] {
            ensure!(answer("GET", "/v1/peers", host)?.0 == 200, "{host}");
        }
        for (method, path) in [("POST", "/v1/peers"), ("POST", "/v1/drain"), ("PUT", "/"), ("DELETE", "/v1/peers"), ("OPTIONS", "/")] {
            ensure!(answer(method, path, PAGE)?.0 == 405, "{method} {path}");
        }
        for path in ["/v1/config", "/v1/diff", "/v1/drain", "/v1/problems", "/metrics", "/v1/peers/x/reset", "/../etc/passwd"] {
            ensure!(answer("GET", path, PAGE)?.0 == 404, "{path}");
        }
        ensure!(daemon.api("/v1/drain")?["drained"] == false);
        Ok(())
    });
}

#[test]
fn an_address_that_others_reach_must_be_meant() {
    enclosed(|| {
        let folder = tempfile::tempdir()?;
        let refused = Command::new(program()?)
            .args(["run", "--node", "bench", "--dry-run", "--page", "192.0.2.1:9181", "--socket"])
            .arg(folder.path().join("socket"))
            .arg("--resources")
            .arg(folder.path())
            .arg("--state")
            .arg(folder.path())
            .output()?;
        let words = String::from_utf8_lossy(&refused.stderr);
        ensure!(
            refused.status.code() == Some(1) && words.contains("--page-beyond-loopback") && words.contains("127.0.0.1:9181"),
            "{words}"
        );
        let arguments = ["--page", "192.0.2.1:9181", "--page-beyond-loopback"].map(str::to_owned).to_vec();
        let _daemon = Plan { arguments, ..Plan::default().external(1) }.start()?;
        ensure!(TcpStream::connect("192.0.2.1:9181").is_ok());
        Ok(())
    });
}

#[test]
fn news_come_as_they_happen_and_to_a_few_readers() {
    enclosed(|| {
        let daemon = start(Plan::default().external(1))?;
        let head = format!("GET /page/news HTTP/1.1\r\nHost: {PAGE}\r\n\r\n");
        let mut readers = Vec::new();
        for _ in 0..8 {
            let mut reader = BufReader::new(ask(&head)?);
            let mut line = String::new();
            while !line.starts_with("retry:") {
                line.clear();
                ensure!(reader.read_line(&mut line)? > 0, "the stream ended");
            }
            readers.push(reader);
        }
        ensure!(answer("GET", "/page/news", PAGE)?.0 == 503, "a ninth reader");
        ensure!(answer("GET", "/v1/peers", PAGE)?.0 == 200, "others are served all the same");
        let _neighbour = Neighbour::establish(&daemon, &daemon.peers[0])?;
        for mut reader in readers {
            let mut line = String::new();
            while !(line.starts_with("data: {") && line.contains("Established")) {
                line.clear();
                ensure!(reader.read_line(&mut line)? > 0, "the stream ended");
            }
            let event: serde_json::Value = serde_json::from_str(line.trim_start_matches("data: "))?;
            ensure!(event["event"] == "state" && event["summary"].is_string(), "{event}");
        }
        wait_until(WAIT, "places are free again", || {
            let mut stream = ask(&head)?;
            let mut first = [0; 12];
            stream.read_exact(&mut first)?;
            ensure!(&first == b"HTTP/1.1 200");
            Ok(())
        })
    });
}

#[test]
fn connections_are_bounded_and_come_in_turn() {
    enclosed(|| {
        let daemon = start(Plan::default().external(1))?;
        let before = daemon.descriptors()?;
        let idle: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(PAGE)).collect::<Result<_, _>>()?;
        let held = daemon.descriptors()?;
        ensure!(held <= before + 34, "{held} descriptors, {before} before");
        drop(idle);
        ensure!(answer("GET", "/v1/health", PAGE)?.0 == 200);
        Ok(())
    });
}

/// What Chromium makes of the page: its DOM, or none where there is no Chromium.
fn browse(test: &str, path: &str, more: &[&str]) -> Result<Option<String>> {
    let folder = tempfile::tempdir()?;
    let program = Path::new("/usr/bin/chromium");
    if !program.exists() {
        ensure!(std::env::var_os("CI").is_none(), "no Chromium (package chromium)");
        skipped(test, "no Chromium (package chromium)");
        return Ok(None);
    }
    let output = Command::new("timeout")
        .arg("60")
        .arg(program)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage", "--virtual-time-budget=5000"])
        .arg(format!("--user-data-dir={}", folder.path().display()))
        .args(more)
        .arg(format!("http://{PAGE}{path}"))
        .env("HOME", folder.path())
        .stdin(Stdio::null())
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
}

#[test]
fn a_browser_shows_peers_topology_events_and_explains_a_route() {
    enclosed(|| {
        let daemon = start(Plan::default().external(4))?;
        let plans = &daemon.peers;
        let mut observer = Observer::establish(&daemon, &plans[1])?;
        let mut neighbour = Neighbour::establish(&daemon, &plans[0])?;
        neighbour.send(&announce(&basics(plans[0].asn), &["10.244.1.0/26", "10.3.0.0/16"]))?;
        observer.route("10.3.0.0/16")?;
        let mut gone = Neighbour::establish(&daemon, &plans[2])?;
        // Somebody's idea of a shutdown message.
        let text = b"<img src=x onerror=alert(1)>";
        gone.send(&notification(6, 2, &[&[text.len() as u8], &text[..]].concat()))?;
        let name = daemon.peer_view(&plans[2])?["name"].as_str().context("no name")?.to_owned();
        wait_until(WAIT, "its end is known", || {
            let told = daemon.api_text("/v1/events")?;
            ensure!(told.contains("onerror"), "{told}");
            Ok(())
        })?;
        let test = "a_browser_shows_peers_topology_events_and_explains_a_route";
        let Some(dom) = browse(test, "/?still#10.244.1.0/26", &["--dump-dom"])? else { return Ok(()) };
        for wanted in [
            "<td class=\"good\">Established</td>",
            &format!("data-peer=\"{name}\""),
            "2 of 4 sessions up",
            "class=\"hour\"",
            "<circle",
            "10.244.1.0/26",
            "the only path",
            "&lt;img src=x onerror=alert(1)&gt;",
        ] {
            ensure!(dom.contains(wanted), "{wanted} in\n{dom}");
        }
        ensure!(!dom.contains("<img"), "a peer's text became HTML:\n{dom}");
        if let Some(folder) = std::env::var_os("MARGAY_SCREENSHOTS") {
            let folder = Path::new(&folder);
            for (name, more) in [
                ("light", &["--window-size=1100,1000"][..]),
                ("dark", &["--window-size=1100,1000", "--blink-settings=preferredColorScheme=0"]),
                ("narrow", &["--window-size=500,1400"]),
            ] {
                let file = format!("--screenshot={}", folder.join(format!("{name}.png")).display());
                browse(test, "/?still#10.244.1.0/26", &[more, &[file.as_str()]].concat())?;
            }
        }
        Ok(())
    });
}
