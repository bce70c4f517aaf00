//! Sources that are away, copies that are refused, and others who change what is on its way.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_away_is_told_of_honestly_and_nothing_is_lost() {
    let world = World::new();
    world.library.find("x/dir/a").await.unwrap();
    world.library.find("t/b").await.unwrap();
    world.x.set_cue(Cue::IsAway);
    let refused = world.rename("x/dir/a", "t/moved").await;
    assert!(matches!(refused, Err(Error::Unreachable(_))), "{refused:?}");
    assert!(world.is_there("x/dir/a").await && !world.is_there("t/moved").await);
    world.x.set_cue(Cue::Does);
    // The target may be away: what is moved waits.
    world.t.set_cue(Cue::IsAway);
    while world.rename("x/dir/a", "t/moved").await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(world.content("t/moved").await, pattern(300_000));
    assert!(!world.is_there("x/dir/a").await);
    assert!(world.x.bytes("dir/a").is_some());
    world.t.set_cue(Cue::Does);
    world.until_settled().await;
    assert_eq!(
        (world.t.bytes("moved").unwrap(), world.x.files()),
        (pattern(300_000), vec!["b".to_owned()])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_silent_is_not_waited_for_until_the_deadline() {
    let world = World::new();
    world.library.find("x/dir/a").await.unwrap();
    world.library.find("t/b").await.unwrap();
    world.x.set_cue(Cue::IsSilent);
    for to in ["t/moved", "d/moved"] {
        let refused = world.rename("x/dir/a", to).await;
        assert!(matches!(refused, Err(Error::CrossSource)), "{to}: {refused:?}");
        assert!(!world.is_there(to).await);
    }
    assert!(world.is_there("x/dir/a").await);
    world.x.set_cue(Cue::Does);
    world.rename("x/dir/a", "t/moved").await.unwrap();
    world.until_settled().await;
    assert_eq!(world.x.files(), ["b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_goes_away_in_the_middle_is_waited_for_and_does_not_make_the_target_look_ill() {
    let world = World::new();
    world.library.find("t/b").await.unwrap();
    world.rename("x/dir/a", "t/moved").await.unwrap();
    world.x.set_cue(Cue::IsAway);
    world.until_upload(is_delayed).await;
    world.rename("t/b", "t/c").await.unwrap();
    assert!(world.is_there("t/moved").await);
    world.x.set_cue(Cue::Does);
    world.library.vfs.retry_uploads();
    world.until_settled().await;
    assert_eq!(world.t.files(), ["c", "moved"]);
    assert_eq!(world.x.files(), ["b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_taken_away_is_tried_again_and_shown() {
    let world = World::new();
    world.x.set_cue(Cue::Fails(ErrorKind::PermissionDenied));
    world.rename("x/b", "t/moved").await.unwrap();
    let refused = loop {
        let moves = world.library.vfs.moves();
        if let [one] = &moves[..]
            && matches!(one.state, MoveState::Refused { .. })
        {
            break one.clone();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(refused.is_across && refused.left == 1, "{refused:?}");
    assert_eq!((&refused.path[..], &refused.from[..]), (&b"/t/moved"[..], &b"b"[..]));
    assert_eq!(world.names("x").await, ["dir"]);
    let told = |event: &UploadEvent| matches!(event, UploadEvent::OriginalRefused { .. });
    assert!(world.events.lock().iter().any(told));
    let world = world.die_and_come_back().await;
    assert_eq!(world.names("x").await, ["dir"]);
    world.x.set_cue(Cue::Does);
    world.library.vfs.retry_uploads();
    world.until_settled().await;
    assert_eq!(world.x.files(), ["dir/a"]);
    assert_eq!(world.t.bytes("moved").unwrap(), b"b of x");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_copy_stays_in_its_former_place_and_can_be_had_back() {
    let world = World::new();
    world.t.set_cue(Cue::Fails(ErrorKind::TooLarge));
    world.rename("x/b", "t/moved").await.unwrap();
    world
        .until_upload(|state| matches!(state, UploadState::Refused { .. }))
        .await;
    assert_eq!(world.content("t/moved").await, b"b of x");
    assert_eq!(world.x.bytes("b").unwrap(), b"b of x");
    world.rename("t/moved", "x/back").await.unwrap();
    world.until_settled().await;
    assert_eq!(
        (world.x.files(), world.x.bytes("back").unwrap()),
        (vec!["back".into(), "dir/a".into()], b"b of x".to_vec())
    );
    assert_eq!(world.t.files(), ["b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_has_made_of_the_original_stays_and_is_told() {
    for copied in [false, true] {
        let world = World::new();
        world.library.find("t/b").await.unwrap();
        if copied {
            // What was read of it before it changed is sent.
            world.t.set_cue(Cue::Holds);
        }
        world.rename("x/b", "t/moved").await.unwrap();
        if copied {
            world.t.until_puts(1).await;
            world
                .until_upload(|state| matches!(state, UploadState::UnderWay { sent: 6 }))
                .await;
        }
        world.x.place("b", b"somebody else's");
        world.t.set_cue(Cue::Does);
        world.until_settled().await;
        assert_eq!(world.x.bytes("b").unwrap(), b"somebody else's");
        while world.undone() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(world.names("x").await, ["b", "dir"]);
        assert_eq!(world.content("x/b").await, b"somebody else's");
        assert_eq!(world.is_there("t/moved").await, copied);
        if copied {
            assert_eq!(world.content("t/moved").await, b"b of x", "versions never mix");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_another_removes_at_once_leaves_the_original_where_it_is() {
    let world = World::new();
    world.library.find("t/b").await.unwrap();
    world.x.set_cue(Cue::RemovesNothing);
    world.rename("x/b", "t/moved").await.unwrap();
    while !world
        .library
        .vfs
        .moves()
        .iter()
        .any(|one| matches!(one.state, MoveState::Delayed { .. }))
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.t.take("moved");
    world.x.set_cue(Cue::Does);
    world.library.vfs.retry_uploads();
    world.until_settled().await;
    assert_eq!(world.x.bytes("b").unwrap(), b"b of x");
    assert_eq!(world.undone(), 1);
    assert_eq!(world.names("x").await, ["b", "dir"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_comes_back_to_what_it_has_left_before_that_is_taken_away() {
    let world = World::new();
    world.library.find("t/b").await.unwrap();
    world.t.set_cue(Cue::Holds);
    world.rename("x/b", "t/moved").await.unwrap();
    let handle = world.create("x/b").await.unwrap();
    world.write(handle, 0, b"a new one").await;
    world.close(handle).await;
    let busy = world.rename("t/moved", "x/b").await;
    assert!(matches!(busy, Err(Error::Busy)), "{busy:?}");
    world.t.set_cue(Cue::Does);
    world.library.vfs.retry_uploads();
    world.until_settled().await;
    assert_eq!(world.x.bytes("b").unwrap(), b"a new one");
    world.rename("t/moved", "x/b").await.unwrap();
    world.until_settled().await;
    assert_eq!(world.x.bytes("b").unwrap(), b"b of x");
    assert_eq!(world.t.files(), ["b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_has_put_where_an_upload_was_not_confirmed_is_not_replaced() {
    let world = World::new();
    world.library.find("x/dir/a").await.unwrap();
    world.t.set_cue(Cue::TakesAndGoes);
    let handle = world.create("t/new").await.unwrap();
    world.write(handle, 0, b"of ours").await;
    world.close(handle).await;
    while world.t.bytes("new").is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.library.vfs.stop_uploads().await;
    world.t.place("new", b"of another");
    world.t.set_cue(Cue::Does);
    let refused = loop {
        match world.rename("x/dir/a", "t/new").await {
            // It is not known yet that the target is there again.
            Err(Error::Unreachable(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
            refused => break refused,
        }
    };
    assert!(matches!(refused, Err(Error::Busy)), "{refused:?}");
    assert_eq!(world.t.bytes("new").unwrap(), b"of another");
    assert_eq!(world.content("t/new").await, b"of ours");
    assert_eq!(world.content("x/dir/a").await, pattern(300_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_has_two_names_is_not_moved_from_the_one_to_the_other() {
    let (x, t) = (Shelf::named("s3://files"), Shelf::named("s3://files/dir"));
    x.place("dir/a", b"all there is");
    x.place("dir/b", b"and this");
    t.place("a", b"all there is");
    let world = World::over(x, t, disks(), TempDir::new().unwrap(), CrossSourceRename::Copy);
    world.library.find("t/a").await.unwrap();
    world.rename("x/dir/a", "t/a").await.unwrap();
    world.rename("x/dir/b", "t/b").await.unwrap();
    world.until_settled().await;
    assert!(world.is_there("x/dir/a").await && world.is_there("t/a").await && world.is_there("x/dir/b").await);
    assert_eq!(world.x.files(), ["dir/a", "dir/b"]);
    assert_eq!(world.t.files(), ["a"], "nothing was sent");
    world.rename("x/dir/a", "t/c").await.unwrap();
    world.until_settled().await;
    assert_eq!(world.t.bytes("c").unwrap(), b"all there is", "that is another place");
    assert_eq!(world.x.files(), ["dir/b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_replaced_from_another_source_while_it_is_open_is_read_and_written_on() {
    let world = World::new();
    let writer = world.open("t/b", Access::ReadWrite).await;
    let reader = world.open("t/b", Access::Read).await;
    world.rename("x/dir/a", "t/b").await.unwrap();
    world.until_settled().await;
    assert_eq!(world.t.bytes("b").unwrap(), pattern(300_000));
    assert_eq!(world.read(reader).await.unwrap(), b"b of t");
    world.write(writer, 6, b", written on").await;
    assert_eq!(world.read(reader).await.unwrap(), b"b of t, written on");
    world.close(writer).await;
    world.close(reader).await;
    world.until_settled().await;
    assert_eq!(world.t.bytes("b").unwrap(), pattern(300_000));
    assert_eq!(world.content("t/b").await, pattern(300_000));
}

/// Where the source has the new name of a directory already, and the catalog not yet.
#[tokio::test(flavor = "multi_thread")]
async fn an_original_goes_though_a_directory_above_is_being_renamed() {
    let world = World::new();
    world.library.find("x/dir/a").await.unwrap();
    world.t.set_cue(Cue::Holds);
    world.rename("x/dir/a", "t/a").await.unwrap();
    world.until_sent().await;
    world.x.set_cue(Cue::TellsLate);
    let arrives = async {
        world.x.until(|x| x.bytes("moved/a").is_some()).await;
        world.t.set_cue(Cue::Does);
        world.until_nothing_is_staged().await;
        world.x.until_vain_removals(1).await;
        world.x.set_cue(Cue::Does);
    };
    let (renamed, ()) = tokio::join!(world.rename("x/dir", "x/moved"), arrives);
    renamed.unwrap();
    world.library.vfs.retry_uploads();
    world.until_settled().await;
    assert_eq!(world.x.files(), ["b"]);
    assert_eq!(world.undone(), 0);
}
