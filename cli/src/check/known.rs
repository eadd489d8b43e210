//! What was known of failed tests before the job: since when a test is flaky, and how often it failed
//! lately. History that cannot be asked says nothing, and stops nothing.

use crate::ask::Session;
use crate::farm::Farm;
use crate::memory;
use flakefarm_coordinator::calendar::date_of;
use flakefarm_coordinator::history::questions::{self, Window};
use flakefarm_coordinator::plan::Confidence;
use flakefarm_shared::samples::codec;
use flakefarm_shared::{TestId, now_micros};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Days that are looked back.
const DAYS: u16 = 90;
/// Tests that history is asked about.
const MOST: usize = 50;

/// What was known of one test.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Known {
    /// Runs in the last 90 days, of sweeps and of CI, and how many of them failed.
    pub(super) runs: u64,
    pub(super) failures: u64,
    /// The day since which it is known to be flaky, `2026-11-28`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) flaky_since: Option<String>,
}

/// What is known of the tests, by id; those that nobody has seen are left out.
pub(super) async fn of_tests<'t>(
    session: &Session<'_>,
    tests: impl Iterator<Item = &'t String>,
) -> BTreeMap<String, Known> {
    let project = &session.loaded.spec.name;
    let settings = &session.loaded.settings;
    let mut known = BTreeMap::new();
    if let Some(address) = settings.text("farm.url") {
        let Ok(farm) = Farm::new(&address, settings.text("farm.token")) else { return known };
        for test in tests.take(MOST) {
            if let Ok(found) = farm.test_history(project, test, DAYS).await {
                let found = serde_json::to_value(&found).unwrap_or_default();
                known.extend(read(&found).map(|found| (test.clone(), found)));
            }
        }
        return known;
    }
    let Ok((db, samples)) = memory::open_here(session.args.execution.state.as_deref()).await else {
        return known;
    };
    let window = Window::last(DAYS, now_micros());
    for test in tests.take(MOST) {
        let id = TestId(test.clone());
        let samples = Some(samples.as_ref());
        let found = questions::test_history(&db, samples, project, &id, window, Confidence::DEFAULT).await;
        if let Ok(Some(found)) = found {
            let found = serde_json::to_value(&found).unwrap_or_default();
            known.extend(read(&found).map(|found| (test.clone(), found)));
        }
    }
    db.close().await;
    known
}

fn read(history: &Value) -> Option<Known> {
    let list = |key: &str| history[key].as_array().cloned().unwrap_or_default();
    let mut known = Known::default();
    for class in list("classes") {
        if ["plain", "unisolated", "ci"].contains(&class["class"].as_str().unwrap_or_default()) {
            known.runs += class["summary"]["runs"].as_u64().unwrap_or(0);
            known.failures += class["summary"]["failures"].as_u64().unwrap_or(0);
        }
    }
    let flaky = list("verdicts").into_iter().filter(|verdict| verdict["verdict"] == "flaky");
    let moments = flaky.filter_map(|verdict| verdict["finished_at"].as_i64());
    let flips = list("flips");
    let since = moments.chain(flips.iter().filter_map(|flip| flip["at"].as_i64())).min();
    known.flaky_since = since.map(|at| date_of(codec::day_of(at)).to_string());
    (known != Known::default()).then_some(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn runs_of_sweeps_and_ci_count_and_the_first_sign_of_flakiness_dates_it() {
        let known = read(&json!({
            "classes": [
                { "class": "plain", "summary": { "runs": 20, "failures": 2 } },
                { "class": "ci", "summary": { "runs": 5, "failures": 1 } },
                { "class": "stressed", "summary": { "runs": 9, "failures": 9 } },
            ],
            "verdicts": [
                { "verdict": "flaky", "finished_at": 172_800_000_000_i64 },
                { "verdict": "healthy", "finished_at": 0 },
            ],
            "flips": [{ "at": 86_400_000_000_i64 }],
        }));
        let expected = Known { runs: 25, failures: 3, flaky_since: Some("1970-01-02".to_owned()) };
        assert_eq!(known, Some(expected));
        assert_eq!(read(&json!({ "classes": [] })), None);
    }
}
