//! How well an attempt is isolated from all others.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How one attempt is isolated from all others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxLevel {
    /// A container of its own.
    #[default]
    Container,
    /// Namespaces and a root of its own within one container per job.
    Nested,
    /// As nested, forked from an interpreter that has collected the tests already.
    Forked,
    /// Namespaces and a root of its own on the host, without a container engine.
    Host,
    /// No isolation at all: for trials.
    Process,
}

impl SandboxLevel {
    /// All levels, the strictest first.
    pub const ALL: [SandboxLevel; 5] = [
        SandboxLevel::Container,
        SandboxLevel::Nested,
        SandboxLevel::Forked,
        SandboxLevel::Host,
        SandboxLevel::Process,
    ];

    /// The stable word used on the command line and in reports.
    pub fn word(self) -> &'static str {
        match self {
            SandboxLevel::Container => "container",
            SandboxLevel::Nested => "nested",
            SandboxLevel::Forked => "forked",
            SandboxLevel::Host => "host",
            SandboxLevel::Process => "process",
        }
    }
}

impl fmt::Display for SandboxLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Not a sandbox level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a sandbox level: choose `container`, `nested`, `forked`, `host` or `process`")]
pub struct UnknownLevel(pub String);

impl FromStr for SandboxLevel {
    type Err = UnknownLevel;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|level| level.word() == text).ok_or_else(|| UnknownLevel(text.to_owned()))
    }
}
