//! What a test framework can do. The framework says it in the listing; planners plan within it, and reports say
//! what was left out for it.

use crate::spec::{Order, Scope};
use crate::world::World;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What a framework can do with a project's tests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// What one attempt may run; [`Scope::Suite`] is always among them.
    pub scopes: BTreeSet<Scope>,
    /// Kinds of orders; [`OrderKind::Given`] is always among them.
    pub orders: BTreeSet<OrderKind>,
    /// How attempts choose tests.
    pub choice: Choice,
    /// Families of worlds that it cannot give, by [`World::family`].
    pub worlds_without: BTreeSet<String>,
    /// Where attempts may begin.
    pub starts: Starts,
    /// When it tells what a test did.
    pub telling: Telling,
}

/// A kind of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderKind {
    /// As the framework collects them.
    Given,
    /// Last first.
    Reversed,
    /// By a seed.
    Shuffled,
    /// As they are listed.
    AsListed,
}

/// How attempts choose tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// Any of them, by their ids.
    ById,
    /// All or none.
    Everything,
}

/// Where attempts may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Starts {
    /// In a new process, or forked from one that has collected the tests.
    FreshOrForked,
    /// In a new process.
    Fresh,
}

/// When a framework tells what a test did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Telling {
    /// As it happens: what ends an attempt is charged to the test that was running.
    Live,
    /// At its end: an attempt that dies has said nothing.
    AtEnd,
}

impl Capabilities {
    /// Everything there is.
    pub fn everything() -> Self {
        Self {
            scopes: BTreeSet::from([Scope::Test, Scope::File, Scope::Suite]),
            orders: BTreeSet::from([
                OrderKind::Given,
                OrderKind::Reversed,
                OrderKind::Shuffled,
                OrderKind::AsListed,
            ]),
            choice: Choice::ById,
            worlds_without: BTreeSet::new(),
            starts: Starts::FreshOrForked,
            telling: Telling::Live,
        }
    }

    /// Whether attempts can be made in `world`.
    pub fn gives(&self, world: World) -> bool {
        world.is_plain() || !self.worlds_without.contains(&world.family())
    }

    /// Whether attempts can be made in `order`.
    pub fn can_order(&self, order: Order) -> bool {
        order == Order::Given || self.orders.contains(&OrderKind::of(order))
    }

    /// Whether one attempt can run so much and no more.
    pub fn can_run(&self, scope: Scope) -> bool {
        scope == Scope::Suite || self.choice == Choice::ById && self.scopes.contains(&scope)
    }
}

/// Of listings that were recorded before frameworks said it: all of them are pytest's.
impl Default for Capabilities {
    fn default() -> Self {
        Self::everything()
    }
}

impl OrderKind {
    /// That of an order.
    pub fn of(order: Order) -> Self {
        match order {
            Order::Given => OrderKind::Given,
            Order::Reversed => OrderKind::Reversed,
            Order::Shuffled { .. } => OrderKind::Shuffled,
            Order::AsListed => OrderKind::AsListed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_missing_whatever_its_numbers() {
        let mut able = Capabilities::everything();
        assert!(World::catalogue().iter().all(|world| able.gives(*world)));
        able.worlds_without.insert("parallel".to_owned());
        assert!(!able.gives(World::Parallel { workers: 7 }) && able.gives(World::Plain));
        able.choice = Choice::Everything;
        assert!(able.can_run(Scope::Suite) && !able.can_run(Scope::Test));
        able.orders.remove(&OrderKind::Shuffled);
        assert!(!able.can_order(Order::Shuffled { seed: 1 }) && able.can_order(Order::Given));
    }

    #[test]
    fn capabilities_survive_being_written() {
        let able = Capabilities::everything();
        let text = serde_json::to_string(&able).expect("plain data");
        assert_eq!(serde_json::from_str::<Capabilities>(&text).expect("the same"), able);
    }
}
