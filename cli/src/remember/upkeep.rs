//! `flakefarm forecast --since REVISION`: which tests are likely to need maintenance, since they touch what a pending
//! change alters. Learnt from the commits before it: how often tests that named what a commit altered were changed by
//! it, and others; judged as all forecasts are, each commit foretold before it is learnt from.

use crate::exit::Complaint;
use crate::trees;
use flakefarm_coordinator::history::forecast::{Evaluation, Forecaster, Known, Ran};
use flakefarm_project::revisions::{self, Revision};
use flakefarm_project::snapshot;
use flakefarm_repair::SourceTree;
use flakefarm_repair::upkeep::{Kept, kept};
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

/// Commits that are learnt from.
const COMMITS: usize = 60;
/// Commits that are only learnt from.
const LEARNING: u64 = 7;
/// The least chance that is worth a line.
const WORTH_TELLING: f64 = 0.01;

/// What a pending change is likely to ask of tests.
#[derive(Debug, Serialize)]
pub(super) struct Upkeep {
    schema: &'static str,
    /// The revision that it begins at.
    since: String,
    /// Commits before it that were learnt from.
    commits: u64,
    /// How that did on them.
    pub(super) evaluation: Evaluation,
    /// Why no test is shown, if forecasts are not worth it here.
    pub(super) withheld: Option<String>,
    /// The likeliest first; without those that the change mends already.
    tests: Vec<Likely>,
}

/// One test.
#[derive(Debug, Serialize)]
struct Likely {
    test: String,
    /// How likely it is to be in need of a change.
    needs: f64,
    /// What it names of what is altered.
    touches: BTreeSet<String>,
}

/// What commits have taught.
#[derive(Default)]
struct Lessons {
    forecaster: Forecaster,
    known: HashMap<String, Known>,
    commits: u64,
}

impl Lessons {
    fn learn(&mut self, tests: &[Kept]) {
        let judged = self.commits >= LEARNING;
        for test in tests {
            let ran = Ran { runs: 1, failures: u64::from(test.changed), touched: !test.touches.is_empty() };
            self.forecaster.day(self.known.entry(test.test.clone()).or_default(), ran, judged);
        }
        self.forecaster.end_day(judged);
        self.commits += 1;
    }

    /// What it says of a change that is pending.
    fn foretell(self, since: String, pending: Vec<Kept>, limit: usize) -> Upkeep {
        let evaluation = self.forecaster.evaluation();
        let withheld = evaluation.withheld_of("changes of tests", "commits");
        let likely = |test: Kept| {
            let known = self.known.get(&test.test).cloned().unwrap_or_default();
            let needs = self.forecaster.foretell(&known, !test.touches.is_empty());
            Likely { test: test.test, needs, touches: test.touches }
        };
        let mut tests: Vec<Likely> = Vec::new();
        if withheld.is_none() {
            tests.extend(pending.into_iter().filter(|test| !test.changed).map(likely));
            tests.retain(|test| test.needs >= WORTH_TELLING);
            tests.sort_by(|a, b| b.needs.total_cmp(&a.needs).then_with(|| a.test.cmp(&b.test)));
            tests.truncate(limit);
        }
        Upkeep { schema: "flakefarm.upkeep/v1", since, commits: self.commits, evaluation, withheld, tests }
    }
}

/// What the difference between a revision and the work tree at `root` is likely to ask of tests.
pub(super) async fn upkeep(root: &Path, since: &str, limit: usize) -> Result<Upkeep, Complaint> {
    let (root, since) = (root.to_owned(), since.to_owned());
    trees::analyse(move || {
        let wrong = |error: revisions::RevisionError| Complaint::wrong(&error, error.hint());
        let mut lessons = Lessons::default();
        let mut before: Option<SourceTree> = None;
        for revision in revisions::last(&root, &since, COMMITS + 1).map_err(wrong)? {
            let after = tree_at(&root, &revision)?;
            if let Some(before) = &before {
                lessons.learn(&kept(before, &after));
            }
            before = Some(after);
        }
        let here = snapshot::archive(&root).map_err(|error| Complaint::wrong(&error, error.hint()))?;
        let here = trees::sources(&trees::files(&here)?)?;
        let pending = before.map(|before| kept(&before, &here)).unwrap_or_default();
        Ok(lessons.foretell(since, pending, limit))
    })
    .await
}

fn tree_at(root: &Path, revision: &Revision) -> Result<SourceTree, Complaint> {
    let archive =
        revisions::archive(root, revision).map_err(|error| Complaint::wrong(&error, error.hint()))?;
    trees::sources(&trees::files(&archive)?)
}

/// For people.
pub(super) fn text(upkeep: &Upkeep) -> String {
    let mut text = format!(
        "in need of maintenance by the change since {}, learnt from {} commits\n",
        upkeep.since, upkeep.commits
    );
    for test in &upkeep.tests {
        let touches: Vec<&str> = test.touches.iter().map(String::as_str).collect();
        let touches =
            if touches.is_empty() { String::new() } else { format!(" (touches {})", touches.join(", ")) };
        text.push_str(&format!("  {:>7}  {}{touches}\n", super::shown::percent(test.needs), test.test));
    }
    match &upkeep.withheld {
        Some(why) => text.push_str(&format!("  not shown: {why}\n")),
        None if upkeep.tests.is_empty() => text.push_str("  none is likely to be\n"),
        None => {}
    }
    text
}

/// For tables.
pub(super) fn csv(upkeep: &Upkeep) -> String {
    let mut text = "test,needs,touches\n".to_owned();
    for test in &upkeep.tests {
        let touches: Vec<&str> = test.touches.iter().map(String::as_str).collect();
        let touches = crate::memory::csv(&touches.join(" "));
        text.push_str(&format!("{},{:.6},{touches}\n", crate::memory::csv(&test.test), test.needs));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of twelve tests each commit touches three, of which it changes two.
    #[test]
    fn what_touched_tests_came_to_before_is_foretold_of_those_that_are_touched_now() {
        let commit = |number: usize| -> Vec<Kept> {
            (0..12)
                .map(|test| {
                    let touched = test % 4 == number % 4;
                    let touches = touched.then(|| format!("shop.f{test}")).into_iter().collect();
                    Kept {
                        test: format!("t.py::test_{test}"),
                        touches,
                        changed: touched && !(test / 4 + number).is_multiple_of(3),
                    }
                })
                .collect()
        };
        let mut lessons = Lessons::default();
        for number in 0..60 {
            lessons.learn(&commit(number));
        }
        let pending = commit(60).into_iter().map(|test| Kept { changed: false, ..test }).collect();
        let upkeep = lessons.foretell("HEAD".to_owned(), pending, 20);
        assert_eq!(upkeep.withheld, None, "{upkeep:?}");
        let touched: Vec<&Likely> = upkeep.tests.iter().filter(|test| !test.touches.is_empty()).collect();
        assert_eq!(touched.len(), 3, "{upkeep:?}");
        assert!(
            upkeep.tests[..3].iter().all(|test| !test.touches.is_empty() && test.needs > 0.4),
            "{upkeep:?}"
        );
        let text = text(&upkeep);
        assert!(text.contains("touches shop.f0") && text.contains("60 commits"), "{text}");
        let fresh = Lessons::default().foretell("HEAD".to_owned(), commit(1), 20);
        assert!(
            fresh.withheld.unwrap().contains("0 changes of tests on 0 commits") && fresh.tests.is_empty()
        );
    }
}
