//! Reading from a source that answers late, or not at all.

use super::*;

#[tokio::test(start_paused = true)]
async fn readers_who_ask_a_silent_source_one_after_another_do_not_each_wait_for_a_deadline() {
    let source = source();
    source.put("f", MIB, 1);
    let library = library(&source, settings());
    let file = library.open("s/f").await;
    source.set_mood(Mood::Holds);
    let begun = tokio::time::Instant::now();
    // As the kernel does it, when several readers wait for one page.
    for reader in 0..5 {
        let error = library.read(&file, 0, 4096).await.unwrap_err();
        // Whoever waited is told so; whoever came later is told that the source is out of reach.
        let right = match reader {
            0 => matches!(error, Error::TimedOut(_)),
            _ => matches!(error, Error::TimedOut(_) | Error::Unreachable(_)),
        };
        assert!(right, "reader {reader}: {error}");
    }
    let limit = Settings::default().data_deadline + Duration::from_secs(3);
    assert!(begun.elapsed() < limit, "{:?}", begun.elapsed());

    source.set_mood(Mood::Answers);
    let back = async {
        while library.read(&file, 0, 4096).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3), back)
        .await
        .expect("whoever reads brings the source back");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_never_answers_is_given_up_at_the_deadline() {
    let source = source();
    source.put("f", MIB, 1);
    let library = library(&source, settings());
    let file = library.open("s/f").await;
    source.set_mood(Mood::Holds);
    let begun = tokio::time::Instant::now();
    let (first, second) = tokio::join!(library.read(&file, 0, 4096), library.read(&file, 500_000, 4096));
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert!(matches!(error, Error::TimedOut(_)), "{error}");
    }
    assert_eq!(begun.elapsed().as_secs(), 10);
    // A kernel asks once more for the page that it needs, after its reading ahead has failed.
    let error = library.read(&file, 0, 10).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut(_)), "{error}");
    assert_eq!(begun.elapsed().as_secs(), 10, "whoever reads has waited long enough");
    source.set_mood(Mood::Answers);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(
        library.read(&file, 0, 10).await.unwrap(),
        truth(1, 0..10),
        "it is asked again"
    );
}

#[tokio::test(start_paused = true)]
async fn whoever_waited_for_a_source_that_refuses_slowly_is_told_that_it_cannot_be_reached() {
    let source = source();
    source.put("f", MIB, 1);
    let library = library(&source, settings());
    let file = library.open("s/f").await;
    let begun = tokio::time::Instant::now();
    source.set_mood(Mood::FailsSlowly(ErrorKind::Unreachable));
    let error = library.read(&file, 0, 4096).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable(_)), "{error}");
    assert_eq!(begun.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_what_another_reads_too_late_is_told_with_him() {
    let source = source();
    source.put("f", MIB, 1);
    let library = library(&source, settings());
    let (first, second) = (library.open("s/f").await, library.open("s/f").await);
    source.set_mood(Mood::Holds);
    let begun = tokio::time::Instant::now();
    assert!(matches!(library.read(&first, 0, 4096).await, Err(Error::TimedOut(_))));
    // A kernel has let the second reader wait for the page of the first, and asks for him only now.
    assert!(matches!(library.read(&second, 0, 10).await, Err(Error::TimedOut(_))));
    assert_eq!(begun.elapsed().as_secs(), 10, "both have waited for as long");
}

#[tokio::test(start_paused = true)]
async fn a_read_that_fails_a_moment_before_its_deadline_is_not_waited_for_twice() {
    let source = source();
    source.put("f", MIB, 1);
    let library = library(&source, settings());
    let file = library.open("s/f").await;
    source.set_mood(Mood::Holds);
    let begun = tokio::time::Instant::now();
    let first = tokio::spawn(library.vfs.read(file.handle, 0, 4096).wait());
    tokio::time::sleep(Duration::from_millis(9_900)).await;
    source.set_mood(Mood::Fails(ErrorKind::Unreachable));
    first.await.unwrap().unwrap_err();
    // Nobody answers whether it is there, either.
    source.set_mood(Mood::Holds);
    library.read(&file, 0, 10).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_costs_another_nothing() {
    let (hangs, answers) = (source(), Scripted::new("test://two", BLOCK as u32, MIB as u32, 8));
    hangs.put("f", 64 * MIB, 1);
    answers.put("f", MIB, 2);
    let sources = [
        ("hangs", Arc::clone(&hangs) as Arc<dyn Backend>),
        ("answers", Arc::clone(&answers) as Arc<dyn Backend>),
    ];
    let library = Library::new(
        &sources,
        Settings {
            memory_bytes: MIB,
            ..Settings::default()
        },
    );
    let (bad, good) = (library.open("hangs/f").await, library.open("answers/f").await);
    hangs.set_mood(Mood::Holds);
    let mut stuck = JoinSet::new();
    for reader in 0..64 {
        stuck.spawn(library.vfs.read(bad.handle, reader * MIB, BLOCK as u32).wait());
    }
    hangs.until_reads(1).await;
    let begun = tokio::time::Instant::now();
    read_through(&library, &good, 2, 64 << 10).await;
    assert!(begun.elapsed() < Duration::from_secs(1));
    stuck.shutdown().await;
}
