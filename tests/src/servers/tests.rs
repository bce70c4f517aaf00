use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use super::*;

/// Puts an object, kills the server, and starts it again.
fn lives(server: &dyn Server) {
    server.put(b"folder/a file", b"bytes");
    server.make_directory(b"empty");
    let before = server.daemon().pid().expect("it runs");
    server.kill9();
    assert_eq!(server.daemon().pid(), None);
    assert!(
        !Path::new(&format!("/proc/{before}")).exists(),
        "the killed process is gone"
    );
    server.restart();
    assert_ne!(server.daemon().pid(), Some(before));
    server.pause();
    server.resume();
    server.put(b"folder/a file", b"other bytes");
    server.remove(b"folder/a file");
}

macro_rules! lives {
    ($($name:ident: $server:ty),* $(,)?) => {
        $(#[test]
        fn $name() {
            lives(&<$server>::start());
        })*
    };
}

lives! {
    samba_starts_dies_and_starts_again: Samba,
    seaweedfs_starts_dies_and_starts_again: SeaweedFs,
    apache_starts_dies_and_starts_again: Apache,
    nginx_starts_dies_and_starts_again: Nginx,
    sshd_starts_dies_and_starts_again: Sshd,
    vsftpd_starts_dies_and_starts_again: Vsftpd,
    azurite_starts_dies_and_starts_again: Azurite,
    fake_gcs_starts_dies_and_starts_again: FakeGcs,
}

#[test]
fn samba_serves_what_was_put_to_its_user_alone() {
    let samba = Samba::start();
    samba.put(b"a.txt", b"the bytes");
    let get = |password: &str| {
        Command::new(program("smbclient"))
            .arg(format!("//127.0.0.1/{}", samba.share()))
            .args([
                "-p",
                &samba.port().to_string(),
                "-U",
                &format!("{}%{password}", samba.user()),
            ])
            .args(["-s", "/dev/null", "-c", "get a.txt -"])
            .output()
            .expect("start smbclient")
    };
    let good = get(samba.password());
    assert!(
        String::from_utf8_lossy(&good.stdout).contains("the bytes"),
        "{good:?}\n{}",
        samba.daemon().log()
    );
    assert!(!get("wrong").status.success());
}

#[test]
fn sshd_serves_the_key_it_knows_alone() {
    let sshd = Sshd::start();
    sshd.put(b"a.txt", b"the bytes");
    let uri = sshd.uri();
    let port = uri.split([':', '/']).nth(4).expect("the URI has a port");
    let list = |key: &Path| {
        let mut child = Command::new(program("sftp"))
            .args([
                "-q",
                "-P",
                port,
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
                "-i",
            ])
            .arg(key)
            .args(["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-b", "-"])
            .arg(format!("{}@127.0.0.1", current_user()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start sftp");
        let command = format!("ls {}\n", sshd.root().expect("it has files").display());
        // A refused client may have gone before it reads what it was to do.
        let _refused = std::io::Write::write_all(&mut child.stdin.take().expect("piped"), command.as_bytes());
        child.wait_with_output().expect("wait for sftp")
    };
    let good = list(sshd.key());
    assert!(
        String::from_utf8_lossy(&good.stdout).contains("a.txt"),
        "{good:?}\n{}",
        sshd.daemon().log()
    );
    assert!(!list(sshd.strange_key()).status.success());
}

#[test]
fn a_paused_server_accepts_and_says_nothing() {
    use std::io::Read;
    let sshd = Sshd::start();
    sshd.pause();
    let uri = sshd.uri();
    let port: u16 = uri
        .split([':', '/'])
        .nth(4)
        .expect("the URI has a port")
        .parse()
        .expect("a number");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the kernel accepts for it");
    stream.set_nonblocking(true).expect("set non-blocking");
    let said = stream.read(&mut [0; 16]).expect_err("a paused server says nothing");
    assert_eq!(said.kind(), std::io::ErrorKind::WouldBlock);
    stream.set_nonblocking(false).expect("set blocking");
    sshd.resume();
    let mut banner = [0; 4];
    stream.read_exact(&mut banner).expect("it goes on");
    assert_eq!(&banner, b"SSH-");
}

#[test]
fn a_port_that_is_held_is_not_given_again() {
    let (first, second) = (port::Port::take(), port::Port::take());
    assert_ne!(first.number(), second.number());
    let _listening = TcpListener::bind(("127.0.0.1", first.number())).expect("it is free to listen on");
}
