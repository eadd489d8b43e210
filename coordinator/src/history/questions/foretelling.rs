//! Which tests are likely to fail when they run next, where forecasts have shown skill.

use super::names::Names;
use super::sums::Days;
use super::{AS_IT_IS, Window};
use crate::db::{Db, DbError};
use crate::history::forecast::{Evaluation, Forecaster, Known, LEARNING_DAYS, Ran};
use flakefarm_shared::TreatmentClass;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// The least chance of a failure that is worth a line.
const WORTH_TELLING: f64 = 0.01;

/// What is likely to fail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// `flakefarm.forecast/v1`.
    pub schema: String,
    /// The project.
    pub project: String,
    /// The days that it learnt from.
    pub window: Window,
    /// How it did on them, each day foretold before it was known.
    pub evaluation: Evaluation,
    /// Why no test is shown, if forecasts are not worth it here.
    pub withheld: Option<String>,
    /// The likeliest first.
    pub tests: Vec<TestForecast>,
}

/// One test's next run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestForecast {
    /// The test.
    pub test: String,
    /// Where it runs.
    pub class: String,
    /// How likely it is to fail.
    pub fails: f64,
}

/// The tests of a project that are likeliest to fail next, up to `limit`; none where forecasts show no skill.
pub async fn forecast(db: &Db, project: &str, window: Window, limit: usize) -> Result<Forecast, DbError> {
    let rows = db.project_days(project, window.from, window.to).await?;
    let known = Names::read(db, project).await?;
    let learnt = tokio::task::spawn_blocking(move || learn(&Days::open(&rows, &known)));
    let (evaluation, mut likely) =
        learnt.await.unwrap_or_else(|_| (Forecaster::default().evaluation(), Vec::new()));
    let withheld = evaluation.withheld();
    if withheld.is_some() {
        likely.clear();
    }
    likely.truncate(limit);
    let numbers: Vec<i64> = likely.iter().map(|(_, test, _)| *test).collect();
    let names = db.names_of(&numbers).await?;
    let of_test = |(class, test, fails): (TreatmentClass, i64, f64)| {
        Some(TestForecast { test: names.get(&test)?.to_string(), class: class.word().to_owned(), fails })
    };
    Ok(Forecast {
        schema: "flakefarm.forecast/v1".to_owned(),
        project: project.to_owned(),
        window,
        evaluation,
        withheld,
        tests: likely.into_iter().filter_map(of_test).collect(),
    })
}

/// How forecasts did, and what they say now, the likeliest first.
fn learn(days: &Days<'_>) -> (Evaluation, Vec<(TreatmentClass, i64, f64)>) {
    let mut forecaster = Forecaster::default();
    let mut known: HashMap<(TreatmentClass, i64), Known> = HashMap::new();
    let first = days.iter().map(|(_, day, _)| day).next();
    let mut today = None;
    for (class, day, counts) in days.iter().filter(|(class, ..)| AS_IT_IS.contains(class)) {
        let judged = first.is_some_and(|first| day >= first + LEARNING_DAYS);
        if let Some((_, judged)) = today.filter(|(today, _)| *today != day) {
            forecaster.end_day(judged);
        }
        today = Some((day, judged));
        for (test, runs, failures) in counts {
            let ran = Ran { runs, failures, touched: false };
            forecaster.day(known.entry((class, test)).or_default(), ran, judged);
        }
    }
    if let Some((_, judged)) = today {
        forecaster.end_day(judged);
    }
    let mut likely: Vec<(TreatmentClass, i64, f64)> = known
        .iter()
        .map(|((class, test), known)| (*class, *test, forecaster.foretell(known, false)))
        .filter(|(.., fails)| *fails >= WORTH_TELLING)
        .collect();
    likely.sort_by(|a, b| b.2.total_cmp(&a.2).then((a.0, a.1).cmp(&(b.0, b.1))));
    (forecaster.evaluation(), likely)
}
