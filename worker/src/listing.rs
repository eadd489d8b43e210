//! Lists a project's tests, more than once where that may differ: a start that fails is tried again, and where
//! tests have parameters a second listing shows which of their ids change from run to run. A file that cannot be
//! collected at first may be the next time.

use crate::attempt::{self, AttemptSetting, Unwatched, Watched};
use crate::frameworks::Adapter;
use crate::frameworks::reader::AttemptReading;
use flakefarm_shared::{AttemptEnd, AttemptId, Listing, NothingRan, Refusal, TestId, TestParts, TestSource};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// A framework that dies before it has collected is started this often: of starts that fail half of the time,
/// one in 64 listings is given up.
const STARTS: u32 = 6;
/// No further start after this time.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why there is no listing.
#[derive(Debug)]
pub(crate) enum NotListed {
    Unwatched(Unwatched),
    Refused(Refusal),
}

impl From<Unwatched> for NotListed {
    fn from(error: Unwatched) -> Self {
        NotListed::Unwatched(error)
    }
}

/// Lists the tests in fresh sandboxes, the first of which is `attempt`.
pub(crate) async fn list(
    setting: &AttemptSetting<'_>,
    attempt: AttemptId,
    stop: &CancellationToken,
) -> Result<Listing, NotListed> {
    let begun = Instant::now();
    let mut starts = 0;
    let (reading, failed_starts) = loop {
        let this = AttemptId { index: attempt.index + starts, ..attempt };
        let Watched { reading, stray_output, .. } = attempt::list(setting, this, stop).await?;
        starts += 1;
        match &reading.end {
            AttemptEnd::Infrastructure(error) => return Err(Unwatched::Infrastructure(error.clone()).into()),
            _ if !reading.tests.is_empty() => break (reading, starts - 1),
            AttemptEnd::NothingRan { why: NothingRan::Died, .. }
                if starts < STARTS && begun.elapsed() < PATIENCE =>
            {
                warn!(job.id = %attempt.job, starts, "the tests could not be listed, trying again");
            }
            AttemptEnd::NothingRan { .. } | AttemptEnd::Completed | AttemptEnd::Interrupted { .. } => {
                return Err(NotListed::Refused(nothing_listed(
                    setting.framework(),
                    &reading,
                    stray_output,
                    starts,
                )));
            }
        }
    };
    if reading.sources.is_empty() {
        warn!(job.id = %attempt.job, "the sources of the tests could not be read: earlier sweeps say nothing of them");
    }
    let mut listing = Listing {
        tests: reading.tests,
        parts: reading.parts,
        collection_errors: reading.collection_errors,
        framework_version: reading.framework_version,
        image: setting.image.to_owned(),
        command: setting.framework().command(setting.project, &reading.path),
        sources: reading.sources,
        changing: Vec::new(),
        failed_starts,
        capabilities: setting.framework().capabilities(),
    };
    let not_collected = !listing.collection_errors.is_empty();
    if not_collected || listing.parts.iter().any(|parts| parts.parameters.is_some()) {
        let again = AttemptId { index: attempt.index + starts, ..attempt };
        let Watched { mut reading, .. } = attempt::list(setting, again, stop).await?;
        if reading.tests.is_empty() {
            return Ok(listing); // without a second listing nothing is known to change
        }
        if reading.collection_errors.len() < listing.collection_errors.len() {
            std::mem::swap(&mut listing.tests, &mut reading.tests);
            std::mem::swap(&mut listing.parts, &mut reading.parts);
            std::mem::swap(&mut listing.sources, &mut reading.sources);
            std::mem::swap(&mut listing.collection_errors, &mut reading.collection_errors);
        }
        fold_changing(&mut listing, &reading.parts);
    }
    Ok(listing)
}

/// Of a function whose parameters were others the second time, one id stands for all: the function's own.
fn fold_changing(listing: &mut Listing, again: &[TestParts]) {
    let first = parameters(&listing.parts);
    let second = parameters(again);
    let changes = |function: &Function| matches!((first.get(function), second.get(function)), (Some(one), Some(other)) if one != other);
    let changing: BTreeSet<&Function> = first.keys().filter(|function| changes(function)).collect();
    if changing.is_empty() {
        return;
    }
    let mut kept: HashMap<TestId, ()> = HashMap::new();
    let mut tests = Vec::new();
    let mut parts = Vec::new();
    let mut sources = Vec::new();
    for (place, (test, of)) in listing.tests.iter().zip(&listing.parts).enumerate() {
        let (mut test, mut of) = (test.clone(), of.clone());
        if changing.contains(&Function::of(&of)) {
            test = without_parameters(&test, &of);
            of = TestParts { parameters: None, ordinal: 1, ..of };
            if kept.insert(test.clone(), ()).is_some() {
                continue;
            }
            listing.changing.push(test.clone());
        }
        tests.push(test);
        parts.push(of);
        sources.extend(listing.sources.get(place).cloned());
    }
    listing.tests = tests;
    listing.parts = parts;
    listing.sources = sources_of(sources, &listing.tests);
}

fn sources_of(sources: Vec<TestSource>, tests: &[TestId]) -> Vec<TestSource> {
    if sources.len() == tests.len() { sources } else { Vec::new() }
}

/// File, classes and name: what is left of a test without its parameters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Function(String, Vec<String>, String);

impl Function {
    fn of(parts: &TestParts) -> Self {
        Self(parts.file.clone(), parts.classes.clone(), parts.name.clone())
    }
}

fn parameters(all: &[TestParts]) -> BTreeMap<Function, BTreeSet<(&str, u32)>> {
    let mut found: BTreeMap<Function, BTreeSet<(&str, u32)>> = BTreeMap::new();
    for parts in all {
        if let Some(parameters) = &parts.parameters {
            found.entry(Function::of(parts)).or_default().insert((parameters, parts.ordinal));
        }
    }
    found
}

fn without_parameters(test: &TestId, parts: &TestParts) -> TestId {
    let parameters = parts.parameters.as_deref().unwrap_or_default();
    let brackets = format!("[{parameters}]");
    let end = test.as_str().rfind(&brackets).unwrap_or(test.as_str().len());
    TestId(test.as_str()[..end].to_owned())
}

/// Why a listing found no test, with what the framework said and what may help.
fn nothing_listed(
    framework: &Adapter,
    reading: &AttemptReading,
    stray_output: String,
    starts: u32,
) -> Refusal {
    let (reason, why) = match &reading.end {
        AttemptEnd::NothingRan { reason, why } => (reason.as_str(), *why),
        AttemptEnd::Completed | AttemptEnd::Interrupted { .. } | AttemptEnd::Infrastructure(_) => {
            ("", NothingRan::NothingCollected)
        }
    };
    let mut log = String::new();
    for error in &reading.collection_errors {
        log.push_str(&format!("{}:\n{}\n", error.path, error.message));
    }
    if log.is_empty() {
        log = if reason.is_empty() { stray_output } else { reason.to_owned() };
    }
    let name = framework.name;
    let known = if why == NothingRan::Refused { framework.hint_refused(&log) } else { None };
    let (message, hint) = match why {
        NothingRan::Refused | NothingRan::Died => (
            match starts {
                0 | 1 => format!("{name} cannot start"),
                _ => format!("{name} cannot start: it failed {starts} times of {starts}"),
            },
            known.unwrap_or(
                "give it what it asks for above: variables under [environment.variables] or `pass_env`, files and \
                 programs in a step of `setup` under [environment] in flakefarm.toml",
            ),
        ),
        NothingRan::NoFramework => (
            "no tests found: the framework is not installed".to_owned(),
            "add it to `setup` under [environment] in flakefarm.toml",
        ),
        NothingRan::Unavailable | NothingRan::NothingCollected | NothingRan::Tampered
            if reading.collection_errors.is_empty() =>
        {
            (
                "no tests found".to_owned(),
                framework.hint_no_tests,
            )
        }
        NothingRan::Unavailable | NothingRan::NothingCollected | NothingRan::Tampered => (
            "no tests found: collection failed".to_owned(),
            "if something is not installed, add it to `setup` under [environment] in flakefarm.toml",
        ),
    };
    Refusal { message, log, hint: Some(hint.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flakefarm_shared::Digest;

    fn listing(tests: &[&str]) -> Listing {
        let tests: Vec<TestId> = tests.iter().map(|test| TestId::from(*test)).collect();
        let fingerprint = |test: &TestId| Digest::of(test.as_str().as_bytes());
        Listing {
            parts: tests.iter().map(TestParts::of_recorded).collect(),
            sources: tests
                .iter()
                .map(|test| TestSource { fingerprint: fingerprint(test), risks: Vec::new(), body: None })
                .collect(),
            tests,
            ..Listing::default()
        }
    }

    #[track_caller]
    fn check(first: &[&str], second: &[&str], expect: &[&str], changing: &[&str]) {
        let mut folded = listing(first);
        fold_changing(&mut folded, &listing(second).parts);
        let texts = |tests: &[TestId]| tests.iter().map(|test| test.0.clone()).collect::<Vec<_>>();
        assert_eq!(texts(&folded.tests), expect);
        assert_eq!(texts(&folded.changing), changing);
        assert_eq!((folded.parts.len(), folded.sources.len()), (expect.len(), expect.len()));
    }

    #[test]
    fn a_function_whose_parameters_change_is_one_test() {
        check(
            &["a.py::t[1]", "a.py::t[fixed]", "a.py::u[x]", "a.py::v", "b.py::C::t[7]"],
            &["a.py::t[2]", "a.py::t[fixed]", "a.py::u[x]", "a.py::v", "b.py::C::t[7]"],
            &["a.py::t", "a.py::u[x]", "a.py::v", "b.py::C::t[7]"],
            &["a.py::t"],
        );
    }

    #[test]
    fn a_function_that_is_missing_the_second_time_is_none_whose_parameters_change() {
        check(&["a.py::t[1]", "b.py::u[1]"], &["a.py::t[1]"], &["a.py::t[1]", "b.py::u[1]"], &[]);
    }

    #[test]
    fn an_order_that_changes_is_no_other_set() {
        check(
            &["a.py::t[1]", "a.py::t[2]"],
            &["a.py::t[2]", "a.py::t[1]"],
            &["a.py::t[1]", "a.py::t[2]"],
            &[],
        );
    }
}
