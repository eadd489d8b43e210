//! How much a test matters: the score, and the failures it is made of.

use crate::experiment::{Observation, Seen};
use crate::score::durations::DurationSummary;
use flakefarm_shared::{Circumstance, Digest, Failure, FailureKind, Phase};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Failures that look alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignatureCount {
    /// What they have in common.
    pub signature: String,
    /// How they failed.
    pub kind: FailureKind,
    /// During which phase.
    pub phase: Phase,
    /// The types of the exception and its causes, outermost first.
    pub exceptions: Vec<String>,
    /// Where it arose, as far as that is not the test's own body.
    pub circumstances: Vec<Circumstance>,
    /// How many.
    pub count: u32,
    /// The message of the first of them.
    pub message: String,
    /// Where the first of them arose, if not in the test's own body.
    pub within: Option<String>,
    /// The output of the first of them that has one.
    pub output: Option<Digest>,
}

/// 0.5 · 2 min(p, 1-p) + 0.3 · timing instability + 0.2 · failure diversity.
pub(super) fn score(
    failures: u32,
    attempts: u32,
    durations: Option<&DurationSummary>,
    signatures: &[SignatureCount],
) -> f64 {
    let undecided = if attempts == 0 {
        0.0
    } else {
        let p = f64::from(failures) / f64::from(attempts);
        2.0 * p.min(1.0 - p)
    };
    let instability = durations.map_or(0.0, |durations| durations.instability);
    0.5 * undecided + 0.3 * instability + 0.2 * diversity(signatures)
}

/// Entropy of the signatures over the most it could be, ln(failures): 0 if all look alike, 1 if no
/// two do.
fn diversity(signatures: &[SignatureCount]) -> f64 {
    let failures: f64 = signatures.iter().map(|s| f64::from(s.count)).sum();
    if failures < 2.0 {
        return 0.0;
    }
    let share = |s: &SignatureCount| f64::from(s.count) / failures;
    let entropy: f64 = -signatures.iter().map(|s| share(s) * share(s).ln()).sum::<f64>();
    (entropy / failures.ln()).clamp(0.0, 1.0)
}

pub(super) fn signatures<'a>(observations: impl Iterator<Item = &'a Observation>) -> Vec<SignatureCount> {
    let mut found: BTreeMap<&str, SignatureCount> = BTreeMap::new();
    for observation in observations {
        let Seen::Fail(seen) = &observation.seen else { continue };
        let entry = found.entry(&seen.failure.signature).or_insert_with(|| SignatureCount {
            signature: seen.failure.signature.clone(),
            kind: seen.failure.kind.clone(),
            phase: seen.failure.phase,
            exceptions: seen.failure.exceptions.clone(),
            circumstances: seen.failure.circumstances.clone(),
            count: 0,
            message: seen.failure.message.clone(),
            within: within(&seen.failure),
            output: None,
        });
        entry.count += 1;
        entry.output = entry.output.take().or_else(|| seen.output.clone());
    }
    let mut signatures: Vec<SignatureCount> = found.into_values().collect();
    signatures.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.signature.cmp(&b.signature)));
    signatures
}

/// Where a failure arose, if not in the test's own body.
fn within(failure: &Failure) -> Option<String> {
    let phase = match failure.phase {
        Phase::Call => None,
        Phase::Setup => Some("in the set-up"),
        Phase::Teardown => Some("in the tear-down"),
    };
    let mut fixtures = failure.circumstances.iter().filter_map(|circumstance| match circumstance {
        Circumstance::Fixture { name, scope } => Some(format!("of the fixture `{name}` ({scope})")),
        Circumstance::SecondPass { fixtures } => Some(match fixtures.as_slice() {
            [] => "in the second of two passes; what the class had set up was spoilt".to_owned(),
            fixtures => {
                let named = fixtures.iter().map(|fixture| format!("`{}` ({})", fixture.name, fixture.scope));
                let named = named.collect::<Vec<_>>().join(" or ");
                format!("in the second of two passes; the fixture {named} was spoilt")
            }
        }),
        Circumstance::Hook { .. }
        | Circumstance::SubTest { .. }
        | Circumstance::NoRoute { .. }
        | Circumstance::Unknown => None,
    });
    let fixture = fixtures.next();
    let parts: Vec<String> = phase.map(str::to_owned).into_iter().chain(fixture).collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_as_documented() {
        for row in crate::score::documented::rows("Score") {
            let (failures, attempts) = row[0].split_once(" of ").unwrap();
            let counts = row[1].split('+').filter_map(|count| count.parse().ok());
            let signatures: Vec<SignatureCount> = counts
                .map(|count| SignatureCount {
                    signature: String::new(),
                    kind: FailureKind::Assertion,
                    phase: Phase::Call,
                    exceptions: Vec::new(),
                    circumstances: Vec::new(),
                    count,
                    message: String::new(),
                    within: None,
                    output: None,
                })
                .collect();
            let instability = row[2].parse().unwrap();
            let durations = DurationSummary { runs: 9, p50: 1.0, p95: 1.0, mean: 1.0, cv: 0.0, instability };
            let found =
                score(failures.parse().unwrap(), attempts.parse().unwrap(), Some(&durations), &signatures);
            assert!((found - row[3].parse::<f64>().unwrap()).abs() < 0.000_5, "{row:?}: {found}");
        }
    }
}
