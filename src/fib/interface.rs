//! The interfaces that the kernel has, by index and by name.

use std::collections::{BTreeMap, BTreeSet};

use super::Link;
use crate::types::Sync;

/// Links as told by the kernel.
#[derive(Clone, Debug, Default)]
pub(super) struct Interfaces {
    links: BTreeMap<u32, Link>,
    /// Those not yet named since `Begin`.
    unnamed: BTreeSet<u32>,
}

impl Interfaces {
    /// Index of the interface of that name.
    pub(super) fn index_of(&self, name: &str) -> Option<u32> {
        self.links.iter().find(|(_, link)| &*link.name == name).map(|(index, _)| *index)
    }

    /// Its name, or its number where it has gone.
    pub(super) fn name(&self, index: u32) -> String {
        self.links.get(&index).map_or_else(|| format!("interface {index}"), |link| link.name.to_string())
    }

    /// The link exists and is up.
    pub(super) fn is_up(&self, index: u32) -> bool {
        self.links.get(&index).is_some_and(|link| link.up)
    }

    /// The interface that the word takes down or away, if it was up.
    pub(super) fn falls(&self, word: &Sync<u32, Link>) -> Option<u32> {
        match word {
            Sync::Upsert(index, Link { up: false, .. }) | Sync::Remove(index) => Some(*index).filter(|index| self.is_up(*index)),
            // What is no longer there when all are told: objects and routes are told anew with them.
            Sync::Upsert(..) | Sync::Begin | Sync::End => None,
        }
    }

    /// Takes in one word; the names that now mean another index, or none.
    pub(super) fn hear(&mut self, word: Sync<u32, Link>) -> Vec<String> {
        match word {
            Sync::Begin => {
                self.unnamed = self.links.keys().copied().collect();
                Vec::new()
            }
            Sync::Upsert(index, link) => {
                self.unnamed.remove(&index);
                let name = link.name.to_string();
                match self.links.insert(index, link) {
                    Some(before) if *before.name == name => Vec::new(),
                    Some(before) => vec![before.name.to_string(), name],
                    None => vec![name],
                }
            }
            Sync::Remove(index) => self.remove(index).into_iter().collect(),
            Sync::End => std::mem::take(&mut self.unnamed).into_iter().filter_map(|index| self.remove(index)).collect(),
        }
    }

    fn remove(&mut self, index: u32) -> Option<String> {
        self.unnamed.remove(&index);
        self.links.remove(&index).map(|link| link.name.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upsert(index: u32, name: &str) -> Sync<u32, Link> {
        Sync::Upsert(index, Link { name: name.into(), up: true })
    }

    #[test]
    fn tells_which_names_moved() {
        let mut interfaces = Interfaces::default();
        assert_eq!(interfaces.hear(upsert(2, "eth0")), ["eth0"]);
        assert_eq!(interfaces.hear(upsert(2, "eth0")), [""; 0]);
        assert_eq!(interfaces.hear(upsert(2, "uplink")), ["eth0", "uplink"]);
        assert_eq!(interfaces.hear(upsert(3, "tunl0")), ["tunl0"]);
        assert_eq!(interfaces.hear(Sync::Begin), [""; 0]);
        assert_eq!(interfaces.hear(upsert(2, "uplink")), [""; 0]);
        assert_eq!(interfaces.hear(Sync::End), ["tunl0"]);
        assert_eq!((interfaces.index_of("uplink"), interfaces.index_of("tunl0")), (Some(2), None));
    }
}
