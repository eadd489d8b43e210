//! The way back: a rewritten test, adapted to the change in the other direction, must be the test that it
//! was. Then nothing but the adaptation has changed in it.

use crate::adapt::{Adaptation, AsyncStyle, adapt};
use crate::changes::Changes;
use crate::python::symbols::join;
use crate::tree::SourceTree;
use ruff_python_ast::Stmt;
use ruff_python_ast::comparable::ComparableStmt;
use std::collections::BTreeSet;

/// Whether the adapted tests, adapted back from the new code to the old, say what the tests said before.
/// `tests` is the tree that was adapted. False also where something was lost on the way (an argument that was
/// dropped cannot come back): then experiments alone must speak for the repair.
pub fn is_inverse(
    old: &SourceTree,
    new: &SourceTree,
    tests: &SourceTree,
    adapted: &Adaptation,
    style: AsyncStyle,
) -> bool {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for file in tests.files() {
        let text = adapted
            .files
            .iter()
            .find(|changed| changed.path == file.path)
            .map_or(&file.text, |changed| &changed.text);
        files.push((file.path.clone(), text.clone().into_bytes()));
    }
    let Ok(adapted_tree) = SourceTree::new(files) else { return false };
    let back = adapt(&adapted_tree, &Changes::between(new, old), style);
    adapted.files.iter().all(|changed| {
        let returned =
            back.files.iter().find(|file| file.path == changed.path).map_or(&changed.text, |file| &file.text);
        tests.file(&changed.path).is_some_and(|file| says_the_same(&file.text, returned))
    })
}

/// Whether two files differ in form alone: spelling, and how their imports are put into statements.
pub(crate) fn says_the_same(a: &str, b: &str) -> bool {
    let (Ok(a), Ok(b)) = (ruff_python_parser::parse_module(a), ruff_python_parser::parse_module(b)) else {
        return false;
    };
    let rest = |body: &[Stmt]| -> Vec<usize> {
        body.iter()
            .enumerate()
            .filter(|(_, stmt)| !matches!(stmt, Stmt::Import(_) | Stmt::ImportFrom(_)))
            .map(|(place, _)| place)
            .collect()
    };
    let (a, b) = (&a.syntax().body, &b.syntax().body);
    let (rest_a, rest_b) = (rest(a), rest(b));
    imports(a) == imports(b)
        && rest_a.len() == rest_b.len()
        && rest_a
            .iter()
            .zip(&rest_b)
            .all(|(&x, &y)| ComparableStmt::from(&a[x]) == ComparableStmt::from(&b[y]))
}

/// What is imported at the top of a file, and as what.
fn imports(body: &[Stmt]) -> BTreeSet<(u32, String, String)> {
    let mut found = BTreeSet::new();
    for stmt in body {
        match stmt {
            Stmt::Import(import) => {
                for alias in &import.names {
                    let local = alias.asname.as_ref().map_or("", |name| name.id.as_str());
                    found.insert((0, alias.name.id.to_string(), local.to_owned()));
                }
            }
            Stmt::ImportFrom(import) => {
                let module = import.module.as_ref().map_or("", |name| name.id.as_str());
                for alias in &import.names {
                    let name = alias.name.id.as_str();
                    let local = alias.asname.as_ref().map_or(name, |name| name.id.as_str());
                    found.insert((import.level, join(module, name), local.to_owned()));
                }
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> SourceTree {
        SourceTree::new(files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())))
            .unwrap()
    }

    #[track_caller]
    fn check(old: &str, new: &str, test: &str, expect: bool) {
        let (old, new) = (tree(&[("shop.py", old)]), tree(&[("shop.py", new)]));
        let tests = tree(&[("tests/test_it.py", test)]);
        let adapted = adapt(&tests, &Changes::between(&old, &new), AsyncStyle::Run);
        assert!(!adapted.files.is_empty(), "something is adapted");
        assert_eq!(is_inverse(&old, &new, &tests, &adapted, AsyncStyle::Run), expect, "{adapted:?}");
    }

    #[test]
    fn the_way_back_leads_to_where_it_began() {
        let old = "def total(items, unit):\n    return sum(item.price for item in items) * unit\n";
        let test = "from shop import total\n\ndef test_a():\n    assert total([], 2) == 0\n";
        check(old, &old.replace("total", "sum_up"), test, true);
        check(old, &old.replace("items, unit)", "unit, items)"), test, true);
        check(old, &old.replace("(items, unit)", "(items, unit, rate)"), test, true);
        check(old, &old.replace(", unit)", ")").replace(" * unit", ""), test, false);
    }
}
