use proptest::prelude::*;

use super::*;

fn moment(start: Instant, ms: u64) -> Moment {
    Moment {
        at: start + Duration::from_millis(ms),
        ns: i64::try_from(ms).unwrap() * 1_000_000,
    }
}

fn refused() -> Problem {
    Problem {
        refused: true,
        ..Problem::new("the password is wrong", "")
    }
}

/// A record of a source that answers, with a long history of reads of 20 ms.
fn settled(start: Instant) -> (Record, u64) {
    let mut record = Record::new(moment(start, 0));
    let mut ms = 0;
    for _ in 0..200 {
        ms += 100;
        record.take(
            Sign::Answered(RequestKind::ReadShort, Duration::from_millis(20)),
            moment(start, ms),
        );
    }
    assert_eq!(record.state(), HealthState::Online);
    (record, ms)
}

#[test]
fn the_breaker_says_whether_it_is_offline_refused_or_asks_for_less() {
    let start = Instant::now();
    let (mut record, ms) = settled(start);
    let gone = Problem::new("no route", "");
    assert_eq!(
        record.take(
            Sign::Away(gone.clone(), Some(moment(start, ms + 1000))),
            moment(start, ms)
        ),
        Some(HealthState::Online)
    );
    assert_eq!(
        (record.state(), record.problem(start), record.since_ns()),
        (HealthState::Offline, Some(gone), moment(start, ms).ns)
    );
    assert_eq!(record.next_probe_ns(), Some(moment(start, ms + 1000).ns));
    record.take(Sign::Away(refused(), None), moment(start, ms + 1));
    assert_eq!(record.state(), HealthState::Refused);
    let busy = Problem {
        asks_for_less: true,
        ..Problem::new("too many requests", "")
    };
    record.take(Sign::Away(busy, None), moment(start, ms + 2));
    assert_eq!(record.state(), HealthState::Degraded);
    assert_eq!(
        record.take(Sign::There, moment(start, ms + 3)),
        Some(HealthState::Degraded)
    );
    assert_eq!((record.state(), record.problem(start)), (HealthState::Online, None));
    assert!(record.last_error().is_some(), "it is remembered all the same");
}

#[test]
fn a_source_that_answers_some_requests_too_late_is_not_said_to_be_off() {
    let start = Instant::now();
    let (mut record, mut ms) = settled(start);
    let late = Problem {
        timed_out: true,
        ..Problem::new("nas did not answer in time", "check that it is switched on")
    };
    for turn in 0..OUTCOMES_MAX {
        ms += 10;
        let sign = if turn % 4 == 0 {
            Sign::Failed(late.clone())
        } else {
            Sign::Answered(RequestKind::ReadShort, Duration::from_millis(20))
        };
        record.take(sign, moment(start, ms));
    }
    assert_eq!(record.state(), HealthState::Degraded);
    let problem = record.problem(start).expect("it is degraded");
    assert!(problem.message.contains("is slow"), "{problem:?}");
    assert!(
        problem.hint.contains("deadlines.data") && !problem.hint.contains("switched on"),
        "{problem:?}"
    );
}

#[test]
fn a_share_of_failures_makes_it_degraded_until_they_are_few() {
    let start = Instant::now();
    let (mut record, mut ms) = settled(start);
    let mut take = |record: &mut Record, failed: bool| {
        ms += 10;
        let sign = if failed {
            Sign::Failed(Problem::new("bad gateway", ""))
        } else {
            Sign::Answered(RequestKind::ReadShort, Duration::from_millis(20))
        };
        record.take(sign, moment(start, ms));
    };
    for _ in 0..4 {
        take(&mut record, true);
    }
    assert_eq!(record.state(), HealthState::Online, "4 of 50");
    take(&mut record, true);
    assert_eq!(record.state(), HealthState::Degraded, "5 of 50");
    let said = record.problem(start).unwrap().message;
    assert_eq!(said, "5 of the last 50 requests failed: bad gateway");
    for _ in 0..47 {
        take(&mut record, false);
    }
    assert_eq!(record.state(), HealthState::Degraded, "3 of 50");
    take(&mut record, false);
    assert_eq!(record.state(), HealthState::Online, "2 of 50");
}

#[test]
fn old_failures_are_forgotten() {
    let start = Instant::now();
    let (mut record, ms) = settled(start);
    for _ in 0..30 {
        record.take(Sign::Failed(Problem::new("bad gateway", "")), moment(start, ms));
    }
    assert_eq!(record.state(), HealthState::Degraded);
    let later = moment(start, ms + 6 * 60_000);
    assert_eq!(record.conclude(later), Some(HealthState::Degraded));
    assert_eq!(record.state(), HealthState::Online);
}

#[test]
fn far_longer_than_usual_is_slow_until_it_is_not_much_longer() {
    let start = Instant::now();
    let (mut record, mut ms) = settled(start);
    let mut answers = |record: &mut Record, took: u64, count: u32| {
        for _ in 0..count {
            ms += 100;
            record.take(
                Sign::Answered(RequestKind::ReadShort, Duration::from_millis(took)),
                moment(start, ms),
            );
        }
    };
    answers(&mut record, 200, 32);
    assert_eq!(
        record.state(),
        HealthState::Online,
        "ten times as long, but quick all the same"
    );
    let (mut record, _) = settled(start);
    answers(&mut record, 3_000, 4);
    assert_eq!(record.state(), HealthState::Slow);
    let said = record.problem(start).unwrap().message;
    assert!(said.starts_with("reads take up to 3.0 s, where "), "{said}");
    answers(&mut record, 20, 40);
    assert_eq!(record.state(), HealthState::Online);
}

#[test]
fn one_kind_of_request_is_not_compared_with_another() {
    let start = Instant::now();
    let (mut record, ms) = settled(start);
    for _ in 0..32 {
        record.take(
            Sign::Answered(RequestKind::List, Duration::from_secs(5)),
            moment(start, ms),
        );
    }
    assert_eq!(record.state(), HealthState::Online, "listings always took that long");
}

#[test]
fn a_source_that_leaves_open_whether_it_is_there_is_slow() {
    let start = Instant::now();
    let (mut record, ms) = settled(start);
    assert_eq!(record.take(Sign::Asking, moment(start, ms)), None);
    assert_eq!(record.conclude(moment(start, ms + 900)), None);
    let now = moment(start, ms + 3_000);
    assert_eq!(record.conclude(now), Some(HealthState::Online));
    assert_eq!(record.state(), HealthState::Slow);
    assert_eq!(
        record.problem(now.at).unwrap().message,
        "it has given no answer for 3.0 s"
    );
    assert_eq!(
        record.take(Sign::There, moment(start, ms + 3_100)),
        Some(HealthState::Slow)
    );
}

fn any_sign() -> impl Strategy<Value = Sign> {
    prop_oneof![
        1 => Just(Sign::Connecting),
        8 => (0..RequestKind::ALL.len(), 1_u64..20_000)
            .prop_map(|(kind, ms)| Sign::Answered(RequestKind::ALL[kind], Duration::from_millis(ms))),
        4 => Just(Sign::Failed(Problem::new("bad gateway", ""))),
        2 => Just(Sign::Asking),
        2 => Just(Sign::Away(Problem::new("no route", ""), None)),
        1 => Just(Sign::Away(refused(), None)),
        3 => Just(Sign::There),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_state_fits_the_breaker_and_changes_are_told(
        signs in prop::collection::vec((any_sign(), 0_u64..30_000), 1..300),
    ) {
        let start = Instant::now();
        let mut record = Record::new(moment(start, 0));
        let (mut ms, mut told, mut open, mut tried) = (0, HealthState::Connecting, None, false);
        for (sign, pause) in signs {
            ms += pause;
            match &sign {
                Sign::Connecting => { open = None; tried = false; }
                Sign::Away(problem, _) => { open = Some(problem.refused); tried = true; }
                Sign::There => { open = None; tried = true; }
                Sign::Answered(..) => tried = true,
                Sign::Failed(_) | Sign::Asking => {}
            }
            let before = record.state();
            let since = record.since_ns();
            let change = record.take(sign, moment(start, ms));
            prop_assert_eq!(change.is_some(), before != record.state());
            if let Some(from) = change {
                prop_assert_eq!(from, told);
                prop_assert_eq!(record.since_ns(), moment(start, ms).ns);
                told = record.state();
            } else {
                prop_assert_eq!(record.since_ns(), since);
            }
            match (open, tried) {
                (Some(true), _) => prop_assert_eq!(record.state(), HealthState::Refused),
                (Some(false), _) => prop_assert_eq!(record.state(), HealthState::Offline),
                (None, false) => prop_assert_eq!(record.state(), HealthState::Connecting),
                (None, true) => prop_assert!(matches!(
                    record.state(),
                    HealthState::Online | HealthState::Slow | HealthState::Degraded
                )),
            }
            let fine = matches!(record.state(), HealthState::Online | HealthState::Connecting);
            prop_assert_eq!(record.problem(moment(start, ms).at).is_none(), fine);
        }
    }
}
