//! `flakefarm diagnose`: why tests are flaky, asked like every other question.

use crate::args::{DiagnoseArgs, SweepArgs};
use crate::exit::{Complaint, Exit};
use crate::sweep;
use flakefarm_coordinator::plan::{QuestionKind, TestFilter};
use flakefarm_worker::sandbox::RuntimeChoice;
use std::path::{Path, PathBuf};

pub(crate) async fn diagnose(args: DiagnoseArgs) -> Result<Exit, Complaint> {
    let (tests, path) = tests_and_path(&args.tests)?;
    let sweep_args = SweepArgs {
        path,
        config: args.config,
        runs: None,
        max_flake_rate: None,
        guarantee: None,
        budget: None,
        confidence: args.confidence,
        workers: args.workers,
        seed: args.seed,
        tests: args.among,
        scope: None,
        order: args.order,
        sandbox: None,
        runtime: RuntimeChoice::default(),
        panel: None,
        under: None,
        farm: args.farm,
        token: args.token,
        interactive: args.interactive,
        resume: false,
        output: args.output,
        fail_on: Vec::new(),
        state: args.state,
        framework_arguments: args.framework_arguments,
    };
    sweep::ask(sweep_args, QuestionKind::Diagnose { tests: TestFilter(tests) }).await
}

/// The last word is the project if it is a directory and not all there is.
fn tests_and_path(words: &[String]) -> Result<(Vec<String>, PathBuf), Complaint> {
    let (last, before) = words.split_last().expect("the parser wants one word at least");
    if !Path::new(last).is_dir() {
        return Ok((words.to_vec(), PathBuf::from(".")));
    }
    if before.is_empty() {
        return Err(Complaint::usage(format!("{last} is a directory: which test is to be diagnosed?"))
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
