//! The smallest part of a list that is enough: delta debugging, asked in batches so that a farm can
//! answer many questions at once. Pure: it is run from the start each time more answers are known,
//! and takes the same way as far as they reach.

use std::collections::BTreeSet;

/// Places in the list that is searched, in ascending order.
pub(super) type Part = Vec<usize>;

/// Where a search stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Search {
    /// These parts must be tried next, all at once.
    Try(Vec<Part>),
    /// This part is enough, and none that leaves out a piece of it that was tried is.
    Found(Part),
}

/// Searches a list of `length` whose whole is enough. `answer` says whether a part is enough, or
/// nothing if it was not tried yet; `width` parts are wanted at once.
pub(super) fn search(length: usize, width: usize, answer: impl Fn(&Part) -> Option<bool>) -> Search {
    let width = width.clamp(2, 8);
    let mut enough: Part = (0..length).collect();
    let mut pieces = width;
    while enough.len() > 1 {
        let chunks = split(&enough, pieces);
        match ask(&chunks, &answer) {
            Err(open) => return Search::Try(open),
            Ok(Some(part)) => {
                enough = part;
                pieces = width;
                continue;
            }
            Ok(None) => {}
        }
        // No chunk is enough by itself, so several are needed together: leave out one at a time.
        if chunks.len() > 2 {
            let complements: Vec<Part> = chunks.iter().map(|chunk| without(&enough, chunk)).collect();
            match ask(&complements, &answer) {
                Err(open) => return Search::Try(open),
                Ok(Some(part)) => {
                    enough = part;
                    pieces = (chunks.len() - 1).max(2);
                    continue;
                }
                Ok(None) => {}
            }
        }
        if chunks.len() >= enough.len() {
            break;
        }
        pieces = (2 * chunks.len()).min(enough.len());
    }
    Search::Found(enough)
}

/// The last of `parts` that is enough, if all are answered; else those that are not. The last: what
/// ran shortly before a test is likelier to matter to it.
fn ask(parts: &[Part], answer: &impl Fn(&Part) -> Option<bool>) -> Result<Option<Part>, Vec<Part>> {
    let answers: Vec<Option<bool>> = parts.iter().map(answer).collect();
    if let Some(place) = answers.iter().rposition(|answer| *answer == Some(true)) {
        return Ok(Some(parts[place].clone()));
    }
    let open: Vec<Part> = parts
        .iter()
        .zip(&answers)
        .filter(|(_, answer)| answer.is_none())
        .map(|(part, _)| part.clone())
        .collect();
    if open.is_empty() { Ok(None) } else { Err(open) }
}

/// `part` in `pieces` neighbouring pieces of about one size.
fn split(part: &Part, pieces: usize) -> Vec<Part> {
    let pieces = pieces.min(part.len());
    (0..pieces)
        .map(|piece| part[piece * part.len() / pieces..(piece + 1) * part.len() / pieces].to_vec())
        .collect()
}

fn without(part: &Part, chunk: &Part) -> Part {
    let left_out: BTreeSet<usize> = chunk.iter().copied().collect();
    part.iter().copied().filter(|place| !left_out.contains(place)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// Answers what is asked until something is found: the part, the runs and the rounds.
    fn solve(length: usize, width: usize, enough: impl Fn(&Part) -> bool) -> (Part, usize, usize) {
        let mut known: HashMap<Part, bool> = HashMap::new();
        for round in 0..1_000 {
            match search(length, width, |part| known.get(part).copied()) {
                Search::Found(part) => return (part, known.len(), round),
                Search::Try(parts) => {
                    for part in parts {
                        let answer = enough(&part);
                        known.insert(part, answer);
                    }
                }
            }
        }
        panic!("the search does not end");
    }

    #[test]
    fn one_culprit_takes_few_runs_and_fewer_rounds() {
        for length in [2_usize, 3, 7, 16, 100, 1_000, 4_096] {
            let bits = (length as f64).log2().max(1.0);
            for width in [2, 4, 8] {
                for culprit in [0, length / 3, length - 1] {
                    let (found, runs, rounds) = solve(length, width, |part| part.contains(&culprit));
                    assert_eq!(found, [culprit]);
                    assert!(runs as f64 <= 4.0 * bits.ceil(), "{length} by {width}: {runs} runs");
                    assert!(rounds as f64 <= bits.ceil() + 1.0, "{length} by {width}: {rounds} rounds");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn culprits_that_need_each_other_are_found_together(
            length in 2_usize..200, width in 2_usize..9, seeds in prop::collection::vec(any::<usize>(), 1..4),
        ) {
            let culprits: BTreeSet<usize> = seeds.iter().map(|seed| seed % length).collect();
            let (found, ..) = solve(length, width, |part| culprits.iter().all(|c| part.contains(c)));
            prop_assert_eq!(found, culprits.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn of_culprits_that_do_the_same_one_is_found(
            length in 2_usize..200, width in 2_usize..9, seeds in prop::collection::vec(any::<usize>(), 1..4),
        ) {
            let culprits: BTreeSet<usize> = seeds.iter().map(|seed| seed % length).collect();
            let (found, ..) = solve(length, width, |part| culprits.iter().any(|c| part.contains(c)));
            prop_assert!(found.len() == 1 && culprits.contains(&found[0]), "{:?}", found);
        }
    }
}
