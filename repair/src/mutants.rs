//! Can a repaired test still fail? Small changes of the code it tests (first-order mutants, as text edits) that the
//! test noticed before its repair must be noticed afterwards, too; and each piece of code that it ran it must still run.
//!
//! All mutants of one tree are in the tree at once, each behind a switch in the environment, and the file of the tests
//! is there once for each: so one question about one tree answers for all of them, each mutant a test of its own.

mod sites;

use crate::adapt::FileAdaptation;
use crate::cause::within_reach_of;
use crate::changes::Changes;
use crate::edits::{Edits, Overlap};
use crate::tree::SourceTree;
use sites::{Site, sites};
use std::collections::{BTreeMap, BTreeSet};

/// Most mutants that one repair is asked about.
pub const MAX_MUTANTS: usize = 20;
/// Most functions of tests that are asked.
pub const MAX_TESTS: usize = 8;
/// Of these, changes that only ask whether a piece of code is run.
const MAX_PROBES: usize = 8;
/// Share of the mutants noticed before that must be noticed afterwards.
pub const STILL: f64 = 0.9;
/// The variable of the environment that says which mutant is on.
const SWITCH: &str = "FLAKEFARM_MUTANT";
/// What copies of test files are called, before the mutant's number.
const COPY: &str = "test_flakefarm_mutant";

/// What a mutant is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// An error where code is entered: whoever runs that code notices.
    Probe,
    /// Code that does something else.
    Change,
}

/// One mutant that both trees can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutant {
    /// From 1.
    pub number: usize,
    /// What it is for.
    pub purpose: Purpose,
    /// The function, in the new tree.
    pub function: String,
    /// What is changed, and into what.
    pub what: String,
}

/// Mutants of two trees, pairwise the same.
#[derive(Debug)]
pub struct Mutants {
    /// In order.
    pub mutants: Vec<Mutant>,
    /// Files of the tree before, and of the tree after the repair, that differ from the trees themselves.
    pub before: Vec<FileAdaptation>,
    /// The same of the repaired tree.
    pub after: Vec<FileAdaptation>,
    /// The copies of the tests to ask for: of mutant 0 (none) and of each mutant.
    pub tests: Vec<String>,
}

/// What the tests noticed: mutants by number, with each test's own id.
pub type Noticed = BTreeSet<(String, usize)>;

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StillFails {
    /// Pairs of test and function that the tests ran before.
    pub ran_before: usize,
    /// Pairs of test and changed code that the tests noticed before.
    pub noticed_before: usize,
    /// Of these, those that are noticed still.
    pub noticed_still: usize,
    /// Functions that were run before and are not any more.
    pub not_run: Vec<String>,
    /// Changes of code that are not noticed any more.
    pub missed: Vec<String>,
}

impl StillFails {
    /// Whether the repaired test asks as much as before, as far as this shows.
    pub fn is_kept(&self) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "counts of mutants are small")]
        let enough = self.noticed_still as f64 >= STILL * self.noticed_before as f64;
        enough && self.not_run.is_empty()
    }
}

/// Chooses mutants of the code near `tests` and lays them, switched off, into both trees. `old` is the tree in which
/// the tests were right (the same as `new` where only a test was changed), `repaired` is `new` with the repair. Nothing
/// where there is no code near that both trees have.
pub fn plan(old: &SourceTree, repaired: &SourceTree, changes: &Changes, tests: &[String]) -> Option<Mutants> {
    let functions: BTreeSet<&str> = tests.iter().map(|test| test.split('[').next().unwrap_or(test)).collect();
    let asked: Vec<&str> = functions
        .into_iter()
        .filter(|test| {
            let path = test.split("::").next().unwrap_or(test);
            old.file(path).is_some() && repaired.file(path).is_some()
        })
        .take(MAX_TESTS)
        .collect();
    let mut near: Vec<usize> = Vec::new();
    let mut lists: Vec<_> =
        asked.iter().map(|test| within_reach_of(test, repaired, &changes.new).into_iter()).collect();
    // The nearest of each test in turn.
    loop {
        let layer: Vec<usize> = lists.iter_mut().filter_map(Iterator::next).collect();
        if layer.is_empty() {
            break;
        }
        for place in layer {
            if !near.contains(&place) {
                near.push(place);
            }
        }
    }
    let back: BTreeMap<usize, usize> =
        changes.matching.symbols.iter().map(|(&from, to)| (to.to, from)).collect();
    let mut chosen: Vec<(Mutant, Site, Site)> = Vec::new();
    for purpose in [Purpose::Probe, Purpose::Change] {
        for &place in &near {
            let Some(&from) = back.get(&place) else { continue };
            let (before, after) = (&changes.old.symbols[from], &changes.new.symbols[place]);
            let (Some(old_file), Some(new_file)) = (old.file(&before.file), repaired.file(&after.file))
            else {
                continue;
            };
            let pairs = sites(old_file, before.range, purpose)
                .into_iter()
                .flat_map(|old| {
                    sites(new_file, after.range, purpose).into_iter().map(move |new| (old.clone(), new))
                })
                .filter(|(old, new)| old.kind == new.kind && old.nth == new.nth && old.shape == new.shape);
            // Two of each function at most: what is far is worth a look as well.
            for (old_site, new_site) in pairs.take(if purpose == Purpose::Probe { 1 } else { 2 }) {
                let full = chosen.iter().filter(|(mutant, ..)| mutant.purpose == Purpose::Probe).count()
                    >= MAX_PROBES;
                if chosen.len() >= MAX_MUTANTS || (purpose == Purpose::Probe && full) {
                    continue;
                }
                let overlaps = chosen.iter().any(|(_, _, other)| {
                    other.path == new_site.path && other.range.intersect(new_site.range).is_some()
                });
                if overlaps {
                    continue;
                }
                let mutant = Mutant {
                    number: chosen.len() + 1,
                    purpose,
                    function: after.path(),
                    what: new_site.what(),
                };
                chosen.push((mutant, old_site, new_site));
            }
        }
    }
    if asked.is_empty() || chosen.is_empty() {
        return None;
    }
    let numbers: Vec<usize> = (0..=chosen.len()).collect();
    let laid = |tree: &SourceTree,
                side: fn(&(Mutant, Site, Site)) -> &Site|
     -> Result<Vec<FileAdaptation>, Overlap> {
        let mut files: BTreeMap<&str, Edits> = BTreeMap::new();
        for choice in &chosen {
            let site = side(choice);
            site.edit(choice.0.number, files.entry(&site.path).or_default());
        }
        let mut made = Vec::new();
        for (path, edits) in files {
            let text = edits.apply(&tree.file(path).expect("it was found there").text)?;
            made.push(FileAdaptation { path: path.to_owned(), text });
        }
        made.extend(copies(tree, &asked, &numbers));
        made.push(switching(tree));
        Ok(made)
    };
    let (before, after) = (laid(old, |choice| &choice.1).ok()?, laid(repaired, |choice| &choice.2).ok()?);
    let sound = |files: &[FileAdaptation]| {
        files.iter().all(|file| ruff_python_parser::parse_module(&file.text).is_ok())
    };
    if !sound(&before) || !sound(&after) {
        return None;
    }
    let tests = asked.iter().flat_map(|test| numbers.iter().map(|number| copied(test, *number))).collect();
    Some(Mutants { mutants: chosen.into_iter().map(|(mutant, ..)| mutant).collect(), before, after, tests })
}

impl Mutants {
    /// What tests noticed, from the ids of copies and whether each failed. A copy of mutant 0 that fails says nothing
    /// about its test.
    pub fn noticed<'a>(&self, ended: impl IntoIterator<Item = (&'a str, bool)>) -> Noticed {
        let mut noticed = Noticed::new();
        let mut sound: BTreeSet<String> = BTreeSet::new();
        for (id, failed) in ended {
            let Some((test, number)) = original(id) else { continue };
            if number == 0 && !failed {
                sound.insert(test);
            } else if number > 0 && failed {
                noticed.insert((test, number));
            }
        }
        noticed.retain(|(test, _)| sound.contains(test));
        noticed
    }

    /// Compares what was noticed before the repair and after it.
    pub fn compare(&self, before: &Noticed, after: &Noticed) -> StillFails {
        let mut told = StillFails::default();
        for pair in before {
            let Some(mutant) = self.mutants.iter().find(|mutant| mutant.number == pair.1) else { continue };
            let still = after.contains(pair);
            match mutant.purpose {
                Purpose::Probe => {
                    told.ran_before += 1;
                    if !still {
                        told.not_run.push(format!("{}: {}", pair.0, mutant.function));
                    }
                }
                Purpose::Change => {
                    told.noticed_before += 1;
                    told.noticed_still += usize::from(still);
                    if !still {
                        told.missed.push(format!("{}: {} in {}", pair.0, mutant.what, mutant.function));
                    }
                }
            }
        }
        told
    }
}

/// What the copy of a test for a mutant is called.
fn copied(test: &str, number: usize) -> String {
    let (path, rest) = test.split_once("::").unwrap_or((test, ""));
    format!("{}::{rest}", copied_path(path, number))
}

fn copied_path(path: &str, number: usize) -> String {
    let (directory, file) = path.rsplit_once('/').map_or(("", path), |(directory, file)| (directory, file));
    let slash = if directory.is_empty() { "" } else { "/" };
    format!("{directory}{slash}{COPY}_{number:02}_{file}")
}

/// The test and the mutant of a copy's id.
fn original(id: &str) -> Option<(String, usize)> {
    let (path, rest) = id.split_once("::")?;
    let (directory, file) = path.rsplit_once('/').map_or(("", path), |(directory, file)| (directory, file));
    let (number, file) = file.strip_prefix(COPY)?.strip_prefix('_')?.split_once('_')?;
    let slash = if directory.is_empty() { "" } else { "/" };
    Some((format!("{directory}{slash}{file}::{rest}"), number.parse().ok()?))
}

fn copies(tree: &SourceTree, tests: &[&str], numbers: &[usize]) -> Vec<FileAdaptation> {
    let paths: BTreeSet<&str> = tests.iter().map(|test| test.split("::").next().unwrap_or(test)).collect();
    let copy = |path: &&str| {
        let text = tree.file(path).map(|file| file.text.clone()).unwrap_or_default();
        numbers
            .iter()
            .map(move |number| FileAdaptation { path: copied_path(path, *number), text: text.clone() })
            .collect::<Vec<_>>()
    };
    paths.iter().flat_map(copy).collect()
}

/// The `conftest.py` at the root that puts the switch on for the tests of a copy.
fn switching(tree: &SourceTree) -> FileAdaptation {
    let hook = format!(
        "\n\nimport os as _flakefarm_os\n\nimport pytest as _flakefarm_pytest\n\n\n\
         @_flakefarm_pytest.hookimpl(hookwrapper=True, tryfirst=True)\n\
         def pytest_runtest_protocol(item, nextitem):\n    \
             name = item.nodeid.split(\"::\")[0].rpartition(\"/\")[2]\n    \
             if name.startswith(\"{COPY}_\"):\n        \
                 _flakefarm_os.environ[\"{SWITCH}\"] = str(int(name[{at}:{end}]))\n    \
             yield\n    \
             _flakefarm_os.environ.pop(\"{SWITCH}\", None)\n",
        at = COPY.len() + 1,
        end = COPY.len() + 3,
    );
    let before = tree.file("conftest.py").map_or("", |file| file.text.as_str());
    // What the project's own file has under that name would be hidden: its hooks come first then.
    let hook = if before.contains("def pytest_runtest_protocol") { String::new() } else { hook };
    FileAdaptation { path: "conftest.py".to_owned(), text: format!("{before}{hook}") }
}

#[cfg(test)]
mod tests;
