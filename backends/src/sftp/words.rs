//! What the words of an `ssh` that ended mean. They are English whatever the locale.
//!
//! Without anybody to ask, `ssh` passes over a key that it cannot use, and then says only that the server takes none. So where
//! it was refused, the file of the key is looked at too.

use std::io;
use std::path::Path;

use super::session::{Fault, lost};
use crate::ErrorKind;

/// The longest line of `ssh` that is passed on, in characters.
const LINE_MAX: usize = 300;
/// More than any private key is long, in bytes.
const KEY_MAX: u64 = 64 << 10;
/// What a key in the format of OpenSSH (`PROTOCOL.key`) begins with in Base64: `openssh-key-v1` and a zero,
const OPENSSH: &str = "b3BlbnNzaC1rZXktdjEA";
/// and what follows where it is not encrypted: the name of the cipher, `none`, after its length.
const NO_CIPHER: &str = "AAAABG5vbm";

/// Says why a session did not come about. `key` is the file that `ssh` was to use.
pub(super) async fn judge(words: &str, key: Option<&Path>) -> Fault {
    let fault = meaning(words);
    let is_the_servers_word = fault.kind == ErrorKind::CredentialsRefused && fault.why.contains("Permission denied (");
    if is_the_servers_word
        && let Some(key) = key
        && let Some(why) = unusable(key).await
    {
        return Fault { why, ..fault };
    }
    fault
}

fn meaning(words: &str) -> Fault {
    let line_with = |text: &str| words.lines().find(|line| line.contains(text)).map(shown);
    let says = |texts: &[&str]| texts.iter().any(|text| words.contains(text));
    // What `ssh` says of a key of ours comes before the server's refusal, and tells why.
    for ours in ["are too open", "Load key"] {
        if let Some(why) = line_with(ours) {
            let kind = ErrorKind::CredentialsRefused;
            return Fault { kind, why };
        }
    }
    if let Some(why) = line_with("has changed and you have requested") {
        // Where the old one stands is said on a line of its own.
        let place = line_with("Offending").map_or_else(String::new, |place| format!(" ({place})"));
        return Fault {
            kind: ErrorKind::Certificate,
            why: format!("{why}{place}"),
        };
    }
    let kind = if says(&[
        "Host key verification failed",
        "HOST IDENTIFICATION HAS CHANGED",
        "host key is known",
    ]) {
        ErrorKind::Certificate
    } else if says(&[
        "Permission denied (",
        "Too many authentication failures",
        "No supported authentication",
    ]) {
        ErrorKind::CredentialsRefused
    } else if says(&["timed out", "Timeout, server"]) {
        ErrorKind::TimedOut
    } else if says(&["Bad configuration option"]) {
        ErrorKind::Settings
    } else if says(&["ubsystem request failed"]) {
        ErrorKind::Unsupported
    } else {
        ErrorKind::Unreachable
    };
    let last = words
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty() && !line.starts_with('@'));
    match last {
        Some(last) => Fault { kind, why: shown(last) },
        None => Fault { kind, ..lost() },
    }
}

fn shown(line: &str) -> String {
    line.trim().chars().filter(|c| !c.is_control()).take(LINE_MAX).collect()
}

/// Finds out why `ssh` cannot use a key; `None` if that does not show.
async fn unusable(key: &Path) -> Option<String> {
    let shown = key.display();
    match read(key).await {
        Ok(text) if has_passphrase(&text) => Some(format!(
            "the private key {shown} has a passphrase, and no agent that manifold can reach holds it"
        )),
        Ok(_) => None,
        Err(error) => Some(format!("the private key {shown} cannot be read: {error}")),
    }
}

async fn read(key: &Path) -> io::Result<String> {
    use tokio::io::AsyncReadExt;
    let mut bytes = Vec::new();
    let file = tokio::fs::File::open(key).await?;
    file.take(KEY_MAX).read_to_end(&mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Tells whether a private key is encrypted: as OpenSSH writes it, or as PEM has it (PKCS #8, RFC 1421).
fn has_passphrase(text: &str) -> bool {
    if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return true;
    }
    let body = text
        .split_once("-----BEGIN OPENSSH PRIVATE KEY-----")
        .map(|(_, body)| body.trim_start());
    let cipher = body.and_then(|body| body.strip_prefix(OPENSSH));
    cipher.is_some_and(|cipher| !cipher.starts_with(NO_CIPHER))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As OpenSSH 9.2 says it.
    const OPEN_TO_OTHERS: &str = "@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\r\n\
        @         WARNING: UNPROTECTED PRIVATE KEY FILE!          @\r\n\
        @@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\r\n\
        Permissions 0644 for '/home/ada/key' are too open.\r\n\
        It is required that your private key files are NOT accessible by others.\r\n\
        This private key will be ignored.\r\n\
        Load key \"/home/ada/key\": bad permissions\r\n\
        ada@h: Permission denied (publickey).\r\n";
    const CHANGED: &str = "@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\r\n\
        @    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r\n\
        @@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\r\n\
        It is also possible that a host key has just been changed.\r\n\
        Offending ED25519 key in /home/ada/.ssh/known_hosts:3\r\n\
        Host key for h has changed and you have requested strict checking.\r\n\
        Host key verification failed.\r\n";

    #[test]
    fn what_ssh_says_is_understood() {
        for (words, kind) in [
            (
                "ssh: connect to host h port 22: Connection refused\r\n",
                ErrorKind::Unreachable,
            ),
            (
                "ssh: Could not resolve hostname h: Name or service not known\r\n",
                ErrorKind::Unreachable,
            ),
            (
                "ssh: connect to host h port 22: Connection timed out\r\n",
                ErrorKind::TimedOut,
            ),
            (
                "u@h: Permission denied (publickey,password).\r\n",
                ErrorKind::CredentialsRefused,
            ),
            ("Host key verification failed.\r\n", ErrorKind::Certificate),
            ("subsystem request failed on channel 0\r\n", ErrorKind::Unsupported),
            ("", ErrorKind::Unreachable),
        ] {
            assert_eq!(meaning(words).kind, kind, "{words}");
        }
        assert_eq!(
            meaning("a warning\r\nu@h: Permission denied (publickey).\r\n").why,
            "u@h: Permission denied (publickey)."
        );
    }

    #[test]
    fn what_is_wrong_with_a_key_of_ours_or_theirs_is_said() {
        let open = meaning(OPEN_TO_OTHERS);
        assert_eq!(open.kind, ErrorKind::CredentialsRefused);
        assert_eq!(open.why, "Permissions 0644 for '/home/ada/key' are too open.");
        let broken = meaning("Load key \"/k\": error in libcrypto\r\nada@h: Permission denied (publickey).\r\n");
        assert_eq!(broken.kind, ErrorKind::CredentialsRefused);
        assert_eq!(broken.why, "Load key \"/k\": error in libcrypto");
        let changed = meaning(CHANGED);
        assert_eq!(changed.kind, ErrorKind::Certificate);
        assert_eq!(
            changed.why,
            "Host key for h has changed and you have requested strict checking. (Offending ED25519 key in \
             /home/ada/.ssh/known_hosts:3)"
        );
    }

    #[tokio::test]
    async fn a_key_that_ssh_passes_over_in_silence_is_found_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let refused = "ada@h: Permission denied (publickey).\r\n";
        for (text, has_one) in [
            // As `ssh-keygen` begins them, without and with a passphrase.
            (
                "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW\n",
                false,
            ),
            (
                "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABCK8NA1Ok\n",
                true,
            ),
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nxyz\n", true),
            ("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nxyz\n", true),
            ("-----BEGIN RSA PRIVATE KEY-----\nxyz\n", false),
            ("nothing of the kind", false),
        ] {
            let fault = judge(refused, Some(&file("key", text))).await;
            assert_eq!(fault.kind, ErrorKind::CredentialsRefused);
            assert_eq!(fault.why.contains("has a passphrase"), has_one, "{text}: {}", fault.why);
        }
        let missing = judge(refused, Some(&folder.path().join("missing"))).await;
        assert_eq!(missing.kind, ErrorKind::CredentialsRefused);
        assert!(missing.why.contains("cannot be read"), "{}", missing.why);
        // Where it is not our key that was refused, it is of no interest.
        let elsewhere = judge(
            "Host key verification failed.\r\n",
            Some(&folder.path().join("missing")),
        )
        .await;
        assert_eq!(elsewhere.why, "Host key verification failed.");
    }
}
