//! Messages as text: what was heard, what it means, and what margay would say instead.
//!
//! A file of `vectors/` holds, after `#` comments and one line `session:` with the words of [`super::context`], groups of lines:
//! `<` a whole message in hexadecimal, `=` what it means, `>` the message that margay makes of it, where it is another.
//! `BLESS=1` writes the second and third anew.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use margay::types::{Attributes, NlriList};
use margay::wire::{Context, DecodeError, Message, frame};

/// One file.
pub struct Vectors {
    /// Where it is.
    pub path: PathBuf,
    /// The session's facts.
    pub context: Context,
    /// Its lines.
    lines: Vec<Line>,
}

enum Line {
    /// Kept as it is: comments, the session, empty lines.
    Kept(String),
    /// `<`.
    Heard(Vec<u8>),
}

impl Vectors {
    /// Every file of `vectors/`, by name.
    pub fn all() -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
        let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "hex"))
            .collect();
        paths.sort();
        paths.into_iter().map(|path| Self::read(path).unwrap_or_else(|error| panic!("{error}"))).collect()
    }

    fn read(path: PathBuf) -> Result<Self, String> {
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut context = Context::default();
        let mut lines = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let fault = |what: String| format!("{}:{}: {what}", path.display(), index + 1);
            match line.as_bytes().first() {
                Some(b'<') => lines.push(Line::Heard(unhex(&line[1..]).map_err(fault)?)),
                Some(b'=' | b'>') => {}
                _ => {
                    if let Some(words) = line.strip_prefix("session:") {
                        context = super::context(words).map_err(fault)?;
                    }
                    lines.push(Line::Kept(line.to_owned()));
                }
            }
        }
        Ok(Self { path, context, lines })
    }

    /// The messages.
    pub fn messages(&self) -> impl Iterator<Item = &[u8]> {
        self.lines.iter().filter_map(|line| match line {
            Line::Heard(octets) => Some(&octets[..]),
            Line::Kept(_) => None,
        })
    }

    /// The file as it should be.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            let octets = match line {
                Line::Kept(line) => {
                    text += line;
                    text.push('\n');
                    continue;
                }
                Line::Heard(octets) => octets,
            };
            let _ = writeln!(text, "< {}", hex(octets));
            let result = decode(octets, &self.context);
            describe(&result).iter().for_each(|line| {
                let _ = writeln!(text, "= {line}");
            });
            let again = result.ok().map(|message| message.encode(&self.context));
            match again {
                Some(Ok(again)) if again != octets => {
                    let _ = writeln!(text, "> {}", hex(&again));
                }
                Some(Err(error)) => {
                    let _ = writeln!(text, "> {error}");
                }
                _ => {}
            }
        }
        text
    }
}

/// Frames and decodes octets that should be one message.
pub fn decode(octets: &[u8], context: &Context) -> Result<Message, DecodeError> {
    let mut buffer = BytesMut::from(octets);
    match frame::next(&mut buffer, context)? {
        Some(frame) if buffer.is_empty() => Message::decode(frame.kind, &frame.body, context),
        _ => panic!("the vector {} is not one message", hex(octets)),
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let octets: Option<Vec<u8>> = digits.chunks(2).map(|pair| if pair.len() == 2 { octet(pair) } else { None }).collect();
    octets.ok_or_else(|| format!("`{text}` is not hexadecimal"))
}

/// A message, or why there is none, in lines for people.
pub fn describe(result: &Result<Message, DecodeError>) -> Vec<String> {
    match result {
        Err(error) => match error.notification() {
            Some(notification) => vec![format!("reset by {notification}"), format!("  {error}")],
            None => vec!["close without a word".to_owned(), format!("  {error}")],
        },
        Ok(Message::Keepalive) => vec!["KEEPALIVE".to_owned()],
        Ok(Message::Notification(notification)) => vec![format!("NOTIFICATION {notification}")],
        Ok(Message::RouteRefresh(refresh)) => vec![format!("ROUTE-REFRESH {}, subtype {}", refresh.family(), refresh.subtype)],
        Ok(Message::Open(open)) => {
            let head = format!("OPEN AS {}, hold time {}, identifier {}", open.asn(), open.hold_time, open.identifier);
            std::iter::once(head).chain(open.capabilities.iter().map(|capability| format!("  {capability:?}"))).collect()
        }
        Ok(Message::Update(update)) => {
            let mut lines = vec!["UPDATE".to_owned()];
            lines.extend(update.end_of_rib.map(|family| format!("  End-of-RIB of {family}")));
            lines.extend(update.withdrawn.iter().map(|list| format!("  withdraws {}", prefixes(list))));
            for (attributes, list) in &update.announced {
                lines.push(format!("  announces {}", prefixes(list)));
                lines.push(format!("    {}", terse(attributes)));
            }
            lines.extend(update.faults.iter().map(|fault| format!("  {:?}: {}", fault.action, fault.what)));
            lines
        }
    }
}

fn prefixes(list: &NlriList) -> String {
    let item = |item: margay::types::Nlri<ipnet::IpNet>| match item.path_id.0 {
        0 => item.prefix.to_string(),
        id => format!("{}#{id}", item.prefix),
    };
    list.iter().map(item).collect::<Vec<_>>().join(" ")
}

/// Attributes as JSON without what is not there.
fn terse(attributes: &Attributes) -> String {
    let serde_json::Value::Object(mut fields) = serde_json::json!(attributes) else { return String::new() };
    fields.retain(|_, value| !(value.is_null() || value == false || value.as_array().is_some_and(Vec::is_empty)));
    serde_json::Value::Object(fields).to_string()
}
