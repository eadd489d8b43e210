//! Plans, publishes, collects, scores, remembers and answers. Sole owner of relational state.

pub mod calendar;
pub mod conditions;
pub mod control;
pub mod db;
pub mod diagnose;
pub mod digest;
pub mod engine;
pub mod events;
pub mod experiment;
pub mod garbage;
pub mod history;
pub mod http;
pub mod moving;
pub mod notify;
pub mod owners;
pub mod plan;
pub mod quarantine;
pub mod questions;
pub mod repairs;
pub mod report;
pub mod schedule;
pub mod score;
pub mod simulate;
pub mod stores;
pub mod validate;

pub use engine::{Coordinator, Submission};
