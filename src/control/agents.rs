//! The door of the local agents: `POST /v1/agents/{name}` is one long request, lines of JSON in its body and lines of JSON in its answer, both
//! as they come; and `GET /v1/agents`, who there is.
//!
//! # What an agent says
//!
//! | line | meaning |
//! |---|---|
//! | `{"word":"begin"}` | the whole table follows |
//! | `{"word":"upsert","prefix":"10.244.1.5/32","dev":"cali1"}` | packets to it leave by that interface; with `"via"`, to a gateway on its link |
//! | `{"word":"upsert","prefix":"10.244.1.6/32","via":"192.0.2.9"}` | they go to a gateway on a network of the node |
//! | `{"word":"upsert","prefix":"10.244.1.7/32","blackhole":true}` | it is announced, and the kernel's route drops |
//! | `{"word":"remove","prefix":"10.244.1.5/32"}` | that is no more |
//! | `{"word":"end"}` | the table is told: what was not told again goes. Outside of begin … end it only asks for an answer |
//!
//! margay writes the kernel's routes (protocol of its own): the agent makes interfaces, and leaves routes to it.
//!
//! # What it hears
//!
//! `{"answer":"hello","agent","routes","hold","limit"}` at once; `{"answer":"end","line","routes","removed"}` for each `end`: all lines up to it
//! count; `{"answer":"error","line","error"}` for a line that is refused, and for the `end` of a resync with such a line, which removes nothing;
//! `{"answer":"bye","error"}` when the connection ends by our will: a newer one of that name, or a line beyond [`LINE`] octets.
//!
//! # Which clients can do it
//!
//! Whatever sends a request body piece by piece: `curl -T .`, Python's `http.client` with chunks. Both are in `packaging/agent`, 30 lines each.
//! It is an order: from root and the daemon's own user alone. Whoever does not read the answers is not read either, nor does it hear why it is
//! taken over: Linux ends its connection with ECONNRESET, since words of it were unread when it was closed. A connection that is gone, takeovers
//! and several agents are the Agents machine's matter ([`crate::origin::agents`]).

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use crate::control::api::{Refusal, bad};
use crate::control::{ask, view};
use crate::origin::AgentRoute;
use crate::origin::agents::{Agents, Answer, Line};
use crate::runtime::agents::{Admission, AgentMessage};
use crate::runtime::directory::Directory;
use crate::runtime::message::Question;
use crate::types::Sync;

/// Octets of a line.
pub const LINE: usize = 4096;
/// Pieces of an answer that may wait to be read.
const ANSWERS: usize = 4;
/// Waiting routes that are named of each agent.
const NAMED: usize = 20;

type Shared = State<watch::Receiver<Arc<Directory>>>;

/// A line as it is written.
#[derive(Debug, Deserialize)]
#[serde(tag = "word", rename_all = "lowercase", deny_unknown_fields)]
enum Words {
    Begin {},
    Upsert {
        prefix: String,
        dev: Option<String>,
        via: Option<String>,
        #[serde(default)]
        blackhole: bool,
    },
    Remove {
        prefix: String,
    },
    End {},
}

/// What a line says; the error is for whoever wrote it.
fn word(line: &[u8]) -> Result<Sync<IpNet, AgentRoute>, String> {
    let words = serde_json::from_slice(line).map_err(|error| {
        let error = error.to_string().replace(" at line 1 column ", ", column ");
        format!("{error}; a line is such as {{\"word\":\"begin\"}}")
    })?;
    let prefix = |text: String| text.parse::<IpNet>().map_err(|_| format!("`{text}` is no prefix such as 10.244.1.5/32"));
    let address = |text: String| text.parse::<IpAddr>().map_err(|_| format!("via `{text}`: that is no address"));
    Ok(match words {
        Words::Begin {} => Sync::Begin,
        Words::End {} => Sync::End,
        Words::Remove { prefix: text } => Sync::Remove(prefix(text)?),
        Words::Upsert { prefix: text, dev, via, blackhole } => {
            let prefix = prefix(text)?;
            let route = match (dev, via.map(address).transpose()?, blackhole) {
                (Some(dev), via, false) => AgentRoute::Device { dev: dev.into(), via },
                (None, Some(gateway), false) => AgentRoute::Gateway(gateway),
                (None, None, true) => AgentRoute::Blackhole,
                _ => return Err(format!("where to with {prefix}? `dev`, `via` or both, or `blackhole`: true")),
            };
            Sync::Upsert(prefix, route)
        }
    })
}

/// Cuts what comes into lines.
#[derive(Debug, Default)]
struct Cutter {
    pending: Vec<u8>,
    number: u64,
}

impl Cutter {
    /// The lines that are whole now. The error is the last word to an agent.
    fn take(&mut self, octets: &[u8]) -> Result<Vec<Line>, String> {
        let mut lines = Vec::new();
        for part in octets.split_inclusive(|octet| *octet == b'\n') {
            self.pending.extend_from_slice(part);
            if self.pending.len() > LINE {
                return Err(format!("line {} is longer than {LINE} octets", self.number + 1));
            }
            if part.ends_with(b"\n") {
                lines.extend(self.end());
            }
        }
        Ok(lines)
    }

    /// The line that has come so far; empty ones count and say nothing.
    fn end(&mut self) -> Option<Line> {
        let text = std::mem::take(&mut self.pending);
        self.number += 1;
        let text = text.trim_ascii();
        (!text.is_empty()).then(|| Line { number: self.number, word: word(text) })
    }
}

fn door(directory: &Shared) -> Result<mpsc::Sender<AgentMessage>, Refusal> {
    let closed = "agents are not heard yet: the node has no configuration (see `margay show problems`); try again";
    directory.0.borrow().agents.clone().ok_or_else(|| Refusal(StatusCode::SERVICE_UNAVAILABLE, closed.to_owned()))
}

/// An agent's conversation.
pub async fn converse(directory: Shared, Path(name): Path<String>, request: Request) -> Result<Response, Refusal> {
    let door = door(&directory)?;
    let (reply, admission) = oneshot::channel();
    let ending = |_| Refusal(StatusCode::SERVICE_UNAVAILABLE, "the daemon is ending".to_owned());
    door.send(AgentMessage::Connect(name.into(), reply)).await.map_err(|_| ending(()))?;
    let admission = admission.await.map_err(|_| ending(()))?.map_err(bad)?;
    let (answers, answered) = mpsc::channel(ANSWERS);
    tokio::spawn(attend(door, admission, request.into_body(), answers));
    let body = stream::unfold(answered, |mut answered| async move { Some((answered.recv().await?, answered)) });
    let body = Body::from_stream(body.map(Ok::<Bytes, Infallible>));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// Attends one connection until it ends by either side's will.
async fn attend(door: mpsc::Sender<AgentMessage>, admission: Admission, body: Body, answers: mpsc::Sender<Bytes>) {
    let Admission { connection, hello, over } = admission;
    let last_words = tokio::select! {
        words = relay(&door, connection, hello, body, &answers) => words,
        () = answers.closed() => None,
        words = over => words.ok(),
    };
    if let Some(words) = last_words {
        // One that reads no answers does not hear why.
        let _ = answers.try_send(text(&[words]));
    }
    // Closed means that the process ends.
    let _ = door.send(AgentMessage::Gone(connection)).await;
}

/// Hands lines in and answers out, one batch after the other. Its last words, if we end it.
async fn relay(
    door: &mpsc::Sender<AgentMessage>,
    connection: u64,
    hello: Answer,
    body: Body,
    answers: &mpsc::Sender<Bytes>,
) -> Option<Answer> {
    let mut octets = body.into_data_stream();
    let mut cutter = Cutter::default();
    answers.send(text(&[hello])).await.ok()?;
    loop {
        let (lines, more) = match octets.next().await {
            Some(Ok(part)) => match cutter.take(&part) {
                Ok(lines) => (lines, true),
                Err(error) => return Some(Answer::Bye { error }),
            },
            // Its last line may lack its end; that of a connection that broke off counts for nothing.
            None => (cutter.end().into_iter().collect(), false),
            Some(Err(_)) => return None,
        };
        if !lines.is_empty() {
            let (reply, answer) = oneshot::channel();
            door.send(AgentMessage::Lines(connection, lines, reply)).await.ok()?;
            let said = answer.await.ok()?;
            if !said.is_empty() {
                answers.send(text(&said)).await.ok()?;
            }
        }
        if !more {
            return None;
        }
    }
}

fn text(answers: &[Answer]) -> Bytes {
    let mut text = Vec::new();
    for answer in answers {
        // Plain data with text keys always serialises.
        if serde_json::to_writer(&mut text, answer).is_ok() {
            text.push(b'\n');
        }
    }
    text.into()
}

/// An agent in `show agents --json`.
#[derive(Debug, Serialize)]
pub struct AgentView {
    name: String,
    connected: bool,
    /// Since when it is, or is not (RFC 3339).
    since: String,
    /// When its routes go, if it does not come back.
    withdrawn_at: Option<String>,
    routes: usize,
    /// Those that count for another agent, which gives them as well.
    shadowed: usize,
    /// Those that count for nobody yet.
    waiting: usize,
    /// The first of them, and what they wait for.
    waiting_for: Vec<WaitingView>,
    resyncs: u64,
    refused_lines: u64,
}

#[derive(Debug, Serialize)]
struct WaitingView {
    prefix: IpNet,
    because: String,
}

/// `GET /v1/agents`.
pub async fn agents(directory: Shared) -> Json<Vec<AgentView>> {
    let directory = Arc::clone(&directory.0.borrow());
    let waiting = ask::look(directory.copies.origin.as_ref(), |origin| origin.waiting(None)).await.unwrap_or_default();
    let look = move |agents: &Agents| {
        let mut views: Vec<AgentView> = agents.status().iter().map(AgentView::new).collect();
        for (prefix, because) in waiting {
            let Some(giver) = agents.giver(&prefix) else { continue };
            let Some(view) = views.iter_mut().find(|view| view.name == **giver) else { continue };
            view.waiting += 1;
            if view.waiting_for.len() < NAMED {
                view.waiting_for.push(WaitingView { prefix, because });
            }
        }
        views
    };
    let Some(door) = &directory.agents else { return Json(Vec::new()) };
    let (reply, views) = oneshot::channel();
    // Closed means that the process ends.
    let _ = door.send(AgentMessage::Look(Question::new(reply, look))).await;
    Json(views.await.unwrap_or_default())
}

impl AgentView {
    fn new(status: &crate::origin::agents::AgentStatus) -> Self {
        Self {
            name: status.name.to_string(),
            connected: status.connected,
            since: view::wall_clock(status.since),
            withdrawn_at: status.expires.map(view::wall_clock),
            routes: status.routes,
            shadowed: status.shadowed,
            waiting: 0,
            waiting_for: Vec::new(),
            resyncs: status.resyncs,
            refused_lines: status.refused,
        }
    }
}

/// What agents have to do with a prefix, for `explain`.
#[derive(Debug, Serialize)]
pub struct AgentNote {
    agent: String,
    /// Its route is the one that counts among those of agents.
    counts: bool,
    because: String,
}

/// See [`AgentNote`].
pub async fn notes(directory: &Directory, prefix: IpNet) -> Vec<AgentNote> {
    let Some(door) = &directory.agents else { return Vec::new() };
    let waits = ask::look(directory.copies.origin.as_ref(), move |origin| origin.waiting(Some(prefix))).await.unwrap_or_default();
    let look = move |agents: &Agents| {
        let giver = agents.giver(&prefix).cloned();
        let note = |agent: &Arc<str>| {
            let first = giver.as_ref() == Some(agent);
            let because = match (first, waits.first(), &giver) {
                (true, Some((_, why)), _) => format!("it waits: {why}"),
                (true, None, _) => "it gives the route".to_owned(),
                (false, _, Some(giver)) => format!("agent {giver} gives it too, and counts: connected ones first, then by name"),
                (false, _, None) => String::new(),
            };
            AgentNote { agent: agent.to_string(), counts: first && waits.is_empty(), because }
        };
        agents.givers(&prefix).iter().map(note).collect()
    };
    let (reply, notes) = oneshot::channel();
    let _ = door.send(AgentMessage::Look(Question::new(reply, look))).await;
    notes.await.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> String {
        match word(line.as_bytes()) {
            Ok(word) => format!("{word:?}"),
            Err(error) => error,
        }
    }

    #[test]
    fn lines_and_what_they_say() {
        let rows = [
            (r#"{"word":"begin"}"#, "Begin"),
            (r#" {"word" : "end"} "#, "End"),
            (r#"{"word":"remove","prefix":"10.1.0.1/32"}"#, "Remove(10.1.0.1/32)"),
            (r#"{"word":"upsert","prefix":"10.1.0.1/32","dev":"a"}"#, r#"Upsert(10.1.0.1/32, Device { dev: "a", via: None })"#),
            (
                r#"{"word":"upsert","prefix":"fd00::1/128","dev":"a","via":"fe80::1"}"#,
                r#"Upsert(fd00::1/128, Device { dev: "a", via: Some(fe80::1) })"#,
            ),
            (r#"{"word":"upsert","prefix":"10.1.0.1/32","via":"10.0.0.9"}"#, "Upsert(10.1.0.1/32, Gateway(10.0.0.9))"),
            (r#"{"word":"upsert","prefix":"10.1.0.1/32","blackhole":true}"#, "Upsert(10.1.0.1/32, Blackhole)"),
            (r#"{"word":"upsert","prefix":"10.1.0.1/32"}"#, "where to with 10.1.0.1/32?"),
            (r#"{"word":"upsert","prefix":"10.1.0.1/32","dev":"a","blackhole":true}"#, "where to with 10.1.0.1/32?"),
            (r#"{"word":"upsert","prefix":"10.1.0.1","dev":"a"}"#, "`10.1.0.1` is no prefix"),
            (r#"{"word":"upsert","prefix":"10.1.0.1/32","via":"x"}"#, "via `x`: that is no address"),
            (r#"{"word":"upsert","prefix":"10.1.0.1/32","device":"a"}"#, "unknown field `device`"),
            (r#"{"word":"begin","prefix":"10.1.0.1/32"}"#, "unknown field `prefix`"),
            (r#"{"word":"start"}"#, "unknown variant `start`"),
            (r#"{"prefix":"10.1.0.1/32"}"#, "missing field `word`"),
            (r#"["word"]"#, "a line is such as"),
            ("begin", "a line is such as"),
        ];
        for (line, expected) in rows {
            assert!(said(line).contains(expected), "{line}: {}", said(line));
        }
    }

    #[test]
    fn lines_are_whole_however_they_come() {
        let text = b"{\"word\":\"begin\"}\r\n\n{\"word\":\"end\"}\n{\"word\":\"begin\"}";
        let all = |piece: usize| {
            let mut cutter = Cutter::default();
            let mut lines: Vec<Line> = text.chunks(piece).flat_map(|part| cutter.take(part).unwrap()).collect();
            lines.extend(cutter.end());
            lines.into_iter().map(|line| (line.number, line.word.unwrap())).collect::<Vec<_>>()
        };
        for piece in 1..=text.len() {
            assert_eq!(all(piece), [(1, Sync::Begin), (3, Sync::End), (4, Sync::Begin)], "{piece}");
        }
        let mut cutter = Cutter::default();
        assert!(cutter.take(&[b'x'; LINE]).unwrap().is_empty());
        assert_eq!(cutter.take(b"x"), Err("line 1 is longer than 4096 octets".to_owned()));
    }
}
