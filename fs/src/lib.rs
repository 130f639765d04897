//! Skeleton.

pub mod path;
