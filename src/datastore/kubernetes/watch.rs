//! One source's task: sends what its reflector asks, reads what comes, reports.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, header};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::ledger::Report;
use super::object::{Event, Page, Refusal};
use super::reflector::{Answer, Ask, Next, Reflector};
use super::source::{Plan, Source};

/// An answer must have begun by then.
const PATIENCE: Duration = Duration::from_secs(60);
/// Nothing heard for so long (servers send a bookmark every minute): the connection is taken for dead.
const SILENCE: Duration = Duration::from_secs(150);
/// A watch is asked to last between this and twice as long, so that not all end at once.
const LASTS: u32 = 300;
/// Longest line, and longest list, that is read. etcd takes objects up to 1.5 MB.
const LONGEST: usize = 256 << 20;

/// A source's task.
pub(super) struct Watcher {
    pub client: Client,
    pub source: Source,
    pub plan: Arc<Plan>,
    pub pace: Arc<super::pace::Pace>,
    pub reports: mpsc::Sender<(Source, Report)>,
    /// Changes when a fresh listing is wanted.
    pub again: watch::Receiver<u64>,
}

impl Watcher {
    /// Lists and watches until nobody listens any more.
    pub async fn run(mut self) {
        // RandomState is seeded by the system: every node pauses differently.
        let seed = RandomState::new().build_hasher().finish();
        let mut reflector = Reflector::new(seed, self.source.is_precious());
        let lasts = LASTS + seed as u32 % LASTS;
        while !self.reports.is_closed() {
            match reflector.next() {
                Next::Wait(pause) => {
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = asked(&mut self.again) => {
                            self.tell(&mut reflector, Answer::LookAgain).await;
                        }
                        () = self.reports.closed() => {}
                    }
                }
                Next::Ask(ask) => self.ask(&mut reflector, &ask, lasts).await,
            }
        }
    }

    /// Carries out one request to its end.
    async fn ask(&mut self, reflector: &mut Reflector, ask: &Ask, lasts: u32) {
        self.pace.wait().await;
        let response = match self.request(ask, lasts).await {
            Ok(response) => response,
            Err(why) => {
                self.tell(reflector, Answer::Failed(why)).await;
                return;
            }
        };
        let answer = if !response.status().is_success() {
            refusal(response).await
        } else if matches!(ask, Ask::Page { .. }) {
            match whole(response.into_body()).await.and_then(|body| Page::read(&body).map_err(|error| error.to_string())) {
                Ok(page) => Answer::Page(page),
                Err(why) => Answer::Failed(why),
            }
        } else if self.tell(reflector, Answer::Opened).await {
            self.follow(reflector, response.into_body()).await
        } else {
            return;
        };
        self.tell(reflector, answer).await;
    }

    async fn request(&self, ask: &Ask, lasts: u32) -> Result<Response<Body>, String> {
        let request = Request::get(self.source.uri(&self.plan, ask, lasts))
            .header(header::ACCEPT, self.source.accept(ask))
            .header(header::USER_AGENT, concat!("margay/", env!("CARGO_PKG_VERSION")))
            .body(Body::empty())
            .map_err(|error| error.to_string())?;
        match timeout(PATIENCE, self.client.send(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(words(&error)),
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        }
    }

    /// Reads a watch line by line, until it ends: then says how.
    async fn follow(&mut self, reflector: &mut Reflector, mut body: Body) -> Answer {
        let opened = Instant::now();
        let mut lines = Lines::default();
        loop {
            while let Some(line) = lines.next() {
                let event = match Event::read(&line) {
                    Ok(event) => event,
                    Err(error) => return Answer::Failed(format!("a line of the watch makes no sense: {error}")),
                };
                let refused = match &event {
                    Event::Refused(refusal) => Some(refusal.clone()),
                    _ => None,
                };
                match refused {
                    Some(refusal) => return Answer::Refused(refusal),
                    None if self.tell(reflector, Answer::Event(event)).await => {}
                    // An empty listing in doubt, or nobody listens: nothing more is wanted of this watch.
                    None => return Answer::Closed(opened.elapsed().max(Duration::from_secs(1))),
                }
            }
            let frame = tokio::select! {
                frame = timeout(SILENCE, body.frame()) => frame,
                () = asked(&mut self.again) => return Answer::LookAgain,
            };
            match frame {
                Ok(Some(Ok(frame))) => lines.push(frame.into_data().unwrap_or_default()),
                Ok(Some(Err(error))) => return Answer::Failed(words(&error)),
                Ok(None) => return Answer::Closed(opened.elapsed()),
                Err(_) => return Answer::Failed(format!("silent for {} s", SILENCE.as_secs())),
            }
            if lines.waiting() > LONGEST {
                return Answer::Failed("a line of the watch is longer than any object can be".to_owned());
            }
        }
    }

    /// Tells the reflector, reports what it says of it; false where nothing more is wanted of this request.
    async fn tell(&self, reflector: &mut Reflector, answer: Answer) -> bool {
        let mut said = Vec::new();
        let goes_on = reflector.handle(answer, &mut said);
        for said in said {
            let report = Report::new(said, |object| self.source.convert(&self.plan, object));
            if self.reports.send((self.source.clone(), report)).await.is_err() {
                return false;
            }
        }
        goes_on
    }
}

/// Returns when a fresh listing is asked for.
async fn asked(again: &mut watch::Receiver<u64>) {
    if again.changed().await.is_err() {
        // Whoever could ask is gone, and so are those who listen.
        std::future::pending::<()>().await;
    }
}

/// Sends one GET and reads all of the answer.
pub(super) async fn get(client: &Client, path: &str) -> Result<Bytes, String> {
    let request = Request::get(path).header(header::ACCEPT, "application/json").body(Body::empty()).map_err(|error| error.to_string())?;
    let response = match timeout(PATIENCE, client.send(request)).await {
        Ok(answer) => answer.map_err(|error| words(&error))?,
        Err(_) => return Err(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    let code = response.status().as_u16();
    let body = whole(response.into_body()).await?;
    if code == 200 { Ok(body) } else { Err(format!("it answers {code}: {}", Refusal::read(code, None, &body).message)) }
}

async fn refusal(response: Response<Body>) -> Answer {
    let code = response.status().as_u16();
    let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    match whole(response.into_body()).await {
        Ok(body) => Answer::Refused(Refusal::read(code, retry_after, &body)),
        Err(_) => Answer::Refused(Refusal { code, retry_after, ..Refusal::default() }),
    }
}

pub(super) async fn whole(body: Body) -> Result<Bytes, String> {
    let limited = http_body_util::Limited::new(body, LONGEST);
    match timeout(SILENCE, limited.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("half an answer after {} s", SILENCE.as_secs())),
    }
}

/// An error with its causes.
pub(super) fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// Bytes as they come, lines as they are complete.
#[derive(Debug, Default)]
struct Lines {
    buffer: BytesMut,
    /// No line ends before this place.
    searched: usize,
}

impl Lines {
    fn push(&mut self, bytes: Bytes) {
        self.buffer.extend_from_slice(&bytes);
    }

    fn waiting(&self) -> usize {
        self.buffer.len()
    }

    fn next(&mut self) -> Option<Bytes> {
        loop {
            let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') else {
                self.searched = self.buffer.len();
                return None;
            };
            let line = self.buffer.split_to(self.searched + end + 1).freeze();
            self.searched = 0;
            if !line.trim_ascii().is_empty() {
                return Some(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_wherever_they_are_cut() {
        let text = b"{\"a\":1}\n\n{\"b\":2}\n{\"c\"";
        for cut in 0..text.len() {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for part in [&text[..cut], &text[cut..]] {
                lines.push(Bytes::copy_from_slice(part));
                found.extend(std::iter::from_fn(|| lines.next()));
            }
            assert_eq!(found, [&b"{\"a\":1}\n"[..], b"{\"b\":2}\n"], "cut at {cut}");
            assert_eq!(lines.waiting(), 4);
        }
    }
}
