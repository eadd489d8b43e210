//! Tests that were renamed: what listings say of them, and links that are made and taken back.

use super::{AWKWARD, NOW, SECOND};
use flakefarm_coordinator::db::{Db, DbError, LinkOrigin, SeenTest};
use flakefarm_shared::TestId;

/// A listing is noted as it was, a link holds until it is taken back, and a test becomes one other at most.
pub async fn links_are_made_and_taken_back(db: &Db) {
    let names = ["a", "b", "c", AWKWARD];
    let seen: Vec<SeenTest> =
        names.iter().map(|name| SeenTest { test: TestId::from(*name), parts: None }).collect();
    db.note_tests("p", &seen, NOW).await.unwrap();
    db.note_tests("other", &seen, NOW).await.unwrap();
    assert_eq!(db.listed_tests("p").await.unwrap(), []);
    let bodies = [(TestId::from(AWKWARD), Some("x\0y".to_owned())), (TestId::from("a"), None)];
    db.note_listed("p", &bodies, NOW + SECOND).await.unwrap();
    db.note_listed("p", &bodies[..1], NOW + 2 * SECOND).await.unwrap();
    db.note_listed("p", &[], NOW).await.unwrap();
    let listed = db.listed_tests("p").await.unwrap();
    let told =
        |place: usize| (listed[place].test.as_str(), listed[place].body.as_deref(), listed[place].listed_at);
    assert_eq!(told(0), ("a", None, NOW + SECOND));
    assert_eq!(told(1), (AWKWARD, Some("x\u{fffd}y"), NOW + 2 * SECOND));
    assert_eq!((listed.len(), db.listed_tests("other").await.unwrap().len()), (2, 0));

    let mut numbers = Vec::new();
    for name in names {
        numbers.push(db.test("p", &TestId::from(name)).await.unwrap().unwrap().number);
    }
    let [a, b, c, awkward] = numbers[..] else { panic!("{numbers:?}") };
    db.link_tests(b, a, (LinkOrigin::Found, "same body\0"), NOW).await.unwrap();
    db.link_tests(c, b, (LinkOrigin::Said, ""), NOW + SECOND).await.unwrap();
    let earlier = |found: Vec<(i64, TestId)>| found.into_iter().map(|(number, _)| number).collect::<Vec<_>>();
    assert_eq!(earlier(db.earlier_tests(c).await.unwrap()), [b, a]);
    assert_eq!(db.later_test(a).await.unwrap(), Some(TestId::from("b")));
    let refused = db.link_tests(awkward, a, (LinkOrigin::Said, ""), NOW).await.unwrap_err();
    assert!(matches!(&refused, DbError::Conflict(why) if why.contains("`b`")), "{refused:?}");
    let refused = db.link_tests(a, a, (LinkOrigin::Said, ""), NOW).await.unwrap_err();
    assert!(matches!(refused, DbError::Conflict(_)), "{refused:?}");
    // A name that came back.
    db.link_tests(a, c, (LinkOrigin::Found, "again"), NOW + 2 * SECOND).await.unwrap();
    assert_eq!(earlier(db.earlier_tests(a).await.unwrap()), [c, b]);

    assert!(db.unlink_tests(c, b, NOW + 3 * SECOND).await.unwrap());
    assert!(!db.unlink_tests(c, b, NOW + 4 * SECOND).await.unwrap(), "it is taken back already");
    assert!(earlier(db.earlier_tests(c).await.unwrap()).is_empty());
    assert_eq!(db.later_test(b).await.unwrap(), None);
    let links = db.links("p").await.unwrap();
    let told: Vec<_> =
        links.iter().map(|link| (link.test.0, link.earlier.0, link.origin, link.unlinked_at)).collect();
    assert_eq!(
        told,
        [
            (a, c, LinkOrigin::Found, None),
            (c, b, LinkOrigin::Said, Some(NOW + 3 * SECOND)),
            (b, a, LinkOrigin::Found, None),
        ]
    );
    assert_eq!(links[2].reason, "same body\u{fffd}");
    db.link_tests(c, b, (LinkOrigin::Said, "after all"), NOW + 5 * SECOND).await.unwrap();
    assert_eq!(db.links("p").await.unwrap()[0].unlinked_at, None);
    assert_eq!(db.links("other").await.unwrap(), []);
}
