//! What `rename` leaves to whoever asks when it is to go to another source: `mv` takes directories, links and pipes there by itself.
//! What it cannot copy stays where it was.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::*;

/// Where something is moved from, or to.
enum Place {
    Folder(tempfile::TempDir),
    Server(Box<dyn Server>, &'static [(&'static str, &'static str)]),
}

impl Place {
    fn folder() -> Self {
        Self::Folder(tempfile::tempdir().expect("make a folder"))
    }

    fn server(server: impl Server + 'static) -> Self {
        Self::Server(Box::new(server), &[("write", "back")])
    }

    fn add(&self, library: &mut Library, at: &str) {
        match self {
            Self::Folder(folder) => library.add_folder(folder.path(), at),
            Self::Server(server, settings) => library.add_server_with(&**server, at, settings),
        }
    }
}

fn mounted(from: &Place, to: &Place) -> Library {
    let mut library = Library::new(User::Current);
    library.settings(SETTINGS);
    from.add(&mut library, "/x");
    to.add(&mut library, "/t");
    library.mount();
    library
}

fn until_settled(library: &Library) {
    let end = Instant::now() + DEADLINE;
    loop {
        let said = expect_success(library.command().args(["status", "--json"]));
        let status: Value = serde_json::from_str(&said).expect("JSON");
        if status["uploads"]["waiting"] == 0 && status["uploads"]["originals"] == 0 {
            return;
        }
        assert!(Instant::now() < end, "not uploaded: {status:#}\n{}", library.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Says of everything beneath a folder what it is, in the order of paths.
fn described(folder: &Path) -> String {
    let script = "cd \"$1\"; find . -mindepth 1 | sort | while read -r it; do \
                  stat -c '%n %F %a %s %.9Y' \"$it\" | sed '/directory/s/ [0-9]* \\([0-9.]*\\)$/ \\1/'; \
                  getfattr --absolute-names -d \"$it\" | grep = || true; \
                  [ ! -f \"$it\" ] || sha256sum <\"$it\"; done";
    expect_success(Command::new("sh").args(["-euc", script, "sh"]).arg(folder))
}

fn crosses(from: &Path, to: &Path) {
    let refused = fs::rename(from, to).expect_err("it does not go by itself");
    assert_eq!(refused.kind(), std::io::ErrorKind::CrossesDevices, "{}", from.display());
}

fn mv_takes_a_directory(from: &Place, to: &Place) {
    let mut library = mounted(from, to);
    run(
        &library.at().join("x"),
        "mkdir -p album/sub/empty; printf one >album/one; head -c 300000 /dev/urandom >album/sub/two; : >album/none
         setfattr -n user.note -v hello album/one; chmod 640 album/one; chmod 750 album/sub
         touch -d '2001-02-03 04:05:06.789012345' album/one; touch -d '2002-02-03 04:05:06' album/sub/empty album/sub album",
    );
    let (former, new) = (library.at().join("x/album"), library.at().join("t/album"));
    let before = described(&former);
    assert!(
        before.contains("user.note=\"hello\"") && before.contains("one regular file 640 3 981173106.789"),
        "{before}"
    );
    crosses(&former, &new);
    assert_eq!(described(&former), before, "nothing has happened");
    run(&library.at(), "mv x/album t/");
    assert_eq!(described(&new), before, "at once");
    assert!(!former.exists());
    until_settled(&library);
    expect_success(library.command().args(["scan", "/x"]));
    expect_success(library.command().args(["scan", "/t"]));
    assert_eq!(described(&new), before, "in the end");
    assert!(!former.exists());
    library.unmount();
}

#[test]
fn mv_takes_a_directory_from_a_folder_to_an_s3_store() {
    mv_takes_a_directory(&Place::folder(), &Place::server(SeaweedFs::start()));
}

#[test]
fn mv_takes_a_directory_from_an_s3_store_to_an_sftp_server() {
    mv_takes_a_directory(&Place::server(SeaweedFs::start()), &Place::server(Sshd::start()));
}

#[test]
fn mv_takes_a_directory_from_an_sftp_server_to_samba() {
    mv_takes_a_directory(&Place::server(Sshd::start()), &Place::server(Samba::start()));
}

#[test]
fn mv_takes_a_directory_from_samba_to_a_webdav_server() {
    mv_takes_a_directory(&Place::server(Samba::start()), &Place::server(Apache::start()));
}

#[test]
fn mv_takes_a_directory_from_a_webdav_server_to_a_folder() {
    mv_takes_a_directory(&Place::server(Apache::start()), &Place::folder());
}

#[test]
fn mv_takes_a_directory_from_a_folder_to_another() {
    mv_takes_a_directory(&Place::folder(), &Place::folder());
}

const OTHERS: &str = "printf shared >one; ln one other; ln -s one link; mkfifo pipe";

#[test]
fn mv_takes_links_and_pipes_from_a_folder_to_another() {
    let (from, to) = (Place::folder(), Place::folder());
    let mut library = mounted(&from, &to);
    let at = library.at();
    run(&at.join("x"), OTHERS);
    crosses(&at.join("x/one"), &at.join("t/one"));
    run(&at, "mv x/* t/");
    assert_eq!(fs::read_dir(at.join("x")).expect("list").count(), 0);
    assert_eq!(fs::read_link(at.join("t/link")).expect("a link"), Path::new("one"));
    let about = |name: &str| fs::symlink_metadata(at.join("t").join(name)).expect("stat");
    assert!(about("pipe").file_type().is_fifo());
    assert_eq!((about("one").nlink(), about("one").ino()), (2, about("other").ino()));
    library.unmount();
}

#[test]
fn mv_leaves_what_a_server_cannot_hold_where_it_was() {
    let from = Place::folder();
    let links = &[("write", "back"), ("links", "objects")];
    let to = Place::Server(Box::new(SeaweedFs::start()), links);
    let mut library = mounted(&from, &to);
    let at = library.at();
    run(&at.join("x"), OTHERS);
    for name in ["one", "pipe"] {
        crosses(&at.join("x").join(name), &at.join("t").join(name));
    }
    fs::rename(at.join("x/link"), at.join("t/link")).expect("it goes by itself");
    // A file with two names becomes two files, as with any copy to where there are no such names.
    run(&at, "mv x/one t/; mv x/other t/");
    let mut mv = Command::new("mv");
    let refused = mv.arg(at.join("x/pipe")).arg(at.join("t")).output().expect("run mv");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("not supported"), "{said}");
    let about = fs::symlink_metadata(at.join("x/pipe")).expect("it is still there");
    assert!(about.file_type().is_fifo());
    until_settled(&library);
    for name in ["one", "other", "link"] {
        assert!(fs::symlink_metadata(at.join("x").join(name)).is_err(), "{name}");
        assert_eq!(fs::read(at.join("t").join(name)).expect("read"), b"shared", "{name}");
    }
    assert_eq!(fs::read_link(at.join("t/link")).expect("a link"), Path::new("one"));
    library.unmount();
}
