//! Runs and what they are evidence of. A run is one occasion on which tests were executed, wherever
//! that was; its treatment class says which questions its outcomes may answer. Nothing but
//! [`TreatmentClass::Plain`] says how often a test fails as it is.

use crate::world::SandboxLevel;
use serde::{Deserialize, Serialize};

/// Where a run comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOrigin {
    /// A sweep of this farm.
    #[default]
    Sweep,
    /// A diagnosis of this farm.
    Diagnosis,
    /// A bisection of this farm.
    Bisection,
    /// A validation of this farm: arms without and with a patch.
    Validation,
    /// A job of a CI system that sent its report.
    Ci,
}

impl RunOrigin {
    /// All origins.
    pub const ALL: [RunOrigin; 5] =
        [RunOrigin::Sweep, RunOrigin::Diagnosis, RunOrigin::Bisection, RunOrigin::Validation, RunOrigin::Ci];

    /// The stable word used in reports and SQL.
    pub fn word(self) -> &'static str {
        match self {
            RunOrigin::Sweep => "sweep",
            RunOrigin::Diagnosis => "diagnosis",
            RunOrigin::Bisection => "bisection",
            RunOrigin::Validation => "validation",
            RunOrigin::Ci => "ci",
        }
    }

    /// The origin that goes by `word`.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|origin| origin.word() == word)
    }

    /// Whether nothing needs to be said of it.
    pub fn is_sweep(&self) -> bool {
        *self == RunOrigin::Sweep
    }
}

/// What an attempt's outcomes are evidence of. Rates are of one class; classes are never added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TreatmentClass {
    /// Recorded before classes were.
    #[default]
    Unknown,
    /// The submitted source, isolated, with nothing changed around the tests.
    Plain,
    /// As plain, but not isolated from other attempts and the machine.
    Unisolated,
    /// Something was changed around the tests on purpose.
    Stressed,
    /// An arm of a diagnosis: tests, orders and neighbours were chosen by what had been seen.
    Diagnosed,
    /// Another revision, chosen by a bisection.
    Bisected,
    /// The submitted source with something changed in it.
    Patched,
    /// In CI, which nobody of ours isolated.
    Ci,
}

/// Which source an attempt ran, as far as its class depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceClass {
    /// What was submitted.
    Submitted,
    /// Something else.
    Other,
}

/// What was around an attempt, as far as its class depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorldClass {
    /// Nothing was changed.
    Plain,
    /// Something was.
    Changed,
}

impl TreatmentClass {
    /// All classes.
    pub const ALL: [TreatmentClass; 8] = [
        TreatmentClass::Unknown,
        TreatmentClass::Plain,
        TreatmentClass::Unisolated,
        TreatmentClass::Stressed,
        TreatmentClass::Diagnosed,
        TreatmentClass::Bisected,
        TreatmentClass::Patched,
        TreatmentClass::Ci,
    ];

    /// The class of an attempt of a run of `origin`.
    pub fn of(origin: RunOrigin, source: SourceClass, world: WorldClass, level: SandboxLevel) -> Self {
        match (origin, source, world) {
            (RunOrigin::Ci, _, _) => TreatmentClass::Ci,
            (RunOrigin::Bisection, _, _) => TreatmentClass::Bisected,
            (_, SourceClass::Other, _) => TreatmentClass::Patched,
            (RunOrigin::Diagnosis | RunOrigin::Validation, _, _) => TreatmentClass::Diagnosed,
            (RunOrigin::Sweep, SourceClass::Submitted, WorldClass::Changed) => TreatmentClass::Stressed,
            (RunOrigin::Sweep, SourceClass::Submitted, WorldClass::Plain) => match level {
                SandboxLevel::Process => TreatmentClass::Unisolated,
                SandboxLevel::Container
                | SandboxLevel::Nested
                | SandboxLevel::Forked
                | SandboxLevel::Host => TreatmentClass::Plain,
            },
        }
    }

    /// The stable word used in reports and SQL.
    pub fn word(self) -> &'static str {
        match self {
            TreatmentClass::Unknown => "unknown",
            TreatmentClass::Plain => "plain",
            TreatmentClass::Unisolated => "unisolated",
            TreatmentClass::Stressed => "stressed",
            TreatmentClass::Diagnosed => "diagnosed",
            TreatmentClass::Bisected => "bisected",
            TreatmentClass::Patched => "patched",
            TreatmentClass::Ci => "ci",
        }
    }

    /// The class that goes by `word`.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.word() == word)
    }

    /// Its number in packed points: its place in [`TreatmentClass::ALL`], which only grows at its end.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The class of a number; one of a newer program is unknown here.
    pub fn of_code(code: u8) -> Self {
        Self::ALL.get(usize::from(code)).copied().unwrap_or(TreatmentClass::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_codes_lead_back() {
        for (code, class) in (0..).zip(TreatmentClass::ALL) {
            assert_eq!((class.code(), TreatmentClass::of_code(code)), (code, class));
            assert_eq!(TreatmentClass::of_word(class.word()), Some(class));
        }
        for origin in RunOrigin::ALL {
            assert_eq!(RunOrigin::of_word(origin.word()), Some(origin));
        }
        assert_eq!(TreatmentClass::of_code(200), TreatmentClass::Unknown);
    }

    #[test]
    fn only_an_isolated_sweep_of_the_source_as_it_is_is_plain() {
        for origin in RunOrigin::ALL {
            for source in [SourceClass::Submitted, SourceClass::Other] {
                for world in [WorldClass::Plain, WorldClass::Changed] {
                    for level in SandboxLevel::ALL {
                        let plain = origin == RunOrigin::Sweep
                            && source == SourceClass::Submitted
                            && world == WorldClass::Plain
                            && level != SandboxLevel::Process;
                        let class = TreatmentClass::of(origin, source, world, level);
                        assert_eq!(
                            class == TreatmentClass::Plain,
                            plain,
                            "{origin:?} {source:?} {world:?} {level}"
                        );
                    }
                }
            }
        }
    }
}
