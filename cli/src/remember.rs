//! `flakefarm history`, `tests`, `trends` and `gc`: what history answers, and what is no longer kept of it.

use crate::args::{AnswerFormat, GcArgs, HistoryArgs, TestsArgs, TrendsArgs};
use crate::exit::{Complaint, Exit};
use crate::memory::{Memory, Place, csv, open_here};
use crate::output;
use flakefarm_coordinator::db::PackSpan;
use flakefarm_coordinator::history::collect::date_of;
use flakefarm_coordinator::history::questions::{self, ClassSeen, Window};
use flakefarm_coordinator::history::retention::HistoryRetention;
use flakefarm_coordinator::plan::Confidence;
use flakefarm_shared::samples::codec;
use flakefarm_shared::{TestId, UnixMicros, now_micros};
use serde_json::Value;

pub(crate) async fn history(args: &HistoryArgs) -> Result<Exit, Complaint> {
    let question = &args.question;
    let memory = Memory::of(&question.memory)?;
    let window = Window::last(question.days, now_micros());
    let found: Value = match memory.open().await? {
        Place::Farm(farm) => farm.test_history(&memory.project, &args.test, question.days).await?,
        Place::Here { db, samples } => {
            let test = TestId(args.test.clone());
            let project = &memory.project;
            let found = questions::test_history(
                &db,
                Some(samples.as_ref()),
                project,
                &test,
                window,
                Confidence::DEFAULT,
            )
            .await?;
            let Some(found) = found else {
                return Err(Complaint::usage(format!("nobody has seen a test `{test}` of {project}")).hint(
                    "`flakefarm tests` lists those that somebody saw; --project names another project",
                ));
            };
            if question.format == AnswerFormat::Human {
                output::print(&of_test(&found))?;
                return Ok(Exit::Clean);
            }
            serde_json::to_value(&found)?
        }
    };
    match question.format {
        AnswerFormat::Csv => output::print(&days_as_csv(&found))?,
        AnswerFormat::Json | AnswerFormat::Human => {
            output::print(&format!("{}\n", serde_json::to_string_pretty(&found)?))?;
        }
    }
    Ok(Exit::Clean)
}

fn of_test(history: &questions::TestHistory) -> String {
    let mut text = format!("{}\n", history.test);
    if !history.earlier_names.is_empty() {
        text.push_str(&format!("  was {}\n", history.earlier_names.join(", ")));
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
    if !history.flips.is_empty() {
        text.push_str("  passed and failed on one revision (CI):\n");
        for flip in history.flips.iter().take(10) {
            let branch = flip.branch.as_ref().map(|branch| format!(" of {branch}")).unwrap_or_default();
            let variant =
                if flip.variant.is_empty() { String::new() } else { format!(" ({})", flip.variant) };
            text.push_str(&format!("    {}  {}{branch}{variant}\n", date(flip.at), flip.revision));
        }
    }
    if !history.signatures.is_empty() {
        text.push_str("  failures in CI:\n");
        for signature in history.signatures.iter().take(10) {
            let message = signature.message.lines().next().unwrap_or("").to_owned();
            text.push_str(&format!(
                "    {:5} times, last {}  {}\n",
                signature.count,
                date(signature.last_at),
                shortened(&message, 90)
            ));
        }
    }
    if !history.verdicts.is_empty() {
        text.push_str("  verdicts of sweeps:\n");
        for verdict in history.verdicts.iter().take(10) {
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
    for gap in &history.gaps {
        text.push_str(&format!("  missing: {gap}\n"));
    }
    text
}

fn of_class(class: &ClassSeen) -> String {
    let summary = &class.summary;
    let rate = summary.rate.map_or_else(String::new, |rate| {
        format!(
            ", {:.1} % ({:.1} to {:.1} % at {:.0} %)",
            rate.estimate * 100.0,
            rate.lower * 100.0,
            rate.upper * 100.0,
            rate.confidence * 100.0
        )
    });
    let times = match (summary.p50_ms, summary.p90_ms) {
        (Some(p50), Some(p90)) => {
            format!("; median {}, 90 % within {}", milliseconds(p50), milliseconds(p90))
        }
        _ => String::new(),
    };
    let failures: Vec<f64> = class
        .days
        .iter()
        .map(|day| if day.runs == 0 { 0.0 } else { day.failures as f64 / day.runs as f64 })
        .collect();
    let durations: Vec<f64> = class.days.iter().map(|day| day.p50_ms.unwrap_or(0.0)).collect();
    let mut text =
        format!("  {:10} {} of {} runs failed{rate}{times}\n", class.class, summary.failures, summary.runs);
    if class.days.len() > 1 {
        let (first, last) = (&class.days[0].date, &class.days[class.days.len() - 1].date);
        text.push_str(&format!(
            "             failures  {}  {first} to {last}\n",
            sparkline(&failures, Some(1.0))
        ));
        text.push_str(&format!("             duration  {}\n", sparkline(&durations, None)));
    }
    text
}

/// One sign per value, its height by the share of the largest (or of `full`).
pub(crate) fn sparkline(values: &[f64], full: Option<f64>) -> String {
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

pub(crate) async fn tests(args: &TestsArgs) -> Result<Exit, Complaint> {
    let question = &args.question;
    let memory = Memory::of(&question.memory)?;
    let window = Window::last(question.days, now_micros());
    let answer: Value = match memory.open().await? {
        Place::Farm(farm) => farm.tests(&memory.project, question.days, args.limit).await?,
        Place::Here { db, samples } => {
            memory.sum_up(&db, &samples).await?;
            let mut tests = questions::ranking(&db, &memory.project, window).await?;
            let total = tests.len();
            tests.truncate(args.limit);
            serde_json::json!({
                "schema": "flakefarm.tests/v1", "project": memory.project, "window": window,
                "total": total, "tests": tests,
            })
        }
    };
    let rows = answer["tests"].as_array().cloned().unwrap_or_default();
    match question.format {
        AnswerFormat::Json => output::print(&format!("{}\n", serde_json::to_string_pretty(&answer)?))?,
        AnswerFormat::Csv => {
            let mut text = "test,class,runs,failures,p50_ms,flips,last_seen\n".to_owned();
            for row in &rows {
                for class in row["classes"].as_array().into_iter().flatten() {
                    text.push_str(&format!(
                        "{},{},{},{},{},{},{}\n",
                        csv(row["test"].as_str().unwrap_or("")),
                        class["class"].as_str().unwrap_or(""),
                        class["runs"],
                        class["failures"],
                        class["p50_ms"].as_f64().map(|ms| format!("{ms:.3}")).unwrap_or_default(),
                        row["flips"],
                        date(row["last_seen"].as_i64().unwrap_or(0)),
                    ));
                }
            }
            output::print(&text)?;
        }
        AnswerFormat::Human => {
            let total = answer["total"].as_u64().unwrap_or(0);
            let mut text = format!(
                "{}: {total} tests, of {} to {}, those first that CI saw flip, then by failures\n",
                memory.project,
                date_of(window.from),
                date_of(window.to - 1)
            );
            for row in &rows {
                text.push_str(&ranked(row));
            }
            if (rows.len() as u64) < total {
                text.push_str(&format!("and {} more (--limit)\n", total - rows.len() as u64));
            }
            output::print(&text)?;
        }
    }
    Ok(Exit::Clean)
}

fn ranked(row: &Value) -> String {
    let classes: Vec<String> = row["classes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|class| {
            format!("{} {}/{}", class["class"].as_str().unwrap_or(""), class["failures"], class["runs"])
        })
        .collect();
    let flips = row["flips"].as_u64().unwrap_or(0);
    let flips = if flips > 0 { format!("  flipped on {flips} revisions") } else { String::new() };
    let classes = if classes.is_empty() { "no run".to_owned() } else { classes.join(", ") };
    format!("  {}  {classes}{flips}\n", row["test"].as_str().unwrap_or(""))
}

pub(crate) async fn trends(args: &TrendsArgs) -> Result<Exit, Complaint> {
    let question = &args.question;
    let memory = Memory::of(&question.memory)?;
    let window = Window::last(question.days, now_micros());
    let answer: Value = match memory.open().await? {
        Place::Farm(farm) => farm.trends(&memory.project, question.days).await?,
        Place::Here { db, samples } => {
            memory.sum_up(&db, &samples).await?;
            let days = questions::trends(&db, &memory.project, window).await?;
            serde_json::json!({
                "schema": "flakefarm.trends/v1", "project": memory.project, "window": window, "days": days,
            })
        }
    };
    let days = answer["days"].as_array().cloned().unwrap_or_default();
    match question.format {
        AnswerFormat::Json => output::print(&format!("{}\n", serde_json::to_string_pretty(&answer)?))?,
        AnswerFormat::Csv => {
            let mut text = "date,tests,runs,failures,mixed\n".to_owned();
            for day in &days {
                let date = day["date"].as_str().unwrap_or("");
                text.push_str(&format!(
                    "{date},{},{},{},{}\n",
                    day["tests"], day["runs"], day["failures"], day["mixed"]
                ));
            }
            output::print(&text)?;
        }
        AnswerFormat::Human => {
            let mut text = format!(
                "{}: {} days with runs, of {} to {}\n",
                memory.project,
                days.len(),
                date_of(window.from),
                date_of(window.to - 1)
            );
            for (title, key) in [
                ("runs", "runs"),
                ("failures", "failures"),
                ("tests", "tests"),
                ("passed and failed", "mixed"),
            ] {
                let values: Vec<f64> = days.iter().map(|day| day[key].as_f64().unwrap_or(0.0)).collect();
                let last = values.last().copied().unwrap_or(0.0);
                text.push_str(&format!(
                    "  {title:18} {}  {last} on the last day\n",
                    sparkline(&values, None)
                ));
            }
            output::print(&text)?;
        }
    }
    Ok(Exit::Clean)
}

pub(crate) async fn gc(args: &GcArgs) -> Result<Exit, Complaint> {
    let (db, _) = open_here(args.state.as_deref()).await?;
    let now = now_micros();
    let keep = HistoryRetention::default();
    let mut text = String::new();
    for (title, span, first) in [
        ("sums by hour", PackSpan::Hours, keep.first_hourly_day(now)),
        ("sums by day", PackSpan::Days, keep.first_daily_day(now)),
    ] {
        let (count, verb) = if args.dry_run {
            (db.count_packs_before(span, first).await?, "would be deleted")
        } else {
            (db.delete_packs_before(span, first).await?, "deleted")
        };
        text.push_str(&format!("{title} before {}: {count} packs {verb}\n", date_of(first)));
    }
    db.close().await;
    text.push_str("points expire by themselves; verdicts are kept\n");
    output::print(&text)?;
    Ok(Exit::Clean)
}

fn days_as_csv(history: &Value) -> String {
    let mut text = "date,class,runs,failures,p50_ms\n".to_owned();
    for class in history["classes"].as_array().into_iter().flatten() {
        for day in class["days"].as_array().into_iter().flatten() {
            text.push_str(&format!(
                "{},{},{},{},{}\n",
                day["date"].as_str().unwrap_or(""),
                class["class"].as_str().unwrap_or(""),
                day["runs"],
                day["failures"],
                day["p50_ms"].as_f64().map(|ms| format!("{ms:.3}")).unwrap_or_default()
            ));
        }
    }
    text
}

fn date(at: UnixMicros) -> String {
    date_of(codec::day_of(at)).to_string()
}

fn milliseconds(ms: f64) -> String {
    if ms >= 1_000.0 { format!("{:.2} s", ms / 1_000.0) } else { format!("{ms:.0} ms") }
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most).chain(std::iter::once('…')).collect()
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
}
