//! `flakefarm repair`.

use super::groups::{AskArgs, given};
use super::values::{checked, counted, parsed};
use clap::Args;
use flakefarm_coordinator::plan::Budget;
use flakefarm_project::config::GivenOption;
use std::num::NonZeroU32;
use uuid::Uuid;

/// `flakefarm repair`
#[derive(Debug, Args)]
pub(crate) struct RepairArgs {
    /// Tests to mend, each by its id, a part of it or a pattern with * [default: those that fail]; then the
    /// project's root if it is not this directory
    #[arg(value_name = "TEST... [PATH]")]
    pub(crate) tests: Vec<String>,
    /// JUnit reports of a CI job, whose failed tests are to be mended
    #[arg(long, value_name = "GLOB")]
    pub(crate) junit: Vec<String>,
    /// The last revision at which the tests were right [default: the last commit, or the one before it if
    /// the work tree is as committed]
    #[arg(long, value_name = "REV")]
    pub(crate) base: Option<String>,
    /// Show what is proved and write nothing (the default)
    #[arg(long, conflicts_with_all = ["apply", "branch", "interactive"])]
    pub(crate) dry_run: bool,
    /// Write what is proved into the work tree
    #[arg(long, conflicts_with = "branch")]
    pub(crate) apply: bool,
    /// Commit what is proved on this branch; work tree, index and HEAD stay as they are
    #[arg(long, value_name = "NAME")]
    pub(crate) branch: Option<String>,
    /// Have the farm repair what this schedule of the project was last fired for
    #[arg(long, value_name = "NAME", conflicts_with_all = ["base", "junit", "apply", "branch"])]
    pub(crate) schedule: Option<String>,
    /// Experiments that proposals for one test may take [default: 3]
    #[arg(long, value_name = "N", value_parser = checked(counted::<NonZeroU32>))]
    attempts: Option<String>,
    /// What is proved is written by itself only if it is at least as sure to be what was meant [default: 0.7]
    #[arg(long, value_name = "P")]
    threshold: Option<String>,
    /// What each question may cost: 10m (on the clock), container:2h (container time) or attempts:500
    #[arg(long, value_name = "BUDGET", value_parser = checked(parsed::<Budget>))]
    budget: Option<String>,
    /// What finding out why tests fail may cost, in all
    #[arg(long, value_name = "BUDGET", value_parser = checked(parsed::<Budget>))]
    look_budget: Option<String>,
    /// What proving proposals may cost, in all
    #[arg(long, value_name = "BUDGET", value_parser = checked(parsed::<Budget>))]
    mend_budget: Option<String>,
    #[command(flatten)]
    pub(crate) provider: ProviderArgs,
    #[command(flatten)]
    pub(crate) manage: ManageArgs,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// Who proposes beside the rules.
#[derive(Debug, Args)]
pub(crate) struct ProviderArgs {
    /// Who proposes where the rules do not: none, command or http [default: none]
    #[arg(long, value_name = "KIND", value_parser = ["none", "command", "http"])]
    provider: Option<String>,
    /// The program of a command provider, with its arguments; it runs in a copy of the tree
    #[arg(long, value_name = "COMMAND")]
    provider_command: Option<String>,
    /// Where an http provider is: the part of its address before /chat/completions
    #[arg(long, value_name = "URL")]
    provider_url: Option<String>,
    /// The model that an http provider is asked for
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
}

/// What was repaired before.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct ManageArgs {
    /// List repairs that were recorded here, the newest first
    #[arg(long)]
    pub(crate) list: bool,
    /// Go on with a repair, or write what it has proved; the tree must be as it was
    #[arg(long, value_name = "ID")]
    pub(crate) resume: Option<String>,
    /// Take back what a repair has written; refused if a file has changed since
    #[arg(long, value_name = "ID")]
    pub(crate) undo: Option<String>,
    /// Show a repair that the farm carries out
    #[arg(long, value_name = "ID")]
    show: Option<Uuid>,
    /// Wait for a repair that the farm carries out, then show it
    #[arg(long, value_name = "ID")]
    follow: Option<Uuid>,
    /// Print the patch of a repair that the farm has carried out, for `git apply`
    #[arg(long, value_name = "ID")]
    patch: Option<Uuid>,
    /// Accept what the farm has proved: the mended tests run on there until the repair is proven
    #[arg(long, value_name = "ID")]
    accept: Option<Uuid>,
    /// Cancel a repair that the farm carries out
    #[arg(long, value_name = "ID")]
    cancel: Option<Uuid>,
    /// Show how proposals fared so far, by strategy and kind of failure
    #[arg(long)]
    pub(crate) stats: bool,
}

/// What is wanted of a repair that a farm carries out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnFarm {
    /// To look at it.
    Show(Uuid),
    /// To wait for its end.
    Follow(Uuid),
    /// Its patch.
    Patch(Uuid),
    /// To accept it.
    Accept(Uuid),
    /// To end it.
    Cancel(Uuid),
}

impl ManageArgs {
    /// What is wanted of a repair on a farm, if anything.
    pub(crate) fn on_farm(&self) -> Option<OnFarm> {
        let Self { show, follow, patch, accept, cancel, .. } = self;
        None.or(show.map(OnFarm::Show))
            .or(follow.map(OnFarm::Follow))
            .or(patch.map(OnFarm::Patch))
            .or(accept.map(OnFarm::Accept))
            .or(cancel.map(OnFarm::Cancel))
    }
}

impl RepairArgs {
    /// What `--interactive` means here, beside a place ahead of work that nobody waits for.
    pub(crate) const INTERACTIVE: &'static str = "Ask of each hunk of what is proved whether to write it, by answers on standard input; on a farm, use the \
         interactive queue";

    /// Whether each hunk is asked about.
    pub(crate) fn is_interactive(&self) -> bool {
        self.ask.farm.interactive
    }

    /// The options that are settings.
    pub(crate) fn options(&self) -> Vec<GivenOption> {
        let provider = &self.provider;
        let mut options = given(&[
            ("sweep.budget", "--budget", &self.budget),
            ("repair.attempts", "--attempts", &self.attempts),
            ("repair.threshold", "--threshold", &self.threshold),
            ("repair.look_budget", "--look-budget", &self.look_budget),
            ("repair.mend_budget", "--mend-budget", &self.mend_budget),
            ("repair.provider", "--provider", &provider.provider),
            ("repair.command", "--provider-command", &provider.provider_command),
            ("repair.url", "--provider-url", &provider.provider_url),
            ("repair.model", "--model", &provider.model),
        ]);
        options.extend(self.ask.options());
        options
    }
}
