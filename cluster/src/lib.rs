//! One node of a revfs cluster.

pub mod grpc;
pub mod log;
