//! How attempts are to be isolated, as users choose it.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The level of isolation, as users choose it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxChoice {
    /// A container of its own for each attempt.
    #[default]
    Container,
    /// Namespaces of its own in one container per job.
    Nested,
    /// Forked from prepared interpreters; what fails is looked at again in containers.
    Forked,
    /// Forked, and what fails is believed.
    ForkedOnly,
    /// Namespaces of its own on the machine.
    Host,
    /// No isolation.
    Process,
    /// The cheapest that is sound: forked where that is possible, with some attempts in containers
    /// from the start, and what fails looked at again there.
    Auto,
}

impl SandboxChoice {
    /// All choices, in the order help texts list them.
    pub const ALL: [SandboxChoice; 7] = [
        SandboxChoice::Container,
        SandboxChoice::Nested,
        SandboxChoice::Forked,
        SandboxChoice::ForkedOnly,
        SandboxChoice::Host,
        SandboxChoice::Process,
        SandboxChoice::Auto,
    ];

    /// The stable word used on the command line and in reports.
    pub fn word(self) -> &'static str {
        match self {
            SandboxChoice::Container => "container",
            SandboxChoice::Nested => "nested",
            SandboxChoice::Forked => "forked",
            SandboxChoice::ForkedOnly => "forked-only",
            SandboxChoice::Host => "host",
            SandboxChoice::Process => "process",
            SandboxChoice::Auto => "auto",
        }
    }

    /// Whether a failure that was seen only where attempts are forked proves nothing yet.
    pub fn confirms(self) -> bool {
        match self {
            SandboxChoice::Forked | SandboxChoice::Auto => true,
            SandboxChoice::Container
            | SandboxChoice::Nested
            | SandboxChoice::ForkedOnly
            | SandboxChoice::Host
            | SandboxChoice::Process => false,
        }
    }
}

impl fmt::Display for SandboxChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Not a choice of isolation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a sandbox: choose `container`, `nested`, `forked`, `forked-only`, `host`, `process` or `auto`"
)]
pub struct UnknownSandbox(pub String);

impl FromStr for SandboxChoice {
    type Err = UnknownSandbox;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = SandboxChoice::ALL.into_iter().find(|choice| choice.word() == text);
        found.ok_or_else(|| UnknownSandbox(text.to_owned()))
    }
}
