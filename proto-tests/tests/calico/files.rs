//! Watched files: what changes on disk is told, what cannot be read keeps its last content.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use margay::calico::{Input, Problem, Severity};
use margay::datastore::{Datastore, FileDatastore, Word, link, load};
use margay::types::Sync;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(20);

/// A running datastore, and what it told so far.
struct Watched {
    words: mpsc::Receiver<Word>,
    resources: BTreeMap<String, String>,
    problems: Vec<Problem>,
}

impl Watched {
    fn start(paths: &[&Path]) -> Self {
        let (link, words, _) = link(4);
        let datastore = Box::new(FileDatastore::new(paths.iter().map(|path| path.to_path_buf()).collect()));
        tokio::spawn(async move {
            datastore.run(link).await.unwrap();
        });
        Self { words, resources: BTreeMap::new(), problems: Vec::new() }
    }

    /// Waits until everything told so far is as wanted at an `End`.
    async fn until(&mut self, what: &str, wanted: impl Fn(&Self) -> bool) {
        let mut told = BTreeMap::new();
        let waiting = async {
            loop {
                let Word::Input(input) = self.words.recv().await.expect("the datastore ended") else { panic!("files are never away") };
                match input {
                    Input::SourceProblems(problems) => self.problems = problems,
                    Input::Resource(Sync::Begin) => told.clear(),
                    Input::Resource(Sync::Upsert(key, document)) => {
                        told.insert(key.to_string(), document.object["spec"].to_string());
                    }
                    Input::Resource(Sync::Remove(key)) => panic!("removed {key}"),
                    Input::Resource(Sync::End) => {
                        self.resources = std::mem::take(&mut told);
                        if wanted(self) {
                            return;
                        }
                    }
                }
            }
        };
        let in_time = timeout(DEADLINE, waiting).await.is_ok();
        assert!(in_time, "{what}: {:?} {:?}", self.resources, self.problems);
    }

    fn names(&self) -> Vec<&str> {
        self.resources.keys().map(String::as_str).collect()
    }

    fn has_problem(&self, part: &str) -> bool {
        self.problems.iter().any(|problem| problem.to_string().contains(part))
    }
}

fn node(name: &str, spec: &str) -> String {
    format!("kind: Node\nmetadata: {{name: {name}}}\nspec: {{bgp: {{asNumber: {spec}}}}}\n")
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, text)| std::fs::write(folder.path().join(name), text).unwrap());
    folder
}

#[tokio::test]
async fn changes_of_a_folder_are_told() {
    let folder = folder(&[("a.yaml", &node("a", "1"))]);
    let path = |name: &str| folder.path().join(name);
    let mut watched = Watched::start(&[folder.path()]);
    watched.until("the start", |told| told.names() == ["Node a"] && told.problems.is_empty()).await;
    std::fs::write(path("b.json"), "{\"kind\": \"Node\", \"metadata\": {\"name\": \"b\"}}").unwrap();
    watched.until("a new file", |told| told.names() == ["Node a", "Node b"]).await;
    std::fs::write(path("a.yaml"), node("a", "2")).unwrap();
    watched.until("a changed file", |told| told.resources["Node a"].contains('2')).await;
    std::fs::write(path("new.tmp"), node("a", "3")).unwrap();
    std::fs::rename(path("new.tmp"), path("a.yaml")).unwrap();
    watched.until("a file that is replaced", |told| told.resources["Node a"].contains('3')).await;
    std::fs::remove_file(path("b.json")).unwrap();
    watched.until("a file that goes", |told| told.names() == ["Node a"]).await;
    std::fs::remove_file(path("a.yaml")).unwrap();
    watched.until("an empty folder", |told| told.names().is_empty() && told.has_problem("the resource folder has no file ending in")).await;
}

#[tokio::test]
async fn a_file_that_does_not_parse_keeps_its_last_content() {
    let folder = folder(&[("a.yaml", &node("a", "1")), ("b.yaml", "kind: [")]);
    let file = folder.path().join("a.yaml");
    let mut watched = Watched::start(&[folder.path()]);
    let never_good = "b.yaml:1:8: error: the file cannot be read: ";
    watched.until("the start", |told| told.names() == ["Node a"] && told.has_problem("nothing of it is in force until it is mended")).await;
    assert!(
        watched.problems[0].location.line >= 1 && watched.problems[0].severity == Severity::Error,
        "{never_good} {:?}",
        watched.problems
    );
    std::fs::write(&file, "kind: Node\nmetadata: {name: a\nspec: }\n").unwrap();
    watched.until("a broken file", |told| told.names() == ["Node a"] && told.has_problem("what it last held stays in force")).await;
    let problem = watched.problems.iter().find(|problem| problem.location.file.ends_with("a.yaml")).unwrap();
    assert!(problem.location.line >= 2 && problem.location.column > 0, "{problem}");
    std::fs::write(&file, node("a", "2")).unwrap();
    watched.until("a mended file", |told| told.resources["Node a"].contains('2') && told.problems.len() == 1).await;
}

#[tokio::test]
async fn a_config_map_that_swaps_its_link_is_seen() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let version = |name: &str, asn: &str| {
        std::fs::create_dir(path(name)).unwrap();
        std::fs::write(path(name).join("a.yaml"), node("a", asn)).unwrap();
    };
    version("..1", "1");
    symlink("..1", path("..data")).unwrap();
    symlink("..data/a.yaml", path("a.yaml")).unwrap();
    let mut whole = Watched::start(&[folder.path()]);
    let mut single = Watched::start(&[&path("a.yaml")]);
    whole.until("the start", |told| told.names() == ["Node a"]).await;
    single.until("the start", |told| told.names() == ["Node a"]).await;
    version("..2", "2");
    symlink("..2", path("..data_tmp")).unwrap();
    std::fs::rename(path("..data_tmp"), path("..data")).unwrap();
    whole.until("the swap", |told| told.resources["Node a"].contains('2')).await;
    single.until("the swap", |told| told.resources["Node a"].contains('2')).await;
}

#[tokio::test]
async fn a_folder_that_comes_later_is_seen() {
    let outer = tempfile::tempdir().unwrap();
    let path = outer.path().join("x").join("resources");
    let mut watched = Watched::start(&[&path]);
    watched.until("the start", |told| told.has_problem("there is no such file or folder")).await;
    std::fs::create_dir_all(&path).unwrap();
    std::fs::write(path.join("a.yaml"), node("a", "1")).unwrap();
    watched.until("the folder", |told| told.names() == ["Node a"] && told.problems.is_empty()).await;
    std::fs::remove_dir_all(&path).unwrap();
    watched.until("its end", |told| told.names().is_empty()).await;
    std::fs::create_dir_all(&path).unwrap();
    std::fs::write(path.join("a.yaml"), node("a", "2")).unwrap();
    watched.until("its return", |told| told.names() == ["Node a"]).await;
    std::fs::write(path.join("a.yaml"), node("a", "3")).unwrap();
    watched.until("a change after its return", |told| told.resources["Node a"].contains('3')).await;
}

#[tokio::test]
async fn the_datastore_ends_when_nobody_listens() {
    let folder = folder(&[("a.yaml", &node("a", "1"))]);
    let (link, mut words, _) = link(4);
    let running = tokio::spawn(Box::new(FileDatastore::new(vec![folder.path().to_path_buf()])).run(link));
    words.recv().await.unwrap();
    drop(words);
    assert!(timeout(DEADLINE, running).await.expect("it goes on").unwrap().is_ok());
}

/// Resources in order, and problems without the folder.
fn loaded(folder: &TempDir, names: &[&str]) -> (Vec<String>, Vec<String>) {
    let paths: Vec<_> = names.iter().map(|name| folder.path().join(name)).collect();
    let (mut resources, mut problems) = (Vec::new(), Vec::new());
    for input in load(&paths) {
        match input {
            Input::Resource(Sync::Upsert(key, document)) => resources.push(format!("{key} at {}", document.location)),
            Input::Resource(_) => {}
            Input::SourceProblems(all) => problems.extend(all.iter().map(ToString::to_string)),
        }
    }
    let plain = |text: String| text.replace(&format!("{}/", folder.path().display()), "");
    (resources.into_iter().map(plain).collect(), problems.into_iter().map(plain).collect())
}

#[test]
fn documents_and_lists_have_their_lines() {
    let list = "kind: List\nitems:\n- kind: Node\n  metadata: {name: c}\n- kind: Node\n  metadata: {name: d}\n";
    let folder = folder(&[
        ("a.yaml", &format!("{}---\n{}---\n# nothing\n---\n", node("a", "1"), node("b", "1"))),
        ("l.yml", list),
        ("x.txt", "{"),
        (".h.yaml", "{"),
    ]);
    let (resources, problems) = loaded(&folder, &[""]);
    assert_eq!(resources, ["Node a at a.yaml:1:1", "Node b at a.yaml:5:1", "Node c at l.yml:3:3", "Node d at l.yml:5:3"]);
    assert_eq!(problems, [""; 0]);
}

#[test]
fn of_a_resource_in_two_files_the_first_counts() {
    let folder = folder(&[("b.yaml", &node("a", "2")), ("a.yaml", &node("a", "1")), ("c.yaml", "a: 1\n---\nkind: Node\n")]);
    let (resources, problems) = loaded(&folder, &["."]);
    assert_eq!(resources, ["Node a at ./a.yaml:1:1"]);
    assert_eq!(
        problems,
        [
            "./b.yaml:1:1: error: Node a: Node a is given already at ./a.yaml:1:1; the first one counts, this one is left out",
            "./c.yaml:1:1: error: the document has no kind; this document is left out",
            "./c.yaml:3:1: error: the Node has no metadata.name; this document is left out"
        ]
    );
    let (resources, _) = loaded(&folder, &["b.yaml", "a.yaml", "b.yaml"]);
    assert_eq!(resources, ["Node a at b.yaml:1:1"], "the order of paths comes first, and a path twice is once");
}

#[test]
fn files_that_are_not_there_or_no_text() {
    let folder = folder(&[]);
    std::fs::write(folder.path().join("a.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    let (_, problems) = loaded(&folder, &["a.yaml", "gone.yaml"]);
    assert_eq!(problems.len(), 2);
    assert!(
        problems.iter().any(|problem| problem.starts_with("gone.yaml: error: there is no such file or folder; create it")),
        "{problems:?}"
    );
    assert!(
        problems.iter().any(|problem| problem.starts_with("a.yaml: error: the file is no UTF-8 text; nothing of it is in force")),
        "{problems:?}"
    );
}
