//! What is said of things that several tests share.

use super::verdict::Assessment;
use crate::experiment::{Shared, Subject, Verdict};
use flakefarm_shared::TestId;

const NAMED: usize = 3;

/// Judges it by what was seen, which for a failure is enough; where it fails in other worlds only, as a test is.
pub fn judge_shared(shared: &Shared, assessment: &mut Assessment) {
    let (failures, attempts) = shared.failed();
    let what = match &shared.subject {
        Subject::Fixture { last, .. } => {
            let named: Vec<&str> = last.iter().take(NAMED).map(TestId::as_str).collect();
            let more = if last.len() > NAMED { " and others" } else { "" };
            format!(
                "pytest shows that as an error of whichever test comes last ({}{more}), which is not to blame",
                named.join(", ")
            )
        }
        Subject::File { .. } => "its tests did not run where it could not be collected".to_owned(),
    };
    if failures > 0 {
        assessment.verdict = if failures == attempts { Verdict::Broken } else { Verdict::Flaky };
        let did = match &shared.subject {
            Subject::Fixture { scope, .. } => format!("the tear-down of this {scope} fixture failed"),
            Subject::File { .. } => "it could not be collected".to_owned(),
        };
        assessment.stopped_because = format!("{did} in {failures} of {attempts} runs that needed it; {what}");
    } else {
        assessment.stopped_because = format!("{}; {what}", assessment.stopped_because);
    }
    assessment.risk = None;
    assessment.durations = None;
    if assessment.verdict == Verdict::Broken {
        assessment.category = None;
    }
}
