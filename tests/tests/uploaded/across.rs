//! Files renamed from one source to another, by programs that know nothing but `rename`: shown there at once, whole all the while,
//! and at the one source alone in the end, though the daemon is killed and lines fail.

use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;

const FILES: usize = 12;

/// Where files are moved from.
enum Former {
    Folder(tempfile::TempDir),
    Server(Behind),
}

/// Two sources, at `/x` and `/t`, and a library over both.
struct Two {
    former: Former,
    target: Behind,
    library: Library,
}

impl Two {
    fn over(former: Former, target: impl Server + 'static) -> Self {
        let target = Behind::proxy(target);
        let mut library = Library::new(User::Current);
        library.settings(SETTINGS);
        for number in 0..FILES {
            former.put(&format!("dir/{number:02}"), &content(number));
        }
        former.put(BIG, &pattern(BIG_BYTES, 1));
        match &former {
            Former::Folder(folder) => library.add_folder(folder.path(), "/x"),
            Former::Server(server) => library.add_server_with(server, "/x", &[("write", "back")]),
        }
        library.add_server_with(&target, "/t", &[("write", "back")]);
        library.mount();
        Self {
            former,
            target,
            library,
        }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.library.at().join(path)
    }

    fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) {
        let end = Instant::now() + DEADLINE;
        loop {
            let said = expect_success(self.library.command().args(["status", "--json"]));
            let status: Value = serde_json::from_str(&said).expect("JSON");
            if holds(&status["uploads"]) {
                return;
            }
            let uploads = expect_success(self.library.command().arg("uploads"));
            assert!(
                Instant::now() < end,
                "not so: {what}: {status:#}\n{uploads}\n{}",
                self.library.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn until_settled(&self) {
        self.until("all has arrived, and no original is left", |uploads| {
            uploads["waiting"] == 0 && uploads["originals"] == 0
        });
    }

    /// Renames by `rename(2)`, and does nothing else.
    fn rename(&self, from: &str, to: &str) {
        let mut python = Command::new("python3");
        python.args(["-c", "import os, sys; os.rename(sys.argv[1], sys.argv[2])"]);
        expect_success(python.arg(self.at(from)).arg(self.at(to)));
    }

    fn names(&self, path: &str) -> Vec<String> {
        names(&self.at(path))
    }

    /// Looks at both sources, as a library that has never seen them: what each of them holds.
    fn look(&self) -> [Vec<(String, Vec<u8>)>; 2] {
        let mut library = Library::new(User::Current);
        library.settings(SETTINGS);
        match &self.former {
            Former::Folder(folder) => library.add_folder(folder.path(), "/x"),
            Former::Server(server) => library.add_server(server, "/x"),
        }
        library.add_server(&self.target, "/t");
        library.mount();
        let held = ["x", "t"].map(|source| {
            let root = library.at().join(source);
            let mut held = Vec::new();
            let mut folders = vec![root.clone()];
            while let Some(folder) = folders.pop() {
                for name in names(&folder) {
                    let path = folder.join(name);
                    if path.is_dir() {
                        folders.push(path);
                    } else {
                        let name = path.strip_prefix(&root).expect("beneath it").display().to_string();
                        held.push((name, fs::read(&path).expect("read")));
                    }
                }
            }
            held.sort();
            held
        });
        library.unmount();
        held
    }
}

impl Former {
    fn put(&self, path: &str, bytes: &[u8]) {
        match self {
            Self::Server(server) => {
                server.put(path.as_bytes(), bytes);
                // What the server runs as is to take files away there too.
                if let (Some(root), Some(folder)) = (server.root(), Path::new(path).parent()) {
                    fs::set_permissions(root.join(folder), fs::Permissions::from_mode(0o777)).expect("chmod");
                }
            }
            Self::Folder(folder) => {
                let path = folder.path().join(path);
                fs::create_dir_all(path.parent().expect("it has one")).expect("make a folder");
                fs::write(path, bytes).expect("write");
            }
        }
    }
}

fn content(number: usize) -> Vec<u8> {
    pattern(1_000 + number * 30_000, number as u64)
}

fn files_move(former: Former, target: impl Server + 'static) {
    let mut two = Two::over(former, target);
    let before = fs::metadata(two.at("x").join(BIG)).expect("stat");
    // What is open in a folder stays there.
    let is_remote = matches!(two.former, Former::Server(_));
    let mut open = is_remote.then(|| fs::File::open(two.at("x").join(BIG)).expect("open"));
    if !is_remote {
        fs::set_permissions(two.at("x").join(BIG), fs::Permissions::from_mode(0o600)).expect("chmod");
    }
    two.rename(&format!("x/{BIG}"), "t/moved");
    let after = fs::metadata(two.at("t/moved")).expect("stat");
    assert_eq!((after.ino(), after.len()), (before.ino(), before.len()));
    assert_eq!(
        (after.mtime(), after.mtime_nsec()),
        (before.mtime(), before.mtime_nsec())
    );
    assert!(
        fs::read(two.at("t/moved")).expect("read") == pattern(BIG_BYTES, 1),
        "at once"
    );
    assert_eq!(two.names("x"), ["dir"]);
    // One call, and nothing is copied.
    let trace = two.library.state().join("trace");
    let mut strace = Command::new("strace");
    strace.args([
        "-f",
        "-s",
        "4096",
        "-e",
        "trace=rename,renameat,renameat2,unlinkat,write,copy_file_range,ioctl",
        "-o",
    ]);
    strace.arg(&trace).arg("mv").arg(two.at("x/dir/03")).arg(two.at("t/03"));
    expect_success(&mut strace);
    let trace = fs::read_to_string(trace).expect("read");
    let calls = trace
        .lines()
        .filter(|line| line.contains("/x/dir/03"))
        .collect::<Vec<_>>();
    assert!(
        calls.len() == 1 && calls[0].contains("rename") && calls[0].ends_with("= 0"),
        "{trace}"
    );
    two.until_settled();
    assert!(
        fs::read(two.at("t/moved")).expect("read") == pattern(BIG_BYTES, 1),
        "in the end"
    );
    if let Some(open) = &mut open {
        let mut bytes = Vec::new();
        open.read_to_end(&mut bytes).expect("read");
        assert!(bytes == pattern(BIG_BYTES, 1), "through a handle from before");
    }
    expect_success(two.library.command().args(["scan", "/x"]));
    expect_success(two.library.command().args(["scan", "/t"]));
    assert_eq!(
        (two.names("x"), two.names("t")),
        (vec!["dir".to_owned()], vec!["03".into(), "moved".into()])
    );
    let now = fs::metadata(two.at("t/moved")).expect("stat");
    assert_eq!(
        (now.ino(), now.mode(), now.mtime()),
        (after.ino(), after.mode(), after.mtime())
    );
    let [left, moved] = two.look();
    assert!(left.len() == FILES - 1 && left.iter().all(|(name, _)| name != "dir/03"));
    assert!(
        moved
            == [
                ("03".to_owned(), content(3)),
                ("moved".to_owned(), pattern(BIG_BYTES, 1))
            ]
    );
    two.library.unmount();
}

fn folder() -> Former {
    Former::Folder(tempfile::tempdir().expect("make a folder"))
}

fn server(server: impl Server + 'static) -> Former {
    Former::Server(Behind::proxy(server))
}

#[test]
fn files_move_from_a_folder_to_an_s3_store() {
    files_move(folder(), SeaweedFs::start());
}

#[test]
fn files_move_from_an_s3_store_to_samba() {
    files_move(server(SeaweedFs::start()), Samba::start());
}

#[test]
fn files_move_from_an_sftp_server_to_an_s3_store() {
    files_move(server(Sshd::start()), SeaweedFs::start());
}

#[test]
fn files_move_from_samba_to_a_webdav_server() {
    files_move(server(Samba::start()), Apache::start());
}

#[test]
fn files_move_from_a_webdav_server_to_an_sftp_server() {
    files_move(server(Apache::start()), Sshd::start());
}

fn files_move_though_the_daemon_is_killed(former: Former, target: impl Server + 'static) {
    let mut two = Two::over(former, target);
    assert_eq!(two.names("x/dir").len(), FILES);
    let new_names: Vec<_> = (0..FILES).map(|number| format!("{number:02}")).collect();
    for round in 0..4 {
        // Some arrive, some are on their way, some have not begun.
        two.target.line().fail(Fault::Cut { after: 100_000 });
        for number in round * 3..round * 3 + 3 {
            two.rename(&format!("x/dir/{number:02}"), &format!("t/{number:02}"));
        }
        std::thread::sleep(Duration::from_millis(150 * round as u64));
        two.library.kill9();
        two.target.line().heal();
        two.library.mount();
        let moved = &new_names[..round * 3 + 3];
        assert_eq!(two.names("t"), moved, "round {round}");
        assert_eq!(two.names("x/dir"), &new_names[round * 3 + 3..], "round {round}");
        for (number, name) in moved.iter().enumerate() {
            let read = fs::read(two.at("t").join(name)).expect("read");
            assert!(read == content(number), "round {round}: {name}");
        }
    }
    two.until_settled();
    let [left, moved] = two.look();
    assert_eq!(left.into_iter().map(|(name, _)| name).collect::<Vec<_>>(), [BIG]);
    let expected = (0..FILES).map(|number| (format!("{number:02}"), content(number)));
    assert!(moved.into_iter().eq(expected), "each is there once, whole");
    two.library.unmount();
}

#[test]
fn files_move_from_a_folder_though_the_daemon_is_killed() {
    files_move_though_the_daemon_is_killed(folder(), SeaweedFs::start());
}

#[test]
fn files_move_from_an_sftp_server_though_the_daemon_is_killed() {
    files_move_though_the_daemon_is_killed(server(Sshd::start()), SeaweedFs::start());
}

#[test]
fn mv_from_a_source_that_is_away_says_so_and_loses_nothing() {
    let mut two = Two::over(server(SeaweedFs::start()), Samba::start());
    assert_eq!((two.names("x/dir").len(), two.names("t").len()), (FILES, 0));
    let Former::Server(former) = &two.former else {
        unreachable!("it is one")
    };
    former.line().fail(Fault::Refuse);
    let mut mv = Command::new("mv");
    let refused = mv.arg(two.at("x/dir/01")).arg(two.at("t/01")).output().expect("run mv");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && (said.contains("No route to host") || said.contains("timed out")),
        "{said}"
    );
    assert_eq!((two.names("x/dir").len(), two.names("t").len()), (FILES, 0));
    former.line().heal();
    let end = Instant::now() + DEADLINE;
    while !Command::new("mv")
        .arg(two.at("x/dir/01"))
        .arg(two.at("t/01"))
        .status()
        .expect("run mv")
        .success()
    {
        assert!(Instant::now() < end, "it is never back: {}", two.library.log());
    }
    // Away again before it has arrived: it waits, under its new name.
    two.target.line().fail(Fault::Refuse);
    two.rename("x/dir/02", "t/02");
    let told = expect_success(two.library.command().arg("uploads"));
    assert!(told.contains("moved from /x/dir/02"), "{told}");
    assert!(fs::read(two.at("t/02")).expect("read") == content(2));
    two.target.line().heal();
    two.until_settled();
    let [left, moved] = two.look();
    assert_eq!(left.len(), FILES - 1);
    assert!(moved == [("01".to_owned(), content(1)), ("02".to_owned(), content(2))]);
    two.library.unmount();
}

#[test]
fn a_file_at_a_server_of_two_addresses_is_not_taken_for_two() {
    let server = SeaweedFs::start();
    let other_address = server.endpoint().replace("127.0.0.1", "localhost");
    let mut library = Library::new(User::Current);
    library.settings(SETTINGS);
    library.add_server_with(&server, "/x", &[("write", "back")]);
    library.add_server_with(&server, "/t", &[("write", "back"), ("endpoint", &other_address)]);
    server.put(b"dir/file", b"all there is");
    library.mount();
    let (one, other) = (library.at().join("x/dir/file"), library.at().join("t/dir/file"));
    assert_eq!(fs::read(&one).expect("read"), b"all there is");
    assert_eq!(fs::read(&other).expect("read"), b"all there is");
    fs::rename(&one, &other).expect("rename");
    let settled = |status: &Value| status["uploads"]["waiting"] == 0 && status["uploads"]["originals"] == 0;
    let end = Instant::now() + DEADLINE;
    loop {
        let said = expect_success(library.command().args(["status", "--json"]));
        if settled(&serde_json::from_str(&said).expect("JSON")) {
            break;
        }
        assert!(Instant::now() < end, "it never settles: {said}\n{}", library.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(server.has(b"dir/file"), "{}", library.log());
    assert_eq!(fs::read(&other).expect("read"), b"all there is");
    library.unmount();
}

#[test]
fn a_strict_library_leaves_the_copying_to_whoever_asks() {
    let mut two = Two::over(folder(), SeaweedFs::start());
    two.library.unmount();
    two.library
        .settings(&format!("{SETTINGS}[mount]\nrename = \"strict\"\n"));
    two.library.mount();
    let refused = fs::rename(two.at("x/dir/01"), two.at("t/01")).expect_err("strict");
    assert_eq!(refused.kind(), std::io::ErrorKind::CrossesDevices);
    run(&two.library.at(), "mv x/dir/01 t/01; mv x/dir t/");
    two.until_settled();
    let [left, moved] = two.look();
    assert_eq!((left.len(), moved.len()), (1, FILES));
    two.library.unmount();
}

#[test]
fn what_rename_does_not_do_mv_does() {
    let mut two = Two::over(server(Sshd::start()), SeaweedFs::start());
    run(&two.library.at(), "mv x/dir t/dir");
    assert_eq!(two.names("t/dir").len(), FILES);
    two.until_settled();
    let [left, moved] = two.look();
    assert_eq!((left.len(), moved.len()), (1, FILES));
    two.library.unmount();
}
