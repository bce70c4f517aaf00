//! A source is added by a command, and used by the daemon: what only the command has is of no use.

use std::fs;

use manifold_tests::mounted::{Library, User, expect_success};
use manifold_tests::servers::{Apache, Server};

use crate::below;

#[test]
fn a_source_whose_secret_only_the_command_has_is_not_added() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Apache::start();
    server.put(b"file", b"content");
    let mut library = Library::new(User::Current);
    library.add_folder(folder.path(), "/disk");
    library.mount();
    let (key, value) = server.secrets().into_iter().next().expect("it has a password");
    let add = |more: &[&str]| {
        let mut add = library.command();
        add.env("ONLY_IN_THE_SHELL", &value)
            .args(["source", "add", &server.uri(), "--at", "/dav"])
            .args(["--set", &format!("{key}=env:ONLY_IN_THE_SHELL")]);
        for (key, value) in server.settings() {
            add.args(["--set", &format!("{key}={value}")]);
        }
        add.args(more);
        add
    };
    let refused = add(&[]).output().expect("run manifold");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    for words in [
        "was not added",
        "ONLY_IN_THE_SHELL",
        "the daemon does not have",
        "--force",
    ] {
        assert!(said.contains(words), "no '{words}' in {said}");
    }
    let sources = || expect_success(library.command().args(["source", "list", "--json"]));
    assert!(!sources().contains("/dav"), "{}", sources());
    expect_success(&mut add(&["--force"]));
    assert!(sources().contains("/dav"));

    // A change is tried out by the daemon, too. What it can get at, it takes.
    let secret = library.state().join("secret");
    fs::write(&secret, &value).expect("write");
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("chmod");
    let by_file = format!("{key}=file:{}", secret.display());
    expect_success(library.command().args(["source", "set", "/dav", &by_file]));
    assert_eq!(
        fs::read(below(&library.at(), "/dav/file")).expect("it is connected"),
        b"content"
    );
    let back = format!("{key}=env:ONLY_IN_THE_SHELL");
    let refused = library
        .command()
        .env("ONLY_IN_THE_SHELL", &value)
        .args(["source", "set", "/dav", &back])
        .output()
        .expect("run manifold");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains("was not changed") && said.contains("the daemon does not have"),
        "{said}"
    );
    library.unmount();
}
