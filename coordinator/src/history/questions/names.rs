//! Tests under the names they have now: what a test was before it was renamed or moved is looked up under its
//! present number.

use crate::db::{Db, DbError, LinkRow};
use std::collections::{HashMap, HashSet};

/// Numbers of tests that are others now, with the numbers of those. Empty: nothing was linked.
#[derive(Debug, Clone, Default)]
pub(super) struct Names(HashMap<i64, i64>);

impl Names {
    /// Of a project.
    pub(super) async fn read(db: &Db, project: &str) -> Result<Self, DbError> {
        Ok(Self::of(&db.links(project).await?))
    }

    /// Links come the latest first. Where they go in a circle, since a name came back, the latest says which
    /// name is the present one.
    fn of(links: &[LinkRow]) -> Self {
        let linked: Vec<&LinkRow> = links.iter().filter(|link| link.unlinked_at.is_none()).collect();
        let next: HashMap<i64, i64> = linked.iter().map(|link| (link.earlier.0, link.test.0)).collect();
        let present = |earlier: i64| {
            let mut passed = HashSet::new();
            let mut now = earlier;
            while passed.insert(now) {
                match next.get(&now) {
                    Some(test) => now = *test,
                    None => return now,
                }
            }
            // Once around the circle, from where it was entered.
            let mut circle = HashSet::new();
            while circle.insert(now) {
                now = next[&now];
            }
            let around = |link: &&&LinkRow| circle.contains(&link.test.0) && circle.contains(&link.earlier.0);
            linked.iter().find(around).map_or(now, |link| link.test.0)
        };
        let named = next.keys().map(|earlier| (*earlier, present(*earlier)));
        Self(named.filter(|(earlier, now)| earlier != now).collect())
    }

    /// The number of what a test is now.
    pub(super) fn now(&self, test: i64) -> i64 {
        self.0.get(&test).copied().unwrap_or(test)
    }

    /// Whether a test is another one now.
    pub(super) fn is_earlier(&self, test: i64) -> bool {
        self.0.contains_key(&test)
    }

    /// Whether nothing was linked.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many tests are others now.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Numbers of earlier tests, with what they are now.
    pub(super) fn iter(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        self.0.iter().map(|(earlier, now)| (*earlier, *now))
    }

    /// Some tests with all that they were before.
    pub(super) fn with_earlier(&self, tests: &[i64]) -> Vec<i64> {
        let wanted: HashSet<i64> = tests.iter().copied().collect();
        let earlier = self.iter().filter(|(_, now)| wanted.contains(now)).map(|(earlier, _)| earlier);
        tests.iter().copied().chain(earlier).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::LinkOrigin;
    use flakefarm_shared::TestId;

    #[track_caller]
    fn check(links: &[(i64, i64)], expect: &[(i64, i64)]) {
        let link = |(at, (earlier, test)): (i64, &(i64, i64))| LinkRow {
            test: (*test, TestId::from("now")),
            earlier: (*earlier, TestId::from("before")),
            origin: LinkOrigin::Found,
            reason: String::new(),
            linked_at: at,
            unlinked_at: None,
        };
        let rows: Vec<LinkRow> = (1..).zip(links).map(link).collect::<Vec<_>>().into_iter().rev().collect();
        let mut found: Vec<(i64, i64)> = Names::of(&rows).iter().collect();
        found.sort_unstable();
        assert_eq!(found, expect);
    }

    #[test]
    fn a_test_is_what_its_last_name_says() {
        check(&[], &[]);
        check(&[(1, 2), (2, 3)], &[(1, 3), (2, 3)]);
        check(&[(1, 3), (2, 3)], &[(1, 3), (2, 3)]);
        check(&[(1, 2), (2, 1)], &[(2, 1)]);
        check(&[(2, 1), (1, 2)], &[(1, 2)]);
        check(&[(1, 2), (2, 3), (3, 1), (7, 2)], &[(2, 1), (3, 1), (7, 1)]);
    }

    #[test]
    fn what_is_asked_of_a_test_is_asked_of_what_it_was() {
        let names = Names(HashMap::from([(1, 3), (2, 3)]));
        let mut asked = names.with_earlier(&[3, 4]);
        asked.sort_unstable();
        assert_eq!(asked, [1, 2, 3, 4]);
        assert_eq!((names.now(2), names.now(4), names.is_earlier(3)), (3, 4, false));
    }
}
