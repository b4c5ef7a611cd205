//! What a list of files and folders holds now, and what it held last where it cannot be read.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::document::{Contents, read};
use crate::calico::{Document, Input, Location, Problem, ResourceKey, Severity};
use crate::types::Sync;

/// Files and folders, and what is known of them.
#[derive(Debug)]
pub(super) struct Files {
    paths: Vec<PathBuf>,
    remembered: BTreeMap<PathBuf, Remembered>,
    told: Option<State>,
}

/// One file, as last read.
#[derive(Debug, Default)]
struct Remembered {
    /// Digest of the text that was last looked at.
    digest: Vec<u8>,
    /// The last content that could be read.
    contents: Contents,
    /// What is wrong with the text now.
    problem: Option<Problem>,
}

/// All of it, each resource once.
#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    resources: BTreeMap<ResourceKey, Document>,
    problems: Vec<Problem>,
}

impl Files {
    /// Nothing is known yet.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, remembered: BTreeMap::new(), told: None }
    }

    /// The files and folders.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// The next reading tells everything, changed or not.
    pub fn forget(&mut self) {
        self.told = None;
    }

    /// Reads everything anew; none if nothing has changed since the last time.
    pub fn read(&mut self) -> Option<Vec<Input>> {
        let state = self.state();
        if self.told.as_ref() == Some(&state) {
            return None;
        }
        self.told = Some(state.clone());
        let mut inputs = vec![Input::SourceProblems(state.problems), Input::Resource(Sync::Begin)];
        inputs.extend(state.resources.into_iter().map(|(key, document)| Input::Resource(Sync::Upsert(key, document))));
        inputs.push(Input::Resource(Sync::End));
        Some(inputs)
    }

    fn state(&mut self) -> State {
        let mut state = State::default();
        let mut present: Vec<PathBuf> = Vec::new();
        for path in self.paths.clone() {
            match list(&path) {
                Ok(files) => {
                    if files.is_empty() {
                        state.problems.push(empty_folder(&path));
                    }
                    present.extend(files);
                }
                Err(error) => {
                    state.problems.push(missing(&path, &error));
                    if error.kind() != io::ErrorKind::NotFound {
                        present.extend(self.remembered.keys().filter(|file| file.starts_with(&path)).cloned());
                    }
                }
            }
        }
        self.remembered.retain(|file, _| present.contains(file));
        for (index, file) in present.iter().enumerate() {
            if !present[..index].contains(file) {
                let remembered = self.remembered.entry(file.clone()).or_default();
                remembered.refresh(file);
                state.add(remembered);
            }
        }
        state
    }
}

/// A file as it is sent elsewhere to be read there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileText {
    /// Its name, for problems.
    pub file: String,
    /// What it holds.
    pub text: String,
}

/// The texts of files and folders, each file once.
///
/// # Errors
/// What cannot be read, and why.
pub fn texts(paths: &[PathBuf]) -> io::Result<Vec<FileText>> {
    let named = |path: &Path, error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let mut texts: Vec<FileText> = Vec::new();
    for path in paths {
        for file in list(path).map_err(|error| named(path, error))? {
            let name = file.display().to_string();
            if !texts.iter().any(|other| other.file == name) {
                texts.push(FileText { text: std::fs::read_to_string(&file).map_err(|error| named(&file, error))?, file: name });
            }
        }
    }
    Ok(texts)
}

/// The resources of some texts, and what is wrong with the texts: what a folder of such files would tell at its start.
pub fn parse_texts(texts: &[FileText]) -> (Vec<(ResourceKey, Document)>, Vec<Problem>) {
    let mut state = State::default();
    for FileText { file, text } in texts {
        state.add(&Remembered::of(read(file, text)));
    }
    (state.resources.into_iter().collect(), state.problems)
}

impl Remembered {
    /// A file of which nothing else is known.
    fn of(found: Result<Contents, Box<Problem>>) -> Self {
        let mut remembered = Self::default();
        remembered.take(found);
        remembered
    }

    fn refresh(&mut self, file: &Path) {
        let name = file.display().to_string();
        let found = match std::fs::read(file) {
            Ok(bytes) => {
                let digest = Sha256::digest(&bytes).to_vec();
                if digest == self.digest {
                    return;
                }
                self.digest = digest;
                match String::from_utf8(bytes) {
                    Ok(text) => read(&name, &text),
                    Err(_) => Err(Box::new(whole_file(&name, "the file is no UTF-8 text".to_owned()))),
                }
            }
            Err(error) => {
                self.digest.clear();
                Err(Box::new(whole_file(&name, format!("the file cannot be read: {error}"))))
            }
        };
        self.take(found);
    }

    fn take(&mut self, found: Result<Contents, Box<Problem>>) {
        match found {
            Ok(contents) => (self.contents, self.problem) = (contents, None),
            Err(problem) => {
                let instead = if self.contents.resources.is_empty() {
                    "nothing of it is in force until it is mended"
                } else {
                    "what it last held stays in force"
                };
                self.problem = Some(Problem { instead: instead.to_owned(), ..*problem });
            }
        }
    }
}

impl State {
    /// Adds a file; a resource that is there already is left out with a problem.
    fn add(&mut self, file: &Remembered) {
        self.problems.extend(file.problem.clone());
        self.problems.extend(file.contents.problems.iter().cloned());
        for (key, document) in &file.contents.resources {
            match self.resources.entry(key.clone()) {
                Entry::Vacant(place) => drop(place.insert(document.clone())),
                Entry::Occupied(first) => {
                    let what = format!("{key} is given already at {}", first.get().location);
                    let general = Problem::general(Severity::Error, what, "the first one counts, this one is left out");
                    self.problems.push(Problem { resource: Some(key.clone()), location: document.location.clone(), ..general });
                }
            }
        }
    }
}

/// A folder's files in order of their names, or the file itself.
fn list(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        let hidden = file.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        let ours = file.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known));
        if ours && !hidden && !file.is_dir() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn whole_file(file: &str, what: String) -> Problem {
    let location = Location { file: file.to_owned(), line: 0, column: 0 };
    Problem { location, ..Problem::general(Severity::Error, what, "") }
}

fn empty_folder(path: &Path) -> Problem {
    let name = path.display().to_string();
    let what = "the resource folder has no file ending in .yaml, .yml or .json".to_owned();
    let instead = "put Calico v3 resources there (at least this node's Node), or name other places with --resources PATH";
    Problem { instead: instead.to_owned(), ..whole_file(&name, what) }
}

fn missing(path: &Path, error: &io::Error) -> Problem {
    let name = path.display().to_string();
    let instead = "create it and put Calico v3 resources there, or name other places with --resources PATH";
    let what = match error.kind() {
        io::ErrorKind::NotFound => "there is no such file or folder".to_owned(),
        _ => format!("the resources cannot be listed: {error}"),
    };
    Problem { instead: instead.to_owned(), ..whole_file(&name, what) }
}
