//! `flakefarm check`, which CI runs after a job that failed.

use super::groups::{AskArgs, given};
use super::values::{checked, duration, rate};
use clap::{Args, ValueEnum};
use flakefarm_project::config::GivenOption;
use std::path::PathBuf;
use std::time::Duration;

/// `flakefarm check`
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The project's root
    #[arg(default_value = ".")]
    pub(crate) path: PathBuf,
    /// JUnit reports of the job: files, or patterns with * and **; may be repeated
    #[arg(long, value_name = "GLOB", required = true, num_args = 1..)]
    pub(crate) junit: Vec<String>,
    /// The revision before the change: what fails there, too, is not the change's fault
    #[arg(long, value_name = "REV")]
    pub(crate) base: Option<String>,
    /// A test that fails at this rate or above is to be seen failing [default: 14%, 20 clean runs]
    #[arg(long, value_name = "P", value_parser = checked(rate))]
    max_flake_rate: Option<String>,
    /// Time on the clock for all of it
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pub(crate) budget: Duration,
    /// Exit with 1 if a failed test turns out to be one of these
    #[arg(long, value_name = "ANSWER", value_delimiter = ',', default_value = "broken,flaky")]
    pub(crate) fail_on: Vec<CheckGate>,
    /// What to do if tests cannot be run, since the farm or the container engine is away
    #[arg(long, value_name = "fail|pass", value_enum, default_value_t = Unavailable::Fail)]
    pub(crate) on_unavailable: Unavailable,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

impl CheckArgs {
    /// The options that are settings.
    pub(crate) fn options(&self) -> Vec<GivenOption> {
        let mut options = given(&[("sweep.max_flake_rate", "--max-flake-rate", &self.max_flake_rate)]);
        options.extend(self.ask.options());
        options
    }
}

/// What makes `check` fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckGate {
    /// It passes and fails on the same sources
    Flaky,
    /// It fails every time (with --base: and passes before the change)
    Broken,
    /// It fails before the change, too
    Before,
    /// It did not fail again
    NotReproduced,
}

/// What to do without a farm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Unavailable {
    /// Exit with 70
    Fail,
    /// Exit with 0: the job's own result stands
    Pass,
}
