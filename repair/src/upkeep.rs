//! Which tests a change of the code under test touches, and which of them were changed along with it: what the
//! chance that a test needs maintenance is learnt from. By names: a test touches a symbol if its name stands in
//! the test, and something that the symbol is part of in the test's file. Pure.

use crate::changes::Changes;
use crate::touched::tests_of;
use crate::tree::SourceTree;
use std::collections::{BTreeSet, HashMap, HashSet};

/// A test that was there before a change of the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its file, and its class path and name, joined with `::`.
    pub test: String,
    /// What it names of what the change altered, by paths.
    pub touches: BTreeSet<String>,
    /// Whether its own text is another one after the change.
    pub changed: bool,
}

/// The tests of `old` that are in `new`, too, by file and name.
pub fn kept(old: &SourceTree, new: &SourceTree) -> Vec<Kept> {
    let altered = Altered::of(&Changes::between(old, new));
    let mut kept = Vec::new();
    for file in old.test_files() {
        let Some(after) = new.file(&file.path) else { continue };
        let (before, after) = (tests_of(file), tests_of(after));
        let around = words(&file.text);
        for (name, text) in before {
            let Some(now) = after.get(&name) else { continue };
            kept.push(Kept {
                test: format!("{}::{name}", file.path),
                touches: altered.named_in(text, &around),
                changed: *now != text,
            });
        }
    }
    kept
}

/// What a change altered, by the last part of its path.
struct Altered(HashMap<String, BTreeSet<String>>);

impl Altered {
    fn of(changes: &Changes) -> Self {
        let mut by_name: HashMap<String, BTreeSet<String>> = HashMap::new();
        for change in changes.list() {
            // A class is called by its own name.
            let path = change.path.strip_suffix(".__init__").unwrap_or(&change.path).to_owned();
            let name = path.rsplit('.').next().unwrap_or(&path).to_owned();
            by_name.entry(name).or_default().insert(path);
        }
        Self(by_name)
    }

    fn named_in(&self, text: &str, around: &HashSet<&str>) -> BTreeSet<String> {
        let mut named = BTreeSet::new();
        if self.0.is_empty() {
            return named;
        }
        for path in words(text).iter().filter_map(|word| self.0.get(*word)).flatten() {
            let mut owners = path.split('.').rev().skip(1).peekable();
            if owners.peek().is_none() || owners.any(|owner| around.contains(owner)) {
                named.insert(path.clone());
            }
        }
        named
    }
}

fn words(text: &str) -> HashSet<&str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> SourceTree {
        SourceTree::new(files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())))
            .unwrap()
    }

    #[test]
    fn tests_touch_what_they_name_and_are_changed_when_their_text_is() {
        let code = "def tax(net, rate):\n    return net * rate\n\ndef total(net):\n    return net\n";
        let tests = "from shop.pricing import tax, total\n\ndef test_tax():\n    assert tax(1, 2) == 2\n\n\
                     def test_total():\n    assert total(1) == 1\n\ndef test_both():\n    assert tax(total(1), 1)\n";
        let old = tree(&[("shop/__init__.py", ""), ("shop/pricing.py", code), ("tests/test_a.py", tests)]);
        let code = code.replace("def tax(net, rate)", "def tax(net, rate, rounded)");
        let mended = tests.replace("tax(1, 2)", "tax(1, 2, True)");
        let new = tree(&[("shop/__init__.py", ""), ("shop/pricing.py", &code), ("tests/test_a.py", &mended)]);
        let told: Vec<(String, usize, bool)> =
            kept(&old, &new).into_iter().map(|kept| (kept.test, kept.touches.len(), kept.changed)).collect();
        let of = |name: &str, touches, changed| (format!("tests/test_a.py::{name}"), touches, changed);
        assert_eq!(told, [of("test_both", 1, false), of("test_tax", 1, true), of("test_total", 0, false)]);
        assert!(kept(&old, &old).iter().all(|kept| kept.touches.is_empty() && !kept.changed));
    }
}
