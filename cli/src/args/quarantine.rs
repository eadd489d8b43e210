//! `flakefarm quarantine` and `flakefarm run`: tests that may fail until a day, and commands that mind them.

use super::looking::ListFormat;
use super::remembering::MemoryArgs;
use super::values::{parsed, rate};
use clap::{Args, Subcommand};
use flakefarm_coordinator::quarantine::export::Format;
use std::path::PathBuf;

/// `flakefarm quarantine`
#[derive(Debug, Args)]
pub(crate) struct QuarantineArgs {
    #[command(subcommand)]
    pub(crate) action: QuarantineAction,
}

/// What to do with it.
#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineAction {
    /// Put tests in quarantine, or change their entries: their failures stop nobody until a day
    Add(Box<QuarantineAddArgs>),
    /// List entries: until when each holds, and how its test has done since
    List(QuarantineListArgs),
    /// Take tests out of quarantine
    Remove(QuarantineRemoveArgs),
    /// Write it for a test runner, for programs, or as the file that a project keeps
    Export(QuarantineExportArgs),
    /// Say what is wrong with it: the project's file, with line and key, and what has expired (exit code 1)
    Verify(QuarantineVerifyArgs),
    /// Say what was done to it: who, when and why
    Log(QuarantineListArgs),
    /// Show or set which tests enter by themselves
    Rule(QuarantineRuleArgs),
}

/// `flakefarm quarantine add`
#[derive(Debug, Args)]
pub(crate) struct QuarantineAddArgs {
    /// The tests, by their ids, or patterns with *
    #[arg(required = true, value_name = "TEST")]
    pub(crate) tests: Vec<String>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// Who answers for it [default: as CODEOWNERS says]
    #[arg(long, value_name = "NAME")]
    pub(crate) owner: Option<String>,
    /// Where it is worked on
    #[arg(long, value_name = "URL")]
    pub(crate) ticket: Option<String>,
    /// The last day on which it holds, 2026-12-24, or for how long: 14d
    #[arg(long, value_name = "DAY", default_value = "14d")]
    pub(crate) expires: String,
    /// Only the failure of this signature, as `flakefarm history` shows it; any other one still counts
    #[arg(long, value_name = "SIGNATURE")]
    pub(crate) signature: Option<String>,
    /// Who does this, for the log [default: the user of this machine]
    #[arg(long, value_name = "NAME")]
    pub(crate) who: Option<String>,
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
}

/// `flakefarm quarantine list` and `log`
#[derive(Debug, Args)]
pub(crate) struct QuarantineListArgs {
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
    /// How to print it
    #[arg(long, value_enum, default_value_t = ListFormat::Human)]
    pub(crate) format: ListFormat,
}

/// `flakefarm quarantine remove`
#[derive(Debug, Args)]
pub(crate) struct QuarantineRemoveArgs {
    /// The tests, as their entries name them
    #[arg(required = true, value_name = "TEST")]
    pub(crate) tests: Vec<String>,
    /// The entry that mutes this failure only
    #[arg(long, value_name = "SIGNATURE")]
    pub(crate) signature: Option<String>,
    /// Why, for the log
    #[arg(long, value_name = "TEXT", default_value = "removed by hand")]
    pub(crate) why: String,
    /// Who does this, for the log [default: the user of this machine]
    #[arg(long, value_name = "NAME")]
    pub(crate) who: Option<String>,
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
}

/// `flakefarm quarantine export`
#[derive(Debug, Args)]
pub(crate) struct QuarantineExportArgs {
    /// toml, json, pytest-deselect, pytest-xfail, jest, nextest, go or surefire
    #[arg(long, value_name = "FORMAT", default_value = "toml", value_parser = parsed::<Format>)]
    pub(crate) format: Format,
    /// Write it here instead of to standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
}

/// `flakefarm quarantine verify`
#[derive(Debug, Args)]
pub(crate) struct QuarantineVerifyArgs {
    /// The project's root, or the file
    #[arg(default_value = ".")]
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
}

/// `flakefarm quarantine rule`
#[derive(Debug, Args)]
pub(crate) struct QuarantineRuleArgs {
    /// Whether tests that a sweep finds flaky enter by themselves: on or off
    #[arg(long, value_name = "on|off", value_parser = ["on", "off"])]
    pub(crate) enter: Option<String>,
    /// Only those that fail at least so often
    #[arg(long, value_name = "P", value_parser = rate)]
    pub(crate) at_least: Option<flakefarm_coordinator::plan::Rate>,
    /// Days that such an entry holds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=366))]
    pub(crate) days: Option<u32>,
    /// Such entries at most: a farm that mutes everything measures nothing
    #[arg(long, value_name = "N")]
    pub(crate) most: Option<u32>,
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
}

/// `flakefarm run`
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// JUnit reports that the command writes: files, or patterns in quotes; may be repeated
    #[arg(long, value_name = "GLOB", required = true, num_args = 1)]
    pub(crate) junit: Vec<String>,
    /// The project's root
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
    /// The command, and its arguments
    #[arg(required = true, last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<std::ffi::OsString>,
}
