//! Reading an object field by field: each bad field is named with its place, and so is each unknown one.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Text, duration};
use crate::calico::{Document, Report};

/// One object of a document (`spec`, `spec.bgp`, …) while it is read.
#[derive(Debug)]
pub struct Fields<'a> {
    path: String,
    object: Option<&'a Map<String, Value>>,
    seen: BTreeSet<&'a str>,
}

impl<'a> Fields<'a> {
    /// A top-level object of a document; empty where there is none.
    pub fn of(document: &'a Document, field: &str) -> Self {
        Self::new(field.to_owned(), document.object.get(field))
    }

    /// An object that stands at `path`.
    pub fn new(path: String, value: Option<&'a Value>) -> Self {
        Self { path, object: value.and_then(Value::as_object), seen: BTreeSet::new() }
    }

    /// Reports a document whose `spec` (say) is there but is no object.
    pub fn require_object(report: &mut Report<'_>, document: &Document, field: &str) {
        if document.object.get(field).is_some_and(|value| !value.is_null() && !value.is_object()) {
            report.error(field, "is no object", "");
        }
    }

    /// The path of a field, for reports.
    pub fn path(&self, field: &str) -> String {
        if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) }
    }

    /// The raw value; null counts as absent.
    pub fn raw(&mut self, field: &str) -> Option<&'a Value> {
        let (key, value) = self.object?.get_key_value(field)?;
        self.seen.insert(key);
        Some(value).filter(|value| !value.is_null())
    }

    /// The value as `T`; what cannot be read is an error of the resource.
    pub fn get<T: DeserializeOwned>(&mut self, report: &mut Report<'_>, field: &str) -> Option<T> {
        let value = self.raw(field)?;
        match T::deserialize(value) {
            Ok(value) => Some(value),
            Err(error) => {
                report.error(&self.path(field), error.to_string(), "");
                None
            }
        }
    }

    /// The same where the value may be a secret: it is not quoted, neither in problems nor in the log.
    pub fn unquoted<T: DeserializeOwned>(&mut self, report: &mut Report<'_>, field: &str, expected: &str) -> Option<T> {
        let value = T::deserialize(self.raw(field)?).ok();
        if value.is_none() {
            report.error(&self.path(field), format!("is not {expected}"), "");
        }
        value
    }

    /// Text; empty counts as absent.
    pub fn text(&mut self, report: &mut Report<'_>, field: &str) -> Option<String> {
        self.get::<Text>(report, field).map(|text| text.0).filter(|text| !text.is_empty())
    }

    /// A boolean. Quoted `"true"` and `"false"` are understood and named.
    pub fn switch(&mut self, report: &mut Report<'_>, field: &str) -> Option<bool> {
        if let Some(Value::String(text)) = self.raw(field)
            && let Ok(value) = text.parse::<bool>()
        {
            report.info(&self.path(field), "is text, not a boolean", format!("read as {value}; take the quotes off"));
            return Some(value);
        }
        self.get(report, field)
    }

    /// A boolean; absent is false.
    pub fn flag(&mut self, report: &mut Report<'_>, field: &str) -> bool {
        self.switch(report, field).unwrap_or(false)
    }

    /// A whole number between 0 and `most`; 0 counts as absent.
    pub fn number(&mut self, report: &mut Report<'_>, field: &str, most: u32) -> Option<u32> {
        let value = self.raw(field)?;
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|number| *number <= most);
        if number.is_none() {
            report.error(&self.path(field), format!("{value} is not a whole number from 0 to {most}"), "");
        }
        number.filter(|number| *number != 0)
    }

    /// Says so where a number is 0 that means something only otherwise; such a 0 counts as absent.
    pub fn note_zero(&self, report: &mut Report<'_>, field: &str) {
        if self.object.and_then(|object| object.get(field)).is_some_and(|value| *value == serde_json::json!(0)) {
            report.info(&self.path(field), "0 stands for no value", "read as if the field were not there");
        }
    }

    /// One of a few words; another word is an error of the resource.
    pub fn word<T: Copy>(&mut self, report: &mut Report<'_>, field: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(report, field)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let allowed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            report.error(&self.path(field), format!("`{text}` is none of {}", allowed.join(", ")), "");
        }
        found
    }

    /// A Go duration in whole seconds, rounded half up.
    pub fn seconds(&mut self, report: &mut Report<'_>, field: &str) -> Option<u64> {
        let text = self.text(report, field)?;
        let parsed = duration(&text).map(|d| d.as_secs() + u64::from(d.subsec_millis() >= 500));
        if parsed.is_none() {
            report.error(&self.path(field), format!("`{text}` is no duration (such as 90s or 2m0s)"), "");
        }
        parsed
    }

    /// An address.
    pub fn address(&mut self, report: &mut Report<'_>, field: &str) -> Option<IpAddr> {
        let text = self.text(report, field)?;
        let parsed = text.parse::<IpAddr>().map(|address| address.to_canonical());
        if parsed.is_err() {
            report.error(&self.path(field), format!("`{text}` is no IP address"), "");
        }
        parsed.ok()
    }

    /// An object inside this one.
    pub fn object(&mut self, report: &mut Report<'_>, field: &str) -> Option<Fields<'a>> {
        let path = self.path(field);
        let value = self.raw(field)?;
        if !value.is_object() {
            report.error(&path, "is no object", "");
            return None;
        }
        Some(Fields::new(path, Some(value)))
    }

    /// The items of a list with their paths.
    pub fn items(&mut self, report: &mut Report<'_>, field: &str) -> Vec<(String, &'a Value)> {
        let path = self.path(field);
        match self.raw(field) {
            None => Vec::new(),
            Some(Value::Array(items)) => items.iter().enumerate().map(|(index, item)| (format!("{path}[{index}]"), item)).collect(),
            Some(_) => {
                report.error(&path, "is no list", "");
                Vec::new()
            }
        }
    }

    /// Names every field that was not asked for and is not among `others` (fields that are other components' business).
    pub fn finish(self, report: &mut Report<'_>, others: &[&str]) {
        for field in self.object.into_iter().flat_map(Map::keys) {
            if !self.seen.contains(field.as_str()) && !others.contains(&field.as_str()) {
                report.info(&self.path(field), "margay does not know this field", "ignored, as Calico ignores it");
            }
        }
    }
}
