//! How proposed repairs fared.

use super::{AWKWARD, NOW, SECOND};
use flakefarm_coordinator::db::{Db, RepairOutcome};
use flakefarm_coordinator::repairs::{Guess, Success};

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
