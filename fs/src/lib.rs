//! Skeleton.

pub mod attributes;
pub mod path;
