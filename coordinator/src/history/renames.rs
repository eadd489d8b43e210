//! Which tests of a listing are tests of the listing before under another name or in another place. Pure.
//!
//! A pair is taken where the evidence is clear: one test disappeared, one appeared, and their bodies and
//! parameters are the same, those of no other that disappeared or appeared. Where several with the same body
//! went and as many came, as when a directory is moved, names tell them apart if they tell all of them apart.
//! Whatever else may be links nothing; people may say more.

use flakefarm_shared::{TestId, TestParts};
use std::collections::{BTreeMap, HashSet};

/// A test of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The test.
    pub test: TestId,
    /// What its id is made of.
    pub parts: TestParts,
    /// What it does, see [`flakefarm_shared::TestSource`].
    pub body: Option<String>,
}

/// A test, and what it was in the listing before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renamed {
    /// The test.
    pub test: TestId,
    /// What it was.
    pub earlier: TestId,
}

/// How names tell tests of one body apart: by classes and name, and by the file's name too.
const TELLING: [fn(&TestParts) -> Name<'_>; 2] = [
    |parts| ("", &parts.classes, &parts.name),
    |parts| (parts.file.rsplit('/').next().unwrap_or_default(), &parts.classes, &parts.name),
];

type Name<'a> = (&'a str, &'a [String], &'a str);

/// The tests of `now` that are tests of `before` renamed or moved, by test. `is_gone` says of a test of
/// `before` that `now` has not whether it would be there if it existed.
pub fn between(before: &[Listed], now: &[Listed], is_gone: impl Fn(&Listed) -> bool) -> Vec<Renamed> {
    let was: HashSet<&TestId> = before.iter().map(|listed| &listed.test).collect();
    let is: HashSet<&TestId> = now.iter().map(|listed| &listed.test).collect();
    let mut groups: BTreeMap<_, (Vec<&Listed>, Vec<&Listed>)> = BTreeMap::new();
    for listed in before.iter().filter(|listed| !is.contains(&listed.test)) {
        if let Some(key) = key(listed) {
            groups.entry(key).or_default().0.push(listed);
        }
    }
    for listed in now.iter().filter(|listed| !was.contains(&listed.test)) {
        if let Some(key) = key(listed) {
            groups.entry(key).or_default().1.push(listed);
        }
    }
    let mut renamed: Vec<Renamed> = groups
        .into_values()
        // One that is there but was not looked at may be what came; then nothing is clear.
        .filter(|(gone, _)| gone.iter().all(|listed| is_gone(listed)))
        .flat_map(|(gone, come)| pairs(&gone, &come))
        .collect();
    renamed.sort_by(|a, b| a.test.cmp(&b.test));
    renamed
}

/// What tells a body's test from others of the same body: its parameters.
fn key(listed: &Listed) -> Option<(&str, Option<&str>, u32)> {
    Some((listed.body.as_deref()?, listed.parts.parameters.as_deref(), listed.parts.ordinal))
}

fn pairs(gone: &[&Listed], come: &[&Listed]) -> Vec<Renamed> {
    let pair =
        |earlier: &Listed, test: &Listed| Renamed { test: test.test.clone(), earlier: earlier.test.clone() };
    if let ([earlier], [test]) = (gone, come) {
        return vec![pair(earlier, test)];
    }
    if gone.len() != come.len() {
        return Vec::new();
    }
    for telling in TELLING {
        let names = names_of(gone, telling);
        if names.len() == gone.len() && names == names_of(come, telling) {
            let named = |earlier: &&Listed| {
                come.iter()
                    .find(|test| telling(&test.parts) == telling(&earlier.parts))
                    .map(|test| pair(earlier, test))
            };
            return gone.iter().filter_map(named).collect();
        }
    }
    Vec::new()
}

fn names_of<'a>(all: &[&'a Listed], telling: for<'b> fn(&'b TestParts) -> Name<'b>) -> HashSet<Name<'a>> {
    all.iter().map(|listed| telling(&listed.parts)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `tests/test_a.py::test_x[1]=body`; without `=body` none is known.
    fn listing(text: &str) -> Vec<Listed> {
        let listed = |word: &str| {
            let (id, body) = word.split_once('=').map_or((word, None), |(id, body)| (id, Some(body)));
            let test = TestId::from(id);
            Listed { parts: TestParts::of_recorded(&test), test, body: body.map(str::to_owned) }
        };
        text.split_whitespace().map(listed).collect()
    }

    #[track_caller]
    fn check(before: &str, now: &str, expect: &[(&str, &str)]) {
        let found =
            between(&listing(before), &listing(now), |listed| !listed.parts.file.starts_with("broken"));
        let found: Vec<(&str, &str)> =
            found.iter().map(|renamed| (renamed.earlier.as_str(), renamed.test.as_str())).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn a_test_that_went_and_one_that_came_with_its_body_are_one() {
        check("a.py::x=1 a.py::k=2", "a.py::y=1 a.py::k=2", &[("a.py::x", "a.py::y")]);
        check("a.py::x=1", "d/b.py::T::x=1", &[("a.py::x", "d/b.py::T::x")]);
        check(
            "a.py::x[1]=1 a.py::x[2]=1",
            "a.py::y[1]=1 a.py::y[2]=1",
            &[("a.py::x[1]", "a.py::y[1]"), ("a.py::x[2]", "a.py::y[2]")],
        );
        // Another of the same body that stayed where it is was neither.
        check("a.py::x=1 a.py::k=1", "a.py::y=1 a.py::k=1", &[("a.py::x", "a.py::y")]);
    }

    #[test]
    fn unclear_evidence_links_nothing() {
        check("a.py::x=1", "a.py::y=2", &[]);
        check("a.py::x=1", "a.py::x=1 a.py::y=1", &[]);
        check("a.py::x=1 a.py::y=1", "a.py::y=1", &[]);
        check("a.py::x=1 a.py::y=1", "a.py::v=1 a.py::w=1", &[]);
        check("a.py::x=1 a.py::y=1", "a.py::z=1", &[]);
        check("a.py::x=1", "a.py::y=1 a.py::z=1", &[]);
        check("a.py::x", "a.py::y", &[]);
        check("a.py::x[1]=1", "a.py::y[2]=1", &[]);
        check("broken.py::x=1", "a.py::y=1", &[]);
        check("broken.py::x=1 a.py::x=1", "a.py::y=1", &[]);
        check("", "a.py::y=1", &[]);
    }

    #[test]
    fn names_tell_apart_what_was_moved_together() {
        check(
            "a.py::x=1 a.py::y=1",
            "b.py::x=1 b.py::y=1",
            &[("a.py::x", "b.py::x"), ("a.py::y", "b.py::y")],
        );
        check(
            "t/a.py::x=1 t/b.py::x=1",
            "u/a.py::x=1 u/b.py::x=1",
            &[("t/a.py::x", "u/a.py::x"), ("t/b.py::x", "u/b.py::x")],
        );
        check("t/a.py::x=1 t/b.py::x=1", "u/c.py::x=1 u/d.py::x=1", &[]);
        check("a.py::x=1 a.py::y=1", "b.py::x=1 b.py::z=1", &[]);
    }
}
