//! From a case of a JUnit report to the test that it tells of. Reports name tests in ways of their own;
//! the source tree decides what a name means.

use flakefarm_coordinator::history::ingest::case::Case;
use std::path::Path;

/// A failed case, and what it is in the project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mapped {
    /// A test, by its id.
    Test(String),
    /// A whole file, which could not be collected.
    File(String),
    /// Nothing of this project: the name that the report gives it.
    Unknown(String),
}

/// Directories that a report's names may begin in, beside the project's root.
const ROOTS: [&str; 4] = ["", "tests", "test", "src"];

/// Finds the test of `case` in the project at `root`.
pub(crate) fn map(root: &Path, case: &Case) -> Mapped {
    if case.class.is_empty() {
        // pytest tells of a file that it cannot collect by the module's name alone.
        if let Some((file, rest)) = split(root, &case.name)
            && rest.is_empty()
        {
            return Mapped::File(file);
        }
        return match existing(root, &case.file) {
            Some(file) => Mapped::Test(format!("{file}::{}", case.name)),
            None => Mapped::Unknown(case.name.clone()),
        };
    }
    let by_file = existing(root, &case.file).map(|file| {
        let module = module_of(&file);
        let classes = case.class.rsplit_once(&module).map_or("", |(_, rest)| rest.trim_start_matches('.'));
        (file, classes.to_owned())
    });
    match split(root, &case.class).or(by_file) {
        Some((file, classes)) if classes.is_empty() => Mapped::Test(format!("{file}::{}", case.name)),
        Some((file, classes)) => {
            Mapped::Test(format!("{file}::{}::{}", classes.replace('.', "::"), case.name))
        }
        None => Mapped::Unknown(format!("{}.{}", case.class, case.name)),
    }
}

/// The longest beginning of a dotted name that is a module of the project, and the rest.
fn split(root: &Path, dotted: &str) -> Option<(String, String)> {
    let parts: Vec<&str> = dotted.split('.').collect();
    if parts.iter().any(|part| part.is_empty() || part.contains(['/', '\\'])) {
        return None;
    }
    (1..=parts.len()).rev().find_map(|length| {
        let file = format!("{}.py", parts[..length].join("/"));
        Some((existing(root, &file)?, parts[length..].join(".")))
    })
}

/// The file as the project spells it, if it is there.
fn existing(root: &Path, file: &str) -> Option<String> {
    let file = file.trim_start_matches("./").replace('\\', "/");
    if file.is_empty() || file.split('/').any(|part| part == "..") {
        return None;
    }
    if let Ok(below) = Path::new(&file).strip_prefix(root) {
        return root.join(below).is_file().then(|| below.display().to_string());
    }
    if file.starts_with('/') {
        return None;
    }
    ROOTS.iter().find_map(|first| {
        let path = if first.is_empty() { file.clone() } else { format!("{first}/{file}") };
        root.join(&path).is_file().then_some(path)
    })
}

fn module_of(file: &str) -> String {
    file.trim_end_matches(".py").rsplit('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_reports_are_found_in_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["tests/test_a.py", "tests/unit/test_b.py", "test_top.py"] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let check = |class: &str, name: &str, file: &str, expect: Mapped| {
            let case = Case { class: class.into(), name: name.into(), file: file.into(), ..Case::default() };
            assert_eq!(map(dir.path(), &case), expect, "{class} {name} {file}");
        };
        let test = |id: &str| Mapped::Test(id.to_owned());
        check("tests.test_a", "test_x", "", test("tests/test_a.py::test_x"));
        check(
            "tests.test_a.TestThing",
            "test_x[1.5-a b]",
            "",
            test("tests/test_a.py::TestThing::test_x[1.5-a b]"),
        );
        check("tests.unit.test_b.Outer.Inner", "t", "", test("tests/unit/test_b.py::Outer::Inner::t"));
        check("test_a", "test_x", "", test("tests/test_a.py::test_x"));
        check("test_top", "test_x", "test_top.py", test("test_top.py::test_x"));
        check("some.other.TestThing", "t", "tests/test_a.py", test("tests/test_a.py::t"));
        check("x.test_a.TestThing", "t", "./tests/test_a.py", test("tests/test_a.py::TestThing::t"));
        check("", "tests.test_a", "", Mapped::File("tests/test_a.py".to_owned()));
        check("", "test_x", "tests/test_a.py", test("tests/test_a.py::test_x"));
        check(
            "com.example.ThingTest",
            "works",
            "",
            Mapped::Unknown("com.example.ThingTest.works".to_owned()),
        );
        check("tests.test_none", "t", "../../etc/passwd", Mapped::Unknown("tests.test_none.t".to_owned()));
        check("..", "..", "", Mapped::Unknown(".....".to_owned()));
    }
}
