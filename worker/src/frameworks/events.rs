//! What the plugin inside an attempt writes, one JSON object per line. Tests run beside it, so a
//! line is never trusted to be whole or ours: whatever is not an event is counted and dropped.

use flakefarm_shared::outcome::Frame;
use flakefarm_shared::{
    Circumstance, ExpectedFailure, FailureKind, Phase, StateChange, TestId, TestParts, TestSource,
};
use serde::Deserialize;

/// One event. Unknown fields are ignored, so that a newer plugin may say more.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "e", rename_all = "snake_case")]
pub enum Event {
    /// The framework started.
    Session {
        /// `pytest 9.2.0`.
        framework: String,
        /// `CPython 3.11.2`.
        python: String,
        /// Whether it lists or runs.
        mode: Mode,
    },
    /// There is no framework in the image.
    NoFramework {
        /// Why it could not be imported.
        message: String,
    },
    /// The world that was asked for cannot be given.
    Unavailable {
        /// Why.
        message: String,
    },
    /// A file could not be collected.
    CollectError {
        /// The file.
        path: String,
        /// The error's last lines.
        message: String,
    },
    /// A file was skipped as a whole.
    CollectSkip {
        /// The file.
        path: String,
        /// Why.
        message: String,
    },
    /// Groups of collected tests that have one id, told apart by a number.
    Twins {
        /// The ids of each, in the order of collection.
        groups: Vec<Vec<TestId>>,
    },
    /// A selected id that stands for several tests: those of a function whose parameters change.
    Meant {
        /// What was selected.
        by: TestId,
        /// What it stands for, or a part of it.
        tests: Vec<TestId>,
    },
    /// Selected tests that were not found, or a part of them.
    Missing {
        /// Which.
        tests: Vec<TestId>,
    },
    /// Collection is over.
    Collected {
        /// The tests in the order they will run, or a part of them.
        tests: Vec<TestId>,
        /// Whether another part follows.
        #[serde(default)]
        more: bool,
        /// Whether that is another order than was asked for.
        #[serde(default)]
        reordered: bool,
    },
    /// What the ids of the collected tests are made of, in their order, or a part of it; only when listing.
    Parts {
        /// One per test.
        tests: Vec<TestParts>,
    },
    /// Directories that modules are named from, beside the root; only when listing.
    Path {
        /// Below the root.
        directories: Vec<String>,
    },
    /// What the sources say of the tests, in the order of collection, or a part of it; only when
    /// listing.
    Sources {
        /// One per test.
        tests: Vec<TestSource>,
    },
    /// A test starts.
    Start {
        /// Which.
        test: TestId,
        /// Its place in the order, from 0.
        i: u32,
    },
    /// Something of the project's own ends the test that runs now, or the process, after this time.
    Limit {
        /// What.
        by: String,
        /// The limit in milliseconds.
        ms: u64,
    },
    /// A test is through set-up, call and tear-down.
    End(Box<EndEvent>),
    /// The framework ran to its end.
    Finish {
        /// Its exit code.
        exit: i64,
    },
}

/// What the plugin was asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Collect only.
    List,
    /// Collect and run.
    Run,
}

/// What one test did.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct EndEvent {
    /// Which.
    pub test: TestId,
    /// Its place in the order, from 0.
    pub i: u32,
    /// Pass, fail or skip.
    pub outcome: EndOutcome,
    /// Wall-clock time in microseconds.
    pub wall_us: u64,
    /// CPU time in microseconds.
    pub cpu_us: u64,
    /// Wall-clock time of set-up, call and tear-down, in microseconds.
    pub phases_us: Option<[u64; 3]>,
    /// Distinct warnings.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Of a failure: the phase.
    pub phase: Option<Phase>,
    /// Of a failure: its kind.
    pub kind: Option<EndKind>,
    /// Of a failure: exception types, outermost first.
    #[serde(default)]
    pub exceptions: Vec<String>,
    /// Of a failure: the message.
    #[serde(default)]
    pub message: String,
    /// Of a failure: frames within the project.
    #[serde(default)]
    pub frames: Vec<Frame>,
    /// Of a skip: the reason.
    #[serde(default)]
    pub reason: String,
    /// Of a failure: what it printed.
    pub output: Option<String>,
    /// What the test printed, if state is watched.
    pub captured: Option<String>,
    /// What it changed, if state is watched.
    #[serde(default)]
    pub changes: Vec<StateChange>,
    /// Of a failure: where it arose.
    #[serde(default)]
    pub circumstances: Vec<Circumstance>,
    /// Fixtures that other tests share whose tear-down failed after it.
    #[serde(default)]
    pub torn_down: Vec<TornDown>,
    /// Of a failure of kind `timeout`: the limit in milliseconds.
    #[serde(default)]
    pub limit_ms: u64,
    /// Of a test that is marked as an expected failure, and ran: what it did.
    pub expected: Option<ExpectedFailure>,
    /// Whether the framework's session ends with it, whatever was to follow.
    #[serde(default)]
    pub last: bool,
}

/// The failing tear-down of a fixture that several tests share.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TornDown {
    /// The fixture.
    pub name: String,
    /// Its scope.
    pub scope: String,
    /// The class it is of, or the file it is defined in.
    pub home: String,
    /// How it failed.
    pub kind: EndKind,
    /// Exception types, outermost first.
    pub exceptions: Vec<String>,
    /// The message.
    pub message: String,
    /// Frames within the project.
    pub frames: Vec<Frame>,
}

/// The outcome as the framework sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndOutcome {
    /// Passed.
    Pass,
    /// Failed.
    Fail,
    /// Skipped.
    Skip,
}

/// The kinds of failure that a framework can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndKind {
    /// An assertion did not hold.
    Assertion,
    /// Another exception.
    Exception,
    /// The framework itself said so.
    Framework,
    /// Something of the project's own ended it after a time.
    Timeout,
}

impl EndKind {
    pub(super) fn failure_kind(self, limit_ms: u64) -> FailureKind {
        match self {
            EndKind::Assertion => FailureKind::Assertion,
            EndKind::Exception => FailureKind::Exception,
            EndKind::Framework => FailureKind::Framework,
            EndKind::Timeout => FailureKind::Timeout { limit_ms },
        }
    }
}

impl EndEvent {
    /// How it failed, if it did.
    pub fn failure_kind(&self) -> FailureKind {
        self.kind.unwrap_or(EndKind::Exception).failure_kind(self.limit_ms)
    }
}

/// Reads one line. `None` for anything that is not an event, an event of a later version included.
pub fn parse(line: &[u8]) -> Option<Event> {
    serde_json::from_slice(line).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_not_an_event_is_refused_without_a_panic() {
        for line in [
            "",
            "not json",
            "{}",
            "[]",
            "null",
            r#"{"e":"later"}"#,
            r#"{"e":"start"}"#,
            r#"{"e":"start","test":1,"i":0}"#,
            r#"{"e":"start","test":"a","i":-1}"#,
            r#"{"e":"start","test":"\ud800","i":1}"#,
        ] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
        assert_eq!(parse(b"\xff\xfe{\"e\":\"finish\",\"exit\":0}"), None);
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let event = parse(br#"{"e":"finish","exit":1,"mood":"fine"}"#);
        assert_eq!(event, Some(Event::Finish { exit: 1 }));
    }
}
