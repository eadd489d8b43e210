//! Which framework runs a project's tests. pytest runs nearly all there are; the standard library's runner is
//! taken where nothing of the project speaks of pytest and its test files hold cases of unittest.

use super::{DEPTH, ENTRIES, above};
use flakefarm_shared::project::Framework;
use std::path::Path;

/// Files that may speak of pytest, at the root.
const SPEAKING: [&str; 11] = [
    "flakefarm.toml",
    "pyproject.toml",
    "setup.cfg",
    "setup.py",
    "tox.ini",
    "noxfile.py",
    "Pipfile",
    "Makefile",
    "conftest.py",
    "environment.yml",
    "environment.yaml",
];
/// Directories with files of requirements.
const REQUIREMENTS: [&str; 6] = ["", "requirements", "requirement", "reqs", "tests", "test"];
/// What is read of one file.
const READ: usize = 256 * 1024;
/// Test files that are read.
const FILES: usize = 2_000;

/// The framework, and the test file that gave it away if it is not pytest.
pub(super) fn of(root: &Path) -> (Framework, Option<String>) {
    if above::settings_in(root).is_some() || speaks_of_pytest(root) {
        return (Framework::Pytest, None);
    }
    match cases(root) {
        Some(file) => (Framework::Unittest, Some(file)),
        None => (Framework::Pytest, None),
    }
}

fn speaks_of_pytest(root: &Path) -> bool {
    let at_root = SPEAKING.iter().any(|name| {
        let path = root.join(name);
        path.is_file() && (*name == "conftest.py" || speaks(&path))
    });
    at_root
        || REQUIREMENTS.iter().any(|directory| {
            let entries = std::fs::read_dir(root.join(directory)).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).any(|path| {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let lists = directory.starts_with("req") || name.contains("requirements");
                let is_text = name.ends_with(".txt") || name.ends_with(".in") || name.ends_with(".pip");
                lists && is_text && read(&path).contains("pytest")
            })
        })
}

/// Whether a file speaks of pytest; what a TOML file says in comments does not count.
fn speaks(path: &Path) -> bool {
    let is_comment = |line: &&str| line.trim_start().starts_with('#');
    let is_toml = path.extension().is_some_and(|extension| extension == "toml");
    read(path).lines().filter(|line| !is_toml || !is_comment(line)).any(|line| line.contains("pytest"))
}

/// The first test file with cases of unittest, if all test files are such that unittest finds every test.
fn cases(root: &Path) -> Option<String> {
    let walk = ignore::WalkBuilder::new(root)
        .max_depth(Some(DEPTH))
        .require_git(false)
        .sort_by_file_name(std::ffi::OsStr::cmp)
        .build();
    let mut found = None;
    let named = |name: &str| {
        name == "conftest.py"
            || name.ends_with(".py") && (name.starts_with("test") || name.ends_with("_test.py"))
    };
    let files = walk.take(ENTRIES).flatten().filter(|entry| entry.file_name().to_str().is_some_and(named));
    for entry in files.filter(|entry| entry.path().is_file()).take(FILES) {
        let text = read(entry.path());
        if entry.file_name() == "conftest.py" || needs_pytest(&text) {
            return None;
        }
        // unittest looks for `test*.py` only, unless it is told otherwise.
        let is_found = entry.file_name().to_str().is_some_and(|name| name.starts_with("test"));
        if found.is_none() && is_found && text.contains("TestCase") && text.contains("unittest") {
            let path = entry.path().strip_prefix(root).unwrap_or(entry.path());
            found = Some(path.display().to_string());
        }
    }
    found
}

/// Whether a file imports pytest, or has tests that only pytest finds: functions, and classes that are no cases.
fn needs_pytest(text: &str) -> bool {
    text.lines().any(|line| {
        let words = line.trim_start();
        words.starts_with("import pytest")
            || words.starts_with("from pytest")
            || line.starts_with("def test")
            || line.starts_with("async def test")
            || line.starts_with("class Test") && (line.trim_end().ends_with("():") || !line.contains('('))
    })
}

fn read(path: &Path) -> String {
    use std::io::Read;
    let Ok(file) = std::fs::File::open(path) else { return String::new() };
    let mut content = Vec::new();
    // What cannot be read says nothing.
    let _ = file.take(READ as u64).read_to_end(&mut content);
    String::from_utf8_lossy(&content).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(files: &[(&str, &str)], expect: Framework) {
        let root = tempfile::tempdir().expect("a temporary directory");
        for (path, content) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            std::fs::write(path, content).expect("a file");
        }
        assert_eq!(of(root.path()).0, expect, "{files:?}");
    }

    const CASES: &str = "import unittest\nclass TestA(unittest.TestCase):\n    def test_a(self): pass\n";

    #[test]
    fn unittest_is_taken_where_nothing_speaks_of_pytest() {
        let case = ("tests/test_a.py", CASES);
        check(&[case], Framework::Unittest);
        check(&[case, ("setup.py", "setup(name='x')"), ("requirements.txt", "six")], Framework::Unittest);
        check(&[("src/x/tests/tests.py", CASES)], Framework::Unittest);
        check(&[("tests/test_a.py", "")], Framework::Pytest);
        check(&[case, ("tests/test_b.py", "def test_b(): pass")], Framework::Pytest);
        check(&[case, ("tests/test_b.py", "class TestB:\n    def test_b(self): pass")], Framework::Pytest);
        check(&[case, ("tests/helpers/test_c.py", "    import pytest")], Framework::Pytest);
        check(&[case, ("tests/conftest.py", "")], Framework::Pytest);
        check(&[case, ("pytest.ini", "[pytest]")], Framework::Pytest);
        check(&[case, ("requirements/test.txt", "pytest>=7")], Framework::Pytest);
        check(&[case, ("dev-requirements.txt", "pytest")], Framework::Pytest);
        check(&[case, ("tox.ini", "[testenv]\ncommands = pytest")], Framework::Pytest);
        check(&[("check_a.py", CASES)], Framework::Pytest);
        let set_up = "[environment]\nsetup = [\"pip install pytest-asyncio==1.5.0 pytest==9.2.0\"]";
        check(&[case, ("flakefarm.toml", set_up)], Framework::Pytest);
        check(&[case, ("flakefarm.toml", "# Arguments of pytest.\n[project]")], Framework::Unittest);
    }
}
