#![allow(clippy::print_stdout, clippy::print_stderr)] // a program: its words are its output
//! Starts one of the tests' servers for use by hand: `servers smb`, `servers s3`, …
//!
//! Prints one line of JSON that says where it is and how to get in, then runs until its standard input closes.

use std::io::Read;
use std::process::ExitCode;

use manifold_tests::servers::{Apache, Azurite, FakeGcs, Nginx, Samba, SeaweedFs, Server, Sshd, Vsftpd};

fn main() -> ExitCode {
    let kind = std::env::args().nth(1).unwrap_or_default();
    let server: Box<dyn Server> = match kind.as_str() {
        "smb" => Box::new(Samba::start()),
        "s3" => Box::new(SeaweedFs::start()),
        "webdav" => Box::new(Apache::start()),
        "webdav-nginx" => Box::new(Nginx::start()),
        "sftp" => Box::new(Sshd::start()),
        "ftp" => Box::new(Vsftpd::start()),
        "azblob" => Box::new(Azurite::start()),
        "gcs" => Box::new(FakeGcs::start()),
        _ => {
            eprintln!("usage: servers smb|s3|webdav|webdav-nginx|sftp|ftp|azblob|gcs");
            return ExitCode::from(2);
        }
    };
    let said = serde_json::json!({
        "uri": server.uri(),
        "settings": server.settings(),
        "secrets": server.secrets(),
        "root": server.root(),
        "pid": server.daemon().pid(),
    });
    println!("{said}");
    // The end of the input is the sign to stop; a read error is one as well.
    let mut rest = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut rest);
    ExitCode::SUCCESS
}
