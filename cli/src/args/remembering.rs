//! The commands that fill history from CI and ask it.

use super::groups::{FarmAddressArgs, given};
use super::values::{checked, duration};
use clap::{Args, Subcommand, ValueEnum};
use flakefarm_coordinator::history::ingest::ci;
use flakefarm_coordinator::history::moves::Move;
use flakefarm_project::config::GivenOption;
use std::path::PathBuf;

/// Which project's history, and where it is.
#[derive(Debug, Args)]
pub(crate) struct MemoryArgs {
    /// The project [default: the name in flakefarm.toml, else this directory's]
    #[arg(long, value_name = "NAME", env = "FLAKEFARM_PROJECT")]
    pub(crate) project: Option<String>,
    #[command(flatten)]
    pub(crate) farm: FarmAddressArgs,
    /// Where history is kept without a farm [default: $XDG_STATE_HOME/flakefarm]
    #[arg(long, value_name = "DIR", env = "FLAKEFARM_STATE")]
    pub(crate) state: Option<PathBuf>,
}

/// `flakefarm upload`
#[derive(Debug, Args)]
pub(crate) struct UploadArgs {
    /// Reports in JUnit XML or CTRF JSON: files, or patterns in quotes ('reports/**/*.xml'); may be repeated
    #[arg(long, value_name = "GLOB", required = true, num_args = 1..)]
    pub(crate) junit: Vec<String>,
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
    /// The revision that was tested [default: as the CI system says]
    #[arg(long, value_name = "REV", value_parser = revision)]
    pub(crate) revision: Option<String>,
    /// The branch it is on [default: as the CI system says]
    #[arg(long, value_name = "NAME")]
    pub(crate) branch: Option<String>,
    /// Where people see the job [default: as the CI system says]
    #[arg(long, value_name = "URL")]
    pub(crate) job_url: Option<String>,
    /// Which attempt at the job this is, from 1 [default: as the CI system says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) attempt: Option<u32>,
    /// What tells this run from others of the job (os=linux); may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = variant)]
    pub(crate) variant: Vec<String>,
    /// How to say what came of it
    #[arg(long, value_enum, default_value_t = AnswerFormat::Human)]
    pub(crate) format: AnswerFormat,
}

/// What questions to history share.
#[derive(Debug, Args)]
pub(crate) struct QuestionArgs {
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
    /// How many days back
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=400))]
    pub(crate) days: u16,
    /// Format of the answer
    #[arg(long, value_enum, default_value_t = AnswerFormat::Human)]
    pub(crate) format: AnswerFormat,
}

/// `flakefarm history`
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// The test, by its id
    pub(crate) test: String,
    #[command(flatten)]
    pub(crate) question: QuestionArgs,
}

/// `flakefarm tests`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct TestsArgs {
    #[command(subcommand)]
    pub(crate) action: Option<TestsAction>,
    #[command(flatten)]
    pub(crate) question: QuestionArgs,
    /// Show so many
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) limit: usize,
    /// Only those that are new, worse, better or gone this week
    #[arg(long, value_name = "MOVE", value_parser = moved)]
    pub(crate) moved: Option<Move>,
}

/// What else is done with tests.
#[derive(Debug, Subcommand)]
pub(crate) enum TestsAction {
    /// List the tests that were renamed or moved, and what they were
    Links(LinksArgs),
    /// Say that a test is what an earlier one was, so that its history goes on
    Link(LinkArgs),
    /// Take a link back, one that was found too: it is not found again
    Unlink(LinkArgs),
}

/// `flakefarm tests links`
#[derive(Debug, Args)]
pub(crate) struct LinksArgs {
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
    /// Format of the answer
    #[arg(long, value_enum, default_value_t = AnswerFormat::Human)]
    pub(crate) format: AnswerFormat,
}

/// `flakefarm tests link` and `unlink`
#[derive(Debug, Args)]
pub(crate) struct LinkArgs {
    /// The test, by its id
    pub(crate) test: String,
    /// What it was
    pub(crate) earlier: String,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
}

/// `flakefarm trends`
#[derive(Debug, Args)]
pub(crate) struct TrendsArgs {
    #[command(flatten)]
    pub(crate) question: QuestionArgs,
}

/// `flakefarm forecast`
#[derive(Debug, Args)]
pub(crate) struct ForecastArgs {
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
    /// How many days to learn from
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=400))]
    pub(crate) days: u16,
    /// Show so many
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
    /// Instead, the tests of this directory that are likely to need maintenance by the change since this revision,
    /// learnt from the commits before it
    #[arg(long, value_name = "REVISION", conflicts_with = "simulated")]
    pub(crate) since: Option<String>,
    /// Judge forecasts on simulated projects instead, from this seed
    #[arg(long, value_name = "SEED")]
    pub(crate) simulated: Option<u64>,
    /// Format of the answer
    #[arg(long, value_enum, default_value_t = AnswerFormat::Human)]
    pub(crate) format: AnswerFormat,
}

/// `flakefarm gc`
#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Configuration file with sections [stores] and [history]
    #[arg(long, value_name = "FILE", env = "FLAKEFARM_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Where history is kept without a farm [default: $XDG_STATE_HOME/flakefarm]
    #[arg(long, value_name = "DIR", env = "FLAKEFARM_STATE")]
    pub(crate) state: Option<PathBuf>,
    /// A farm's database, with --blobs: what its coordinator collects every day
    #[arg(long, value_name = "URL", requires = "blobs", conflicts_with = "state")]
    database: Option<String>,
    /// A farm's blobs
    #[arg(long, value_name = "URL", requires = "database")]
    blobs: Option<String>,
    #[command(flatten)]
    keep: KeepArgs,
    /// Say what would be deleted, and delete nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How to say it
    #[arg(long, value_enum, default_value_t = AnswerFormat::Human)]
    pub(crate) format: AnswerFormat,
}

impl GcArgs {
    /// The options that are settings.
    pub(crate) fn options(&self) -> Vec<GivenOption> {
        let stores =
            [("stores.database", "--database", &self.database), ("stores.blobs", "--blobs", &self.blobs)];
        given(&stores).into_iter().chain(self.keep.options()).collect()
    }

    /// Whether a farm's stores were named.
    pub(crate) fn names_a_farm(&self) -> bool {
        self.database.is_some()
    }
}

/// How long history and what sweeps made are kept.
#[derive(Debug, Clone, Args)]
pub(crate) struct KeepArgs {
    /// Points are kept so long [default: 14d]
    #[arg(long, value_name = "DURATION", value_parser = checked(duration))]
    keep_points: Option<String>,
    /// Sums by hour are kept so long [default: 90d]
    #[arg(long, value_name = "DURATION", value_parser = checked(duration))]
    keep_hourly: Option<String>,
    /// Sums by day, failures and runs of CI are kept so long [default: 400d]
    #[arg(long, value_name = "DURATION", value_parser = checked(duration))]
    keep_daily: Option<String>,
    /// Jobs, snapshots and outputs of sweeps that are over are kept so long; their reports are kept for ever
    /// [default: 90d]
    #[arg(long, value_name = "DURATION", value_parser = checked(duration))]
    keep_artifacts: Option<String>,
    /// Blobs that nothing refers to are left alone for so long after they were written [default: 24h]
    #[arg(long, value_name = "DURATION", value_parser = checked(duration))]
    keep_new_blobs: Option<String>,
}

impl KeepArgs {
    /// The options that are settings.
    pub(crate) fn options(&self) -> Vec<GivenOption> {
        given(&[
            ("history.keep_points", "--keep-points", &self.keep_points),
            ("history.keep_hourly", "--keep-hourly", &self.keep_hourly),
            ("history.keep_daily", "--keep-daily", &self.keep_daily),
            ("history.keep_artifacts", "--keep-artifacts", &self.keep_artifacts),
            ("history.keep_new_blobs", "--keep-new-blobs", &self.keep_new_blobs),
        ])
    }
}

/// The format of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AnswerFormat {
    /// Text for people
    Human,
    /// Versioned JSON
    Json,
    /// Comma-separated values
    Csv,
}

fn moved(text: &str) -> Result<Move, String> {
    Move::ALL
        .into_iter()
        .find(|moved| moved.word() == text)
        .ok_or_else(|| "a move is new, worse, better or gone".to_owned())
}

fn revision(text: &str) -> Result<String, String> {
    if ci::is_revision(text) {
        Ok(text.to_owned())
    } else {
        Err("a revision is a word of letters, digits and ._/+:@~^-, such as a commit's digest".to_owned())
    }
}

fn variant(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() && !text.contains(',') => {
            Ok(text.to_owned())
        }
        _ => Err("a variant is KEY=VALUE without commas, such as os=linux".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_checked() {
        assert!(variant("os=linux").is_ok() && variant("os").is_err() && variant("a=b,c=d").is_err());
        assert!(revision("3f2c1d").is_ok() && revision("not a revision").is_err());
    }
}
