//! The messages of etcd's v3 API that are used here, by their numbers in `rpc.proto`, `kv.proto`. Written down rather than
//! generated, so that building margay needs no `protoc`; fields that are not used are left out, as protobuf allows.

use prost::{Message, Oneof};

/// `etcdserverpb.ResponseHeader`.
#[derive(Clone, PartialEq, Message)]
pub struct ResponseHeader {
    /// Which cluster answered.
    #[prost(uint64, tag = "1")]
    pub cluster_id: u64,
    /// Revision of the store at the time.
    #[prost(int64, tag = "3")]
    pub revision: i64,
}

/// `mvccpb.KeyValue`.
#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    /// The key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// Revision of the last change: Calico's resourceVersion.
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    /// The value.
    #[prost(bytes = "vec", tag = "5")]
    pub value: Vec<u8>,
}

/// `mvccpb.Event`.
#[derive(Clone, PartialEq, Message)]
pub struct Event {
    /// 0 put, 1 delete.
    #[prost(int32, tag = "1")]
    pub kind: i32,
    /// What changed.
    #[prost(message, optional, tag = "2")]
    pub kv: Option<KeyValue>,
}

/// `etcdserverpb.RangeRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct RangeRequest {
    /// First key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// First key after the range; empty for `key` alone.
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    /// Keys in one answer at most.
    #[prost(int64, tag = "3")]
    pub limit: i64,
    /// As of this revision; 0 for now.
    #[prost(int64, tag = "4")]
    pub revision: i64,
    /// Leave out the values.
    #[prost(bool, tag = "8")]
    pub keys_only: bool,
}

/// `etcdserverpb.RangeResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct RangeResponse {
    /// Header.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// Keys and values, by key.
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<KeyValue>,
    /// There are more in the range.
    #[prost(bool, tag = "3")]
    pub more: bool,
}

/// `etcdserverpb.WatchRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct WatchRequest {
    /// What is asked.
    #[prost(oneof = "WatchUnion", tags = "1")]
    pub request: Option<WatchUnion>,
}

/// The kinds of it.
#[derive(Clone, PartialEq, Oneof)]
pub enum WatchUnion {
    /// Watch a range.
    #[prost(message, tag = "1")]
    Create(WatchCreateRequest),
}

/// `etcdserverpb.WatchCreateRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct WatchCreateRequest {
    /// First key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// First key after the range.
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    /// First revision that is news.
    #[prost(int64, tag = "3")]
    pub start_revision: i64,
    /// Say from time to time how far the watch has come, though nothing changes.
    #[prost(bool, tag = "4")]
    pub progress_notify: bool,
    /// Our number for this watch.
    #[prost(int64, tag = "7")]
    pub watch_id: i64,
    /// Large answers may come in pieces.
    #[prost(bool, tag = "8")]
    pub fragment: bool,
}

/// `etcdserverpb.WatchResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct WatchResponse {
    /// Header.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// Which watch.
    #[prost(int64, tag = "2")]
    pub watch_id: i64,
    /// It begins.
    #[prost(bool, tag = "3")]
    pub created: bool,
    /// It has ended, or has been refused.
    #[prost(bool, tag = "4")]
    pub canceled: bool,
    /// What was asked for is compacted up to here.
    #[prost(int64, tag = "5")]
    pub compact_revision: i64,
    /// Why it has ended.
    #[prost(string, tag = "6")]
    pub cancel_reason: String,
    /// The rest of this revision comes in further answers.
    #[prost(bool, tag = "7")]
    pub fragment: bool,
    /// What happened.
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<Event>,
}

/// `etcdserverpb.AuthenticateRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct AuthenticateRequest {
    /// User.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Password.
    #[prost(string, tag = "2")]
    pub password: String,
}

/// `etcdserverpb.AuthenticateResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct AuthenticateResponse {
    /// To be sent with every request.
    #[prost(string, tag = "2")]
    pub token: String,
}

/// `etcdserverpb.Compare`: the key's mod revision is equal to this.
#[derive(Clone, PartialEq, Message)]
pub struct Compare {
    /// 0: equal.
    #[prost(int32, tag = "1")]
    pub result: i32,
    /// 2: mod revision.
    #[prost(int32, tag = "2")]
    pub target: i32,
    /// The key.
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    /// With what.
    #[prost(oneof = "CompareWith", tags = "6")]
    pub with: Option<CompareWith>,
}

/// The kinds of it.
#[derive(Clone, PartialEq, Oneof)]
pub enum CompareWith {
    /// This mod revision; 0 if there is no such key.
    #[prost(int64, tag = "6")]
    ModRevision(i64),
}

/// `etcdserverpb.PutRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct PutRequest {
    /// The key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// Its new value.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// `etcdserverpb.RequestOp`.
#[derive(Clone, PartialEq, Message)]
pub struct RequestOp {
    /// What to do.
    #[prost(oneof = "Operation", tags = "2")]
    pub request: Option<Operation>,
}

/// The kinds of it.
#[derive(Clone, PartialEq, Oneof)]
pub enum Operation {
    /// Put.
    #[prost(message, tag = "2")]
    Put(PutRequest),
}

/// `etcdserverpb.TxnRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct TxnRequest {
    /// If all of these hold, …
    #[prost(message, repeated, tag = "1")]
    pub compare: Vec<Compare>,
    /// … do this.
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<RequestOp>,
}

/// `etcdserverpb.TxnResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct TxnResponse {
    /// Header.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// All of it held.
    #[prost(bool, tag = "2")]
    pub succeeded: bool,
}
