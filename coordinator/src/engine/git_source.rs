//! Where sources come from that a git remote keeps.

use flakefarm_project::fetch::Remote;
use serde::{Deserialize, Serialize};

/// Where the sources of a schedule come from that a git remote keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitSource {
    /// What is fetched.
    pub remote: Remote,
    /// SHA-256 of the project's configuration file when the schedule was added, if it had one.
    #[serde(default)]
    pub configuration: Option<String>,
}
