//! Makes a report of a sweep's memory: every test assessed, ranked and, unless healthy, told attempt
//! by attempt. Pure: the clock and the ids are in [`SweepMeta`].

use super::comparison;
use super::isolation;
use super::model::{
    Cause, Cluster, CollectionError, ConditionCount, Durations, INFRASTRUCTURE_LIMIT, InfrastructureError,
    Location, OlderEvidence, Rate, Report, SCHEMA, SavedVsFixed, SignatureCount, Stopped, Subject,
    SuiteProof, Sweep, TIMELINE_LIMIT, TestReport, Verdict,
};
use super::reproduce::Repeated;
use super::timeline::timeline;
use super::values::{date_time, order_word, round, scope_word};
use super::words;
use crate::conditions::{self, ByHand};
use crate::diagnose::{self, Diagnosis};
use crate::experiment::{
    Answers, History, Ledger, Observation, Question, QuestionKind, Runs, Seen, Shared, Standing,
    SuiteNumbers, WorldsSeen, ledger,
};
use crate::plan::answers;
use crate::score::{self, Assessment};
use crate::validate;
use flakefarm_shared::{AttemptEnd, Circumstance, TestId, Typed, UnixMicros, World};
use std::collections::{BTreeSet, HashMap};

/// Timeline entries of a whole report: when many tests are unwell, each is told more briefly.
const TIMELINE_TOTAL: usize = 50_000;
/// Even then, entries of one test.
const TIMELINE_LEAST: usize = 20;

/// What a report says that neither question nor ledger knows.
#[derive(Debug, Clone)]
pub struct SweepMeta {
    /// The sweep's id.
    pub id: String,
    /// The project's name.
    pub project: String,
    /// The revision that was tested, if known.
    pub revision: Option<String>,
    /// When it started.
    pub started_at: UnixMicros,
    /// When it ended; none while it runs.
    pub finished_at: Option<UnixMicros>,
    /// Why it ended; none while it runs.
    pub stopped: Option<Stopped>,
    /// Framework and interpreter, as they name themselves.
    pub framework: Option<String>,
    /// The image attempts ran in.
    pub image: Option<String>,
    /// The command that runs the tests by hand in it.
    pub command: Option<String>,
    /// How attempts were isolated.
    pub sandbox: Option<String>,
    /// What was typed to ask for it.
    pub typed: Typed,
    /// The world of attempts that ask for no other.
    pub under: World,
    /// Files that the listing could not collect.
    pub collection_errors: Vec<CollectionError>,
    /// What a reader should know and no field says, a sentence each.
    pub notes: Vec<String>,
    /// What its control said of the farm.
    pub trust: Option<super::model::Trust>,
}

/// The report of a sweep. Calling it while the sweep runs gives a preliminary one.
pub fn build(meta: SweepMeta, question: &Question, ledger: &Ledger, history: &History) -> Report {
    // Each thing that tests share and that fails is looked at as one test more.
    let shared = if question.kind == QuestionKind::Detect { ledger.shared() } else { Vec::new() };
    let with_shared = (!shared.is_empty()).then(|| ledger.with_shared(&shared));
    let ledger = with_shared.as_ref().unwrap_or(ledger);
    let surroundings = Surroundings::of(ledger);
    let answers = answers(question, ledger, history);
    let targets = match &question.kind {
        QuestionKind::Validate(request) => validate::targets(question, request, ledger),
        QuestionKind::Detect | QuestionKind::Diagnose { .. } | QuestionKind::Bisect(_) => {
            question.targets(ledger.tests())
        }
    };
    let worlds = WorldsSeen::read(ledger);
    let assessed: Vec<(&TestId, Assessment)> = targets
        .iter()
        .chain(ledger.unlisted_tests().filter(|_| question.kind == QuestionKind::Detect))
        .map(|test| {
            let mut assessment = score::assess(question, ledger, &answers, &worlds, test);
            if let Some(shared) = shared.iter().find(|shared| shared.id == *test) {
                score::judge_shared(shared, &mut assessment);
            }
            score::qualify(question.sandbox, ledger.observations(test), &mut assessment);
            (test, assessment)
        })
        .collect();
    let unwell = assessed.iter().filter(|(_, assessment)| is_told(assessment)).count();
    let limit = (TIMELINE_TOTAL / unwell.max(1)).clamp(TIMELINE_LEAST, TIMELINE_LIMIT);
    let repeated = Repeated { question, typed: &meta.typed, under: meta.under, ledger };
    let mut tests: Vec<TestReport> = assessed
        .into_iter()
        .map(|(test, assessment)| {
            test_report(&repeated, ledger, test, assessment, (limit, meta.command.as_deref()))
        })
        .collect();
    for shared in &shared {
        if let Some(test) = tests.iter_mut().find(|test| test.id == shared.id.0) {
            shared_report(test, shared, &repeated, ledger);
        }
    }
    for test in &mut tests {
        match &question.kind {
            QuestionKind::Detect => {}
            QuestionKind::Diagnose { .. } => explain(test, &repeated, ledger, meta.command.as_deref()),
            QuestionKind::Bisect(request) => {
                test.introduced = Some(Box::new(diagnose::bisect::judge(question, request, ledger)));
            }
            QuestionKind::Validate(request) => {
                let shown = validate::judge(question, request, ledger, &TestId(test.id.clone()));
                test.comparison = Some(Box::new(comparison::of(&request.patch, shown)));
            }
        }
    }
    rank(&mut tests);
    let detects = question.kind == QuestionKind::Detect;

    let sweep = Sweep {
        id: meta.id,
        question: kind(&question.kind).to_owned(),
        project: meta.project,
        revision: meta.revision,
        seed: question.seed,
        started_at: date_time(meta.started_at),
        finished_at: meta.finished_at.map(date_time),
        stopped: meta.stopped,
        attempts: ledger.attempts(),
        samples: ledger.samples_total(),
        infrastructure_errors: ledger.infrastructure_errors(),
        failed_starts: super::remarks::failed_starts(ledger),
        odd_ends: super::remarks::odd_ends(ledger),
        container_seconds: round(ledger.container_seconds(), 3),
        saved_vs_fixed: saved(meta.stopped, question, ledger, &answers),
        runs: match question.runs {
            Runs::Fixed(runs) => Some(runs.get()),
            Runs::Adaptive => None,
        },
        confidence: Some(question.confidence.get()),
        max_flake_rate: Some(question.max_flake_rate.get()),
        guarantee: (detects && question.runs == Runs::Adaptive).then(|| question.guarantee.word().to_owned()),
        budget: question.budget.map(|budget| budget.to_string()),
        suite: (detects && answers.suite.clean_tests > 0).then(|| suite_proof(&answers.suite)),
        scope: scope(&surroundings.scopes),
        framework: meta.framework,
        image: meta.image,
        sandbox: meta.sandbox,
        path: Some(repeated.path().to_owned()),
        under: (!meta.under.is_plain()).then(|| meta.under.to_string()),
        order: question.order.map(order_word),
        arguments: meta.typed.arguments.clone(),
        command: meta.command,
        workers: surroundings.workers.into_iter().collect(),
        collection_errors: collection_errors(meta.collection_errors, ledger, &shared),
        notes: notes(meta.notes, question, ledger, &worlds),
        clusters: clusters(ledger, &worlds, &tests),
        infrastructure: surroundings.infrastructure,
        trust: meta.trust,
    };
    Report { schema: SCHEMA.to_owned(), sweep, tests }
}

/// Puts the diagnosis in the place of what detection alone would say.
fn explain(test: &mut TestReport, repeated: &Repeated<'_>, ledger: &Ledger, command: Option<&str>) {
    let Diagnosis { category, confidence, evidence, mut experiment, reproduction } =
        diagnose::judge(repeated.question, ledger, &TestId(test.id.clone()));
    if let (Some(reproduction), Some(command)) = (reproduction, command) {
        let (by_hand, order_file) = reproduction.command(command, words::shell_quote);
        experiment.by_hand = Some(by_hand);
        experiment.order_file = order_file;
    }
    test.reproduce = repeated.diagnosis(&test.id);
    test.cause = Some(Cause {
        category: category.word().to_owned(),
        confidence: round(confidence, 4),
        evidence,
        experiment: Some(Box::new(experiment)),
    });
}

/// What was saved, everything counted that the sweep ran; negative if it took more than the fixed number.
/// Nothing is claimed of a sweep that a budget or a person ended.
fn saved(
    stopped: Option<Stopped>,
    question: &Question,
    ledger: &Ledger,
    answers: &Answers,
) -> Option<SavedVsFixed> {
    let fixed = answers.suite.fixed_seconds.filter(|seconds| *seconds > 0.0)?;
    if question.kind != QuestionKind::Detect
        || question.runs != Runs::Adaptive
        || stopped != Some(Stopped::Answered)
    {
        return None;
    }
    let runs = u64::from(answers.suite.fixed_runs);
    let saved = fixed - ledger.container_seconds();
    let samples = (0..ledger.tests().len()).map(|place| u64::from(ledger.tally_of(place).heard())).sum();
    Some(SavedVsFixed {
        fixed_runs: runs,
        samples: (runs * ledger.tests().len() as u64).saturating_sub(samples),
        container_seconds: round(saved, 3),
        fraction: round(saved / fixed, 4),
    })
}

fn suite_proof(suite: &SuiteNumbers) -> SuiteProof {
    SuiteProof {
        clean_tests: u64::from(suite.clean_tests),
        expected_missed: round(suite.missed, 6),
        expected_missed_at_any_rate: round(suite.missed_at_any_rate, 6),
        missed_share: round(suite.missed_share, 6),
        risk_per_test: round(suite.mean_risk, 8),
    }
}

/// Sorts tests as reports list them: by score, then by verdict, then by id.
pub(super) fn rank(tests: &mut [TestReport]) {
    tests.sort_by(|a, b| {
        b.score.total_cmp(&a.score).then(a.verdict.cmp(&b.verdict)).then_with(|| a.id.cmp(&b.id))
    });
}

fn is_told(assessment: &Assessment) -> bool {
    verdict(assessment.verdict) != Verdict::Healthy
}

fn kind(kind: &QuestionKind) -> &'static str {
    match kind {
        QuestionKind::Detect => "detect",
        QuestionKind::Diagnose { .. } => "diagnose",
        QuestionKind::Bisect(_) => "bisect",
        QuestionKind::Validate(_) => "validate",
    }
}

fn verdict(verdict: score::Verdict) -> Verdict {
    match verdict {
        score::Verdict::Healthy => Verdict::Healthy,
        score::Verdict::Flaky => Verdict::Flaky,
        score::Verdict::Fragile => Verdict::Fragile,
        score::Verdict::Broken => Verdict::Broken,
        score::Verdict::Inconclusive => Verdict::Inconclusive,
        score::Verdict::Skipped => Verdict::Skipped,
    }
}

fn scope(scopes: &BTreeSet<&'static str>) -> Option<String> {
    if scopes.is_empty() { None } else { Some(scopes.iter().copied().collect::<Vec<_>>().join("+")) }
}

/// What the ledger's attempts say beside their outcomes.
#[derive(Default)]
struct Surroundings {
    scopes: BTreeSet<&'static str>,
    workers: BTreeSet<String>,
    infrastructure: Vec<InfrastructureError>,
}

impl Surroundings {
    fn of(ledger: &Ledger) -> Self {
        let mut found = Self::default();
        for attempt in ledger.each_attempt() {
            let Standing::Ended(record) = attempt.standing else { continue };
            found.workers.insert(record.worker.0.clone());
            match &record.end {
                AttemptEnd::Infrastructure(error) => found.infrastructure.push(InfrastructureError {
                    at: date_time(record.started_at),
                    message: error.to_string(),
                }),
                AttemptEnd::Completed | AttemptEnd::Interrupted { .. } | AttemptEnd::NothingRan { .. } => {
                    found.scopes.insert(scope_word(record.scope));
                }
            }
        }
        found.infrastructure.sort_by(|a, b| a.at.cmp(&b.at).then_with(|| a.message.cmp(&b.message)));
        found.infrastructure.truncate(INFRASTRUCTURE_LIMIT);
        found
    }
}

/// The caller's collection errors, and those of attempts in other files.
fn collection_errors(
    mut known: Vec<CollectionError>,
    ledger: &Ledger,
    shared: &[Shared],
) -> Vec<CollectionError> {
    for error in ledger.collection_errors() {
        if !known.iter().any(|other| other.path == error.path) {
            known.push(CollectionError { path: error.path, message: error.message });
        }
    }
    // Those that come and go are findings of their own.
    let comes_and_goes = |path: &str| {
        shared
            .iter()
            .any(|shared| matches!(&shared.subject, ledger::Subject::File { path: known } if known == path))
    };
    known.retain(|error| !comes_and_goes(&error.path));
    known
}

/// What a finding about something that tests share says of itself where a test's would not do.
fn shared_report(test: &mut TestReport, shared: &Shared, repeated: &Repeated<'_>, ledger: &Ledger) {
    let observations = ledger.observations(&shared.id);
    let by = match &shared.subject {
        ledger::Subject::Fixture { last, .. } => {
            test.subject = Subject::Fixture;
            last.first().cloned()
        }
        ledger::Subject::File { path } => {
            test.subject = Subject::File;
            test.file = Some(path.clone());
            Some(TestId(path.clone()))
        }
    };
    let by = by.unwrap_or_else(|| shared.id.clone());
    test.duration_ms = None;
    test.reproduce = repeated.finding(observations, &by, u32::try_from(test.attempts).unwrap_or(u32::MAX));
    test.reproduce_failure = repeated.failure_of(ledger, &shared.id, &by);
}

/// Flaky and fragile tests that fail together.
fn clusters(ledger: &Ledger, worlds: &WorldsSeen, tests: &[TestReport]) -> Vec<Cluster> {
    let unwell: BTreeSet<&str> = tests
        .iter()
        .filter(|test| matches!(test.verdict, Verdict::Flaky | Verdict::Fragile))
        .map(|test| test.id.as_str())
        .collect();
    let unwell: Vec<&TestId> = ledger.tests().iter().filter(|test| unwell.contains(test.as_str())).collect();
    score::clusters::clusters(ledger, worlds, &unwell)
        .into_iter()
        .map(|cluster| Cluster {
            tests: cluster.tests.into_iter().map(|test| test.0).collect(),
            together: u64::from(cluster.together),
            attempts: u64::from(cluster.attempts),
        })
        .collect()
}

/// Worlds that say nothing of tests, a sentence each.
fn left_out(worlds: &WorldsSeen) -> Vec<String> {
    let not_given = worlds
        .not_given
        .iter()
        .map(|(world, reason)| format!("condition {world} was left out, it cannot be given here: {reason}"));
    let unbearable = worlds.unbearable.iter().map(|(world, found)| {
        format!(
            "condition {world} was left out of all verdicts, it breaks the project as a whole: {} of {} tests that \
             pass without it fail",
            found.failing, found.tests
        )
    });
    not_given.chain(unbearable).collect()
}

/// The caller's notes, then what the ledger knows that would otherwise stay silent.
fn notes(mut notes: Vec<String>, question: &Question, ledger: &Ledger, worlds: &WorldsSeen) -> Vec<String> {
    notes.extend(isolation::notes(question.sandbox, ledger));
    notes.extend(left_out(worlds));
    notes.extend(
        (question.kind == QuestionKind::Detect).then(|| super::dates::note(ledger, worlds)).flatten(),
    );
    notes.extend(super::remarks::notes(ledger));
    let lost: BTreeSet<&str> = ledger.lost_jobs().map(|(_, reason)| reason).collect();
    notes.extend(lost.into_iter().map(|reason| format!("a job was lost, its runs are missing: {reason}")));
    folded(notes)
}

/// Notes that differ in numbers only (a duration, an address) once, with how many there are.
fn folded(notes: Vec<String>) -> Vec<String> {
    let mut kinds: Vec<(String, String, usize)> = Vec::new();
    for note in notes {
        let mut kind = String::with_capacity(note.len());
        for character in note.chars() {
            match character {
                '0'..='9' if kind.ends_with('#') => {}
                '0'..='9' => kind.push('#'),
                other => kind.push(other),
            }
        }
        match kinds.iter_mut().find(|(known, ..)| *known == kind) {
            Some((_, known, _)) if *known == note => {}
            Some((.., count)) => *count += 1,
            None => kinds.push((kind, note, 1)),
        }
    }
    let told = |(_, note, count): (String, String, usize)| match count {
        1 => note,
        many => format!("{note} (and {} more like it)", many - 1),
    };
    kinds.into_iter().map(told).collect()
}

fn test_report(
    repeated: &Repeated<'_>,
    ledger: &Ledger,
    test: &TestId,
    assessment: Assessment,
    (limit, command): (usize, Option<&str>),
) -> TestReport {
    let observations = ledger.observations(test);
    let told = is_told(&assessment);
    let ran = assessment.attempts > 0;
    let rate = Rate {
        estimate: round(assessment.rate.estimate, 6),
        lower: round(assessment.rate.lower, 6),
        upper: round(assessment.rate.upper, 6),
        confidence: assessment.rate.confidence,
    };
    let locations = locations(observations);
    TestReport {
        id: test.0.clone(),
        subject: Subject::Test,
        file: Some(ledger.file_of(test)).filter(|file| *file != test.as_str()).map(str::to_owned),
        verdict: verdict(assessment.verdict),
        attempts: u64::from(assessment.attempts),
        failures: u64::from(assessment.failures),
        skips: u64::from(assessment.skips),
        rate: ran.then_some(rate),
        score: round(assessment.score, 4),
        duration_ms: assessment.durations.map(|durations| Durations {
            p50: round(durations.p50, 3),
            p95: round(durations.p95, 3),
            mean: round(durations.mean, 3),
            cv: round(durations.cv, 4),
        }),
        stopped_because: repeated.where_asked(assessment.stopped_because),
        risk: assessment.risk.map(|risk| round(risk, 6)),
        older_evidence: assessment.older.map(|record| OlderEvidence {
            clean_runs: round(record.clean_runs, 2),
            attempts: u64::from(record.attempts),
            failures: u64::from(record.failures),
            sweeps: u64::from(record.sweeps),
            last_at: date_time(record.last_at),
        }),
        conditions: assessment
            .conditions
            .iter()
            .map(|count| ConditionCount {
                condition: count.condition.words().into_owned(),
                attempts: u64::from(count.attempts),
                failures: u64::from(count.failures),
            })
            .collect(),
        failures_by_signature: assessment
            .signatures
            .into_iter()
            .map(|found| SignatureCount {
                location: locations.get(found.signature.as_str()).cloned(),
                signature: found.signature,
                kind: found.kind.word().to_owned(),
                phase: found.phase.word().to_owned(),
                exception: found.exceptions.first().cloned(),
                fixture: found.circumstances.iter().find_map(|circumstance| match circumstance {
                    Circumstance::Fixture { name, .. } => Some(name.clone()),
                    _ => None,
                }),
                count: u64::from(found.count),
                message: found.message,
                within: found.within,
                output: found.output.map(|digest| digest.to_string()),
            })
            .collect(),
        cause: assessment.category.map(|finding| Cause {
            category: finding.category.word().to_owned(),
            confidence: round(finding.confidence, 4),
            evidence: evidence(finding.evidence, finding.world, test, command),
            experiment: None,
        }),
        introduced: None,
        comparison: None,
        reproduce: repeated.finding(observations, test, assessment.attempts),
        reproduce_failure: repeated.failure(ledger, test),
        timeline: if told { timeline(observations, limit) } else { Vec::new() },
    }
}

/// What speaks for a cause and, where a world does, how to have that world by hand.
fn evidence(
    mut evidence: Vec<String>,
    world: Option<World>,
    test: &TestId,
    command: Option<&str>,
) -> Vec<String> {
    let Some(command) = command else { return evidence };
    evidence.extend(world.and_then(|world| {
        let command = format!("{command} {}", words::shell_quote(test.as_str()));
        match conditions::about(world).by_hand {
            ByHand::Advice(advice) => Some(format!("by hand: {advice}, then {command}")),
            by_hand @ (ByHand::Command { .. } | ByHand::Script(_)) => {
                Some(format!("by hand: {}", by_hand.command(&command)?))
            }
        }
    }));
    evidence
}

/// The innermost frame of each signature.
fn locations(observations: &[Observation]) -> HashMap<&str, Location> {
    let mut locations = HashMap::new();
    for observation in observations {
        if let Seen::Fail(seen) = &observation.seen
            && let Some(frame) = seen.failure.frames.last()
        {
            locations
                .entry(seen.failure.signature.as_str())
                .or_insert_with(|| Location { path: frame.path.clone(), line: frame.line });
        }
    }
    locations
}

#[cfg(test)]
mod tests;
