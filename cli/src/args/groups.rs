//! The groups of options that commands share. Options that are settings, too, are texts here: they are
//! checked as they are typed, and read once the layers of settings are merged.

use super::values::{checked, confidence, counted, parsed};
use clap::{Args, ValueEnum};
use flakefarm_coordinator::plan::SandboxChoice;
use flakefarm_project::config::{GivenOption, GivenValue};
use std::num::NonZeroU16;
use std::path::PathBuf;

/// What every question about a project takes.
#[derive(Debug, Default, Args)]
pub(crate) struct AskArgs {
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
    #[command(flatten)]
    pub(crate) execution: ExecutionArgs,
    #[command(flatten)]
    pub(crate) farm: FarmArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Which configuration.
#[derive(Debug, Default, Args)]
pub(crate) struct ProjectArgs {
    /// Configuration file, instead of flakefarm.toml in the project
    #[arg(long, value_name = "FILE", env = "FLAKEFARM_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Print all settings, each with where it comes from, and do nothing else
    #[arg(long)]
    pub(crate) print_config: bool,
    /// What runs the tests: pytest or unittest [default: what the project uses]
    #[arg(long, value_name = "NAME", value_parser = ["pytest", "unittest"])]
    pub(crate) framework: Option<String>,
    /// Further arguments for the test framework
    #[arg(last = true, value_name = "FRAMEWORK ARGS")]
    pub(crate) framework_arguments: Vec<String>,
}

/// How attempts are made.
#[derive(Debug, Default, Args)]
pub(crate) struct ExecutionArgs {
    /// How sure the answer is to be [default: 95%]
    #[arg(long, value_name = "P", value_parser = checked(confidence))]
    confidence: Option<String>,
    /// Attempts at once [default: the number of cores]
    #[arg(long, value_name = "N", value_parser = checked(counted::<NonZeroU16>))]
    workers: Option<String>,
    /// Where all randomness comes from; printed, so that it can be repeated
    #[arg(long, value_name = "S", value_parser = checked(parsed::<u64>))]
    seed: Option<String>,
    /// How attempts are isolated: container, nested, forked, forked-only, host, process, or auto
    /// [default: container]
    #[arg(long, value_name = "LEVEL", value_parser = checked(parsed::<SandboxChoice>))]
    sandbox: Option<String>,
    /// Container runtime: auto, default, or a name that the engine knows (crun, runsc, kata)
    #[arg(long, value_name = "NAME")]
    runtime: Option<String>,
    /// Where embedded sweeps keep their state [default: $XDG_STATE_HOME/flakefarm]
    #[arg(long, value_name = "DIR", env = "FLAKEFARM_STATE")]
    pub(crate) state: Option<PathBuf>,
}

/// Which farm, if any.
#[derive(Debug, Default, Args)]
pub(crate) struct FarmArgs {
    #[command(flatten)]
    pub(crate) address: FarmAddressArgs,
    /// Somebody is waiting: use the farm's interactive queue
    #[arg(long)]
    pub(crate) interactive: bool,
    /// Submit to the farm, print the sweep's id and do not wait for it
    #[arg(long)]
    pub(crate) detach: bool,
}

/// Where a farm is, and what opens it.
#[derive(Debug, Default, Args)]
pub(crate) struct FarmAddressArgs {
    /// Address of a farm's coordinator; without one, questions are answered in this process
    #[arg(long, value_name = "URL")]
    farm: Option<String>,
    /// Token for the farm
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,
    /// File that holds the token and nothing else
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// How the report is written.
#[derive(Debug, Default, Args)]
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

/// A report's format.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table for people
    #[default]
    Human,
    /// The versioned JSON report
    Json,
    /// JUnit XML
    Junit,
    /// Markdown, for comments and job summaries
    Markdown,
    /// GitHub annotations
    Github,
    /// GitLab's code quality report
    Gitlab,
}

impl AskArgs {
    /// The options of these groups that are settings.
    pub(crate) fn options(&self) -> Vec<GivenOption> {
        let execution = &self.execution;
        let mut given = given(&[
            ("tests.framework", "--framework", &self.project.framework),
            ("sweep.confidence", "--confidence", &execution.confidence),
            ("sweep.workers", "--workers", &execution.workers),
            ("sweep.seed", "--seed", &execution.seed),
            ("sweep.sandbox", "--sandbox", &execution.sandbox),
            ("sweep.runtime", "--runtime", &execution.runtime),
        ]);
        given.extend(self.farm.address.options());
        given
    }
}

impl FarmAddressArgs {
    /// The same for these.
    pub(crate) fn options(&self) -> Vec<GivenOption> {
        let mut given = given(&[("farm.url", "--farm", &self.farm), ("farm.token", "--token", &self.token)]);
        given.extend(self.token_file.iter().map(|path| GivenOption {
            key: "farm.token",
            option: "--token-file",
            value: GivenValue::InFile(path.clone()),
        }));
        given
    }
}

/// Those of them that were given: key, option, value.
pub(crate) fn given(options: &[(&'static str, &'static str, &Option<String>)]) -> Vec<GivenOption> {
    let present = options.iter().filter_map(|(key, option, text)| Some((*key, *option, text.as_ref()?)));
    present
        .map(|(key, option, text)| GivenOption { key, option, value: GivenValue::Text(text.clone()) })
        .collect()
}
