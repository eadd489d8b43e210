//! What the events of an attempt amount to, as plain data.

use crate::frameworks::bounds;
use crate::frameworks::events::{EndEvent, EndOutcome, TornDown};
use flakefarm_shared::attempt::CollectionError;
use flakefarm_shared::signature::signature;
use flakefarm_shared::{
    AttemptEnd, Failure, Outcome, Phase, PhaseTimes, Remark, Sample, StateChange, TestId, TestParts,
    TestSource,
};
use std::collections::HashMap;

/// What the events of one attempt amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptReading {
    /// How the attempt ended.
    pub end: AttemptEnd,
    /// What it said of each test, in the order they ended.
    pub samples: Vec<ReadSample>,
    /// What tests printed and changed, if that was asked for.
    pub details: Vec<ReadDetail>,
    /// Files that could not be collected.
    pub collection_errors: Vec<CollectionError>,
    /// Files that were skipped as a whole.
    pub skipped_files: Vec<CollectionError>,
    /// What concerns no single test.
    pub remarks: Vec<Remark>,
    /// `pytest 9.2.0, CPython 3.11.2`; empty if it did not come to that.
    pub framework_version: String,
    /// Directories below the root that modules are named from, beside the root itself.
    pub path: Vec<String>,
    /// The collected tests, in the order they were to run.
    pub tests: Vec<TestId>,
    /// What the ids of `tests` are made of, in their order; empty if that was not told of all.
    pub parts: Vec<TestParts>,
    /// Selected tests that the framework did not collect.
    pub missing: Vec<TestId>,
    /// What the sources say of `tests`, in their order; empty if nothing was said of all.
    pub sources: Vec<TestSource>,
    /// Lines on the results channel that were no events, and events of tests that were not asked for.
    pub garbage_lines: u64,
}

/// A sample whose output is not stored yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadSample {
    /// The sample, with `output: None`.
    pub sample: Sample,
    /// The output of a failing test.
    pub output: Option<String>,
}

/// What a test printed and changed; its output is not stored yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadDetail {
    /// The test.
    pub test: TestId,
    /// What it printed.
    pub output: String,
    /// What it changed.
    pub changes: Vec<StateChange>,
}

/// What was said of tests so far.
#[derive(Debug, Default)]
pub(super) struct Telling {
    pub(super) samples: Vec<ReadSample>,
    pub(super) details: Vec<ReadDetail>,
    pub(super) tear_downs: Vec<Remark>,
    output_bytes: usize,
}

impl Telling {
    /// Takes what one test said, cut to its bounds.
    pub(super) fn take(&mut self, mut end: EndEvent, position: u32) {
        if let Some(output) = end.captured.take() {
            let changes = std::mem::take(&mut end.changes);
            self.output_bytes += output.len();
            let output = if self.has_room() { output } else { String::new() };
            self.details.push(ReadDetail { test: end.test.clone(), output, changes });
        }
        if let Some(output) = &end.output {
            self.output_bytes += output.len();
            if !self.has_room() {
                end.output = Some("[left out: the attempt's tests printed too much]".to_owned());
            }
        }
        let room = bounds::TEAR_DOWNS.saturating_sub(self.tear_downs.len());
        let torn_down = std::mem::take(&mut end.torn_down).into_iter().take(room);
        self.tear_downs.extend(torn_down.map(|fixture| tear_down(fixture, &end.test)));
        self.samples.push(sample_of(end, position));
    }

    fn has_room(&self) -> bool {
        self.output_bytes <= bounds::OUTPUT_BYTES
    }
}

fn tear_down(fixture: TornDown, last: &TestId) -> Remark {
    let TornDown { name, scope, home, kind, exceptions, message, frames } = fixture;
    let (kind, phase) = (kind.failure_kind(0), Phase::Teardown);
    Remark::TearDown {
        fixture: name,
        scope,
        home,
        last: last.clone(),
        failure: Failure {
            signature: signature(&kind, phase, &exceptions, &frames, &message),
            kind,
            phase,
            exceptions,
            message,
            frames,
            circumstances: Vec::new(),
        },
    }
}

fn sample_of(mut end: EndEvent, position: u32) -> ReadSample {
    let kind = end.failure_kind();
    let (outcome, output) = match end.outcome {
        EndOutcome::Pass => (Outcome::Pass, None),
        EndOutcome::Skip => (Outcome::Skip { reason: end.reason }, None),
        EndOutcome::Fail => {
            let phase = end.phase.unwrap_or(Phase::Call);
            let failure = Failure {
                signature: signature(&kind, phase, &end.exceptions, &end.frames, &end.message),
                kind,
                phase,
                exceptions: end.exceptions,
                message: end.message,
                frames: end.frames,
                circumstances: end.circumstances,
            };
            (Outcome::Fail(failure), end.output.take())
        }
    };
    let sample = Sample {
        test: end.test,
        outcome,
        wall_us: end.wall_us,
        cpu_us: end.cpu_us,
        phases: end.phases_us.map(|[setup_us, call_us, teardown_us]| PhaseTimes {
            setup_us,
            call_us,
            teardown_us,
        }),
        position,
        output: None,
        warnings: end.warnings,
        expected_failure: end.expected,
    };
    ReadSample { sample, output }
}

/// Tests with one id: which of them is the second may change, so that the first is whichever fared best.
pub(super) fn sorted_twins(samples: &mut [ReadSample], groups: &[Vec<TestId>]) {
    let place: HashMap<TestId, usize> =
        samples.iter().enumerate().map(|(place, read)| (read.sample.test.clone(), place)).collect();
    for group in groups {
        let places: Vec<usize> = group.iter().filter_map(|test| place.get(test).copied()).collect();
        let mut told: Vec<ReadSample> = places.iter().map(|place| samples[*place].clone()).collect();
        told.sort_by_key(|read| match read.sample.outcome {
            Outcome::Pass => 0,
            Outcome::Skip { .. } => 1,
            Outcome::Fail(_) => 2,
        });
        for (slot, mut read) in places.into_iter().zip(told) {
            read.sample.test = samples[slot].sample.test.clone();
            samples[slot] = read;
        }
    }
}

/// Samples of several tests that were asked for as one become one: it fails if one of them does.
pub(super) fn merged(samples: Vec<ReadSample>, meant: &HashMap<TestId, TestId>) -> Vec<ReadSample> {
    if meant.is_empty() {
        return samples;
    }
    let mut whole: Vec<ReadSample> = Vec::new();
    let mut places: HashMap<TestId, usize> = HashMap::new();
    for mut read in samples {
        let Some(by) = meant.get(&read.sample.test) else {
            whole.push(read);
            continue;
        };
        read.sample.test = by.clone();
        match places.get(by) {
            None => {
                places.insert(by.clone(), whole.len());
                whole.push(read);
            }
            Some(place) => {
                let known = &mut whole[*place];
                if read.sample.outcome.is_failure() && !known.sample.outcome.is_failure() {
                    known.output = read.output.take();
                }
                known.sample.absorb(read.sample);
            }
        }
    }
    whole
}
