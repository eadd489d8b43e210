//! `flakefarm notify` and `flakefarm digest`: who is told of what, and the week on one page.

use super::groups::FarmAddressArgs;
use super::looking::ListFormat;
use super::remembering::MemoryArgs;
use super::values::{duration, rate};
use clap::{Args, Subcommand, ValueEnum};
use flakefarm_coordinator::notify::Quiet;
use std::path::PathBuf;
use std::time::Duration;

/// `flakefarm notify`
#[derive(Debug, Args)]
pub(crate) struct NotifyArgs {
    #[command(subcommand)]
    pub(crate) action: NotifyAction,
}

/// What to do with channels.
#[derive(Debug, Subcommand)]
pub(crate) enum NotifyAction {
    /// Add a channel, or replace the one of this name
    Add(Box<ChannelAddArgs>),
    /// List channels
    List(ChannelListArgs),
    /// Remove a channel, with all that is on its way to it
    Remove(ChannelArgs),
    /// Send a message that only says that the channel works
    Try(ChannelArgs),
    /// List deliveries: those on their way, those that are dead, the last ones that arrived
    Deliveries(ChannelListArgs),
    /// Try dead deliveries again
    Retry(ChannelListArgs),
    /// Let comments of pull requests (`/flaky TEST:COUNT`) ask for reruns
    Hook(HookArgs),
}

/// `flakefarm notify add`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("to").required(true).args(["webhook", "slack_file", "github", "gitlab", "mail"]))]
pub(crate) struct ChannelAddArgs {
    /// Its name, unique within the project
    pub(crate) name: String,
    /// The project; * for the farm itself [default: the name in flakefarm.toml, else this directory's]
    #[arg(long, value_name = "NAME", env = "FLAKEFARM_PROJECT")]
    pub(crate) project: Option<String>,
    /// Send JSON there, signed with what --secret-file holds
    #[arg(long, value_name = "URL", requires = "secret_file")]
    pub(crate) webhook: Option<url::Url>,
    /// Send to the incoming webhook of Slack (or what takes its messages) whose address this file holds
    #[arg(long, value_name = "FILE")]
    pub(crate) slack_file: Option<PathBuf>,
    /// Comment on an issue or pull request, or open an issue for each cause
    #[arg(long, value_name = "OWNER/NAME[#N]", requires = "secret_file")]
    pub(crate) github: Option<String>,
    /// Write notes to an issue or merge request, or open an issue for each cause
    #[arg(long, value_name = "PROJECT[#issues/N|#merge_requests/N]", requires = "secret_file")]
    pub(crate) gitlab: Option<String>,
    /// Send mail to these addresses
    #[arg(long, value_name = "ADDRESS", num_args = 1.., requires_all = ["smtp_file", "from"])]
    pub(crate) mail: Vec<String>,
    /// The file that holds the webhook's secret, or the token of GitHub or GitLab
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// The address of the host's interface [default: https://api.github.com/, https://gitlab.com/api/v4/]
    #[arg(long, value_name = "URL")]
    pub(crate) api: Option<url::Url>,
    /// The file that holds smtp://user:password@host:587 or smtps://…
    #[arg(long, value_name = "FILE")]
    pub(crate) smtp_file: Option<PathBuf>,
    /// Who writes the mail
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) from: Option<String>,
    /// Tell of the tests of this owner only, as CODEOWNERS spells it; may be repeated
    #[arg(long = "owner", value_name = "OWNER")]
    pub(crate) owners: Vec<String>,
    /// Tell of tests that fail at least so often
    #[arg(long, value_name = "P", value_parser = rate)]
    pub(crate) alarm_rate: Option<flakefarm_coordinator::plan::Rate>,
    /// Tell that a test is well after so many healthy sweeps in a row
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) recovery_sweeps: u32,
    /// Send nothing in these hours, 22:00-07:00: it is sent when they are over
    #[arg(long, value_name = "FROM-TO")]
    pub(crate) quiet: Option<Quiet>,
    /// Send the digest of the week at these times, as a cron expression (0 8 * * 1); none if nothing happened
    #[arg(long, value_name = "EXPRESSION")]
    pub(crate) digest: Option<String>,
    /// The time zone of both
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    pub(crate) zone: String,
    #[command(flatten)]
    pub(crate) farm: FarmAddressArgs,
}

/// `flakefarm notify hook`
#[derive(Debug, Args)]
pub(crate) struct HookArgs {
    /// The file that holds the secret with which GitHub signs its deliveries
    #[arg(long, value_name = "FILE", required_unless_present = "remove")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Let them ask no more
    #[arg(long, conflicts_with = "secret_file")]
    pub(crate) remove: bool,
    /// The project [default: the name in flakefarm.toml, else this directory's]
    #[arg(long, value_name = "NAME", env = "FLAKEFARM_PROJECT")]
    pub(crate) project: Option<String>,
    #[command(flatten)]
    pub(crate) farm: FarmAddressArgs,
}

/// A channel.
#[derive(Debug, Args)]
pub(crate) struct ChannelArgs {
    /// Its name
    pub(crate) name: String,
    /// The project; * for the farm itself [default: the name in flakefarm.toml, else this directory's]
    #[arg(long, value_name = "NAME", env = "FLAKEFARM_PROJECT")]
    pub(crate) project: Option<String>,
    #[command(flatten)]
    pub(crate) farm: FarmAddressArgs,
}

/// Channels or deliveries of a project.
#[derive(Debug, Args)]
pub(crate) struct ChannelListArgs {
    /// The project; * for the farm itself [default: the name in flakefarm.toml, else this directory's]
    #[arg(long, value_name = "NAME", env = "FLAKEFARM_PROJECT")]
    pub(crate) project: Option<String>,
    #[command(flatten)]
    pub(crate) farm: FarmAddressArgs,
    /// How to print it
    #[arg(long, value_enum, default_value_t = ListFormat::Human)]
    pub(crate) format: ListFormat,
}

/// `flakefarm digest`
#[derive(Debug, Args)]
pub(crate) struct DigestArgs {
    #[command(flatten)]
    pub(crate) memory: MemoryArgs,
    /// How far back
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = duration)]
    pub(crate) since: Duration,
    /// As what
    #[arg(long, value_enum, default_value_t = DigestFormat::Markdown)]
    pub(crate) format: DigestFormat,
    /// Write it here instead of to standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// A digest's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DigestFormat {
    /// For a comment, an issue, a mail, and for reading
    Markdown,
    /// A page
    Html,
    /// For programs
    Json,
}
