//! What loading a project gives, and what the command line adds to it.

use crate::settings::Settings;
use flakefarm_shared::ProjectSpec;
use std::path::PathBuf;

/// A project ready to be run.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedProject {
    /// How to run it.
    pub spec: ProjectSpec,
    /// What the user should know: unknown keys, things ignored.
    pub warnings: Vec<String>,
    /// Where it comes from.
    pub source: ProjectSource,
    /// All settings, those of sweeps and of the farm too, each with where it comes from.
    pub settings: Settings,
}

/// An option given on the command line, which goes before everything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenOption {
    /// The setting's key: `sweep.runs`.
    pub key: &'static str,
    /// The option as it is typed: `--runs`.
    pub option: &'static str,
    /// What was given.
    pub value: GivenValue,
}

/// What an option was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GivenValue {
    /// The value itself.
    Text(String),
    /// The file that holds it and nothing else.
    InFile(PathBuf),
}

/// Where a project's description comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProjectSource {
    /// From a file, completed by detection.
    Configured {
        /// The file.
        path: PathBuf,
    },
    /// From the source tree alone.
    Detected {
        /// What gave it away: `pytest settings in pyproject.toml`.
        why: String,
    },
}
