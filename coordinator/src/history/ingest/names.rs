//! From a foreign report's names to the tests of a project: those that are known by the names that their
//! framework's reports give them, others by an id made of what the report says. The same report always
//! gives the same ids.

use super::case::Case;
use flakefarm_shared::{TestId, TestParts};
use std::collections::HashMap;

/// A project's known tests by the names that reports give them.
#[derive(Debug, Default)]
pub struct Names {
    known: HashMap<(String, String), TestId>,
}

impl Names {
    /// Of tests whose parts are known.
    pub fn new(tests: impl IntoIterator<Item = (TestId, TestParts)>) -> Self {
        let mut known = HashMap::new();
        for (test, parts) in tests {
            known.entry(as_reported(&parts)).or_insert(test);
        }
        Self { known }
    }

    /// The test that a case is of, and what its id is made of.
    pub fn resolve(&self, case: &Case) -> (TestId, TestParts) {
        let made = made_up(case);
        match self.known.get(&(case.class.clone(), case.name.clone())) {
            Some(test) => (test.clone(), made),
            None => (spelled(&made), made),
        }
    }
}

/// Class and name as pytest's reports spell them: `tests/test_a.py::TestX::test_y[1]` is
/// `tests.test_a.TestX` and `test_y[1]`.
fn as_reported(parts: &TestParts) -> (String, String) {
    let module = parts.file.strip_suffix(".py").unwrap_or(&parts.file).replace('/', ".");
    let class: Vec<&str> =
        std::iter::once(module.as_str()).chain(parts.classes.iter().map(String::as_str)).collect();
    let mut name = parts.name.clone();
    if let Some(parameters) = &parts.parameters {
        name.push_str(&format!("[{parameters}]"));
    }
    if parts.ordinal > 1 {
        name.push_str(&format!("#{}", parts.ordinal));
    }
    (class.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("."), name)
}

fn made_up(case: &Case) -> TestParts {
    if let Some(parts) = of_pytest(case) {
        return parts;
    }
    // Some writers repeat the name, or its end, as the class.
    let class = if case.name.ends_with(&case.class) { "" } else { case.class.as_str() };
    let place = [class, &case.file, &case.suite].into_iter().find(|place| !place.is_empty());
    TestParts {
        file: if class == case.file { String::new() } else { case.file.clone() },
        classes: place.map(str::to_owned).into_iter().collect(),
        name: case.name.clone(),
        parameters: None,
        ordinal: 1,
    }
}

/// The parts of a case that pytest wrote: its file is said (xunit1), or guessed from its module's name.
fn of_pytest(case: &Case) -> Option<TestParts> {
    let says_python = case.file.ends_with(".py");
    if !says_python && case.suite != "pytest" || case.class.is_empty() {
        return None;
    }
    let segments: Vec<&str> = case.class.split('.').collect();
    let is_module = |segment: &&str| segment.starts_with("test_") || segment.ends_with("_test");
    let of_file = case.file.strip_suffix(".py").map(|path| path.split('/').count());
    let length = of_file
        .or_else(|| segments.iter().position(is_module).map(|at| at + 1))
        .unwrap_or(segments.len())
        .min(segments.len());
    let file = if says_python { case.file.clone() } else { format!("{}.py", segments[..length].join("/")) };
    let (name, parameters) = match case.name.split_once('[') {
        Some((name, rest)) => (name, rest.strip_suffix(']').map(str::to_owned)),
        None => (case.name.as_str(), None),
    };
    // A bracket that does not end the name is a part of it.
    let name = if parameters.is_none() { case.name.as_str() } else { name };
    Some(TestParts {
        file,
        classes: segments[length..].iter().map(|segment| (*segment).to_owned()).collect(),
        name: name.to_owned(),
        parameters,
        ordinal: 1,
    })
}

fn spelled(parts: &TestParts) -> TestId {
    let python = parts.file.ends_with(".py").then_some(parts.file.as_str());
    let mut id: Vec<&str> = python
        .into_iter()
        .chain(parts.classes.iter().map(String::as_str))
        .filter(|part| !part.is_empty())
        .collect();
    let name = match &parts.parameters {
        Some(parameters) => format!("{}[{parameters}]", parts.name),
        None => parts.name.clone(),
    };
    id.push(&name);
    TestId(id.join("::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(suite: &str, class: &str, name: &str, file: &str) -> Case {
        let text = str::to_owned;
        Case { suite: text(suite), class: text(class), name: text(name), file: text(file), ..Case::default() }
    }

    #[track_caller]
    fn check(case: &Case, expect: &str) {
        assert_eq!(Names::default().resolve(case).0.as_str(), expect);
    }

    #[test]
    fn every_dialect_has_ids_that_people_know() {
        check(
            &case("pytest", "tests.test_a.TestX", "test_y[a.b::c]", ""),
            "tests/test_a.py::TestX::test_y[a.b::c]",
        );
        check(&case("pytest", "tests.unit.a", "test_y", "tests/unit/a.py"), "tests/unit/a.py::test_y");
        check(&case("x", "com.acme.FooTest", "works", ""), "com.acme.FooTest::works");
        check(&case("acme/pkg", "acme/pkg", "TestX/sub", ""), "acme/pkg::TestX/sub");
        check(&case("math", "math adds", "math adds", "src/math.test.js"), "src/math.test.js::math adds");
        check(&case("b", "src/b.test.ts", "outer > inner", ""), "src/b.test.ts::outer > inner");
        check(&case("Root Suite", "issue #12", "Root issue #12", "/w/c.js"), "/w/c.js::Root issue #12");
        check(&case("s", "", "t", ""), "s::t");
        check(&case("", "", "t", ""), "t");
    }

    #[test]
    fn known_tests_are_found_by_the_names_that_reports_give_them() {
        let known = TestId::from("odd/checks.py::TestX::check_it[1]");
        let names = Names::new([(known.clone(), TestParts::of_recorded(&known))]);
        assert_eq!(names.resolve(&case("pytest", "odd.checks.TestX", "check_it[1]", "")).0, known);
        assert_ne!(names.resolve(&case("pytest", "odd.checks.TestX", "check_it[2]", "")).0, known);
    }
}
