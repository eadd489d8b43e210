//! What is tested: a project's configuration, what its source tree says about itself, and the tree
//! as a snapshot, as it is or as it was at a revision. Knows no containers, no SQL and no HTTP.

pub mod branch;
pub mod config;
pub mod fetch;
pub mod patch;
pub mod paths;
pub mod revisions;
pub mod settings;
pub mod snapshot;
pub mod untrusted;
