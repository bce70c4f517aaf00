//! The table of diagnoses: which words of a cause mean what, and what to do then.

use crate::{ErrorKind, Scheme};

/// One diagnosis. Blanks in its texts: `{host}`, `{container}`, `{holder}` (what a container is called), `{user}`,
/// `{folder}`, `{source}`, `{cause}`.
pub(super) struct Row {
    /// The kinds of error it is for.
    kinds: &'static [ErrorKind],
    /// The kind of source it is for; any if `None`.
    scheme: Option<Scheme>,
    /// Words in lower case, one of which the causes must hold; none are needed if there are none.
    words: &'static [&'static str],
    pub(super) message: &'static str,
    pub(super) hint: Words,
}

/// A text that may depend on the kind of source.
pub(super) enum Words {
    Same(&'static str),
    ByScheme(fn(Option<Scheme>) -> &'static str),
}

/// Finds the first row that fits. The last rows fit everything of their kinds.
pub(super) fn find(kind: ErrorKind, scheme: Option<Scheme>, causes: &str) -> &'static Row {
    let fits = |row: &&Row| {
        row.kinds.contains(&kind)
            && (row.scheme.is_none() || row.scheme == scheme)
            && (row.words.is_empty() || row.words.iter().any(|words| causes.contains(words)))
    };
    ROWS.iter().find(fits).unwrap_or(&UNKNOWN)
}

/// What a library that knows no better may have taken a failed connection for.
const NO_CONNECTION: &[ErrorKind] = &[ErrorKind::Unreachable, ErrorKind::Other];
/// As which a refusal at the door may arrive.
const NO_ENTRY: &[ErrorKind] = &[
    ErrorKind::CredentialsRefused,
    ErrorKind::PermissionDenied,
    ErrorKind::Unreachable,
    ErrorKind::Other,
];
const CERTIFICATE: &[ErrorKind] = &[ErrorKind::Certificate, ErrorKind::Unreachable, ErrorKind::Other];

const UNKNOWN: Row = Row {
    kinds: &[],
    scheme: None,
    words: &[],
    message: "{source} cannot be used: {cause}",
    hint: Words::Same("the log has the whole chain of causes"),
};

const fn row(kinds: &'static [ErrorKind], words: &'static [&'static str], message: &'static str, hint: Words) -> Row {
    Row {
        kinds,
        scheme: None,
        words,
        message,
        hint,
    }
}

const fn row_for(
    scheme: Scheme,
    kinds: &'static [ErrorKind],
    words: &'static [&'static str],
    message: &'static str,
    hint: &'static str,
) -> Row {
    Row {
        kinds,
        scheme: Some(scheme),
        words,
        message,
        hint: Words::Same(hint),
    }
}

static ROWS: &[Row] = &[
    // A folder of this machine.
    row_for(
        Scheme::Local,
        &[ErrorKind::Unreachable],
        &["another folder"],
        "{cause}",
        "mount the disk, or remove the source and add it again if the folder was replaced on purpose",
    ),
    row_for(
        Scheme::Local,
        &[ErrorKind::Unreachable, ErrorKind::NoSuchSource],
        &[],
        "{cause}",
        "check the spelling of the path, and that the disk it is on is mounted",
    ),
    row_for(
        Scheme::Local,
        &[ErrorKind::PermissionDenied],
        &[],
        "the folder may not be read by this user",
        "give yourself leave to read and enter it, or run as a user who may",
    ),
    // SSH says all it has to say in words.
    row_for(
        Scheme::Sftp,
        &[
            ErrorKind::Certificate,
            ErrorKind::CredentialsRefused,
            ErrorKind::Unreachable,
            ErrorKind::Other,
        ],
        &[
            "host key verification failed",
            "remote host identification has changed",
            "no matching host key",
        ],
        "the key with which {host} proves itself is not known, or is not the one that is known",
        "connect once with `ssh` and compare the fingerprint, or set `known_hosts = add` to trust it from now on",
    ),
    row_for(
        Scheme::Sftp,
        NO_ENTRY,
        &["permission denied (", "publickey", "too many authentication failures"],
        "{host} accepts none of the keys for {user}",
        "set `key` to the file of the private key, and have its public half in the server's authorized_keys",
    ),
    // What some FTP servers say to AUTH TLS, which comes before the login, where they know no TLS; and to a login without it.
    row_for(
        Scheme::Ftp,
        NO_ENTRY,
        &["please login with user and pass"],
        "{host} does not speak TLS on that port",
        "check the port, or use the plain kind of URI (ftp://) if the network is trusted",
    ),
    row_for(
        Scheme::Ftp,
        NO_ENTRY,
        &["must use encryption", "ssl/tls required", "tls is required"],
        "{host} takes no login without TLS",
        "use the kind of URI that is over TLS (ftps://)",
    ),
    // The way to the host.
    row(
        NO_CONNECTION,
        &[
            "failed to lookup address",
            "name or service not known",
            "dns error",
            "could not resolve",
            "no address associated",
            "nodename nor servname",
            "temporary failure in name resolution",
            "name does not resolve",
            "nxdomain",
        ],
        "the name of the host is not known: {host}",
        Words::Same(
            "check the spelling, and that this machine has a network; for a device at home try NAME.local or its address",
        ),
    ),
    row(
        NO_CONNECTION,
        &["connection refused", "econnrefused"],
        "{host} refuses the connection",
        Words::Same("nothing listens on that port: check the port, and that the service is running"),
    ),
    row(
        NO_CONNECTION,
        &[
            "no route to host",
            "network is unreachable",
            "host is unreachable",
            "host is down",
            "ehostunreach",
            "enetunreach",
        ],
        "there is no way to {host} from this machine",
        Words::Same("check that this machine has a network (or its VPN is up), and that the other one is switched on"),
    ),
    // Certificates, also where they arrive as a failed connection.
    row(
        CERTIFICATE,
        &[
            "certificate has expired",
            "certificate expired",
            "certificate: expired",
            "expiredcontext",
        ],
        "the certificate of {host} has expired",
        Words::Same("have it renewed on the server; if it is valid there, check this machine's clock"),
    ),
    row(
        CERTIFICATE,
        &["notvalidyet", "not valid yet", "not yet valid"],
        "the certificate of {host} is not valid yet",
        Words::Same("check this machine's clock"),
    ),
    row(
        CERTIFICATE,
        &[
            "unknownissuer",
            "unknown issuer",
            "self-signed",
            "self signed",
            "local issuer",
            "unknown ca",
            "causedasendentity",
        ],
        "the certificate of {host} is from an authority that is not trusted here",
        Words::ByScheme(trust),
    ),
    row(
        CERTIFICATE,
        &[
            "notvalidforname",
            "not valid for name",
            "hostname mismatch",
            "doesn't match",
        ],
        "the certificate of {host} is for another name",
        Words::Same("use the name that the certificate is for"),
    ),
    row(
        &[ErrorKind::Certificate],
        &[],
        "the certificate of {host} was not accepted: {cause}",
        Words::ByScheme(trust),
    ),
    row(
        NO_CONNECTION,
        &[
            "invalidcontenttype",
            "corrupt message",
            "wrong version number",
            "received corrupt",
        ],
        "{host} does not speak TLS on that port",
        Words::Same("check the port, or use the plain kind of URI (webdav://, ftp://) if the network is trusted"),
    ),
    row(
        NO_CONNECTION,
        &[
            "connection reset",
            "broken pipe",
            "unexpected eof",
            "connection closed",
            "hung up",
            "end of file",
        ],
        "{host} hung up",
        Words::Same("check that the port belongs to a service of this kind"),
    ),
    row(
        &[ErrorKind::Unreachable],
        &[],
        "{host} cannot be reached: {cause}",
        Words::Same("check that it is switched on and that this machine has a network"),
    ),
    row(
        &[ErrorKind::TimedOut],
        &[],
        "{host} did not answer in time",
        Words::Same("check that it is switched on, and that no firewall drops what is sent to that port"),
    ),
    // Who we are.
    row(
        NO_ENTRY,
        &["requesttimetooskewed", "clock skew", "time skew"],
        "the clock of this machine and that of {host} differ too much",
        Words::Same("set this machine's clock, best by NTP"),
    ),
    row(
        &[ErrorKind::CredentialsRefused],
        &[],
        "{host} refuses the credentials of {user}",
        Words::ByScheme(credentials),
    ),
    row(
        &[ErrorKind::PermissionDenied],
        &[],
        "{user} may not read {source}",
        Words::Same("have the server's owner give leave to list and read it"),
    ),
    // What is there.
    row(
        &[ErrorKind::NoSuchSource],
        &["folder"],
        "there is no folder {folder} in {source}",
        Words::Same("check the spelling, upper and lower case too"),
    ),
    Row {
        kinds: &[ErrorKind::NoSuchSource],
        scheme: Some(Scheme::Smb),
        words: &[],
        message: "{host} has no share `{container}`",
        hint: Words::Same("`smbclient -L HOST` lists the shares; the folder within a share follows its name"),
    },
    row(
        &[ErrorKind::NoSuchSource],
        &[],
        "{host} has no {holder} `{container}`",
        Words::ByScheme(no_such),
    ),
    row(
        &[ErrorKind::NotADirectory],
        &[],
        "{source} is not a folder",
        Words::Same("give the folder that holds it"),
    ),
    row(
        &[ErrorKind::Nonsense],
        &[],
        "{host} gave an answer that makes no sense: {cause}",
        Words::Same("check that the address and port belong to a service of this kind"),
    ),
    row(
        &[ErrorKind::RateLimited],
        &[],
        "{host} asks for fewer requests",
        Words::Same("wait a while; a smaller `concurrency` of the source keeps it from happening again"),
    ),
    row(
        &[ErrorKind::Unsupported],
        &[],
        "{source} lacks what is needed: {cause}",
        Words::Same("check that the address belongs to a service of this kind, and that it is not an old version"),
    ),
    row(
        &[ErrorKind::Settings, ErrorKind::BadPath],
        &[],
        "{cause}",
        Words::Same("`manifold source add --help` tells the settings of each kind of source"),
    ),
    row(
        &[ErrorKind::Full],
        &[],
        "{host} is full",
        Words::Same("make room there"),
    ),
    row(
        &[ErrorKind::ReadOnly],
        &[],
        "{source} may not be written to",
        Words::Same("set `read_only = true` for it"),
    ),
    row(
        &[
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
        ],
        &[],
        "{source} did not take a change: {cause}",
        Words::Same("look at what stands there now"),
    ),
    row(
        &[ErrorKind::VersionChanged, ErrorKind::IsADirectory],
        &[],
        "{source} changed while it was looked at",
        Words::Same("try again"),
    ),
    row(
        &[ErrorKind::Other],
        &[],
        UNKNOWN.message,
        Words::Same("the log has the whole chain of causes"),
    ),
];

fn trust(scheme: Option<Scheme>) -> &'static str {
    match scheme {
        Some(scheme) if scheme.info().key("ca_file").is_some() => {
            "set `ca_file` to a PEM file with the certificate of the authority that signed it"
        }
        _ => "add the certificate of the authority that signed it to those this system trusts",
    }
}

fn credentials(scheme: Option<Scheme>) -> &'static str {
    match scheme {
        Some(Scheme::S3) => "check `access_key_id`, `secret_access_key` and the `region` they are for",
        Some(Scheme::Azblob) => "check `account_name`, and `account_key` or the expiry of `sas_token`",
        Some(Scheme::Gcs) => "check the service account or token, and that it has not expired",
        Some(Scheme::Dropbox | Scheme::Gdrive | Scheme::Onedrive) => {
            "the token has expired or was withdrawn: give a new one, or a refresh token with its `client_id`"
        }
        Some(Scheme::Sftp) => "check the user and the `key`",
        Some(Scheme::Smb) => "check the user, the password and the `domain`",
        _ => "check the user and the password",
    }
}

fn no_such(scheme: Option<Scheme>) -> &'static str {
    match scheme {
        Some(Scheme::S3) => "check the spelling, the `endpoint` and the `region`",
        Some(Scheme::Azblob) => "check the spelling and the `account_name`",
        Some(Scheme::Gcs) => "check the spelling and the project the account belongs to",
        _ => "check the spelling, upper and lower case too",
    }
}
