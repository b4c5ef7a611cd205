//! YAML and JSON text to JSON values, with the line and column of every field.
//!
//! YAML means what it means to kubectl and calicoctl: a bare `yes` is a boolean (and becomes text again where text
//! is wanted), `0777` is octal, `5663:12` is text and no base-60 number.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// Line and column of fields by path.
pub(super) type Places = BTreeMap<String, (u32, u32)>;

/// One document of a text.
#[derive(Debug)]
pub(super) struct Parsed {
    pub value: Value,
    /// Places of the fields; the document's own is at the empty path.
    pub places: Places,
}

/// The text cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub line: u32,
    pub column: u32,
    pub what: String,
}

/// Every document of the text, in order; empty ones are left out.
pub(super) fn parse(text: &str) -> Result<Vec<Parsed>, Unreadable> {
    let budget = serde_saphyr::budget! {
        max_documents: 1_000_000,
        max_events: 100_000_000,
        max_nodes: 100_000_000,
        max_reader_input_bytes: None,
        max_total_scalar_bytes: usize::MAX,
        max_depth: 128,
    };
    let options = serde_saphyr::options! { budget: budget, legacy_octal_numbers: true, with_snippet: false };
    let trees: Vec<Tree> = serde_saphyr::from_multiple_with_options(text, options).map_err(|error| unreadable(&error))?;
    Ok(trees.into_iter().map(Tree::flatten).filter(|parsed| !parsed.value.is_null()).collect())
}

fn unreadable(error: &serde_saphyr::Error) -> Unreadable {
    let (line, column) = error.location().map_or((0, 0), place);
    let what = error.without_snippet().to_string();
    let what = what.rfind(" at line ").map_or(what.as_str(), |end| &what[..end]).replace('\n', " ");
    Unreadable { line, column, what }
}

fn place(location: serde_saphyr::Location) -> (u32, u32) {
    (u32::try_from(location.line()).unwrap_or(0), u32::try_from(location.column()).unwrap_or(0))
}

/// A value that knows its place.
struct Tree {
    at: (u32, u32),
    shape: Shape,
}

enum Shape {
    Scalar(Value),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

impl Tree {
    fn flatten(self) -> Parsed {
        let mut places = Places::new();
        let value = self.into_value(String::new(), &mut places);
        Parsed { value, places }
    }

    fn into_value(self, path: String, places: &mut Places) -> Value {
        let value = match self.shape {
            Shape::Scalar(value) => value,
            Shape::List(items) => {
                items.into_iter().enumerate().map(|(index, item)| item.into_value(format!("{path}[{index}]"), places)).collect()
            }
            Shape::Map(fields) => {
                let child = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
                let fields = fields.into_iter().map(|(key, tree)| {
                    let value = tree.into_value(child(&key), places);
                    (key, value)
                });
                Value::Object(fields.collect::<Map<_, _>>())
            }
        };
        places.insert(path, self.at);
        value
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<Shape>::deserialize(deserializer)?;
        Ok(Self { at: place(referenced), shape: value })
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Shape, E> {
        Ok(Shape::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Shape, E> {
        Ok(Shape::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Shape, E> {
        Ok(Shape::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Shape, E> {
        Ok(Shape::Scalar(Number::from_f64(value).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Shape, E> {
        Ok(Shape::Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Shape, E> {
        Ok(Shape::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Shape, E> {
        Ok(Shape::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Shape, D::Error> {
        Shape::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Shape, D::Error> {
        Shape::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Shape, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Shape::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Shape, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = fields.next_entry::<String, Tree>()? {
            map.push(entry);
        }
        Ok(Shape::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn value(text: &str) -> Value {
        let mut all = parse(text).unwrap();
        assert_eq!(all.len(), 1, "{text}");
        all.remove(0).value
    }

    #[test]
    fn scalars_mean_what_they_mean_to_kubectl() {
        for (text, expected) in [
            ("yes", json!(true)),
            ("Off", json!(false)),
            ("\"yes\"", json!("yes")),
            ("5663:12", json!("5663:12")),
            ("64512:100", json!("64512:100")),
            ("1:30", json!("1:30")),
            ("1.10", json!(1.1)),
            ("\"1.10\"", json!("1.10")),
            ("0777", json!(511)),
            ("0x1f", json!(31)),
            ("4294967295", json!(4294967295u32)),
            ("1.2.3.4", json!("1.2.3.4")),
            ("2001:db8::1", json!("2001:db8::1")),
            ("2024-01-01", json!("2024-01-01")),
            ("~", json!(null)),
            ("1e3", json!(1000.0)),
            ("192.0.2.1/24", json!("192.0.2.1/24")),
        ] {
            assert_eq!(value(&format!("x: {text}")), json!({ "x": expected }), "{text}");
        }
    }

    #[test]
    fn fields_have_places() {
        let mut all = parse("# comment\nkind: BGPPeer\nspec:\n  filters: [a,\n    b]\n---\nkind: Node\n").unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].places.get("spec.filters[1]"), Some(&(5, 5)));
        assert_eq!(all[0].places.get("kind"), Some(&(2, 7)));
        assert_eq!(all[0].places.get(""), Some(&(2, 1)));
        assert_eq!(all.remove(1).places.get("kind"), Some(&(7, 7)));
    }

    #[test]
    fn json_is_yaml() {
        assert_eq!(
            value("{\"kind\": \"Node\", \"spec\": {\"a\": [1, true, null]}}"),
            json!({"kind": "Node", "spec": {"a": [1, true, null]}})
        );
        assert_eq!(value("{\n\t\"kind\": \"Node\"\n}"), json!({"kind": "Node"}));
    }

    #[test]
    fn errors_have_a_place() {
        let error = parse("kind: Node\nspec:\n  a: [1, 2\nb: c: d\n").unwrap_err();
        assert!(error.line >= 3, "{error:?}");
        assert!(!error.what.contains('\n'), "{error:?}");
    }

    #[test]
    fn twenty_thousand_documents_are_not_too_many() {
        assert_eq!(parse(&"kind: Node\n---\n".repeat(20_000)).unwrap().len(), 20_000);
    }

    #[test]
    fn deep_nesting_is_an_error_not_a_crash() {
        assert!(parse(&"[".repeat(100_000)).is_err());
        assert!(parse(&format!("{}{}", "[".repeat(10_000), "]".repeat(10_000))).is_err());
    }
}
