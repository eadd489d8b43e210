//! Whose jobs are published next: listings first, then in turns between projects, and between the
//! sweeps of each, by what they have under way already. One large sweep holds up nobody.

use super::raw::RawJob;
use super::rows::JobRow;
use super::{Db, DbError, read};
use flakefarm_shared::{Class, SweepId, UnixMicros};
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

/// A running sweep with jobs that wait to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Waiting {
    sweep: SweepId,
    project: String,
    /// Jobs on the queue or in a worker's hands.
    under_way: u64,
    /// Jobs that wait, as far as there may be room for them.
    pending: u64,
}

/// In whose turn `room` jobs are published: sweeps, each as often as it may publish. No project has more
/// than `most` under way.
fn turns(waiting: &[Waiting], room: usize, most: u64) -> Vec<SweepId> {
    let mut of_project: BTreeMap<&str, u64> = BTreeMap::new();
    for sweep in waiting {
        *of_project.entry(&sweep.project).or_default() += sweep.under_way;
    }
    let mut open: Vec<Waiting> = waiting.iter().filter(|sweep| sweep.pending > 0).cloned().collect();
    let mut turns = Vec::new();
    while turns.len() < room {
        // Ties go to the sweep that was submitted first, which is the order they come in.
        let least = |sweep: &&mut Waiting| (of_project[sweep.project.as_str()], sweep.under_way);
        let may = |sweep: &&mut Waiting| sweep.pending > 0 && of_project[sweep.project.as_str()] < most;
        let Some(next) = open.iter_mut().filter(may).min_by_key(least) else { break };
        next.pending -= 1;
        next.under_way += 1;
        turns.push(next.sweep);
        let project =
            waiting.iter().find(|sweep| sweep.sweep == next.sweep).map(|sweep| sweep.project.as_str());
        *of_project.entry(project.expect("it is one of them")).or_default() += 1;
    }
    turns
}

impl Db {
    /// Pending jobs of a class, of running sweeps, that may be published now, at most `limit`, in the
    /// order in which they should be.
    pub async fn publishable(
        &self,
        class: Class,
        now: UnixMicros,
        limit: u32,
    ) -> Result<Vec<JobRow>, DbError> {
        self.publishable_within(class, now, limit, u64::MAX).await
    }

    /// The same, with at most `most` jobs of one project on the queue or in workers' hands.
    pub async fn publishable_within(
        &self,
        class: Class,
        now: UnixMicros,
        limit: u32,
        most: u64,
    ) -> Result<Vec<JobRow>, DbError> {
        let query = "SELECT sweeps.id, sweeps.project,
                         (SELECT COUNT(*) FROM jobs WHERE jobs.sweep = sweeps.id AND jobs.state = 'queued'),
                         (SELECT COUNT(*) FROM (SELECT 1 FROM jobs WHERE jobs.sweep = sweeps.id
                             AND jobs.state = 'pending' AND jobs.class = $1 AND jobs.available_at <= $2
                             LIMIT $3) AS pending)
                     FROM sweeps WHERE sweeps.state = 'running' ORDER BY sweeps.created_at, sweeps.id";
        let rows: Vec<(Uuid, String, i64, i64)> = read!(
            self,
            "read which sweeps have jobs to publish",
            fetch_all,
            sqlx::query_as(query).bind(class.word()).bind(now).bind(i64::from(limit))
        )?;
        let waiting: Vec<Waiting> = rows
            .into_iter()
            .map(|(sweep, project, under_way, pending)| Waiting {
                sweep: SweepId(sweep),
                project,
                under_way: under_way.unsigned_abs(),
                pending: pending.unsigned_abs(),
            })
            .collect();
        let turns = turns(&waiting, limit as usize, most);
        let mut shares: HashMap<SweepId, i64> = HashMap::new();
        for sweep in &turns {
            *shares.entry(*sweep).or_default() += 1;
        }
        let mut jobs: HashMap<SweepId, std::vec::IntoIter<JobRow>> = HashMap::new();
        for (sweep, share) in shares {
            let query = "SELECT * FROM jobs WHERE sweep = $1 AND state = 'pending' AND class = $2
                            AND available_at <= $3 ORDER BY created_at, ordinal, id LIMIT $4";
            let rows: Vec<RawJob> = read!(
                self,
                "read publishable jobs",
                fetch_all,
                sqlx::query_as(query).bind(sweep.0).bind(class.word()).bind(now).bind(share)
            )?;
            let rows: Vec<JobRow> = rows.into_iter().map(JobRow::try_from).collect::<Result<_, _>>()?;
            jobs.insert(sweep, rows.into_iter());
        }
        let in_turns = turns.iter().filter_map(|sweep| jobs.get_mut(sweep)?.next());
        let (mut first, rest): (Vec<JobRow>, Vec<JobRow>) = in_turns.partition(|job| job.attempts == 0);
        first.extend(rest);
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sweeps as (project, under way, pending), and whose turn it is, by their places.
    fn check(sweeps: &[(&str, u64, u64)], room: usize, expect: &[usize]) {
        check_within(sweeps, room, u64::MAX, expect);
    }

    fn check_within(sweeps: &[(&str, u64, u64)], room: usize, most: u64, expect: &[usize]) {
        let waiting: Vec<Waiting> = sweeps
            .iter()
            .map(|(project, under_way, pending)| Waiting {
                sweep: SweepId::new(),
                project: (*project).to_owned(),
                under_way: *under_way,
                pending: *pending,
            })
            .collect();
        let place = |turn: &SweepId| waiting.iter().position(|sweep| sweep.sweep == *turn).unwrap();
        let found: Vec<usize> = turns(&waiting, room, most).iter().map(place).collect();
        assert_eq!(found, expect, "{sweeps:?}");
    }

    #[test]
    fn one_sweep_has_all_the_room_there_is() {
        check(&[("a", 7, 5)], 3, &[0, 0, 0]);
        check(&[("a", 0, 2)], 9, &[0, 0]);
        check(&[("a", 3, 0)], 9, &[]);
        check(&[], 9, &[]);
    }

    #[test]
    fn no_project_has_more_under_way_than_its_quota() {
        check_within(&[("a", 3, 9), ("a", 0, 9), ("b", 0, 1)], 9, 5, &[2, 1, 1]);
        check_within(&[("a", 7, 9)], 9, 5, &[]);
    }

    #[test]
    fn who_has_least_under_way_is_next() {
        check(&[("a", 60, 100), ("b", 0, 2)], 4, &[1, 1, 0, 0]);
        check(&[("a", 2, 100), ("b", 0, 100)], 6, &[1, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn projects_share_first_and_then_their_sweeps() {
        // Three sweeps of one project together get as much as the one of the other.
        check(&[("a", 0, 9), ("a", 0, 9), ("a", 0, 9), ("b", 0, 9)], 6, &[0, 3, 1, 3, 2, 3]);
    }
}
