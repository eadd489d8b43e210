//! A repair that the farm is asked for: what is asked, how it stands, and how it ends.

use super::Rules;
use crate::experiment::Budget;
use crate::plan::Question;
use flakefarm_shared::{Class, Digest, Refusal, SweepContext};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

/// The tree that the tests were right for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairBase {
    /// What people call it: a revision.
    pub name: String,
    /// Its snapshot.
    pub snapshot: Digest,
}

/// What a farm is asked to repair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RepairRequest {
    /// How to run the project, and the snapshot whose tests fail.
    pub context: SweepContext,
    /// How its questions are asked: seed, isolation, confidence, what each may cost. What they ask, and of which
    /// tests, is the repair's.
    pub question: Question,
    /// Which queue its questions go to.
    pub class: Class,
    /// The tests to be mended, by their ids or patterns; none: those that fail.
    #[serde(default)]
    pub tests: Vec<String>,
    /// The tree that the tests were right for; none: there is no difference to follow, and the tests that are
    /// named are diagnosed.
    #[serde(default)]
    pub base: Option<RepairBase>,
    /// Experiments that proposals for one test may take.
    #[serde(default)]
    pub attempts: Option<NonZeroU32>,
    /// What finding causes may cost, in all.
    #[serde(default)]
    pub look_budget: Option<Budget>,
    /// What proving proposals may cost, in all.
    #[serde(default)]
    pub mend_budget: Option<Budget>,
    /// Who asks, for people.
    #[serde(default)]
    pub source: String,
}

impl RepairRequest {
    /// What it keeps to.
    pub fn rules(&self) -> Rules {
        let usual = Rules::default();
        Rules { attempts: self.attempts.unwrap_or(usual.attempts), ..usual }
    }
}

/// How the source of a sweep begins that answers a question of a repair: it may be of a tree that nobody has, with a
/// patch or with mutants in it.
pub const OF_REPAIR: &str = "repair ";

/// Whether a sweep answered a question of a repair, by its source. It says nothing of the project's tests as they are.
pub fn is_of_repair(source: &str) -> bool {
    source.starts_with(OF_REPAIR)
}

/// How a repair stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepairState {
    /// It waits for its turn.
    Queued,
    /// A coordinator works on it.
    Running,
    /// There is a patch, and its proof.
    Proved,
    /// No patch is proved.
    NotProved,
    /// What it might cost was spent first.
    Undecided,
    /// No test fails.
    NothingFails,
    /// It could not be carried out.
    Failed,
    /// Somebody has ended it.
    Cancelled,
    /// The patch was accepted, and its tests run on.
    Probation,
    /// All of these runs were clean.
    Proven,
    /// A test has failed again.
    Relapsed,
    /// The runs ended before they were enough.
    Unproven,
}

impl RepairState {
    /// All of them.
    pub const ALL: [RepairState; 12] = [
        RepairState::Queued,
        RepairState::Running,
        RepairState::Proved,
        RepairState::NotProved,
        RepairState::Undecided,
        RepairState::NothingFails,
        RepairState::Failed,
        RepairState::Cancelled,
        RepairState::Probation,
        RepairState::Proven,
        RepairState::Relapsed,
        RepairState::Unproven,
    ];

    /// As it is recorded and said.
    pub fn word(self) -> &'static str {
        match self {
            RepairState::Queued => "queued",
            RepairState::Running => "running",
            RepairState::Proved => "proved",
            RepairState::NotProved => "not_proved",
            RepairState::Undecided => "undecided",
            RepairState::NothingFails => "nothing_fails",
            RepairState::Failed => "failed",
            RepairState::Cancelled => "cancelled",
            RepairState::Probation => "probation",
            RepairState::Proven => "proven",
            RepairState::Relapsed => "relapsed",
            RepairState::Unproven => "unproven",
        }
    }

    /// Whether it has not ended.
    pub fn is_open(self) -> bool {
        matches!(self, RepairState::Queued | RepairState::Running)
    }
}

impl fmt::Display for RepairState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for RepairState {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|state| state.word() == word).ok_or(())
    }
}

/// How a repair ended.
#[derive(Debug, Clone, PartialEq)]
pub struct RepairEnd {
    /// In which state.
    pub state: RepairState,
    /// What was found and proved: JSON of the schema `flakefarm.repair/v1`.
    pub told: Option<String>,
    /// What is proved, as `git diff` writes it.
    pub patch: Option<String>,
    /// The tree with it.
    pub repaired: Option<Digest>,
    /// The tests that it mends.
    pub mended: Vec<String>,
    /// Why it failed.
    pub refusal: Option<Refusal>,
}

impl RepairEnd {
    /// Without a result.
    pub fn without(state: RepairState, refusal: Option<Refusal>) -> Self {
        Self { state, told: None, patch: None, repaired: None, mended: Vec::new(), refusal }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_a_word_of_its_own() {
        for state in RepairState::ALL {
            assert_eq!(state.word().parse(), Ok(state));
        }
        assert_eq!("nonsense".parse::<RepairState>(), Err(()));
    }
}
