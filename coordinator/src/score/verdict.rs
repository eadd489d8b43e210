//! What is known of one test, and why we stopped.

use crate::plan::{Condition, ConditionCount, Ledger, Observation, Question, Seen, WorldsSeen, file_of};
use crate::score::category::{Category, Finding, categorise};
use crate::score::durations::{DurationSummary, summarise};
use crate::score::elsewhere::Elsewhere;
use crate::score::interval::{RateEstimate, rate_interval, upper_bound_after_clean_runs};
use flakefarm_shared::{Digest, FailureKind, TestId, WorkerId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// No failure in as many runs as were asked for.
    Healthy,
    /// A pass and a failure on one snapshot, under treatments that differ in order, or in what a plain
    /// run draws at random, at most.
    Flaky,
    /// Does the same in every plain run, and something else in other surroundings or under stress.
    Fragile,
    /// Failed every time, often enough.
    Broken,
    /// Too few runs, or none.
    Inconclusive,
    /// Skipped every time.
    Skipped,
}

impl Verdict {
    /// The stable word used in reports.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Healthy => "healthy",
            Verdict::Flaky => "flaky",
            Verdict::Fragile => "fragile",
            Verdict::Broken => "broken",
            Verdict::Inconclusive => "inconclusive",
            Verdict::Skipped => "skipped",
        }
    }
}

/// Failures that look alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignatureCount {
    /// What they have in common.
    pub signature: String,
    /// How they failed.
    pub kind: FailureKind,
    /// How many.
    pub count: u32,
    /// The message of the first of them.
    pub message: String,
    /// The output of the first of them that has one.
    pub output: Option<Digest>,
}

/// What is known of one test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assessment {
    /// The verdict.
    pub verdict: Verdict,
    /// Passes and failures in plain runs; skips are not attempts.
    pub attempts: u32,
    /// Failures in plain runs.
    pub failures: u32,
    /// Skips in plain runs.
    pub skips: u32,
    /// The failure rate of plain runs.
    pub rate: RateEstimate,
    /// From 0 to 1, to rank tests.
    pub score: f64,
    /// Durations, if it ever ran.
    pub durations: Option<DurationSummary>,
    /// Why we stopped and what is proved.
    pub stopped_because: String,
    /// Conditions in which it passed or failed.
    pub conditions: Vec<ConditionCount>,
    /// Its failures by what they look like, the most frequent first.
    pub signatures: Vec<SignatureCount>,
    /// What it depends on, if that shows.
    pub category: Option<Finding>,
}

/// What the ledger proves about `test`.
pub fn assess(question: &Question, ledger: &Ledger, test: &TestId) -> Assessment {
    assess_among(question, ledger, &WorldsSeen::read(ledger), test)
}

/// As [`assess`], for callers who look at many tests of one ledger.
pub fn assess_among(question: &Question, ledger: &Ledger, worlds: &WorldsSeen, test: &TestId) -> Assessment {
    let elsewhere = Elsewhere::read(ledger, worlds, test);
    let observations: Vec<&Observation> = ledger.plain(test).collect();
    let count = |wanted: fn(&Seen) -> bool| {
        u32::try_from(observations.iter().filter(|o| wanted(&o.seen)).count()).expect("counted in 32 bits")
    };
    let passes = count(|seen| matches!(seen, Seen::Pass));
    let failures = count(|seen| matches!(seen, Seen::Fail(_)));
    let skips = count(|seen| matches!(seen, Seen::Skip));
    let attempts = passes + failures;
    let conditions: Vec<ConditionCount> =
        ledger.counts(test).into_iter().filter(|count| worlds.counts(count.condition)).collect();
    let durations = summarise(&observations);
    let signatures = signatures(ledger.observations(test).iter().filter(|o| worlds.is_usable(o.world)));
    let runs = question.runs_per_test();
    let sure = percent_down(question.confidence.get());
    let (verdict, stopped_because) = match (elsewhere.verdict(), passes, failures) {
        (Some(different), ..) => different,
        (None, 0, 0) if skips > 0 => (Verdict::Skipped, format!("skipped every time ({skips})")),
        (None, 0, 0) => (Verdict::Inconclusive, why_never_ran(ledger, test)),
        (None, 1.., 1..) => (Verdict::Flaky, why_flaky(&observations, passes, failures)),
        (None, passes, 0) => {
            let bound = percent_up(upper_bound_after_clean_runs(passes, question.confidence));
            let clean = format!("{} ({})", times(passes, "clean run", "clean runs"), words(&conditions));
            if passes >= runs {
                let text = format!(
                    "{clean}: were it to flake {bound} of the time or more, we would have seen it with {sure} \
                     probability{}",
                    elsewhere.covered().unwrap_or_default()
                );
                (Verdict::Healthy, text)
            } else {
                let text =
                    format!("{clean} of {runs} wanted: if it flakes, less than {bound} of the time ({sure})");
                (Verdict::Inconclusive, text)
            }
        }
        (None, 0, failures) => {
            let bound = percent_up(upper_bound_after_clean_runs(failures, question.confidence));
            let failed = format!("failed {failures} of {failures} ({})", words(&conditions));
            let needed = runs.min(question.runs_for_guarantee());
            if failures >= needed {
                let text = format!(
                    "{failed}: were it to pass {bound} of the time or more, we would have seen it with {sure} \
                     probability"
                );
                (Verdict::Broken, text)
            } else {
                let text = format!(
                    "{failed}, {needed} are needed: if it passes, less than {bound} of the time ({sure})"
                );
                (Verdict::Inconclusive, text)
            }
        }
    };
    let everywhere = elsewhere.everywhere();
    Assessment {
        verdict,
        attempts,
        failures,
        skips,
        rate: rate_interval(failures, attempts, question.confidence),
        score: score(everywhere.failures, everywhere.attempts, durations.as_ref(), &signatures),
        durations,
        stopped_because,
        conditions,
        signatures,
        category: category(verdict, &elsewhere, ledger, test),
    }
}

/// What it depends on: an order, unless nothing but chance shows there, then a world.
fn category(verdict: Verdict, elsewhere: &Elsewhere, ledger: &Ledger, test: &TestId) -> Option<Finding> {
    let by_order = match verdict {
        Verdict::Flaky => categorise(ledger, test),
        Verdict::Fragile => None,
        Verdict::Healthy | Verdict::Broken | Verdict::Inconclusive | Verdict::Skipped => return None,
    };
    match by_order {
        Some(finding) if finding.category != Category::NonDeterministic => Some(finding),
        by_chance => elsewhere.finding().or(by_chance),
    }
}

/// 0.5 · 2 min(p, 1-p) + 0.3 · timing instability + 0.2 · failure diversity.
fn score(
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

fn signatures<'a>(observations: impl Iterator<Item = &'a Observation>) -> Vec<SignatureCount> {
    let mut found: BTreeMap<&str, SignatureCount> = BTreeMap::new();
    for observation in observations {
        let Seen::Fail(seen) = &observation.seen else { continue };
        let entry = found.entry(&seen.failure.signature).or_insert_with(|| SignatureCount {
            signature: seen.failure.signature.clone(),
            kind: seen.failure.kind.clone(),
            count: 0,
            message: seen.failure.message.clone(),
            output: None,
        });
        entry.count += 1;
        entry.output = entry.output.take().or_else(|| seen.output.clone());
    }
    let mut signatures: Vec<SignatureCount> = found.into_values().collect();
    signatures.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.signature.cmp(&b.signature)));
    signatures
}

fn why_flaky(observations: &[&Observation], passes: u32, failures: u32) -> String {
    let workers = |wanted: fn(&Seen) -> bool| -> BTreeSet<&WorkerId> {
        observations.iter().filter(|o| wanted(&o.seen)).map(|o| o.worker.as_ref()).collect()
    };
    let failing = workers(|seen| matches!(seen, Seen::Fail(_)));
    let every = workers(|seen| !matches!(seen, Seen::Skip));
    let confirmed = if failing.len() > 1 {
        format!(", seen to fail on {} workers", failing.len())
    } else if failures > 1 {
        String::new()
    } else if every.len() > 1 {
        ", one failure on one worker".to_owned()
    } else {
        ", one failure".to_owned()
    };
    format!(
        "witnessed: {} and {} on one snapshot{confirmed}",
        times(passes, "pass", "passes"),
        times(failures, "failure", "failures")
    )
}

fn why_never_ran(ledger: &Ledger, test: &TestId) -> String {
    let file = file_of(test);
    if let Some(error) = ledger.collection_errors().into_iter().find(|error| error.path == file) {
        let last = error.message.lines().last().unwrap_or_default();
        return format!("never ran: {file} could not be collected: {last}");
    }
    if let Some(reason) = ledger.nothing_ran().into_iter().next() {
        return format!("never ran: {}", reason.lines().last().unwrap_or_default());
    }
    if let Some((_, reason)) = ledger.lost_jobs().next() {
        return format!("never ran: the farm lost its jobs: {reason}");
    }
    match ledger.infrastructure_errors() {
        0 => "never ran: no attempt said anything of it".to_owned(),
        errors => format!(
            "never ran: the farm failed ({})",
            times(errors, "infrastructure error", "infrastructure errors")
        ),
    }
}

fn words(conditions: &[ConditionCount]) -> String {
    let plain = |count: &&ConditionCount| !matches!(count.condition, Condition::World(_));
    let words: Vec<String> = conditions
        .iter()
        .filter(plain)
        .map(|count| format!("{} {}", count.attempts, count.condition))
        .collect();
    words.join(", ")
}

fn times(count: impl Into<u64>, one: &str, more: &str) -> String {
    let count = count.into();
    if count == 1 { format!("1 {one}") } else { format!("{count} {more}") }
}

/// With one decimal below ten per cent, and never less than the value.
fn percent_up(value: f64) -> String {
    percent(value, f64::ceil)
}

/// As [`percent_up`], never more than the value.
fn percent_down(value: f64) -> String {
    percent(value, f64::floor)
}

fn percent(value: f64, round: fn(f64) -> f64) -> String {
    let percent = value * 100.0;
    // Whole steps but for rounding are left alone.
    let step = if (0.1..=99.9).contains(&percent) { 10.0 } else { 1e4 };
    let near = (percent * step).round();
    let steps = if (near - percent * step).abs() < 1e-6 { near } else { round(percent * step) };
    format!("{} %", steps / step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Confidence, QuestionKind, Rate, Runs, ScopeChoice, TestFilter};
    use flakefarm_shared::{
        AttemptEnd, AttemptRecord, AttemptSpec, Failure, JobId, JobReport, Order, Outcome, Phase, Sample,
        SandboxLevel, Scope, Selection, WIRE_VERSION, World,
    };
    use std::num::{NonZeroU16, NonZeroU32};

    fn question(runs: Option<u32>) -> Question {
        Question {
            kind: QuestionKind::Detect,
            runs: runs.map_or(Runs::ForGuarantee, |runs| Runs::Fixed(NonZeroU32::new(runs).unwrap())),
            scope: ScopeChoice::Auto,
            order: None,
            seed: 1,
            confidence: Confidence::DEFAULT,
            max_flake_rate: Rate::DEFAULT,
            workers: NonZeroU16::MIN,
            tests: TestFilter::default(),
            panel: Vec::new(),
        }
    }

    /// One line per condition, a letter per attempt: `p`ass, `s`kip, anything else a failure of that
    /// signature (`t`: a time-out).
    fn ledger(lines: &[(Scope, Order, &str)]) -> Ledger {
        let test = TestId::from("tests/test_a.py::test_a");
        let mut ledger = Ledger::new(vec![test.clone(), TestId::from("tests/test_b.py::test_b")]);
        for (line, (scope, order, letters)) in lines.iter().enumerate() {
            let key = format!("line/{line}");
            let tests = match scope {
                Scope::Suite => Selection::All,
                Scope::File | Scope::Test => Selection::Only(vec![test.clone()]),
            };
            let mut specs = Vec::new();
            let mut attempts = Vec::new();
            for (index, letter) in (0..).zip(letters.chars()) {
                // Shuffles of one line differ, unlike those that a digit repeats.
                let order = match order {
                    Order::Shuffled { seed } => Order::Shuffled { seed: seed + u64::from(index) },
                    Order::Given | Order::Reversed | Order::AsListed => *order,
                };
                specs.push(AttemptSpec { index, ..AttemptSpec::plain(*scope, tests.clone(), order) });
                let kind = match letter {
                    't' => FailureKind::Timeout { limit_ms: 1_000 },
                    _ => FailureKind::Assertion,
                };
                let outcome = match letter {
                    'p' => Outcome::Pass,
                    's' => Outcome::Skip { reason: "no".into() },
                    other => Outcome::Fail(Failure {
                        kind,
                        phase: Phase::Call,
                        exceptions: Vec::new(),
                        message: format!("message {other}"),
                        frames: Vec::new(),
                        signature: other.to_string(),
                    }),
                };
                let sample = Sample {
                    test: test.clone(),
                    output: outcome.is_failure().then(|| Digest::of(letter.to_string().as_bytes())),
                    outcome,
                    wall_us: 10_000,
                    cpu_us: 10_000,
                    position: 0,
                    warnings: Vec::new(),
                };
                attempts.push(AttemptRecord {
                    index,
                    scope: *scope,
                    order,
                    world: World::Plain,
                    level: SandboxLevel::Container,
                    worker: WorkerId(format!("worker-{}", index % 2)),
                    started_at: 0,
                    wall_us: 1_000_000,
                    concurrency: 1,
                    end: AttemptEnd::Completed,
                    samples: vec![sample],
                    output: None,
                    collection_errors: Vec::new(),
                    details: Vec::new(),
                });
            }
            ledger.note_planned(&key, &specs);
            let job = JobId(uuid::Uuid::nil());
            ledger.note_report(&key, &JobReport { v: WIRE_VERSION, job, listing: None, attempts });
        }
        ledger
    }

    const GIVEN: (Scope, Order) = (Scope::Suite, Order::Given);
    const REVERSED: (Scope, Order) = (Scope::Suite, Order::Reversed);
    const SHUFFLED: (Scope, Order) = (Scope::Suite, Order::Shuffled { seed: 1_000 });
    const ALONE: (Scope, Order) = (Scope::Test, Order::Given);

    fn judged(runs: Option<u32>, lines: &[((Scope, Order), &str)]) -> Assessment {
        let lines: Vec<_> =
            lines.iter().map(|((scope, order), letters)| (*scope, *order, *letters)).collect();
        assess(&question(runs), &ledger(&lines), &TestId::from("tests/test_a.py::test_a"))
    }

    #[test]
    fn verdicts_follow_the_counts() {
        #[track_caller]
        fn check(runs: Option<u32>, letters: &str, expect: Verdict) {
            let found = judged(runs, &[(GIVEN, letters)]);
            assert_eq!(found.verdict, expect, "{letters}: {found:#?}");
        }
        check(Some(10), "pppppppppp", Verdict::Healthy);
        check(Some(10), "ppppppppp", Verdict::Inconclusive);
        check(Some(10), "pppppppppf", Verdict::Flaky);
        check(Some(10), "pt", Verdict::Flaky);
        check(Some(10), "ffffffffff", Verdict::Broken);
        check(Some(10), "fffffffff", Verdict::Inconclusive);
        check(Some(3), "ttt", Verdict::Broken);
        check(Some(3), "sss", Verdict::Skipped);
        check(Some(3), "sssp", Verdict::Inconclusive);
        check(Some(3), "sfsff", Verdict::Broken);
        check(Some(3), "sfp", Verdict::Flaky);
        check(Some(3), "", Verdict::Inconclusive);
        check(None, &"p".repeat(59), Verdict::Healthy);
        check(None, &"p".repeat(58), Verdict::Inconclusive);
        // A thousand runs were asked for; 59 failures say it all the same.
        check(Some(1_000), &"f".repeat(59), Verdict::Broken);
        check(Some(1_000), &"f".repeat(58), Verdict::Inconclusive);
    }

    #[test]
    fn texts_say_what_is_proved_and_where() {
        #[track_caller]
        fn check(runs: Option<u32>, lines: &[((Scope, Order), &str)], expect: &str) {
            assert_eq!(judged(runs, lines).stopped_because, expect);
        }
        check(
            Some(5),
            &[(GIVEN, "ppp"), (REVERSED, "p"), (ALONE, "p")],
            "5 clean runs (3 given order, 1 reversed, 1 alone): were it to flake 45.1 % of the time or more, we \
             would have seen it with 95 % probability",
        );
        check(
            Some(30),
            &[(GIVEN, "pppppppppp")],
            "10 clean runs (10 given order) of 30 wanted: if it flakes, less than 25.9 % of the time (95 %)",
        );
        check(
            None,
            &[(GIVEN, &"p".repeat(59))],
            "59 clean runs (59 given order): were it to flake 5 % of the time or more, we would have seen it \
             with 95 % probability",
        );
        check(
            Some(2),
            &[(GIVEN, "f"), (ALONE, "f")],
            "failed 2 of 2 (1 given order, 1 alone): were it to pass 77.7 % of the time or more, we would have \
             seen it with 95 % probability",
        );
        check(
            Some(9),
            &[(GIVEN, "f")],
            "failed 1 of 1 (1 given order), 9 are needed: if it passes, less than 95 % of the time (95 %)",
        );
        check(Some(9), &[(GIVEN, "pfpf")], "witnessed: 2 passes and 2 failures on one snapshot");
        check(
            Some(9),
            &[(GIVEN, "pff")],
            "witnessed: 1 pass and 2 failures on one snapshot, seen to fail on 2 workers",
        );
        check(Some(9), &[(GIVEN, "ss")], "skipped every time (2)");
        check(Some(9), &[], "never ran: no attempt said anything of it");
    }

    #[test]
    fn categories_need_evidence() {
        #[track_caller]
        fn check(lines: &[((Scope, Order), &str)], expect: Option<Category>) {
            let found = judged(Some(10), lines);
            assert_eq!(found.category.as_ref().map(|finding| finding.category), expect, "{found:#?}");
        }
        check(&[(GIVEN, "pppf")], Some(Category::NonDeterministic));
        check(
            &[(GIVEN, "fff"), (REVERSED, "ppp"), (SHUFFLED, "fpfp"), (ALONE, "pppppppppp")],
            Some(Category::OrderVictim),
        );
        check(&[(GIVEN, "pppp"), (SHUFFLED, "ppfp"), (ALONE, "pppppppppp")], None);
        check(&[(GIVEN, "pppp"), (REVERSED, "fff"), (ALONE, "ffffffffff")], Some(Category::OrderBrittle));
        check(&[(GIVEN, "pppppp"), (REVERSED, "ffff")], Some(Category::OrderDependent));
        check(&[(GIVEN, "pppppppppp"), (REVERSED, "ff"), (ALONE, "pppppppppp")], Some(Category::OrderVictim));
        check(&[(GIVEN, "p"), (REVERSED, "f")], None);
        check(&[(GIVEN, "ffff"), (ALONE, "ffff")], None);
        check(
            &[(GIVEN, "pppp"), (SHUFFLED, "fpp"), (SHUFFLED, "f"), (SHUFFLED, "f"), (ALONE, "pp")],
            Some(Category::OrderDependent),
        );
        check(
            &[(GIVEN, "pppp"), (SHUFFLED, "fpp"), (SHUFFLED, "p"), (SHUFFLED, "f"), (ALONE, "pp")],
            Some(Category::NonDeterministic),
        );
    }

    #[test]
    fn signatures_are_counted_with_their_output() {
        let found = judged(Some(10), &[(GIVEN, "pfatffp")]);
        let short: Vec<_> =
            found.signatures.iter().map(|s| (s.signature.as_str(), s.count, s.kind.word())).collect();
        assert_eq!(short, [("f", 3, "assertion"), ("a", 1, "assertion"), ("t", 1, "timeout")]);
        assert_eq!(found.signatures[0].output, Some(Digest::of(b"f")));
        assert_eq!(found.signatures[0].message, "message f");
    }

    #[test]
    fn scores_are_as_documented() {
        for row in crate::score::documented::rows("Score") {
            let (failures, attempts) = row[0].split_once(" of ").unwrap();
            let counts = row[1].split('+').filter_map(|count| count.parse().ok());
            let signatures: Vec<SignatureCount> = counts
                .map(|count| SignatureCount {
                    signature: String::new(),
                    kind: FailureKind::Assertion,
                    count,
                    message: String::new(),
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
