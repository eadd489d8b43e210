//! Tests that fail together over history: one cause rather than many. Pure.
//!
//! As within a sweep ([`crate::score::clusters`]), over occasions: a CI run, or one attempt of a sweep on many tests.
//! Two tests belong together if the occasions on which they failed are alike (Jaccard similarity of
//! [`SIMILARITY`] or more, at least [`TOGETHER`] in common) and chance does not explain it: Fisher's exact test
//! over all occasions, corrected for the number of pairs, below [`CHANCE`]. Of a cluster every two belong together.

use crate::score::chance_of_difference;
use crate::score::clusters::{CHANCE, SIMILARITY};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Fewest occasions on which two tests failed together.
pub const TOGETHER: u32 = 3;
/// Tests that are compared with one another: those that failed most often.
const MOST_TESTS: usize = 1_000;

/// Tests that fail together, by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Together {
    /// The tests.
    pub tests: Vec<i64>,
    /// Occasions on which all of them failed.
    pub all_failed: u32,
    /// Occasions on which any of them failed.
    pub any_failed: u32,
}

/// Clusters of two and more, the largest first. `failed` names for each failure the occasion and the test;
/// `occasions` is how many there were, those without failures too.
pub fn clusters(failed: &[(u32, i64)], occasions: u32) -> Vec<Together> {
    let mut by_test: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
    for (occasion, test) in failed {
        by_test.entry(*test).or_default().push(*occasion);
    }
    let mut tests: Vec<(i64, Vec<u32>)> = by_test.into_iter().collect();
    for (_, occasions) in &mut tests {
        occasions.sort_unstable();
        occasions.dedup();
    }
    tests.retain(|(_, occasions)| occasions.len() >= TOGETHER as usize);
    tests.sort_by_key(|(test, occasions)| (Reverse(occasions.len()), *test));
    tests.truncate(MOST_TESTS);
    let pairs = (tests.len() * tests.len().saturating_sub(1) / 2).max(1) as f64;
    let alike = |one: &[u32], other: &[u32]| are_alike(one, other, occasions, pairs);
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for place in 0..tests.len() {
        let belongs =
            |group: &&mut Vec<usize>| group.iter().all(|member| alike(&tests[*member].1, &tests[place].1));
        match groups.iter_mut().find(belongs) {
            Some(group) => group.push(place),
            None => groups.push(vec![place]),
        }
    }
    groups.retain(|group| group.len() > 1);
    groups.sort_by_key(|group| (Reverse(group.len()), tests[group[0]].0));
    let cluster = |group: &Vec<usize>| {
        let mut times: BTreeMap<u32, usize> = BTreeMap::new();
        for place in group {
            tests[*place].1.iter().for_each(|occasion| *times.entry(*occasion).or_default() += 1);
        }
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let mut numbers: Vec<i64> = group.iter().map(|place| tests[*place].0).collect();
        numbers.sort_unstable();
        Together {
            tests: numbers,
            all_failed: count(times.values().filter(|failed| **failed == group.len()).count()),
            any_failed: count(times.len()),
        }
    };
    groups.iter().map(cluster).collect()
}

/// Of two sorted lists of occasions.
fn are_alike(one: &[u32], other: &[u32], occasions: u32, pairs: f64) -> bool {
    let (fewer, more) = (one.len().min(other.len()) as f64, one.len().max(other.len()) as f64);
    if fewer < SIMILARITY * more {
        return false;
    }
    let both = common(one, other);
    let any = one.len() + other.len() - both as usize;
    if both < TOGETHER || f64::from(both) < SIMILARITY * any as f64 {
        return false;
    }
    let (failed, others) = (one.len() as u32, occasions.saturating_sub(one.len() as u32));
    let only_other = (other.len() as u32 - both).min(others);
    chance_of_difference((both, failed), (only_other, others)) * pairs < CHANCE
}

fn common(one: &[u32], other: &[u32]) -> u32 {
    let (mut at, mut both) = (0, 0);
    for occasion in one {
        while at < other.len() && other[at] < *occasion {
            at += 1;
        }
        both += u32::from(other.get(at) == Some(occasion));
    }
    both
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The occasions on which each test, 0 and up, failed.
    #[track_caller]
    fn check(tests: &[&[u32]], occasions: u32, expect: &[(&[i64], u32, u32)]) {
        let failed: Vec<(u32, i64)> =
            (0..).zip(tests).flat_map(|(test, failed)| failed.iter().map(move |at| (*at, test))).collect();
        let found = clusters(&failed, occasions);
        let found: Vec<(&[i64], u32, u32)> =
            found.iter().map(|found| (found.tests.as_slice(), found.all_failed, found.any_failed)).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn what_fails_on_the_same_occasions_is_one_cause() {
        check(
            &[&[3, 40, 77, 80], &[5, 6], &[3, 40, 77, 80], &[9, 50, 51], &[9, 50, 51], &[3, 40, 77, 80]],
            200,
            &[(&[0, 2, 5], 4, 4), (&[3, 4], 3, 3)],
        );
        // Four of five.
        check(&[&[1, 2, 3, 4], &[1, 2, 3, 4, 5]], 100, &[(&[0, 1], 4, 5)]);
    }

    #[test]
    fn too_little_joins_nothing() {
        check(&[&[1, 2], &[1, 2]], 100, &[]);
        check(&[&[1, 2, 3, 4], &[3, 4, 5, 6]], 100, &[]);
        // As they always fail, they fail together.
        check(&[&[0, 1, 2, 3], &[0, 1, 2, 3]], 4, &[]);
        check(&[], 100, &[]);
    }

    #[test]
    fn among_many_pairs_chance_explains_more() {
        // Three common failures in thirty occasions: 1 in 4,060 for one pair, nothing among 100,000 pairs.
        let pair: [&[u32]; 2] = [&[1, 2, 3], &[1, 2, 3]];
        check(&pair, 30, &[(&[0, 1], 3, 3)]);
        let mut failed: Vec<(u32, i64)> =
            pair.iter().zip(0..).flat_map(|(at, test)| at.iter().map(move |at| (*at, test))).collect();
        failed.extend(
            (2..500).flat_map(|test| (0..3).map(move |at| (((test * 7 + at * 11) % 30) as u32, test))),
        );
        assert!(clusters(&failed, 30).iter().all(|found| !found.tests.contains(&0)));
    }
}
