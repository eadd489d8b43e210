//! What every proposed change of tests must stand up to before an experiment is spent on it, whoever
//! proposed it. "It passes now" is no repair: a test can be made to pass by asking less of it. Each rule
//! compares a file before and after, and names what is less than it was.

mod inverse;
mod profile;

pub use inverse::is_inverse;

use crate::tree::is_test_path;
use profile::{FunctionProfile, Profile};
use std::fmt;

/// One way to ask less of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A test is gone.
    TestRemoved,
    /// An assertion is gone.
    AssertionRemoved,
    /// A comparison became a weaker one: `==` an `in`, a truth value, or `is not None`.
    AssertionWeakened,
    /// An assertion that cannot fail.
    AssertionEmpty,
    /// A tolerance is wider, or new.
    ToleranceWidened,
    /// Any exception will do, or its message is not looked at any more.
    ExceptionBroadened,
    /// Skipped, or expected to fail.
    Skipped,
    /// Run again until it passes.
    Retried,
    /// Failures are caught.
    FailureCaught,
    /// The test returns before its end.
    EarlyExit,
    /// It waits longer.
    WaitsLonger,
    /// Rows of a parametrised test are gone.
    ParametersRemoved,
    /// Something more is replaced by a mock.
    MoreMocked,
    /// The interpreter or its environment is tampered with.
    EnvironmentChanged,
    /// Checks of other tools are silenced.
    CheckSilenced,
    /// The file configures the test run, or is none of the tests'.
    OutsideTests,
    /// The result cannot be read.
    Unreadable,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rule::TestRemoved => "a test is removed",
            Rule::AssertionRemoved => "an assertion is removed",
            Rule::AssertionWeakened => "an assertion asks for less",
            Rule::AssertionEmpty => "an assertion cannot fail",
            Rule::ToleranceWidened => "a tolerance is wider",
            Rule::ExceptionBroadened => "any exception would do",
            Rule::Skipped => "a test is skipped or expected to fail",
            Rule::Retried => "a test is run again until it passes",
            Rule::FailureCaught => "a failure is caught",
            Rule::EarlyExit => "a test returns before its end",
            Rule::WaitsLonger => "a test waits longer",
            Rule::ParametersRemoved => "rows of a parametrised test are removed",
            Rule::MoreMocked => "more of the code is replaced by mocks",
            Rule::EnvironmentChanged => "the interpreter or its environment is changed",
            Rule::CheckSilenced => "a check of another tool is silenced",
            Rule::OutsideTests => "the file is none of the tests'",
            Rule::Unreadable => "the result cannot be read",
        })
    }
}

/// A rule that a proposed change breaks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// The rule.
    pub rule: Rule,
    /// The file.
    pub path: String,
    /// The function, where it is one.
    pub function: Option<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.function {
            Some(function) => write!(f, "{}: {} in {function}", self.path, self.rule),
            None => write!(f, "{}: {}", self.path, self.rule),
        }
    }
}

/// What one changed file breaks. `before` is missing for a new file, `after` for one that is gone. `renamed`
/// says what a function of the old file is called in the new one.
pub fn cheats(
    path: &str,
    before: Option<&str>,
    after: Option<&str>,
    renamed: impl Fn(&str) -> String,
) -> Vec<Violation> {
    let violation = |rule, function: Option<&str>| Violation {
        rule,
        path: path.to_owned(),
        function: function.map(str::to_owned),
    };
    if !path.ends_with(".py") || !is_test_path(path) {
        return vec![violation(Rule::OutsideTests, None)];
    }
    let read = |text: Option<&str>| match text {
        Some(text) => Profile::read(text),
        None => Ok(Profile::default()),
    };
    let (Ok(old), Ok(new)) = (read(before), read(after)) else {
        return vec![violation(Rule::Unreadable, None)];
    };
    let mut found = Vec::new();
    for (name, old) in &old.functions {
        let name = renamed(name);
        match new.functions.get(&name) {
            None if old.is_test => found.push(violation(Rule::TestRemoved, Some(&name))),
            None => {}
            Some(new) => found.extend(compare(old, new).into_iter().map(|rule| violation(rule, Some(&name)))),
        }
    }
    // What is new must not be worse than nothing: helpers count by what they bring.
    let nothing = FunctionProfile::default();
    let known: Vec<String> = old.functions.keys().map(|name| renamed(name)).collect();
    for (name, new) in new.functions.iter().filter(|(name, _)| !known.contains(name)) {
        found.extend(compare(&nothing, new).into_iter().map(|rule| violation(rule, Some(name))));
    }
    found.extend(compare(&old.module, &new.module).into_iter().map(|rule| violation(rule, None)));
    if new.silenced > old.silenced {
        found.push(violation(Rule::CheckSilenced, None));
    }
    found.sort();
    found.dedup();
    found
}

/// Rules that a function breaks in its new form.
fn compare(old: &FunctionProfile, new: &FunctionProfile) -> Vec<Rule> {
    let mut broken = Vec::new();
    let mut more = |rule, old: u32, new: u32| {
        if new > old {
            broken.push(rule);
        }
    };
    more(Rule::AssertionRemoved, new.assertions, old.assertions);
    more(Rule::AssertionWeakened, new.exact_assertions, old.exact_assertions);
    more(Rule::AssertionEmpty, old.empty_assertions, new.empty_assertions);
    more(Rule::ToleranceWidened, old.tolerances, new.tolerances);
    more(Rule::ExceptionBroadened, old.broad_exceptions, new.broad_exceptions);
    more(Rule::ExceptionBroadened, new.matched_exceptions, old.matched_exceptions);
    more(Rule::Skipped, old.skips, new.skips);
    more(Rule::Retried, old.retries, new.retries);
    more(Rule::FailureCaught, old.catches, new.catches);
    more(Rule::EarlyExit, old.exits, new.exits);
    more(Rule::WaitsLonger, old.waits, new.waits);
    more(Rule::ParametersRemoved, new.rows, old.rows);
    more(Rule::MoreMocked, old.mocks, new.mocks);
    more(Rule::EnvironmentChanged, old.environment, new.environment);
    if new.longest_wait_ms > old.longest_wait_ms {
        broken.push(Rule::WaitsLonger);
    }
    if new.widest_tolerance > old.widest_tolerance && old.tolerances > 0 {
        broken.push(Rule::ToleranceWidened);
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "import pytest\nfrom shop import total\n\ndef test_a():\n    result = total([1])\n    assert result == 1\n    assert total([]) == 0\n\n@pytest.mark.parametrize('n', [1, 2, 3])\ndef test_b(n):\n    with pytest.raises(ValueError, match='no'):\n        total(n)\n    assert total([n]) == pytest.approx(n, abs=0.01)\n";

    /// Replaces once, and says which rules the result breaks.
    #[track_caller]
    fn check(old: &str, new: &str, expect: &[Rule]) {
        assert!(BEFORE.contains(old), "the text has `{old}`");
        let after = BEFORE.replacen(old, new, 1);
        let broken: Vec<Rule> = cheats("tests/test_it.py", Some(BEFORE), Some(&after), str::to_owned)
            .into_iter()
            .map(|violation| violation.rule)
            .collect();
        assert_eq!(broken, expect, "{after}");
    }

    #[test]
    fn adaptations_break_no_rule() {
        check("from shop import total", "from store import total", &[]);
        check("total([1])", "total([1], unit=None)", &[]);
        check("    assert result == 1\n", "    assert result == 2\n", &[]);
    }

    #[test]
    fn each_way_to_ask_less_is_seen() {
        check("def test_a", "def other_a", &[Rule::TestRemoved]);
        check("    assert result == 1\n", "", &[Rule::AssertionRemoved, Rule::AssertionWeakened]);
        check("assert result == 1", "assert result", &[Rule::AssertionWeakened]);
        check("assert result == 1", "assert result in (1, 2)", &[Rule::AssertionWeakened]);
        check("assert result == 1", "assert result is not None", &[Rule::AssertionWeakened]);
        check(
            "assert result == 1",
            "assert result == result",
            &[Rule::AssertionWeakened, Rule::AssertionEmpty],
        );
        check("assert result == 1", "assert True", &[Rule::AssertionWeakened, Rule::AssertionEmpty]);
        check(
            "assert result == 1",
            "assert result == 1 or True",
            &[Rule::AssertionWeakened, Rule::AssertionEmpty],
        );
        check("assert result == 1", "assert result == pytest.approx(1)", &[Rule::ToleranceWidened]);
        check("abs=0.01", "abs=0.1", &[Rule::ToleranceWidened]);
        check("raises(ValueError, match='no')", "raises(Exception, match='no')", &[Rule::ExceptionBroadened]);
        check("raises(ValueError, match='no')", "raises(ValueError)", &[Rule::ExceptionBroadened]);
        check("def test_a", "@pytest.mark.skip\ndef test_a", &[Rule::Skipped]);
        check("def test_a", "@pytest.mark.xfail(reason='x')\ndef test_a", &[Rule::Skipped]);
        check("    result = ", "    pytest.skip('later')\n    result = ", &[Rule::Skipped]);
        check("import pytest\n", "import pytest\npytestmark = pytest.mark.skip\n", &[Rule::Skipped]);
        check("import pytest\n", "import pytest\nother = pytest.importorskip('shop')\n", &[Rule::Skipped]);
        check("def test_a", "@pytest.mark.flaky(reruns=3)\ndef test_a", &[Rule::Retried]);
        check(
            "    result = total([1])",
            "    try:\n        result = total([1])\n    except Exception:\n        result = 1",
            &[Rule::FailureCaught],
        );
        check("    result = ", "    return\n    result = ", &[Rule::EarlyExit]);
        check("    result = ", "    import time; time.sleep(1)\n    result = ", &[Rule::WaitsLonger]);
        check("[1, 2, 3]", "[1, 2]", &[Rule::ParametersRemoved]);
        check(
            "    result = ",
            "    from unittest import mock; mock.patch('shop.total').start()\n    result = ",
            &[Rule::MoreMocked],
        );
        check(
            "    result = ",
            "    import sys; sys.modules['shop'] = None\n    result = ",
            &[Rule::EnvironmentChanged],
        );
        check("total([1])", "total([1])  # noqa", &[Rule::CheckSilenced]);
        check(
            "    assert result == 1\n",
            "    for x in []:\n        assert result == 1\n",
            &[Rule::AssertionRemoved, Rule::AssertionWeakened],
        );
        check(
            "    assert result == 1\n",
            "    if False:\n        assert result == 1\n",
            &[Rule::AssertionRemoved, Rule::AssertionWeakened],
        );
        check("def test_a():", "def test_a(:", &[Rule::Unreadable]);
    }

    #[test]
    fn other_files_are_no_tests() {
        let rules = |path: &str| {
            cheats(path, Some("x = 1\n"), Some("x = 2\n"), str::to_owned)
                .first()
                .map(|violation| violation.rule)
        };
        assert_eq!(rules("shop/total.py"), Some(Rule::OutsideTests));
        assert_eq!(rules("tests/data.json"), Some(Rule::OutsideTests));
        assert_eq!(rules("pytest.ini"), Some(Rule::OutsideTests));
        assert_eq!(rules("tests/helpers.py"), None);
    }
}
