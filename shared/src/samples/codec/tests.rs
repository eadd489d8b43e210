//! Laws of the layout: what was packed is read, nothing makes the reader panic, and neither layout moves.

use super::*;
use proptest::prelude::*;

fn any_point() -> impl Strategy<Value = (TreatmentClass, Point)> {
    let outcome = prop_oneof![Just(PointOutcome::Pass), Just(PointOutcome::Fail), Just(PointOutcome::Skip)];
    let phases = proptest::option::of((0..4_096u32, 0..4_096u32));
    let class = (0..TreatmentClass::ALL.len()).prop_map(|at| TreatmentClass::ALL[at]);
    let numbers = (0..3 * DAY_MICROS, any::<u32>(), any::<u8>(), any::<u16>(), any::<u16>());
    (class, numbers, outcome, phases, proptest::option::of(any::<u64>())).prop_map(
        |(class, (after, wall_us, concurrency, worker, attempt), outcome, phases, signature)| {
            let point = Point {
                at: day_start(20_453) + after,
                wall_us,
                outcome,
                concurrency,
                worker,
                attempt,
                phases: phases.map(|(setup_us, teardown_us)| Phases { setup_us, teardown_us }),
                signature: signature.filter(|_| outcome == PointOutcome::Fail),
            };
            (class, point)
        },
    )
}

proptest! {
    #[test]
    fn packing_loses_nothing(points in proptest::collection::vec(any_point(), 0..60)) {
        let (job, run) = (JobId(Uuid::nil()), Uuid::from_u128(7));
        let stored = |(class, point): &(TreatmentClass, Point)| StoredPoint {
            point: *point,
            run: Some(run_tag(run)),
            class: *class,
        };
        let mut expected: Vec<StoredPoint> = points.iter().map(stored).collect();
        sort_stored(&mut expected);
        let chunks = chunks("p", &TestId::from("t"), run, job, &points);
        let mut names: Vec<_> = chunks.iter().map(|chunk| chunk.chunk).collect();
        names.dedup();
        prop_assert_eq!(names.len(), chunks.len());
        let mut packs: BTreeMap<i64, Vec<u8>> = BTreeMap::new();
        for chunk in &chunks {
            let prepared = prepare(chunk).unwrap();
            packs.entry(prepared.day).or_insert_with(|| vec![LAYOUT]).extend(prepared.packed);
        }
        let mut found = Vec::new();
        for (day, pack) in packs {
            found.extend(unpack(day, &pack).unwrap());
        }
        sort_stored(&mut found);
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn durations_keep_three_digits(micros in any::<u32>()) {
        let back = unpack_micros(pack_micros(micros));
        prop_assert!(back <= micros && f64::from(micros - back) <= f64::from(micros) / 2_048.0, "{micros} {back}");
        prop_assert!(micros >= 4_096 || back == micros);
    }

    #[test]
    fn days_of_a_range_hold_every_moment_of_it(from in 0i64..100 * DAY_MICROS, length in 0i64..5 * DAY_MICROS) {
        let range = days(from, from + length);
        if length > 0 {
            prop_assert!(range.contains(&day_of(from)) && range.contains(&day_of(from + length - 1)));
            prop_assert_eq!(range.end - 1, day_of(from + length - 1));
        } else {
            prop_assert!(range.end - range.start <= 1);
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..90)) {
        let _ = unpack(1, &bytes);
        let _ = unpack_chunks(1, &bytes);
        let _ = unpack_v1(1, &bytes);
    }
}

#[test]
fn the_layout_is_frozen() {
    let point = Point {
        at: day_start(20_000) + 0x0102_0304,
        wall_us: 0x1122_3344,
        outcome: PointOutcome::Fail,
        concurrency: 7,
        worker: 0xAABB,
        attempt: 0xCCDD,
        phases: Some(Phases { setup_us: 0x0506, teardown_us: 4_097 * 2 }),
        signature: Some(0x0123_4567_89AB_CDEF),
    };
    let chunk = Chunk {
        project: "p".into(),
        test: TestId::from("t"),
        run: Uuid::from_u128(9),
        class: TreatmentClass::Stressed,
        job: JobId(Uuid::from_u128(0x0102)),
        chunk: 3,
        points: vec![point],
    };
    let prepared = prepare(&chunk).unwrap();
    let head = hex::encode(&prepared.packed[..HEAD_BYTES]);
    assert!(head.starts_with("0301"), "class and count: {head}");
    assert_eq!(head[4..16], hex::encode(prepared.name));
    assert_eq!(
        hex::encode(&prepared.packed[HEAD_BYTES..]),
        "04030201e0".to_owned() + "44332211" + "07" + "bbaa" + "ddcc" + "0605" + "0018" + "efcdab8967452301"
    );
    assert_eq!(hex::encode(series("pröjekt", &TestId::from("t::ü"))), "0d41c54db9a2f7f5");
}

#[test]
fn old_points_are_still_read() {
    let packed = hex::decode("04030201000044332211".to_owned() + "0107bbaaddcc").unwrap();
    let point = Point {
        at: day_start(20_000) + 0x0102_0304,
        wall_us: 0x1122_3344,
        outcome: PointOutcome::Fail,
        concurrency: 7,
        worker: 0xAABB,
        attempt: 0xCCDD,
        phases: None,
        signature: None,
    };
    let stored = StoredPoint { point, run: None, class: TreatmentClass::Unknown };
    assert_eq!(unpack_v1(20_000, &packed).unwrap(), [stored]);
}

#[test]
fn series_do_not_mix_project_and_test() {
    assert_ne!(series("a", &TestId::from("bc")), series("ab", &TestId::from("c")));
}

#[test]
fn everything_is_a_bounded_range() {
    assert_eq!(days(i64::MIN, i64::MAX), 0..END_OF_DAYS);
    assert!(days(i64::MAX, i64::MIN).is_empty());
}

#[test]
fn chunks_that_cannot_be_stored_are_refused() {
    let point = |at| Point { at, ..Point::passed(0, 1) };
    let check = |points: Vec<Point>| {
        let (run, class) = (Uuid::nil(), TreatmentClass::Plain);
        let job = JobId(Uuid::nil());
        let chunk = Chunk { project: "p".into(), test: "t".into(), run, class, job, chunk: 0, points };
        assert!(matches!(prepare(&chunk), Err(SampleError::Refused(_))));
    };
    check(vec![]);
    check(vec![point(0), point(DAY_MICROS)]);
    check(vec![point(-1)]);
    check(vec![point(day_start(END_OF_DAYS))]);
    check(vec![point(0); 256]);
}

#[test]
fn very_many_points_are_several_chunks() {
    let points = vec![(TreatmentClass::Plain, Point::passed(day_start(20_000), 5)); 1_000];
    let chunks = chunks("p", &TestId::from("t"), Uuid::nil(), JobId(Uuid::nil()), &points);
    assert_eq!(chunks.iter().map(|chunk| chunk.points.len()).collect::<Vec<_>>(), [255, 255, 255, 235]);
    assert!(chunks.iter().all(|chunk| prepare(chunk).is_ok()));
}

#[test]
fn damage_is_named() {
    let damaged = |read: Result<Vec<StoredPoint>, SampleError>| matches!(read, Err(SampleError::Damaged(_)));
    assert!(damaged(unpack(0, &[9, 1, 2])));
    assert!(damaged(unpack(0, &[2, 1, 1, 0])));
    assert!(damaged(unpack_chunks(0, &[255; 40])));
    assert!(damaged(unpack_v1(0, &[0; 15])));
    assert!(damaged(unpack_v1(0, &[255; 16])));
    let mut unknown = [0; 16];
    unknown[10] = 9;
    assert!(damaged(unpack_v1(0, &unknown)));
}
