//! `flakefarm analyse`: since when tests fail, and why. First by runs: here, and at the last revision known to be
//! good. Then by evidence: what the exception says, and what changed between the two trees (crate `repair`). Failures
//! with one cause are one entry; where nothing is shown, nothing is said.

mod told;

use crate::args::{AnalyseArgs, Format};
use crate::ask::{self, Asked, Session, tests_and_path};
use crate::check::failed;
use crate::exit::{Complaint, Exit};
use crate::sweep::{Wishes, question};
use crate::{output, signals, trees};
use flakefarm_coordinator::plan::{Question, QuestionKind, Runs, ScopeChoice, TestFilter};
use flakefarm_coordinator::report::{Report, TestReport};
use flakefarm_project::snapshot::Archive;
use flakefarm_repair::cause::{Cause, Difference, Symptom, explain};
use flakefarm_repair::changes::Changes;
use flakefarm_shared::Class;
use std::num::NonZeroU32;
use told::{Since, Told, ToldTest};

/// Runs of the suite that show which tests fail, where none are named.
const RUNS_TO_FIND: NonZeroU32 = NonZeroU32::new(1).expect("not 0");

pub(crate) async fn analyse(args: &AnalyseArgs) -> Result<Exit, Complaint> {
    let (mut tests, path) = tests_and_path(&args.tests);
    let mut session = Session::open(&args.ask, &path, &args.options(), signals::stop_on_signal()?)?;
    if session.printed_settings()? {
        return Ok(Exit::Clean);
    }
    if args.ask.farm.detach {
        return Err(Complaint::usage("analyse asks several questions in turn and cannot be left")
            .hint("run it without --detach"));
    }
    if !matches!(args.ask.output.format, Format::Human | Format::Json) {
        return Err(Complaint::usage("analyse writes for people or as JSON").hint("--format human or json"));
    }
    if !args.junit.is_empty() {
        tests.extend(failed::of_reports(&args.junit, &session, "analyse").await?);
        if tests.is_empty() {
            output::print("No test of the reports failed.\n")?;
            return Ok(Exit::Clean);
        }
    }
    let here = session.archive().await?;
    let base = trees::base(&session.root, args.base.as_deref(), &here).await?;
    let (found, mut files) = match runs_here(&mut session, &here, &tests, args.runs).await? {
        Ok(found) => found,
        Err(exit) => return Ok(exit),
    };
    let failing: Vec<&TestReport> = found.iter().filter(|test| test.failures > 0).collect();
    let always: Vec<String> =
        failing.iter().filter(|test| test.failures == test.attempts).map(|test| test.id.clone()).collect();
    let asked: Vec<String> =
        always.iter().cloned().chain(files.iter().map(|(path, _)| path.clone())).collect();
    let at_base = match (&base, asked.is_empty()) {
        (Some(base), false) => {
            match sweep(&mut session, &base.archive, &asked, args.runs, ScopeChoice::Test).await? {
                Ok(report) => Some(report),
                Err(exit) => return Ok(exit),
            }
        }
        _ => None,
    };
    let mut told = Told::new(&session.loaded.spec.name, base.as_ref().map(|base| base.name.as_str()));
    told.passed = found.iter().filter(|test| test.failures == 0 && test.attempts > 0).count();
    for test in &failing {
        let before = at_base.as_ref().map(|at| at.of(&test.id));
        told.tests.push(ToldTest::of(test, before));
    }
    files.sort();
    for (path, message) in &files {
        let collected = at_base.as_ref().map(|at| at.collected(path));
        told.tests.push(ToldTest::of_file(path, message, Since::of_file(collected)));
    }
    let causes = causes(&told.tests, base.map(|base| base.archive), here).await?;
    told.explained(causes);
    let text = match args.ask.output.format {
        Format::Json => serde_json::to_string_pretty(&told)? + "\n",
        _ => told.human(args.verbose),
    };
    match &args.ask.output.output {
        Some(file) => output::write_file(file, &text)?,
        None => output::print(&text)?,
    }
    Ok(if told.tests.is_empty() { Exit::Clean } else { Exit::GateFailed })
}

/// What ran, and files that could not be collected, with their reports.
type Found = (Vec<TestReport>, Vec<(String, String)>);

/// Runs the tests here: those that are named alone; if none are, those that one run of the suite shows.
async fn runs_here(
    session: &mut Session<'_>,
    here: &Archive,
    tests: &[String],
    runs: NonZeroU32,
) -> Result<Result<Found, Exit>, Complaint> {
    let mut named = tests.to_vec();
    if named.is_empty() {
        let ran = match sweep(session, here, &[], RUNS_TO_FIND, ScopeChoice::Suite).await? {
            Ok(ran) => ran,
            Err(exit) => return Ok(Err(exit)),
        };
        let (all, files) = ran.found();
        named = all.iter().filter(|test| test.failures > 0).map(|test| test.id.clone()).collect();
        if named.is_empty() {
            return Ok(Ok((all, files)));
        }
        return Ok(match sweep(session, here, &named, runs, ScopeChoice::Test).await? {
            Ok(ran) => {
                let (alone, _) = ran.found();
                // What fails among the others and not alone keeps the failure that was seen.
                let rest = all.into_iter().filter(|test| {
                    alone
                        .iter()
                        .all(|found| found.id != test.id || (found.failures == 0 && test.failures > 0))
                });
                let kept: Vec<TestReport> = rest.collect();
                let alone = alone.into_iter().filter(|test| kept.iter().all(|seen| seen.id != test.id));
                Ok((alone.chain(kept.iter().cloned()).collect(), files))
            }
            Err(exit) => Err(exit),
        });
    }
    Ok(sweep(session, here, &named, runs, ScopeChoice::Test).await?.map(|ran| ran.found()))
}

/// One sweep, or why nothing ran.
enum Ran {
    Report(Box<Report>),
    /// The framework could not collect anything: what it said.
    Nothing(String),
}

impl Ran {
    fn found(self) -> Found {
        match self {
            Ran::Report(report) => {
                let errors = report.sweep.collection_errors.iter();
                let files = errors.map(|error| (error.path.clone(), error.message.clone())).collect();
                (report.tests, files)
            }
            Ran::Nothing(message) => (Vec::new(), vec![(String::new(), message)]),
        }
    }

    /// Failures and runs of a test; nothing if it is not there.
    fn of(&self, id: &str) -> Option<(u64, u64)> {
        let Ran::Report(report) = self else { return None };
        let test = report.tests.iter().find(|test| test.id == id && test.attempts > 0)?;
        Some((test.failures, test.attempts))
    }

    /// Whether a file could be collected.
    fn collected(&self, path: &str) -> bool {
        match self {
            Ran::Report(report) => report.sweep.collection_errors.iter().all(|error| error.path != path),
            Ran::Nothing(_) => false,
        }
    }
}

async fn sweep(
    session: &mut Session<'_>,
    tree: &Archive,
    tests: &[String],
    runs: NonZeroU32,
    scope: ScopeChoice,
) -> Result<Result<Ran, Exit>, Complaint> {
    let filter = TestFilter(tests.to_vec());
    let wishes = Wishes { kind: QuestionKind::Detect, tests: filter, order: None, repeats: true };
    let mut question = Question { runs: Runs::Fixed(runs), scope, ..question(wishes, session)? };
    session.hurry(&mut question);
    match session.ask_about(tree, question, Some(Class::Interactive)).await? {
        Asked::Detached => Ok(Err(Exit::Clean)),
        Asked::Ended(ended) if ended.state == "interrupted" || ended.state == "cancelled" => {
            Ok(Err(Exit::Interrupted))
        }
        Asked::Ended(ended) => match ended.failure {
            Some(refusal) if refusal.log.is_empty() => Err(ask::refused(&refusal)),
            Some(refusal) => Ok(Ok(Ran::Nothing(refusal.log))),
            None => Ok(Ok(Ran::Report(Box::new(ended.report)))),
        },
    }
}

/// The cause of each, as far as it is shown.
async fn causes(
    tests: &[ToldTest],
    base: Option<Archive>,
    here: Archive,
) -> Result<Vec<Option<Cause>>, Complaint> {
    let tests = tests.to_vec();
    trees::analyse(move || {
        let new = trees::sources(&trees::files(&here)?)?;
        let old = base.map(|base| trees::sources(&trees::files(&base)?)).transpose()?;
        let changes = old.as_ref().map(|old| Changes::between(old, &new));
        let difference = old.as_ref().zip(changes.as_ref());
        let difference = difference.map(|(old, changes)| Difference { old, new: &new, changes });
        Ok(tests
            .iter()
            .map(|test| {
                let symptom = Symptom {
                    test: &test.id,
                    kind: &test.kind,
                    phase: &test.phase,
                    exception: test.exception.as_deref().unwrap_or_default(),
                    message: &test.message,
                    fixture: test.fixture.as_deref(),
                };
                // A difference explains what came with it, and nothing else.
                let with_change = matches!(test.since, Since::Change | Since::New | Since::Unknown);
                explain(&symptom, difference.as_ref().filter(|_| with_change))
            })
            .collect())
    })
    .await
}

/// The path as people type it.
fn typed(path: &str) -> &str {
    if path.is_empty() { "the suite" } else { path }
}
