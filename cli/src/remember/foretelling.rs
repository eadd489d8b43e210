//! `flakefarm forecast`: what is likely to fail next, and how such forecasts have done so far. Where they have no
//! skill, nothing is foretold.

use super::print;
use super::shown::percent;
use super::upkeep::{self, Upkeep};
use crate::args::ForecastArgs;
use crate::exit::{Complaint, Exit};
use crate::memory::{Memory, Place, csv};
use flakefarm_coordinator::history::forecast::Evaluation;
use flakefarm_coordinator::history::questions::{self, Forecast, Window};
use flakefarm_coordinator::simulate::histories::{self, Project};
use flakefarm_shared::now_micros;
use serde::Serialize;
use std::path::Path;

pub(crate) async fn forecast(args: &ForecastArgs) -> Result<Exit, Complaint> {
    if let Some(seed) = args.simulated {
        return print(args.format, &simulated(seed), simulations, simulations_csv);
    }
    if let Some(since) = &args.since {
        let found = upkeep::upkeep(Path::new("."), since, args.limit).await?;
        let text = |found: &Upkeep| upkeep::text(found) + &judged(&found.evaluation, OF_COMMITS);
        return print(args.format, &found, text, upkeep::csv);
    }
    let memory = Memory::of(&args.memory)?;
    let window = Window::last(args.days, now_micros());
    let found = match memory.open().await? {
        Place::Farm(farm) => farm.forecast(&memory.project, args.days, args.limit).await?,
        Place::Here { db, samples } => {
            memory.sum_up(&db, &samples).await?;
            questions::forecast(&db, &memory.project, window, args.limit).await?
        }
    };
    print(args.format, &found, text, table)
}

fn text(forecast: &Forecast) -> String {
    let mut text = format!("{}: forecasts of the next run\n", forecast.project);
    for test in &forecast.tests {
        text.push_str(&format!("  {:>7}  {} ({})\n", percent(test.fails), test.test, test.class));
    }
    match &forecast.withheld {
        Some(why) => text.push_str(&format!("  not shown: {why}\n")),
        None if forecast.tests.is_empty() => text.push_str("  nothing is likely to fail\n"),
        None => {}
    }
    text.push_str(&judged(&forecast.evaluation, OF_RUNS));
    text
}

/// What is foretold: of what, which event, and in the bins.
type Words = [&'static str; 3];
const OF_RUNS: Words = ["runs", "failures", "failed"];
const OF_COMMITS: Words = ["tests at commits", "changes", "changed"];

fn judged(evaluation: &Evaluation, [runs, failures, failed]: Words) -> String {
    if evaluation.runs == 0 {
        return String::new();
    }
    let mut text = format!(
        "judged on {} {runs} with {} {failures}, each foretold before it was known:\n  Brier score {:.6}; skill over always \
         passing {}, over the last outcome {}, over the moving rate {}\n  area under precision and recall {:.3} (by chance \
         {:.5}); calibration off by {:.5}\n",
        evaluation.runs,
        evaluation.failures,
        evaluation.brier,
        percent(evaluation.skill_over_always_pass),
        percent(evaluation.skill_over_last_outcome),
        percent(evaluation.skill_over_moving_rate),
        evaluation.pr_auc,
        evaluation.base_rate,
        evaluation.calibration_error
    );
    for bin in &evaluation.calibration {
        text.push_str(&format!(
            "    up to {:>6}: foretold {:>6}, {failed} {:>6} of {} {runs}\n",
            percent(bin.up_to),
            percent(bin.foretold),
            percent(bin.failed),
            bin.runs
        ));
    }
    text
}

fn table(forecast: &Forecast) -> String {
    let mut text = "test,class,fails\n".to_owned();
    for test in &forecast.tests {
        text.push_str(&format!("{},{},{:.6}\n", csv(&test.test), test.class, test.fails));
    }
    text
}

/// How forecasts do on one simulated project.
#[derive(Debug, Serialize)]
struct Simulated {
    project: &'static str,
    withheld: Option<String>,
    evaluation: Evaluation,
}

fn simulated(seed: u64) -> Vec<Simulated> {
    [
        ("2,000 tests, 90 days, 20 runs a day", Project { tests: 2_000, days: 90, runs: 20 }),
        ("2,000 tests, 90 days, a nightly run", Project { tests: 2_000, days: 90, runs: 1 }),
        ("100 tests, 30 days, 5 runs a day", Project { tests: 100, days: 30, runs: 5 }),
    ]
    .into_iter()
    .map(|(project, of)| {
        let evaluation = histories::evaluate(of, seed);
        Simulated { project, withheld: evaluation.withheld(), evaluation }
    })
    .collect()
}

fn simulations(all: &Vec<Simulated>) -> String {
    let mut text = String::new();
    for one in all {
        text.push_str(&format!("{}\n", one.project));
        if let Some(why) = &one.withheld {
            text.push_str(&format!("  not shown: {why}\n"));
        }
        text.push_str(&judged(&one.evaluation, OF_RUNS));
    }
    text
}

fn simulations_csv(all: &Vec<Simulated>) -> String {
    let mut text = "project,runs,failures,brier,over_always_pass,over_last_outcome,over_moving_rate,pr_auc,\
                    base_rate,calibration_error\n"
        .to_owned();
    for Simulated { project, evaluation, .. } in all {
        text.push_str(&format!(
            "{},{},{},{:.6},{:.4},{:.4},{:.4},{:.4},{:.6},{:.6}\n",
            csv(project),
            evaluation.runs,
            evaluation.failures,
            evaluation.brier,
            evaluation.skill_over_always_pass,
            evaluation.skill_over_last_outcome,
            evaluation.skill_over_moving_rate,
            evaluation.pr_auc,
            evaluation.base_rate,
            evaluation.calibration_error
        ));
    }
    text
}
