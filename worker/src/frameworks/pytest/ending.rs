//! How an attempt ended, decided from what is known of it: pure. The rule behind every case: never
//! accuse a test on ambiguous evidence, and never call an attempt clean that ran nothing.

use super::reader::ExitSeen;
use flakefarm_shared::signature::signature;
use flakefarm_shared::{
    AttemptEnd, Failure, FailureKind, InfraError, InfraStage, Outcome, Phase, Sample, TestId,
};
use std::time::Duration;

const REASON_LINES: usize = 20;

/// What is known at the end of an attempt, without the samples themselves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Evidence<'a> {
    pub(super) listing: bool,
    pub(super) finished: Option<i64>,
    pub(super) running: Option<(&'a TestId, Duration)>,
    pub(super) samples: usize,
    pub(super) collected: Option<usize>,
    pub(super) missing: usize,
    pub(super) collection_errors: usize,
    pub(super) no_framework: Option<&'a str>,
    pub(super) unavailable: Option<&'a str>,
}

/// How the attempt ended. A test is charged only if it was running when the interpreter died, and
/// with a time-out only if it alone took as long as the limit.
pub(super) fn decide(evidence: &Evidence<'_>, exit: ExitSeen, stderr: &str) -> AttemptEnd {
    let nothing = |what: &str| AttemptEnd::NothingRan { reason: reason(what, stderr) };
    let lost = |what: String| {
        AttemptEnd::Infrastructure(InfraError { stage: InfraStage::Sandbox, message: reason(&what, stderr) })
    };
    if let Some(message) = evidence.no_framework {
        return AttemptEnd::NothingRan {
            reason: format!("pytest cannot be imported in the environment: {message}"),
        };
    }
    if let Some(message) = evidence.unavailable {
        return AttemptEnd::NothingRan { reason: message.to_owned() };
    }
    if let Some(code) = evidence.finished {
        let useful = if evidence.listing { evidence.collected.unwrap_or(0) } else { evidence.samples };
        return if useful > 0 { AttemptEnd::Completed } else { nothing(&why_nothing(code, evidence)) };
    }
    let died = death(exit);
    if let Some((test, ran)) = evidence.running {
        let by = match exit.timed_out {
            Some(limit) if ran >= limit => FailureKind::Timeout { limit_ms: millis(limit) },
            Some(_) => {
                return lost(format!(
                    "the attempt {died} while `{test}` ran, which had not used it up alone"
                ));
            }
            None if exit.oom => FailureKind::OutOfMemory,
            None => FailureKind::Crash { exit_code: exit.exit_code },
        };
        return AttemptEnd::Interrupted { by, running: test.clone() };
    }
    if evidence.samples > 0 {
        // Every test has spoken: how the interpreter went away afterwards concerns none of them.
        if evidence.collected == Some(evidence.samples) {
            return AttemptEnd::Completed;
        }
        return lost(format!("the attempt {died} between two tests"));
    }
    let killed_by_others = exit.exit_code == 137 && !exit.oom && exit.timed_out.is_none();
    if killed_by_others {
        return lost("the attempt was killed from outside before a test ran".to_owned());
    }
    let during = if evidence.collected.is_some() { "before the first test" } else { "during collection" };
    nothing(&format!("the attempt {died} {during}"))
}

/// How the reason of a usage error begins.
pub(crate) const ARGUMENTS_REFUSED: &str = "pytest refused its arguments or configuration";

fn why_nothing(code: i64, evidence: &Evidence<'_>) -> String {
    match (code, evidence.collected) {
        (4, _) => ARGUMENTS_REFUSED.to_owned(),
        (3, _) => "pytest failed internally".to_owned(),
        (_, Some(0)) if evidence.missing > 0 => format!(
            "none of the selected tests was collected ({} missing, {} files with errors)",
            evidence.missing, evidence.collection_errors
        ),
        (_, Some(0) | None) if evidence.collection_errors > 0 => {
            format!("nothing was collected: {} files have errors", evidence.collection_errors)
        }
        (5, _) | (_, Some(0)) => "pytest collected no tests".to_owned(),
        (code, _) => format!("pytest ended with exit code {code} before a test ran"),
    }
}

/// `was ended at its limit of 60 s`, `ran out of memory`, `died with exit code 139 (SIGSEGV)`.
fn death(exit: ExitSeen) -> String {
    if let Some(limit) = exit.timed_out {
        return format!("was ended at its limit of {}", seconds(limit));
    }
    if exit.oom {
        return "ran out of memory".to_owned();
    }
    match signal_name(exit.exit_code) {
        Some(name) => format!("died with exit code {} ({name})", exit.exit_code),
        None => format!("died with exit code {}", exit.exit_code),
    }
}

fn signal_name(exit_code: i64) -> Option<&'static str> {
    Some(match exit_code {
        129 => "SIGHUP",
        130 => "SIGINT",
        131 => "SIGQUIT",
        132 => "SIGILL",
        134 => "SIGABRT",
        135 => "SIGBUS",
        136 => "SIGFPE",
        137 => "SIGKILL",
        139 => "SIGSEGV",
        141 => "SIGPIPE",
        142 => "SIGALRM",
        143 => "SIGTERM",
        _ => return None,
    })
}

fn seconds(limit: Duration) -> String {
    if limit.subsec_millis() == 0 {
        format!("{} s", limit.as_secs())
    } else {
        format!("{} ms", limit.as_millis())
    }
}

fn millis(limit: Duration) -> u64 {
    u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)
}

fn reason(what: &str, stderr: &str) -> String {
    let lines: Vec<&str> = stderr.trim_end().lines().collect();
    let last = &lines[lines.len().saturating_sub(REASON_LINES)..];
    if last.is_empty() { what.to_owned() } else { format!("{what}\n{}", last.join("\n")) }
}

/// The sample of the test that ended the attempt.
pub(super) fn charged(
    test: &TestId,
    position: u32,
    by: &FailureKind,
    wall: Duration,
    exit: ExitSeen,
) -> Sample {
    let message = match by {
        FailureKind::Timeout { limit_ms } => {
            format!("ran longer than its limit of {}", seconds(Duration::from_millis(*limit_ms)))
        }
        FailureKind::OutOfMemory => "ran out of memory within the attempt's limit".to_owned(),
        FailureKind::Crash { .. }
        | FailureKind::Assertion
        | FailureKind::Exception
        | FailureKind::Framework => {
            format!("the interpreter {} under this test", death(exit))
        }
    };
    let failure = Failure {
        signature: signature(by, Phase::Call, &[], &[], &message),
        kind: by.clone(),
        phase: Phase::Call,
        exceptions: Vec::new(),
        message,
        frames: Vec::new(),
    };
    Sample {
        test: test.clone(),
        outcome: Outcome::Fail(failure),
        wall_us: u64::try_from(wall.as_micros()).unwrap_or(u64::MAX),
        cpu_us: 0,
        phases: None,
        position,
        output: None,
        warnings: Vec::new(),
    }
}
