//! What people type. Layers: flags over environment (`FLAKEFARM_*`) over a configuration file over
//! defaults; see `flakefarm_project::settings`.

mod check;
mod ci;
mod groups;
mod health;
mod looking;
mod notifying;
mod operating;
mod quarantine;
mod questions;
mod remembering;
mod repairing;
mod scheduling;
pub(crate) mod values;

pub(crate) use check::{CheckArgs, CheckGate, Unavailable};
pub(crate) use ci::{AnalyseArgs, GuardArgs, ValidateArgs};
pub(crate) use groups::{AskArgs, FarmAddressArgs, Format, OutputArgs};
pub(crate) use health::{DoctorArgs, ProbeArgs, Probed, StatusArgs};
pub(crate) use looking::{
    CancelArgs, DeadAction, DeadArgs, ExportArgs, ImportArgs, ListFormat, PlaceArgs, SweepsArgs, WorkersArgs,
};
pub(crate) use notifying::{
    ChannelAddArgs, ChannelArgs, ChannelListArgs, DigestArgs, DigestFormat, HookArgs, NotifyAction,
    NotifyArgs,
};
pub(crate) use operating::{
    AttachArgs, CoordinatorArgs, InitArgs, ReportArgs, RoleArgs, TokenAction, TokenArgs, WorkerArgs,
};
pub(crate) use quarantine::{
    QuarantineAction, QuarantineAddArgs, QuarantineArgs, QuarantineExportArgs, QuarantineListArgs,
    QuarantineRemoveArgs, QuarantineRuleArgs, QuarantineVerifyArgs, RunArgs,
};
pub(crate) use questions::{BisectArgs, DiagnoseArgs, Gate, SweepArgs};
pub(crate) use remembering::{
    AnswerFormat, ForecastArgs, GcArgs, HistoryArgs, LinkArgs, LinksArgs, MemoryArgs, TestsAction, TestsArgs,
    TrendsArgs, UploadArgs,
};
pub(crate) use repairing::{OnFarm, RepairArgs};
pub(crate) use scheduling::{
    ScheduleAction, ScheduleAddArgs, ScheduleArgs, ScheduleListArgs, ScheduleNameArgs,
};

use crate::role_keys::ROLE_KEYS;
use clap::{Arg, CommandFactory, Parser, Subcommand};
use flakefarm_bench::{BenchArgs, SimulateArgs};
use flakefarm_project::config::KEYS;
use flakefarm_project::settings::Setting;

/// Find the flaky tests of a project, with evidence: every run in a fresh container.
#[derive(Debug, Parser)]
#[command(name = "flakefarm", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Find the flaky tests of a project
    Sweep(Box<SweepArgs>),
    /// Say why tests are flaky, by controlled experiments
    Diagnose(Box<DiagnoseArgs>),
    /// Find the commit that made a test flaky
    Bisect(Box<BisectArgs>),
    /// Say whether a change fixes a test, with proof
    Validate(Box<ValidateArgs>),
    /// Say what the failed tests of a CI job are: flaky, broken, or failing before
    Check(Box<CheckArgs>),
    /// Propose changes of tests, and prove them by experiment
    Repair(Box<RepairArgs>),
    /// Say since when tests fail, and why: by runs here and at the last good revision, and by what changed
    Analyse(Box<AnalyseArgs>),
    /// Sweep the tests that a change adds or touches, before it is merged
    Guard(Box<GuardArgs>),
    /// Run a test command whose failures of quarantined tests alone do not fail the job
    Run(RunArgs),
    /// Let known failures stop nobody until a day, for a reason, on somebody's account
    Quarantine(QuarantineArgs),
    /// Follow a sweep on a farm, and write its report
    Attach(AttachArgs),
    /// Keep what CI's reports say, as evidence
    Upload(Box<UploadArgs>),
    /// Say what is known of one test over time
    History(Box<HistoryArgs>),
    /// List a project's tests, the worst first; link those that were renamed
    Tests(Box<TestsArgs>),
    /// Show a project's runs and failures over time
    Trends(Box<TrendsArgs>),
    /// List the tests that are likely to fail next, where forecasts have shown skill
    Forecast(Box<ForecastArgs>),
    /// Delete what is no longer kept: old history, and what nothing refers to any more
    Gc(Box<GcArgs>),
    /// Write a commented flakefarm.toml from what is detected
    Init(InitArgs),
    /// Show the report of a sweep, or a JSON report again, in another format
    Report(ReportArgs),
    /// List sweeps, the newest first
    Sweeps(SweepsArgs),
    /// Write this machine's sweeps to a file, for a farm
    Export(ExportArgs),
    /// Take in what was exported, ids and history kept
    Import(ImportArgs),
    /// End a sweep for good; what is known is kept
    Cancel(CancelArgs),
    /// Say what the last days of a project came to, what to mend first, and what to type
    Digest(DigestArgs),
    /// Let a farm tell people what happened
    Notify(NotifyArgs),
    /// Let a farm sweep by the clock
    Schedule(ScheduleArgs),
    /// List a farm's workers
    Workers(WorkersArgs),
    /// List dead jobs; give them back to the workers, or take them off the list
    Dead(DeadArgs),
    /// Measure what attempts cost here, at each level of isolation and in other ways
    Bench(Box<BenchArgs>),
    /// Measure planner and scorer on suites whose truth is known
    Simulate(SimulateArgs),
    /// Say what is wrong with this machine or farm, and what to type about it
    Doctor(Box<DoctorArgs>),
    /// Show a farm at a glance: queues, workers, sweeps, errors, stores, trust
    Status(StatusArgs),
    /// Ask a process how it is, or have a worker drain: for images and pods
    Probe(ProbeArgs),
    /// Run a farm's coordinator
    Coordinator(Box<CoordinatorArgs>),
    /// Run one of a farm's workers
    Worker(WorkerArgs),
    /// Issue, list and revoke the tokens that guard a coordinator
    Token(TokenArgs),
}

/// The command line, with the environment variables of settings in its help.
pub(crate) fn command_line() -> clap::Command {
    let of_roles = ["coordinator", "worker", "doctor", "token", "gc", "probe"];
    let elsewhere = ["bench", "simulate", "init"];
    Cli::command().mut_subcommands(|command| {
        let name = command.get_name().to_owned();
        if elsewhere.contains(&name.as_str()) {
            return command;
        }
        let keys = if of_roles.contains(&name.as_str()) { ROLE_KEYS } else { KEYS };
        let command = match name.as_str() {
            "repair" => command.mut_arg("interactive", |arg| arg.help(RepairArgs::INTERACTIVE)),
            _ => command,
        };
        // What repairs are set to is no business of an option of the same name elsewhere.
        let keys = keys.iter().filter(|setting| name == "repair" || !setting.key.starts_with("repair."));
        let keys: Vec<&Setting> = keys.collect();
        command.mut_args(|arg| with_variable(arg, &keys))
    })
}

fn with_variable(arg: Arg, keys: &[&Setting]) -> Arg {
    let named = |setting: &&&Setting| {
        let name = setting.key.rsplit('.').next().unwrap_or_default();
        name == arg.get_id().as_str() || (setting.key == "farm.url" && arg.get_id() == "farm")
    };
    let variable = keys.iter().find(named).and_then(|setting| setting.of_variable());
    match (variable, arg.get_help().cloned()) {
        (Some(variable), Some(help)) if arg.get_env().is_none() && arg.get_default_values().is_empty() => {
            arg.help(format!("{help} [env: {variable}]"))
        }
        _ => arg,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command_line().debug_assert();
    }

    #[test]
    fn help_names_the_variables_of_settings() {
        let mut command = command_line();
        let sweep = command.find_subcommand_mut("sweep").expect("there is a sweep");
        let help = sweep.render_long_help().to_string();
        // Lines break where they must.
        let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for variable in ["FLAKEFARM_RUNS", "FLAKEFARM_FARM", "FLAKEFARM_TOKEN", "FLAKEFARM_SANDBOX"] {
            assert!(words.contains(&format!("[env: {variable}]")), "{variable} in\n{help}");
        }
    }
}
