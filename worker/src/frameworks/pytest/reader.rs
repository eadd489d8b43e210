//! Reads the events of one attempt as they come, and concludes once the sandbox has ended. Clocks
//! are passed in by the supervisor, which enforces the deadlines.

use super::ending::{Evidence, charged, decide};
use crate::frameworks::events::{self, EndEvent, EndOutcome, Event, Mode};
use flakefarm_shared::attempt::CollectionError;
use flakefarm_shared::signature::signature;
use flakefarm_shared::{
    AttemptEnd, Failure, FailureKind, Outcome, Phase, PhaseTimes, Sample, StateChange, TestId, TestParts,
    TestSource,
};
use std::collections::HashSet;
use std::time::{Duration, Instant};

const MESSAGE_LIMIT: usize = 2_000;

/// How the sandbox ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitSeen {
    /// Its exit code; 128 + n for signal n.
    pub exit_code: i64,
    /// Whether it, or a child in it, ran into its memory limit.
    pub oom: bool,
    /// The limit it was ended at, if it was.
    pub timed_out: Option<Duration>,
}

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
    /// `pytest 9.2.0, CPython 3.11.2`; empty if it did not come to that.
    pub framework_version: String,
    /// The collected tests, in the order they were to run.
    pub tests: Vec<TestId>,
    /// What the ids of `tests` are made of, in their order; empty if that was not told of all.
    pub parts: Vec<TestParts>,
    /// Selected tests that the framework did not collect.
    pub missing: Vec<TestId>,
    /// What the sources say of `tests`, in their order; empty if nothing was said of all.
    pub sources: Vec<TestSource>,
    /// Lines on the results channel that were no events.
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

#[derive(Debug)]
struct Running {
    test: TestId,
    position: u32,
    started: Instant,
}

/// Reads the events of one attempt as they come.
#[derive(Debug, Default)]
pub struct AttemptReader {
    expected: Option<HashSet<TestId>>,
    version: String,
    listing: bool,
    /// Parts of what was collected, until the last has come.
    collecting: Vec<TestId>,
    tests: Option<Vec<TestId>>,
    missing: Vec<TestId>,
    parts: Vec<TestParts>,
    sources: Vec<TestSource>,
    collection_errors: Vec<CollectionError>,
    running: Option<Running>,
    ended: HashSet<TestId>,
    samples: Vec<ReadSample>,
    details: Vec<ReadDetail>,
    finished: Option<i64>,
    no_framework: Option<String>,
    unavailable: Option<String>,
    last_event: Option<Instant>,
    garbage: u64,
}

impl AttemptReader {
    /// A reader of an attempt that was asked for these tests, or for everything. A result of a test
    /// that was not asked for is dropped as garbage.
    pub fn new(expected: Option<&[TestId]>) -> Self {
        Self { expected: expected.map(|tests| tests.iter().cloned().collect()), ..Self::default() }
    }

    /// Takes one line of the results channel, read at `now`.
    pub fn feed(&mut self, line: &[u8], now: Instant) {
        let Some(event) = events::parse(line) else {
            self.garbage += u64::from(!line.iter().all(u8::is_ascii_whitespace));
            return;
        };
        self.last_event = Some(now);
        match event {
            Event::Session { framework, python, mode } => {
                self.version = format!("{framework}, {python}");
                self.listing = mode == Mode::List;
            }
            Event::NoFramework { message } => self.no_framework = Some(message),
            Event::Unavailable { message } => self.unavailable = Some(message),
            Event::CollectError { path, message } => {
                // A file that two collectors want (module and doctests) fails twice.
                if !self.collection_errors.iter().any(|known| known.path == path) {
                    self.collection_errors.push(CollectionError { path, message });
                }
            }
            Event::Missing { tests } => self.missing.extend(tests),
            Event::Collected { tests, more } => {
                self.collecting.extend(tests);
                if !more {
                    self.tests = Some(std::mem::take(&mut self.collecting));
                }
            }
            Event::Parts { tests } => self.parts.extend(tests),
            Event::Sources { tests } => self.sources.extend(tests),
            Event::Start { test, i } => self.running = Some(Running { test, position: i, started: now }),
            Event::End(end) => self.test_ended(end),
            Event::Finish { exit } => self.finished = Some(exit),
        }
    }

    fn test_ended(&mut self, mut end: EndEvent) {
        if self.running.as_ref().is_some_and(|running| running.test == end.test) {
            self.running = None;
        }
        let wanted = self.expected.as_ref().is_none_or(|expected| expected.contains(&end.test));
        if !wanted || !self.ended.insert(end.test.clone()) {
            self.garbage += 1;
            return;
        }
        if let Some(output) = end.captured.take() {
            let changes = std::mem::take(&mut end.changes);
            self.details.push(ReadDetail { test: end.test.clone(), output, changes });
        }
        self.samples.push(sample_of(end));
    }

    /// The test that runs now, and since when.
    pub fn running(&self) -> Option<(&TestId, Instant)> {
        self.running.as_ref().map(|running| (&running.test, running.started))
    }

    /// Since when the test that runs now has been running.
    pub fn test_started_at(&self) -> Option<Instant> {
        self.running.as_ref().map(|running| running.started)
    }

    /// When the last event came: outside tests, progress is an event.
    pub fn last_event_at(&self) -> Option<Instant> {
        self.last_event
    }

    /// Whether the framework has reported its own end. What follows (threads, exit handlers) says
    /// nothing about a test.
    pub fn has_finished(&self) -> bool {
        self.finished.is_some()
    }

    /// The reading, once the sandbox has ended; `stderr` is what it wrote beside its results.
    pub fn conclude(self, exit: ExitSeen, stderr: &str) -> AttemptReading {
        self.conclude_at(exit, stderr, Instant::now())
    }

    /// The reading of an attempt that was not made, because its world cannot be given.
    pub(crate) fn conclude_not_given(mut self, why: String) -> AttemptReading {
        self.unavailable = Some(why);
        self.conclude(ExitSeen { exit_code: 0, oom: false, timed_out: None }, "")
    }

    fn conclude_at(mut self, exit: ExitSeen, stderr: &str, now: Instant) -> AttemptReading {
        let running = self.running.take();
        let evidence = Evidence {
            listing: self.listing,
            finished: self.finished,
            running: running
                .as_ref()
                .map(|running| (&running.test, now.saturating_duration_since(running.started))),
            samples: self.samples.len(),
            collected: self.tests.as_ref().map(Vec::len),
            missing: self.missing.len(),
            collection_errors: self.collection_errors.len(),
            no_framework: self.no_framework.as_deref(),
            unavailable: self.unavailable.as_deref(),
        };
        let end = decide(&evidence, exit, stderr);
        if let (AttemptEnd::Interrupted { by, .. }, Some(running)) = (&end, &running) {
            let wall = now.saturating_duration_since(running.started);
            let sample = charged(&running.test, running.position, by, wall, exit);
            self.samples.push(ReadSample { sample, output: (!stderr.is_empty()).then(|| stderr.to_owned()) });
        }
        let tests = self.tests.unwrap_or_default();
        let parts = if self.parts.len() == tests.len() { self.parts } else { Vec::new() };
        let sources = if self.sources.len() == tests.len() { self.sources } else { Vec::new() };
        AttemptReading {
            end,
            samples: self.samples,
            details: self.details,
            collection_errors: self.collection_errors,
            framework_version: self.version,
            tests,
            parts,
            missing: self.missing,
            sources,
            garbage_lines: self.garbage,
        }
    }
}

fn sample_of(end: EndEvent) -> ReadSample {
    let (outcome, output) = match end.outcome {
        EndOutcome::Pass => (Outcome::Pass, None),
        EndOutcome::Skip => (Outcome::Skip { reason: end.reason }, None),
        EndOutcome::Fail => {
            let kind = end.kind.map_or(FailureKind::Exception, FailureKind::from);
            let phase = end.phase.unwrap_or(Phase::Call);
            let failure = Failure {
                signature: signature(&kind, phase, &end.exceptions, &end.frames, &end.message),
                kind,
                phase,
                exceptions: end.exceptions,
                message: end.message.chars().take(MESSAGE_LIMIT).collect(),
                frames: end.frames,
            };
            (Outcome::Fail(failure), end.output)
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
        position: end.i,
        output: None,
        warnings: end.warnings,
    };
    ReadSample { sample, output }
}

#[cfg(test)]
mod tests;
