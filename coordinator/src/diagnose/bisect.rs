//! Which revision made a test flaky. The revisions lie in a row, the first without the flake, the
//! last with it; a revision at which the test fails once is flaky, one at which it passes as often as
//! its known rate demands is not. Several revisions are asked at once, so that the row shrinks by
//! more than half a round.

use crate::experiment::certainty::clean_runs_needed;
use crate::experiment::{
    Arm, BisectRequest, Confidence, Estimate, JobKey, JobPhase, Ledger, Plan, PlannedJob, Planning, Question,
    Rate, Seen, Standing,
};
use crate::score::interval::rate_interval;
use flakefarm_shared::{AttemptEnd, AttemptSpec, Selection};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Runs at the last revision before the flake is said not to be there.
const MOST_AT_BAD: u32 = 150;
/// A lower bound of its rate from which that is known well enough.
const RATE_AT_BAD: f64 = 0.05;
/// Clean runs that are asked of a revision at most: rarer flakes are bisected with less confidence,
/// which is said.
const MOST_CLEAN: u32 = 300;
/// Attempts without a word of the test, and none with one, after which a revision is passed over.
const IN_VAIN: u32 = 3;
/// Attempts at the last revision before its rate is looked at again.
const AT_ONCE: u32 = 10;
/// Most attempts of one job.
const JOB_ATTEMPTS: u32 = 10;

/// What a bisection shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bisection {
    /// Where the search stopped.
    pub outcome: BisectOutcome,
    /// The newest revision that is not flaky, as far as is proved.
    pub last_good: String,
    /// The revisions among which the first flaky one is; one if it is found.
    pub candidates: Vec<BisectRevision>,
    /// 0 to 1: that all revisions taken for good are.
    pub confidence: f64,
    /// Every revision that was asked, the oldest first.
    pub asked: Vec<BisectRevision>,
}

/// How a bisection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BisectOutcome {
    /// One revision made it flaky.
    Found,
    /// One of several did; those between could not be run.
    Narrowed,
    /// It did not fail at the last revision.
    NotReproduced,
    /// It fails at the first revision already.
    FlakyAtGood,
    /// The search is not over.
    Open,
}

/// One revision with its counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BisectRevision {
    /// Its commit.
    pub commit: String,
    /// The first line of its message.
    pub subject: String,
    /// Attempts in which the test passed or failed.
    pub attempts: u64,
    /// Those in which it failed.
    pub failures: u64,
    /// Whether the test was there.
    pub state: RevisionState,
}

/// What is known of a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevisionState {
    /// Passed as often as was asked.
    Good,
    /// Failed.
    Flaky,
    /// The test does not exist there.
    Absent,
    /// Nothing could be run.
    Unusable,
    /// Not decided.
    Open,
}

/// What to run next.
pub fn plan(question: &Question, request: &BisectRequest, ledger: &Ledger) -> Plan {
    let search = Search::read(question, request, ledger);
    let mut jobs = Vec::new();
    let others = others(question, ledger);
    if ledger.outstanding().next().is_none() {
        for (place, runs) in search.wanted() {
            let arm_number = u32::try_from(place).expect("revisions are counted in 32 bits");
            let first = ledger.next_number(JobPhase::Bisect, Some(arm_number));
            let spec = request.arm(place).spec(&request.test, &others);
            let mut left = runs;
            let size = runs.div_ceil(u32::from(question.workers.get())).clamp(1, JOB_ATTEMPTS);
            for number in 0.. {
                let now = left.min(size);
                if now == 0 {
                    break;
                }
                let attempts = (0..now).map(|index| AttemptSpec { index, ..spec.clone() }).collect();
                let key = JobKey::of_arm(JobPhase::Bisect, arm_number, first + number);
                jobs.push(PlannedJob { key, attempts });
                left -= now;
            }
        }
    }
    let waiting = ledger.outstanding().count();
    let state = if jobs.is_empty() && waiting == 0 { Planning::Complete } else { Planning::Working };
    let attempts = jobs.iter().map(|job| job.attempts.len() as u64).sum::<u64>() + waiting as u64;
    Plan { jobs, remaining: Estimate { attempts, container_seconds: 0.0 }, state, limited: false }
}

/// What is known so far.
pub fn judge(question: &Question, request: &BisectRequest, ledger: &Ledger) -> Bisection {
    Search::read(question, request, ledger).bisection()
}

fn others(question: &Question, ledger: &Ledger) -> Selection {
    if question.tests.is_everything() {
        Selection::All
    } else {
        Selection::only(question.select(ledger.tests()))
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    passes: u32,
    failures: u32,
    /// Attempts that ran, but without the test.
    absent: u32,
    in_vain: u32,
}

struct Search<'a> {
    request: &'a BisectRequest,
    asked: BTreeMap<usize, Asked>,
    /// Clean runs that make a revision good; none as long as the rate at the last one is not known.
    clean: Option<u32>,
    /// The risk of one good revision being wrong, with so many clean runs.
    risk: f64,
    width: usize,
}

impl<'a> Search<'a> {
    fn read(question: &Question, request: &'a BisectRequest, ledger: &Ledger) -> Self {
        let mut of_arm: BTreeMap<Arm, Asked> = BTreeMap::new();
        for attempt in ledger.each_attempt() {
            let Some(arm) = attempt.spec.and_then(|spec| Arm::of(spec, &request.test)) else { continue };
            let known = of_arm.entry(arm).or_default();
            match (attempt.standing, ledger.seen_in(&request.test, attempt.key, attempt.index)) {
                (Standing::Outstanding, _) => {}
                (_, Some(Seen::Pass)) => known.passes += 1,
                (_, Some(Seen::Fail(_))) => known.failures += 1,
                (_, Some(Seen::Skip)) => known.absent += 1,
                (Standing::Ended(record), None) => match record.end {
                    // Asked for by name and not collected, or not in the suite.
                    AttemptEnd::NothingRan { .. } if record.collection_errors.is_empty() => known.absent += 1,
                    AttemptEnd::Completed => known.absent += 1,
                    AttemptEnd::NothingRan { .. }
                    | AttemptEnd::Interrupted { .. }
                    | AttemptEnd::Infrastructure(_) => known.in_vain += 1,
                },
                (Standing::Lost, None) => known.in_vain += IN_VAIN,
            }
        }
        let asked: BTreeMap<usize, Asked> = (0..request.revisions.len())
            .filter_map(|place| Some((place, *of_arm.get(&request.arm(place))?)))
            .collect();
        let bad = request.revisions.len() - 1;
        let at_bad = asked.get(&bad).copied().unwrap_or_default();
        let attempts = at_bad.passes + at_bad.failures;
        let steps = f64::from(u32::try_from(request.revisions.len()).unwrap_or(u32::MAX)).log2().ceil() + 1.0;
        let each = question.confidence.risk() / steps;
        let lower = rate_interval(at_bad.failures, attempts, question.confidence).lower;
        let enough = lower >= RATE_AT_BAD || at_bad.failures > 0 && attempts >= MOST_AT_BAD;
        let clean = enough.then(|| {
            let confidence =
                Confidence::new((1.0 - each).min(Confidence::MAX)).unwrap_or(Confidence::DEFAULT);
            let rate = Rate::new(lower.clamp(Rate::MIN, 0.99)).unwrap_or(Rate::DEFAULT);
            clean_runs_needed(rate, confidence).min(MOST_CLEAN)
        });
        let risk = clean.map_or(1.0, |clean| (1.0 - lower).powi(i32::try_from(clean).unwrap_or(i32::MAX)));
        Self { request, asked, clean, risk, width: usize::from(question.workers.get()).max(2) }
    }

    fn bad(&self) -> usize {
        self.request.revisions.len() - 1
    }

    fn at(&self, place: usize) -> Asked {
        self.asked.get(&place).copied().unwrap_or_default()
    }

    fn state(&self, place: usize) -> RevisionState {
        let asked = self.at(place);
        if asked.failures > 0 {
            RevisionState::Flaky
        } else if self.clean.is_some_and(|clean| asked.passes >= clean) {
            RevisionState::Good
        } else if asked.absent >= 1 && asked.passes == 0 {
            RevisionState::Absent
        } else if asked.in_vain >= IN_VAIN + asked.passes {
            RevisionState::Unusable
        } else {
            RevisionState::Open
        }
    }

    fn is_good(&self, place: usize) -> bool {
        matches!(self.state(place), RevisionState::Good | RevisionState::Absent)
    }

    /// The newest good and the oldest flaky revision that are known.
    fn bounds(&self) -> (usize, usize) {
        let flaky = (0..=self.bad()).find(|place| self.state(*place) == RevisionState::Flaky);
        let flaky = flaky.unwrap_or(self.bad());
        let good = (0..flaky).rev().find(|place| self.is_good(*place)).unwrap_or(0);
        (good, flaky)
    }

    /// Revisions to be run, each so often.
    fn wanted(&self) -> Vec<(usize, u32)> {
        let bad = self.at(self.bad());
        let Some(clean) = self.clean else {
            let attempts = bad.passes + bad.failures;
            let gone = bad.in_vain >= IN_VAIN + attempts || bad.absent > attempts;
            return if attempts >= MOST_AT_BAD || gone {
                Vec::new()
            } else {
                vec![(self.bad(), (MOST_AT_BAD - attempts).min(AT_ONCE))]
            };
        };
        match self.state(0) {
            RevisionState::Flaky | RevisionState::Unusable => return Vec::new(),
            RevisionState::Good | RevisionState::Absent | RevisionState::Open => {}
        }
        let (good, flaky) = self.bounds();
        let mut places: Vec<usize> = Vec::new();
        if self.state(0) == RevisionState::Open {
            places.push(0);
        }
        let open: Vec<usize> =
            (good + 1..flaky).filter(|place| self.state(*place) == RevisionState::Open).collect();
        let pieces = self.width + 1;
        for piece in 1..pieces {
            if let Some(place) = open.get(piece * open.len() / pieces) {
                places.push(*place);
            }
        }
        places.dedup();
        // A flaky revision shows itself soon: half of what is missing first.
        let missing = |place: &usize| clean.saturating_sub(self.at(*place).passes);
        places
            .into_iter()
            .map(|place| {
                let missing = missing(&place);
                (place, if missing > 4 { missing.div_ceil(2) } else { missing })
            })
            .filter(|(_, runs)| *runs > 0)
            .collect()
    }

    fn revision(&self, place: usize) -> BisectRevision {
        let (revision, asked) = (&self.request.revisions[place], self.at(place));
        BisectRevision {
            commit: revision.commit.clone(),
            subject: revision.subject.clone(),
            attempts: u64::from(asked.passes + asked.failures),
            failures: u64::from(asked.failures),
            state: self.state(place),
        }
    }

    fn bisection(&self) -> Bisection {
        let (good, flaky) = self.bounds();
        let candidates: Vec<BisectRevision> = (good + 1..=flaky).map(|place| self.revision(place)).collect();
        let outcome = if self.at(self.bad()).failures == 0 {
            BisectOutcome::NotReproduced
        } else if self.state(0) == RevisionState::Flaky {
            BisectOutcome::FlakyAtGood
        } else if !self.wanted().is_empty() || !self.is_good(good) {
            BisectOutcome::Open
        } else if candidates.len() == 1 {
            BisectOutcome::Found
        } else {
            BisectOutcome::Narrowed
        };
        let proved = (0..=self.bad()).filter(|place| self.state(*place) == RevisionState::Good).count();
        let confidence = (1.0 - self.risk).powi(i32::try_from(proved).unwrap_or(i32::MAX));
        Bisection {
            outcome,
            last_good: self.request.revisions[good].commit.clone(),
            candidates,
            confidence: if proved == 0 && outcome != BisectOutcome::Found { 0.0 } else { confidence },
            asked: self.asked.keys().map(|place| self.revision(*place)).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
