//! `flakefarm check`: what the failed tests of a CI job are: flaky, broken on this commit, failing
//! before it, or not to be reproduced. Each is run again alone; what passes there, in the order of the job;
//! what always fails, on the revision before the change. Runs end as soon as the gate is decided.

mod answers;
pub(crate) mod failed;
mod foreign;
mod junit;
mod known;
pub(crate) mod mapping;
mod render;
pub(crate) mod reports;

use crate::args::{CheckArgs, CheckGate, Format, Unavailable};
use crate::ask::{Asked, Session};
use crate::exit::{Complaint, Exit};
use crate::progress::Progress;
use crate::quarantine::Quarantine;
use crate::say::say;
use crate::sweep::{Wishes, question};
use crate::{output, signals, trees};
use answers::{Answer, Answered, Shown, answer, without_reruns};
use flakefarm_coordinator::history::ingest::case::{Case, CaseOutcome};
use flakefarm_coordinator::history::ingest::counts;
use flakefarm_coordinator::plan::{
    Question, QuestionKind, Rate, Rerun, RerunGate, Runs, ScopeChoice, TestFilter,
};
use flakefarm_coordinator::report::{Report, TestReport, Verdict};
use flakefarm_project::revisions;
use flakefarm_project::settings::Layer;
use flakefarm_project::snapshot::Archive;
use flakefarm_shared::{Class, TestId};
use foreign::{Foreign, ForeignFiles};
use mapping::{Mapped, map};
use render::{Checked, SCHEMA};
use reports::JobReports;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// The flake rate that 20 clean runs exclude with 95 % confidence.
const USUAL_RATE: f64 = 0.14;
/// How often the planner runs each order of the job: what it may take depends on it.
const RUNS_IN_ORDER: u32 = 3;

pub(crate) async fn check(args: &CheckArgs) -> Result<Exit, Complaint> {
    let patterns = args.junit.clone();
    let reports = tokio::task::spawn_blocking(move || reports::read(&patterns)).await??;
    let stop = signals::stop_on_signal()?;
    let mut session = Session::open(&args.ask, &args.path, &args.options(), stop.clone())?;
    if session.printed_settings()? {
        return Ok(Exit::Clean);
    }
    for warning in &reports.warnings {
        session.progress.note(&format!("warning: {warning}"));
    }
    let quarantine = Quarantine::of_session(&session).await;
    let failed = Failed::of(&reports, &session, &quarantine);
    let nothing_known = failed.tests.is_empty() && failed.files.is_empty();
    let none_is_here = failed.strangers.values().all(|stranger| stranger.foreign.is_none());
    if nothing_known && none_is_here && failed.answered.is_empty() && reports.failures > 0 {
        return Err(Complaint::usage("none of the failed tests of the reports is a test of this project")
            .log(failed.strangers.keys().take(5).cloned().collect::<Vec<_>>().join("\n"))
            .hint("name the project's root: flakefarm check PATH --junit GLOB"));
    }
    let notes = quarantine.notes.clone();
    let mut checking = Checking { args, stop, began: Instant::now(), interrupted: false, notes };
    let answers = if nothing_known {
        let mut answers = failed.answered.clone();
        answers.extend(failed.of_strangers());
        answers
    } else {
        match checking.answers(&mut session, &failed, &reports).await {
            Ok(answers) => answers,
            Err(complaint) if complaint.exit == Exit::FarmFailed => {
                let own = "the job's own result stands: the failed tests could not be run again";
                say(complaint.to_string());
                say(own);
                return Ok(match args.on_unavailable {
                    Unavailable::Fail => Exit::FarmFailed,
                    Unavailable::Pass => Exit::Clean,
                });
            }
            Err(complaint) => return Err(complaint),
        }
    };
    if checking.interrupted {
        return Ok(Exit::Interrupted);
    }
    let exit = answers::exit(&answers, &args.fail_on);
    let confidence = session.loaded.settings.number("sweep.confidence").unwrap_or(0.95);
    let checked = Checked {
        schema: SCHEMA,
        reports: reports.files,
        cases: reports.cases,
        passed: reports.passed,
        failed: reports.failures,
        not_looked_into: reports.failures - reports.failed.len() as u64,
        confidence,
        answers,
        exit_code: exit as i32,
        notes: checking.notes,
    };
    write(args, &checked)?;
    Ok(exit)
}

/// The failed cases of a job, as tests of the project.
struct Failed {
    /// By id, with what the job said.
    tests: BTreeMap<String, String>,
    /// Files that could not be collected.
    files: BTreeMap<String, String>,
    /// Cases of no test that can be run here.
    strangers: BTreeMap<String, Stranger>,
    /// Cases that need no rerun.
    answered: Vec<Answered>,
}

/// A case of no test that can be run here.
struct Stranger {
    /// What the job said.
    message: String,
    /// Whose it is, if its file is in the tree.
    foreign: Option<Foreign>,
}

impl Failed {
    fn of(reports: &JobReports, session: &Session<'_>, quarantine: &Quarantine) -> Self {
        let (tests, files, strangers) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut failed = Self { tests, files, strangers, answered: Vec::new() };
        let others = OnceCell::new();
        let foreign = |case: &Case| others.get_or_init(|| ForeignFiles::of(&session.root)).find(case);
        for case in &reports.failed {
            let (kind, said) = last_failure(case);
            let message = if said.is_empty() { kind.to_owned() } else { said.to_owned() };
            let mapped = map(&session.root, case);
            let (Mapped::Test(name) | Mapped::File(name) | Mapped::Unknown(name)) = &mapped;
            if let Some(entry) = quarantine.muting(&[name], counts::signature(kind, said)) {
                let reason = entry.describe();
                failed.answered.push(without_reruns(name, Answer::Quarantined, &message, &reason));
                continue;
            }
            match mapped {
                Mapped::Test(id) => drop(failed.tests.insert(id, message)),
                Mapped::File(file) => drop(failed.files.insert(file, message)),
                Mapped::Unknown(name) => {
                    let stranger = Stranger { message, foreign: foreign(case) };
                    failed.strangers.insert(name, stranger);
                }
            }
        }
        for case in &reports.flaked {
            let (Mapped::Test(name) | Mapped::File(name) | Mapped::Unknown(name)) = map(&session.root, case);
            let (kind, said) = last_failure(case);
            let failures = case.attempts.iter().filter(|attempt| attempt.outcome.is_failure()).count();
            let reason = format!("it failed {failures} times and then passed, within the job");
            let reason = if failures == 1 { reason.replace("1 times", "once") } else { reason };
            let answered = match quarantine.muting(&[&name], counts::signature(kind, said)) {
                Some(_) => continue,
                None => without_reruns(&name, Answer::Flaky, said, &reason),
            };
            failed.answered.push(answered);
        }
        failed
    }

    fn patterns(&self) -> TestFilter {
        TestFilter(self.tests.keys().chain(self.files.keys()).cloned().collect())
    }

    fn of_strangers(&self) -> impl Iterator<Item = Answered> {
        self.strangers.iter().map(|(name, stranger)| {
            let known = stranger.foreign.as_ref();
            let why = known.map_or_else(|| "it is not a test of this project".to_owned(), Foreign::reason);
            let file = known.map(|foreign| foreign.file.clone());
            Answered { file, ..without_reruns(name, Answer::CouldNotRun, &stranger.message, &why) }
        })
    }
}

/// What the last failure of a case is said to be: its kind, and its message.
fn last_failure(case: &Case) -> (&str, &str) {
    let last = case.attempts.iter().rev().find_map(|attempt| match &attempt.outcome {
        CaseOutcome::Fail { kind, message } => Some((kind.as_str(), message.as_str())),
        CaseOutcome::Pass | CaseOutcome::Skip => None,
    });
    last.unwrap_or_default()
}

struct Checking<'a> {
    args: &'a CheckArgs,
    /// Cancelled by a signal.
    stop: CancellationToken,
    began: Instant,
    interrupted: bool,
    notes: Vec<String>,
}

impl Checking<'_> {
    async fn answers(
        &mut self,
        session: &mut Session<'_>,
        failed: &Failed,
        reports: &JobReports,
    ) -> Result<Vec<answers::Answered>, Complaint> {
        if let Some(base) = &self.args.base {
            // Read when it is needed; that there is no such thing is said before anything runs.
            let (root, base) = (session.root.clone(), base.clone());
            let found = tokio::task::spawn_blocking(move || revisions::at(&root, &base)).await?;
            found.map_err(|error| Complaint::wrong(&error, error.hint()))?;
        }
        let known = known::of_tests(session, failed.tests.keys()).await;
        let archive = session.archive().await?;
        let mut question = self.question(session, failed.patterns())?;
        let rerun = self.rerun(session, reports);
        question.rerun = Some(Box::new(rerun));
        let asked = u64::from(question.runs_per_test());
        let Some(here) = self.ask(session, question, &archive).await? else { return Ok(Vec::new()) };
        let found = by_id(&here);
        let always_fails = |id: &String| {
            found.get(id.as_str()).is_some_and(|test| {
                test.verdict == Verdict::Broken || (test.failures > 0 && test.failures == test.attempts)
            })
        };
        let suspects: Vec<String> = failed.tests.keys().filter(|id| always_fails(id)).cloned().collect();
        let base = match (&self.args.base, suspects.is_empty()) {
            (Some(base), false) => self.at_base(session, base, suspects, reports).await?,
            _ => None,
        };
        let base_found = base.as_ref().map(by_id);
        let mut answers = failed.answered.clone();
        for (id, message) in &failed.tests {
            let mut answered = match found.get(id.as_str()) {
                Some(here) => {
                    let base = base_found.as_ref().map(|found| found.get(id.as_str()).copied());
                    answer(id, message, &Shown { here, base })
                }
                None => {
                    let why = "there is no such test in the project as it is now";
                    without_reruns(id, Answer::CouldNotRun, message, why)
                }
            };
            answered.known = known.get(id).cloned();
            answers.push(answered);
        }
        for (file, message) in &failed.files {
            let of_file = format!("{file}::");
            let collected = found.keys().any(|id| id.starts_with(&of_file));
            let reason = if collected {
                "the file can be collected here"
            } else {
                "the file cannot be collected here either"
            };
            answers.push(without_reruns(file, Answer::CouldNotRun, message, reason));
        }
        answers.extend(failed.of_strangers());
        answers.sort_by(|a, b| (a.answer, &a.id).cmp(&(b.answer, &b.id)));
        self.notes.extend(answers::ended_early(&answers, asked).filter(|_| self.notes.is_empty()));
        Ok(answers)
    }

    /// Time that is left.
    fn left(&self) -> Duration {
        self.args.budget.saturating_sub(self.began.elapsed())
    }

    /// Which answers decide, how long runs take, and the orders of the job as far as the budget reaches.
    fn rerun(&mut self, session: &Session<'_>, reports: &JobReports) -> Rerun {
        let mut left = self.left();
        let mut orders = Vec::new();
        for order in &reports.orders {
            let expected = Duration::from_micros(order.wall_us).saturating_mul(RUNS_IN_ORDER);
            if expected > left {
                self.notes.push(
                    "the order of the job was not tried: that takes longer than --budget leaves".to_owned(),
                );
                break;
            }
            left -= expected;
            let tests = order.cases.iter().filter_map(|case| match map(&session.root, case) {
                Mapped::Test(id) => Some(TestId(id)),
                Mapped::File(_) | Mapped::Unknown(_) => None,
            });
            orders.push(tests.collect());
        }
        Rerun { gate: self.gate(), expected_ms: reports.longest_ms(), orders }
    }

    fn gate(&self) -> RerunGate {
        let gates = |gate: CheckGate| self.args.fail_on.contains(&gate);
        // What always fails may be found to fail before the change, too.
        let broken = gates(CheckGate::Broken) && (self.args.base.is_none() || gates(CheckGate::Before));
        RerunGate { flaky: gates(CheckGate::Flaky), broken }
    }

    fn question(&self, session: &Session<'_>, tests: TestFilter) -> Result<Question, Complaint> {
        let wishes = Wishes { kind: QuestionKind::Detect, tests, order: None, repeats: true };
        let mut question = question(wishes, session)?;
        question.scope = ScopeChoice::Test;
        question.budget = None;
        let settings = &session.loaded.settings;
        if settings.layer("sweep.max_flake_rate") == Some(Layer::Default) {
            question.max_flake_rate = Rate::new(USUAL_RATE).expect("a rate");
        }
        session.hurry(&mut question);
        // A fixed number: what earlier sweeps have answered is to be run again all the same.
        let runs = question.runs_for_guarantee().max(1);
        question.runs = Runs::Fixed(NonZeroU32::new(runs).expect("one at least"));
        Ok(question)
    }

    /// Asks at once, and waits; `None` if it was interrupted.
    async fn ask(
        &mut self,
        session: &mut Session<'_>,
        question: Question,
        tree: &Archive,
    ) -> Result<Option<Report>, Complaint> {
        session.progress = Progress::new();
        session.end_after(self.left());
        match session.ask_about(tree, question, Some(Class::Interactive)).await? {
            Asked::Detached => Err(Complaint::usage("check waits for its answer: leave out --detach")),
            Asked::Ended(ended) => {
                if let Some(refusal) = ended.failure {
                    let mut complaint = Complaint::new(Exit::NothingRan, refusal.message).log(refusal.log);
                    complaint.hint = refusal.hint;
                    return Err(complaint);
                }
                self.interrupted = self.stop.is_cancelled();
                let cut_short = ended.state == "interrupted" || ended.state == "cancelled";
                if cut_short && !self.interrupted {
                    self.notes.push("--budget ended before all reruns were made".to_owned());
                }
                Ok((!self.interrupted).then_some(ended.report))
            }
        }
    }

    /// The suspects on the revision before the change.
    async fn at_base(
        &mut self,
        session: &mut Session<'_>,
        base: &str,
        suspects: Vec<String>,
        reports: &JobReports,
    ) -> Result<Option<Report>, Complaint> {
        let archive = trees::at(&session.root, base).await?;
        let archive = archive.map_err(|error| Complaint::wrong(&error, error.hint()))?;
        let mut question = self.question(session, TestFilter(suspects))?;
        // What fails there, too, need not fail often; what passes there is broken here.
        let gate = RerunGate { flaky: true, broken: true };
        let (expected_ms, orders) = (reports.longest_ms(), Vec::new());
        question.rerun = Some(Box::new(Rerun { gate, expected_ms, orders }));
        match self.ask(session, question, &archive).await {
            Ok(report) => Ok(report),
            // A revision at which nothing runs says nothing: the tests may be new.
            Err(complaint) if complaint.exit == Exit::NothingRan => {
                self.notes.push(format!("nothing ran on {base}: {}", complaint.message));
                Ok(None)
            }
            Err(complaint) => Err(complaint),
        }
    }
}

fn by_id(report: &Report) -> BTreeMap<&str, &TestReport> {
    report.tests.iter().map(|test| (test.id.as_str(), test)).collect()
}

fn write(args: &CheckArgs, checked: &Checked) -> Result<(), Complaint> {
    let text = match args.ask.output.format {
        Format::Human => checked.human(),
        Format::Json => {
            let mut text = serde_json::to_string_pretty(checked).expect("plain data serialises");
            text.push('\n');
            text
        }
        Format::Markdown => checked.markdown(),
        Format::Github => {
            step_summary(&checked.markdown())?;
            checked.github()
        }
        Format::Gitlab => checked.gitlab(),
        Format::Junit => junit::render(checked, &args.fail_on),
    };
    match &args.ask.output.output {
        Some(file) => output::write_file(file, &text),
        None => output::print(&text),
    }
}

/// GitHub shows what is appended to this file on the job's page.
fn step_summary(markdown: &str) -> Result<(), Complaint> {
    let Some(path) = std::env::var_os("GITHUB_STEP_SUMMARY").filter(|path| !path.is_empty()) else {
        return Ok(());
    };
    if markdown.is_empty() {
        return Ok(());
    }
    let appended = std::fs::File::options().create(true).append(true).open(&path);
    appended.and_then(|mut file| file.write_all(markdown.as_bytes())).map_err(|error| {
        Complaint::farm(format!("failed to write {}: {error}", std::path::Path::new(&path).display()))
    })
}
