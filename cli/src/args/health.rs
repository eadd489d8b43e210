//! The commands that say how a farm, a process or a machine is.

use super::groups::FarmAddressArgs;
use super::looking::ListFormat;
use super::operating::{RoleArgs, StoreArgs};
use super::values::duration;
use clap::{Args, ValueEnum};
use std::time::Duration;

/// `flakefarm doctor`
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) role: RoleArgs,
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
    #[command(flatten)]
    pub(crate) farm: FarmAddressArgs,
}

/// `flakefarm status`
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) farm: FarmAddressArgs,
    /// Show it again and again, until interrupted
    #[arg(long)]
    pub(crate) watch: bool,
    /// Between two times
    #[arg(long, value_name = "DURATION", value_parser = pause, default_value = "2s")]
    pub(crate) every: Duration,
    /// How to print it
    #[arg(long, value_enum, default_value_t = ListFormat::Human)]
    pub(crate) format: ListFormat,
}

/// Between two questions to a farm: not so short that asking is all that it does.
fn pause(text: &str) -> Result<Duration, String> {
    const LEAST: Duration = Duration::from_secs(1);
    let pause = duration(text)?;
    if pause < LEAST { Err(format!("`{text}` is too short: 1s or more")) } else { Ok(pause) }
}

/// `flakefarm probe`
#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    /// What to ask
    #[arg(value_enum)]
    pub(crate) what: Probed,
    /// Address of the process, HOST:PORT [default: FLAKEFARM_HEALTH_LISTEN, else (but for drain) FLAKEFARM_LISTEN,
    /// else 127.0.0.1:7878]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) at: Option<String>,
    /// For a worker to be done with its jobs
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10m")]
    pub(crate) wait: Duration,
}

/// What a process is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Probed {
    /// Whether it lives
    Healthz,
    /// Whether it can work
    Readyz,
    /// What it counts
    Metrics,
    /// Tell a worker to take no more jobs, and wait until it has none
    Drain,
}
