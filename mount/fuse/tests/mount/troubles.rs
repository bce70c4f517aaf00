//! Sources that do not answer, and code that panics: each request gets its answer, and the mount lives on.

use std::{
    fs,
    os::unix::fs::FileExt,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use manifold_fuse::{Ended, MountOptions};
use manifold_vfs::Settings;
use rustix::io::Errno;

use crate::{
    library::{Library, errno, eventually, need_root, pattern},
    script::{Cue, Script},
};

const DEADLINE: Duration = Duration::from_millis(300);

fn troubled() -> (Arc<Script>, Library) {
    let script = Script::new();
    script.put("file", pattern(300_000));
    script.put("other", "content");
    let settings = Settings {
        data_deadline: DEADLINE,
        ..Settings::default()
    };
    let library = Library::over(Arc::clone(&script) as _, settings);
    (script, library)
}

#[test]
fn a_read_that_nobody_answers_ends_at_its_deadline() {
    let (script, library) = troubled();
    let mounted = library.mount(&MountOptions::default());
    script.cue(Cue::Silent);
    assert_eq!(errno(fs::read(mounted.path("file"))), Errno::TIMEDOUT);
    assert_eq!(
        fs::metadata(mounted.path("file"))
            .expect("what was listed is known")
            .len(),
        300_000
    );
}

#[test]
fn many_who_read_one_file_wait_for_one_deadline_together() {
    const READERS: usize = 8;
    let (script, library) = troubled();
    let mounted = library.mount(&MountOptions::default());
    let open: Vec<_> = (0..READERS)
        .map(|_| fs::File::open(mounted.path("file")).expect("it opens"))
        .collect();
    script.cue(Cue::Silent);
    // Each at a page of its own, and all of them within what the first of them makes the kernel read.
    let read = |number: usize| {
        let read = open[number].read_at(&mut [0; 10_000], number as u64 * 4096);
        assert_eq!(errno(read), Errno::TIMEDOUT);
    };
    thread::scope(|scope| {
        let read = &read;
        scope.spawn(move || read(0));
        eventually("the first has asked", || library.vfs.counters().reads_waiting > 0);
        for number in 1..READERS {
            scope.spawn(move || read(number));
        }
    });
    let late = library.vfs.counters().reads_timed_out;
    assert!(
        late < READERS as u64 / 2,
        "they have waited {late} times, one after the other"
    );
}

#[test]
fn who_waits_for_a_silent_source_holds_up_nobody_else() {
    let script = Script::new();
    // More than a kernel lets wait for reading ahead by its own choice.
    let names: Vec<String> = (0..96).map(|number| format!("file {number}")).collect();
    for name in &names {
        script.put(name, pattern(300_000));
    }
    script.put("known", pattern(200_000));
    let settings = Settings {
        data_deadline: Duration::from_mins(10),
        ..Settings::default()
    };
    let library = Library::over(Arc::clone(&script) as _, settings);
    let options = MountOptions {
        threads: 1,
        request_deadline: Duration::from_mins(10),
        ..MountOptions::default()
    };
    let mounted = library.mount(&options);
    assert_eq!(
        fs::read_dir(mounted.path("")).expect("it lists").count(),
        names.len() + 1
    );
    assert!(fs::read(mounted.path("known")).expect("it reads") == pattern(200_000));
    script.cue(Cue::Silent);
    let readers: Vec<_> = names
        .iter()
        .map(|name| {
            let path = mounted.path(name);
            thread::spawn(move || fs::read(path))
        })
        .collect();
    eventually("all have asked", || {
        library.vfs.counters().reads_waiting >= names.len() as u64
    });
    // It is in our memory, and no more in the kernel's, which has to ask.
    let known = fs::File::open(mounted.path("known")).expect("it opens");
    rustix::fs::fadvise(&known, 0, None, rustix::fs::Advice::DontNeed).expect("it is a file");
    assert!(fs::read(mounted.path("known")).expect("it reads") == pattern(200_000));
    // The one session thread is free: none of these waits for the readers.
    for _ in 0..100 {
        assert!(mounted.path("file 0").exists());
        assert!(!mounted.path("missing").exists());
        assert_eq!(fs::read_dir(mounted.root()).expect("it lists").count(), 1);
    }
    assert!(
        readers.iter().all(|reader| !reader.is_finished()),
        "the readers are still waiting"
    );
    script.cue(Cue::Answer);
    for reader in readers {
        assert!(reader.join().expect("no panic").expect("it reads") == pattern(300_000));
    }
}

#[test]
fn a_killed_reader_dies() {
    let (script, library) = troubled();
    let mounted = library.mount(&MountOptions::default());
    script.cue(Cue::Silent);
    let mut reader = Command::new("cat")
        .arg(mounted.path("file"))
        .stdout(Stdio::null())
        .spawn()
        .expect("cat");
    library.runtime.block_on(script.asked());
    reader.kill().expect("it is ours");
    // Returns at the deadline of the read at the latest.
    assert!(!reader.wait().expect("it was ours").success());
}

#[test]
fn a_panic_is_an_error_for_one_request_and_nothing_for_the_rest() {
    let (script, library) = troubled();
    let mounted = library.mount(&MountOptions::default());
    for _ in 0..8 {
        script.cue(Cue::Panic);
        // Whoever catches it, it must not be taken for a file that is not there.
        let refused = errno(fs::read(mounted.path("file")));
        assert!(matches!(refused, Errno::IO | Errno::TIMEDOUT), "{refused}");
        script.cue(Cue::Answer);
        assert_eq!(fs::read_to_string(mounted.path("other")).expect("it reads"), "content");
    }
    assert!(fs::read(mounted.path("file")).expect("it reads") == pattern(300_000));
}

#[test]
fn what_waits_when_the_runtime_ends_is_answered() {
    let (script, library) = troubled();
    let mounted = library.mount(&MountOptions {
        request_deadline: Duration::from_mins(10),
        ..MountOptions::default()
    });
    let path = mounted.path("file");
    script.cue(Cue::Silent);
    let reader = thread::spawn(move || errno(fs::read(path)));
    library.runtime.block_on(script.asked());
    let Library { runtime, .. } = library;
    runtime.shutdown_background();
    assert!(matches!(reader.join().expect("no panic"), Errno::IO | Errno::TIMEDOUT));
}

#[test]
fn a_request_that_outlives_twice_its_deadline_ends_the_mount_and_frees_who_waits() {
    need_root();
    let script = Script::new();
    script.put("file", pattern(300_000));
    // The file system's own deadline fails to be kept.
    let settings = Settings {
        data_deadline: Duration::from_hours(1),
        ..Settings::default()
    };
    let library = Library::over(Arc::clone(&script) as _, settings);
    let options = MountOptions {
        request_deadline: Duration::from_millis(200),
        ..MountOptions::default()
    };
    let mounted = library.mount(&options);
    let path = mounted.path("file");
    script.cue(Cue::Silent);
    let refused = errno(fs::read(path));
    assert!(
        matches!(refused, Errno::CONNABORTED | Errno::NOTCONN | Errno::IO),
        "{refused}"
    );
    assert_eq!(mounted.mount.wait(), Ended::GivenUp);
    assert!(
        fs::read_dir(mounted.root())
            .expect("the directory is free")
            .next()
            .is_none()
    );
    // The next mount is as good as the first.
    script.cue(Cue::Answer);
    assert!(fs::read(library.mount(&MountOptions::default()).path("file")).expect("it reads") == pattern(300_000));
}

#[test]
fn a_thread_that_is_stuck_for_good_does_not_keep_the_mount_point() {
    need_root();
    let script = Script::new();
    script.put("file", pattern(300_000));
    script.put("other", "content");
    let library = Library::over(Arc::clone(&script) as _, Settings::default());
    let options = MountOptions {
        request_deadline: Duration::from_millis(200),
        ..MountOptions::default()
    };
    let mounted = library.mount(&options);
    let open = fs::File::open(mounted.path("other")).expect("it opens");
    let path = mounted.path("file");
    script.cue(Cue::Stuck);
    let refused = errno(fs::File::open(path));
    assert!(
        matches!(refused, Errno::CONNABORTED | Errno::NOTCONN | Errno::IO),
        "{refused}"
    );
    assert_eq!(mounted.mount.wait(), Ended::GivenUp);
    let gone = errno(open.metadata());
    assert!(
        matches!(gone, Errno::CONNABORTED | Errno::NOTCONN | Errno::IO),
        "{gone}"
    );
    // The thread is stuck as ever, and what was mounted anew lives on when it comes back.
    let anew = library.mount(&MountOptions::default());
    assert_eq!(fs::read_dir(anew.path("")).expect("it lists").count(), 2);
    script.cue(Cue::Answer);
    assert!(fs::read(anew.path("file")).expect("it reads") == pattern(300_000));
}

#[test]
fn a_reader_that_is_killed_is_gone_at_once_and_what_only_he_waited_for_is_not_fetched() {
    let script = Script::new();
    let names: Vec<String> = (0..32).map(|number| format!("file {number}")).collect();
    for name in &names {
        script.put(name, pattern(300_000));
    }
    // Far beyond the test's own patience: nothing here ends by its deadline.
    let patience = Duration::from_hours(1);
    let settings = Settings {
        data_deadline: patience,
        ..Settings::default()
    };
    let library = Library::over(Arc::clone(&script) as _, settings);
    let mounted = library.mount(&MountOptions {
        request_deadline: patience,
        ..MountOptions::default()
    });
    assert_eq!(fs::read_dir(mounted.path("")).expect("it lists").count(), names.len());
    script.cue(Cue::Silent);
    let mut readers: Vec<_> = names
        .iter()
        .map(|name| {
            Command::new("cat")
                .arg(mounted.path(name))
                .stdout(Stdio::null())
                .spawn()
                .expect("cat")
        })
        .collect();
    // As many as the source likes at once have gone out; the others stand in the queue.
    while script.reads() < 8 {
        library.runtime.block_on(script.asked());
    }
    for reader in &mut readers {
        reader.kill().expect("it is ours");
        assert!(!reader.wait().expect("it was ours").success());
    }
    // Their requests are answered, so that nothing of theirs is left when the source is back.
    while library.vfs.counters().reads_waiting > 0 {
        thread::yield_now();
    }
    mounted.mount.unmount().expect("it is ours");
    mounted.mount.wait();
    script.cue(Cue::Answer);
    while library.vfs.counters().requests_in_flight > 0 {
        thread::yield_now();
    }
    assert_eq!(script.reads(), 8, "nothing but what had gone out already");
}
