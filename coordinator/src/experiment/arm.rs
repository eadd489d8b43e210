//! Arms: what attempts of one kind have in common, so that they may be counted together and compared
//! with others.

use flakefarm_shared::{AttemptSpec, Order, Scope, Selection, TestId, Treatment, World};
use serde::{Deserialize, Serialize};

/// One test in some company under some treatment. Attempts of one arm differ by chance only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arm {
    /// What runs with the test, and in which order.
    pub company: Company,
    /// On which sources, in which world.
    pub treatment: Treatment,
}

/// What runs with a test.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Company {
    /// Nothing.
    Alone,
    /// Its file.
    File(Order),
    /// All others.
    Suite(Order),
    /// Chosen tests one after the other, it among them.
    Listed(Vec<TestId>),
}

impl Arm {
    /// The test alone, on the submitted sources, nothing changed.
    pub const PLAIN: Arm = Arm { company: Company::Alone, treatment: Treatment::PLAIN };

    /// The test alone in `world`.
    pub fn alone(world: World) -> Self {
        Self { company: Company::Alone, treatment: Treatment::under(world) }
    }

    /// The test among all others.
    pub fn suite(order: Order, world: World) -> Self {
        Self { company: Company::Suite(order), treatment: Treatment::under(world) }
    }

    /// Chosen tests one after the other.
    pub fn listed(tests: Vec<TestId>) -> Self {
        Self { company: Company::Listed(tests), treatment: Treatment::PLAIN }
    }

    /// One attempt of this arm on `test`; `others` is what runs with it in company of more than chosen
    /// tests.
    pub fn spec(&self, test: &TestId, others: &Selection) -> AttemptSpec {
        let plain = match &self.company {
            Company::Alone => {
                AttemptSpec::plain(Scope::Test, Selection::only(vec![test.clone()]), Order::Given)
            }
            Company::File(order) => AttemptSpec::plain(Scope::File, others.clone(), *order),
            Company::Suite(order) => AttemptSpec::plain(Scope::Suite, others.clone(), *order),
            Company::Listed(tests) => {
                AttemptSpec::plain(Scope::Suite, Selection::only(tests.clone()), Order::AsListed)
            }
        };
        AttemptSpec { treatment: self.treatment.clone(), ..plain }
    }

    /// The arm that `spec` is of, as `test` sees it; none if it does not run `test`.
    pub fn of(spec: &AttemptSpec, test: &TestId) -> Option<Arm> {
        let company = match (spec.scope, spec.order, &spec.tests) {
            (_, _, Selection::Only(tests)) if !tests.contains(test) => return None,
            (Scope::Test, _, Selection::Only(tests)) if tests.len() > 1 => return None,
            (Scope::Test, _, Selection::All) => return None,
            (Scope::Test, _, Selection::Only(_)) => Company::Alone,
            (Scope::Suite, Order::AsListed, Selection::Only(tests)) => Company::Listed(tests.to_vec()),
            (Scope::File, order, _) => Company::File(order),
            (Scope::Suite, order, _) => Company::Suite(order),
        };
        Some(Arm { company, treatment: spec.treatment.clone() })
    }

    /// Whether it is the test alone, nothing changed, on the submitted sources.
    pub fn is_plain(&self) -> bool {
        *self == Arm::PLAIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flakefarm_shared::{Digest, Source};

    #[test]
    fn an_arm_is_read_off_its_own_attempts() {
        let (test, other) = (TestId::from("t.py::a"), TestId::from("t.py::b"));
        let patched = Treatment { world: World::Home, source: Source::Snapshot(Digest::of(b"patched")) };
        let companies = [
            Company::Alone,
            Company::File(Order::Given),
            Company::Suite(Order::Shuffled { seed: 3 }),
            Company::Listed(vec![other.clone(), test.clone()]),
        ];
        for company in companies {
            let arm = Arm { company, treatment: patched.clone() };
            let spec = arm.spec(&test, &Selection::All);
            assert_eq!(Arm::of(&spec, &test), Some(arm.clone()));
            let strange = Arm::of(&spec, &TestId::from("t.py::c"));
            assert_eq!(strange.is_some(), spec.tests == Selection::All, "{arm:?}");
        }
    }
}
