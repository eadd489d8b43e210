//! What one attempt said of one test. The full space of endings is spelled out: "the test failed"
//! and "we could not run it" are different types (see [`crate::attempt`] for the second).

use crate::ids::{Digest, TestId};
use serde::{Deserialize, Serialize};

/// What one attempt said of one test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// The test.
    pub test: TestId,
    /// What it did.
    pub outcome: Outcome,
    /// Wall-clock time of set-up, call and tear-down together, in microseconds.
    pub wall_us: u64,
    /// CPU time of the same, children included, in microseconds.
    pub cpu_us: u64,
    /// Wall-clock time of each phase; `None` where the framework tells only the whole, and of a test
    /// that ended the attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phases: Option<PhaseTimes>,
    /// Its place in the attempt's order, from 0.
    pub position: u32,
    /// Captured output of a failing test, as a blob (UTF-8, bounded, head and tail kept).
    pub output: Option<Digest>,
    /// Distinct warnings the test raised, as `Category: text`, at most eight.
    pub warnings: Vec<String>,
    /// Of a test that is marked as an expected failure, and ran: what it did. Whether that counts as a pass is
    /// the framework's to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_failure: Option<ExpectedFailure>,
}

impl Sample {
    /// Takes up what was said of another test that counts as the same: it fails if one of them does, and is
    /// skipped if all are. Durations add up.
    pub fn absorb(&mut self, other: Sample) {
        let rank = |outcome: &Outcome| match outcome {
            Outcome::Skip { .. } => 0,
            Outcome::Pass => 1,
            Outcome::Fail(_) => 2,
        };
        self.wall_us = self.wall_us.saturating_add(other.wall_us);
        self.cpu_us = self.cpu_us.saturating_add(other.cpu_us);
        self.phases = self.phases.zip(other.phases).map(|(one, more)| PhaseTimes {
            setup_us: one.setup_us.saturating_add(more.setup_us),
            call_us: one.call_us.saturating_add(more.call_us),
            teardown_us: one.teardown_us.saturating_add(more.teardown_us),
        });
        self.position = self.position.min(other.position);
        if rank(&other.outcome) > rank(&self.outcome) {
            self.outcome = other.outcome;
            self.output = other.output;
            self.expected_failure = other.expected_failure;
        }
    }
}

/// What a test did of which a failure is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpectedFailure {
    /// It failed, as expected.
    Failed,
    /// It passed all the same.
    Passed,
}

/// Wall-clock time of the phases of one test, in microseconds; 0 for a phase that did not run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseTimes {
    /// Fixtures before the test.
    pub setup_us: u64,
    /// The test itself.
    pub call_us: u64,
    /// Fixtures after the test.
    pub teardown_us: u64,
}

/// What a test did. An infrastructure error is never an outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It passed (an expected failure that failed as expected included).
    Pass,
    /// It failed.
    Fail(Failure),
    /// The framework skipped it.
    Skip {
        /// The framework's reason.
        reason: String,
    },
}

impl Outcome {
    /// Whether this is a failure.
    pub fn is_failure(&self) -> bool {
        match self {
            Outcome::Fail(_) => true,
            Outcome::Pass | Outcome::Skip { .. } => false,
        }
    }
}

/// One failure, structured by the plugin inside the attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Failure {
    /// How it failed.
    pub kind: FailureKind,
    /// During which phase.
    pub phase: Phase,
    /// The last exception's type and its causes, outermost first (`builtins.AssertionError`).
    pub exceptions: Vec<String>,
    /// The message, first 2,000 characters.
    pub message: String,
    /// Frames within the project, outermost first.
    pub frames: Vec<Frame>,
    /// Equal for failures that look alike: sixteen hexadecimal digits over kind, phase, exception
    /// types, frames and the message with its numbers, addresses, times and paths masked.
    pub signature: String,
    /// Where it arose, as far as that is not the test's own body.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub circumstances: Vec<Circumstance>,
}

/// Where a failure arose, as far as that is not the test's own body.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Circumstance {
    /// A hook of the project or of a plugin raised, which is an internal error of the framework.
    Hook {
        /// The hook.
        name: String,
        /// The file it is in, below the project's root or among the installed packages.
        path: String,
    },
    /// The set-up or tear-down (see [`Failure::phase`]) of a fixture.
    Fixture {
        /// The fixture, or `teardown_class` and its like.
        name: String,
        /// `function`, or a wider one: then whichever test comes first or last has the failure.
        scope: String,
    },
    /// A part of the test with a name of its own.
    SubTest {
        /// Its message and parameters.
        name: String,
    },
    /// The test failed when it was repeated within one session, and passed again once fixtures of all scopes
    /// were torn down: one of these was spoilt, or what `setup_class` and its like had made.
    SecondPass {
        /// Its fixtures of a wider scope.
        fixtures: Vec<WideFixture>,
    },
    /// The test, or a program that it started, asked for a network that is not there.
    NoRoute {
        /// Packets and connections for which the kernel found no route while the test ran.
        packets: u32,
    },
    /// Something that a newer worker knows.
    #[serde(other)]
    Unknown,
}

/// A fixture that outlives a test.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WideFixture {
    /// Its name.
    pub name: String,
    /// `class`, `module`, `package`, `session`.
    pub scope: String,
}

/// How a test failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// An assertion did not hold.
    Assertion,
    /// Another exception.
    Exception,
    /// The framework itself said so (a strict expected failure that passed, say).
    Framework,
    /// It ran longer than the project allows one test.
    Timeout {
        /// The limit in milliseconds.
        limit_ms: u64,
    },
    /// The interpreter died under it.
    Crash {
        /// Exit code as the container reported it; 128 + n for signal n.
        exit_code: i64,
    },
    /// It, or a child of it, was ended for want of memory within the attempt's own limit.
    OutOfMemory,
}

impl FailureKind {
    /// The stable word used in reports.
    pub fn word(&self) -> &'static str {
        match self {
            FailureKind::Assertion => "assertion",
            FailureKind::Exception => "exception",
            FailureKind::Framework => "framework",
            FailureKind::Timeout { .. } => "timeout",
            FailureKind::Crash { .. } => "crash",
            FailureKind::OutOfMemory => "out_of_memory",
        }
    }
}

/// A phase of one test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Fixtures before the test.
    Setup,
    /// The test itself.
    Call,
    /// Fixtures after the test.
    Teardown,
}

impl Phase {
    /// The word used in every format.
    pub fn word(self) -> &'static str {
        match self {
            Phase::Setup => "setup",
            Phase::Call => "call",
            Phase::Teardown => "teardown",
        }
    }
}

/// A stack frame within the project.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Frame {
    /// Path below the project's root.
    pub path: String,
    /// Line, from 1.
    pub line: u32,
    /// Function.
    pub function: String,
}
