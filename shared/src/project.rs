//! What is tested: the environment tests run in, and how to run them. This is the resolved form;
//! `flakefarm.toml` and detection (in the project crate) produce it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How to run a project's tests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectSpec {
    /// Its name in reports and history.
    pub name: String,
    /// The test framework.
    pub framework: Framework,
    /// What its tests run in.
    pub environment: EnvironmentSpec,
    /// Paths below the root in which tests are collected; empty: the framework's own default.
    pub test_paths: Vec<String>,
    /// Further arguments to the framework.
    pub arguments: Vec<String>,
    /// Environment variables of each attempt.
    pub variables: BTreeMap<String, String>,
    /// Limits of one attempt.
    pub limits: Limits,
}

impl ProjectSpec {
    /// A project whose image needs no set-up, with the usual limits, no arguments and no variables.
    pub fn of_image(name: &str, framework: Framework, image: &str) -> Self {
        Self {
            name: name.to_owned(),
            framework,
            environment: EnvironmentSpec {
                image: ImageSource::Reference(image.to_owned()),
                setup: Vec::new(),
                inputs: Vec::new(),
                extra_ca_certificates: None,
                setup_variables: BTreeMap::new(),
                python: "python3".to_owned(),
            },
            test_paths: Vec::new(),
            arguments: Vec::new(),
            variables: BTreeMap::new(),
            limits: Limits::default(),
        }
    }
}

/// A test framework.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Framework {
    /// pytest, which also runs unittest classes and doctests.
    Pytest,
    /// The runner of Python's standard library, `python -m unittest`.
    Unittest,
}

impl Framework {
    /// All of them, in the order help texts list them.
    pub const ALL: [Framework; 2] = [Framework::Pytest, Framework::Unittest];

    /// The stable word used on the command line, in configuration and in requests.
    pub fn word(self) -> &'static str {
        match self {
            Framework::Pytest => "pytest",
            Framework::Unittest => "unittest",
        }
    }
}

/// The image tests run in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentSpec {
    /// Where it starts from.
    pub image: ImageSource,
    /// Shell commands run once, as root, with the network, in the project's tree at `/work`.
    pub setup: Vec<String>,
    /// Globs of the files that set-up depends on, beside its commands and the image: when they
    /// change, set-up runs again.
    pub inputs: Vec<String>,
    /// PEM text of further certificate authorities trusted during set-up (a company's proxy, say).
    pub extra_ca_certificates: Option<String>,
    /// Environment variables of set-up steps only (an index URL, a proxy).
    pub setup_variables: BTreeMap<String, String>,
    /// The interpreter, as found in the image.
    pub python: String,
}

/// Where an environment starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageSource {
    /// An image by reference; used as it is if present, pulled otherwise.
    Reference(String),
    /// A Dockerfile below the project's root, built with the project as its context.
    Dockerfile(String),
}

/// Limits of one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Longest time of one test, in milliseconds.
    pub test_timeout_ms: u64,
    /// Longest time of one attempt, in milliseconds.
    pub attempt_timeout_ms: u64,
    /// Memory in bytes, swap included.
    pub memory_bytes: u64,
    /// CPUs, in thousandths.
    pub cpu_millis: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Size of the writable work tree and of /tmp, each, in bytes (counted as memory).
    pub scratch_bytes: u64,
    /// Whether attempts may reach the network.
    pub network: Network,
}

/// Whether attempts may reach the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Loopback only.
    None,
    /// The engine's default bridge.
    Bridge,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            test_timeout_ms: 60_000,
            attempt_timeout_ms: 30 * 60_000,
            memory_bytes: 2 << 30,
            cpu_millis: 1_000,
            pids: 512,
            scratch_bytes: 512 << 20,
            network: Network::None,
        }
    }
}
