//! `flakefarm guard`: the tests that a change adds or touches are swept before it is merged, to the
//! guarantee, within a budget.

use crate::args::GuardArgs;
use crate::ask::{self, Asked, Session, describe};
use crate::exit::{Complaint, Exit};
use crate::output;
use crate::signals;
use crate::sweep::{Wishes, gate, question};
use flakefarm_coordinator::plan::{Budget, QuestionKind, TestFilter};
use flakefarm_project::revisions;
use flakefarm_shared::World;
use std::path::{Path, PathBuf};

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
    let patterns = patterns(&changed);
    if patterns.is_empty() {
        session.progress.note(&format!("no test file differs from {}: nothing to guard", args.base));
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

/// Patterns of the tests that changed files hold, or that changed fixtures reach.
fn patterns(changed: &[PathBuf]) -> Vec<String> {
    let mut patterns: Vec<String> = changed.iter().filter_map(|path| pattern(path)).collect();
    patterns.sort();
    patterns.dedup();
    patterns
}

fn pattern(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let shown = path.to_str()?;
    if name == "conftest.py" {
        let directory = path.parent().and_then(Path::to_str).unwrap_or_default();
        return Some(if directory.is_empty() { "*".to_owned() } else { format!("{directory}/*") });
    }
    let is_test = TEST_FILE.iter().any(|(start, end)| name.starts_with(start) && name.ends_with(end));
    is_test.then(|| format!("{shown}::*"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_test_files_and_fixtures_are_guarded() {
        let changed = [
            "src/shop.py",
            "tests/test_a.py",
            "tests/unit/conftest.py",
            "shop/b_test.py",
            "README.md",
            "tests/test_a.txt",
        ];
        let changed: Vec<PathBuf> = changed.iter().map(PathBuf::from).collect();
        assert_eq!(patterns(&changed), ["shop/b_test.py::*", "tests/test_a.py::*", "tests/unit/*"]);
        assert_eq!(patterns(&[PathBuf::from("conftest.py")]), ["*"]);
    }
}
