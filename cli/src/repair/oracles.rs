//! What could be expected instead, where nothing was proved and code does something else than it did. Shown, never
//! applied: the code may be wrong. Where the change of the code shows no new expectation it is called a regression.

use super::beside::{ToldOracle, ToldRegression};
use crate::exit::Complaint;
use crate::trees;
use flakefarm_coordinator::report::{Report, TestReport};
use flakefarm_project::snapshot::Archive;
use flakefarm_repair::cause::{self, CauseKind, Difference, Symptom, explain};
use flakefarm_repair::changes::Changes;
use flakefarm_repair::gates::cheats;
use flakefarm_repair::oracle;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Tests whose expectations are looked at.
const MAX_TESTS: usize = 20;

/// What is shown of tests that fail because code does something else.
#[derive(Default)]
pub(super) struct Shown {
    pub(super) oracles: Vec<ToldOracle>,
    pub(super) regressions: Vec<ToldRegression>,
}

/// What is shown of the tests that failed in `report`, of a run of `here`; `old` is the tree in which they were right.
/// Tests that a proposal mends expect nothing else, also where it does not mend all.
pub(super) async fn shown(
    report: &Report,
    mended: &BTreeSet<String>,
    old: &Archive,
    here: &Archive,
) -> Result<Shown, Complaint> {
    let fails = |test: &&TestReport| test.failures > 0 && !mended.contains(&test.id);
    let failing = report.tests.iter().filter(fails).take(MAX_TESTS).cloned().collect();
    of_failures(failing, old.clone(), here.clone()).await
}

async fn of_failures(failing: Vec<TestReport>, old: Archive, here: Archive) -> Result<Shown, Complaint> {
    trees::analyse(move || {
        let (old_files, new_files) = (trees::files(&old)?, trees::files(&here)?);
        let (old, new) = (trees::sources(&old_files)?, trees::sources(&new_files)?);
        let changes = Changes::between(&old, &new);
        let difference = Difference { old: &old, new: &new, changes: &changes };
        let mut shown = Shown::default();
        let mut regressions: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for test in &failing {
            let Some(failure) = test.failures_by_signature.first() else { continue };
            let symptom = Symptom {
                test: &test.id,
                kind: &failure.kind,
                phase: &failure.phase,
                exception: failure.exception.as_deref().unwrap_or_default(),
                message: &failure.message,
                fixture: failure.fixture.as_deref(),
            };
            let Some(cause) = explain(&symptom, Some(&difference)) else { continue };
            if let Some(change) = oracle::propose(&symptom, &cause, &difference) {
                let before = new_files.get(Path::new(&change.file.path));
                let before = before.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
                let asks_less =
                    !cheats(&change.file.path, before.as_deref(), Some(&change.file.text), str::to_owned)
                        .is_empty();
                let diff = trees::diff(&new_files, std::slice::from_ref(&change.file));
                if !asks_less && shown.oracles.iter().all(|known| known.diff != diff) {
                    shown.oracles.push(ToldOracle {
                        test: test.id.clone(),
                        strategy: change.oracle.word().to_owned(),
                        explanation: change.explanation,
                        diff,
                    });
                }
            } else if matches!(cause.kind, CauseKind::Behaviour | CauseKind::Constant | CauseKind::Exception)
                && cause.confidence >= cause::THRESHOLD
            {
                regressions.entry(cause.subject).or_default().push(test.id.clone());
            }
        }
        shown.regressions =
            regressions.into_iter().map(|(subject, tests)| ToldRegression { subject, tests }).collect();
        Ok(shown)
    })
    .await
}
