//! The settings of a farm's roles: from a file with sections `[stores]`, `[coordinator]` and
//! `[worker]`, the environment, and options. Addresses may hold passwords: they are never shown, and
//! may come from files (`FLAKEFARM_DATABASE_FILE`, `database_file`).

use crate::args::RoleArgs;
use crate::exit::Complaint;
use crate::output;
use crate::role_keys::ROLE_KEYS;
use crate::say::say;
use flakefarm_coordinator::engine::{Fetching, Limits, Quotas};
use flakefarm_coordinator::history::retention::HistoryRetention;
use flakefarm_project::config::{GivenOption, GivenValue};
use flakefarm_project::fetch::FetchLimits;
use flakefarm_project::settings::{Layers, Setting, Settings, print};
use std::path::Path;

/// Merges the layers; what is unknown in the file is said.
pub(crate) fn settings(config: Option<&Path>, options: &[GivenOption]) -> Result<Settings, Complaint> {
    let mut layers = Layers::new(ROLE_KEYS);
    if let Some(path) = config {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Complaint::usage(format!("failed to read {}: {error}", path.display()))
                .hint("--config (FLAKEFARM_CONFIG) names a TOML file")
        })?;
        layers.file(&text, path).map_err(|error| Complaint::of_setting(&error))?;
    }
    let lookup = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    layers.environment(&lookup).map_err(|error| Complaint::of_setting(&error))?;
    for given in options {
        let added = match &given.value {
            GivenValue::Text(text) => layers.option(given.key, given.option, text),
            GivenValue::InFile(path) => layers.option_file(given.key, given.option, path),
        };
        added.map_err(|error| Complaint::of_setting(&error))?;
    }
    let settings = layers.settle();
    for warning in &settings.warnings {
        say(format!("warning: {warning}"));
    }
    Ok(settings)
}

/// The settings of a role; `None` if they were only to be printed.
pub(crate) fn of_role(args: &RoleArgs, options: &[GivenOption]) -> Result<Option<Settings>, Complaint> {
    let settings = settings(args.config.as_deref(), options)?;
    if args.print_config {
        output::print(&print(&settings))?;
        return Ok(None);
    }
    Ok(Some(settings))
}

/// What one sweep may ask for.
pub(crate) fn limits(settings: &Settings) -> Limits {
    let default = Limits::FARM;
    Limits { samples: settings.whole("coordinator.limit_samples").unwrap_or(default.samples), ..default }
}

/// What one project may have.
pub(crate) fn quotas(settings: &Settings) -> Quotas {
    let default = Quotas::FARM;
    Quotas {
        queued_attempts: settings.whole("coordinator.quota_attempts").unwrap_or(default.queued_attempts),
        running_jobs: settings.whole("coordinator.quota_jobs").unwrap_or(default.running_jobs),
        stored_bytes: settings.size("coordinator.quota_bytes").unwrap_or(default.stored_bytes),
    }
}

/// What is fetched for schedules.
pub(crate) fn fetching(settings: &Settings) -> Fetching {
    let default = FetchLimits::default();
    let limits = FetchLimits {
        bytes: settings.size("coordinator.fetch_size").unwrap_or(default.bytes),
        time: settings.duration("coordinator.fetch_time").unwrap_or(default.time),
    };
    Fetching { limits, hosts: settings.texts("coordinator.git_hosts") }
}

/// How long history and what sweeps made are kept.
pub(crate) fn retention(settings: &Settings) -> Result<HistoryRetention, Complaint> {
    let default = HistoryRetention::default();
    let keep = HistoryRetention {
        points: settings.duration("history.keep_points").unwrap_or(default.points),
        hourly: settings.duration("history.keep_hourly").unwrap_or(default.hourly),
        daily: settings.duration("history.keep_daily").unwrap_or(default.daily),
        artifacts: settings.duration("history.keep_artifacts").unwrap_or(default.artifacts),
        grace: settings.duration("history.keep_new_blobs").unwrap_or(default.grace),
    };
    keep.checked().map_err(|why| {
        Complaint::usage(why).hint("--keep-… , FLAKEFARM_KEEP_… , or keep_… under [history] in --config FILE")
    })
}

/// The same for commands without such options: from the environment.
pub(crate) fn retention_here() -> Result<HistoryRetention, Complaint> {
    retention(&settings(None, &[])?)
}

/// An address that a role cannot do without: its option and its variable are named if it is missing.
pub(crate) fn needed(settings: &Settings, key: &'static str) -> Result<String, Complaint> {
    settings.text(key).ok_or_else(|| {
        let name = key.rsplit('.').next().unwrap_or(key);
        let variable = ROLE_KEYS.iter().find(|setting| setting.key == key).and_then(Setting::of_variable);
        Complaint::usage(format!("--{name} is needed")).hint(format!(
            "or set {}, or `{name}` under [stores] in --config FILE",
            variable.unwrap_or_default()
        ))
    })
}

/// The broker's address. An embedded queue cannot leave its process.
pub(crate) fn queue(settings: &Settings) -> Result<String, Complaint> {
    let queue = needed(settings, "stores.queue")?;
    if queue.starts_with("embedded:") {
        return Err(Complaint::usage("an embedded queue cannot leave its process")
            .hint("a farm of several processes needs a broker: --queue amqp://…"));
    }
    Ok(queue)
}
