//! `secretKeyRef`: where a password is.

use super::Fields;
use crate::calico::Report;

/// A key of a Secret in the speaker's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretKey {
    /// Name of the Secret; empty where the reference is broken, which no Secret can answer.
    pub name: String,
    /// Key in it.
    pub key: String,
    /// `optional`: without it the session runs unprotected.
    pub optional: bool,
}

impl SecretKey {
    /// Reads `{secretKeyRef: {name, key, optional}}`. A broken reference still asks for a password, so that no session
    /// runs without one by mistake.
    pub fn decode(fields: &mut Fields<'_>, report: &mut Report<'_>, field: &str) -> Option<Self> {
        fields.raw(field)?;
        let mut key = Self::default();
        if let Some(mut password) = fields.object(report, field) {
            if let Some(mut reference) = password.object(report, "secretKeyRef") {
                key.name = reference.text(report, "name").unwrap_or_default();
                key.key = reference.text(report, "key").unwrap_or_default();
                key.optional = reference.flag(report, "optional");
                reference.finish(report, &[]);
            }
            password.finish(report, &[]);
        }
        if key.name.is_empty() || key.key.is_empty() {
            report.error(&fields.path(field), "must name a Secret and a key in it (secretKeyRef)", "");
        }
        Some(key)
    }
}

impl std::fmt::Display for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "key `{}` of Secret `{}`", self.key, self.name)
    }
}
