//! `flakefarm diagnose`: why tests are flaky, asked like every other question.

use crate::args::DiagnoseArgs;
use crate::ask::{self, Asked, Session, describe};
use crate::exit::{Complaint, Exit};
use crate::signals;
use crate::sweep::{Wishes, question};
use flakefarm_coordinator::plan::{QuestionKind, TestFilter};
use flakefarm_shared::World;
use std::path::{Path, PathBuf};

pub(crate) async fn diagnose(args: &DiagnoseArgs) -> Result<Exit, Complaint> {
    let (tests, path) = tests_and_path(&args.tests)?;
    let mut session = Session::open(&args.ask, &path, &args.ask.options(), signals::stop_on_signal()?)?;
    if session.printed_settings()? {
        return Ok(Exit::Clean);
    }
    let tests = TestFilter(tests);
    let named = tests.describe();
    let wishes = Wishes {
        kind: QuestionKind::Diagnose { tests },
        tests: TestFilter(args.among.clone()),
        order: args.order,
        repeats: true,
    };
    let question = question(wishes, &session)?;
    let place = session.place(question.sandbox).await?;
    let archive = session.archive().await?;
    let snapshot = place.put(archive.bytes).await?;
    let (name, how) = (&session.loaded.spec.name, describe(&session.loaded));
    session.progress.note(&format!("{name}: {how}; diagnosing {named}, seed {}", question.seed));
    let submission = session.submission(question, snapshot, archive.revision, World::Plain);
    match session.carry_out(place, &submission).await? {
        Asked::Detached => Ok(Exit::Clean),
        Asked::Ended(ended) => ask::finish(&ended, &args.ask.output).await,
    }
}

/// The last word is the project if it is a directory and not all there is.
fn tests_and_path(words: &[String]) -> Result<(Vec<String>, PathBuf), Complaint> {
    let (last, before) = words.split_last().expect("the parser wants one word at least");
    if !Path::new(last).is_dir() {
        return Ok((words.to_vec(), PathBuf::from(".")));
    }
    if before.is_empty() {
        return Err(Complaint::usage(format!("{last} is a directory: name the test to diagnose"))
            .hint(format!("flakefarm diagnose TEST {last}; flakefarm sweep {last} finds flaky ones")));
    }
    Ok((before.to_vec(), PathBuf::from(last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_is_the_last_word_if_it_is_a_directory() {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let (tests, path) = tests_and_path(&words(&["a.py::b", "c", "src"])).unwrap();
        assert_eq!((tests, path), (words(&["a.py::b", "c"]), PathBuf::from("src")));
        let (tests, path) = tests_and_path(&words(&["a.py::b", "not-there"])).unwrap();
        assert_eq!((tests, path), (words(&["a.py::b", "not-there"]), PathBuf::from(".")));
        assert!(
            tests_and_path(&words(&["src"]))
                .unwrap_err()
                .hint
                .unwrap()
                .contains("flakefarm diagnose TEST src")
        );
    }
}
