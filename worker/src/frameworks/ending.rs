//! How an attempt ended, decided from what is known of it: pure. The rule behind every case: never
//! accuse a test on ambiguous evidence, and never call an attempt clean that ran nothing.

use flakefarm_shared::signature::signature;
use flakefarm_shared::{
    AttemptEnd, Failure, FailureKind, InfraError, InfraStage, NothingRan, Outcome, Phase, Remark, Sample,
    TestId,
};
use std::time::Duration;

const REASON_LINES: usize = 20;
/// How a plugin ends the process of a test that has closed the results channel.
const CHANNEL_CLOSED: i64 = 98;
/// A test that something of the project's own ended is late by no less than this share of the limit.
const LATE: f64 = 0.9;

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

/// What of the project's own would end a test, and after how long.
type OwnLimit<'a> = Option<&'a (String, Duration)>;

/// What is known at the end of an attempt, without the samples themselves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Evidence<'a> {
    pub(super) framework: &'static str,
    pub(super) listing: bool,
    pub(super) finished: Option<i64>,
    /// The test under which the framework's session broke off, and how that test failed.
    pub(super) ended_session: Option<&'a (TestId, FailureKind)>,
    /// What ran, for how long, and what of the project's own would end it after how long.
    pub(super) running: Option<(&'a TestId, Duration, OwnLimit<'a>)>,
    pub(super) samples: usize,
    pub(super) collected: Option<usize>,
    pub(super) missing: usize,
    pub(super) collection_errors: usize,
    pub(super) no_framework: Option<&'a str>,
    pub(super) unavailable: Option<&'a str>,
}

/// How the attempt ended. A test is charged only if it was running when the interpreter died or the framework
/// ended, and with a time-out only if it alone took as long as the limit.
pub(super) fn decide(evidence: &Evidence<'_>, exit: ExitSeen, stderr: &str) -> AttemptEnd {
    let nothing = |what: &str, why| AttemptEnd::NothingRan { reason: reason(what, stderr), why };
    let lost = |what: String| {
        AttemptEnd::Infrastructure(InfraError { stage: InfraStage::Sandbox, message: reason(&what, stderr) })
    };
    if let Some(message) = evidence.no_framework {
        return AttemptEnd::NothingRan {
            reason: format!("{} cannot be imported in the environment: {message}", evidence.framework),
            why: NothingRan::NoFramework,
        };
    }
    if let Some(message) = evidence.unavailable {
        return AttemptEnd::NothingRan { reason: message.to_owned(), why: NothingRan::Unavailable };
    }
    if let Some((test, by)) = evidence.ended_session {
        return AttemptEnd::Interrupted { by: by.clone(), running: test.clone() };
    }
    if evidence.finished.is_some()
        && let Some((test, ..)) = evidence.running
    {
        return AttemptEnd::Interrupted { by: FailureKind::Framework, running: test.clone() };
    }
    if let Some(code) = evidence.finished {
        let useful = if evidence.listing { evidence.collected.unwrap_or(0) } else { evidence.samples };
        if useful > 0 {
            return AttemptEnd::Completed;
        }
        let (what, why) = why_nothing(code, evidence);
        return nothing(&what, why);
    }
    let died = death(exit);
    if let Some((test, ran, own_limit)) = evidence.running {
        let by = match exit.timed_out {
            Some(limit) if ran >= limit => FailureKind::Timeout { limit_ms: millis(limit) },
            Some(_) => {
                return lost(format!(
                    "the attempt {died} while `{test}` ran, which had not used it up alone"
                ));
            }
            None if exit.oom => FailureKind::OutOfMemory,
            None => match own_limit {
                Some((_, limit)) if exit.exit_code == 1 && ran >= limit.mul_f64(LATE) => {
                    FailureKind::Timeout { limit_ms: millis(*limit) }
                }
                Some(_) | None if exit.exit_code == CHANNEL_CLOSED => FailureKind::Framework,
                Some(_) | None => FailureKind::Crash { exit_code: exit.exit_code },
            },
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
    nothing(&format!("the attempt {died} {during}"), NothingRan::Died)
}

/// What is to be said of a framework that did not end as after tests that passed or failed; nothing where the
/// end of the attempt says it.
pub(super) fn abnormal(evidence: &Evidence<'_>, failed: bool, stderr: &str) -> Option<Remark> {
    let exit_code = evidence.finished?;
    let broken = failed || evidence.collection_errors > 0;
    let ordinary = exit_code == 0 || (exit_code == 1 && broken);
    let said =
        ordinary || evidence.ended_session.is_some() || evidence.running.is_some() || evidence.samples == 0;
    (!said).then(|| Remark::AbnormalEnd { exit_code, text: last_lines(stderr) })
}

/// Exit codes of pytest, which other frameworks have in common with it or do not use.
fn why_nothing(code: i64, evidence: &Evidence<'_>) -> (String, NothingRan) {
    let name = evidence.framework;
    match (code, evidence.collected) {
        (4, _) => (format!("{name} refused its arguments or configuration"), NothingRan::Refused),
        (_, Some(0)) if evidence.missing > 0 => {
            let what = format!(
                "none of the selected tests was collected ({} missing, {} files with errors)",
                evidence.missing, evidence.collection_errors
            );
            (what, NothingRan::NothingCollected)
        }
        (_, Some(0) | None) if evidence.collection_errors > 0 => {
            let what = format!("nothing was collected: {} files have errors", evidence.collection_errors);
            (what, NothingRan::NothingCollected)
        }
        (3, _) => (format!("{name} failed internally"), NothingRan::Died),
        (5, _) | (_, Some(0)) => (format!("{name} collected no tests"), NothingRan::NothingCollected),
        (code, _) => (format!("{name} ended with exit code {code} before a test ran"), NothingRan::Died),
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
    let said = last_lines(stderr);
    if said.is_empty() { what.to_owned() } else { format!("{what}\n{said}") }
}

fn last_lines(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().filter(|line| says_something(line)).collect();
    lines[lines.len().saturating_sub(REASON_LINES)..].join("\n")
}

/// Whether a line is more than a framework's dots (`..F.s [ 60%]`).
fn says_something(line: &str) -> bool {
    let percentage = line.trim_end().strip_suffix("%]").and_then(|rest| rest.rsplit_once('['));
    let dots = percentage.map_or(line, |(dots, _)| dots);
    !dots.chars().all(|character| ".FEPRsxXu ".contains(character))
}

/// The sample of the test that ended the attempt. `own` is what of the project's own watches over its time.
pub(super) fn charged(
    (test, position): (&TestId, u32),
    by: &FailureKind,
    own: Option<&str>,
    wall: Duration,
    exit: ExitSeen,
    (framework, finished): (&str, Option<i64>),
) -> Sample {
    let message = match by {
        FailureKind::Timeout { limit_ms } => {
            let limit = seconds(Duration::from_millis(*limit_ms));
            match own.filter(|_| exit.timed_out.is_none()) {
                Some(own) => format!("ran longer than {limit}, the limit of {own}, which ended the interpreter"),
                None => format!("ran longer than its limit of {limit}"),
            }
        }
        FailureKind::OutOfMemory => "ran out of memory within the attempt's limit".to_owned(),
        FailureKind::Framework => match finished {
            Some(code) => format!("{framework} itself ended under this test, with exit code {code}"),
            None => "the test closed file descriptors that it had not opened, among them the one that results are \
                     written to"
                .to_owned(),
        },
        FailureKind::Crash { .. } | FailureKind::Assertion | FailureKind::Exception => {
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
        circumstances: Vec::new(),
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
        expected_failure: None,
    }
}

#[cfg(test)]
mod tests {
    use super::last_lines;

    #[test]
    fn a_frameworks_dots_are_no_reason() {
        let told = "..F.s [ 60%]\n\nRuntimeError: cannot write coverage\n\n.\n  \n1 passed in 0.01s\n";
        assert_eq!(last_lines(told), "RuntimeError: cannot write coverage\n1 passed in 0.01s");
        assert_eq!(last_lines("100\n[100%]\n"), "100", "digits may be all that is said");
        assert_eq!(last_lines(""), "");
    }
}
