//! Events for the page: the last hour, and those that happen.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::StreamExt;
use futures::stream;
use tokio::sync::{Semaphore, watch};

use crate::control::events;
use crate::runtime::directory::Directory;

/// Seconds of the past that the page shows.
const HOUR: u64 = 3600;

/// What the handlers share.
#[derive(Clone)]
struct Press {
    /// Places for readers of news.
    readers: Arc<Semaphore>,
    directory: watch::Receiver<Arc<Directory>>,
}

/// `/page/hour` and `/page/news`.
pub fn router(readers: Arc<Semaphore>, directory: watch::Receiver<Arc<Directory>>) -> Router {
    Router::new().route("/page/hour", get(hour)).route("/page/news", get(news)).with_state(Press { readers, directory })
}

async fn hour(State(press): State<Press>) -> Response {
    let directory = Arc::clone(&press.directory.borrow());
    let lines = events::recent(&directory, HOUR).await;
    let lists = [&b"["[..], &lines.iter().map(|line| line.trim_ascii_end()).collect::<Vec<_>>().join(&b","[..]), b"]"].concat();
    ([(header::CONTENT_TYPE, "application/json")], lists).into_response()
}

/// An event a message; the stream ends with the connection, or when its reader falls behind.
async fn news(State(press): State<Press>) -> Response {
    let Ok(place) = Arc::clone(&press.readers).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many read the news already: `margay monitor` tells them too\n").into_response();
    };
    let directory = Arc::clone(&press.directory.borrow());
    // A first word, so that the browser knows that it is heard, and how soon to come again.
    let hello = stream::iter([Bytes::from_static(b"retry: 3000\n\n")]);
    let told = events::news(&directory).await.map(move |line| {
        let _place = &place;
        Bytes::from([&b"data: "[..], &line, b"\n"].concat())
    });
    let body = Body::from_stream(hello.chain(told).map(Ok::<_, Infallible>));
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}
