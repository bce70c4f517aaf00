//! Files renamed to a folder of this machine, from servers and from other folders, by programs that know nothing but `rename`: whole on
//! the disk at once, gone at the source in the end, and whole in one of both places whenever the daemon is killed.

use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use super::*;

const FILES: usize = 40;

/// A source at `/x`, and a folder of this machine at `/t`.
struct Inward {
    folder: tempfile::TempDir,
    library: Library,
}

impl Inward {
    fn from_server(server: &Behind) -> Self {
        for number in 0..FILES {
            server.put(format!("dir/{number:02}").as_bytes(), &content(number));
        }
        if let Some(root) = server.root() {
            // What the server runs as is to take files away there too.
            run(root, "chmod 777 dir");
        }
        Self::over(tempfile::tempdir().expect("make a folder"), |library| {
            library.add_server_with(server, "/x", &[("write", "back")]);
        })
    }

    fn over(folder: tempfile::TempDir, add: impl FnOnce(&mut Library)) -> Self {
        let mut library = Library::new(User::Current);
        library.settings(SETTINGS);
        add(&mut library);
        library.add_folder(folder.path(), "/t");
        library.mount();
        Self { folder, library }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.library.at().join(path)
    }

    fn until_settled(&self) {
        let end = Instant::now() + DEADLINE;
        loop {
            let said = expect_success(self.library.command().args(["status", "--json"]));
            let status: Value = serde_json::from_str(&said).expect("JSON");
            if status["uploads"]["waiting"] == 0 && status["uploads"]["originals"] == 0 {
                return;
            }
            assert!(Instant::now() < end, "not so: {status:#}\n{}", self.library.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn names(&self, path: &str) -> Vec<String> {
        names(&self.at(path))
    }
}

fn content(number: usize) -> Vec<u8> {
    pattern(1_000 + number * 20_000, number as u64)
}

/// Runs `mv`, which is to do it with one call and copy nothing.
fn moves_at_once(library: &Library, from: &Path, to: &Path) {
    let trace = library.state().join("trace");
    let mut mv = Command::new("strace");
    mv.args([
        "-f",
        "-s",
        "4096",
        "-e",
        "trace=rename,renameat,renameat2,unlinkat,write",
        "-o",
    ]);
    expect_success(mv.arg(&trace).arg("mv").arg(from).arg(to));
    let trace = fs::read_to_string(trace).expect("read");
    let from = from.display().to_string();
    let calls: Vec<_> = trace.lines().filter(|line| line.contains(&from)).collect();
    let is_one = calls.len() == 1 && calls[0].contains("rename") && calls[0].ends_with("= 0");
    assert!(is_one, "{trace}\n{}", library.log());
}

fn files_come_to_a_folder(server: impl Server + 'static) {
    let server = Behind::proxy(server);
    let mut inward = Inward::from_server(&server);
    run(
        &inward.at("x/dir"),
        "chmod 640 07; touch -d '2001-02-03 04:05:06.789' 07; setfattr -n user.note -v hello 07",
    );
    inward.until_settled();
    let before = fs::metadata(inward.at("x/dir/07")).expect("stat");
    moves_at_once(&inward.library, &inward.at("x/dir/07"), &inward.at("t/new"));
    let on_disk = inward.folder.path().join("new");
    assert!(fs::read(&on_disk).expect("read") == content(7));
    for after in [fs::metadata(&on_disk), fs::metadata(inward.at("t/new"))] {
        let after = after.expect("stat");
        assert_eq!((after.mode(), after.len()), (before.mode(), before.len()));
        assert_eq!((after.mtime(), after.mtime_nsec()), (981_173_106, 789_000_000));
    }
    let note = expect_success(Command::new("getfattr").args(["--absolute-names", "-d"]).arg(&on_disk));
    assert!(note.contains("user.note=\"hello\""), "{note}");
    assert_eq!(fs::metadata(inward.at("t/new")).expect("stat").ino(), before.ino());
    assert!(!inward.at("x/dir/07").exists());
    // A program has it, writes to it, and nobody else is told otherwise.
    run(&inward.at("t"), "printf more >> new; test $(stat -c %s new) = 141004");
    // What stands there is left to whoever asks.
    fs::write(inward.at("t/taken"), "in the way").expect("write");
    let refused = fs::rename(inward.at("x/dir/08"), inward.at("t/taken")).expect_err("it is copied");
    assert_eq!(refused.kind(), std::io::ErrorKind::CrossesDevices);
    run(&inward.library.at(), "mv x/dir/08 t/taken");
    assert!(fs::read(inward.folder.path().join("taken")).expect("read") == content(8));
    inward.until_settled();
    for path in ["/x", "/t"] {
        expect_success(inward.library.command().args(["scan", path]));
    }
    assert_eq!(inward.names("t"), ["new", "taken"]);
    assert_eq!(inward.names("x/dir").len(), FILES - 2);
    inward.library.unmount();
    let mut look = Library::new(User::Current);
    look.settings(SETTINGS);
    look.add_server(&server, "/x");
    look.mount();
    let left = names(&look.at().join("x/dir"));
    assert!(
        left.len() == FILES - 2 && !left.iter().any(|name| name == "07" || name == "08"),
        "{left:?}"
    );
    look.unmount();
}

#[test]
fn files_come_from_an_s3_store_to_a_folder() {
    files_come_to_a_folder(SeaweedFs::start());
}

#[test]
fn files_come_from_samba_to_a_folder() {
    files_come_to_a_folder(Samba::start());
}

#[test]
fn files_come_from_an_sftp_server_to_a_folder() {
    files_come_to_a_folder(Sshd::start());
}

/// Renames all files, one after the other, and says of each when it is done.
const RENAMES: &str = "import os, sys\n\
    for name in sorted(os.listdir(sys.argv[1])):\n    \
        os.rename(os.path.join(sys.argv[1], name), os.path.join(sys.argv[2], name)); print(name, flush=True)";

fn is_whole(path: &Path) -> bool {
    let number = path.file_name().and_then(|name| name.to_str()?.parse().ok());
    number.is_some_and(|number| fs::read(path).is_ok_and(|bytes| bytes == content(number)))
}

fn files_come_though_the_daemon_is_killed(mut inward: Inward) {
    let mut acknowledged = Vec::new();
    for round in 0..6 {
        let mut python = Command::new("python3");
        python.args(["-c", RENAMES]).arg(inward.at("x/dir")).arg(inward.at("t"));
        let mut renaming = python
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("run python3");
        std::thread::sleep(Duration::from_millis(150 + 70 * round));
        inward.library.kill9();
        let said = renaming.stdout.take().expect("piped");
        acknowledged.extend(std::io::read_to_string(said).expect("read").lines().map(str::to_owned));
        renaming.wait().expect("wait");
        inward.library.mount();
        for path in ["/x", "/t"] {
            expect_success(inward.library.command().args(["scan", path]));
        }
        let (left, come) = (inward.names("x/dir"), inward.names("t"));
        for name in &acknowledged {
            assert!(come.contains(name) && !left.contains(name), "round {round}: {name}");
        }
        for number in 0..FILES {
            let name = format!("{number:02}");
            let (old, new) = (inward.at("x/dir").join(&name), inward.at("t").join(&name));
            assert!(left.contains(&name) || come.contains(&name), "round {round}: {name}");
            assert!(
                !left.contains(&name) || is_whole(&old),
                "round {round}: {name} in its old place"
            );
            assert!(
                !come.contains(&name) || is_whole(&new),
                "round {round}: {name} in its new place"
            );
            if left.contains(&name) && come.contains(&name) {
                // It came between the copy's name and what the catalog knows.
                fs::remove_file(&new).expect("remove");
            }
        }
    }
    let mut python = Command::new("python3");
    python.args(["-c", RENAMES]).arg(inward.at("x/dir")).arg(inward.at("t"));
    expect_success(&mut python);
    inward.until_settled();
    expect_success(inward.library.command().args(["scan", "/x"]));
    assert_eq!(inward.names("x/dir"), [""; 0]);
    let all: Vec<_> = (0..FILES).map(|number| format!("{number:02}")).collect();
    assert_eq!(names(inward.folder.path()), all, "and nothing besides");
    assert!(all.iter().all(|name| is_whole(&inward.folder.path().join(name))));
    inward.library.unmount();
}

#[test]
fn files_come_from_an_s3_store_to_a_folder_though_the_daemon_is_killed() {
    let server = Behind::proxy(SeaweedFs::start());
    files_come_though_the_daemon_is_killed(Inward::from_server(&server));
}

/// A folder with files, and a library that has it at `/x` and another at `/t`.
fn from_folder(to: tempfile::TempDir) -> (tempfile::TempDir, Inward) {
    let from = tempfile::tempdir().expect("make a folder");
    fs::create_dir(from.path().join("dir")).expect("make a folder");
    for number in 0..FILES {
        fs::write(from.path().join(format!("dir/{number:02}")), content(number)).expect("write");
    }
    let inward = Inward::over(to, |library| library.add_folder(from.path(), "/x"));
    (from, inward)
}

fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").expect("make a folder in memory")
}

#[test]
fn files_come_from_another_disk_though_the_daemon_is_killed() {
    let (_from, inward) = from_folder(in_memory());
    files_come_though_the_daemon_is_killed(inward);
}

#[test]
fn files_come_from_a_folder_beside_it_though_the_daemon_is_killed() {
    let (_from, inward) = from_folder(tempfile::tempdir().expect("make a folder"));
    files_come_though_the_daemon_is_killed(inward);
}

#[test]
fn files_go_from_one_folder_to_another() {
    for to in [tempfile::tempdir().expect("make a folder"), in_memory()] {
        let (from, mut inward) = from_folder(to);
        let device = |path: &Path| fs::metadata(path).expect("stat").dev();
        let is_beside = device(from.path()) == device(inward.folder.path());
        run(
            &inward.at("x/dir"),
            "setfattr -n user.note -v hello 03; chmod 2751 03; touch -d 2001-02-03 03",
        );
        let (old, new) = (from.path().join("dir/03"), inward.folder.path().join("new"));
        let before = fs::metadata(&old).expect("stat");
        moves_at_once(&inward.library, &inward.at("x/dir/03"), &inward.at("t/new"));
        let after = fs::metadata(&new).expect("stat");
        assert_eq!(
            (after.mode(), after.mtime(), after.len()),
            (before.mode(), before.mtime(), before.len())
        );
        assert_eq!(after.ino() == before.ino(), is_beside);
        assert!(fs::read(inward.at("t/new")).expect("read") == content(3));
        if is_beside {
            // As an editor saves.
            fs::rename(inward.at("x/dir/04"), inward.at("t/new")).expect("rename over it");
            assert!(fs::read(&new).expect("read") == content(4));
        }
        inward.until_settled();
        assert!(!old.exists());
        assert_eq!(names(inward.folder.path()), ["new"]);
        inward.library.unmount();
    }
}

const LINKS: &[(&str, &str)] = &[("write", "back"), ("links", "objects")];

#[test]
fn links_go_by_themselves_from_a_folder_to_an_s3_store_and_back() {
    let server = Behind::proxy(SeaweedFs::start());
    let folder = tempfile::tempdir().expect("make a folder");
    let mut inward = Inward::over(folder, |library| library.add_server_with(&server, "/x", LINKS));
    run(&inward.at("t"), "ln -s some/where link; touch -h -d 2001-02-03 link");
    let before = fs::symlink_metadata(inward.at("t/link")).expect("stat");
    moves_at_once(&inward.library, &inward.at("t/link"), &inward.at("x/link"));
    for _ in 0..2 {
        let now = fs::symlink_metadata(inward.at("x/link")).expect("stat");
        assert_eq!((now.ino(), now.mtime()), (before.ino(), before.mtime()));
        assert_eq!(
            fs::read_link(inward.at("x/link")).expect("a link"),
            Path::new("some/where")
        );
        inward.until_settled();
        expect_success(inward.library.command().args(["scan", "/x"]));
        assert_eq!(
            (inward.names("x"), names(inward.folder.path())),
            (vec!["link".to_owned()], vec![])
        );
        inward.library.kill9();
        inward.library.mount();
    }
    moves_at_once(&inward.library, &inward.at("x/link"), &inward.at("t/back"));
    assert_eq!(
        fs::read_link(inward.folder.path().join("back")).expect("a link"),
        Path::new("some/where")
    );
    inward.until_settled();
    expect_success(inward.library.command().args(["scan", "/x"]));
    assert_eq!(
        (inward.names("x"), inward.names("t")),
        (vec![], vec!["back".to_owned()])
    );
    inward.library.unmount();
}

#[test]
fn a_link_comes_from_an_sftp_server_to_a_folder() {
    let server = Behind::proxy(Sshd::start());
    std::os::unix::fs::symlink("some/where", server.root().expect("a folder").join("link")).expect("make a link");
    let folder = tempfile::tempdir().expect("make a folder");
    let mut inward = Inward::over(folder, |library| {
        library.add_server_with(&server, "/x", &[("write", "back")]);
    });
    moves_at_once(&inward.library, &inward.at("x/link"), &inward.at("t/link"));
    assert_eq!(
        fs::read_link(inward.folder.path().join("link")).expect("a link"),
        Path::new("some/where")
    );
    inward.until_settled();
    assert_eq!(names(server.root().expect("a folder")), [""; 0]);
    // One that holds no links leaves it to whoever asks, who is told.
    let refused = fs::rename(inward.at("t/link"), inward.at("x/back")).expect_err("it has no links");
    assert_eq!(refused.kind(), std::io::ErrorKind::CrossesDevices);
    inward.library.unmount();
}
