//! What reading costs a server that answers one question after the other: each is a way there and back.

use std::fs::File;
use std::time::{Duration, SystemTime};

use manifold_backends::{Kind, ObjectPath, Presence};
use manifold_tests::servers::{Server, Vsftpd};

use crate::subject::{Subject, found, within};

const FILES: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_an_ftp_server_is_read_with_four_commands() {
    let server = std::sync::Arc::new(Vsftpd::start_logged());
    let subject = Subject::over("FTP", std::sync::Arc::clone(&server) as _).await;
    let long_ago = SystemTime::now() - Duration::from_hours(2);
    for number in 0..FILES {
        let path = format!("files/{number}");
        subject.put(&path, path.as_bytes());
        let file = File::options()
            .write(true)
            .open(server.file(path.as_bytes()))
            .expect("open it");
        file.set_modified(long_ago).expect("set its time");
    }
    let listed = subject.list(b"files").await;
    assert_eq!(listed.len(), FILES);
    let before = server.commands().len();
    for child in &listed {
        let path = ObjectPath::from_bytes("files").join(&child.name);
        let whole = 0..child.metadata.size;
        let read = within(subject.backend.read(&path, &child.metadata.version, whole)).await;
        assert_eq!(found(read, "read it"), path.as_bytes());
    }
    let commands = server.commands().split_off(before);
    let count = |word: &str| commands.iter().filter(|command| *command == word).count();
    for word in ["PASV", "RETR", "SIZE", "MDTM"] {
        assert_eq!(count(word), FILES, "{word} in {commands:?}");
    }
    // A machine that has too much to do may take a second between two of them; then it is asked whether it is there yet.
    assert_eq!(commands.len() - count("NOOP"), 4 * FILES, "{commands:?}");
    assert!(count("NOOP") < FILES, "{commands:?}");

    // What is no file any more is told by its directory.
    let gone = ObjectPath::from_bytes("files/0");
    let version = &listed
        .iter()
        .find(|child| child.name == b"0")
        .expect("it is listed")
        .metadata
        .version;
    std::fs::remove_file(server.file(b"files/0")).expect("remove it");
    let read = within(subject.backend.read(&gone, version, 0..7)).await;
    assert!(matches!(read, Ok(Presence::Absent)), "{read:?}");
    subject.put("files/0/now a folder", b"x");
    assert_eq!(subject.stat(b"files/0").await.kind, Kind::Directory);
    let read = within(subject.backend.read(&gone, version, 0..7)).await;
    assert!(!matches!(read, Ok(Presence::Found(_))), "{read:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ftp_server_that_hangs_up_between_two_reads_is_asked_again() {
    let server = std::sync::Arc::new(Vsftpd::start());
    let subject = Subject::over("FTP", std::sync::Arc::clone(&server) as _).await;
    subject.put("file", b"bytes");
    for _ in 0..5 {
        // What was kept a moment ago is gone, and nothing has told of it.
        assert_eq!(subject.read(b"file", 0..5).await, b"bytes");
        server.daemon().restart();
        assert_eq!(subject.list(b"").await.len(), 1);
        server.daemon().restart();
        let version = subject.stat(b"file").await.version;
        server.daemon().restart();
        let read = within(subject.backend.read(&ObjectPath::from_bytes("file"), &version, 0..5)).await;
        assert_eq!(found(read, "read it"), b"bytes".as_slice());
    }
}
