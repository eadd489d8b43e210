//! What people type. Layers: flags over environment (`FLAKEFARM_*`) over `flakefarm.toml` over defaults.

use crate::bench::BenchArgs;
use clap::{Args, Parser, Subcommand, ValueEnum};
use flakefarm_coordinator::http::TokenKind;
use flakefarm_coordinator::plan::{Confidence, Rate, SandboxChoice, ScopeChoice};
use flakefarm_shared::Order;
use flakefarm_worker::sandbox::RuntimeChoice;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;

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
    /// Write a commented flakefarm.toml from what is detected
    Init(InitArgs),
    /// Show a JSON report again, in another format
    Report(ReportArgs),
    /// Measure what attempts cost here, at each level of isolation and in other ways
    Bench(Box<BenchArgs>),
    /// Say what is wrong with this machine or farm
    Doctor(DoctorArgs),
    /// Run a farm's coordinator
    Coordinator(CoordinatorArgs),
    /// Run one of a farm's workers
    Worker(WorkerArgs),
    /// Issue, list and revoke the tokens that guard a coordinator
    Token(TokenArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SweepArgs {
    /// The project's root
    #[arg(default_value = ".")]
    pub(crate) path: PathBuf,
    /// Configuration file, instead of flakefarm.toml in the project
    #[arg(long, value_name = "FILE", env = "FLAKEFARM_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Runs of each test, fixed
    #[arg(long, value_name = "N", env = "FLAKEFARM_RUNS")]
    pub(crate) runs: Option<NonZeroU32>,
    /// Find every test that flakes at this rate or above [default: 5%]
    #[arg(long, value_name = "P", env = "FLAKEFARM_MAX_FLAKE_RATE", value_parser = parse_rate, conflicts_with = "runs")]
    pub(crate) max_flake_rate: Option<Rate>,
    /// How sure verdicts are to be [default: 95%]
    #[arg(long, value_name = "P", env = "FLAKEFARM_CONFIDENCE", value_parser = parse_confidence)]
    pub(crate) confidence: Option<Confidence>,
    /// Attempts at once [default: the number of cores]
    #[arg(long, value_name = "N", env = "FLAKEFARM_WORKERS")]
    pub(crate) workers: Option<NonZeroU16>,
    /// Where all randomness of the sweep comes from; printed, so that it can be repeated
    #[arg(long, value_name = "S", env = "FLAKEFARM_SEED")]
    pub(crate) seed: Option<u64>,
    /// Only tests whose id is this, contains it, or matches it (with *); may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub(crate) tests: Vec<String>,
    /// What one attempt runs: test, file, suite, or auto
    #[arg(long, value_name = "SCOPE", env = "FLAKEFARM_SCOPE", value_parser = parse_scope)]
    pub(crate) scope: Option<ScopeChoice>,
    /// How attempts are isolated: container, nested, forked, forked-only, host, process, or auto
    /// [default: container]
    #[arg(long, value_name = "LEVEL", env = "FLAKEFARM_SANDBOX")]
    pub(crate) sandbox: Option<SandboxChoice>,
    /// Only this order: given, reversed, or shuffled:SEED
    #[arg(long, value_name = "ORDER", value_parser = parse_order)]
    pub(crate) order: Option<Order>,
    /// Container runtime: auto, default, or a name that the engine knows (crun, runsc, kata)
    #[arg(long, value_name = "NAME", env = "FLAKEFARM_RUNTIME", default_value = "auto")]
    pub(crate) runtime: RuntimeChoice,
    /// A farm's coordinator; without it everything runs in this process
    #[arg(long, value_name = "URL", env = "FLAKEFARM_FARM")]
    pub(crate) farm: Option<String>,
    /// Token for the farm
    #[arg(long, value_name = "TOKEN", env = "FLAKEFARM_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Somebody is waiting: use the farm's interactive queue
    #[arg(long)]
    pub(crate) interactive: bool,
    /// Go on with the last interrupted sweep of this project
    #[arg(long, conflicts_with_all = ["runs", "max_flake_rate", "seed", "tests", "scope", "order", "sandbox", "farm"])]
    pub(crate) resume: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Exit with 1 if such tests are found (3 for inconclusive)
    #[arg(long, value_name = "VERDICT", value_delimiter = ',')]
    pub(crate) fail_on: Vec<Gate>,
    /// Where embedded sweeps keep their state
    #[arg(long, value_name = "DIR", env = "FLAKEFARM_STATE")]
    pub(crate) state: Option<PathBuf>,
    /// Further arguments for the test framework
    #[arg(last = true, value_name = "FRAMEWORK ARGS")]
    pub(crate) framework_arguments: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// Format of the report
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(crate) format: Format,
    /// Write the report here instead of to standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Also write an HTML report with pictures
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table for people
    Human,
    /// The versioned JSON report
    Json,
    /// JUnit XML
    Junit,
    /// Markdown, for comments and job summaries
    Markdown,
    /// GitHub annotations
    Github,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Gate {
    /// Flaky or fragile tests
    Flaky,
    /// Tests that always fail
    Broken,
    /// Tests without a verdict
    Inconclusive,
}

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

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// A report written with --format json
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Where embedded sweeps keep their state (for the outputs shown in HTML)
    #[arg(long, value_name = "DIR", env = "FLAKEFARM_STATE")]
    pub(crate) state: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
}

/// The addresses that choose the adapters; nothing else differs between one process and a cluster.
#[derive(Debug, Clone, Args)]
pub(crate) struct StoreArgs {
    /// sqlite:/path/file or postgres://…
    #[arg(long, value_name = "URL", env = "FLAKEFARM_DATABASE", hide_env_values = true)]
    pub(crate) database: Option<String>,
    /// amqp://… (a farm of several processes needs a broker)
    #[arg(long, value_name = "URL", env = "FLAKEFARM_QUEUE", hide_env_values = true)]
    pub(crate) queue: Option<String>,
    /// redis://… or embedded:/path/file
    #[arg(long, value_name = "URL", env = "FLAKEFARM_SAMPLES", hide_env_values = true)]
    pub(crate) samples: Option<String>,
    /// file:///directory shared by all, or an object store (s3://…, gs://…, az://…)
    #[arg(long, value_name = "URL", env = "FLAKEFARM_BLOBS")]
    pub(crate) blobs: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CoordinatorArgs {
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", env = "FLAKEFARM_LISTEN", default_value = "127.0.0.1:7878")]
    pub(crate) listen: String,
    /// A job without news for this long is given to another worker
    #[arg(long, value_name = "DURATION", env = "FLAKEFARM_LEASE", default_value = "10m", value_parser = humantime::parse_duration)]
    pub(crate) lease: std::time::Duration,
    /// Issue an admin token into this file (readable by its owner only) if the coordinator has none
    #[arg(long, value_name = "FILE", env = "FLAKEFARM_ADMIN_TOKEN_FILE")]
    pub(crate) admin_token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
    /// Its name, unique on the farm [default: host name and process id]
    #[arg(long, value_name = "NAME", env = "FLAKEFARM_WORKER_ID")]
    pub(crate) id: Option<String>,
    /// Container runtime: auto, default, or a name that the engine knows (crun, runsc, kata)
    #[arg(long, value_name = "NAME", env = "FLAKEFARM_RUNTIME", default_value = "auto")]
    pub(crate) runtime: RuntimeChoice,
    /// Jobs at once [default: the number of cores]
    #[arg(long, value_name = "N", env = "FLAKEFARM_SLOTS")]
    pub(crate) slots: Option<NonZeroU16>,
}

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// The coordinator's database
    #[arg(long, value_name = "URL", env = "FLAKEFARM_DATABASE", hide_env_values = true, global = true)]
    pub(crate) database: Option<String>,
    #[command(subcommand)]
    pub(crate) action: TokenAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenAction {
    /// Issue a token; it is printed once
    Create {
        /// read, submit or admin
        #[arg(long, default_value = "submit")]
        kind: TokenKind,
        /// What it is for
        #[arg(long, default_value = "")]
        label: String,
        /// Valid for this long [default: until revoked]
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        expires_in: Option<std::time::Duration>,
    },
    /// List tokens, without their secrets
    List,
    /// Revoke a token by its id
    Revoke {
        /// The third part of the token: ff_kind_ID_secret
        id: String,
    },
}

/// `0.05` or `5%`.
fn parse_share(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    number
        .trim()
        .parse::<f64>()
        .map(|n| n / scale)
        .map_err(|_| format!("`{text}` is no share: write 0.05 or 5%"))
}

fn parse_rate(text: &str) -> Result<Rate, String> {
    Rate::new(parse_share(text)?).map_err(|error| error.to_string())
}

fn parse_confidence(text: &str) -> Result<Confidence, String> {
    Confidence::new(parse_share(text)?).map_err(|error| error.to_string())
}

fn parse_scope(text: &str) -> Result<ScopeChoice, String> {
    ScopeChoice::ALL
        .into_iter()
        .find(|scope| scope.word() == text)
        .ok_or_else(|| format!("`{text}` is no scope: test, file, suite or auto"))
}

pub(crate) fn parse_order(text: &str) -> Result<Order, String> {
    match text.split_once(':') {
        None if text == "given" => Ok(Order::Given),
        None if text == "reversed" => Ok(Order::Reversed),
        Some(("shuffled", seed)) => seed
            .parse()
            .map(|seed| Order::Shuffled { seed })
            .map_err(|_| format!("`{seed}` is no seed: a whole number")),
        _ => Err(format!("`{text}` is no order: given, reversed, or shuffled:SEED")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn shares_are_written_either_way() {
        assert_eq!(parse_share("5%"), Ok(0.05));
        assert_eq!(parse_share("0.05"), Ok(0.05));
        assert!(parse_share("five").is_err());
    }

    #[test]
    fn orders_round_trip_from_the_reproduce_command() {
        assert_eq!(parse_order("shuffled:7"), Ok(Order::Shuffled { seed: 7 }));
        assert!(parse_order("shuffled").is_err());
        assert!(parse_order("sideways").is_err());
    }
}
