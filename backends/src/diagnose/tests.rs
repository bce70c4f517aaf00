use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::io;

use super::*;
use crate::local::LocalBackend;

const KINDS: [ErrorKind; 32] = [
    ErrorKind::Unreachable,
    ErrorKind::TimedOut,
    ErrorKind::CredentialsRefused,
    ErrorKind::PermissionDenied,
    ErrorKind::Certificate,
    ErrorKind::NoSuchSource,
    ErrorKind::VersionChanged,
    ErrorKind::NotADirectory,
    ErrorKind::IsADirectory,
    ErrorKind::RateLimited,
    ErrorKind::Unsupported,
    ErrorKind::Full,
    ErrorKind::ReadOnly,
    ErrorKind::Exists,
    ErrorKind::NotEmpty,
    ErrorKind::Conflict,
    ErrorKind::Busy,
    ErrorKind::NameTooLong,
    ErrorKind::TooLarge,
    ErrorKind::NotPermitted,
    ErrorKind::TextBusy,
    ErrorKind::TooManyLinks,
    ErrorKind::CrossDevice,
    ErrorKind::Quota,
    ErrorKind::InvalidArgument,
    ErrorKind::NoAttribute,
    ErrorKind::ValueTooLong,
    ErrorKind::BeyondEnd,
    ErrorKind::Nonsense,
    ErrorKind::BadPath,
    ErrorKind::Settings,
    ErrorKind::Other,
];

fn of(source: &str, kind: ErrorKind, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Diagnosis {
    Diagnosis::of(&Error::new(kind, Operation::Connect, source, ObjectPath::root(), cause))
}

const S3: &str = "s3://photos?endpoint=http://127.0.0.1:9000";

/// Source, kind, cause, message, and a word of the hint.
const CASES: &[(&str, ErrorKind, &str, &str, &str)] = &[
    (
        "smb://nas.lokal/media",
        ErrorKind::Unreachable,
        "failed to lookup address information: Name or service not known",
        "the name of the host is not known: nas.lokal",
        "spelling",
    ),
    (
        "webdavs://cloud:8443/x",
        ErrorKind::Unreachable,
        "tcp connect error: Connection refused (os error 111)",
        "cloud:8443 refuses the connection",
        "port",
    ),
    (
        "smb://10.0.0.9/media",
        ErrorKind::Unreachable,
        "No route to host (os error 113)",
        "there is no way to 10.0.0.9 from this machine",
        "VPN",
    ),
    (
        "smb://nas/media",
        ErrorKind::TimedOut,
        "deadline has elapsed",
        "nas did not answer in time",
        "firewall",
    ),
    (
        "webdavs://cloud/x",
        ErrorKind::Certificate,
        "invalid peer certificate: Expired",
        "the certificate of cloud has expired",
        "renewed",
    ),
    (
        "webdavs://cloud/x",
        ErrorKind::Unreachable,
        "invalid peer certificate: UnknownIssuer",
        "the certificate of cloud is from an authority that is not trusted here",
        "`ca_file`",
    ),
    (
        "ftps://ada@host/x",
        ErrorKind::Certificate,
        "invalid peer certificate: UnknownIssuer",
        "the certificate of host is from an authority that is not trusted here",
        "this system trusts",
    ),
    (
        "webdavs://cloud/x",
        ErrorKind::Certificate,
        "invalid peer certificate: certificate not valid for name \"cloud\"",
        "the certificate of cloud is for another name",
        "name that the certificate is for",
    ),
    (
        "ftps://ada@host/x",
        ErrorKind::CredentialsRefused,
        "Invalid response: [530] 530 Please login with USER and PASS.",
        "host does not speak TLS on that port",
        "ftp://",
    ),
    (
        "ftp://ada@host/x",
        ErrorKind::CredentialsRefused,
        "530 Non-anonymous sessions must use encryption.",
        "host takes no login without TLS",
        "ftps://",
    ),
    (
        "sftp://ada@server/x",
        ErrorKind::Certificate,
        "Host key verification failed.",
        "the key with which server proves itself is not known, or is not the one that is known",
        "`known_hosts = add`",
    ),
    (
        "smb://ada@nas/media",
        ErrorKind::CredentialsRefused,
        "STATUS_LOGON_FAILURE",
        "nas refuses the credentials of `ada`",
        "password",
    ),
    (
        S3,
        ErrorKind::CredentialsRefused,
        "SignatureDoesNotMatch",
        "http://127.0.0.1:9000 refuses the credentials of this user",
        "`secret_access_key`",
    ),
    (
        S3,
        ErrorKind::CredentialsRefused,
        "RequestTimeTooSkewed",
        "the clock of this machine and that of http://127.0.0.1:9000 differ too much",
        "clock",
    ),
    (
        "smb://nas/media",
        ErrorKind::NoSuchSource,
        "BAD_NETWORK_NAME",
        "nas has no share `media`",
        "smbclient -L",
    ),
    (
        S3,
        ErrorKind::NoSuchSource,
        "NoSuchBucket",
        "http://127.0.0.1:9000 has no bucket `photos`",
        "`region`",
    ),
    (
        "azblob://archive?account_name=ada",
        ErrorKind::NoSuchSource,
        "ContainerNotFound",
        "Azure Blob Storage has no container `archive`",
        "`account_name`",
    ),
    (
        "smb://nas/media/films",
        ErrorKind::NoSuchSource,
        "no such folder",
        "there is no folder /films in smb://nas/media/films",
        "spelling",
    ),
    (
        "sftp://ada@host/x",
        ErrorKind::Unreachable,
        "Host key verification failed.",
        "the key with which host proves itself is not known, or is not the one that is known",
        "`known_hosts = add`",
    ),
    (
        "sftp://ada@host/x",
        ErrorKind::Unreachable,
        "ada@host: Permission denied (publickey,password).",
        "host accepts none of the keys for `ada`",
        "`key`",
    ),
    (
        "sftp://host",
        ErrorKind::Unreachable,
        "end of file",
        "host hung up",
        "port",
    ),
    (
        "dropbox://",
        ErrorKind::CredentialsRefused,
        "expired_access_token",
        "Dropbox refuses the credentials of this user",
        "token",
    ),
    (
        "smb://nas/media",
        ErrorKind::Other,
        "boo",
        "smb://nas/media cannot be used: boo",
        "log",
    ),
];

#[test]
fn each_failure_has_its_words() {
    for &(source, kind, cause, message, hint) in CASES {
        let diagnosis = of(source, kind, cause);
        assert_eq!(diagnosis.message, message, "{cause}");
        assert!(diagnosis.hint.contains(hint), "{cause}: {}", diagnosis.hint);
        assert_eq!(diagnosis.kind, kind);
    }
}

#[test]
fn the_whole_chain_of_causes_is_looked_at() {
    #[derive(Debug, thiserror::Error)]
    #[error("sending the request failed")]
    struct Outer(#[source] io::Error);
    let refused = io::Error::from_raw_os_error(rustix::io::Errno::CONNREFUSED.raw_os_error());
    let diagnosis = of("webdav://h/x", ErrorKind::Unreachable, Outer(refused));
    assert_eq!(diagnosis.message, "h refuses the connection");
}

#[test]
fn every_kind_has_words_and_no_blank_is_left() {
    for source in ["/home/x", "smb://ada@nas/media", "dropbox://", "no uri at all"] {
        for kind in KINDS {
            let Diagnosis { message, hint, .. } = of(source, kind, "first line\nsecond line");
            for text in [&message, &hint] {
                assert!(
                    !text.is_empty() && !text.contains(['{', '}', '\n']) && !text.ends_with('.'),
                    "{kind:?} {text}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_folder_is_tried_out() {
    let folder = tempfile::TempDir::new().unwrap();
    let backend = LocalBackend::open(folder.path()).unwrap();
    assert_eq!(diagnose(&backend).await, Ok(()));
    let path = folder.path().to_path_buf();
    drop(folder);
    let diagnosis = diagnose(&backend).await.unwrap_err();
    assert_eq!(diagnosis.kind, ErrorKind::Unreachable);
    assert!(diagnosis.message.contains(&*path.to_string_lossy()), "{diagnosis}");
    assert!(diagnosis.hint.contains("mounted"), "{}", diagnosis.hint);
}

#[tokio::test]
async fn a_missing_secret_is_named_before_anything_is_asked() {
    let spec = crate::SourceSpec::parse("smb://ada@127.0.0.1:1/media", &BTreeMap::new()).unwrap();
    let error = crate::connect(&spec, &crate::Secrets::new(), &crate::Limits::default())
        .await
        .unwrap_err();
    assert_eq!(
        Diagnosis::of(&error).message,
        "the secret `password` is missing (password)"
    );
}
