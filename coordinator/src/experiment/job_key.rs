//! Names of a sweep's jobs: what each is for, as data. Text is for stores and people only, and says the
//! same: what was written by an earlier version reads back to the same key.

use flakefarm_shared::{JobId, SweepId};
use std::fmt;
use std::str::FromStr;

/// The name of a job, unique within its sweep. Planning the same step twice gives the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobKey {
    /// The step of a plan it belongs to.
    pub phase: JobPhase,
    /// Which of the arms (tests, revisions, slots) that the phase tells apart; none where it does not.
    pub arm: Option<u32>,
    /// Its place among the jobs of that phase and arm; in a series, of its first attempt among the slots.
    pub number: u32,
}

/// A step of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum JobPhase {
    /// Listing the tests.
    List,
    /// Attempts on many tests that fill the slots of a series.
    Slots(Series),
    /// What is missing of a slot, tried again; the arm is the slot.
    Retry(Series),
    /// Tests alone that did something in another world.
    Look,
    /// Tests alone.
    Alone,
    /// Tests alone although nothing speaks against them.
    Screen,
    /// Files of tests that fail.
    WithFile,
    /// Tests that only failed, without the others.
    Apart,
    /// Further attempts on many tests.
    More,
    /// Shuffles again in which tests failed; the arm is the slot, if it had one.
    Repeat,
    /// What failed only in prepared interpreters, again in fresh containers.
    Confirm,
    /// The diagnosis of one test; the arm is its place in the listing.
    DiagnoseTest,
    /// Attempts on the suite that serve the diagnosis of all tests.
    DiagnoseSuite,
    /// One revision; the arm is its place among those that are asked.
    Bisect,
    /// One test without a patch (even arms) or with it (odd ones).
    ValidateTest,
    /// Attempts on the suite without a patch and with it.
    ValidateSuite,
}

/// Attempts on many tests that are wanted from the start, by number: each is a slot, and what one
/// leaves missing is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Series {
    /// The suite.
    Suite,
    /// Each file.
    File,
    /// The suite in other worlds.
    Panel,
}

impl Series {
    /// All of them.
    pub const ALL: [Series; 3] = [Series::Suite, Series::File, Series::Panel];
}

impl JobPhase {
    /// All of them.
    pub const ALL: [JobPhase; 20] = [
        JobPhase::List,
        JobPhase::Slots(Series::Suite),
        JobPhase::Slots(Series::File),
        JobPhase::Slots(Series::Panel),
        JobPhase::Retry(Series::Suite),
        JobPhase::Retry(Series::File),
        JobPhase::Retry(Series::Panel),
        JobPhase::Look,
        JobPhase::Alone,
        JobPhase::Screen,
        JobPhase::WithFile,
        JobPhase::Apart,
        JobPhase::More,
        JobPhase::Repeat,
        JobPhase::Confirm,
        JobPhase::DiagnoseTest,
        JobPhase::DiagnoseSuite,
        JobPhase::Bisect,
        JobPhase::ValidateTest,
        JobPhase::ValidateSuite,
    ];

    /// How names of its jobs begin in stores.
    fn text(self) -> &'static str {
        match self {
            JobPhase::List => "list",
            JobPhase::Slots(Series::Suite) => "suite",
            JobPhase::Slots(Series::File) => "file",
            JobPhase::Slots(Series::Panel) => "panel",
            JobPhase::Retry(Series::Suite) => "retry/suite",
            JobPhase::Retry(Series::File) => "retry/file",
            JobPhase::Retry(Series::Panel) => "retry/panel",
            JobPhase::Look => "look",
            JobPhase::Alone => "alone",
            JobPhase::Screen => "screen",
            JobPhase::WithFile => "with-file",
            JobPhase::Apart => "apart",
            JobPhase::More => "more",
            JobPhase::Repeat => "repeat",
            JobPhase::Confirm => "confirm",
            JobPhase::DiagnoseTest => "diagnose",
            JobPhase::DiagnoseSuite => "diagnose/suite",
            JobPhase::Bisect => "bisect",
            JobPhase::ValidateTest => "validate",
            JobPhase::ValidateSuite => "validate/suite",
        }
    }
}

impl JobKey {
    /// The job that lists the tests.
    pub const LIST: JobKey = JobKey { phase: JobPhase::List, arm: None, number: 0 };

    /// Of a phase that tells no arms apart.
    pub fn new(phase: JobPhase, number: u32) -> Self {
        Self { phase, arm: None, number }
    }

    /// Of one arm of a phase.
    pub fn of_arm(phase: JobPhase, arm: u32, number: u32) -> Self {
        Self { phase, arm: Some(arm), number }
    }

    /// The id of the job in `sweep`.
    pub fn id(self, sweep: SweepId) -> JobId {
        JobId::derive(sweep, &self.to_string())
    }
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (phase, number) = (self.phase.text(), self.number);
        match self.arm {
            _ if self.phase == JobPhase::List => f.write_str(phase),
            None => write!(f, "{phase}/{number:05}"),
            Some(arm) => write!(f, "{phase}/{arm:05}/{number:04}"),
        }
    }
}

/// Text that names no job: written by a later version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of a job")]
pub struct UnknownJobKey(pub String);

impl FromStr for JobKey {
    type Err = UnknownJobKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownJobKey(text.to_owned());
        let (mut phase, mut numbers) = (text, Vec::new());
        while let Some((rest, last)) = phase.rsplit_once('/')
            && let Some(number) = number(last)
        {
            phase = rest;
            numbers.push(number);
        }
        let phase = JobPhase::ALL.into_iter().find(|known| known.text() == phase).ok_or_else(unknown)?;
        match (phase, numbers.as_slice()) {
            (JobPhase::List, []) => Ok(JobKey::LIST),
            (JobPhase::List, _) => Err(unknown()),
            (_, [number]) => Ok(JobKey::new(phase, *number)),
            (_, [number, arm]) => Ok(JobKey::of_arm(phase, *arm, *number)),
            (_, _) => Err(unknown()),
        }
    }
}

/// A number; or a slot as the job of its first attempt and the place in that, as it was once written.
fn number(text: &str) -> Option<u32> {
    match text.split_once('.') {
        Some((first, place)) => digits(first)?.checked_add(digits(place)?),
        None => digits(text),
    }
}

fn digits(text: &str) -> Option<u32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_reads_back_to_the_same_key() {
        for phase in JobPhase::ALL.into_iter().filter(|phase| *phase != JobPhase::List) {
            for key in [JobKey::new(phase, 123_456), JobKey::of_arm(phase, 7, 0)] {
                assert_eq!(key.to_string().parse(), Ok(key));
            }
        }
        assert_eq!("list".parse(), Ok(JobKey::LIST));
    }

    #[test]
    fn names_that_earlier_versions_stored_are_read() {
        #[track_caller]
        fn check(text: &str, key: JobKey) {
            assert_eq!(text.parse(), Ok(key), "{text}");
        }
        check("suite/00007", JobKey::new(JobPhase::Slots(Series::Suite), 7));
        check("retry/suite/00007.1/2", JobKey::of_arm(JobPhase::Retry(Series::Suite), 8, 2));
        check("repeat/1", JobKey::new(JobPhase::Repeat, 1));
        check("repeat/00003/1", JobKey::of_arm(JobPhase::Repeat, 3, 1));
        check("diagnose/00003/0001", JobKey::of_arm(JobPhase::DiagnoseTest, 3, 1));
        check("diagnose/suite/0001", JobKey::new(JobPhase::DiagnoseSuite, 1));
        check("bisect/00003/0001", JobKey::of_arm(JobPhase::Bisect, 3, 1));
    }

    #[test]
    fn what_names_no_job_is_refused() {
        for text in
            ["", "list/1", "suite", "suite/", "suite/x", "suite/1/2/3", "suite/-1", "later/1", "suite/+1"]
        {
            assert_eq!(text.parse::<JobKey>(), Err(UnknownJobKey(text.to_owned())), "{text}");
        }
        assert!("suite/99999999999".parse::<JobKey>().is_err());
    }

    #[test]
    fn jobs_have_the_ids_that_they_had_when_names_were_text() {
        let sweep = SweepId(uuid::Uuid::nil());
        let check = |key: JobKey, text: &str| assert_eq!(key.id(sweep), JobId::derive(sweep, text));
        check(JobKey::LIST, "list");
        check(JobKey::new(JobPhase::Slots(Series::Panel), 3), "panel/00003");
        check(JobKey::of_arm(JobPhase::Bisect, 2, 14), "bisect/00002/0014");
    }
}
