//! What an attempt says it has collected, held against what it was asked for.

use crate::frameworks::bounds;
use flakefarm_shared::attempt::CollectionError;
use flakefarm_shared::{Remark, TestId, TestParts, TestSource};
use std::collections::{HashMap, HashSet};

/// What was collected.
#[derive(Debug)]
pub(super) struct Collecting {
    expected: Option<HashSet<TestId>>,
    listing: bool,
    /// Parts of what was collected, until the last has come.
    coming: Vec<TestId>,
    bytes: usize,
    reordered: bool,
    pub(super) tests: Option<Vec<TestId>>,
    pub(super) missing: Vec<TestId>,
    pub(super) parts: Vec<TestParts>,
    pub(super) sources: Vec<TestSource>,
    pub(super) path: Vec<String>,
    pub(super) errors: Vec<CollectionError>,
    pub(super) skips: Vec<CollectionError>,
    /// Groups of tests with one id.
    pub(super) twins: Vec<Vec<TestId>>,
    /// What was asked for, by the tests that it stands for.
    pub(super) meant: HashMap<TestId, TestId>,
    also: HashSet<TestId>,
}

impl Collecting {
    pub(super) fn new(expected: Option<&[TestId]>, listing: bool) -> Self {
        Self {
            expected: expected.map(|tests| tests.iter().cloned().collect()),
            listing,
            coming: Vec::new(),
            bytes: 0,
            reordered: false,
            tests: None,
            missing: Vec::new(),
            parts: Vec::new(),
            sources: Vec::new(),
            path: Vec::new(),
            errors: Vec::new(),
            skips: Vec::new(),
            twins: Vec::new(),
            meant: HashMap::new(),
            also: HashSet::new(),
        }
    }

    /// How many tests were collected, once that is known.
    pub(super) fn count(&self) -> Option<usize> {
        self.tests.as_ref().map(Vec::len)
    }

    /// Whether `test` itself, one that has the same id, or what it is one part of was asked for.
    pub(super) fn was_asked_for(&self, test: &TestId) -> bool {
        let Some(expected) = &self.expected else { return true };
        expected.contains(test) || self.meant.contains_key(test) || self.also.contains(test)
    }

    pub(super) fn failed(&mut self, path: String, message: String) {
        // A file that two collectors want (module and doctests) fails twice.
        note(&mut self.errors, path, message);
    }

    pub(super) fn skipped(&mut self, path: String, message: String) {
        note(&mut self.skips, path, message);
    }

    pub(super) fn missing(&mut self, tests: Vec<TestId>) -> Result<(), String> {
        let expected = self.expected.as_ref();
        self.missing.extend(
            tests.into_iter().filter(|test| expected.is_some_and(|expected| expected.contains(test))),
        );
        if self.missing.len() > expected.map_or(0, HashSet::len) {
            return Err("more tests were said to be missing than were asked for".to_owned());
        }
        Ok(())
    }

    pub(super) fn twins(&mut self, groups: Vec<Vec<TestId>>) {
        let Self { expected, also, twins, .. } = self;
        for group in groups {
            let asked = |test: &TestId| expected.as_ref().is_none_or(|expected| expected.contains(test));
            if group.len() > 1 && group.iter().any(asked) && twins.len() < bounds::TESTS {
                also.extend(group.iter().cloned());
                twins.push(group);
            }
        }
    }

    pub(super) fn meant(&mut self, by: TestId, tests: Vec<TestId>) -> Result<(), String> {
        let Some(expected) = self.expected.as_ref().filter(|expected| expected.contains(&by)) else {
            return Ok(());
        };
        for test in tests.into_iter().filter(|test| !expected.contains(test)) {
            self.bytes += test.as_str().len();
            self.meant.insert(test, by.clone());
        }
        self.within_bounds()
    }

    /// Takes a part of what was collected; whether it was the last.
    pub(super) fn collected(
        &mut self,
        tests: Vec<TestId>,
        more: bool,
        reordered: bool,
    ) -> Result<bool, String> {
        self.bytes += tests.iter().map(|test| test.as_str().len()).sum::<usize>();
        self.coming.extend(tests);
        self.within_bounds()?;
        if !more {
            let mut tests = std::mem::take(&mut self.coming);
            tests.retain(|test| self.was_asked_for(test));
            self.reordered = reordered;
            self.tests = Some(tests);
        }
        Ok(!more)
    }

    fn within_bounds(&self) -> Result<(), String> {
        if self.coming.len() > bounds::TESTS || self.bytes > bounds::NAME_BYTES {
            return Err("more tests were told of than any project has".to_owned());
        }
        Ok(())
    }

    pub(super) fn parts(&mut self, tests: Vec<TestParts>) -> Result<(), String> {
        self.parts.extend(tests);
        self.fits(self.parts.len(), "parts")
    }

    pub(super) fn sources(&mut self, tests: Vec<TestSource>) -> Result<(), String> {
        self.sources.extend(tests);
        self.fits(self.sources.len(), "sources")
    }

    pub(super) fn path(&mut self, directories: Vec<String>) {
        self.path = directories;
        self.path.truncate(bounds::DIRECTORIES);
        self.path.iter_mut().for_each(|directory| bounds::text(directory, bounds::NAME_CHARS));
    }

    fn fits(&self, count: usize, what: &str) -> Result<(), String> {
        if !self.listing || count > self.count().unwrap_or(0) {
            return Err(format!("{what} of tests were told that nobody asked for"));
        }
        Ok(())
    }

    pub(super) fn remarks(&self) -> Vec<Remark> {
        let mut remarks = Vec::new();
        if self.reordered {
            remarks.push(Remark::Reordered);
        }
        if !self.twins.is_empty() {
            let first = |group: &Vec<TestId>| group.first().cloned();
            let tests = self.twins.iter().filter_map(first).take(bounds::SHARED_IDS).collect();
            remarks.push(Remark::SharedIds { tests });
        }
        remarks
    }
}

fn note(known: &mut Vec<CollectionError>, path: String, mut message: String) {
    if known.len() < bounds::FILES && !known.iter().any(|other| other.path == path) {
        bounds::text(&mut message, bounds::MESSAGE_CHARS);
        known.push(CollectionError { path, message });
    }
}
