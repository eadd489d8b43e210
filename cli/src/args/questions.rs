//! The commands that ask something about a project's tests.

use super::groups::{AskArgs, given};
use super::values::{checked, counted, order, parsed, rate, scope};
use clap::{Args, ValueEnum};
use flakefarm_coordinator::plan::{Budget, Guarantee, Panel, ScopeChoice};
use flakefarm_project::config::GivenOption;
use flakefarm_shared::{Order, World};
use std::num::NonZeroU32;
use std::path::PathBuf;

/// `flakefarm sweep`
#[derive(Debug, Args)]
pub(crate) struct SweepArgs {
    /// The project's root
    #[arg(default_value = ".")]
    pub(crate) path: PathBuf,
    /// Runs of each test, fixed
    #[arg(long, value_name = "N", value_parser = checked(counted::<NonZeroU32>))]
    runs: Option<String>,
    /// Find every test that flakes at this rate or above [default: 5%]
    #[arg(long, value_name = "P", value_parser = checked(rate))]
    max_flake_rate: Option<String>,
    /// What the confidence refers to: each test, or the suite as a whole, which takes far fewer runs
    /// [default: test]
    #[arg(long, value_name = "test|suite", value_parser = checked(parsed::<Guarantee>))]
    guarantee: Option<String>,
    /// What the sweep may cost: 10m (on the clock), container:2h (container time) or attempts:500
    #[arg(long, value_name = "BUDGET", value_parser = checked(parsed::<Budget>))]
    budget: Option<String>,
    /// Only tests whose id is this, contains it, or matches it (with *); may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub(crate) tests: Vec<String>,
    /// What one attempt runs: test, file, suite, or auto
    #[arg(long, value_name = "SCOPE", value_parser = checked(scope))]
    scope: Option<String>,
    /// Only this order: given, reversed, or shuffled:SEED
    #[arg(long, value_name = "ORDER", value_parser = order)]
    pub(crate) order: Option<Order>,
    /// Conditions to try before anything is repeated: quick (about ten), full, or none [default: quick]
    #[arg(long, value_name = "PANEL", value_parser = checked(parsed::<Panel>))]
    panel: Option<String>,
    /// Run everything under this condition (see docs/conditions.md), and try no others
    #[arg(long, value_name = "CONDITION", conflicts_with = "panel")]
    pub(crate) under: Option<World>,
    /// Go on with the last sweep of this project that was interrupted; with --farm, follow the last
    /// one that was submitted from here
    #[arg(long, conflicts_with_all = ["runs", "max_flake_rate", "confidence", "guarantee", "budget", "seed", "tests", "scope", "order", "panel", "under", "sandbox", "detach"])]
    pub(crate) resume: bool,
    /// Exit with 1 if such tests are found (3 for inconclusive)
    #[arg(long, value_name = "VERDICT", value_delimiter = ',')]
    pub(crate) fail_on: Vec<Gate>,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

impl SweepArgs {
    /// The options that are settings.
    pub(crate) fn options(&self) -> Vec<GivenOption> {
        let mut options = given(&[
            ("sweep.runs", "--runs", &self.runs),
            ("sweep.max_flake_rate", "--max-flake-rate", &self.max_flake_rate),
            ("sweep.guarantee", "--guarantee", &self.guarantee),
            ("sweep.budget", "--budget", &self.budget),
            ("sweep.scope", "--scope", &self.scope),
            ("sweep.panel", "--panel", &self.panel),
        ]);
        options.extend(self.ask.options());
        options
    }
}

/// `flakefarm diagnose`
#[derive(Debug, Args)]
pub(crate) struct DiagnoseArgs {
    /// Tests, each by its id, a part of it or a pattern with *; then the project's root if it is not
    /// this directory
    #[arg(required = true, value_name = "TEST... [PATH]")]
    pub(crate) tests: Vec<String>,
    /// Only these tests are its neighbours; may be repeated [default: all]
    #[arg(long, value_name = "PATTERN")]
    pub(crate) among: Vec<String>,
    /// An order in which it is known to fail: given, reversed, or shuffled:SEED
    #[arg(long, value_name = "ORDER", value_parser = order)]
    pub(crate) order: Option<Order>,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// `flakefarm bisect`
#[derive(Debug, Args)]
pub(crate) struct BisectArgs {
    /// The test, by its id
    pub(crate) test: String,
    /// The project's root, in a git repository
    #[arg(default_value = ".")]
    pub(crate) path: PathBuf,
    /// A revision at which it was not flaky
    #[arg(long, value_name = "REV")]
    pub(crate) good: String,
    /// A later revision at which it is
    #[arg(long, value_name = "REV", default_value = "HEAD")]
    pub(crate) bad: String,
    /// What one attempt runs: test, or suite if it fails among others only
    #[arg(long, value_name = "SCOPE", default_value = "test", value_parser = scope)]
    pub(crate) scope: ScopeChoice,
    /// The order it fails in: given, reversed, or shuffled:SEED
    #[arg(long, value_name = "ORDER", value_parser = order, default_value = "given")]
    pub(crate) order: Order,
    /// The condition it fails under, such as time-zone:ahead
    #[arg(long, value_name = "CONDITION", default_value = "plain")]
    pub(crate) under: World,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// What makes a command fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Gate {
    /// Flaky or fragile tests
    Flaky,
    /// Tests that always fail
    Broken,
    /// Tests without a verdict
    Inconclusive,
}
