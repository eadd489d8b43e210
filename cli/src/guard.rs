//! `flakefarm guard`: the tests that a change adds or touches are swept before it is merged, to the
//! guarantee, within a budget.

use crate::args::GuardArgs;
use crate::ask::{self, Asked, Session, describe};
use crate::exit::{Complaint, Exit};
use crate::output;
use crate::signals;
use crate::sweep::{Wishes, gate, question};
use crate::trees;
use flakefarm_coordinator::plan::{Budget, QuestionKind, TestFilter};
use flakefarm_project::revisions::{self, Changed};
use flakefarm_repair::SourceTree;
use flakefarm_repair::touched::{Touched, touched};
use flakefarm_shared::World;
use std::collections::BTreeSet;
use std::path::Path;

/// Files with these names hold tests of pytest and unittest.
const TEST_FILE: [(&str, &str); 3] = [("test_", ".py"), ("", "_test.py"), ("", "tests.py")];

pub(crate) async fn guard(args: &GuardArgs) -> Result<Exit, Complaint> {
    let mut session = Session::open(&args.ask, &args.path, &args.ask.options(), signals::stop_on_signal()?)?;
    if session.printed_settings()? {
        return Ok(Exit::Clean);
    }
    let (root, base) = (session.root.clone(), args.base.clone());
    let changed = tokio::task::spawn_blocking(move || revisions::changed_since(&root, &base)).await?;
    let changed = changed.map_err(|error| Complaint::wrong(&error, error.hint()))?;
    let root = session.root.clone();
    let patterns = trees::analyse(move || patterns(&root, &changed)).await?;
    if patterns.is_empty() {
        session.progress.note(&format!("no test differs from {}: nothing to guard", args.base));
        if let Some(file) = &args.ask.output.output {
            output::write_file(file, "")?;
        }
        return Ok(Exit::Clean);
    }
    let wishes = Wishes {
        kind: QuestionKind::Detect,
        tests: TestFilter(patterns.clone()),
        order: None,
        repeats: false,
    };
    let mut question = question(wishes, &session)?;
    if question.budget.is_none() {
        question.budget = format!("{}s", args.budget.as_secs().max(1)).parse::<Budget>().ok();
    }
    let place = session.place(question.sandbox).await?;
    let archive = session.archive().await?;
    let snapshot = place.put(archive.bytes).await?;
    session.progress.note(&format!(
        "{}: {}; tests of {} changed since {}, seed {}",
        session.loaded.spec.name,
        describe(&session.loaded),
        patterns.join(", "),
        args.base,
        question.seed
    ));
    let submission = session.submission(question, snapshot, archive.revision, World::Plain);
    match session.carry_out(place, &submission).await? {
        Asked::Detached => Ok(Exit::Clean),
        Asked::Ended(ended) => {
            let exit = ask::finish(&ended, &args.ask.output).await?;
            Ok(if exit == Exit::Clean { gate(&ended.report, &args.fail_on) } else { exit })
        }
    }
}

/// Patterns of the tests that a change adds or touches, or that its changed fixtures reach.
fn patterns(root: &Path, changed: &Changed) -> Result<Vec<String>, Complaint> {
    let mut patterns = BTreeSet::new();
    for path in changed.files.iter().filter_map(|path| path.to_str()) {
        match kind_of(path) {
            Some(Guarded::Directory(directory)) => {
                patterns.insert(if directory.is_empty() { "*".to_owned() } else { format!("{directory}/*") });
            }
            Some(Guarded::File) => match touched_in(root, &changed.since, path)? {
                Touched::Everything => {
                    patterns.insert(format!("{path}::*"));
                }
                // With parameters and without.
                Touched::Tests(tests) => patterns.extend(
                    tests.iter().flat_map(|test| [format!("{path}::{test}"), format!("{path}::{test}[*")]),
                ),
            },
            None => {}
        }
    }
    Ok(patterns.into_iter().collect())
}

/// What a changed file says of tests.
#[derive(Debug, PartialEq, Eq)]
enum Guarded<'a> {
    /// It holds some.
    File,
    /// Its fixtures reach those of this directory.
    Directory(&'a str),
}

fn kind_of(path: &str) -> Option<Guarded<'_>> {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    if name == "conftest.py" {
        return Some(Guarded::Directory(directory));
    }
    let is_test = TEST_FILE.iter().any(|(start, end)| name.starts_with(start) && name.ends_with(end));
    is_test.then_some(Guarded::File)
}

/// What a change touches in a file of tests; everything where either side cannot be read as Python.
fn touched_in(root: &Path, since: &str, path: &str) -> Result<Touched, Complaint> {
    let Some(before) = revisions::file_at(root, since, path) else { return Ok(Touched::Everything) };
    let after = std::fs::read(root.join(path)).map_err(|error| Complaint::of(&error))?;
    let tree = |bytes: Vec<u8>| {
        SourceTree::new([(path.to_owned(), bytes)]).map_err(|error| Complaint::usage(error.to_string()))
    };
    let (before, after) = (tree(before.into_bytes())?, tree(after)?);
    Ok(match (before.file(path), after.file(path)) {
        (Some(before), Some(after)) => touched(before, after),
        _ => Touched::Everything,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_tests_and_fixtures_are_guarded() {
        assert_eq!(kind_of("tests/test_a.py"), Some(Guarded::File));
        assert_eq!(kind_of("shop/b_test.py"), Some(Guarded::File));
        assert_eq!(kind_of("tests/unit/conftest.py"), Some(Guarded::Directory("tests/unit")));
        assert_eq!(kind_of("conftest.py"), Some(Guarded::Directory("")));
        for other in ["src/shop.py", "README.md", "tests/test_a.txt"] {
            assert_eq!(kind_of(other), None, "{other}");
        }
    }
}
