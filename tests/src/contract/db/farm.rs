//! What several coordinators and several projects share: leases, events, turns, pages.

use super::{AWKWARD, NOW, SECOND, new_job, new_sweep, running_sweep};
use flakefarm_coordinator::db::{Db, NewEvent, NewSweep, Settlement, SweepFilter, SweepState};
use flakefarm_coordinator::events::Event;
use flakefarm_shared::{Class, Digest, JobId, SweepId};
use futures::poll;
use std::pin::pin;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(3600);

/// A lease has one holder, who may renew it; another gets it when it is given up or has run out.
pub async fn a_lease_has_one_holder(db: &Db) {
    assert!(db.take_lease("loop", "a", LONG).await.unwrap());
    assert!(db.take_lease("loop", "a", LONG).await.unwrap(), "renewed");
    assert!(!db.take_lease("loop", "b", LONG).await.unwrap());
    assert!(db.take_lease("other", "b", LONG).await.unwrap());
    db.release_lease("loop", "b").await.unwrap();
    assert!(!db.take_lease("loop", "b", LONG).await.unwrap(), "not b's to give up");
    db.release_lease("loop", "a").await.unwrap();
    assert!(db.take_lease("loop", "b", Duration::ZERO).await.unwrap());
    assert!(db.take_lease("loop", "a", LONG).await.unwrap(), "b's has run out");
    // Of many who ask at once one gets it.
    let asking = (0..8).map(|n| {
        let db = db.clone();
        tokio::spawn(async move { db.take_lease("wanted", &format!("{n}"), LONG).await.unwrap() })
    });
    let taken = futures::future::join_all(asking).await;
    assert_eq!(taken.into_iter().filter(|taken| *taken.as_ref().unwrap()).count(), 1);
}

fn event(key: &str, sweep: SweepId, project: Option<&str>) -> NewEvent {
    let project = project.map(str::to_owned);
    NewEvent { key: key.to_owned(), at: NOW, project, sweep: Some(sweep), event: Event::Submitted { sweep } }
}

/// Whoever asks may go away at any moment, in the middle of beginning too: what is written afterwards is
/// written all the same, and others see it.
pub async fn who_gives_up_leaves_no_transaction_behind(url: &str) {
    let (one, other) = (Db::open(url).await.unwrap(), Db::open(url).await.unwrap());
    let sweep = running_sweep(&one).await;
    for moment in 0..40_u64 {
        {
            let events = [event(&format!("given up {moment}"), sweep, None)];
            let mut given_up = pin!(one.record_events(&events));
            let until = Instant::now() + Duration::from_micros(50 * moment);
            while poll!(given_up.as_mut()).is_pending() && Instant::now() < until {
                tokio::task::yield_now().await;
            }
        }
        // Over each connection that it may have.
        let digests: Vec<Digest> =
            (0..20_u64).map(|n| Digest::of(&(20 * moment + n).to_le_bytes())).collect();
        let leases = digests.iter().map(|digest| one.lease_blob(digest, NOW + SECOND));
        futures::future::try_join_all(leases).await.unwrap();
        for digest in &digests {
            assert!(other.is_leased(digest, NOW).await.unwrap(), "given up after {moment} × 50 µs");
        }
    }
    one.close().await;
    other.close().await;
}

/// An event is recorded once, and read by everybody in one order; a sweep's end is one by itself.
pub async fn events_are_recorded_once_and_read_in_one_order(db: &Db) {
    let start = db.latest_event().await.unwrap();
    let (one, two) = (running_sweep(db).await, running_sweep(db).await);
    db.record_events(&[]).await.unwrap();
    db.record_events(&[event("a", one, Some("project")), event("b", two, Some(AWKWARD))]).await.unwrap();
    db.record_events(&[event("a", one, Some("project"))]).await.unwrap();
    db.finish_sweep(one, &SweepState::Answered, NOW, None).await.unwrap();
    db.finish_sweep(one, &SweepState::Answered, NOW + 1, None).await.unwrap();
    let all = db.events_after(start, None, 10).await.unwrap();
    let finished = Event::Finished { sweep: one, state: "answered".to_owned() };
    let told: Vec<&Event> = all.iter().map(|row| &row.event).collect();
    assert_eq!(told, [&Event::Submitted { sweep: one }, &Event::Submitted { sweep: two }, &finished]);
    assert!(all.is_sorted_by(|a, b| a.id < b.id));
    assert_eq!(db.events_after(all[0].id, Some(one), 10).await.unwrap(), [all[2].clone()]);
    assert_eq!(db.events_after(start, None, 1).await.unwrap(), [all[0].clone()]);
    let theirs = db.events_page(Some(&[AWKWARD.to_owned()]), start, 10).await.unwrap();
    assert_eq!(theirs, [all[1].clone()]);
    assert_eq!(db.events_page(Some(&[]), start, 10).await.unwrap(), []);
    // Recorded by many at once, none is passed by who reads on from the last one seen.
    let last = db.latest_event().await.unwrap();
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let db = db.clone();
            tokio::spawn(async move {
                for n in 0..10 {
                    db.record_events(&[event(&format!("{writer}/{n}"), one, None)]).await.unwrap();
                }
            })
        })
        .collect();
    let (mut seen, mut after) = (0, last);
    while seen < 80 {
        let rows = db.events_after(after, None, 1000).await.unwrap();
        seen += rows.len();
        after = rows.last().map_or(after, |row| row.id);
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(db.events_after(last, None, 1000).await.unwrap().len(), 80);
    assert_eq!(db.forget_events(NOW).await.unwrap(), 0);
    assert!(db.forget_events(NOW + 1).await.unwrap() >= 82);
}

/// How far a sweep is, is what was recorded last.
pub async fn progress_is_what_was_recorded_last(db: &Db) {
    let sweep = running_sweep(db).await;
    assert_eq!(db.progress(sweep).await.unwrap(), None);
    for doing in ["first", "last"] {
        let event = Event::Preparing { sweep, doing: doing.to_owned() };
        db.record_progress(sweep, &event, NOW).await.unwrap();
    }
    let last = Event::Preparing { sweep, doing: "last".to_owned() };
    assert_eq!(db.progress(sweep).await.unwrap(), Some(last));
}

/// Listings first, then in turns between projects and between the sweeps of each.
pub async fn jobs_are_published_in_turns(db: &Db) {
    let mut sweeps = Vec::new();
    for (age, project) in ["big", "small", "small"].iter().enumerate() {
        let sweep = NewSweep { created_at: NOW + age as i64, ..new_sweep(project) };
        db.create_sweep(&sweep).await.unwrap();
        sweeps.push(sweep.id);
    }
    let jobs = |sweep, name: &str, count| -> Vec<_> {
        (0..count).map(|n| new_job(sweep, &format!("{name}{n}"), Class::Bulk)).collect()
    };
    db.insert_jobs(sweeps[0], &jobs(sweeps[0], "big", 40), NOW).await.unwrap();
    db.insert_jobs(sweeps[1], &jobs(sweeps[1], "one", 2), NOW + 1).await.unwrap();
    let mut listing = jobs(sweeps[2], "list", 1);
    listing[0].attempts = 0;
    db.insert_jobs(sweeps[2], &listing, NOW + 2).await.unwrap();
    let next = async |room| {
        let jobs = db.publishable(Class::Bulk, NOW + 3, room).await.unwrap();
        jobs.into_iter().map(|job| job.key).collect::<Vec<_>>()
    };
    assert_eq!(next(5).await, ["list0", "big0", "one0", "big1", "one1"]);
    assert_eq!(next(0).await, [""; 0]);
    assert_eq!(next(100).await.len(), 43);
    // What a project has under way counts.
    let under_way: Vec<(JobId, u32)> =
        jobs(sweeps[0], "big", 30).into_iter().map(|job| (job.id, 1)).collect();
    db.mark_queued(&under_way, NOW).await.unwrap();
    assert_eq!(next(4).await, ["list0", "one0", "one1", "big30"]);
}

/// What a project has queued and stores is counted by itself, and no more of its jobs are published than it
/// may have under way.
pub async fn quotas_are_of_each_project(db: &Db) {
    let [heavy, light] = ["heavy", AWKWARD].map(new_sweep);
    for sweep in [&heavy, &light] {
        db.create_sweep(sweep).await.unwrap();
        let jobs: Vec<_> = (0..6).map(|n| new_job(sweep.id, &format!("job {n}"), Class::Bulk)).collect();
        db.insert_jobs(sweep.id, &jobs, NOW).await.unwrap();
    }
    let attempts = u64::from(new_job(heavy.id, "", Class::Bulk).attempts);
    assert!(attempts > 0);
    let queued = async |project: &str| db.queued_attempts(project).await.unwrap();
    assert_eq!(
        [queued("heavy").await, queued(AWKWARD).await, queued("none").await],
        [6 * attempts, 6 * attempts, 0]
    );
    let published = async |most| {
        let jobs = db.publishable_within(Class::Bulk, NOW + 1, 100, most).await.unwrap();
        let of = |sweep: &NewSweep| jobs.iter().filter(|job| job.sweep == sweep.id).count();
        [of(&heavy), of(&light)]
    };
    assert_eq!(published(u64::MAX).await, [6, 6]);
    assert_eq!(published(4).await, [4, 4]);
    let first: Vec<_> = (0..3).map(|n| JobId::derive(heavy.id, &format!("job {n}"))).collect();
    db.mark_queued(&first.iter().map(|id| (*id, 1)).collect::<Vec<_>>(), NOW).await.unwrap();
    assert_eq!(published(4).await, [1, 4], "what is under way takes its place");
    assert_eq!(published(3).await, [0, 3]);
    for id in first {
        db.settle_job(id, &Settlement::Cancelled, NOW).await.unwrap();
    }
    assert_eq!(queued("heavy").await, 3 * attempts, "what has ended counts no more");
    assert_eq!(published(4).await, [3, 4]);

    let stored = async |project: &str| db.stored_bytes(project).await.unwrap();
    let (snapshot, other) = (Digest::of(b"snapshot"), Digest::of(b"other"));
    let both = ["heavy".to_owned(), AWKWARD.to_owned()];
    for _ in 0..2 {
        db.charge_blob(&both[..1], &snapshot, 1 << 40).await.unwrap();
    }
    db.charge_blob(&both, &other, 7).await.unwrap();
    assert_eq!([stored("heavy").await, stored(AWKWARD).await, stored("none").await], [(1 << 40) + 7, 7, 0]);
}

/// Pages hold what projects may see, and go on where the one before ended.
pub async fn pages_are_of_projects_and_go_on(db: &Db) {
    let projects = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    let mut ids = Vec::new();
    for (age, project) in ["pages a", AWKWARD, "pages a", "pages a"].iter().enumerate() {
        let sweep = NewSweep { created_at: NOW + age as i64 / 2, ..new_sweep(project) };
        db.create_sweep(&sweep).await.unwrap();
        ids.push(sweep.id);
    }
    let page = async |projects, state: Option<&str>, before| {
        let filter = SweepFilter { projects, state: state.map(str::to_owned), before };
        let rows = db.sweeps_page(&filter, 2).await.unwrap();
        rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(page(projects(&["pages a"]), None, None).await, [ids[3], ids[2]]);
    assert_eq!(page(projects(&["pages a"]), None, Some(ids[2])).await, [ids[0]]);
    assert_eq!(page(projects(&[AWKWARD, "none"]), None, None).await, [ids[1]]);
    assert_eq!(page(projects(&[]), None, None).await, []);
    assert_eq!(page(None, Some("running"), None).await.len(), 2);
    assert_eq!(page(None, Some("' OR 1=1 --"), None).await, []);

    let mut dead = Vec::new();
    for (age, sweep) in [ids[0], ids[1], ids[2]].into_iter().enumerate() {
        let job = new_job(sweep, "dead", Class::Bulk);
        db.insert_jobs(sweep, std::slice::from_ref(&job), NOW).await.unwrap();
        let end = Settlement::Dead { reason: AWKWARD.to_owned() };
        db.settle_job(job.id, &end, NOW + age as i64 * SECOND).await.unwrap();
        dead.push(job.id);
    }
    let ours = projects(&["pages a"]);
    let found = db.dead_page(ours.as_deref(), None, 1).await.unwrap();
    assert_eq!((found[0].job.id, found[0].project.as_str()), (dead[2], "pages a"));
    let found = db.dead_page(ours.as_deref(), Some(dead[2]), 5).await.unwrap();
    assert_eq!(found.iter().map(|found| found.job.id).collect::<Vec<_>>(), [dead[0]]);

    let (granted, other) = (Digest::of(b"granted"), Digest::of(b"other"));
    let names = [AWKWARD.to_owned(), "pages a".to_owned()];
    db.grant_blobs(&names, std::slice::from_ref(&granted)).await.unwrap();
    db.grant_blobs(&names, std::slice::from_ref(&granted)).await.unwrap();
    assert!(db.may_read_blob(&names[..1], &granted).await.unwrap());
    assert!(!db.may_read_blob(&names, &other).await.unwrap());
    assert!(!db.may_read_blob(&["pages b".to_owned()], &granted).await.unwrap());
    assert!(!db.may_read_blob(&[], &granted).await.unwrap());
}
