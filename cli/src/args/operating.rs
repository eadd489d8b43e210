//! The commands that run a farm, look after it and show what it found.

use super::groups::{FarmAddressArgs, OutputArgs, given};
use super::looking::PlaceArgs;
use super::questions::Gate;
use super::remembering::KeepArgs;
use super::values::{checked, counted, duration, parsed};
use clap::{Args, Subcommand};
use flakefarm_coordinator::http::{Scope, TokenKind};
use flakefarm_project::config::GivenOption;
use flakefarm_shared::SweepId;
use std::num::{NonZeroU16, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

/// `flakefarm init`
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The project's root
    #[arg(default_value = ".")]
    pub(crate) path: PathBuf,
    /// Print it instead of writing it
    #[arg(long)]
    pub(crate) print: bool,
    /// Replace an existing file
    #[arg(long)]
    pub(crate) force: bool,
}

/// `flakefarm attach`
#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// The sweep, as --detach printed it
    pub(crate) id: SweepId,
    #[command(flatten)]
    pub(crate) farm: FarmAddressArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Exit with 1 if such tests are found (3 for inconclusive)
    #[arg(long, value_name = "VERDICT", value_delimiter = ',')]
    pub(crate) fail_on: Vec<Gate>,
}

/// `flakefarm report`
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// A sweep's id, or a report written with --format json
    #[arg(value_name = "ID|FILE")]
    pub(crate) what: String,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// The configuration of a role.
#[derive(Debug, Args)]
pub(crate) struct RoleArgs {
    /// Configuration file with sections [stores], [coordinator] and [worker]
    #[arg(long, value_name = "FILE", env = "FLAKEFARM_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Print all settings, each with where it comes from, and do nothing else
    #[arg(long)]
    pub(crate) print_config: bool,
}

/// The addresses that choose the adapters; nothing else differs between one process and a cluster.
#[derive(Debug, Clone, Args)]
pub(crate) struct StoreArgs {
    /// sqlite:/path/file or postgres://…
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// amqp://… (a farm of several processes needs a broker)
    #[arg(long, value_name = "URL")]
    queue: Option<String>,
    /// redis://… or embedded:/path/file
    #[arg(long, value_name = "URL")]
    samples: Option<String>,
    /// file:///directory shared by all, or an object store (s3://…, gs://…, az://…)
    #[arg(long, value_name = "URL")]
    blobs: Option<String>,
}

impl StoreArgs {
    /// The options that are settings.
    pub(crate) fn options(&self) -> Vec<GivenOption> {
        given(&[
            ("stores.database", "--database", &self.database),
            ("stores.queue", "--queue", &self.queue),
            ("stores.samples", "--samples", &self.samples),
            ("stores.blobs", "--blobs", &self.blobs),
        ])
    }
}

/// `flakefarm coordinator`
#[derive(Debug, Args)]
pub(crate) struct CoordinatorArgs {
    #[command(flatten)]
    pub(crate) role: RoleArgs,
    #[command(flatten)]
    stores: StoreArgs,
    /// Address to listen on [default: 127.0.0.1:7878]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// A job without news for this long is given to another worker [default: 10m]
    #[arg(long, value_name = "DURATION", value_parser = checked(duration))]
    lease: Option<String>,
    /// Issue an admin token into this file (readable by its owner only) if the coordinator has none
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<String>,
    /// Runs of all tests together that one sweep may ask for [default: 1000000]
    #[arg(long, value_name = "N", value_parser = checked(counted::<NonZeroU64>))]
    limit_samples: Option<String>,
    /// Attempts that one project may have queued [default: 5000000]
    #[arg(long, value_name = "N", value_parser = checked(counted::<NonZeroU64>))]
    quota_attempts: Option<String>,
    /// Jobs that one project may have on the queue or in workers' hands; others wait [default: 10000]
    #[arg(long, value_name = "N", value_parser = checked(counted::<NonZeroU64>))]
    quota_jobs: Option<String>,
    /// What one project may store in snapshots [default: 100GiB]
    #[arg(long, value_name = "SIZE")]
    quota_bytes: Option<String>,
    /// Most that is fetched of a schedule's git remote [default: 2GiB]
    #[arg(long, value_name = "SIZE")]
    fetch_size: Option<String>,
    /// Longest time that this may take [default: 10m]
    #[arg(long, value_name = "DURATION", value_parser = checked(duration))]
    fetch_time: Option<String>,
    /// Repairs that it carries out at the same time; 0: none [default: 2]
    #[arg(long, value_name = "N", value_parser = checked(parsed::<u8>))]
    repairs: Option<String>,
    /// Hosts that schedules may fetch from, separated by spaces; *.example.org for all below
    /// [default: all]
    #[arg(long, value_name = "HOSTS")]
    git_hosts: Option<String>,
    #[command(flatten)]
    keep: KeepArgs,
}

impl CoordinatorArgs {
    /// The options that are settings.
    pub(crate) fn options(&self) -> Vec<GivenOption> {
        let mut options = self.stores.options();
        options.extend(given(&[
            ("coordinator.listen", "--listen", &self.listen),
            ("coordinator.limit_samples", "--limit-samples", &self.limit_samples),
            ("coordinator.quota_attempts", "--quota-attempts", &self.quota_attempts),
            ("coordinator.quota_jobs", "--quota-jobs", &self.quota_jobs),
            ("coordinator.quota_bytes", "--quota-bytes", &self.quota_bytes),
            ("coordinator.fetch_size", "--fetch-size", &self.fetch_size),
            ("coordinator.fetch_time", "--fetch-time", &self.fetch_time),
            ("coordinator.repairs", "--repairs", &self.repairs),
            ("coordinator.git_hosts", "--git-hosts", &self.git_hosts),
            ("coordinator.lease", "--lease", &self.lease),
            ("coordinator.admin_token_file", "--admin-token-file", &self.admin_token_file),
        ]));
        options.extend(self.keep.options());
        options
    }
}

/// `flakefarm worker`
#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    pub(crate) role: RoleArgs,
    #[command(flatten)]
    stores: StoreArgs,
    /// Its name, unique on the farm [default: host name and process id]
    #[arg(long, value_name = "NAME")]
    id: Option<String>,
    /// Container runtime: auto, default, or a name that the engine knows (crun, runsc, kata)
    /// [default: auto]
    #[arg(long, value_name = "NAME")]
    runtime: Option<String>,
    /// Jobs at once [default: the number of cores]
    #[arg(long, value_name = "N", value_parser = checked(counted::<NonZeroU16>))]
    slots: Option<String>,
    /// For running attempts to end when it is told to leave; then they are stopped and handed back
    /// [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = checked(duration))]
    grace: Option<String>,
    /// Where it keeps what it has made while a server is away [default: below the state directory]
    #[arg(long, value_name = "DIR")]
    spool: Option<String>,
    /// Address for /healthz, /readyz, /metrics and /drain, such as 127.0.0.1:7879 [default: none]
    #[arg(long, value_name = "ADDRESS")]
    health_listen: Option<String>,
}

impl WorkerArgs {
    /// The options that are settings.
    pub(crate) fn options(&self) -> Vec<GivenOption> {
        let mut options = self.stores.options();
        options.extend(given(&[
            ("worker.id", "--id", &self.id),
            ("worker.runtime", "--runtime", &self.runtime),
            ("worker.slots", "--slots", &self.slots),
            ("worker.grace", "--grace", &self.grace),
            ("worker.spool", "--spool", &self.spool),
            ("worker.health_listen", "--health-listen", &self.health_listen),
        ]));
        options
    }
}

/// `flakefarm token`
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// The coordinator's database
    #[arg(long, value_name = "URL", global = true)]
    database: Option<String>,
    /// Configuration file with a section [stores]
    #[arg(long, value_name = "FILE", env = "FLAKEFARM_CONFIG", global = true)]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) action: TokenAction,
}

impl TokenArgs {
    /// The options that are settings.
    pub(crate) fn options(&self) -> Vec<GivenOption> {
        given(&[("stores.database", "--database", &self.database)])
    }
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenAction {
    /// Issue a token; it is printed once
    Create {
        /// read, submit or admin
        #[arg(long, default_value = "submit")]
        kind: TokenKind,
        /// Only this: read, submit, ingest, quarantine, admin or worker; may be repeated [default: what
        /// the kind includes]
        #[arg(long, value_name = "SCOPE")]
        scope: Vec<Scope>,
        /// Only for this project; may be repeated [default: all]
        #[arg(long, value_name = "NAME")]
        project: Vec<String>,
        /// What it is for
        #[arg(long, default_value = "")]
        label: String,
        /// Valid for this long [default: until revoked]
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        expires_in: Option<Duration>,
    },
    /// List tokens, without their secrets
    List,
    /// Revoke a token by its id
    Revoke {
        /// The third part of the token: ff_kind_ID_secret
        id: String,
    },
}
