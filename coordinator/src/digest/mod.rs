//! The week of a project on one page: what is new, worse, fixed and expired, what it cost, why tests fail,
//! how long they stay red, how repairs fared, what to mend first, and what to type. It builds on what history
//! answers and on the reports of the window's sweeps.

pub mod html;
pub mod markdown;
mod priority;

pub use priority::{Advice, Priority, Repairs};

use crate::db::{Db, DbError, SweepFilter};
use crate::history::questions::{self, TestMoved, Window};
use crate::history::recovery::Recovery;
use crate::owners::Owners;
use crate::quarantine::{Entry, Standing};
use crate::repairs::{Learnt, RepairState};
use flakefarm_shared::UnixMicros;
use flakefarm_shared::blobs::Blobs;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Days of a week.
pub const WEEK: u16 = 7;
/// Tests of each kind that are named; more are counted.
const NAMED: usize = 20;
/// Tests that are weighed for what to mend first.
const WEIGHED: usize = 100;
/// Reports of diagnoses and validations that are read.
const REPORTS: usize = 200;
/// Sweeps that are looked through for them.
const SWEEPS: u32 = 1_000;
/// Lines of quarantine's log that are looked through.
const LOG: u32 = 1_000;
const MICROS_PER_DAY: i64 = 86_400_000_000;

/// What a window of days came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Digest {
    /// `flakefarm.digest/v1`.
    pub schema: &'static str,
    /// The project.
    pub project: String,
    /// How many days it is of.
    pub days: u16,
    /// The first one, `2026-11-28`.
    pub from: String,
    /// The last one.
    pub to: String,
    /// Runs of tests as they are, and failures among them.
    pub runs: u64,
    /// Failures among them.
    pub failures: u64,
    /// Tests that moved this week, by `new`, `worse`, `better` and `gone` (fixed).
    pub moves: BTreeMap<&'static str, u64>,
    /// The first of them.
    pub moved: Vec<TestMoved>,
    /// What flaky tests have cost.
    pub cost: Cost,
    /// Why tests fail, as diagnoses of the window found it: the most frequent first.
    pub causes: Vec<(String, u64)>,
    /// How long tests stay red.
    pub recovery: Recovery,
    /// The same in the days before, as many.
    pub recovery_before: Recovery,
    /// Repairs that were tried by experiment in the window, and those that were proved.
    pub repairs: Repairs,
    /// Patches of the window that the farm has proved and nobody has accepted: the repair, and what it mends.
    pub proposed: Vec<(String, Vec<String>)>,
    /// What became of quarantine.
    pub quarantine: QuarantineSeen,
    /// What to mend first: impact times chance of success.
    pub priorities: Vec<Priority>,
    /// What to type.
    pub advice: Vec<Advice>,
    /// Who answers for the tests that are named, as their quarantine or the last sweep's sources say.
    pub owners: BTreeMap<String, String>,
}

/// What flaky tests have cost in the window, added up; a run that several broke counts for each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Cost {
    /// CI runs that they broke although they passed on the same revision.
    pub failed_pipelines: u64,
    /// CI runs that were started again for them.
    pub reruns: u64,
    /// Minutes of those.
    pub rerun_minutes: f64,
    /// Minutes on the farm.
    pub farm_minutes: f64,
}

/// What became of quarantine.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct QuarantineSeen {
    /// Entries now.
    pub entries: u64,
    /// Tests that entered in the window.
    pub entered: u64,
    /// Tests that left because they were healthy.
    pub left: u64,
    /// Entries whose time is over.
    pub expired: Vec<String>,
}

impl Digest {
    /// Whether there is nothing to tell: nothing moved, nothing entered or left, nothing has expired.
    pub fn is_silent(&self) -> bool {
        let quarantine = &self.quarantine;
        self.moves.values().all(|count| *count == 0)
            && quarantine.entered + quarantine.left == 0
            && quarantine.expired.is_empty()
            && self.repairs.tried == 0
            && self.proposed.is_empty()
    }

    /// Who answers for a test, as the end of a line; nothing if nobody does.
    fn owner(&self, test: &str, called: impl Fn(&str) -> String) -> String {
        self.owners.get(test).map_or_else(String::new, |owner| format!(" ({})", called(owner)))
    }

    /// The window in a line.
    pub fn headline(&self) -> String {
        let count = |word: &str| self.moves.get(word).copied().unwrap_or(0);
        format!(
            "{} newly flaky, {} worse, {} fixed, {} expired",
            count("new"),
            count("worse"),
            count("gone"),
            self.quarantine.expired.len()
        )
    }
}

/// Collects it. Without `blobs` nothing is known of causes and repairs.
pub async fn collect(
    db: &Db,
    blobs: Option<&Blobs>,
    project: &str,
    days: u16,
    now: UnixMicros,
) -> Result<Digest, DbError> {
    let window = Window::last(days, now);
    let trends = questions::trends(db, project, window).await?;
    let before = Window { from: (window.from - i64::from(days)).max(0), to: window.from };
    let recovery_before = questions::trends(db, project, before).await?.recovery;
    let ranking = questions::ranking(db, project, window, None, WEIGHED).await?;
    let since = now - i64::from(days) * MICROS_PER_DAY;
    let entries = db.quarantine(project).await?;
    let quarantine = quarantine_seen(db, project, &entries, since, now).await?;
    let learnt = db.repairs_learnt(project, since).await?;
    let (causes, mut repairs) = match blobs {
        Some(blobs) => found_by_sweeps(db, blobs, project, since, &learnt).await?,
        None => (BTreeMap::new(), Repairs::default()),
    };
    for (_, success) in learnt.rows() {
        repairs.tried += success.tried;
        repairs.proved += success.proved;
    }
    let mut proposed = db.repairs_page(Some(project), None, LOG).await?;
    proposed.retain(|row| row.state == RepairState::Proved.word() && row.ended_at >= Some(since));
    let proposed = proposed.iter().take(NAMED).map(|row| (row.id.to_string(), row.mended())).collect();
    let week = trends.week;
    let moves = BTreeMap::from([
        ("new", week.new),
        ("worse", week.worse),
        ("better", week.better),
        ("gone", week.gone),
    ]);
    let mut cost = Cost::default();
    for seen in ranking.tests.iter().filter_map(|test| test.cost) {
        cost.failed_pipelines += seen.failed_pipelines;
        cost.reruns += seen.reruns;
        cost.rerun_minutes += seen.rerun_minutes;
        cost.farm_minutes += seen.farm_minutes;
    }
    let mut by_cause: BTreeMap<String, u64> = BTreeMap::new();
    for cause in causes.values() {
        *by_cause.entry(cause.clone()).or_default() += 1;
    }
    let mut by_cause: Vec<(String, u64)> = by_cause.into_iter().collect();
    by_cause.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let priorities = priority::rank(&ranking.tests, &causes, repairs);
    let advice = priority::advise(&priorities, &week.tests, &entries, now);
    let owners = match blobs {
        Some(blobs) => last_owners(db, blobs, project).await?,
        None => Owners::default(),
    };
    let moved_names = week.tests.iter().take(NAMED).map(|test| &test.test);
    let expired = quarantine.expired.iter();
    let named = moved_names.chain(priorities.iter().map(|priority| &priority.test)).chain(expired);
    let of_entry = |test: &str| entries.iter().find(|entry| entry.test == test).and_then(|e| e.owner.clone());
    let owner = |test: &str| of_entry(test).or_else(|| owners.of(test));
    let owners = named.filter_map(|test| Some((test.clone(), owner(test)?))).collect();
    let date = |day: i64| crate::calendar::date_of(day).to_string();
    Ok(Digest {
        schema: "flakefarm.digest/v1",
        project: project.to_owned(),
        days,
        from: date(window.from),
        to: date(window.to - 1),
        runs: trends.days.iter().map(|day| day.runs).sum(),
        failures: trends.days.iter().map(|day| day.failures).sum(),
        moves,
        moved: week.tests.into_iter().take(NAMED).collect(),
        cost,
        causes: by_cause,
        recovery: trends.recovery,
        recovery_before,
        repairs,
        proposed,
        quarantine,
        priorities,
        advice,
        owners,
    })
}

/// As the newest sweep's sources say.
async fn last_owners(db: &Db, blobs: &Blobs, project: &str) -> Result<Owners, DbError> {
    let filter = SweepFilter { projects: Some(vec![project.to_owned()]), ..SweepFilter::default() };
    let rows = db.sweeps_page(&filter, 1).await?;
    Ok(match rows.first() {
        Some(row) => Owners::of_sweep(blobs, &row.context).await,
        None => Owners::default(),
    })
}

async fn quarantine_seen(
    db: &Db,
    project: &str,
    entries: &[Entry],
    since: UnixMicros,
    now: UnixMicros,
) -> Result<QuarantineSeen, DbError> {
    let log = db.quarantine_log(project, LOG).await?;
    let count =
        |action: &str| log.iter().filter(|done| done.at >= since && done.action == action).count() as u64;
    let expired = entries.iter().filter(|entry| entry.standing(now) == Standing::Expired);
    Ok(QuarantineSeen {
        entries: entries.len() as u64,
        entered: count("added"),
        left: count("left"),
        expired: expired.map(|entry| entry.test.clone()).collect(),
    })
}

/// The causes of tests, and how changes that people validated fared, from reports of the window: the newest
/// counts. Proposals of repairs are counted where they are noted, in `learnt`.
async fn found_by_sweeps(
    db: &Db,
    blobs: &Blobs,
    project: &str,
    since: UnixMicros,
    learnt: &Learnt,
) -> Result<(BTreeMap<String, String>, Repairs), DbError> {
    let filter = SweepFilter { projects: Some(vec![project.to_owned()]), ..SweepFilter::default() };
    let rows = db.sweeps_page(&filter, SWEEPS).await?;
    let of_window = rows.iter().filter(|row| row.created_at >= since);
    // A question is JSON of ours: its kind is a word or an object of that name.
    let asked = |question: &str| {
        let question: Value = serde_json::from_str(question).unwrap_or_default();
        let kind = &question["kind"];
        (kind.get("diagnose").is_some(), kind.get("validate").is_some())
    };
    let (mut causes, mut repairs) = (BTreeMap::new(), Repairs::default());
    let mut read = 0;
    for row in of_window {
        let (diagnosis, validation) = asked(&row.question);
        let Some(digest) = row.report.as_ref().filter(|_| diagnosis || validation) else { continue };
        read += 1;
        if read > REPORTS {
            break;
        }
        // One that is gone tells nothing.
        let Ok(report) = blobs.get_json::<Value>(digest, "a report").await else { continue };
        for test in report["tests"].as_array().into_iter().flatten() {
            if let (true, Some(id), Some(cause)) =
                (diagnosis, test["id"].as_str(), test["cause"]["category"].as_str())
            {
                causes.entry(id.to_owned()).or_insert_with(|| cause.to_owned());
            }
            let change = test["comparison"]["change"].as_str().unwrap_or_default();
            let of_repair = learnt.rows().any(|(guess, _)| guess.strategy == change);
            if let (true, Some(answer)) = (validation && !of_repair, test["comparison"]["answer"].as_str()) {
                repairs.tried += 1;
                repairs.proved += u64::from(answer == "fixed");
            }
        }
    }
    Ok((causes, repairs))
}
