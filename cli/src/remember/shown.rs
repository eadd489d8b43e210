//! How numbers of history are shown to people.

use flakefarm_coordinator::calendar::date_of;
use flakefarm_coordinator::db::RunsOfClass;
use flakefarm_coordinator::history::questions::{CostSeen, RateSeen};
use flakefarm_shared::UnixMicros;
use flakefarm_shared::samples::codec;

/// One sign per value, its height by the share of the largest (or of `full`).
pub(super) fn sparkline(values: &[f64], full: Option<f64>) -> String {
    const SIGNS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = full.unwrap_or_else(|| values.iter().copied().fold(0.0, f64::max));
    // The last sixty: a line of a terminal.
    let start = values.len().saturating_sub(60);
    values[start..]
        .iter()
        .map(|value| {
            let share = if most > 0.0 { (value / most).clamp(0.0, 1.0) } else { 0.0 };
            // What is not zero shows.
            let step = if share > 0.0 { ((share * 7.0).ceil() as usize).clamp(1, 7) } else { 0 };
            SIGNS[step]
        })
        .collect()
}

pub(super) fn date(at: UnixMicros) -> String {
    date_of(codec::day_of(at)).to_string()
}

/// A date, and the hour where it is not midnight.
pub(super) fn moment(at: UnixMicros) -> String {
    match codec::hour_of_day(at) {
        0 => date(at),
        hour => format!("{} {hour:02}:00", date(at)),
    }
}

pub(super) fn milliseconds(ms: f64) -> String {
    if ms >= 1_000.0 { format!("{:.2} s", ms / 1_000.0) } else { format!("{ms:.0} ms") }
}

pub(super) fn minutes(minutes: f64) -> String {
    if minutes >= 90.0 { format!("{:.1} h", minutes / 60.0) } else { format!("{minutes:.1} min") }
}

pub(super) fn days(days: f64) -> String {
    if days < 2.0 { format!("{:.0} h", days * 24.0) } else { format!("{days:.1} days") }
}

pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} bytes"),
        1_024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1_024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

pub(super) fn rate(rate: &RateSeen) -> String {
    format!(
        "{} ({} to {} at {:.0} %)",
        percent(rate.estimate),
        percent(rate.lower),
        percent(rate.upper),
        rate.confidence * 100.0
    )
}

pub(crate) fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most).chain(std::iter::once('…')).collect()
}

/// What something has cost, in words.
pub(super) fn cost(cost: &CostSeen) -> String {
    let mut parts = Vec::new();
    if cost.ci_runs > 0 {
        parts.push(format!("{} runs in CI ({})", cost.ci_runs, minutes(cost.ci_minutes)));
    }
    for (count, what) in [
        (cost.failed_pipelines, "failed pipelines"),
        (cost.retries, "retries"),
        (cost.reruns, "reruns by people"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    if cost.rerun_minutes > 0.0 {
        parts.push(format!("{} of reruns", minutes(cost.rerun_minutes)));
    }
    if cost.farm_runs > 0 {
        parts.push(format!("{} runs here ({})", cost.farm_runs, minutes(cost.farm_minutes)));
    }
    parts.join(", ")
}

/// The runs that an answer rests on, one line.
pub(super) fn rests_on(runs: &[RunsOfClass]) -> String {
    if runs.is_empty() {
        return "no run in this window".to_owned();
    }
    let of_class = |of: &RunsOfClass| {
        let incidents =
            if of.incidents > 0 { format!(", {} incidents left out", of.incidents) } else { String::new() };
        format!("{} {} ({}, {} revisions{incidents})", of.runs, of.origin, of.class, of.revisions)
    };
    format!("rests on {}", runs.iter().map(of_class).collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_zero_shows_in_a_sparkline() {
        assert_eq!(sparkline(&[0.0, 0.01, 0.5, 1.0], Some(1.0)), "▁▂▅█");
        assert_eq!(sparkline(&[], None), "");
        assert_eq!(sparkline(&[0.0, 0.0], None), "▁▁");
        assert_eq!(sparkline(&[1.0; 100], None).chars().count(), 60);
    }

    #[test]
    fn units_are_those_that_read_well() {
        assert_eq!((days(0.25), days(3.04)), ("6 h".to_owned(), "3.0 days".to_owned()));
        assert_eq!((minutes(0.25), minutes(240.0)), ("0.2 min".to_owned(), "4.0 h".to_owned()));
        assert_eq!((milliseconds(12.4), milliseconds(1_500.0)), ("12 ms".to_owned(), "1.50 s".to_owned()));
    }
}
