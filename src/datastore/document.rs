//! A text's documents as resources: `List`s taken apart, each with its key and its place.

use std::sync::Arc;

use serde_json::Value;

use super::yaml::{Parsed, Places, Unreadable, parse};
use crate::calico::{Document, Location, Problem, ResourceKey, Severity};

/// Kinds that live in a namespace.
const NAMESPACED: [&str; 3] = ["EndpointSlice", "Secret", "Service"];

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Contents {
    /// Resources in the order written.
    pub resources: Vec<(ResourceKey, Document)>,
    /// Documents that are no resources.
    pub problems: Vec<Problem>,
}

/// Reads a file's text. The error is a problem of the whole file.
pub(super) fn read(file: &str, text: &str) -> Result<Contents, Box<Problem>> {
    let mut contents = Contents::default();
    for Parsed { value, places } in parse(text).map_err(|error| Box::new(unreadable(file, error)))? {
        add(file, value, places, &mut contents);
    }
    Ok(contents)
}

fn unreadable(file: &str, Unreadable { line, column, what }: Unreadable) -> Problem {
    let location = Location { file: file.to_owned(), line, column };
    Problem { location, ..Problem::general(Severity::Error, format!("the file cannot be read: {what}"), "") }
}

fn add(file: &str, value: Value, mut places: Places, contents: &mut Contents) {
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
    match value.get("items") {
        Some(Value::Array(items)) if kind.ends_with("List") => {
            for (index, item) in items.iter().enumerate() {
                let places = split_off(&mut places, &format!("items[{index}]"));
                add(file, item.clone(), places, contents);
            }
        }
        None | Some(Value::Null) if kind.ends_with("List") => {}
        _ => match key(&value) {
            Ok(key) => contents.resources.push((key, document(file, value, places))),
            Err(what) => {
                let location = document(file, Value::Null, places).location;
                let instead = "this document is left out";
                contents.problems.push(Problem { location, ..Problem::general(Severity::Error, what, instead) });
            }
        },
    }
}

fn document(file: &str, value: Value, places: Places) -> Document {
    let (line, column) = places.get("").copied().unwrap_or_default();
    Document { object: Arc::new(value), location: Location { file: file.to_owned(), line, column }, fields: Arc::new(places) }
}

/// The places below `prefix`, with the prefix taken off.
fn split_off(places: &mut Places, prefix: &str) -> Places {
    let mut tail = places.split_off(prefix);
    let is_inside = |path: &String| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
    let inside: Vec<String> = tail.keys().take_while(|path| path.starts_with(prefix)).filter(|path| is_inside(path)).cloned().collect();
    let taken = inside.iter().filter_map(|path| {
        let place = tail.remove(path)?;
        let rest = path.strip_prefix(prefix)?;
        Some((rest.strip_prefix('.').unwrap_or(rest).to_owned(), place))
    });
    let taken: Places = taken.collect();
    places.append(&mut tail);
    taken
}

/// What names the resource of a document that says so itself; the error says what it lacks.
pub(super) fn key(value: &Value) -> Result<ResourceKey, String> {
    let text = |value: Option<&Value>| match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(_) | Value::Number(_)) => value.map(Value::to_string).unwrap_or_default(),
        _ => String::new(),
    };
    if !value.is_object() {
        return Err("the document is no object".to_owned());
    }
    let kind = text(value.get("kind"));
    if kind.is_empty() {
        return Err("the document has no kind".to_owned());
    }
    let metadata = value.get("metadata");
    let name = text(metadata.and_then(|metadata| metadata.get("name")));
    if name.is_empty() {
        return Err(format!("the {kind} has no metadata.name"));
    }
    let namespace = text(metadata.and_then(|metadata| metadata.get("namespace")));
    let namespace = if NAMESPACED.contains(&kind.as_str()) { namespace } else { String::new() };
    Ok(ResourceKey { kind, namespace, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_its_items() {
        let text = "kind: BGPPeerList\nitems:\n- kind: BGPPeer\n  metadata: {name: a}\n- kind: BGPPeer\n  metadata: {name: b}\n  spec: {peerIP: x}\n";
        let contents = read("f", text).unwrap();
        assert_eq!(contents.resources.iter().map(|(key, _)| key.to_string()).collect::<Vec<_>>(), ["BGPPeer a", "BGPPeer b"]);
        let (_, second) = &contents.resources[1];
        assert_eq!(second.location.to_string(), "f:5:3");
        assert_eq!(second.locate("spec.peerIP").to_string(), "f:7:18");
        assert_eq!(second.locate("spec.asNumber").to_string(), "f:7:9");
    }

    #[test]
    fn ten_and_more_items_keep_their_places() {
        let item = |n: usize| format!("- kind: Node\n  metadata: {{name: n{n}}}\n");
        let text = format!("kind: List\nitems:\n{}", (0..12).map(item).collect::<String>());
        for (index, (_, document)) in read("f", &text).unwrap().resources.iter().enumerate() {
            assert_eq!(document.location.line, 3 + 2 * index as u32);
            assert_eq!(document.locate("metadata.name").line, 4 + 2 * index as u32);
        }
    }

    #[test]
    fn documents_without_kind_or_name_are_problems() {
        let contents = read("f", "a: 1\n---\nkind: Node\n---\n- 1\n---\nkind: Node\nmetadata: {name: yes}\n").unwrap();
        assert_eq!(contents.problems.len(), 3);
        assert_eq!(contents.resources[0].0.name, "true");
    }
}
