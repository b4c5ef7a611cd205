//! The server: HTTP on loopback over a [`Store`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::body::{Body, Bytes};
use axum::http::{Request, Response, header};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::Instant;

use super::store::{Selection, Store};

/// What the server does today.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// Watches may begin with initial events; without, they end as on a server whose etcd is too old.
    pub initial_events: bool,
    /// A server that does not know the parameters of initial events.
    pub ancient: bool,
    /// Plurals that may not be read.
    pub forbidden: BTreeSet<String>,
    /// Plurals that are not served.
    pub missing: BTreeSet<String>,
    /// API groups of Calico's that are served.
    pub groups: Vec<&'static str>,
    /// Watches are closed after this long.
    pub watches_last: Duration,
    /// A bookmark is sent when nothing else was for this long.
    pub bookmarks: Duration,
    /// Pages are no longer than this.
    pub page: usize,
    /// Lists by page expire after their first page.
    pub pages_expire: bool,
    /// Every request is refused with this code.
    pub failing: Option<u16>,
    /// Bodies to answer the first watch of a path with, in place of the store.
    pub recordings: BTreeMap<String, String>,
    /// Only this bearer is let in.
    pub token: Option<String>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            initial_events: true,
            ancient: false,
            forbidden: BTreeSet::new(),
            missing: BTreeSet::new(),
            groups: vec!["crd.projectcalico.org"],
            watches_last: Duration::from_secs(300),
            bookmarks: Duration::from_secs(60),
            page: 500,
            pages_expire: false,
            failing: None,
            recordings: BTreeMap::new(),
            token: None,
        }
    }
}

/// A request that was made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// `list`, `watch` or `patch`; `get` of what is no resource.
    pub verb: String,
    /// API group; empty for core.
    pub group: String,
    /// Plural name, with `/status` for the subresource; the path where it is no resource.
    pub resource: String,
    /// Namespace, where the request is about one.
    pub namespace: String,
    /// Name, where the request is about one object.
    pub name: String,
    /// Whether only metadata is wanted.
    pub metadata_only: bool,
    /// The whole query.
    pub query: BTreeMap<String, String>,
}

struct State {
    store: Mutex<Store>,
    behaviour: Mutex<Behaviour>,
    asked: Mutex<Vec<Asked>>,
    changed: watch::Sender<u64>,
}

/// A server. What it knows survives [`ApiServer::kill`].
pub struct ApiServer {
    state: Arc<State>,
    address: SocketAddr,
    runtime: Option<Runtime>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a test has panicked")
}

impl ApiServer {
    /// A server on a free port of loopback.
    ///
    /// # Errors
    /// The system's.
    pub fn start() -> Result<Self> {
        Self::start_with(Behaviour::default())
    }

    /// A server that behaves like this from the start.
    ///
    /// # Errors
    /// The system's.
    pub fn start_with(behaviour: Behaviour) -> Result<Self> {
        let state =
            State { store: Mutex::default(), behaviour: Mutex::new(behaviour), asked: Mutex::default(), changed: watch::channel(0).0 };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut server = Self { state: Arc::new(state), address, runtime: None };
        server.restart()?;
        Ok(server)
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends it: every connection is reset. It forgets nothing.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Starts it again, on the same port.
    ///
    /// # Errors
    /// The system's.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        crate::lab::process::wait_until(Duration::from_secs(10), "the port is free", || Ok(socket.bind(&self.address.into())?))?;
        socket.listen(1024)?;
        let listener: std::net::TcpListener = socket.into();
        self.address = listener.local_addr()?;
        let state = Arc::clone(&self.state);
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket of this runtime");
            let service = axum::Router::new().fallback(move |request: Request<Body>| answer(Arc::clone(&state), request));
            axum::serve(listener, service).await.expect("axum serves without end");
        });
        self.runtime = Some(runtime);
        Ok(())
    }

    /// Changes what it does from now on.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut lock(&self.state.behaviour));
    }

    /// Creates or replaces objects, each in its collection, at once.
    pub fn put(&self, objects: impl IntoIterator<Item = (String, Value)>) {
        let mut store = lock(&self.state.store);
        objects.into_iter().for_each(|(collection, object)| store.put(&collection, object));
        self.state.changed.send_replace(store.version());
    }

    /// As [`ApiServer::put`], and forgets the history before any open watch has sent of it.
    pub fn put_and_forget(&self, objects: impl IntoIterator<Item = (String, Value)>) {
        let mut store = lock(&self.state.store);
        objects.into_iter().for_each(|(collection, object)| store.put(&collection, object));
        store.compact();
        self.state.changed.send_replace(store.version());
    }

    /// Deletes an object.
    pub fn delete(&self, collection: &str, namespace: &str, name: &str) {
        let mut store = lock(&self.state.store);
        store.delete(collection, namespace, name);
        self.state.changed.send_replace(store.version());
    }

    /// Forgets the history.
    pub fn compact(&self) {
        lock(&self.state.store).compact();
    }

    /// An object of the cluster as it is now.
    pub fn get(&self, collection: &str, name: &str) -> Option<Value> {
        lock(&self.state.store).get(collection, name).cloned()
    }

    /// The requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.state.asked).clone()
    }

    /// Watches from a version of this plural so far.
    pub fn resumed(&self, plural: &str) -> usize {
        self.asked().iter().filter(|asked| asked.resource == plural && asked.query.contains_key("resourceVersion")).count()
    }

    /// Whole listings of this plural so far, first pages only.
    pub fn listed(&self, plural: &str) -> usize {
        let whole = |asked: &&Asked| {
            let query = &asked.query;
            asked.resource == plural
                && (query.contains_key("sendInitialEvents") || (asked.verb == "list" && !query.contains_key("continue")))
        };
        self.asked().iter().filter(whole).count()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A path of the API, taken apart.
struct Target {
    /// Without the namespace.
    collection: String,
    group: String,
    plural: String,
    namespace: Option<String>,
}

impl Target {
    fn read(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, base, rest) = match parts.as_slice() {
            ["api", "v1", rest @ ..] => ("", "/api/v1".to_owned(), rest),
            ["apis", group, version, rest @ ..] => (*group, format!("/apis/{group}/{version}"), rest),
            _ => return None,
        };
        let (namespace, plural) = match rest {
            [plural] => (None, plural),
            ["namespaces", namespace, plural] => (Some((*namespace).to_owned()), plural),
            _ => return None,
        };
        Some(Self { collection: format!("{base}/{plural}"), group: group.to_owned(), plural: (*plural).to_owned(), namespace })
    }
}

async fn answer(state: Arc<State>, request: Request<Body>) -> Response<Body> {
    let behaviour = lock(&state.behaviour).clone();
    if request.method() == axum::http::Method::PATCH {
        return patched(&state, &behaviour, request).await;
    }
    let query = query(request.uri().query().unwrap_or_default());
    let metadata_only =
        request.headers().get(header::ACCEPT).is_some_and(|value| value.to_str().unwrap_or_default().contains("PartialObjectMetadata"));
    let bearer = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let path = request.uri().path().to_owned();
    let target = Target::read(&path);
    let watches = query.get("watch").is_some_and(|value| value == "true");
    lock(&state.asked).push(asked(&path, target.as_ref(), watches, metadata_only, &query));
    if behaviour.token.is_some_and(|token| bearer != format!("Bearer {token}")) {
        return status(401, "Unauthorized", "Unauthorized");
    }
    if let Some(code) = behaviour.failing {
        return status(code, "InternalError", "the server is currently unable to handle the request");
    }
    if path == "/apis" {
        let groups: Vec<Value> = behaviour.groups.iter().map(|name| json!({ "name": name, "versions": [] })).collect();
        return whole(200, &json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups }));
    }
    let Some(target) = target else { return not_found() };
    let foreign = target.group.ends_with("projectcalico.org") && !behaviour.groups.contains(&target.group.as_str());
    if foreign || behaviour.missing.contains(&target.plural) {
        return not_found();
    }
    if behaviour.forbidden.contains(&target.plural) {
        let verb = if watches { "watch" } else { "list" };
        let text = format!(
            "{} is forbidden: User \"margay\" cannot {verb} resource \"{}\" in API group \"{}\" at the cluster scope",
            target.plural, target.plural, target.group
        );
        return status(403, "Forbidden", &text);
    }
    let selection = match Selection::read(target.namespace.as_deref(), &query) {
        Ok(selection) => selection,
        Err(what) => return status(400, "BadRequest", &what),
    };
    if watches {
        watched(&state, target, selection, &query, metadata_only)
    } else {
        list(&state, &target, &selection, &query, metadata_only)
    }
}

/// A merge patch of an object of the cluster, or of its status. As with Calico's definitions, only the newer group has the
/// subresource; there, a patch of the object leaves the status alone.
async fn patched(state: &State, behaviour: &Behaviour, request: Request<Body>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let (object, subresource) = path.strip_suffix("/status").map_or((path.as_str(), false), |object| (object, true));
    let Some((Some(target), name)) = object.rsplit_once('/').map(|(collection, name)| (Target::read(collection), name)) else {
        return not_found();
    };
    let resource = if subresource { format!("{}/status", target.plural) } else { target.plural.clone() };
    lock(&state.asked).push(Asked {
        verb: "patch".to_owned(),
        group: target.group.clone(),
        resource: resource.clone(),
        namespace: String::new(),
        name: name.to_owned(),
        metadata_only: false,
        query: BTreeMap::new(),
    });
    if !behaviour.groups.contains(&target.group.as_str()) {
        return not_found();
    }
    if behaviour.forbidden.contains(&resource) {
        let text = format!("{resource} \"{name}\" is forbidden: User \"margay\" cannot patch resource \"{resource}\"");
        return status(403, "Forbidden", &text);
    }
    let has_subresource = target.group == "projectcalico.org";
    // As the real one says it: in the words for a missing object.
    let missing = || status(404, "NotFound", &format!("{}.{} \"{name}\" not found", target.plural, target.group));
    if subresource && !has_subresource {
        return missing();
    }
    let body = axum::body::to_bytes(request.into_body(), 4 << 20).await.unwrap_or_default();
    let Ok(patch) = serde_json::from_slice::<Value>(&body) else { return status(400, "BadRequest", "no JSON") };
    let mut store = lock(&state.store);
    let Some(before) = store.get(&target.collection, name) else {
        return missing();
    };
    let mut after = before.clone();
    if subresource || !has_subresource {
        merge(&mut after["status"], &patch["status"]);
    }
    store.put(&target.collection, after.clone());
    state.changed.send_replace(store.version());
    whole(200, &after)
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            target.as_object_mut().map(|target| target.remove(name));
        } else {
            merge(&mut target[name], value);
        }
    }
}

fn asked(path: &str, target: Option<&Target>, watches: bool, metadata_only: bool, query: &BTreeMap<String, String>) -> Asked {
    let verb = match target {
        None => "get",
        Some(_) if watches => "watch",
        Some(_) => "list",
    };
    let name = query.get("fieldSelector").and_then(|fields| fields.strip_prefix("metadata.name=")).unwrap_or_default();
    Asked {
        verb: verb.to_owned(),
        group: target.map(|target| target.group.clone()).unwrap_or_default(),
        resource: target.map_or(path.to_owned(), |target| target.plural.clone()),
        namespace: target.and_then(|target| target.namespace.clone()).unwrap_or_default(),
        name: name.to_owned(),
        metadata_only,
        query: query.clone(),
    }
}

fn list(state: &State, target: &Target, selection: &Selection, query: &BTreeMap<String, String>, metadata_only: bool) -> Response<Body> {
    let behaviour = lock(&state.behaviour).clone();
    let store = lock(&state.store);
    // All pages are of the first one's version, whatever has changed since.
    let continued = query.get("continue").map(|token| {
        let (place, version) = token.split_once('@').filter(|_| !behaviour.pages_expire)?;
        let version = version.parse().ok()?;
        Some((place.parse::<usize>().ok()?, version, store.list_at(version, &target.collection, selection)?))
    });
    let (start, version, all) = match continued {
        None => (0, store.version(), store.list(&target.collection, selection)),
        Some(Some(page)) => page,
        Some(None) => return status(410, "Expired", "The provided continue parameter is too old to display a consistent list result."),
    };
    let limit = query.get("limit").and_then(|limit| limit.parse().ok()).map_or(usize::MAX, |limit: usize| limit.min(behaviour.page));
    let items: Vec<Value> = all.iter().skip(start).take(limit).map(|object| shape(object, metadata_only)).collect();
    let end = start + items.len();
    let next = if end < all.len() { format!("{end}@{version}") } else { String::new() };
    whole(200, &json!({ "kind": "List", "metadata": { "resourceVersion": version.to_string(), "continue": next }, "items": items }))
}

fn watched(
    state: &Arc<State>,
    target: Target,
    selection: Selection,
    query: &BTreeMap<String, String>,
    metadata_only: bool,
) -> Response<Body> {
    let behaviour = lock(&state.behaviour).clone();
    let initial = query.get("sendInitialEvents").is_some_and(|value| value == "true");
    if initial && behaviour.ancient {
        let text = "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch";
        return status(422, "Invalid", text);
    }
    if let Some(recording) = lock(&state.behaviour).recordings.remove(&target.collection) {
        return lines(futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(recording))]));
    }
    if initial && !behaviour.initial_events {
        let text = "a watch stream was requested by the client but the required storage feature RequestWatchProgress is disabled";
        return error_event(500, "InternalError", text);
    }
    let store = lock(&state.store);
    let (version, first) = if initial {
        let added = store.list(&target.collection, &selection).into_iter().map(|object| json!({ "type": "ADDED", "object": object }));
        let mut first: Vec<Value> = added.collect();
        first.push(bookmark(store.version(), true));
        (store.version(), first)
    } else {
        let version = query.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
        if !store.remembers(version) {
            return lines(futures::stream::iter([Ok::<_, std::io::Error>(expired(version, store.version()))]));
        }
        (version, Vec::new())
    };
    drop(store);
    let seconds = query.get("timeoutSeconds").and_then(|seconds| seconds.parse().ok()).map_or(behaviour.watches_last, Duration::from_secs);
    let watcher = Watcher {
        changed: state.changed.subscribe(),
        state: Arc::clone(state),
        target,
        selection,
        metadata_only,
        version,
        first,
        bookmarks: behaviour.bookmarks,
        ends: Instant::now() + seconds.min(behaviour.watches_last),
        expired: false,
    };
    lines(futures::stream::unfold(watcher, Watcher::next))
}

/// One open watch.
struct Watcher {
    state: Arc<State>,
    changed: watch::Receiver<u64>,
    target: Target,
    selection: Selection,
    metadata_only: bool,
    version: u64,
    first: Vec<Value>,
    bookmarks: Duration,
    ends: Instant,
    /// It has said that it cannot go on.
    expired: bool,
}

impl Watcher {
    /// The next lines; none at the end of its time.
    async fn next(mut self) -> Option<(Result<Bytes, std::io::Error>, Self)> {
        while !self.expired {
            self.changed.borrow_and_update();
            let mut events = std::mem::take(&mut self.first);
            let (more, newest) = {
                let store = lock(&self.state.store);
                (store.since(self.version, &self.target.collection, &self.selection), store.version())
            };
            // A watch that is behind what is forgotten ends with an error: it never goes on as if nothing had been.
            let Some((more, version)) = more else {
                self.expired = true;
                let line = expired(self.version, newest);
                return Some((Ok(line), self));
            };
            self.version = version;
            events.extend(more);
            if !events.is_empty() {
                return Some((Ok(self.text(&events)), self));
            }
            tokio::select! {
                () = tokio::time::sleep_until(self.ends) => return None,
                () = tokio::time::sleep(self.bookmarks) => {
                    let line = self.text(&[bookmark(self.version, false)]);
                    return Some((Ok(line), self));
                }
                _ = self.changed.changed() => {}
            }
            if Instant::now() >= self.ends {
                return None;
            }
        }
        None
    }

    fn text(&self, events: &[Value]) -> Bytes {
        let lines = events.iter().map(|event| {
            let mut event = event.clone();
            event["object"] = shape(&event["object"], self.metadata_only);
            format!("{event}\n")
        });
        lines.collect::<String>().into()
    }
}

fn bookmark(version: u64, ends_initial_events: bool) -> Value {
    let mut metadata = json!({ "resourceVersion": version.to_string() });
    if ends_initial_events {
        metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
    }
    json!({ "type": "BOOKMARK", "object": { "metadata": metadata } })
}

/// The whole object, or its metadata.
fn shape(object: &Value, metadata_only: bool) -> Value {
    if !metadata_only {
        return object.clone();
    }
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"] })
}

fn query(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), unescaped(value))).collect()
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code =
            (*first == b'%').then(|| tail.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok())).flatten();
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn status_object(code: u16, reason: &str, message: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code })
}

fn status(code: u16, reason: &str, message: &str) -> Response<Body> {
    whole(code, &status_object(code, reason, message))
}

fn not_found() -> Response<Body> {
    let mut response = Response::new(Body::from("404 page not found\n"));
    *response.status_mut() = axum::http::StatusCode::NOT_FOUND;
    response
}

/// What a watch from a forgotten version gets.
fn expired(version: u64, newest: u64) -> Bytes {
    let status = status_object(410, "Expired", &format!("too old resource version: {version} ({newest})"));
    format!("{}\n", json!({ "type": "ERROR", "object": status })).into()
}

fn error_event(code: u16, reason: &str, message: &str) -> Response<Body> {
    let event = json!({ "type": "ERROR", "object": status_object(code, reason, message) });
    lines(futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(format!("{event}\n")))]))
}

fn whole(code: u16, body: &Value) -> Response<Body> {
    let response = Response::builder().status(code).header(header::CONTENT_TYPE, "application/json");
    response.body(Body::from(body.to_string())).context("a response").expect("a code and a body")
}

fn lines(stream: impl futures::Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static) -> Response<Body> {
    Response::builder().header(header::CONTENT_TYPE, "application/json;stream=watch").body(Body::from_stream(stream)).expect("a body")
}
