//! Secret: TCP-MD5 keys.

use std::collections::BTreeMap;
use std::fmt;

use super::{Fields, Text};
use crate::calico::{Document, Report};
use crate::config::Password;

/// A core Kubernetes Secret: the keys of `data` (base64) and `stringData` (as written, which wins).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret {
    /// The values by key; a value whose base64 is broken is not there.
    pub data: BTreeMap<String, Password>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.data.keys()).finish()
    }
}

impl Secret {
    /// Reads the document. A value that is no base64 is reported and left out: who needs it waits.
    pub fn decode(document: &Document, report: &mut Report<'_>) -> Self {
        let mut root = Fields::new(String::new(), Some(&document.object));
        let mut secret = Self::default();
        let encoded: BTreeMap<String, Option<Text>> = root.unquoted(report, "data", "a map of texts").unwrap_or_default();
        for (key, value) in encoded {
            let text = value.unwrap_or_default().0;
            match base64(&text) {
                Some(bytes) => drop(secret.data.insert(key, Password(bytes.into()))),
                None => report.warning(&format!("data.{key}"), "is no base64", "the key counts as missing; use stringData for plain text"),
            }
        }
        let plain: BTreeMap<String, Option<Text>> = root.unquoted(report, "stringData", "a map of texts").unwrap_or_default();
        for (key, value) in plain {
            secret.data.insert(key, Password(value.unwrap_or_default().0.into_bytes().into()));
        }
        secret
    }
}

/// Standard base64 (RFC 4648 section 4), padded; blanks and line ends are skipped.
fn base64(text: &str) -> Option<Vec<u8>> {
    let sextet = |c: u8| match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'a'..=b'z' => Some(c - b'a' + 26),
        b'0'..=b'9' => Some(c - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let bytes: Vec<u8> = text.bytes().filter(|c| !c.is_ascii_whitespace()).collect();
    if !bytes.len().is_multiple_of(4) {
        return None;
    }
    let padding = bytes.iter().rev().take_while(|c| **c == b'=').count();
    if padding > 2 {
        return None;
    }
    let mut decoded = Vec::with_capacity(bytes.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0);
    for c in &bytes[..bytes.len() - padding] {
        bits = bits << 6 | u32::from(sextet(*c)?);
        held += 6;
        if held >= 8 {
            held -= 8;
            decoded.push((bits >> held) as u8);
        }
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_base64() {
        for (text, plain) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9v\nYmFy", "foobar"), ("+/+/", "\u{0}")] {
            let decoded = base64(text).unwrap();
            if plain != "\u{0}" {
                assert_eq!(decoded, plain.as_bytes(), "{text}");
            } else {
                assert_eq!(decoded, [0xfb, 0xff, 0xbf]);
            }
        }
        for bad in ["Zg", "Zg=", "====", "Z g!", "Zm9v="] {
            assert_eq!(base64(bad), None, "{bad}");
        }
    }
}
