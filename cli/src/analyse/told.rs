//! What an analysis found, for people and as JSON.

use flakefarm_coordinator::report::TestReport;
use flakefarm_repair::cause::{Cause, CauseKind, THRESHOLD};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Tests of one entry that are named for people; the rest is counted.
const NAMED: usize = 3;
/// Characters of a message for people.
const MESSAGE: usize = 160;

/// All of it; `flakefarm.analysis/v1`.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    schema: &'static str,
    project: String,
    /// The revision that counts as good.
    base: Option<String>,
    /// Tests that passed every time.
    pub(super) passed: usize,
    pub(super) tests: Vec<ToldTest>,
    /// Failures with one cause together.
    entries: Vec<Entry>,
}

/// Since when a test fails, by runs alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Since {
    /// It always fails here and never at the base.
    Change,
    /// It is not there at the base, and always fails here.
    New,
    /// It always fails here; there is no base to compare with.
    Unknown,
    /// It fails here now and then.
    Flaky,
    /// It fails at the base, too.
    Before,
}

/// One test, or one file that cannot be collected.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ToldTest {
    pub(super) id: String,
    pub(super) since: Since,
    /// Failures and runs here; absent of a file.
    here: Option<(u64, u64)>,
    /// The same at the base.
    before: Option<(u64, u64)>,
    pub(super) kind: String,
    pub(super) phase: String,
    pub(super) exception: Option<String>,
    pub(super) fixture: Option<String>,
    pub(super) message: String,
    /// The innermost place in the project's own code.
    at: Option<String>,
    /// Equal for failures that look alike.
    signature: Option<String>,
    /// Further kinds of failures of the same test.
    other_failures: usize,
    cause: Option<ToldCause>,
}

/// Why.
#[derive(Debug, Clone, Serialize)]
struct ToldCause {
    kind: &'static str,
    subject: String,
    confidence: f64,
    evidence: Vec<String>,
}

/// Failures with one cause.
#[derive(Debug, Serialize)]
struct Entry {
    since: Since,
    /// What kind, and what it is about; absent where nothing is shown.
    cause: Option<ToldCause>,
    tests: Vec<String>,
    /// What to type next.
    next: String,
}

impl Since {
    /// Of a test that failed here; `before` is what it did at the base, if that was asked.
    fn of(test: &TestReport, before: Option<Option<(u64, u64)>>) -> Self {
        match (test.failures == test.attempts, before) {
            (false, _) => Since::Flaky,
            (true, None) => Since::Unknown,
            (true, Some(None)) => Since::New,
            (true, Some(Some((0, _)))) => Since::Change,
            (true, Some(Some(_))) => Since::Before,
        }
    }

    /// Of a file that cannot be collected here.
    pub(super) fn of_file(collected_before: Option<bool>) -> Self {
        match collected_before {
            None => Since::Unknown,
            Some(true) => Since::Change,
            Some(false) => Since::Before,
        }
    }

    fn words(self, base: &str) -> String {
        match self {
            Since::Change => format!("since {base}"),
            Since::New => format!("new since {base}"),
            Since::Unknown => "always here; there is no earlier revision to compare with".to_owned(),
            Since::Flaky => "now and then".to_owned(),
            Since::Before => format!("at {base} already"),
        }
    }
}

impl ToldTest {
    /// `before` is what it did at the base, if that was asked.
    pub(super) fn of(test: &TestReport, before: Option<Option<(u64, u64)>>) -> Self {
        let failure = test.failures_by_signature.first();
        Self {
            id: test.id.clone(),
            since: Since::of(test, before),
            here: Some((test.failures, test.attempts)),
            before: before.flatten(),
            kind: failure.map_or_else(String::new, |failure| failure.kind.clone()),
            phase: failure.map_or_else(String::new, |failure| failure.phase.clone()),
            exception: failure.and_then(|failure| failure.exception.clone()),
            fixture: failure.and_then(|failure| failure.fixture.clone()),
            message: failure.map_or_else(String::new, |failure| failure.message.clone()),
            at: failure
                .and_then(|failure| failure.location.as_ref())
                .map(|place| format!("{}:{}", place.path, place.line)),
            signature: failure.map(|failure| failure.signature.clone()),
            other_failures: test.failures_by_signature.len().saturating_sub(1),
            cause: None,
        }
    }

    pub(super) fn of_file(path: &str, message: &str, since: Since) -> Self {
        Self {
            id: path.to_owned(),
            since,
            here: None,
            before: None,
            kind: "collection".to_owned(),
            phase: String::new(),
            exception: None,
            fixture: None,
            message: message.to_owned(),
            at: None,
            signature: None,
            other_failures: 0,
            cause: None,
        }
    }

    /// The line of the message that says most.
    fn line(&self) -> String {
        let lines = || self.message.lines().map(str::trim).filter(|line| !line.is_empty());
        let line = match self.kind.as_str() {
            "collection" => lines().rev().find(|line| line.starts_with("E ")).or_else(|| lines().next_back()),
            _ => lines().next(),
        };
        let line = line.unwrap_or_default().trim_start_matches("E ").trim();
        let name = self.exception.as_deref().and_then(|name| name.rsplit('.').next());
        let said = match name {
            Some(name) if !line.contains(name) => format!("{name}: {line}"),
            _ => line.to_owned(),
        };
        crate::remember::shown::shortened(&said, MESSAGE)
    }
}

/// A cause, and the tests that it is the cause of.
type Gathered = (Option<(ToldCause, CauseKind)>, Vec<String>);

impl Told {
    pub(super) fn new(project: &str, base: Option<&str>) -> Self {
        Self {
            schema: "flakefarm.analysis/v1",
            project: project.to_owned(),
            base: base.map(str::to_owned),
            passed: 0,
            tests: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// Takes the cause of each test, in their order.
    pub(super) fn explained(&mut self, causes: Vec<Option<Cause>>) {
        let mut entries: BTreeMap<(Since, String), Gathered> = BTreeMap::new();
        for (test, cause) in self.tests.iter_mut().zip(causes) {
            let told = cause.map(|cause| {
                let told = ToldCause {
                    kind: cause.kind.word(),
                    subject: cause.subject,
                    confidence: cause.confidence,
                    evidence: cause.evidence,
                };
                (told, cause.kind)
            });
            test.cause = told.as_ref().map(|(told, _)| told.clone());
            let key = match &told {
                Some((told, _)) if told.confidence >= THRESHOLD => format!("{} {}", told.kind, told.subject),
                _ => test.signature.clone().unwrap_or_else(|| test.message.clone()),
            };
            let entry = entries.entry((test.since, key)).or_insert_with(|| (told, Vec::new()));
            entry.1.push(test.id.clone());
        }
        self.entries = entries
            .into_iter()
            .map(|((since, _), (told, tests))| {
                let next = next(
                    since,
                    told.as_ref().map(|(cause, kind)| (*kind, cause.confidence)),
                    &tests,
                    self.base.as_deref(),
                );
                Entry { since, cause: told.map(|(cause, _)| cause), tests, next }
            })
            .collect();
        self.entries.sort_by(|a, b| {
            (a.since, std::cmp::Reverse(a.tests.len())).cmp(&(b.since, std::cmp::Reverse(b.tests.len())))
        });
    }

    pub(super) fn human(&self, verbose: bool) -> String {
        if self.tests.is_empty() {
            return format!("Nothing fails: {} tests passed every time.\n", self.passed);
        }
        let base = self.base.as_deref().unwrap_or("the base");
        let mut text = String::new();
        for entry in &self.entries {
            let count = match entry.tests.len() {
                1 => "1 failure".to_owned(),
                many => format!("{many} failures"),
            };
            let cause = match &entry.cause {
                None => "neither the exception nor the change of the code says why".to_owned(),
                Some(cause) => cause.words(),
            };
            let _infallible = writeln!(text, "{count}, {}: {cause}", entry.since.words(base));
            if let Some(cause) = &entry.cause {
                let most = if verbose { cause.evidence.len() } else { 2 };
                for evidence in cause.evidence.iter().take(most) {
                    let _infallible = writeln!(text, "  because {evidence}");
                }
            }
            let named = if verbose { entry.tests.len() } else { NAMED };
            let of_entry = self.tests.iter().filter(|test| entry.tests.contains(&test.id));
            for test in of_entry.take(named) {
                let counts = test
                    .here
                    .map_or_else(String::new, |(failures, runs)| format!(" failed {failures} of {runs}"));
                let at = test.at.as_ref().map_or_else(String::new, |at| format!(" at {at}"));
                let _infallible = writeln!(text, "  {}{counts}{at}", super::typed(&test.id));
                if verbose {
                    test.message.lines().for_each(|line| {
                        let _infallible = writeln!(text, "    {line}");
                    });
                } else {
                    let _infallible = writeln!(text, "    {}", test.line());
                }
            }
            if entry.tests.len() > named {
                let _infallible = writeln!(text, "  and {} more (--verbose)", entry.tests.len() - named);
            }
            let _infallible = writeln!(text, "  next: {}\n", entry.next);
        }
        if self.passed > 0 {
            let _infallible = writeln!(text, "{} other tests passed every time.", self.passed);
        }
        text
    }
}

impl ToldCause {
    fn words(&self) -> String {
        let kind = self.kind.replace('_', " ");
        let about = if self.subject.is_empty() { kind } else { format!("{kind}: {}", self.subject) };
        let percent = self.confidence * 100.0;
        if self.confidence >= THRESHOLD {
            format!("{about} ({percent:.0} %)")
        } else {
            format!("perhaps {about} ({percent:.0} %)")
        }
    }
}

/// What to type next.
fn next(since: Since, cause: Option<(CauseKind, f64)>, tests: &[String], base: Option<&str>) -> String {
    let test = match tests.first() {
        Some(test) if !test.is_empty() => format!(" {}", shell_words::quote(test)),
        _ => String::new(),
    };
    match (since, cause) {
        (Since::Flaky, _) => format!("flakefarm diagnose{test}"),
        (_, Some((kind, confidence))) if kind.is_adaptable() && confidence >= THRESHOLD => {
            let base = base.map_or_else(String::new, |base| format!(" --base {}", shell_words::quote(base)));
            format!("flakefarm repair{base}")
        }
        (_, Some((kind, confidence))) if kind.is_environment() && confidence >= THRESHOLD => {
            "mend the environment (`setup` or `[environment]` in flakefarm.toml), not the test".to_owned()
        }
        (Since::Change | Since::New, _) => {
            "decide whether the code or the test is right: the runs cannot tell".to_owned()
        }
        (Since::Unknown, _) => format!("flakefarm analyse{test} --base REV"),
        (Since::Before, _) => format!("flakefarm bisect{test}"),
    }
}
