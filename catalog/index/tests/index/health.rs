//! How sources are told to be, from what their requests show.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use manifold_backends::ErrorKind;
use manifold_catalog::SourceRecord;
use manifold_index::{Event, HealthState, Problem, RequestKind};
use tempfile::tempdir;
use tokio::sync::broadcast::Receiver;

use crate::library::Library;
use crate::support::{Fault, Scripted, source};

/// Waits for the next change of a source's state.
async fn next_state(events: &mut Receiver<Event>) -> HealthState {
    loop {
        match events.recv().await.expect("the indexer is there") {
            Event::Health(change) => return change.to,
            Event::ScanBegan { .. } | Event::ScanEnded { .. } => {}
        }
    }
}

fn state(library: &Library, record: &SourceRecord) -> HealthState {
    library.indexer.health(record.id).expect("it was named").state
}

#[tokio::test(start_paused = true)]
async fn a_source_is_told_to_go_and_to_come_back() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.file("x", 1);
    let library = Library::open(folder.path());
    let mut events = library.indexer.subscribe();
    let record = library.add("/s", &source);
    assert_eq!(
        state(&library, &record),
        HealthState::Connecting,
        "nobody has had an answer"
    );
    library.list("/s").await;
    assert_eq!(next_state(&mut events).await, HealthState::Online);

    source.go_away(ErrorKind::Unreachable);
    library.indexer.list_now(record.root).await.unwrap_err();
    assert_eq!(next_state(&mut events).await, HealthState::Offline);
    let health = library.indexer.health(record.id).unwrap();
    let problem = health.problem.expect("something is wrong");
    assert!(!problem.message.is_empty() && !problem.hint.is_empty(), "{problem:?}");
    assert!(health.next_probe_ns.is_some());
    let turned_away = health.turned_away;
    library.indexer.list_now(record.root).await.unwrap_err();
    let health = library.indexer.health(record.id).unwrap();
    assert_eq!(health.turned_away, turned_away + 1, "it is known to be away");
    for kind in [RequestKind::List, RequestKind::Look] {
        let facts = health.requests.iter().find(|it| it.kind == kind).expect("it was asked");
        let failed = facts.failed.iter().find(|(kind, _)| *kind == "unreachable");
        assert!(failed.is_some_and(|(_, count)| *count > 0), "{facts:?}");
        assert_eq!(facts.begun, facts.took.count(), "each has ended");
    }

    source.come_back();
    assert_eq!(next_state(&mut events).await, HealthState::Online, "by itself");
    let health = library.indexer.health(record.id).unwrap();
    assert_eq!((health.problem, health.next_probe_ns), (None, None));
    assert!(health.last_error.is_some());
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_are_told_from_silence_and_are_not_tried_by_a_look_at_all() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.file("x", 1);
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    source.go_away(ErrorKind::CredentialsRefused);
    library.indexer.probe(record.id).await;
    assert_eq!(state(&library, &record), HealthState::Refused);
    let asked = source.checks.load(Ordering::SeqCst);
    library.indexer.probe_all(Duration::ZERO).await;
    assert_eq!(source.checks.load(Ordering::SeqCst), asked);

    source.come_back();
    library.indexer.attach(record.id, Arc::<Scripted>::clone(&source));
    library.indexer.probe(record.id).await;
    assert_eq!(state(&library, &record), HealthState::Online);
}

#[tokio::test(start_paused = true)]
async fn a_look_at_all_asks_only_those_of_which_nothing_was_heard() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.file("x", 1);
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    library.list("/s").await;
    library.indexer.probe_all(Duration::from_secs(5)).await;
    assert_eq!(source.checks.load(Ordering::SeqCst), 0, "it has just answered");
    tokio::time::advance(Duration::from_secs(6)).await;
    source.go_away(ErrorKind::Unreachable);
    library.indexer.probe_all(Duration::from_secs(5)).await;
    assert_eq!(state(&library, &record), HealthState::Offline);
    source.come_back();
    tokio::time::advance(Duration::from_secs(6)).await;
    library.indexer.probe_all(Duration::from_secs(5)).await;
    assert_eq!(state(&library, &record), HealthState::Online);
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_fails_now_and_then_makes_its_source_degraded_and_not_offline() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.directory("good").directory("bad");
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    library.list("/s").await;
    source.fault("bad", Fault::Refuse(ErrorKind::Other));
    for _ in 0..8 {
        library.list("/s/good").await;
        library.indexer.list_now(library.id("/s/bad")).await.unwrap_err();
        library.list("/s/good").await;
    }
    assert_eq!(state(&library, &record), HealthState::Degraded);
    let problem = library.indexer.health(record.id).unwrap().problem.unwrap();
    assert!(problem.message.contains("requests failed"), "{problem:?}");
    source.mend("bad");
    for _ in 0..50 {
        library.list("/s/good").await;
    }
    assert_eq!(state(&library, &record), HealthState::Online);
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_connected_says_why_and_is_forgotten_when_it_is_let_go() {
    let folder = tempdir().unwrap();
    let library = Library::open(folder.path());
    let record = library.record("/s", "scripted://one");
    library.indexer.introduce(record.id, &record.name);
    assert_eq!(state(&library, &record), HealthState::Connecting);
    let problem = Problem::new("the key file is missing", "restore it");
    library
        .indexer
        .not_connected(record.id, &record.name, problem.clone(), Duration::from_secs(1));
    let health = library.indexer.health(record.id).unwrap();
    assert_eq!((health.state, health.problem), (HealthState::Offline, Some(problem)));
    library.indexer.detach(record.id);
    assert_eq!(library.indexer.health(record.id), None);
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_counted() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.directory("d");
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    library.list("/s").await;
    source.hold("d");
    let (indexer, id) = (Arc::clone(&library.indexer), library.id("/s/d"));
    let waiting = tokio::spawn(async move { indexer.list_now(id).await });
    source.until_listings("d", 1).await;
    assert_eq!(library.indexer.health(record.id).unwrap().in_flight, 1);
    source.release("d");
    waiting.await.unwrap().unwrap();
    assert_eq!(library.indexer.health(record.id).unwrap().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn scans_are_told_of() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.directory("a");
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    let mut events = library.indexer.subscribe();
    library.scan(&record).await;
    let mut told = Vec::new();
    while told.len() < 2 {
        match events.recv().await.unwrap() {
            Event::ScanBegan { generation, .. } => told.push(format!("began {generation}")),
            Event::ScanEnded { end, .. } => told.push(format!("{end:?}")),
            Event::Health(_) => {}
        }
    }
    assert_eq!(told, ["began 1", "Finished { failed: 0 }"]);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_asks_to_be_left_alone_is_and_who_has_the_time_waits() {
    let (folder, source) = (tempdir().unwrap(), source());
    source.directory("d");
    let library = Library::open(folder.path());
    let record = library.add("/s", &source);
    library.list("/s").await;
    let mut events = library.indexer.subscribe();
    source.ask_for_less(Duration::from_secs(3));
    library.indexer.list_now(record.root).await.unwrap_err();
    assert_eq!(next_state(&mut events).await, HealthState::Degraded, "it answers");
    let (asked, checked) = (source.listings_in_all(), source.checks.load(Ordering::SeqCst));
    let (indexer, id) = (Arc::clone(&library.indexer), library.id("/s/d"));
    let waiting = tokio::spawn(async move { indexer.list_now(id).await });
    tokio::time::sleep(Duration::from_millis(2_900)).await;
    assert_eq!(
        (source.listings_in_all(), source.checks.load(Ordering::SeqCst)),
        (asked, checked)
    );
    source.come_back();
    waiting.await.unwrap().expect("it was waited for, and not refused");
    assert_eq!(next_state(&mut events).await, HealthState::Online);

    source.ask_for_less(Duration::from_hours(2));
    library.indexer.list_now(record.root).await.unwrap_err();
    assert_eq!(next_state(&mut events).await, HealthState::Degraded);
    let asked = source.listings_in_all();
    let error = library.indexer.list_now(record.root).await.unwrap_err();
    assert_eq!(error.kind(), Some(ErrorKind::RateLimited), "refused at once");
    assert_eq!(source.listings_in_all(), asked);
    source.come_back();
    tokio::time::sleep(Duration::from_mins(5)).await;
    library.list("/s").await;
}

#[tokio::test(start_paused = true)]
async fn a_source_whose_credentials_cannot_be_had_is_refused_and_not_silent() {
    let folder = tempdir().unwrap();
    let library = Library::open(folder.path());
    let record = library.record("/s", "scripted://one");
    let missing = Problem::of_credentials("the secret is not there", "give it");
    let next_try = Duration::from_secs(1);
    library
        .indexer
        .not_connected(record.id, &record.name, missing, next_try);
    assert_eq!(state(&library, &record), HealthState::Refused);
    let error = library.indexer.list_now(record.root).await.unwrap_err();
    assert_eq!(error.kind(), Some(ErrorKind::CredentialsRefused), "{error}");
    // One that cannot be reached is another matter.
    let away = Problem::new("it gives no answer", "");
    library.indexer.not_connected(record.id, &record.name, away, next_try);
    assert_eq!(state(&library, &record), HealthState::Offline);
    let error = library.indexer.list_now(record.root).await.unwrap_err();
    assert_eq!(error.kind(), Some(ErrorKind::Unreachable), "{error}");
}
