//! The commands that CI runs.

use super::groups::{AskArgs, given};
use super::questions::Gate;
use super::values::{checked, duration, order, parsed, scope};
use clap::Args;
use flakefarm_coordinator::plan::{Budget, ScopeChoice};
use flakefarm_project::config::GivenOption;
use flakefarm_shared::{Order, World};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

/// `flakefarm guard`
#[derive(Debug, Args)]
pub(crate) struct GuardArgs {
    /// The project's root, in a git repository
    #[arg(default_value = ".")]
    pub(crate) path: PathBuf,
    /// What the change is to be merged into
    #[arg(long, value_name = "REV", default_value = "origin/HEAD")]
    pub(crate) base: String,
    /// Time on the clock for all of it
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = duration)]
    pub(crate) budget: Duration,
    /// Exit with 1 if such tests are found (3 for inconclusive)
    #[arg(long, value_name = "VERDICT", value_delimiter = ',', default_value = "flaky,broken")]
    pub(crate) fail_on: Vec<Gate>,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// `flakefarm analyse`
#[derive(Debug, Args)]
pub(crate) struct AnalyseArgs {
    /// Tests to look into, each by its id, a part of it or a pattern with * [default: those that fail]; then the
    /// project's root if it is not this directory
    #[arg(value_name = "TEST... [PATH]")]
    pub(crate) tests: Vec<String>,
    /// JUnit reports of a CI job, whose failed tests are looked into
    #[arg(long, value_name = "GLOB")]
    pub(crate) junit: Vec<String>,
    /// The last revision at which the tests were right [default: the last commit, or the one before it if
    /// the work tree is as committed]
    #[arg(long, value_name = "REV")]
    pub(crate) base: Option<String>,
    /// Runs of each test here, and at the base
    #[arg(long, value_name = "N", default_value = "5")]
    pub(crate) runs: NonZeroU32,
    /// Every test, its message and all evidence
    #[arg(long)]
    pub(crate) verbose: bool,
    /// What each question may cost: 10m (on the clock), container:2h (container time) or attempts:500
    #[arg(long, value_name = "BUDGET", value_parser = checked(parsed::<Budget>))]
    budget: Option<String>,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

impl AnalyseArgs {
    /// The options that are settings.
    pub(crate) fn options(&self) -> Vec<GivenOption> {
        let mut options = given(&[("sweep.budget", "--budget", &self.budget)]);
        options.extend(self.ask.options());
        options
    }
}

/// `flakefarm validate`
#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    /// Tests that the change is to fix, each by its id, a part of it or a pattern with * [default: those
    /// that fail]; then the project's root if it is not this directory
    #[arg(value_name = "TEST... [PATH]")]
    pub(crate) tests: Vec<String>,
    /// A patch as `git diff` writes it; - reads standard input [default: the work tree's difference
    /// from HEAD]
    #[arg(long, value_name = "FILE", conflicts_with = "revision")]
    pub(crate) patch: Option<PathBuf>,
    /// A branch or revision that has the change
    #[arg(long, value_name = "REV")]
    pub(crate) revision: Option<String>,
    /// Where the tests fail, if that is known: test (alone), file or suite [default: as in the last sweep
    /// or diagnosis, or measured first]
    #[arg(long, value_name = "SCOPE", value_parser = scope)]
    pub(crate) scope: Option<ScopeChoice>,
    /// The order they fail in: given, reversed, or shuffled:SEED
    #[arg(long, value_name = "ORDER", value_parser = order)]
    pub(crate) order: Option<Order>,
    /// The condition they fail under (see docs/conditions.md)
    #[arg(long, value_name = "CONDITION")]
    pub(crate) under: Option<World>,
    /// What it may cost: 10m (on the clock), container:2h (container time) or attempts:500
    #[arg(long, value_name = "BUDGET", value_parser = checked(parsed::<Budget>))]
    budget: Option<String>,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

impl ValidateArgs {
    /// The options that are settings.
    pub(crate) fn options(&self) -> Vec<GivenOption> {
        let mut options = given(&[("sweep.budget", "--budget", &self.budget)]);
        options.extend(self.ask.options());
        options
    }
}
