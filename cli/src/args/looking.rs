//! The commands that look at sweeps, workers and dead jobs, on a farm or on this machine.

use super::groups::FarmAddressArgs;
use clap::{Args, ValueEnum};
use flakefarm_shared::{JobId, SweepId};
use std::num::NonZeroU16;
use std::path::PathBuf;

/// A farm, or this machine's own state.
#[derive(Debug, Args)]
pub(crate) struct PlaceArgs {
    #[command(flatten)]
    pub(crate) farm: FarmAddressArgs,
    /// Where embedded sweeps keep their state
    #[arg(long, value_name = "DIR", env = "FLAKEFARM_STATE")]
    pub(crate) state: Option<PathBuf>,
}

/// A list for people, or for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListFormat {
    /// A table
    Human,
    /// As the farm's HTTP interface gives it
    Json,
}

/// `flakefarm sweeps`
#[derive(Debug, Args)]
pub(crate) struct SweepsArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Only of this project
    #[arg(long, value_name = "NAME")]
    pub(crate) project: Option<String>,
    /// Only those that are running, answered, interrupted, cancelled or failed
    #[arg(long, value_name = "STATE", value_parser = ["running", "answered", "interrupted", "cancelled", "failed"])]
    pub(crate) in_state: Option<String>,
    /// At most so many, the newest first
    #[arg(long, value_name = "N", default_value_t = NonZeroU16::new(20).expect("not zero"))]
    pub(crate) limit: NonZeroU16,
    /// Only older ones than this sweep: the next page
    #[arg(long, value_name = "ID")]
    pub(crate) before: Option<SweepId>,
    /// How to print it
    #[arg(long, value_enum, default_value_t = ListFormat::Human)]
    pub(crate) format: ListFormat,
}

/// `flakefarm cancel`
#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    /// The sweep
    pub(crate) sweep: SweepId,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// `flakefarm workers`
#[derive(Debug, Args)]
pub(crate) struct WorkersArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// How to print it
    #[arg(long, value_enum, default_value_t = ListFormat::Human)]
    pub(crate) format: ListFormat,
}

/// `flakefarm dead`
#[derive(Debug, Args)]
pub(crate) struct DeadArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// At most so many, the latest first
    #[arg(long, value_name = "N", default_value_t = NonZeroU16::new(20).expect("not zero"))]
    pub(crate) limit: NonZeroU16,
    /// Only earlier ones than this job: the next page
    #[arg(long, value_name = "JOB")]
    pub(crate) before: Option<JobId>,
    /// How to print it
    #[arg(long, value_enum, default_value_t = ListFormat::Human)]
    pub(crate) format: ListFormat,
    /// What to do with the jobs that follow [default: list all]
    #[arg(value_enum, requires = "jobs")]
    pub(crate) action: Option<DeadAction>,
    /// Which
    #[arg(value_name = "JOB")]
    pub(crate) jobs: Vec<JobId>,
}

/// What becomes of dead jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeadAction {
    /// Give them back to the workers
    Requeue,
    /// Take them off the list; their runs stay missing
    Discard,
}

/// `flakefarm export`
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Where to write it
    pub(crate) file: PathBuf,
    /// Only of this project
    #[arg(long, value_name = "NAME")]
    pub(crate) project: Option<String>,
    /// Only sweeps that are not older
    #[arg(long, value_name = "AGE", value_parser = super::values::duration)]
    pub(crate) since: Option<std::time::Duration>,
    /// Where embedded sweeps keep their state
    #[arg(long, value_name = "DIR", env = "FLAKEFARM_STATE")]
    pub(crate) state: Option<PathBuf>,
}

/// `flakefarm import`
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// What `flakefarm export` wrote
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}
