//! What attempts run: nothing at all, one trivial test, a suite, or a project of the user's.

use crate::Unmeasured;
use flakefarm_shared::TestId;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Tests of the generated suite, ten to a file.
pub(crate) const SUITE_TESTS: usize = 200;

/// One thing to run many times.
#[derive(Debug)]
pub(crate) struct Payload {
    pub(crate) name: &'static str,
    pub(crate) root: PathBuf,
    pub(crate) kind: Kind,
    /// Keeps a generated project.
    _directory: Option<TempDir>,
}

/// What of the project is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `/bin/true`, beside the project.
    Nothing,
    /// This test alone.
    Test(TestId),
    /// Everything.
    Suite,
}

impl Payload {
    /// `/bin/true`.
    pub(crate) fn nothing() -> Result<Self, Unmeasured> {
        Ok(Self { name: "/bin/true", kind: Kind::Nothing, ..Self::trivial()? })
    }

    /// One trivial test.
    pub(crate) fn trivial() -> Result<Self, Unmeasured> {
        let directory = generated(1, 1)?;
        Ok(Self {
            name: "one test",
            root: directory.path().to_owned(),
            kind: Kind::Test(TestId("test_000.py::test_00".to_owned())),
            _directory: Some(directory),
        })
    }

    /// A suite of [`SUITE_TESTS`].
    pub(crate) fn suite() -> Result<Self, Unmeasured> {
        let directory = generated(SUITE_TESTS / 10, 10)?;
        Ok(Self {
            name: "200 tests",
            root: directory.path().to_owned(),
            kind: Kind::Suite,
            _directory: Some(directory),
        })
    }

    /// The whole suite of a project.
    pub(crate) fn project(root: &Path) -> Self {
        Self { name: "project", root: root.to_owned(), kind: Kind::Suite, _directory: None }
    }

    /// What plain pytest is told to run.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments = ["-q", "-p", "no:cacheprovider"].map(str::to_owned).to_vec();
        if let Kind::Test(test) = &self.kind {
            arguments.push(test.as_str().to_owned());
        }
        arguments
    }
}

/// A project of tests that do a little, and always pass.
fn generated(files: usize, each: usize) -> Result<TempDir, Unmeasured> {
    let directory = tempfile::Builder::new().prefix("flakefarm-bench-").tempdir()?;
    fs::write(directory.path().join("pytest.ini"), "[pytest]\n")?;
    for file in 0..files {
        let mut text = String::from("import json\n\n\n");
        for test in 0..each {
            writeln!(text, "def test_{test:02}():\n    assert json.loads('[{test}]') == [{test}]\n\n")
                .expect("writing to memory");
        }
        fs::write(directory.path().join(format!("test_{file:03}.py")), text)?;
    }
    Ok(directory)
}
