//! The digest as Markdown: a comment, an issue, a mail.

use super::Digest;
use crate::history::moves::Move;
use crate::history::recovery::Recovery;
use crate::notify::message::{called, code, escaped};
use std::fmt::Write as _;

/// Writes it.
pub fn render(digest: &Digest) -> String {
    let mut text = String::new();
    let mut line = |args: std::fmt::Arguments<'_>| {
        text.write_fmt(args).expect("writing to memory");
        text.push('\n');
    };
    line(format_args!("## {}: {} to {}\n", escaped(&digest.project), digest.from, digest.to));
    line(format_args!("**{}**\n", digest.headline()));
    line(format_args!(
        "{} runs of tests, {} of them failed. {}",
        digest.runs,
        digest.failures,
        recovery(&digest.recovery, &digest.recovery_before)
    ));
    let cost = digest.cost;
    if cost.failed_pipelines + cost.reruns > 0 || cost.farm_minutes >= 1.0 {
        line(format_args!(
            "Flaky tests broke {} and had {} started again ({:.0} minutes); the farm ran them for {:.0} minutes.",
            counted(cost.failed_pipelines, "pipeline", "pipelines"),
            cost.reruns,
            cost.rerun_minutes,
            cost.farm_minutes
        ));
    }
    if digest.repairs.tried > 0 {
        line(format_args!(
            "Repairs: {} of {} were proved by experiment.",
            digest.repairs.proved, digest.repairs.tried
        ));
    }
    for (repair, mended) in &digest.proposed {
        let tests: Vec<String> = mended.iter().map(|test| code(test)).collect();
        line(format_args!("- a proved patch for {}: `flakefarm repair --show {repair}`", tests.join(", ")));
    }
    for (moved, heading) in
        [(Move::New, "Newly flaky"), (Move::Worse, "Worse"), (Move::Better, "Better"), (Move::Gone, "Fixed")]
    {
        let tests: Vec<_> = digest.moved.iter().filter(|test| test.moved == moved).collect();
        if tests.is_empty() {
            continue;
        }
        line(format_args!("\n### {heading}\n"));
        for test in &tests {
            line(format_args!(
                "- {}: {} of {} runs failed, before {} of {} ({}){}",
                code(&test.test),
                test.now.failures,
                test.now.runs,
                test.before.failures,
                test.before.runs,
                escaped(&test.class),
                digest.owner(&test.test, called)
            ));
        }
        let all = digest.moves.get(moved.word()).copied().unwrap_or(0);
        if all > tests.len() as u64 {
            line(format_args!("- and {} more", all - tests.len() as u64));
        }
    }
    let quarantine = &digest.quarantine;
    if quarantine.entries + quarantine.entered + quarantine.left > 0 {
        line(format_args!(
            "\n### Quarantine\n\n{}; {} entered, {} left healthy, {} expired.",
            counted(quarantine.entries, "entry", "entries"),
            quarantine.entered,
            quarantine.left,
            quarantine.expired.len()
        ));
        for test in quarantine.expired.iter().take(20) {
            line(format_args!("- expired: {}{}", code(test), digest.owner(test, called)));
        }
    }
    if !digest.causes.is_empty() {
        line(format_args!("\n### Causes\n"));
        for (cause, tests) in digest.causes.iter().take(10) {
            line(format_args!("- {}: {tests}", escaped(cause)));
        }
    }
    if !digest.priorities.is_empty() {
        line(format_args!("\n### To be mended first\n"));
        line(format_args!("| test | cost | chance | cause | owner |"));
        line(format_args!("| --- | ---: | ---: | --- | --- |"));
        for priority in &digest.priorities {
            line(format_args!(
                "| {} | {:.0} min | {:.0} % | {} | {} |",
                code(&priority.test).replace('|', "\\|"),
                priority.minutes,
                priority.chance * 100.0,
                escaped(priority.cause.as_deref().unwrap_or("not known yet")),
                digest.owners.get(&priority.test).map_or_else(String::new, |owner| called(owner))
            ));
        }
    }
    if !digest.advice.is_empty() {
        line(format_args!("\n### To be typed\n"));
        for advice in &digest.advice {
            line(format_args!("- {}: {}", escaped(&advice.why), code(&advice.command)));
        }
    }
    text
}

/// So many of something.
pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// How long tests stay red, and whether that became longer.
pub(super) fn recovery(now: &Recovery, before: &Recovery) -> String {
    let Some(mean) = now.mean_days else { return "No test was red.".to_owned() };
    let least = if now.mean_is_lower_bound { "at least " } else { "" };
    let trend = match before.mean_days {
        Some(before) if before > mean * 1.1 => format!(" (before: {before:.1}, shorter now)"),
        Some(before) if before < mean * 0.9 => format!(" (before: {before:.1}, longer now)"),
        Some(before) => format!(" (before: {before:.1})"),
        None => String::new(),
    };
    format!("Tests stay red for {least}{mean:.1} days on average{trend}; {} are red now.", now.open)
}
