//! Verdicts and their reasons from letters.

use super::*;
use crate::experiment::{History, JobKey, JobPhase, Runs};
use crate::plan::answers;
use crate::score::Category;
use flakefarm_shared::{
    AttemptRecord, AttemptSpec, Digest, Failure, FailureKind, JobId, JobReport, Order, Outcome, Phase,
    Sample, Scope, Selection, WIRE_VERSION, WorkerId,
};
use std::num::NonZeroU32;

fn question(runs: Option<u32>) -> Question {
    Question {
        runs: runs.map_or(Runs::Adaptive, |runs| Runs::Fixed(NonZeroU32::new(runs).unwrap())),
        ..Question::detect(1)
    }
}

/// One line per condition, a letter per attempt: `p`ass, `s`kip, anything else a failure of that
/// signature (`t`: a time-out).
fn ledger(lines: &[(Scope, Order, &str)]) -> Ledger {
    let test = TestId::from("tests/test_a.py::test_a");
    let mut ledger = Ledger::new(vec![test.clone(), TestId::from("tests/test_b.py::test_b")]);
    for (line, (scope, order, letters)) in (0..).zip(lines) {
        let key = JobKey::of_arm(JobPhase::DiagnoseTest, line, 0);
        let tests = match scope {
            Scope::Suite => Selection::All,
            Scope::File | Scope::Test => Selection::only(vec![test.clone()]),
        };
        let mut specs = Vec::new();
        let mut attempts = Vec::new();
        for (index, letter) in (0..).zip(letters.chars()) {
            // Shuffles of one line differ, unlike those that a digit repeats.
            let order = match order {
                Order::Shuffled { seed } => Order::Shuffled { seed: seed + u64::from(index) },
                Order::Given | Order::Reversed | Order::AsListed => *order,
            };
            let spec = AttemptSpec { index, ..AttemptSpec::plain(*scope, tests.clone(), order) };
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
                    circumstances: Vec::new(),
                    signature: other.to_string(),
                }),
            };
            let sample = Sample {
                test: test.clone(),
                output: outcome.is_failure().then(|| Digest::of(letter.to_string().as_bytes())),
                outcome,
                wall_us: 10_000,
                cpu_us: 10_000,
                phases: None,
                position: 0,
                warnings: Vec::new(),
                expected_failure: None,
            };
            attempts.push(AttemptRecord {
                wall_us: 1_000_000,
                samples: vec![sample],
                ..AttemptRecord::completed(&spec, WorkerId(format!("worker-{}", index % 2)))
            });
            specs.push(spec);
        }
        ledger.note_planned(key, &specs);
        let job = JobId(uuid::Uuid::nil());
        ledger.note_report(key, &JobReport { v: WIRE_VERSION, job, listing: None, attempts });
    }
    ledger
}

const GIVEN: (Scope, Order) = (Scope::Suite, Order::Given);
const REVERSED: (Scope, Order) = (Scope::Suite, Order::Reversed);
const SHUFFLED: (Scope, Order) = (Scope::Suite, Order::Shuffled { seed: 1_000 });
const ALONE: (Scope, Order) = (Scope::Test, Order::Given);

fn judged(runs: Option<u32>, lines: &[((Scope, Order), &str)]) -> Assessment {
    let lines: Vec<_> = lines.iter().map(|((scope, order), letters)| (*scope, *order, *letters)).collect();
    let (question, ledger) = (question(runs), ledger(&lines));
    let answers = answers(&question, &ledger, &History::default());
    let worlds = WorldsSeen::read(&ledger);
    assess(&question, &ledger, &answers, &worlds, &TestId::from("tests/test_a.py::test_a"))
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
