//! Certificates of servers on 127.0.0.1, made by `openssl`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{program, write};

/// Who stands for a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Itself, as on a NAS that nobody has set up.
    SelfSigned,
    /// An authority that no system knows.
    Signed,
    /// The same authority, until some years ago.
    Expired,
}

const AUTHORITY: &str = "[ca]\ndefault_ca = it\n[it]\ndatabase = index\nserial = serial\nnew_certs_dir = .\ndefault_md = sha256\n\
    policy = names\ncopy_extensions = copy\n[names]\ncommonName = supplied\n";

/// A certificate and its key, in files that the server reads as root.
#[derive(Debug)]
pub(super) struct Certificate {
    pub(super) file: PathBuf,
    pub(super) key: PathBuf,
    /// The certificate to trust so that this one is.
    pub(super) authority: PathBuf,
}

impl Certificate {
    /// Makes one in the folder `tls` of `folder`.
    pub(super) fn make(folder: &Path, kind: Tls) -> Self {
        let folder = folder.join("tls");
        fs::create_dir(&folder).expect("make a folder");
        let made = Self {
            file: folder.join("server.pem"),
            key: folder.join("server.key"),
            authority: folder.join(if kind == Tls::SelfSigned {
                "server.pem"
            } else {
                "authority.pem"
            }),
        };
        let run = |arguments: &str| openssl(&folder, arguments);
        let new_key = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        let server = "-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 -keyout server.key";
        if kind == Tls::SelfSigned {
            run(&format!("{new_key} -x509 -days 30 {server} -out server.pem"));
            return made;
        }
        write(&folder.join("authority.conf"), AUTHORITY);
        write(&folder.join("index"), "");
        run(&format!(
            "{new_key} -x509 -days 30 -subj /CN=tests -keyout authority.key -out authority.pem"
        ));
        run(&format!("{new_key} {server} -out server.csr"));
        let time = match kind {
            Tls::Expired => "-startdate 20200101000000Z -enddate 20200201000000Z",
            Tls::SelfSigned | Tls::Signed => "-days 30",
        };
        run(&format!(
            "ca -batch -config authority.conf -cert authority.pem -keyfile authority.key -rand_serial -notext {time} \
             -in server.csr -out server.pem"
        ));
        made
    }
}

/// Runs `openssl` in `folder`; no argument holds a space.
fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new(program("openssl"))
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .output()
        .expect("start openssl");
    assert!(
        output.status.success(),
        "openssl {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
