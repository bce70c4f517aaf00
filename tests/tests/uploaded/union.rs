//! A union of two folders and a server: programs work in it as in one folder, and each file is whole at one member.

use std::os::unix::fs::MetadataExt;

use tempfile::TempDir;

use super::*;

const UNION: &str = "[deadlines]\nconnect = \"2 s\"\ndata = \"5 s\"\nmetadata = \"5 s\"\n\
    [[union]]\nat = \"/u\"\nmembers = [\"a\", \"b\", \"s\"]\nmin_free = 0\n\
    rules = [{ glob = \"*.far\", member = \"s\" }, { glob = \"far/**\", member = \"s\" }, { glob = \"*.b\", member = \"b\" }]\n";

struct Union {
    server: Behind,
    library: Library,
    a: TempDir,
    b: TempDir,
}

impl Union {
    fn over(server: impl Server + 'static) -> Self {
        Self::with(server, &[("write", "back")])
    }

    fn with(server: impl Server + 'static, settings: &[(&str, &str)]) -> Self {
        let server = Behind::proxy(server);
        server.put(b"both/at-server", b"server");
        let (a, b) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
        for (folder, name) in [(&a, "at-a"), (&b, "at-b")] {
            fs::create_dir(folder.path().join("both")).expect("make a folder");
            fs::write(folder.path().join("both").join(name), name).expect("write");
            fs::write(folder.path().join("both/twice"), name).expect("write");
        }
        let mut library = Library::new(User::Current);
        library.settings(UNION);
        library.add_folder(a.path(), "/u/a");
        library.add_folder(b.path(), "/u/b");
        library.add_server_with(&server, "/u/s", settings);
        library.mount();
        Self { server, library, a, b }
    }

    fn at(&self) -> PathBuf {
        self.library.at().join("u")
    }

    fn until_uploaded(&self) {
        let end = Instant::now() + DEADLINE;
        loop {
            let said = expect_success(self.library.command().args(["status", "--json"]));
            let status: Value = serde_json::from_str(&said).expect("JSON");
            if status["uploads"]["waiting"] == 0 {
                return;
            }
            assert!(Instant::now() < end, "not uploaded: {status:#}\n{}", self.library.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn remount(&mut self) {
        self.library.unmount();
        self.library.mount();
    }
}

/// What programs do, in the union and in a plain folder alike.
const WORK: &str = r#"
    mkdir -p one/two/three far/deep
    printf 1 > one/two/file.far; printf 2 > one/two/file.b; printf 3 > one/two/file
    mv one/two/file.far one/file; mv one/two/file.b far/deep/here; mv one/two/file both/replaced
    printf new > both/replaced.b; mv both/replaced.b both/replaced
    mv both renamed; mv renamed/at-b one/two/three/; mkdir renamed/empty.b; rmdir renamed/empty.b
    ln one/file one/again 2>/dev/null || cp one/file one/again
    printf x > far/x; printf y > far/y.b; rm -r far/deep; mv far one/two/far
    cp -a "$1" copied; rsync -a "$1"/ synced; rsync -a "$1"/ synced
    cp -a copied copied.far; mv copied.far one/
    tar cf all.tar one; mkdir untarred; tar xf all.tar -C untarred; rm all.tar
    mkdir -p gone/a gone/b gone/c.b; printf 1 > gone/a/1.far; printf 2 > gone/b/2.b; rm -r gone
    git init -q work; cd work; git config user.email a@b.c; git config user.name n
    cp -r "$1" tree; git add -A; git commit -qm one; printf more >> tree/text; git commit -qam two
    git gc -q; git fsck --strict; git clone -q . ../clone; git checkout -q HEAD~1; git checkout -q -; git status --porcelain
"#;

fn work(folder: &Path, tree: &Path) {
    let mut shell = Command::new("sh");
    shell.args(["-euc", WORK, "sh"]).arg(tree).current_dir(folder);
    expect_success(&mut shell);
}

/// The tree of a folder, but for what git makes of the time.
fn is_like(folder: &Path, mirror: &Path) {
    let mut diff = Command::new("diff");
    expect_success(diff.args(["-r", "-x", ".git"]).arg(mirror).arg(folder));
}

fn a_union_is_worked_in(union: &mut Union) {
    let tree = tempfile::tempdir().expect("make a folder");
    run(
        tree.path(),
        "mkdir -p d/e; printf text > text; printf b > d/it.b; printf far > d/e/it.far; dd if=/dev/urandom of=d/big.far bs=64k count=9 2>/dev/null; touch -d '2003-03-03 UTC' d/it.b d/e",
    );
    let mirror = tempfile::tempdir().expect("make a folder");
    run(
        mirror.path(),
        "mkdir both; cd both; printf at-a > at-a; printf at-b > at-b; printf server > at-server; printf at-a > twice",
    );
    let at = union.at();
    is_like(&at, mirror.path());
    let number = fs::metadata(at.join("both")).expect("it is there").ino();
    let said = expect_success(union.library.command().args(["stat", "/u/both/twice"]));
    assert!(
        said.contains("/u/a/both/twice") && said.contains("hides     /u/b/both/twice"),
        "{said}"
    );
    let said = expect_success(union.library.command().arg("status"));
    assert!(said.contains("union    /u: /u/a, /u/b, /u/s"), "{said}");
    assert_eq!(
        expect_success(union.library.command().args(["ls", "/u"])).trim(),
        "both"
    );
    work(&at, tree.path());
    work(mirror.path(), tree.path());
    is_like(&at, mirror.path());
    let again = expect_success(
        Command::new("rsync")
            .arg("-ain")
            .arg(format!("{}/", tree.path().display()))
            .arg(at.join("synced")),
    );
    assert_eq!(again, "", "nothing is left to be copied");
    assert_eq!(fs::metadata(at.join("renamed")).expect("it is there").ino(), number);
    // What was hidden went along, and each is where it was placed.
    assert_eq!(fs::read(union.b.path().join("renamed/twice")).expect("read"), b"at-b");
    assert!(union.a.path().join("copied/text").exists() && union.b.path().join("copied/d/it.b").exists());
    union.until_uploaded();
    union.remount();
    is_like(&at, mirror.path());
    assert_eq!(fs::metadata(at.join("renamed")).expect("it is there").ino(), number);
    expect_success(union.library.command().args(["scan", "/u"]));
    is_like(&at, mirror.path());
    let mut look = Library::new(User::Current);
    look.add_server_with(&union.server, "/s", &[]);
    look.mount();
    let far = fs::read(look.at().join("s/copied/d/big.far")).expect("it arrived");
    assert!(far == fs::read(tree.path().join("d/big.far")).expect("read"));
    assert_eq!(
        fs::read(look.at().join("s/renamed/at-server")).expect("it was renamed"),
        b"server"
    );
    look.unmount();
    // What others make at a member shows, in what is merged too.
    fs::write(union.b.path().join("renamed/foreign"), "foreign").expect("write");
    expect_success(union.library.command().args(["scan", "/u/renamed"]));
    assert_eq!(fs::read(at.join("renamed/foreign")).expect("it shows"), b"foreign");
    run(&at, "rm -r *");
    run(&at, r#"test -z "$(ls -A)""#);
    assert_eq!(fs::read_dir(union.a.path()).expect("list").count(), 0);
    assert_eq!(fs::read_dir(union.b.path()).expect("list").count(), 0);
    union.library.unmount();
}

#[test]
fn a_union_with_a_share_is_worked_in_as_a_folder() {
    a_union_is_worked_in(&mut Union::over(Samba::start()));
}

#[test]
fn a_union_with_an_s3_store_is_worked_in_as_a_folder() {
    a_union_is_worked_in(&mut Union::over(SeaweedFs::start()));
}

#[test]
fn a_member_that_is_away_hides_nothing_and_takes_nothing() {
    let mut union = Union::over(Samba::start());
    let at = union.at();
    run(&at, "find . > /dev/null; printf far > one.far");
    union.until_uploaded();
    union.server.line().fail(Fault::Refuse);
    run(
        &at,
        "test -e both/at-server; ls both | grep -q at-server; printf 1 > both/new",
    );
    assert!(union.a.path().join("both/new").exists());
    // What is to go there goes elsewhere once that is known.
    let end = Instant::now() + DEADLINE;
    loop {
        let said = expect_success(union.library.command().args(["status", "--json"]));
        let status: Value = serde_json::from_str(&said).expect("JSON");
        let sources = status["sources"].as_array().expect("a list");
        if sources
            .iter()
            .any(|it| it["attach"] == "/u/s" && it["state"] == "offline")
        {
            break;
        }
        assert!(Instant::now() < end, "it is not seen to be away: {status:#}");
    }
    run(
        &at,
        "printf 2 > both/two.far; mv both/new both/renamed; ! rm both/at-server 2>/dev/null; test -e both/at-server",
    );
    assert!(union.a.path().join("both/two.far").exists());
    union.server.line().heal();
    union.library.unmount();
}

#[test]
fn what_is_removed_from_a_member_comes_back_to_it() {
    let mut union = Union::with(Samba::start(), &[("write", "back"), ("trash", "true")]);
    let at = union.at();
    let trash = |arguments: &[&str]| expect_success(union.library.command().arg("trash").args(arguments));
    run(
        &at,
        "mkdir -p far/deep; printf one > far/deep/one; printf two > both/two.far",
    );
    union.until_uploaded();
    run(&at, "rm -r far; rm both/two.far both/at-server");
    let listed = trash(&[]);
    assert!(
        listed.contains("/u/far/deep/one") && listed.contains("/u/both/at-server"),
        "{listed}"
    );
    let listed: Value = serde_json::from_str(&trash(&["--json"])).expect("JSON");
    assert_eq!(listed.as_array().map(Vec::len), Some(3), "{listed}");
    trash(&["restore", "/u/far"]);
    // As `manifold stat` tells of it.
    trash(&["restore", "/u/s/both/two.far"]);
    run(
        &at,
        "test \"$(cat far/deep/one)\" = one; test \"$(cat both/two.far)\" = two; test ! -e both/at-server",
    );
    assert!(!union.a.path().join("far/deep/one").exists() && !union.b.path().join("far/deep/one").exists());
    run(&at, "printf mine > both/at-server");
    let refused = union
        .library
        .command()
        .args(["trash", "restore", "/u/both/at-server"])
        .output()
        .expect("run it");
    assert!(!refused.status.success(), "nothing is replaced");
    run(&at, "test \"$(cat both/at-server)\" = mine");
    trash(&["empty", "--yes"]);
    assert!(trash(&[]).contains("empty"));
    union.until_uploaded();
    let mut look = Library::new(User::Current);
    look.add_server_with(&union.server, "/s", &[]);
    look.mount();
    run(
        &look.at().join("s"),
        "test \"$(cat far/deep/one)\" = one; test \"$(cat both/two.far)\" = two; test -z \"$(find .manifold-trash -type f)\"",
    );
    look.unmount();
    union.library.unmount();
}

#[test]
fn what_two_members_have_removed_under_one_name_is_told_and_comes_back_together() {
    let servers = [Behind::proxy(Samba::start()), Behind::proxy(Samba::start())];
    let mut library = Library::new(User::Current);
    library.settings("[[union]]\nat = \"/u\"\nmembers = [\"one\", \"two\"]\nmin_free = 0\n");
    for (server, name) in servers.iter().zip(["one", "two"]) {
        server.put(b"d/x", name.as_bytes());
        library.add_server_with(server, &format!("/u/{name}"), &[("write", "back"), ("trash", "true")]);
    }
    library.mount();
    let at = library.at().join("u");
    let trash = |arguments: &[&str]| expect_success(library.command().arg("trash").args(arguments));
    run(&at, "rm -r d");
    let listed: Value = serde_json::from_str(&trash(&["--json"])).expect("JSON");
    assert_eq!(listed[0]["path"], "/u/d/x", "{listed}");
    assert_eq!(listed[0]["hidden"][0], "/u/two/d/x", "{listed}");
    trash(&["restore", "/u/d"]);
    run(&at, "test \"$(cat d/x)\" = one");
    let seen = |what: &str| {
        for (server, name) in servers.iter().zip(["one", "two"]) {
            let mut look = Library::new(User::Current);
            look.add_server_with(server, "/s", &[]);
            look.mount();
            run(&look.at().join("s"), &what.replace("NAME", name));
            look.unmount();
        }
    };
    seen("test \"$(cat d/x)\" = NAME");
    run(&at, "rm -r d");
    let refused = library.command().args(["trash", "empty"]).output().expect("run it");
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("2 files"),
        "{refused:?}"
    );
    trash(&["empty", "--yes"]);
    seen("test -z \"$(find . -type f)\"");
    library.unmount();
}
