//! What the API server sends: objects, lists, watch events, refusals. Only what margay reads is kept; managed fields, a
//! Node's status and the like are skipped while they are parsed.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::calico::resource::or_default;

/// Marks the bookmark that ends the initial events of a watch.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// One object, of whatever kind.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Object {
    pub metadata: Metadata,
    pub spec: Value,
    #[serde(deserialize_with = "or_default")]
    pub status: Status,
    /// Of a Secret.
    pub data: Value,
    /// Of an EndpointSlice.
    #[serde(rename = "addressType")]
    pub address_type: Value,
    /// Of an EndpointSlice.
    #[serde(deserialize_with = "or_default")]
    pub endpoints: Vec<Endpoint>,
}

/// Who an object is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metadata {
    pub name: String,
    #[serde(deserialize_with = "or_default")]
    pub namespace: String,
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub resource_version: String,
}

/// The only part of a status that is read: a Service's addresses.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Status {
    pub load_balancer: Value,
}

/// An endpoint of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Endpoint {
    #[serde(deserialize_with = "or_default")]
    pub conditions: Conditions,
    pub node_name: Option<String>,
}

/// Conditions of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Conditions {
    /// Absent counts as ready.
    pub ready: Option<bool>,
}

/// A page of a list.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Page {
    pub objects: Vec<Object>,
    pub version: String,
    /// Where the next page starts; empty with the last.
    pub next: String,
    /// Objects that could not be read, and why.
    pub unreadable: Vec<String>,
}

/// A line of a watch.
#[derive(Debug, PartialEq)]
pub(super) enum Event {
    Added(Object),
    Modified(Object),
    Deleted(Object),
    Bookmark {
        version: String,
        ends_initial_events: bool,
    },
    /// The server ends the watch.
    Refused(Refusal),
    /// An object that cannot be read, or an event of a type that is not known.
    Unreadable(String),
}

/// The API server's "no", as a `Status` object or as a bare HTTP answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Refusal {
    /// HTTP status code.
    pub code: u16,
    #[serde(deserialize_with = "or_default")]
    pub reason: String,
    #[serde(deserialize_with = "or_default")]
    pub message: String,
    /// Seconds after which to try again, where the server says so.
    #[serde(skip)]
    pub retry_after: Option<u64>,
}

impl Refusal {
    /// Reads the body of an answer that is no success.
    pub fn read(code: u16, retry_after: Option<u64>, body: &[u8]) -> Self {
        let text = || Self { message: String::from_utf8_lossy(&body[..body.len().min(200)]).trim().to_owned(), ..Self::default() };
        let refusal = serde_json::from_slice::<Self>(body).ok().filter(|refusal| refusal.code != 0).unwrap_or_else(text);
        Self { code, retry_after, ..refusal }
    }
}

impl Page {
    /// Reads a list.
    pub fn read(body: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct List<'a> {
            #[serde(default)]
            metadata: ListMetadata,
            #[serde(default, borrow)]
            items: Option<Vec<&'a RawValue>>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct ListMetadata {
            #[serde(deserialize_with = "or_default")]
            resource_version: String,
            #[serde(rename = "continue", deserialize_with = "or_default")]
            next: String,
        }
        let list: List<'_> = serde_json::from_slice(body)?;
        let mut page = Self { version: list.metadata.resource_version, next: list.metadata.next, ..Self::default() };
        for item in list.items.into_iter().flatten() {
            match serde_json::from_str(item.get()) {
                Ok(object) => page.objects.push(object),
                Err(error) => page.unreadable.push(unreadable(item, &error)),
            }
        }
        Ok(page)
    }
}

impl Event {
    /// Reads a line of a watch.
    pub fn read(line: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Line<'a> {
            #[serde(rename = "type", borrow)]
            kind: Cow<'a, str>,
            #[serde(borrow)]
            object: &'a RawValue,
        }
        let Line { kind, object: raw } = serde_json::from_slice(line)?;
        if kind == "ERROR" {
            return Ok(Self::Refused(serde_json::from_str(raw.get())?));
        }
        let object: Object = match serde_json::from_str(raw.get()) {
            Ok(object) => object,
            Err(error) => return Ok(Self::Unreadable(unreadable(raw, &error))),
        };
        Ok(match &*kind {
            "ADDED" => Self::Added(object),
            "MODIFIED" => Self::Modified(object),
            "DELETED" => Self::Deleted(object),
            "BOOKMARK" => {
                let Metadata { resource_version, annotations, .. } = object.metadata;
                let ends_initial_events = annotations.get(INITIAL_EVENTS_END).is_some_and(|value| value == "true");
                Self::Bookmark { version: resource_version, ends_initial_events }
            }
            other => Self::Unreadable(format!("an event of unknown type `{}`", other.chars().take(40).collect::<String>())),
        })
    }
}

/// Names an object that does not have the shape of its kind.
fn unreadable(raw: &RawValue, error: &serde_json::Error) -> String {
    let value: Value = serde_json::from_str(raw.get()).unwrap_or_default();
    let name = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("without a name");
    format!("the object {name} cannot be read: {}", unquoted(&error.to_string()))
}

/// Without the value that did not fit, which may be a Secret's.
fn unquoted(words: &str) -> String {
    match (words.find('"'), words.rfind('"')) {
        (Some(begin), Some(end)) if begin < end => format!("{}…{}", &words[..begin], &words[end + 1..]),
        _ => words.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_does_not_fit_is_not_quoted() {
        let line = br#"{"type":"ADDED","object":{"kind":"Secret","metadata":{"name":"bgp","labels":"hunter\"2"}}}"#;
        let Event::Unreadable(words) = Event::read(line).unwrap() else { panic!() };
        assert!(
            words.starts_with("the object bgp cannot be read: invalid type: string …, expected") && !words.contains("hunter"),
            "{words}"
        );
    }

    #[test]
    fn events_keep_what_is_read_and_nothing_else() {
        let line = r#"{"type":"ADDED","object":{"kind":"Node","metadata":{"name":"a","resourceVersion":"7","labels":null,
            "managedFields":[{"fieldsV1":{"f:spec":{}}}]},"spec":{"podCIDR":"x"},"status":{"images":[1,2]}}}"#;
        let Event::Added(object) = Event::read(line.as_bytes()).unwrap() else { panic!() };
        assert_eq!((object.metadata.name.as_str(), object.metadata.resource_version.as_str()), ("a", "7"));
        assert_eq!(object.status, Status::default());
    }

    #[test]
    fn a_bookmark_may_end_the_initial_events() {
        for (annotations, ends) in [("", false), (r#","annotations":{"k8s.io/initial-events-end":"true"}"#, true)] {
            let line = format!(r#"{{"type":"BOOKMARK","object":{{"metadata":{{"resourceVersion":"12"{annotations}}},"endpoints":null}}}}"#);
            let expected = Event::Bookmark { version: "12".to_owned(), ends_initial_events: ends };
            assert_eq!(Event::read(line.as_bytes()).unwrap(), expected);
        }
    }

    #[test]
    fn refusals_are_status_objects_or_bare_text() {
        let status = br#"{"kind":"Status","status":"Failure","message":"too old resource version: 5 (73)","reason":"Expired","code":410}"#;
        let refusal = Refusal::read(410, None, status);
        assert_eq!((refusal.code, refusal.reason.as_str()), (410, "Expired"));
        let refusal = Refusal::read(502, Some(3), b"bad gateway\n");
        assert_eq!((refusal.code, refusal.message.as_str(), refusal.retry_after), (502, "bad gateway", Some(3)));
    }

    #[test]
    fn one_object_that_cannot_be_read_does_not_hide_the_others() {
        let body = br#"{"metadata":{"resourceVersion":"9","continue":"c"},"items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b","labels":7}}]}"#;
        let page = Page::read(body).unwrap();
        assert_eq!((page.objects.len(), page.version.as_str(), page.next.as_str()), (1, "9", "c"));
        assert!(page.unreadable[0].contains("object b"), "{:?}", page.unreadable);
        assert_eq!(Page::read(br#"{"items":null}"#).unwrap(), Page::default());
        assert!(Page::read(b"{").is_err());
    }
}
