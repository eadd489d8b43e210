//! Which tests of a file a change adds or touches. A test is touched when its own text is other than before;
//! when anything around it is (a fixture, a helper, a base class), every test of the file may be.

use crate::tree::SourceFile;
use ruff_python_ast::{Stmt, StmtClassDef};
use ruff_text_size::{Ranged, TextRange};
use std::collections::{BTreeMap, BTreeSet};

/// What a change touches in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// Perhaps every test.
    Everything,
    /// These, by class path and name joined with `::`.
    Tests(BTreeSet<String>),
}

/// What is other in `after` than in `before`.
pub fn touched(before: &SourceFile, after: &SourceFile) -> Touched {
    let (old, new) = (Parts::of(before), Parts::of(after));
    let gone = old.rest.iter().any(|part| !new.rest.contains(part));
    let came = new.rest.iter().filter(|part| !old.rest.contains(part)).any(|part| !part.harms_nobody(before));
    if gone || came {
        return Touched::Everything;
    }
    let differs = |(name, text): &(&String, &&str)| old.tests.get(*name) != Some(*text);
    Touched::Tests(new.tests.iter().filter(differs).map(|(name, _)| name.clone()).collect())
}

/// The text of each test of a file, its decorators included, by class path and name.
pub(crate) fn tests_of(file: &SourceFile) -> BTreeMap<String, &str> {
    Parts::of(file).tests
}

/// A file, taken apart.
struct Parts<'a> {
    /// The text of each test, its decorators included, by class path and name.
    tests: BTreeMap<String, &'a str>,
    /// Everything else.
    rest: BTreeSet<Part<'a>>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Part<'a> {
    /// The classes it stands in.
    owner: String,
    text: &'a str,
    /// The function or class at the top of the file that it is, or is part of.
    within: Option<&'a str>,
    is_import: bool,
}

impl Part<'_> {
    /// Whether something new can only change what names it: an import, or a definition whose name did not occur
    /// before. A fixture that is used without being named does not count.
    fn harms_nobody(&self, before: &SourceFile) -> bool {
        self.is_import
            || self.within.is_some_and(|name| !before.text.contains(name) && !self.text.contains("autouse"))
    }
}

impl<'a> Parts<'a> {
    fn of(file: &'a SourceFile) -> Self {
        let mut parts = Self { tests: BTreeMap::new(), rest: BTreeSet::new() };
        parts.block(&file.text, &file.parsed.syntax().body, "", None);
        parts
    }

    fn block(&mut self, text: &'a str, body: &'a [Stmt], owner: &str, top: Option<&'a str>) {
        for stmt in body {
            let is_import = matches!(stmt, Stmt::Import(_) | Stmt::ImportFrom(_));
            let within = top.or(match stmt {
                Stmt::FunctionDef(function) => Some(function.name.as_str()),
                Stmt::ClassDef(class) => Some(class.name.as_str()),
                _ => None,
            });
            let mut range = stmt.range();
            match stmt {
                Stmt::FunctionDef(function) if function.name.starts_with("test") => {
                    let name = format!("{owner}{}", function.name);
                    // Of two with one name the later one runs.
                    self.tests.insert(name, &text[stmt.range()]);
                    continue;
                }
                Stmt::ClassDef(class) if holds_tests(class) => {
                    range =
                        TextRange::new(stmt.start(), class.body.first().map_or(stmt.end(), Ranged::start));
                    let owner = format!("{owner}{}::", class.name);
                    crate::python::deep(|| self.block(text, &class.body, &owner, within));
                }
                _ => {}
            }
            self.rest.insert(Part {
                owner: owner.to_owned(),
                text: text[range].trim_end(),
                within,
                is_import,
            });
        }
    }
}

fn holds_tests(class: &StmtClassDef) -> bool {
    class.body.iter().any(|stmt| match stmt {
        Stmt::FunctionDef(function) => function.name.starts_with("test"),
        Stmt::ClassDef(inner) => crate::python::deep(|| holds_tests(inner)),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::SourceTree;

    const BEFORE: &str = "import os\n\ndef helper():\n    return 1\n\ndef test_a():\n    assert helper()\n\n\
                          class TestB:\n    size = 3\n\n    def test_c(self):\n        assert self.size\n\n    \
                          def test_d(self):\n        assert True\n";

    fn between(before: &str, after: &str) -> Touched {
        let tree = |text: &str| SourceTree::new([("test_x.py".to_owned(), text.into())]).unwrap();
        let (before, after) = (tree(before), tree(after));
        touched(before.file("test_x.py").unwrap(), after.file("test_x.py").unwrap())
    }

    fn tests(names: &[&str]) -> Touched {
        Touched::Tests(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn tests_that_are_new_or_other_are_touched_and_no_others() {
        let changed = |from: &str, to: &str| between(BEFORE, &BEFORE.replace(from, to));
        assert_eq!(between(BEFORE, BEFORE), tests(&[]));
        assert_eq!(changed("assert helper()", "assert helper() == 1"), tests(&["test_a"]));
        assert_eq!(changed("assert True", "assert 1"), tests(&["TestB::test_d"]));
        assert_eq!(changed("    def test_d", "    @slow\n    def test_d"), tests(&["TestB::test_d"]));
        assert_eq!(changed("test_d", "test_e"), tests(&["TestB::test_e"]));
        // Space between them, and where they stand, is nobody's.
        assert_eq!(changed("\n\nclass", "\n\n\n# More.\nclass"), tests(&[]));
        let more = format!(
            "{BEFORE}\ndef make():\n    return 2\n\nclass TestF:\n    size = 4\n    def test_g(self):\n        make()\n"
        );
        assert_eq!(between(BEFORE, &more), tests(&["TestF::test_g"]));
        assert_eq!(changed("import os", "import os\nimport sys"), tests(&[]));
    }

    #[test]
    fn what_tests_share_touches_them_all() {
        let changed = |from: &str, to: &str| between(BEFORE, &BEFORE.replace(from, to));
        for (from, to) in [
            ("return 1", "return 2"),
            ("import os\n", ""),
            ("size = 3", "size = 4"),
            ("class TestB:", "class TestB(Base):"),
            ("import os", "import os\nos.environ.clear()"),
            // It takes the place of one that was named.
            ("import os", "import os\ndef size(): return 1"),
            ("import os", "import os\n@pytest.fixture(autouse=True)\ndef fresh(): yield"),
        ] {
            assert_eq!(changed(from, to), Touched::Everything, "{from:?} -> {to:?}");
        }
    }
}
