//! A project's tests ranked, and a project over time, for people and for tables.

use super::shown::{cost, date, days, rests_on, sparkline};
use crate::memory::csv;
use flakefarm_coordinator::calendar::date_of;
use flakefarm_coordinator::history::moves::Move;
use flakefarm_coordinator::history::questions::{ProjectDay, Ranking, TestRanked, Trends, Week};

/// Lines of each kind that are shown.
const SHOWN: usize = 10;

pub(super) fn ranking(ranking: &Ranking) -> String {
    let mut text = format!(
        "{}: {} tests, of {} to {}, those first that CI saw flip, then by failures\n{}\n",
        ranking.project,
        ranking.total,
        date_of(ranking.window.from),
        date_of(ranking.window.to - 1),
        rests_on(&ranking.runs)
    );
    text.push_str(&missing(&ranking.gaps));
    ranking.tests.iter().for_each(|test| text.push_str(&ranked(test)));
    let more = ranking.total.saturating_sub(ranking.tests.len() as u64);
    if more > 0 {
        text.push_str(&format!("and {more} more (--limit)\n"));
    }
    text
}

fn missing(gaps: &[String]) -> String {
    gaps.iter().map(|gap| format!("missing: {gap}\n")).collect()
}

fn ranked(test: &TestRanked) -> String {
    let classes: Vec<String> = test
        .classes
        .iter()
        .map(|class| format!("{} {}/{}", class.class, class.failures, class.runs))
        .collect();
    let classes = if classes.is_empty() { "no run".to_owned() } else { classes.join(", ") };
    let flips = if test.flips > 0 { format!("  flipped on {} revisions", test.flips) } else { String::new() };
    let moved = test.moved.map(|moved| format!("  {} this week", moved.word())).unwrap_or_default();
    let mut text = format!("  {}  {classes}{flips}{moved}\n", test.test);
    if let Some(of_test) = &test.cost {
        text.push_str(&format!("      cost: {}\n", cost(of_test)));
    }
    text
}

pub(super) fn ranking_csv(ranking: &Ranking) -> String {
    let mut text = "test,class,runs,failures,p50_ms,flips,last_seen,moved,failed_pipelines,retries,reruns,\
                    rerun_minutes,ci_minutes,farm_minutes\n"
        .to_owned();
    for test in &ranking.tests {
        let of_test = test.cost.unwrap_or_default();
        for class in &test.classes {
            text.push_str(&format!(
                "{},{},{},{},{},{},{},{},{},{},{},{:.2},{:.2},{:.2}\n",
                csv(&test.test),
                class.class,
                class.runs,
                class.failures,
                class.p50_ms.map(|ms| format!("{ms:.3}")).unwrap_or_default(),
                test.flips,
                date(test.last_seen),
                test.moved.map_or("", Move::word),
                of_test.failed_pipelines,
                of_test.retries,
                of_test.reruns,
                of_test.rerun_minutes,
                of_test.ci_minutes,
                of_test.farm_minutes
            ));
        }
    }
    text
}

pub(super) fn trends(trends: &Trends) -> String {
    let mut text = format!(
        "{}: {} days with runs, of {} to {}\n{}\n",
        trends.project,
        trends.days.len(),
        date_of(trends.window.from),
        date_of(trends.window.to - 1),
        rests_on(&trends.runs)
    );
    text.push_str(&missing(&trends.gaps));
    type Count = fn(&ProjectDay) -> u64;
    let lines: [(&str, Count); 4] = [
        ("runs", |day| day.runs),
        ("failures", |day| day.failures),
        ("tests", |day| day.tests),
        ("passed and failed", |day| day.mixed),
    ];
    for (title, of_day) in lines {
        let values: Vec<f64> = trends.days.iter().map(|day| of_day(day) as f64).collect();
        let last = trends.days.last().map_or(0, of_day);
        text.push_str(&format!("  {title:18} {}  {last} on the last day\n", sparkline(&values, None)));
    }
    text.push_str(&week(&trends.week));
    text.push_str(&recovery(trends));
    if !trends.flips_by_branch.is_empty() {
        let branches: Vec<String> = trends
            .flips_by_branch
            .iter()
            .take(SHOWN)
            .map(|of| {
                format!(
                    "{} ({} {}) on {}",
                    of.flips,
                    of.tests,
                    if of.tests == 1 { "test" } else { "tests" },
                    of.branch.as_deref().unwrap_or("no branch")
                )
            })
            .collect();
        text.push_str(&format!("flips by branch: {}\n", branches.join(", ")));
    }
    for cluster in trends.clusters.iter().take(SHOWN) {
        text.push_str(&format!(
            "fail together ({}; all {} times of the {} that any did):\n",
            cluster.class, cluster.all_failed, cluster.any_failed
        ));
        cluster.tests.iter().take(SHOWN).for_each(|test| text.push_str(&format!("  {test}\n")));
        if cluster.tests.len() > SHOWN {
            text.push_str(&format!("  and {} more\n", cluster.tests.len() - SHOWN));
        }
    }
    text
}

fn week(week: &Week) -> String {
    let mut text = format!(
        "this week: {} new, {} worse, {} better, {} gone\n",
        week.new, week.worse, week.better, week.gone
    );
    for wanted in Move::ALL {
        for test in week.tests.iter().filter(|test| test.moved == wanted).take(SHOWN) {
            text.push_str(&format!(
                "  {:6} {}  {} {}/{} before, {}/{} now\n",
                wanted.word(),
                test.test,
                test.class,
                test.before.failures,
                test.before.runs,
                test.now.failures,
                test.now.runs
            ));
        }
    }
    text
}

fn recovery(trends: &Trends) -> String {
    let recovery = &trends.recovery;
    let Some(mean) = recovery.mean_days else {
        return "from first red to green: nothing was red\n".to_owned();
    };
    format!(
        "from first red to green: mean {}{}, 90 % within {}, of {} cases, {} of them open\n",
        if recovery.mean_is_lower_bound { "at least " } else { "" },
        days(mean),
        recovery.p90_days.map_or_else(|| "a time not reached yet".to_owned(), days),
        recovery.cases,
        recovery.open
    )
}

pub(super) fn trends_csv(trends: &Trends) -> String {
    let mut text = "date,tests,runs,failures,mixed\n".to_owned();
    for day in &trends.days {
        text.push_str(&format!(
            "{},{},{},{},{}\n",
            csv(&day.date),
            day.tests,
            day.runs,
            day.failures,
            day.mixed
        ));
    }
    text
}
