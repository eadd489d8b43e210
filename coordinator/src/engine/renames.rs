//! Tests that were renamed or moved keep their history: each listing of all tests is compared with the one
//! before, and what is clear is linked. A link that a listing contradicts is taken back, one that somebody took
//! back stays so.

use super::past::{class_of, reads_history};
use super::{Coordinator, EngineError};
use crate::db::{DbError, LinkOrigin, LinkRow, ListedTest, SeenTest, SweepRow};
use crate::history::renames::{self, Listed, Renamed};
use crate::plan::{Question, QuestionKind};
use flakefarm_shared::{Digest, Listing, ProjectSpec, TestId, TestParts, UnixMicros};
use std::collections::{HashMap, HashSet};
use tracing::info;

impl Coordinator {
    /// Notes what a sweep's listing has, and links what it shows to be renamed. Doing it again changes nothing.
    pub(super) async fn note_listing(
        &self,
        row: &SweepRow,
        question: &Question,
        listing: &Listing,
    ) -> Result<(), EngineError> {
        let context = self.context(row).await?;
        let is_whole = question.kind == QuestionKind::Detect && listing.sources.len() == listing.tests.len();
        if !is_whole || !reads_history(class_of(question, &context)) {
            return Ok(());
        }
        let known = self.db.listed_tests(&row.project).await?;
        let links = self.db.links(&row.project).await?;
        let now = listed_now(listing);
        let seen: Vec<SeenTest> = now.iter().map(seen).collect();
        self.db.note_tests(&row.project, &seen, row.created_at).await?;
        let present: HashSet<&TestId> = listing.tests.iter().collect();
        for link in links.iter().filter(|link| link.unlinked_at.is_none()) {
            let both = present.contains(&link.test.1) && present.contains(&link.earlier.1);
            if both && link.origin == LinkOrigin::Found {
                info!(project = row.project, test = %link.test.1, earlier = %link.earlier.1,
                    "a link is taken back: both tests are there");
                self.db.unlink_tests(link.test.0, link.earlier.0, row.created_at).await?;
            }
        }
        let before = listed_before(known, row.created_at);
        let renamed =
            renames::between(&before, &now, |listed| is_looked_at(&context.project, listing, &listed.parts));
        self.link(row, &links, &renamed).await?;
        // Last, so that who is interrupted before it finds what was there before.
        let bodies: Vec<(TestId, Option<String>)> =
            now.into_iter().map(|listed| (listed.test, listed.body)).collect();
        Ok(self.db.note_listed(&row.project, &bodies, row.created_at).await?)
    }

    async fn link(&self, row: &SweepRow, links: &[LinkRow], renamed: &[Renamed]) -> Result<(), EngineError> {
        let tests: Vec<TestId> =
            renamed.iter().flat_map(|pair| [pair.test.clone(), pair.earlier.clone()]).collect();
        let numbers = self.db.test_numbers(&row.project, &tests).await?;
        let reason = match &row.revision {
            Some(revision) => format!("same body, in its place at revision {revision}"),
            None => "same body, in its place".to_owned(),
        };
        for Renamed { test, earlier } in renamed {
            let known = links.iter().any(|link| link.test.1 == *test && link.earlier.1 == *earlier);
            let (Some(number), Some(before)) = (numbers.get(test), numbers.get(earlier)) else { continue };
            if known {
                continue;
            }
            match self.db.link_tests(*number, *before, (LinkOrigin::Found, &reason), row.created_at).await {
                Ok(()) => info!(project = row.project, %test, %earlier, "a test was renamed or moved"),
                // It became something else before, on another branch for instance.
                Err(DbError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// What the tests of a listing were, by what those were called: as known when a sweep was submitted.
    pub(super) async fn names_then(
        &self,
        row: &SweepRow,
        listing: &Listing,
    ) -> Result<HashMap<TestId, TestId>, EngineError> {
        let then = |link: &LinkRow| {
            link.linked_at <= row.created_at && link.unlinked_at.is_none_or(|at| at > row.created_at)
        };
        let links = self.db.links(&row.project).await?;
        Ok(names_in(listing, links.into_iter().filter(then)))
    }
}

/// Of tests that the listing has not, what those of it are that they have become.
fn names_in(listing: &Listing, links: impl Iterator<Item = LinkRow>) -> HashMap<TestId, TestId> {
    let present: HashSet<&TestId> = listing.tests.iter().collect();
    let next: HashMap<TestId, TestId> = links.map(|link| (link.earlier.1, link.test.1)).collect();
    let mut names = HashMap::new();
    for earlier in next.keys().filter(|earlier| !present.contains(*earlier)) {
        let mut passed = HashSet::from([earlier]);
        let mut now = next.get(earlier);
        while let Some(test) = now {
            if present.contains(test) {
                names.insert(earlier.clone(), test.clone());
                break;
            }
            // Names may go in a circle of which none is there.
            now = if passed.insert(test) { next.get(test) } else { None };
        }
    }
    names
}

fn seen(listed: &Listed) -> SeenTest {
    SeenTest {
        test: listed.test.clone(),
        parts: Some(serde_json::to_string(&listed.parts).expect("parts of a test id serialise")),
    }
}

fn listed_now(listing: &Listing) -> Vec<Listed> {
    let listed = |(place, test): (usize, &TestId)| Listed {
        test: test.clone(),
        parts: listing.parts_of(place).unwrap_or_else(|| TestParts::of_recorded(test)),
        body: listing.sources.get(place).and_then(|source| source.body.as_ref().map(Digest::to_string)),
    };
    listing.tests.iter().enumerate().map(listed).collect()
}

/// The last listing before a moment, and what the one of that moment had, as far as it is noted.
fn listed_before(known: Vec<ListedTest>, at: UnixMicros) -> Vec<Listed> {
    let last = known.iter().map(|test| test.listed_at).filter(|listed_at| *listed_at < at).max();
    let of_last = known.into_iter().filter(|test| Some(test.listed_at) == last || test.listed_at == at);
    let listed = |known: ListedTest| Listed {
        parts: known
            .parts
            .and_then(|parts| serde_json::from_str(&parts).ok())
            .unwrap_or_else(|| TestParts::of_recorded(&known.test)),
        test: known.test,
        body: known.body,
    };
    of_last.map(listed).collect()
}

/// Whether a test would be in a listing if it existed: its file is in what was collected, and could be.
fn is_looked_at(project: &ProjectSpec, listing: &Listing, parts: &TestParts) -> bool {
    let broken = listing.collection_errors.iter().any(|error| parts.file.starts_with(&error.path));
    let inside = |path: &String| {
        let path = path.trim_start_matches("./").trim_end_matches('/');
        path.is_empty()
            || path == "."
            || parts.file.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    !broken && (project.test_paths.is_empty() || project.test_paths.iter().any(inside))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_a_test_is_looked_for_as_far_as_the_listing_has_it() {
        let listing = |tests: &[&str]| Listing {
            tests: tests.iter().map(|test| TestId::from(*test)).collect(),
            ..Listing::default()
        };
        let link = |earlier: &str, test: &str| LinkRow {
            test: (0, TestId::from(test)),
            earlier: (0, TestId::from(earlier)),
            origin: LinkOrigin::Found,
            reason: String::new(),
            linked_at: 0,
            unlinked_at: None,
        };
        let check = |present: &[&str], links: &[(&str, &str)], expect: &[(&str, &str)]| {
            let links = links.iter().map(|(earlier, test)| link(earlier, test));
            let found = names_in(&listing(present), links);
            let mut found: Vec<(&str, &str)> =
                found.iter().map(|(earlier, test)| (earlier.as_str(), test.as_str())).collect();
            found.sort_unstable();
            assert_eq!(found, expect);
        };
        check(&["c"], &[("a", "b"), ("b", "c")], &[("a", "c"), ("b", "c")]);
        check(&["b"], &[("a", "b"), ("b", "c")], &[("a", "b")]);
        check(&["a"], &[("a", "b"), ("b", "a")], &[("b", "a")]);
        check(&["d"], &[("a", "b"), ("b", "a")], &[]);
    }
}
