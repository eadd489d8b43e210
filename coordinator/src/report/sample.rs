//! Reports for the renderers' tests: invented, but shaped like those of real sweeps.

use super::build::rank;
use super::model::*;
use super::values::round;
use crate::experiment::Confidence;
use crate::score::interval::rate_interval;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

const START: OffsetDateTime = datetime!(2026-03-14 02:00:00 UTC);

fn sweep() -> Sweep {
    Sweep {
        id: "0195925b-3f00-7c41-9d5e-6a1b2c3d4e5f".into(),
        question: "detect".into(),
        project: "orders".into(),
        revision: Some("4f2c1aa".into()),
        seed: 20_260_314,
        started_at: START,
        finished_at: Some(START + Duration::seconds(403)),
        stopped: Some(Stopped::Answered),
        attempts: 0,
        samples: 0,
        infrastructure_errors: 0,
        failed_starts: 0,
        odd_ends: None,
        container_seconds: 0.0,
        saved_vs_fixed: None,
        runs: None,
        confidence: Some(0.95),
        max_flake_rate: Some(0.05),
        guarantee: None,
        budget: None,
        suite: None,
        scope: Some("auto".into()),
        framework: Some("pytest 9.0.2, CPython 3.11.2".into()),
        image: Some("sha256:5d3f0a9c7be1".into()),
        sandbox: Some("container".into()),
        path: Some(".".into()),
        under: None,
        order: None,
        arguments: Vec::new(),
        command: None,
        workers: vec!["worker-1".into(), "worker-2".into()],
        collection_errors: Vec::new(),
        notes: Vec::new(),
        clusters: Vec::new(),
        infrastructure: Vec::new(),
        trust: None,
    }
}

/// How an invented test behaves.
struct Behaviour {
    id: &'static str,
    verdict: Verdict,
    /// Milliseconds, typically.
    typical_ms: f64,
    /// Whether it fails: condition, position, chance from 0 to 1.
    fails: fn(&str, u32, f64) -> bool,
    failures: &'static [(&'static str, AttemptOutcome, &'static str, u32)],
    cause: Option<(&'static str, f64, &'static [&'static str])>,
    score: f64,
    stopped_because: &'static str,
}

const SUITE: u32 = 240;

fn invent(behaviour: &Behaviour, seed: u64) -> TestReport {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut timeline = Vec::new();
    let plan = [("given order", 20), ("reversed", 1), ("shuffled", 18), ("alone", 20)];
    let mut slots: Vec<&str> = plan.iter().flat_map(|(word, n)| std::iter::repeat_n(*word, *n)).collect();
    // The farm interleaves conditions; swap a few for the look of it.
    for i in 0..slots.len() {
        let j = random.random_range(0..slots.len());
        slots.swap(i, j);
    }
    let mut signatures: BTreeMap<usize, u64> = BTreeMap::new();
    for (i, condition) in slots.into_iter().enumerate() {
        let position = match condition {
            "alone" => 0,
            "given order" => 57,
            "reversed" => SUITE - 58,
            _ => random.random_range(0..SUITE),
        };
        let failed = (behaviour.fails)(condition, position, random.random());
        let spread: f64 = random.random::<f64>() + random.random::<f64>() * random.random::<f64>() * 2.0;
        let mut wall_ms = behaviour.typical_ms * (0.8 + 0.35 * spread);
        let which = if random.random_bool(0.8) { 0 } else { behaviour.failures.len().saturating_sub(1) };
        let (outcome, signature) = match behaviour.failures.get(which).filter(|_| failed) {
            Some((signature, outcome, _, _)) => {
                *signatures.entry(which).or_default() += 1;
                if *outcome == AttemptOutcome::Timeout {
                    wall_ms = 60_000.0;
                }
                (*outcome, Some((*signature).to_owned()))
            }
            None if behaviour.verdict == Verdict::Skipped => (AttemptOutcome::Skip, None),
            None => (AttemptOutcome::Pass, None),
        };
        timeline.push(TimelineEntry {
            at: START + Duration::milliseconds(6_500 * i as i64 + 1_200),
            condition: condition.to_owned(),
            order_seed: (condition == "shuffled").then(|| 7_000_000_000 + i as u64),
            position,
            outcome,
            wall_ms: (wall_ms * 1e3).round() / 1e3,
            signature,
            worker: format!("worker-{}", i % 2 + 1),
            concurrency: 4,
        });
    }
    let failures_by_signature = signatures
        .iter()
        .map(|(which, count)| {
            let (signature, outcome, message, line) = behaviour.failures[*which];
            let kind = match outcome {
                AttemptOutcome::Timeout => "timeout",
                AttemptOutcome::Crash => "crash",
                AttemptOutcome::Oom => "out_of_memory",
                _ => "assertion",
            };
            let file = behaviour.id.split("::").next().unwrap().to_owned();
            SignatureCount {
                signature: signature.into(),
                kind: kind.into(),
                phase: "call".into(),
                exception: None,
                fixture: None,
                count: *count,
                message: message.into(),
                within: None,
                output: Some(format!("output-of-{signature}")),
                location: (line > 0).then_some(Location { path: file, line }),
            }
        })
        .collect();
    finish(behaviour, timeline, failures_by_signature)
}

fn finish(
    behaviour: &Behaviour,
    timeline: Vec<TimelineEntry>,
    mut signatures: Vec<SignatureCount>,
) -> TestReport {
    signatures.sort_by_key(|signature| std::cmp::Reverse(signature.count));
    let seen: Vec<&TimelineEntry> = timeline.iter().filter(|e| e.outcome != AttemptOutcome::Skip).collect();
    let count = |condition: &str| {
        let of: Vec<_> = seen.iter().filter(|e| e.condition == condition).collect();
        let failures = of.iter().filter(|e| e.outcome.is_failure()).count() as u64;
        ConditionCount { condition: condition.into(), attempts: of.len() as u64, failures }
    };
    let conditions: Vec<_> = ["given order", "reversed", "shuffled", "alone"]
        .into_iter()
        .map(count)
        .filter(|count| count.attempts > 0)
        .collect();
    let attempts = seen.len() as u64;
    let failures = seen.iter().filter(|e| e.outcome.is_failure()).count() as u64;
    let rate = rate_interval(failures as u32, attempts as u32, Confidence::DEFAULT);
    let mut walls: Vec<f64> = seen.iter().map(|e| e.wall_ms).collect();
    walls.sort_by(f64::total_cmp);
    let at = |share: f64| walls[((walls.len() - 1) as f64 * share) as usize];
    let duration_ms = (!walls.is_empty()).then(|| Durations {
        p50: at(0.5),
        p95: at(0.95),
        mean: round(walls.iter().sum::<f64>() / walls.len() as f64, 3),
        cv: 0.3,
    });
    let failing_seed = timeline.iter().filter(|e| e.outcome.is_failure()).find_map(|e| e.order_seed);
    TestReport {
        id: behaviour.id.into(),
        subject: Subject::Test,
        file: None,
        verdict: behaviour.verdict,
        attempts,
        failures,
        skips: 0,
        rate: (attempts > 0).then_some(Rate {
            estimate: round(rate.estimate, 6),
            lower: round(rate.lower, 6),
            upper: round(rate.upper, 6),
            confidence: rate.confidence,
        }),
        score: behaviour.score,
        duration_ms,
        stopped_because: behaviour.stopped_because.into(),
        risk: None,
        older_evidence: None,
        conditions,
        failures_by_signature: signatures,
        introduced: None,
        comparison: None,
        cause: behaviour.cause.map(|(category, confidence, evidence)| Cause {
            category: category.into(),
            confidence,
            evidence: evidence.iter().map(|&line| line.into()).collect(),
            experiment: None,
        }),
        reproduce: if behaviour.cause.is_some_and(|(category, ..)| category == "order_victim") {
            "flakefarm sweep . --scope suite --runs 59 --seed 20260314".to_owned()
        } else {
            let id = super::words::shell_quote(behaviour.id);
            format!("flakefarm sweep . --tests {id} --scope test --runs 59 --seed 20260314")
        },
        reproduce_failure: failing_seed
            .map(|seed| format!("flakefarm sweep . --scope suite --order shuffled:{seed} --runs 1")),
        timeline: if behaviour.verdict == Verdict::Healthy { Vec::new() } else { timeline },
    }
}

fn never(_: &str, _: u32, _: f64) -> bool {
    false
}

const HEALTHY: &str = "59 clean runs: had it flaked 5 % of the time, it would have shown (95 %)";

fn behaviours() -> Vec<Behaviour> {
    let mut all = vec![
        Behaviour {
            id: "tests/test_cart.py::TestCart::test_total_is_empty_at_first[EUR-2]",
            verdict: Verdict::Flaky,
            typical_ms: 12.0,
            fails: |condition, position, _| condition != "alone" && position > 120,
            failures: &[(
                "9f31c07ab2d4e518",
                AttemptOutcome::Fail,
                "AssertionError: assert {'sku-1': 3} == {}\n  Left contains 1 more item",
                48,
            )],
            cause: Some((
                "order_victim",
                0.97,
                &[
                    "never failed alone (20 runs)",
                    "failed in every order in which it ran after position 120",
                    "one signature in all failures",
                ],
            )),
            score: 0.71,
            stopped_because: "passed 46 and failed 13 times on the same snapshot, seen to fail on 2 workers",
        },
        Behaviour {
            id: "tests/integration/test_payment_webhooks.py::test_retry_is_sent_within_a_second",
            verdict: Verdict::Flaky,
            typical_ms: 950.0,
            fails: |_, _, chance| chance < 0.14,
            failures: &[
                (
                    "1c0d44be90aa7f36",
                    AttemptOutcome::Fail,
                    "AssertionError: expected 1 delivery within 1.0 s, got 0",
                    112,
                ),
                ("77ab01ffce2219d0", AttemptOutcome::Timeout, "timed out after 60 s in queue.get()", 0),
            ],
            cause: Some((
                "non_deterministic",
                0.9,
                &["failed alone, under the given order and shuffled", "slow runs fail more often"],
            )),
            score: 0.46,
            stopped_because: "passed and failed in the given order, seen to fail on 2 workers",
        },
        Behaviour {
            id: "tests/test_search.py::test_ranking_is_stable[größe-ß→ss]",
            verdict: Verdict::Flaky,
            typical_ms: 35.0,
            fails: |_, _, chance| chance < 0.06,
            failures: &[(
                "04be9d2c6a1f8877",
                AttemptOutcome::Fail,
                "AssertionError: assert ['b', 'a'] == ['a', 'b']",
                21,
            )],
            cause: None,
            score: 0.22,
            stopped_because: "passed and failed alone",
        },
        Behaviour {
            id: "tests/test_export.py::test_csv_has_a_header",
            verdict: Verdict::Broken,
            typical_ms: 4.0,
            fails: |_, _, _| true,
            failures: &[(
                "e2aa60771b9c0d35",
                AttemptOutcome::Fail,
                "FileNotFoundError: [Errno 2] No such file or directory: 'template.csv'",
                9,
            )],
            cause: None,
            score: 0.0,
            stopped_because: "failed 59 of 59: if it ever passes, less than 5 % of the time (95 %)",
        },
        Behaviour {
            id: "tests/test_images.py::test_thumbnail_of_a_huge_picture",
            verdict: Verdict::Fragile,
            typical_ms: 2_400.0,
            fails: |condition, _, chance| condition == "shuffled" && chance < 0.3,
            failures: &[
                ("bb10fe62d3c94a05", AttemptOutcome::Oom, "ended for want of memory (limit 2 GiB)", 0),
                (
                    "aa5520be71d3c9f4",
                    AttemptOutcome::Crash,
                    "the interpreter died of signal 11 (segmentation fault)",
                    0,
                ),
            ],
            cause: None,
            score: 0.31,
            stopped_because: "fails only when shuffled",
        },
        Behaviour {
            id: "tests/test_mail.py::test_bounce",
            verdict: Verdict::Inconclusive,
            typical_ms: 80.0,
            fails: |condition, _, _| condition == "reversed",
            failures: &[(
                "5566aa77bb88cc99",
                AttemptOutcome::Fail,
                "ConnectionRefusedError: [Errno 111] Connection refused",
                33,
            )],
            cause: None,
            score: 0.1,
            stopped_because: "the budget ended before the failure could be confirmed",
        },
        Behaviour {
            id: "tests/test_windows.py::test_registry",
            verdict: Verdict::Skipped,
            typical_ms: 0.1,
            fails: never,
            failures: &[],
            cause: None,
            score: 0.0,
            stopped_because: "skipped every time",
        },
    ];
    let healthy = [
        "tests/test_cart.py::TestCart::test_add",
        "tests/test_cart.py::TestCart::test_remove",
        "tests/test_cart.py::TestCart::test_currency[EUR]",
        "tests/test_cart.py::TestCart::test_currency[USD]",
        "tests/test_search.py::test_empty_query",
        "tests/test_search.py::test_limit",
        "tests/test_export.py::test_json",
        "tests/test_images.py::test_rotate",
        "tests/test_mail.py::test_send",
        "tests/test_users.py::test_create",
        "tests/test_users.py::test_delete",
        "tests/test_users.py::test_rename",
        "tests/test_users.py::test_permissions",
    ];
    all.extend(healthy.into_iter().enumerate().map(|(i, id)| Behaviour {
        id,
        verdict: Verdict::Healthy,
        typical_ms: 3.0 * 1.7_f64.powi(i as i32),
        fails: never,
        failures: &[],
        cause: None,
        score: 0.0,
        stopped_because: HEALTHY,
    }));
    all
}

fn report(sweep: Sweep, mut tests: Vec<TestReport>) -> Report {
    rank(&mut tests);
    Report { schema: SCHEMA.into(), sweep, tests }
}

/// The report of [`one_test`] with these verdicts in the place of its own.
pub(crate) fn of_verdicts(verdicts: &[(&str, Verdict)]) -> Report {
    let Report { schema, mut sweep, tests } = one_test();
    sweep.clusters.clear();
    let named = |(id, verdict): &(&str, Verdict)| TestReport {
        id: (*id).to_owned(),
        verdict: *verdict,
        ..tests[0].clone()
    };
    Report { schema, sweep, tests: verdicts.iter().map(named).collect() }
}

/// Twenty tests of every verdict, with infrastructure errors and a file that could not be collected.
pub(super) fn realistic() -> Report {
    let tests =
        behaviours().iter().enumerate().map(|(i, behaviour)| invent(behaviour, i as u64 + 1)).collect();
    let at = |seconds| START + Duration::seconds(seconds);
    report(
        Sweep {
            attempts: 412,
            samples: 12_360,
            infrastructure_errors: 2,
            container_seconds: 1_084.2,
            collection_errors: vec![CollectionError {
                path: "tests/test_legacy.py".into(),
                message: "tests/test_legacy.py:3: in <module>\n    import imp\nModuleNotFoundError: No module named 'imp'".into(),
            }],
            clusters: Vec::new(),
            infrastructure: vec![
                InfrastructureError { at: at(121), message: "container engine: connection reset".into() },
                InfrastructureError { at: at(122), message: "container engine: connection reset".into() },
            ],
            ..sweep()
        },
        tests,
    )
}

/// The outputs that [`realistic`] names.
pub(super) fn outputs() -> BTreeMap<String, String> {
    let text = "INFO  orders.cart: loading cart for session 41\n\u{1b}[33mWARN\u{1b}[0m  orders.cart: cart is not empty: {'sku-1': 3}\n";
    BTreeMap::from([
        ("output-of-9f31c07ab2d4e518".to_owned(), text.to_owned()),
        ("output-of-1c0d44be90aa7f36".to_owned(), "retry scheduled in 0.982 s\n".repeat(40)),
    ])
}

/// Three tests told briefly: small enough to read whole.
pub(super) fn brief() -> Report {
    let mut report = realistic();
    let keep = |test: &TestReport| {
        ["[EUR-2]", "test_csv_has_a_header", "test_registry", "::test_add"]
            .iter()
            .any(|end| test.id.ends_with(end))
    };
    report.tests.retain(keep);
    for test in &mut report.tests {
        test.timeline.truncate(3);
    }
    report
}

/// One flaky test, one attempt, one of everything.
pub(crate) fn one_test() -> Report {
    let mut test = invent(&behaviours()[0], 3);
    test.timeline.truncate(1);
    test.attempts = 1;
    test.failures = 1;
    test.conditions = vec![ConditionCount { condition: "alone".into(), attempts: 1, failures: 1 }];
    test.failures_by_signature.iter_mut().for_each(|signature| signature.count = 1);
    test.rate = Some(Rate { estimate: 1.0, lower: 0.1, upper: 1.0, confidence: 0.95 });
    let errors = 1;
    report(
        Sweep {
            attempts: 1,
            samples: 1,
            infrastructure_errors: errors,
            runs: Some(1),
            container_seconds: 0.9,
            ..sweep()
        },
        vec![test],
    )
}

/// Nothing ran.
pub(super) fn empty() -> Report {
    report(Sweep { infrastructure_errors: 3, ..sweep() }, Vec::new())
}

/// Names and messages that try to leave where they are put.
pub(super) fn hostile() -> Report {
    let ids = [
        "tests/a.py::test_x[</code></pre><script>alert(1)</script>]",
        "tests/a.py::test_y[a|b`c``d @everyone #1 https://example.org www.example.org **x**]",
        "tests/a.py::test_z[\u{1b}[2J\u{7}\r\n::error::gotcha\0]",
        "tests/b c.py::test_w['\"&]]>\u{202e}gnp.exe\u{fffe}]",
        "-n::$(id)`id`",
        "テスト/試験.py::test_日本語の名前[非常に長いパラメータ値非常に長いパラメータ値非常に長いパラメータ値]",
    ];
    let tests = ids
        .iter()
        .enumerate()
        .map(|(i, id)| {
            let mut test = invent(&behaviours()[0], i as u64);
            test.id = (*id).to_owned();
            test.timeline.truncate(2);
            for signature in &mut test.failures_by_signature {
                signature.message = format!("{id}\n```\n]]>\n</details>");
                signature.kind = "asser|tion".into();
                signature.location = Some(Location { path: "a:b,c%.py".into(), line: 1 });
            }
            if let Some(cause) = &mut test.cause {
                cause.evidence = vec![format!("ran after {id}")];
            }
            test.reproduce = format!("flakefarm sweep . --tests={}", super::words::shell_quote(id));
            test
        })
        .collect();
    let path = "tests/\u{1b}]0;x\u{7}|<b>.py".to_owned();
    let errors = vec![CollectionError { path, message: "<b>@everyone</b>\u{1}".into() }];
    report(Sweep { project: "<i>p</i>|\u{1b}[1m".into(), collection_errors: errors, ..sweep() }, tests)
}

/// Five thousand tests, two in five unwell, half of those never proved.
pub(super) fn large() -> Report {
    let behaviours = behaviours();
    let models: Vec<TestReport> =
        behaviours.iter().take(6).enumerate().map(|(i, b)| invent(b, i as u64)).collect();
    let healthy = invent(&behaviours[7], 1);
    let tests = (0..5_000)
        .map(|i| {
            let mut test = match i % 5 {
                0 => models[i / 5 % models.len()].clone(),
                1 => TestReport { verdict: Verdict::Inconclusive, ..healthy.clone() },
                _ => healthy.clone(),
            };
            test.id = format!("tests/test_{:02}.py::test_{i:04}[{}]", i % 40, "x".repeat(i % 90));
            test
        })
        .collect();
    report(Sweep { attempts: 40_000, samples: 5_000_000, container_seconds: 90_000.0, ..sweep() }, tests)
}
