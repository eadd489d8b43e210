//! One test over time, for people and for tables.

use super::shown::{cost, date, milliseconds, moment, percent, rate, rests_on, shortened, sparkline};
use flakefarm_coordinator::calendar::date_of;
use flakefarm_coordinator::history::questions::{
    ChangeSeen, Changed, ClassSeen, SignatureSeen, TestHistory, Window,
};
use std::collections::BTreeMap;

/// Lines of each kind that are shown.
const SHOWN: usize = 10;

pub(super) fn text(history: &TestHistory) -> String {
    let mut text = format!("{}\n", history.test);
    if !history.earlier_names.is_empty() {
        text.push_str(&format!("  was {}\n", history.earlier_names.join(", ")));
    }
    if let Some(later) = &history.later_name {
        text.push_str(&format!("  is {later} now\n"));
    }
    text.push_str(&format!(
        "  seen from {} to {}; shown: {} to {}\n",
        date(history.first_seen),
        date(history.last_seen),
        date_of(history.window.from),
        date_of(history.window.to - 1)
    ));
    for class in &history.classes {
        text.push_str(&of_class(class));
    }
    if history.classes.is_empty() {
        text.push_str("  no run of it in this window\n");
    }
    if let Some(of_test) = &history.cost {
        text.push_str(&format!("  cost: {}\n", cost(of_test)));
    }
    text.push_str(&flips(history));
    if !history.signatures.is_empty() {
        text.push_str("  failures:\n");
        for signature in history.signatures.iter().take(SHOWN) {
            text.push_str(&of_signature(signature, history.window));
        }
    }
    if !history.verdicts.is_empty() {
        text.push_str("  verdicts of sweeps:\n");
        for verdict in history.verdicts.iter().take(SHOWN) {
            text.push_str(&format!(
                "    {}  {:12} {} of {} failed{}\n",
                date(verdict.finished_at),
                verdict.verdict,
                verdict.failures,
                verdict.attempts,
                if verdict.class == "plain" { String::new() } else { format!(" ({})", verdict.class) }
            ));
        }
    }
    text.push_str(&format!("  {}\n", rests_on(&history.runs)));
    for gap in &history.gaps {
        text.push_str(&format!("  missing: {gap}\n"));
    }
    text
}

fn of_class(class: &ClassSeen) -> String {
    let summary = &class.summary;
    let rate = summary.rate.as_ref().map_or_else(String::new, |of_class| format!(", {}", rate(of_class)));
    let times = match (summary.p50_ms, summary.p90_ms) {
        (Some(p50), Some(p90)) => {
            format!("; median {}, 90 % within {}", milliseconds(p50), milliseconds(p90))
        }
        _ => String::new(),
    };
    let mut text =
        format!("  {:10} {} of {} runs failed{rate}{times}\n", class.class, summary.failures, summary.runs);
    if let (Some(first), Some(last)) = (&class.first_failed, &class.last_failed) {
        text.push_str(&format!("             first failed {first}, last failed {last}\n"));
    }
    if class.days.len() > 1 {
        let failures: Vec<f64> = class
            .days
            .iter()
            .map(|day| if day.runs == 0 { 0.0 } else { day.failures as f64 / day.runs as f64 })
            .collect();
        let durations: Vec<f64> = class.days.iter().map(|day| day.p50_ms.unwrap_or(0.0)).collect();
        let (first, last) = (&class.days[0].date, &class.days[class.days.len() - 1].date);
        text.push_str(&format!(
            "             failures  {}  {first} to {last}\n",
            sparkline(&failures, Some(1.0))
        ));
        text.push_str(&format!("             duration  {}\n", sparkline(&durations, None)));
    }
    for change in &class.changes {
        text.push_str(&format!("             {}\n", of_change(change)));
    }
    text
}

fn of_change(change: &ChangeSeen) -> String {
    let (what, before, after) = match change.what {
        Changed::FailureRate => {
            let what = if change.after > change.before { "fails more often" } else { "fails less often" };
            (what, percent(change.before), percent(change.after))
        }
        Changed::Duration => {
            let what = if change.after > change.before { "slower" } else { "faster" };
            (what, milliseconds(change.before), milliseconds(change.after))
        }
    };
    let between = match (&change.after_revision, &change.by_revision) {
        (Some(after), Some(by)) if after != by => format!("; between revisions {after} and {by}"),
        (Some(_), Some(by)) => format!("; on revision {by}, so not by a commit"),
        (None, Some(by)) => format!("; by revision {by}"),
        _ => String::new(),
    };
    format!("since {} {what}: {before} before, {after} after{between}", moment(change.at))
}

fn flips(history: &TestHistory) -> String {
    if history.flips.is_empty() {
        return String::new();
    }
    let mut text = "  passed and failed on one revision (CI):\n".to_owned();
    for flip in history.flips.iter().take(SHOWN) {
        let branch = flip.branch.as_ref().map(|branch| format!(" of {branch}")).unwrap_or_default();
        let variant = if flip.variant.is_empty() { String::new() } else { format!(" ({})", flip.variant) };
        text.push_str(&format!("    {}  {}{branch}{variant}\n", date(flip.at), flip.revision));
    }
    let branches: Vec<String> = history
        .flips_by_branch
        .iter()
        .take(SHOWN)
        .map(|seen| format!("{} on {}", seen.flips, seen.branch.as_deref().unwrap_or("no branch")))
        .collect();
    text.push_str(&format!("    by branch: {}\n", branches.join(", ")));
    text
}

/// One line, with a sign per week.
fn of_signature(signature: &SignatureSeen, window: Window) -> String {
    let mut weeks: BTreeMap<i64, u64> = BTreeMap::new();
    for week in 0..=(window.to - 1 - window.from) / 7 {
        weeks.insert(week, 0);
    }
    let start = date_of(window.from);
    for (day, count) in &signature.days {
        let parse = time::Date::parse(day, time::macros::format_description!("[year]-[month]-[day]"));
        if let Ok(date) = parse {
            *weeks.entry((date - start).whole_days() / 7).or_default() += count;
        }
    }
    let counts: Vec<f64> = weeks.values().map(|count| *count as f64).collect();
    let message = signature.message.lines().next().unwrap_or("").to_owned();
    format!(
        "    {:5} times ({}), last {}  {}  {}\n",
        signature.count,
        signature.class,
        date(signature.last_at),
        sparkline(&counts, None),
        shortened(&message, 90)
    )
}

pub(super) fn csv(history: &TestHistory) -> String {
    let mut text = "date,class,runs,failures,p50_ms\n".to_owned();
    for class in &history.classes {
        for day in &class.days {
            text.push_str(&format!(
                "{},{},{},{},{}\n",
                day.date,
                class.class,
                day.runs,
                day.failures,
                day.p50_ms.map(|ms| format!("{ms:.3}")).unwrap_or_default()
            ));
        }
    }
    text
}
