//! What people type. Layers: flags over environment (`FLAKEFARM_*`) over `flakefarm.toml` over defaults.

use crate::bench::BenchArgs;
use clap::{Args, Parser, Subcommand, ValueEnum};
use flakefarm_coordinator::http::TokenKind;
use flakefarm_coordinator::plan::{
    Budget, Confidence, Guarantee, Panel, QuestionError, Rate, SandboxChoice, ScopeChoice,
};
use flakefarm_shared::{Order, World};
use flakefarm_worker::sandbox::RuntimeChoice;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::str::FromStr;

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
    /// Write a commented flakefarm.toml from what is detected
    Init(InitArgs),
    /// Show a JSON report again, in another format
    Report(ReportArgs),
    /// Measure what attempts cost here, at each level of isolation and in other ways
    Bench(Box<BenchArgs>),
    /// Measure planner and scorer on suites whose truth is known
    Simulate(SimulateArgs),
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
    #[arg(long, value_name = "N", value_parser = counted::<NonZeroU32>, env = "FLAKEFARM_RUNS")]
    pub(crate) runs: Option<NonZeroU32>,
    /// Find every test that flakes at this rate or above [default: 5%]
    #[arg(long, value_name = "P", env = "FLAKEFARM_MAX_FLAKE_RATE", value_parser = parse_rate)]
    pub(crate) max_flake_rate: Option<Rate>,
    /// How sure verdicts are to be [default: 95%]
    #[arg(long, value_name = "P", env = "FLAKEFARM_CONFIDENCE", value_parser = parse_confidence)]
    pub(crate) confidence: Option<Confidence>,
    /// Of what the confidence speaks: each test, or the suite as a whole, which takes far fewer runs
    /// [default: test]
    #[arg(long, value_name = "test|suite", env = "FLAKEFARM_GUARANTEE", value_parser = parse_guarantee)]
    pub(crate) guarantee: Option<Guarantee>,
    /// What the sweep may cost: 10m (on the clock), container:2h (container time) or attempts:500
    #[arg(long, value_name = "BUDGET", env = "FLAKEFARM_BUDGET", value_parser = parse_budget)]
    pub(crate) budget: Option<Budget>,
    /// Attempts at once [default: the number of cores]
    #[arg(long, value_name = "N", value_parser = counted::<NonZeroU16>, env = "FLAKEFARM_WORKERS")]
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
    /// Conditions to try before anything is repeated: quick (about ten), full, or none [default: quick]
    #[arg(long, value_name = "PANEL", env = "FLAKEFARM_PANEL")]
    pub(crate) panel: Option<Panel>,
    /// Run everything under this condition (see docs/conditions.md), and try no others
    #[arg(long, value_name = "CONDITION", conflicts_with = "panel")]
    pub(crate) under: Option<World>,
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
    #[arg(long, conflicts_with_all = ["runs", "max_flake_rate", "confidence", "guarantee", "budget", "seed", "tests", "scope", "order", "panel", "under", "sandbox", "farm"])]
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
pub(crate) struct DiagnoseArgs {
    /// Tests, each by its id, a part of it or a pattern with *; then the project's root if it is not
    /// this directory
    #[arg(required = true, value_name = "TEST... [PATH]")]
    pub(crate) tests: Vec<String>,
    /// Configuration file, instead of flakefarm.toml in the project
    #[arg(long, value_name = "FILE", env = "FLAKEFARM_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// How sure a cause is to be [default: 95%]
    #[arg(long, value_name = "P", env = "FLAKEFARM_CONFIDENCE", value_parser = parse_confidence)]
    pub(crate) confidence: Option<Confidence>,
    /// Attempts at once [default: the number of cores]
    #[arg(long, value_name = "N", value_parser = counted::<NonZeroU16>, env = "FLAKEFARM_WORKERS")]
    pub(crate) workers: Option<NonZeroU16>,
    /// Where all randomness comes from; printed, so that it can be repeated
    #[arg(long, value_name = "S", env = "FLAKEFARM_SEED")]
    pub(crate) seed: Option<u64>,
    /// Only these tests are its neighbours; may be repeated [default: all]
    #[arg(long, value_name = "PATTERN")]
    pub(crate) among: Vec<String>,
    /// An order in which it is known to fail: given, reversed, or shuffled:SEED
    #[arg(long, value_name = "ORDER", value_parser = parse_order)]
    pub(crate) order: Option<Order>,
    /// A farm's coordinator; without it everything runs in this process
    #[arg(long, value_name = "URL", env = "FLAKEFARM_FARM")]
    pub(crate) farm: Option<String>,
    /// Token for the farm
    #[arg(long, value_name = "TOKEN", env = "FLAKEFARM_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Somebody is waiting: use the farm's interactive queue
    #[arg(long)]
    pub(crate) interactive: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Where embedded sweeps keep their state
    #[arg(long, value_name = "DIR", env = "FLAKEFARM_STATE")]
    pub(crate) state: Option<PathBuf>,
    /// Further arguments for the test framework
    #[arg(last = true, value_name = "FRAMEWORK ARGS")]
    pub(crate) framework_arguments: Vec<String>,
}

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
    #[arg(long, value_name = "SCOPE", default_value = "test", value_parser = parse_scope)]
    pub(crate) scope: ScopeChoice,
    /// The order it fails in: given, reversed, or shuffled:SEED
    #[arg(long, value_name = "ORDER", value_parser = parse_order, default_value = "given")]
    pub(crate) order: Order,
    /// The condition it fails under, such as time-zone:ahead
    #[arg(long, value_name = "CONDITION", default_value = "plain")]
    pub(crate) under: World,
    /// Configuration file for all revisions, instead of flakefarm.toml in the project
    #[arg(long, value_name = "FILE", env = "FLAKEFARM_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// How sure the answer is to be [default: 95%]
    #[arg(long, value_name = "P", env = "FLAKEFARM_CONFIDENCE", value_parser = parse_confidence)]
    pub(crate) confidence: Option<Confidence>,
    /// Attempts at once [default: the number of cores]
    #[arg(long, value_name = "N", value_parser = counted::<NonZeroU16>, env = "FLAKEFARM_WORKERS")]
    pub(crate) workers: Option<NonZeroU16>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Where embedded sweeps keep their state
    #[arg(long, value_name = "DIR", env = "FLAKEFARM_STATE")]
    pub(crate) state: Option<PathBuf>,
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
pub(crate) struct SimulateArgs {
    /// Tests of the suite
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub(crate) tests: usize,
    /// Where all randomness comes from: a seed names a simulation
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// First sweeps, each of another suite, that are added up [default: 40,000 tests' worth, at most 40]
    #[arg(long, value_name = "N", value_parser = counted::<NonZeroU32>)]
    pub(crate) sweeps: Option<NonZeroU32>,
    /// Nights of history
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub(crate) nights: u32,
    /// Share of the tests that change before each night
    #[arg(long, value_name = "P", default_value = "5%", value_parser = parse_share)]
    pub(crate) changed: f64,
    /// Share of attempts that end with an infrastructure error, where the farm has errors
    #[arg(long, value_name = "P", default_value = "5%", value_parser = parse_share)]
    pub(crate) infrastructure_errors: f64,
    /// Of each test, or of the suite [default: both]
    #[arg(long, value_name = "test|suite", value_parser = parse_guarantee)]
    pub(crate) guarantee: Option<Guarantee>,
    /// Find every test that flakes at this rate or above [default: 5%]
    #[arg(long, value_name = "P", value_parser = parse_rate)]
    pub(crate) max_flake_rate: Option<Rate>,
    /// How sure verdicts are to be [default: 95%]
    #[arg(long, value_name = "P", value_parser = parse_confidence)]
    pub(crate) confidence: Option<Confidence>,
    /// Jobs at once [default: by the number of tests]
    #[arg(long, value_name = "N", value_parser = counted::<NonZeroU16>)]
    pub(crate) workers: Option<NonZeroU16>,
    /// Only how long planning takes, and how much memory
    #[arg(long)]
    pub(crate) plan_only: bool,
    /// How to print it
    #[arg(long, value_enum, default_value_t = SimulationFormat::Human)]
    pub(crate) format: SimulationFormat,
    /// Write pictures (SVG) into this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SimulationFormat {
    /// Tables for people
    Human,
    /// All numbers
    Json,
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
    #[arg(long, value_name = "N", value_parser = counted::<NonZeroU16>, env = "FLAKEFARM_SLOTS")]
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

/// A number of things, of which there must be one at least.
pub(crate) fn counted<N: FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| match text.trim().parse::<u64>() {
        Ok(0) => "0 is none: choose 1 or more".to_owned(),
        Ok(_) => format!("{text} is more than there can be"),
        Err(_) => format!("`{text}` is not a whole number"),
    })
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

fn parse_guarantee(text: &str) -> Result<Guarantee, String> {
    text.parse::<Guarantee>().map_err(|error| error.to_string())
}

fn parse_budget(text: &str) -> Result<Budget, String> {
    text.parse().map_err(|error: QuestionError| error.to_string())
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
