//! Tests whose ids change from run to run: parameters that hold a time, an address, a random number. What is told of
//! an id that nobody knows counts for the listed one that it must be.

use super::Ledger;
use flakefarm_shared::{AttemptEnd, AttemptRecord, Sample, Scope, TestId};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::OnceLock;

/// What is remembered of ids that changed.
#[derive(Debug, Clone, Default)]
pub(super) struct Renaming {
    /// Places of listed tests with parameters, by the function they are of.
    variants: OnceLock<BTreeMap<String, Vec<usize>>>,
    /// Functions that were listed with parameters which others stood for later.
    changing: BTreeSet<TestId>,
}

impl Ledger {
    /// Functions of which not even two listings had shown that their ids change.
    pub fn changing(&self) -> &BTreeSet<TestId> {
        &self.renaming.changing
    }

    /// The samples of a record under ids that are listed, as far as that is known.
    pub(super) fn known_by_their_ids<'a>(&mut self, record: &'a AttemptRecord) -> Cow<'a, [Sample]> {
        let unknown = |sample: &Sample| !self.places.contains_key(&sample.test);
        if !record.samples.iter().any(|sample| unknown(sample) && function_of(&sample.test).is_some()) {
            return Cow::Borrowed(&record.samples);
        }
        let names = self.names(record);
        let mut samples: Vec<Sample> = Vec::with_capacity(record.samples.len());
        let mut places: BTreeMap<TestId, usize> = BTreeMap::new();
        for sample in &record.samples {
            let Some(name) = names.get(&sample.test) else {
                samples.push(sample.clone());
                continue;
            };
            let sample = Sample { test: name.clone(), ..sample.clone() };
            match places.get(name) {
                Some(place) => samples[*place].absorb(sample),
                None => {
                    places.insert(name.clone(), samples.len());
                    samples.push(sample);
                }
            }
        }
        Cow::Owned(samples)
    }

    /// How the record ended, if by a test then by one that is listed, as far as that is known.
    pub(super) fn ended_by_its_id(&self, record: &AttemptRecord) -> AttemptEnd {
        let mut end = record.end.clone();
        if let AttemptEnd::Interrupted { running, .. } = &mut end
            && !self.places.contains_key(running)
            && let Some(function) = function_of(running).map(|function| TestId(function.to_owned()))
            && self.places.contains_key(&function)
        {
            *running = function;
        }
        end
    }

    /// Listed ids for those of `record` that are not.
    fn names(&mut self, record: &AttemptRecord) -> BTreeMap<TestId, TestId> {
        let mut names = BTreeMap::new();
        let mut strangers: BTreeMap<&str, Vec<&TestId>> = BTreeMap::new();
        for test in record.samples.iter().map(|sample| &sample.test) {
            let Some(function) = function_of(test).filter(|_| !self.places.contains_key(test)) else {
                continue;
            };
            let listed = TestId(function.to_owned());
            if self.places.contains_key(&listed) {
                names.insert(test.clone(), listed);
            } else {
                strangers.entry(function).or_default().push(test);
            }
        }
        // Only where everything ran does it show which of the listed ids is gone.
        if strangers.is_empty() || record.scope != Scope::Suite || record.end != AttemptEnd::Completed {
            return names;
        }
        let heard: HashSet<&TestId> = record.samples.iter().map(|sample| &sample.test).collect();
        let variants = self.renaming.variants.get_or_init(|| variants(&self.tests));
        let mut changing = BTreeSet::new();
        for (function, strangers) in strangers {
            let listed = variants.get(function).into_iter().flatten().map(|place| &self.tests[*place]);
            let gone: Vec<&TestId> = listed.filter(|test| !heard.contains(test)).collect();
            if gone.len() == strangers.len() {
                names.extend(strangers.into_iter().cloned().zip(gone.into_iter().cloned()));
                changing.insert(TestId(function.to_owned()));
            }
        }
        self.renaming.changing.extend(changing);
        names
    }
}

fn variants(tests: &[TestId]) -> BTreeMap<String, Vec<usize>> {
    let mut variants: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (place, test) in tests.iter().enumerate() {
        if let Some(function) = function_of(test) {
            variants.entry(function.to_owned()).or_default().push(place);
        }
    }
    variants
}

/// The id of a test's function: what stands before its parameters, if it has any.
fn function_of(test: &TestId) -> Option<&str> {
    let id = test.as_str();
    let id = match id.rsplit_once('#') {
        Some((before, number)) if before.ends_with(']') && number.bytes().all(|b| b.is_ascii_digit()) => {
            before
        }
        Some(_) | None => id,
    };
    let name = id.rfind("::").map_or(0, |at| at + 2);
    let function = id.strip_suffix(']')?;
    // Parameters may hold anything, `::` included.
    let bracket = function[name..].find('[').map(|at| name + at).or_else(|| function.find('['))?;
    (bracket > 0).then(|| &id[..bracket])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_what_stands_before_the_parameters() {
        let function = |id: &str| function_of(&TestId::from(id)).map(str::to_owned);
        assert_eq!(function("t.py::test_a[x]").as_deref(), Some("t.py::test_a"));
        assert_eq!(function("t.py::A::test_a[x[0]]#2").as_deref(), Some("t.py::A::test_a"));
        assert_eq!(function("t.py::test_a[b::c]").as_deref(), Some("t.py::test_a"));
        assert_eq!(function("t.py::test_a"), None);
    }
}
