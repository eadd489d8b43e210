//! What a verdict is worth, given how the attempts under it were isolated.

use super::Assessment;
use crate::experiment::{Observation, SandboxChoice, Seen, Verdict};
use flakefarm_shared::SandboxLevel;

/// Says of a verdict that rests on forked attempts alone that it does, and takes back one that accuses
/// a test of what was seen only there, if the question wants that confirmed.
pub fn qualify(sandbox: SandboxChoice, observations: &[Observation], assessment: &mut Assessment) {
    let forked = |observation: &&Observation| observation.level == SandboxLevel::Forked;
    if observations.is_empty() {
        return;
    }
    match assessment.verdict {
        Verdict::Healthy if observations.iter().all(|observation| forked(&observation)) => {
            assessment.stopped_because.push_str(
                "; every run was forked from a prepared interpreter, which hides what happens at import",
            );
        }
        Verdict::Flaky | Verdict::Fragile | Verdict::Broken => {
            let mut failures = observations.iter().filter(|o| matches!(o.seen, Seen::Fail(_)));
            if sandbox.confirms() && failures.all(|failure| forked(&failure)) {
                let was = assessment.verdict;
                assessment.verdict = Verdict::Inconclusive;
                assessment.stopped_because = format!(
                    "it looks {was}, but failed only in runs forked from a prepared interpreter, never in a fresh container",
                    was = was.word()
                );
            }
        }
        Verdict::Healthy | Verdict::Inconclusive | Verdict::Skipped => {}
    }
}
