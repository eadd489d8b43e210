//! The laws of the ports, to be run on every adapter.

pub mod blobs;
pub mod db;
pub mod hostile;
pub mod queue;
pub mod samples;
pub mod sandbox;
