//! Which tests are answered, what that rests on, and what the sweep as a whole has proved: the
//! planner's own view, for scorer and report.

use super::beliefs::Beliefs;
use super::costs::{Costs, Known};
use super::needs::{Futile, Needs, record_of};
use crate::experiment::{
    Answer, Answers, Budget, Guarantee, History, Ledger, Observation, Question, QuestionError, QuestionKind,
    Runs, ScopeChoice, Seen, SuiteNumbers, TestAnswer, TestTally,
};
use crate::score::FailureRates;
use flakefarm_shared::{Scope, TestId};
use std::collections::HashSet;
use std::num::NonZeroU64;
use std::time::Duration;

/// How it stands with each test and with the suite.
pub fn answers(question: &Question, ledger: &Ledger, history: &History) -> Answers {
    let costs = Costs::learn(ledger, history);
    let beliefs = Beliefs::form(question, ledger, history, &costs);
    let (old, needs) = match question.runs {
        Runs::Adaptive => {
            let futile = Futile::read(ledger);
            (Some(history), Some(Needs::find(question, ledger, history, &beliefs, &costs, &futile)))
        }
        // A fixed number is what was asked for, whatever is known.
        Runs::Fixed(_) => (None, None),
    };
    let mut tests = Vec::with_capacity(ledger.tests().len());
    let mut suite = SuiteNumbers {
        missed: 0.0,
        missed_at_any_rate: 0.0,
        missed_share: 0.0,
        clean_tests: 0,
        mean_risk: 0.0,
        fixed_runs: question.runs_for_guarantee(),
        fixed_seconds: None,
    };
    let (mut expected, mut missed) = (0.0, 0.0);
    let mut in_classes: Vec<(usize, f64)> = Vec::new();
    for place in 0..ledger.tests().len() {
        let tally = ledger.tally_of(place);
        let record = old.and_then(|history| record_of(history, ledger, place)).copied();
        let elsewhere = match question.runs {
            Runs::Adaptive => tally.elsewhere(),
            Runs::Fixed(_) => 0,
        };
        let passes = if tally.passes > 0 { tally.passes + elsewhere } else { 0 };
        let clean = record.map_or(0.0, |record| record.clean_runs) + f64::from(passes);
        let belief = beliefs.of(place);
        let answer = match &needs {
            Some(needs) => needs.answers[place],
            None => fixed_answer(question, tally),
        };
        let risk = belief.rates.risk(question.max_flake_rate, clean);
        if tally.failures == 0 && clean > 0.0 {
            suite.clean_tests += 1;
            suite.missed += risk;
            suite.missed_at_any_rate += belief.rates.risk_at_all(clean);
            expected += belief.missed[0];
            missed += belief.missed_after(clean);
            in_classes.push((place, clean));
        }
        tests.push(TestAnswer {
            answer,
            clean_runs_wanted: needs.as_ref().map_or(question.runs_per_test(), |needs| needs.targets[place]),
            elsewhere,
            record,
            risk,
        });
    }
    if suite.clean_tests > 0 {
        suite.mean_risk = suite.missed / f64::from(suite.clean_tests);
        suite.missed_share = missed / expected;
    }
    if question.runs == Runs::Adaptive && question.guarantee == Guarantee::PerSuite {
        let misses = |runs: &u32| -> f64 {
            in_classes.iter().map(|(place, _)| beliefs.of(*place).missed_after(f64::from(*runs))).sum()
        };
        let enough = missed.max(question.confidence.risk() * expected);
        suite.fixed_runs =
            (1..=suite.fixed_runs).find(|runs| misses(runs) <= enough).unwrap_or(suite.fixed_runs);
    }
    if ledger.attempts() > 0 {
        let tests: f64 = (0..ledger.tests().len()).map(|place| costs.seconds_at(place)).sum();
        suite.fixed_seconds = Some(f64::from(suite.fixed_runs) * (costs.overhead(Scope::Suite) + tests));
    }
    let unlisted = ledger.unlisted_tests();
    let unlisted =
        unlisted.map(|test| (test.clone(), unlisted_answer(question, ledger.observations(test)))).collect();
    Answers { tests, unlisted, unseen: unlisted_answer(question, &[]), suite }
}

/// Refuses a budget of which it is known beforehand that it does not pay for one run of every test that
/// needs any, with one that does. What was never measured is not known.
pub fn affords_one_round(
    question: &Question,
    tests: &[TestId],
    history: &History,
) -> Result<(), QuestionError> {
    let Some(budget) = question.budget.filter(|_| question.kind == QuestionKind::Detect) else {
        return Ok(());
    };
    let ledger = Ledger::new(tests.to_vec());
    let costs = Costs::learn(&ledger, history);
    let beliefs = Beliefs::form(question, &ledger, history, &costs);
    let needs = Needs::find(question, &ledger, history, &beliefs, &costs, &Futile::read(&ledger));
    let needing = || (0..tests.len()).filter(|place| needs.runs[*place] > 0);
    let files: HashSet<&str> = needing().map(|place| ledger.file_at(place)).collect();
    let (attempts, scope) = match question.scope {
        ScopeChoice::Test => (needing().count(), Scope::Test),
        ScopeChoice::File => (files.len(), Scope::File),
        ScopeChoice::Suite | ScopeChoice::Auto => (1.min(needing().count()), Scope::Suite),
    };
    let in_tests: f64 = needing().map(|place| costs.seconds_at(place)).sum();
    // Rounded up to what a person would type.
    let seconds = |workers: f64| {
        let seconds = (costs.overhead(scope) * attempts as f64 + in_tests) / workers;
        Duration::from_secs(seconds.ceil().max(1.0) as u64)
    };
    let at_once = (attempts.max(1) as f64).min(f64::from(question.workers.get()));
    let known = costs.known() == Known::Before;
    let least = match budget {
        Budget::Attempts(number) if number.get() < attempts as u64 => {
            NonZeroU64::new(attempts as u64).map(Budget::Attempts)
        }
        Budget::Container(time) if known && time < seconds(1.0) => Some(Budget::Container(seconds(1.0))),
        Budget::Clock(time) if known && time < seconds(at_once) => Some(Budget::Clock(seconds(at_once))),
        Budget::Attempts(_) | Budget::Container(_) | Budget::Clock(_) => None,
    };
    match least {
        None => Ok(()),
        Some(least) => Err(QuestionError::TooSmall { budget: budget.to_string(), least: least.to_string() }),
    }
}

fn unlisted_answer(question: &Question, observations: &[Observation]) -> TestAnswer {
    let mut tally = TestTally::default();
    for observation in observations.iter().filter(|o| o.treatment.is_plain()) {
        match observation.seen {
            Seen::Pass => tally.passes += 1,
            Seen::Fail(_) => tally.failures += 1,
            Seen::Skip => tally.skips += 1,
        }
    }
    let rates = FailureRates::published();
    TestAnswer {
        answer: fixed_answer(question, &tally),
        clean_runs_wanted: question.runs_per_test(),
        elsewhere: 0,
        record: None,
        risk: rates.risk(question.max_flake_rate, f64::from(tally.passes)),
    }
}

fn fixed_answer(question: &Question, tally: &TestTally) -> Answer {
    let runs = question.runs_per_test();
    let open = |wanted: u32, have: u32, then: Answer| {
        if have >= wanted { then } else { Answer::Open(wanted - have) }
    };
    match (tally.passes, tally.failures, tally.skips) {
        (0, 0, 1..) => Answer::Skipped,
        (1.., 1.., _) => Answer::Flaky,
        (0, failures @ 1.., _) => open(runs.min(question.runs_for_guarantee()), failures, Answer::Broken),
        (passes, 0, _) => open(runs, passes, Answer::Healthy),
    }
}
