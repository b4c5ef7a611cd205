//! One connection to one member of etcd: sign in, range, watch, compare-and-put.

use std::time::Duration;

use anyhow::{Context, anyhow};
use futures::StreamExt;
use prost::Message;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::message::{
    AuthenticateRequest, AuthenticateResponse, Compare, CompareWith, Operation, PutRequest, RangeRequest, RangeResponse, RequestOp,
    TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest, WatchResponse, WatchUnion,
};
use super::settings::{Credentials, EtcdSettings};

/// A connection must be up by then, TLS and all.
const DIAL: Duration = Duration::from_secs(10);
/// An answer must have come by then.
const ANSWER: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Clone, Debug)]
pub struct Client {
    grpc: Grpc<Channel>,
    token: Option<MetadataValue<Ascii>>,
}

impl Client {
    /// Connects and signs in.
    ///
    /// # Errors
    /// Why that is not possible, in words.
    pub async fn connect(settings: &EtcdSettings, url: &str) -> anyhow::Result<Self> {
        let endpoint = settings.endpoint(url)?;
        let channel = timeout(DIAL, endpoint.connect()).await.map_err(|_| anyhow!("no connection within {} s", DIAL.as_secs()))?;
        let grpc = Grpc::new(channel.map_err(|error| anyhow!(causes(&error)))?).max_decoding_message_size(usize::MAX);
        let mut client = Self { grpc, token: None };
        if let Some(credentials) = &settings.credentials {
            client.sign_in(credentials).await?;
        }
        Ok(client)
    }

    async fn sign_in(&mut self, Credentials { user, password }: &Credentials) -> anyhow::Result<()> {
        let request = AuthenticateRequest { name: user.clone(), password: password.clone() };
        match self.unary::<_, AuthenticateResponse>("/etcdserverpb.Auth/Authenticate", request).await {
            Ok(answer) => self.token = Some(answer.token.parse().context("etcd's token")?),
            // As Calico's client: an etcd without users lets everybody in.
            Err(status) if status.code() == Code::FailedPrecondition && status.message().contains("not enabled") => {}
            Err(status) => return Err(anyhow!("ETCD_USERNAME `{user}` cannot sign in: {}", words(&status))),
        }
        Ok(())
    }

    /// A range of keys.
    ///
    /// # Errors
    /// etcd's.
    pub async fn range(&mut self, request: RangeRequest) -> anyhow::Result<RangeResponse> {
        self.unary("/etcdserverpb.KV/Range", request).await.map_err(|status| anyhow!(words(&status)))
    }

    /// Puts a value if the key's mod revision is still this one (0: if there is no such key); says whether it was.
    ///
    /// # Errors
    /// etcd's.
    pub async fn put_if(&mut self, key: &str, mod_revision: i64, value: Vec<u8>) -> anyhow::Result<bool> {
        let key = key.as_bytes().to_vec();
        let unchanged = Compare { result: 0, target: 2, key: key.clone(), with: Some(CompareWith::ModRevision(mod_revision)) };
        let put = RequestOp { request: Some(Operation::Put(PutRequest { key, value })) };
        let request = TxnRequest { compare: vec![unchanged], success: vec![put] };
        let answer: TxnResponse = self.unary("/etcdserverpb.KV/Txn", request).await.map_err(|status| anyhow!(words(&status)))?;
        Ok(answer.succeeded)
    }

    /// Watches ranges on one stream; a member that has lost its leader ends it.
    ///
    /// # Errors
    /// etcd's.
    pub async fn watch(&mut self, ranges: Vec<WatchCreateRequest>) -> anyhow::Result<Streaming<WatchResponse>> {
        let requests = ranges.into_iter().map(|range| WatchRequest { request: Some(WatchUnion::Create(range)) });
        // Our half of the stream stays open: its end would end the watches.
        let mut request = Request::new(futures::stream::iter(requests).chain(futures::stream::pending()));
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        self.add_token(&mut request);
        let call = async {
            self.grpc.ready().await.map_err(|error| Status::unavailable(causes(&error)))?;
            let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
            self.grpc.streaming(request, path, ProstCodec::<WatchRequest, WatchResponse>::default()).await
        };
        let answer = timeout(ANSWER, call).await.unwrap_or_else(|_| Err(late()));
        answer.map(tonic::Response::into_inner).map_err(|status| anyhow!(words(&status)))
    }

    async fn unary<Q, A>(&mut self, path: &'static str, message: Q) -> Result<A, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut request = Request::new(message);
        self.add_token(&mut request);
        let call = async {
            self.grpc.ready().await.map_err(|error| Status::unavailable(causes(&error)))?;
            self.grpc.unary(request, PathAndQuery::from_static(path), ProstCodec::<Q, A>::default()).await
        };
        timeout(ANSWER, call).await.unwrap_or_else(|_| Err(late())).map(tonic::Response::into_inner)
    }

    fn add_token<T>(&self, request: &mut Request<T>) {
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
    }
}

fn late() -> Status {
    Status::deadline_exceeded(format!("no answer within {} s", ANSWER.as_secs()))
}

/// What a refusal says; the transport's own words where it says little.
pub fn words(status: &Status) -> String {
    let message = status.message();
    match std::error::Error::source(status) {
        Some(source) => causes(source),
        None if message.is_empty() => status.code().to_string(),
        None => message.to_owned(),
    }
}

/// An error and its causes, outermost first, each said once.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut all: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !all.iter().any(|said| said.contains(&text)) {
            all.push(text);
        }
        next = error.source();
    }
    all.join(": ")
}
