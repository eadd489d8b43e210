//! `flakefarm schedule`: sweeps of a farm that begin by the clock.

use super::groups::FarmAddressArgs;
use super::looking::ListFormat;
use super::questions::SweepArgs;
use clap::{Args, Subcommand};

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
    /// uploaded snapshot
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
