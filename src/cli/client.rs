//! The command line's side of the control API: HTTP/1.1 over the unix socket.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::cli::Failure;

/// Where the daemon is, and how its answer is printed.
#[derive(Clone, Debug, Args)]
pub struct Target {
    /// Control socket of the daemon.
    #[arg(long, env = "MARGAY_SOCKET", value_name = "PATH", default_value = SOCKET, global = true)]
    socket: PathBuf,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

/// Where the daemon is unless somebody says otherwise.
const SOCKET: &str = "/run/margay/margay.sock";
/// An answer without an end.
const BROKEN: &str = "the daemon broke off its answer: its log says why (`journalctl -u margay`), or it has just ended";

/// The daemon's answer to a question.
#[derive(Debug)]
pub enum Reply<T> {
    /// Here it is.
    Found(T),
    /// There is no such thing; in words.
    Missing(String),
}

impl Target {
    /// Asks for one document.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Reply<T>, Failure> {
        self.ask(Method::GET, path, Bytes::new())
    }

    /// The daemon of this control socket.
    pub fn at(socket: PathBuf) -> Self {
        Self { socket, json: false }
    }

    /// Whether anybody listens on the control socket.
    pub fn answers(&self) -> bool {
        std::os::unix::net::UnixStream::connect(&self.socket).is_ok()
    }

    /// The daemon that a command line means, as far as it has been typed.
    pub fn of_line(words: &[OsString]) -> Self {
        let after = words.iter().position(|word| word == "--socket").and_then(|at| words.get(at + 1));
        let joined = words.iter().filter_map(|word| word.to_str()?.strip_prefix("--socket=")).next_back().map(PathBuf::from);
        let variable = std::env::var_os("MARGAY_SOCKET").map(PathBuf::from);
        Self { socket: after.map(PathBuf::from).or(joined).or(variable).unwrap_or_else(|| SOCKET.into()), json: false }
    }

    /// Asks for one document; an answer that does not come in time is none.
    pub fn get_within<T: DeserializeOwned>(&self, patience: Duration, path: &str) -> Result<Reply<T>, Failure> {
        in_runtime(async {
            let answer = tokio::time::timeout(patience, self.asked(Method::GET, path, Bytes::new())).await;
            answer.map_err(|_| anyhow!("no answer from the daemon within {patience:?}: its log may say why"))?
        })
    }

    /// Asks for an action.
    pub fn post<T: DeserializeOwned>(&self, path: &str) -> Result<Reply<T>, Failure> {
        self.ask(Method::POST, path, Bytes::new())
    }

    /// Hands over a document and asks what comes of it.
    pub fn post_json<T: DeserializeOwned>(&self, path: &str, document: &Value) -> Result<Reply<T>, Failure> {
        self.ask(Method::POST, path, document.to_string().into())
    }

    fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<Reply<T>, Failure> {
        in_runtime(self.asked(method, path, body))
    }

    async fn asked<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<Reply<T>, Failure> {
        let response = self.request(method, path, body).await?;
        let missing = response.status() == StatusCode::NOT_FOUND;
        let body = response.into_body().collect().await.context(BROKEN)?.to_bytes();
        if missing {
            return Ok(Reply::Missing(String::from_utf8_lossy(&body).into_owned()));
        }
        Ok(Reply::Found(
            serde_json::from_slice(&body).context("the daemon's answer is no JSON that this margay knows: are both of one version?")?,
        ))
    }

    /// Asks for lines of JSON and hands each to `each` as it comes.
    pub fn lines(&self, path: &str, mut each: impl FnMut(&str) -> anyhow::Result<()>) -> Result<Reply<()>, Failure> {
        in_runtime(async {
            let mut response = self.request(Method::GET, path, Bytes::new()).await?;
            let missing = response.status() == StatusCode::NOT_FOUND;
            let mut pending = Vec::new();
            while let Some(frame) = response.frame().await {
                let frame = frame.context(BROKEN)?;
                pending.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                if !missing {
                    take_lines(&mut pending, &mut each)?;
                }
            }
            Ok(if missing { Reply::Missing(String::from_utf8_lossy(&pending).into_owned()) } else { Reply::Found(()) })
        })
    }

    /// Asks for octets and hands each piece to `each` as it comes.
    pub fn octets(&self, path: &str, mut each: impl FnMut(&[u8]) -> anyhow::Result<()>) -> Result<Reply<()>, Failure> {
        in_runtime(async {
            let mut response = self.request(Method::GET, path, Bytes::new()).await?;
            if response.status() == StatusCode::NOT_FOUND {
                let body = response.into_body().collect().await.context(BROKEN)?.to_bytes();
                return Ok(Reply::Missing(String::from_utf8_lossy(&body).into_owned()));
            }
            while let Some(frame) = response.frame().await {
                let frame = frame.context(BROKEN)?;
                each(frame.data_ref().map_or(&[][..], |data| data))?;
            }
            Ok(Reply::Found(()))
        })
    }

    /// The process id of the daemon, as the kernel says who listens on the socket; none where it is not to be seen from here.
    pub fn daemon(&self) -> Option<i32> {
        in_runtime(async {
            let stream = UnixStream::connect(&self.socket).await.map_err(|error| unreachable(&self.socket, &error))?;
            Ok(stream.peer_cred().ok().and_then(|credentials| credentials.pid()))
        })
        .ok()?
        .filter(|id| *id > 0)
    }

    async fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| unreachable(&self.socket, &error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .context("what listens there speaks no HTTP: is --socket the one that `margay run` was given?")?;
        // Ends with the answer; an error shows in the answer too.
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header("host", "margay").header("content-type", "application/json");
        let request = request.body(Full::new(body)).context("cannot ask that")?;
        let response =
            sender.send_request(request).await.context("the daemon did not answer: its log says why (`journalctl -u margay`)")?;
        if response.status().is_success() || response.status() == StatusCode::NOT_FOUND {
            return Ok(response);
        }
        let status = response.status();
        let body = response.into_body().collect().await.context(BROKEN)?.to_bytes();
        Err(Failure::Other(anyhow!("{} ({status})", String::from_utf8_lossy(&body).trim())))
    }
}

/// Text as a part of a path or a value in a query, percent-encoded where it must be (`%` of a link-local address's zone, for instance).
pub fn escape(text: &str) -> String {
    let keep = |octet: &u8| octet.is_ascii_alphanumeric() || b"-_.~:".contains(octet);
    text.bytes().map(|octet| if keep(&octet) { char::from(octet).to_string() } else { format!("%{octet:02X}") }).collect()
}

fn take_lines(pending: &mut Vec<u8>, each: &mut impl FnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let Some(last) = pending.iter().rposition(|octet| *octet == b'\n') else { return Ok(()) };
    let rest = pending.split_off(last + 1);
    let whole = std::mem::replace(pending, rest);
    let text = std::str::from_utf8(&whole).context("the daemon's answer is no UTF-8")?;
    text.lines().try_for_each(each)
}

fn in_runtime<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(work)
}

fn unreachable(socket: &Path, error: &std::io::Error) -> Failure {
    let next = match error.kind() {
        std::io::ErrorKind::NotFound => "no such socket: is `margay run` running, and with this --socket?",
        std::io::ErrorKind::ConnectionRefused => "nobody listens there: the daemon has ended",
        std::io::ErrorKind::PermissionDenied => "permission denied: use root, or the group that owns the socket",
        _ => "",
    };
    let detail = if next.is_empty() { error.to_string() } else { next.to_owned() };
    Failure::Unreachable(format!("cannot reach the daemon at {}: {detail}", socket.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_escaped() {
        assert_eq!(escape("fe80::1%eth0"), "fe80::1%25eth0");
    }
}
