//! `flakefarm schedule`: sweeps of a farm that begin by the clock.

use super::groups::FarmAddressArgs;
use super::looking::ListFormat;
use super::questions::SweepArgs;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `flakefarm schedule`
#[derive(Debug, Args)]
pub(crate) struct ScheduleArgs {
    #[command(subcommand)]
    pub(crate) action: ScheduleAction,
}

/// What to do with schedules.
#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleAction {
    /// Add a schedule, or replace the one of this name: a sweep at each firing, of the project's last
    /// uploaded snapshot or of a git remote
    Add(Box<ScheduleAddArgs>),
    /// List schedules, with the times they fire next
    List(ScheduleListArgs),
    /// Fire a schedule now
    Run(ScheduleNameArgs),
    /// Pause a schedule
    Pause(ScheduleNameArgs),
    /// Let a paused schedule go on
    Resume(ScheduleNameArgs),
    /// Remove a schedule; its sweeps stay
    Remove(ScheduleNameArgs),
}

/// `flakefarm schedule add`
#[derive(Debug, Args)]
pub(crate) struct ScheduleAddArgs {
    /// Its name, unique within the project
    pub(crate) name: String,
    /// When: minute, hour, day of month, month, day of week (`0 2 * * 1-5` is at 2:00 from Monday to
    /// Friday)
    #[arg(long, value_name = "EXPRESSION")]
    pub(crate) cron: String,
    /// The time zone that this is meant in, such as Europe/Berlin
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    pub(crate) zone: String,
    /// Fetch the sources from this git remote at each firing: https://, ssh://, http://, git:// or
    /// user@host:path
    #[arg(long, value_name = "URL")]
    pub(crate) git: Option<String>,
    /// The branch, tag or whole commit to fetch
    #[arg(long, value_name = "REVISION", default_value = "HEAD", requires = "git")]
    pub(crate) branch: String,
    /// The project's directory in the repository [default: as PATH lies in its own]
    #[arg(long, value_name = "DIR", requires = "git")]
    pub(crate) git_directory: Option<String>,
    /// File with what opens the remote: a token, user:password, or a private key of ssh followed by the
    /// lines of its known hosts
    #[arg(long, value_name = "FILE", requires = "git")]
    pub(crate) git_credentials: Option<PathBuf>,
    /// Propose repairs for tests that its sweeps find newly flaky; nothing is written anywhere
    #[arg(long)]
    pub(crate) repairs: bool,
    #[command(flatten)]
    pub(crate) sweep: SweepArgs,
}

/// `flakefarm schedule list`
#[derive(Debug, Args)]
pub(crate) struct ScheduleListArgs {
    #[command(flatten)]
    pub(crate) farm: FarmAddressArgs,
    /// How to print it
    #[arg(long, value_enum, default_value_t = ListFormat::Human)]
    pub(crate) format: ListFormat,
}

/// A schedule that something is to be done with.
#[derive(Debug, Args)]
pub(crate) struct ScheduleNameArgs {
    /// Its name, or its id
    pub(crate) name: String,
    /// Its project, where several have one of that name
    #[arg(long, value_name = "NAME")]
    pub(crate) of: Option<String>,
    #[command(flatten)]
    pub(crate) farm: FarmAddressArgs,
}
