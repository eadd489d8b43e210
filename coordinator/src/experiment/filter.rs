//! Which tests a question is about.

use flakefarm_shared::TestId;
use serde::{Deserialize, Serialize};

/// Which tests a question is about. A pattern with `*` (any text) or `?` (any character) must match
/// the whole id; any other pattern is looked for within it. Brackets mean themselves: parametrised
/// ids are full of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TestFilter(pub Vec<String>);

impl TestFilter {
    /// Whether every test is selected.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// The patterns as one line for people.
    pub fn describe(&self) -> String {
        if self.is_everything() { "every test".to_owned() } else { self.0.join(", ") }
    }

    /// Whether `test` is selected.
    pub fn selects(&self, test: &TestId) -> bool {
        self.is_everything() || self.0.iter().any(|pattern| matches(pattern, test.as_str()))
    }
}

/// Whether `text` is what `pattern` means: see [`TestFilter`].
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    if !pattern.contains(['*', '?']) {
        return text.contains(pattern);
    }
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    // The usual walk with one way back: to the last star, with one more character under it.
    let (mut p, mut t) = (0, 0);
    let mut way_back: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                way_back = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            Some(_) | None => match way_back {
                Some((star, covered)) => {
                    way_back = Some((star, covered + 1));
                    p = star + 1;
                    t = covered + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_substrings_or_globs() {
        #[track_caller]
        fn check(pattern: &str, text: &str, expect: bool) {
            let filter = TestFilter(vec![pattern.to_owned()]);
            assert_eq!(filter.selects(&TestId::from(text)), expect, "{pattern} on {text}");
        }
        check("test_a", "tests/test_a.py::test_b", true);
        check("test_c", "tests/test_a.py::test_b", false);
        check("test_a[1-x]", "tests/test_a.py::test_a[1-x]", true);
        check("tests/*::test_b", "tests/test_a.py::test_b", true);
        check("*::test_?", "tests/test_a.py::test_b", true);
        check("*::test_?", "tests/test_a.py::test_bc", false);
        check("*a*b*", "xaxxbx", true);
        check("tests/*", "other/tests/x", false);
        check("*", "", true);
        assert!(TestFilter::default().selects(&TestId::from("anything")));
    }
}
