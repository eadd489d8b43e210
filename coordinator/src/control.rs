//! The control of a scheduled sweep: tests whose answers are known, run beside it on the same workers, in
//! the project's own environment and at the same level. What a farm says of tests that nobody knows is
//! worth what it says of these. They belong to a project of their own: nothing of the tested project's
//! history, verdicts or gates comes from them. Pure.

use crate::plan::{Budget, Question, Runs};
use crate::report::model::{Subject, Trust, TrustState};
use crate::report::{Report, Verdict};
use flakefarm_shared::project::Framework;
use flakefarm_shared::{Digest, SweepContext, SweepId, Typed, World};
use std::io;
use std::time::Duration;
use uuid::Uuid;

/// The project that controls belong to; nobody else may submit in its name.
pub const CONTROL: &str = "flakefarm-control";
/// Where they lie, beside the project's own files.
const DIRECTORY: &str = "flakefarm_control";
/// What a control may take on the clock; one that takes longer says nothing.
pub const PATIENCE: Duration = Duration::from_secs(1800);

/// Tests that are flaky, by the ends of their ids. Misses are as good as impossible: of 59 runs of each,
/// which the default guarantee takes, none fails with (2/3)^59 < 1e-10 for the rarest.
const FLAKY: [&str; 4] =
    ["test_01_flakes_half", "test_02_flakes_third", "test_03_needs_to_be_first", "test_04_ends_its_process"];
/// Tests that are not.
const STABLE: [&str; 6] = [
    "test_11_passes",
    "test_12_always_fails",
    "test_13_leaves_something_behind",
    "test_14_writes_files",
    "test_15_waits",
    "test_16_draws_from_a_seed",
];
/// The one of them that always fails.
const BROKEN: &str = "test_12_always_fails";

const TESTS: &str = r#"import os
import random
import tempfile
import time
import unittest

LEFT = []


def happens(of_256):
    # Not of `random`: what seeds that is none of this file's business.
    return os.urandom(1)[0] < of_256


class Known(unittest.TestCase):
    def test_01_flakes_half(self):
        self.assertFalse(happens(128))

    def test_02_flakes_third(self):
        self.assertFalse(happens(86))

    def test_03_needs_to_be_first(self):
        self.assertEqual(LEFT, [])

    def test_04_ends_its_process(self):
        if happens(86):
            os._exit(3)

    def test_11_passes(self):
        self.assertEqual(sum(range(10)), 45)

    def test_12_always_fails(self):
        self.assertEqual(2 + 2, 5)

    def test_13_leaves_something_behind(self):
        LEFT.append(1)

    def test_14_writes_files(self):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "a")
            with open(path, "w") as file:
                file.write("a")
            self.assertEqual(os.listdir(directory), ["a"])

    def test_15_waits(self):
        time.sleep(0.005)

    def test_16_draws_from_a_seed(self):
        self.assertEqual(random.Random(7).randrange(1000), random.Random(7).randrange(1000))
"#;

/// The control's files as the beginning of an archive: whatever snapshot follows it, both together are one
/// snapshot that holds both. (A zstd stream may have several frames, and a tar archive ends only where it
/// says so.)
pub fn beginning() -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let files = [("test_known.py", TESTS), ("pytest.ini", "[pytest]\n"), ("__init__.py", "")];
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        header.set_mtime(1_577_836_800);
        header.set_uid(1000);
        header.set_gid(1000);
        tar.append_data(&mut header, format!("{DIRECTORY}/{name}"), text.as_bytes())?;
    }
    let whole = tar.into_inner()?;
    // Without the two empty blocks that end it.
    let entries = whole.len().checked_sub(1024).expect("an archive has an end");
    zstd::encode_all(&whole[..entries], 3)
}

/// The sweep of the control beside that of the firing.
pub fn id_of(sweep: SweepId) -> SweepId {
    SweepId(Uuid::new_v5(&sweep.0, b"control"))
}

/// The project's context with the control's tests instead of its own.
pub fn context(of: &SweepContext, snapshot: Digest) -> SweepContext {
    let mut project = of.project.clone();
    project.name = CONTROL.to_owned();
    (project.test_paths, project.arguments) = match project.framework {
        // Nothing that the project configures for its own tests.
        Framework::Pytest => (
            vec![format!("{DIRECTORY}/test_known.py")],
            vec![
                format!("--rootdir={DIRECTORY}"),
                format!("--confcutdir={DIRECTORY}"),
                "-c".to_owned(),
                format!("{DIRECTORY}/pytest.ini"),
            ],
        ),
        Framework::Unittest => (vec![DIRECTORY.to_owned()], Vec::new()),
    };
    for name in ["PYTEST_ADDOPTS", "PYTEST_PLUGINS"] {
        project.variables.remove(name);
    }
    SweepContext { project, snapshot, under: World::Plain, typed: Typed::default(), ..of.clone() }
}

/// Whether its tests are flaky, by the same engine at the same level as `of`.
pub fn question(of: &Question, sweep: SweepId) -> Question {
    let (high, low) = id_of(sweep).0.as_u64_pair();
    Question {
        runs: Runs::Adaptive,
        sandbox: of.sandbox,
        workers: of.workers,
        budget: Some(Budget::Clock(PATIENCE)),
        ..Question::detect(high ^ low)
    }
}

/// What a control's report says of the farm.
pub fn judge(sweep: SweepId, report: &Report) -> Trust {
    let verdict = |name: &str| {
        let of = |test: &&crate::report::TestReport| test.subject == Subject::Test && test.id.ends_with(name);
        report.tests.iter().find(of).map(|test| test.verdict)
    };
    let names = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<String>>();
    let missed = |name: &&str| verdict(name) != Some(Verdict::Flaky);
    let wanted = |name: &str| if name == BROKEN { Verdict::Broken } else { Verdict::Healthy };
    let unanswered = |name: &&str| matches!(verdict(name), None | Some(Verdict::Inconclusive));
    let accused = |name: &&str| !unanswered(name) && verdict(name) != Some(wanted(name));
    let missed = names(FLAKY.into_iter().filter(missed).collect());
    let accused = names(STABLE.into_iter().filter(accused).collect());
    let unanswered = names(STABLE.into_iter().filter(unanswered).collect());
    let good = missed.is_empty() && accused.is_empty() && unanswered.is_empty();
    let state = if good { TrustState::Trusted } else { TrustState::NotTrusted };
    Trust {
        found: count(FLAKY.len() - missed.len()),
        accused: count(accused.len()),
        missed,
        wronged: accused,
        unanswered,
        ..silent(state, Some(sweep), None)
    }
}

/// What is said of the farm before its control has ended, or when that cannot say anything.
pub fn silent(state: TrustState, sweep: Option<SweepId>, why: Option<String>) -> Trust {
    Trust {
        state,
        flaky: count(FLAKY.len()),
        found: 0,
        stable: count(STABLE.len()),
        accused: 0,
        missed: Vec::new(),
        wronged: Vec::new(),
        unanswered: Vec::new(),
        sweep: sweep.map(|sweep| sweep.to_string()),
        why,
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::of_verdicts;
    use std::collections::BTreeSet;

    #[test]
    fn what_begins_an_archive_and_what_follows_are_one() {
        let mut follows = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        follows.append_data(&mut header, "a.py", &b"1"[..]).unwrap();
        let follows = zstd::encode_all(follows.into_inner().unwrap().as_slice(), 3).unwrap();
        let both = [beginning().unwrap(), follows].concat();
        let tar = zstd::decode_all(both.as_slice()).unwrap();
        let mut archive = tar::Archive::new(tar.as_slice());
        let names: BTreeSet<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert!(names.contains("a.py") && names.contains("flakefarm_control/test_known.py"), "{names:?}");
        assert_eq!(beginning().unwrap(), beginning().unwrap());
    }

    #[test]
    fn every_known_test_is_there_once() {
        for name in FLAKY.iter().chain(&STABLE) {
            assert_eq!(TESTS.matches(&format!("def {name}(self)")).count(), 1, "{name}");
        }
        assert_eq!(TESTS.matches("def test_").count(), FLAKY.len() + STABLE.len());
    }

    /// What is said of a farm whose control gave the right answers but for these.
    fn judged(but: &[(&str, Option<Verdict>)]) -> Trust {
        let right = |name: &'static str| match name {
            name if FLAKY.contains(&name) => Verdict::Flaky,
            BROKEN => Verdict::Broken,
            _ => Verdict::Healthy,
        };
        let told: Vec<(String, Verdict)> = (FLAKY.into_iter().chain(STABLE))
            .filter_map(|name| {
                let other = but.iter().find(|(of, _)| *of == name).map(|(_, verdict)| *verdict);
                Some((format!("test_known.py::Known::{name}"), other.unwrap_or(Some(right(name)))?))
            })
            .collect();
        let told: Vec<(&str, Verdict)> = told.iter().map(|(id, verdict)| (id.as_str(), *verdict)).collect();
        judge(SweepId(Uuid::nil()), &of_verdicts(&told))
    }

    #[test]
    fn a_farm_is_trusted_only_if_every_known_answer_came_out() {
        let all = judged(&[]);
        assert_eq!((all.state, all.found, all.accused), (TrustState::Trusted, 4, 0), "{all:?}");

        let missed = judged(&[("test_02_flakes_third", Some(Verdict::Healthy))]);
        assert_eq!((missed.state, missed.found, missed.accused), (TrustState::NotTrusted, 3, 0));
        assert_eq!(missed.missed, ["test_02_flakes_third"]);

        // A test that always fails is not flaky, and one that never does is not either.
        for name in ["test_12_always_fails", "test_15_waits"] {
            let wronged = judged(&[(name, Some(Verdict::Flaky))]);
            assert_eq!((wronged.state, wronged.found, wronged.accused), (TrustState::NotTrusted, 4, 1));
            assert_eq!(wronged.wronged, [name]);
        }

        // What was not answered accuses nobody, but proves nothing either.
        for nothing in [None, Some(Verdict::Inconclusive)] {
            let silent = judged(&[("test_11_passes", nothing)]);
            assert_eq!((silent.state, silent.accused), (TrustState::NotTrusted, 0));
            assert_eq!(silent.unanswered, ["test_11_passes"]);
        }
        assert_eq!(judged(&[("test_04_ends_its_process", None)]).missed, ["test_04_ends_its_process"]);
    }
}
