//! How proposed repairs fared, and the repairs that the farm carries out.

use super::{AWKWARD, NOW, SECOND};
use flakefarm_coordinator::db::{Db, RepairOutcome, RepairRow};
use flakefarm_coordinator::repairs::{Guess, RepairEnd, RepairState, Success};
use flakefarm_shared::{Digest, Refusal, SweepId};
use uuid::Uuid;

/// An outcome counts once however often it is told, in its project and its time, and old ones go.
pub async fn outcomes_of_repairs_are_counted_once(db: &Db) {
    let guess =
        |strategy: &str, failure: &str| Guess { strategy: strategy.to_owned(), failure: failure.to_owned() };
    let outcome = |strategy: &str, failure: &str, proved, at| RepairOutcome {
        id: uuid::Uuid::now_v7(),
        guess: guess(strategy, failure),
        proved,
        at,
    };
    let told = [
        outcome("adapt", "change", true, NOW),
        outcome("adapt", "change", false, NOW + SECOND),
        outcome("adapt", AWKWARD, true, NOW),
        outcome(AWKWARD, "change", false, NOW),
    ];
    for outcome in told.iter().chain(&told[..2]) {
        db.note_repair("p", outcome).await.unwrap();
    }
    db.note_repair("other", &outcome("adapt", "change", true, NOW)).await.unwrap();
    let learnt = db.repairs_learnt("p", 0).await.unwrap();
    assert_eq!(learnt.of(&guess("adapt", "change")), Success { tried: 2, proved: 1 });
    assert_eq!(learnt.of(&guess("adapt", AWKWARD)), Success { tried: 1, proved: 1 });
    assert_eq!(learnt.of(&guess(AWKWARD, "change")), Success { tried: 1, proved: 0 });
    assert_eq!(learnt.rows().count(), 3);
    let since = db.repairs_learnt("p", NOW + SECOND).await.unwrap();
    assert_eq!(since.of(&guess("adapt", "change")), Success { tried: 1, proved: 0 });

    assert_eq!(db.count_old_evidence(NOW + SECOND).await.unwrap(), 4);
    db.delete_old_evidence(NOW + SECOND).await.unwrap();
    assert_eq!(db.repairs_learnt("p", 0).await.unwrap().rows().count(), 1);
    assert_eq!(db.repairs_learnt("other", 0).await.unwrap().rows().count(), 0);
}

fn asked(project: &str, class: &str, created_at: i64) -> RepairRow {
    RepairRow {
        id: Uuid::now_v7(),
        project: project.to_owned(),
        state: "queued".to_owned(),
        class: class.to_owned(),
        request: AWKWARD.to_owned(),
        source: AWKWARD.to_owned(),
        created_at,
        started_at: None,
        ended_at: None,
        tries: 0,
        told: None,
        patch: None,
        repaired: None,
        mended: None,
        refusal: None,
        probation: None,
        accepted_at: None,
        concluded_at: None,
    }
}

/// A repair is recorded once, begun as often as coordinators begin with it, ended once, accepted once and concluded
/// once; nothing goes back.
pub async fn repairs_end_once(db: &Db) {
    let (bulk, urgent) = (asked("p", "bulk", NOW), asked("p", "interactive", NOW + SECOND));
    let other = asked("other", "bulk", NOW);
    for row in [&bulk, &urgent, &other] {
        assert!(db.create_repair(row).await.unwrap());
        assert!(!db.create_repair(row).await.unwrap(), "asked twice, it is one");
    }
    let open =
        async || -> Vec<Uuid> { db.open_repairs().await.unwrap().into_iter().map(|row| row.id).collect() };
    let found = open().await;
    assert_eq!(found[0], urgent.id, "somebody waits for it");
    assert_eq!(found.len(), 3);
    assert_eq!(db.unfinished_repairs("p").await.unwrap(), 2);
    let page = async |project, before| -> Vec<Uuid> {
        let rows = db.repairs_page(project, before, 2).await.unwrap();
        rows.into_iter().map(|row| row.id).collect()
    };
    assert_eq!(page(None, None).await, [urgent.id, other.id]);
    assert_eq!(page(None, Some(urgent.id)).await, [other.id, bulk.id]);
    assert_eq!(page(Some("p"), None).await, [urgent.id, bulk.id]);

    // Begun, left, begun anew: what was left does not count.
    assert!(db.begin_repair(bulk.id, NOW + 1).await.unwrap());
    db.leave_repair(bulk.id).await.unwrap();
    assert!(db.begin_repair(bulk.id, NOW + 2).await.unwrap());
    assert!(db.begin_repair(bulk.id, NOW + 3).await.unwrap());
    let row = db.repair(bulk.id).await.unwrap().unwrap();
    assert_eq!((row.tries, row.started_at, row.state().unwrap()), (2, Some(NOW + 1), RepairState::Running));

    let repaired = Digest::of(b"repaired");
    let proved = RepairEnd {
        told: Some(AWKWARD.to_owned()),
        patch: Some("--- a\n+++ b\n".to_owned()),
        repaired: Some(repaired.clone()),
        mended: vec![AWKWARD.to_owned()],
        ..RepairEnd::without(RepairState::Proved, None)
    };
    let sweep = SweepId::new();
    assert!(!db.accept_repair(bulk.id, sweep, NOW).await.unwrap(), "nothing is proved yet");
    assert!(db.end_repair(bulk.id, &proved, NOW + SECOND).await.unwrap());
    let cancelled = RepairEnd::without(RepairState::Cancelled, None);
    assert!(!db.end_repair(bulk.id, &cancelled, NOW + 2 * SECOND).await.unwrap());
    assert!(!db.begin_repair(bulk.id, NOW).await.unwrap());
    let row = db.repair(bulk.id).await.unwrap().unwrap();
    assert_eq!((row.state().unwrap(), row.ended_at), (RepairState::Proved, Some(NOW + SECOND)));
    assert_eq!((row.mended(), row.repaired.as_deref()), (proved.mended.clone(), Some(repaired.as_str())));

    assert!(db.accept_repair(bulk.id, sweep, NOW + SECOND).await.unwrap());
    assert!(!db.accept_repair(bulk.id, SweepId::new(), NOW + SECOND).await.unwrap());
    assert_eq!(open().await.len(), 3, "its further runs are looked after");
    assert_eq!(db.unfinished_repairs("p").await.unwrap(), 1);
    assert!(db.conclude_repair(bulk.id, RepairState::Proven, NOW + 2 * SECOND).await.unwrap());
    assert!(!db.conclude_repair(bulk.id, RepairState::Relapsed, NOW + 3 * SECOND).await.unwrap());
    let row = db.repair(bulk.id).await.unwrap().unwrap();
    assert_eq!((row.state().unwrap(), row.probation), (RepairState::Proven, Some(sweep.0)));

    // A queued one ends, too; why is kept.
    let refusal = Refusal { message: "m".to_owned(), log: String::new(), hint: None };
    let failed = RepairEnd::without(RepairState::Failed, Some(refusal.clone()));
    assert!(db.end_repair(urgent.id, &failed, NOW + 3 * SECOND).await.unwrap());
    assert_eq!(db.repair(urgent.id).await.unwrap().unwrap().refusal(), Some(refusal));
    assert_eq!(open().await, [other.id]);

    // What they refer to stays as long as artifacts do, and that of open ones.
    assert_eq!(db.repairs_refer(NOW).await.unwrap().len(), 3);
    assert_eq!(db.repairs_refer(NOW + 3 * SECOND).await.unwrap().len(), 2);
    db.delete_old_evidence(NOW + 2 * SECOND).await.unwrap();
    assert_eq!(db.repair(bulk.id).await.unwrap(), None);
    assert!(db.repair(urgent.id).await.unwrap().is_some() && db.repair(other.id).await.unwrap().is_some());
}
