//! Who asks on the control socket, and whether it may give orders.
//!
//! The mode of the socket lets its owner and group look. Orders, which are everything but GET, are taken from the owner of the socket (the
//! user that the daemon runs as) and from root alone, by the credentials that the kernel has noted (SO_PEERCRED).

use axum::extract::Request;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use tokio::net::UnixListener;

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// Its user; none where the system does not say.
    uid: Option<u32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Asker {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self { uid: stream.io().peer_cred().ok().map(|credentials| credentials.uid()) }
    }
}

impl Asker {
    fn may_order(self, owner: u32) -> bool {
        self.uid.is_some_and(|uid| uid == 0 || uid == owner)
    }
}

/// Lets reading through, and orders of those who may give them.
pub async fn guard(owner: u32, ConnectInfo(asker): ConnectInfo<Asker>, request: Request, next: Next) -> Response {
    if request.method() == Method::GET || asker.may_order(owner) {
        return next.run(request).await;
    }
    let who = asker.uid.map_or_else(|| "somebody unknown".to_owned(), |uid| format!("uid {uid}"));
    let words = format!("orders are taken from root and from the daemon's own user (uid {owner}), and this is {who}: use sudo\n");
    (StatusCode::FORBIDDEN, words).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_give_orders() {
        let rows = [(Some(0), 1000, true), (Some(1000), 1000, true), (Some(1001), 1000, false), (Some(1000), 0, false), (None, 0, false)];
        for (uid, owner, may) in rows {
            assert_eq!(Asker { uid }.may_order(owner), may, "{uid:?} of {owner}");
        }
    }
}
