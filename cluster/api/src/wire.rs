//! Messages and services generated from `proto/`. They are used at the rim only: [`crate::convert`]
//! turns them into the plain types of [`crate::keyspace`], and nothing behind it sees them.
#![expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    clippy::uninlined_format_args,
    reason = "the code is generated"
)]

pub mod codec;

/// etcd's messages of keys, values and events.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
    include!(concat!(env!("OUT_DIR"), "/mvccpb.serde.rs"));
}

/// etcd's messages of users and roles.
pub mod authpb {
    tonic::include_proto!("authpb");
    include!(concat!(env!("OUT_DIR"), "/authpb.serde.rs"));
}

/// etcd's services.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
    include!(concat!(env!("OUT_DIR"), "/etcdserverpb.serde.rs"));
}

/// etcd's locks.
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
    include!(concat!(env!("OUT_DIR"), "/v3lockpb.serde.rs"));
}

/// etcd's elections.
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
    include!(concat!(env!("OUT_DIR"), "/v3electionpb.serde.rs"));
}

/// The services of revfs.
pub mod revfs {
    tonic::include_proto!("revfs.v1");
}

/// Between the members of a cluster.
pub mod peer {
    tonic::include_proto!("revfs.peer.v1");
}

/// All of `proto/`, for reflection and for other encodings.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Largest request of revfs.v1: a value of 16 MiB and room for its key, compares and side record.
pub const REQUEST_BYTES_MAX: usize = crate::keyspace::VALUE_BYTES_MAX + 1024 * 1024;

/// All messages of a transaction that comes in several: the values of the largest revision, and as much
/// for its keys.
pub const LARGE_TXN_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Largest answer of revfs.v1 that our client takes: twice what a transaction may change, so that a
/// range or the previous values of a bulk change fit. It bounds what a broken server can cost.
pub const RESPONSE_BYTES_MAX: usize = 512 * 1024 * 1024;
