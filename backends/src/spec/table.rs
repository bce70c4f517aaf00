//! The table of schemes: which URIs there are, which settings and secrets each takes, and what they mean.
//!
//! Parsing, `--help` and `docs/sources.md` are all made from it, so that none of them can know a key that the others
//! do not.

use super::{Scheme, nearest};

/// Everything about one kind of source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemeInfo {
    /// The kind.
    pub scheme: Scheme,
    /// What it is, for a heading.
    pub title: &'static str,
    /// The first parts of its URIs, the plain one first.
    pub uri_schemes: &'static [&'static str],
    /// The form of its URI.
    pub form: &'static str,
    /// A URI as a person would write it.
    pub example: &'static str,
    /// Its settings, without those that every kind has (see [`common_keys`]).
    pub keys: &'static [KeyInfo],
    /// Its secrets: every one it can use, whatever its settings.
    pub secrets: &'static [SecretKey],
}

/// One setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its name.
    pub name: &'static str,
    /// What it means, in a sentence without a full stop.
    pub meaning: &'static str,
    /// The value that holds when none is given.
    pub default: Option<&'static str>,
    /// Whether the source cannot be used without it.
    pub required: bool,
    /// Whether two sources that differ in it are different sources; it is then part of the source's name.
    pub identity: bool,
    /// Whether `env:NAME` or `file:PATH` may stand in for the value; it then arrives among the secrets.
    pub reference: bool,
    /// What its values look like.
    pub value: ValueKind,
}

/// What the values of a setting look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// Any text that is not empty.
    Text,
    /// `true` or `false`.
    Flag,
    /// A whole number from the first to the second.
    Count(u32, u32),
    /// A block size: a power of two from 64 KiB to 16 MiB, as `1MiB`, `512KiB` or in bytes.
    BlockSize,
    /// A span of time: a number and `s`, `m`, `h` or `d`.
    Duration,
    /// An `http://` or `https://` address.
    Url,
    /// An absolute path on this machine.
    Path,
    /// One of a few words.
    Choice(&'static [&'static str]),
}

/// A secret that a kind of source can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretKey {
    /// The setting's name.
    pub key: &'static str,
    /// Whether the source cannot be used without it.
    pub required: bool,
    /// What to ask a person for.
    pub prompt: &'static str,
}

const fn key(name: &'static str, value: ValueKind, meaning: &'static str) -> KeyInfo {
    KeyInfo {
        name,
        meaning,
        default: None,
        required: false,
        identity: false,
        reference: false,
        value,
    }
}

impl KeyInfo {
    const fn default(mut self, value: &'static str) -> Self {
        self.default = Some(value);
        self
    }

    const fn identity(mut self) -> Self {
        self.identity = true;
        self
    }

    const fn reference(mut self) -> Self {
        self.reference = true;
        self
    }

    const fn required(mut self) -> Self {
        self.required = true;
        self
    }
}

const fn optional(key: &'static str, prompt: &'static str) -> SecretKey {
    SecretKey {
        key,
        required: false,
        prompt,
    }
}

const fn needed(key: &'static str, prompt: &'static str) -> SecretKey {
    SecretKey {
        key,
        required: true,
        prompt,
    }
}

/// The settings that every kind of source has.
pub(super) const COMMON: &[KeyInfo] = &[
    key("read_only", ValueKind::Flag, "refuse every change to the source").default("false"),
    key(
        "refresh",
        ValueKind::Duration,
        "how old a listing may grow before it is asked for again",
    )
    .default("60s"),
    key(
        "block_size",
        ValueKind::BlockSize,
        "how much is fetched and cached at a time; without it, what suits the source",
    ),
    key(
        "concurrency",
        ValueKind::Count(1, 256),
        "how many requests at once; without it, what suits the source",
    ),
    key(
        "scan_rate",
        ValueKind::Count(0, 10_000),
        "how many directories are listed in a second at most in the background, 0 for no limit; without it, as the setting `scan.rate` says",
    ),
    key(
        "write",
        ValueKind::Choice(&["off", "back", "through"]),
        "whether the source is written to, and if so, whether closing a file returns when it is safe on this machine (back) or when it is uploaded (through); a folder of this machine is always written to at once",
    )
    .default("off"),
    key(
        "trash",
        ValueKind::Flag,
        "move what is removed through the mount to the folder `.manifold-trash` of the source, in place of deleting it; not for folders of this machine",
    )
    .default("false"),
    key(
        "attributes",
        ValueKind::Choice(&["keep", "refuse"]),
        "whether the catalog keeps what the source cannot store of a file that is changed through the mount: permissions, owner, times, extended attributes; a folder of this machine stores them itself",
    )
    .default("keep"),
    key(
        "links",
        ValueKind::Choice(&["refuse", "objects"]),
        "whether symbolic links are kept in the source as small objects, `name.rclonelink` for the link `name` as rclone does with `--links`; a folder of this machine has links of its own",
    )
    .default("refuse"),
];

const USER: KeyInfo = key(
    "user",
    ValueKind::Text,
    "who to log in as; the same as `user@` in the URI",
);
const ANONYMOUS: KeyInfo = key("anonymous", ValueKind::Flag, "use the source without credentials").default("false");
const CA_FILE: KeyInfo = key(
    "ca_file",
    ValueKind::Path,
    "a PEM file with the certificate of the authority to trust besides the system's own",
);
const ACCOUNT: KeyInfo = key(
    "account",
    ValueKind::Text,
    "a word of your choosing that tells this account from your others of the same service",
)
.identity();
const CLIENT_ID: KeyInfo = key(
    "client_id",
    ValueKind::Text,
    "the application's id, with a refresh token",
)
.reference();

const DRIVE_SECRETS: &[SecretKey] = &[
    optional("access_token", "access token"),
    optional("refresh_token", "refresh token"),
    optional("client_secret", "client secret"),
];
/// A user's name was given, so a password goes with it.
pub(super) const PASSWORD: &[SecretKey] = &[needed("password", "password")];
/// `WebDAV` without a user's name.
pub(super) const TOKEN: &[SecretKey] = &[optional("token", "bearer token")];
/// S3 with an access key.
pub(super) const S3_SECRETS: &[SecretKey] = &[
    needed("secret_access_key", "secret access key"),
    optional("session_token", "session token of temporary credentials"),
];

pub(super) static SCHEMES: &[SchemeInfo] = &[
    SchemeInfo {
        scheme: Scheme::Local,
        title: "A folder of this machine",
        uri_schemes: &["file"],
        form: "/absolute/path or file:///absolute/path",
        example: "/home/ada/Pictures",
        keys: &[key(
            "root_id",
            ValueKind::Text,
            "what tells the folder from another at the same path, such as the empty mount point of a disk that is not \
             there; recorded when the source is added",
        )],
        secrets: &[],
    },
    SchemeInfo {
        scheme: Scheme::Smb,
        title: "A share of a NAS, Windows or Samba server",
        uri_schemes: &["smb"],
        form: "smb://[user@]host[:port]/share[/folder]",
        example: "smb://ada@nas.local/media/films",
        keys: &[
            USER,
            key("domain", ValueKind::Text, "the Windows domain or workgroup of the user"),
            key(
                "signing",
                ValueKind::Choice(&["auto", "required"]),
                "whether each message is signed: `auto` signs all but a guest's, `required` refuses to go without",
            )
            .default("auto"),
            key(
                "encryption",
                ValueKind::Choice(&["auto", "required"]),
                "whether each message is encrypted: `auto` where the server demands it, `required` always",
            )
            .default("auto"),
        ],
        secrets: PASSWORD,
    },
    SchemeInfo {
        scheme: Scheme::S3,
        title: "A bucket of Amazon S3 or a compatible service",
        uri_schemes: &["s3"],
        form: "s3://bucket[/folder]",
        example: "s3://photos/2024?endpoint=https://s3.example.org&access_key_id=AKIAEXAMPLE",
        keys: &[
            key("endpoint", ValueKind::Url, "the address of the service")
                .default("https://s3.amazonaws.com")
                .identity(),
            key("region", ValueKind::Text, "the region of the bucket").default("us-east-1"),
            key(
                "access_key_id",
                ValueKind::Text,
                "the id of the access key; needed unless `anonymous`",
            )
            .reference(),
            key("role_arn", ValueKind::Text, "a role to take on with the access key"),
            key(
                "virtual_host_style",
                ValueKind::Flag,
                "put the bucket's name into the host name",
            )
            .default("false"),
            ANONYMOUS,
            CA_FILE,
        ],
        secrets: S3_SECRETS,
    },
    SchemeInfo {
        scheme: Scheme::Webdav,
        title: "A WebDAV server (Nextcloud, ownCloud, Apache and others)",
        uri_schemes: &["webdav", "webdavs"],
        form: "webdav[s]://[user@]host[:port]/folder (webdavs is over TLS)",
        example: "webdavs://ada@cloud.example.org/remote.php/dav/files/ada",
        keys: &[USER, CA_FILE],
        secrets: &[optional("password", "password"), optional("token", "bearer token")],
    },
    SchemeInfo {
        scheme: Scheme::Sftp,
        title: "A server that is reached over SSH",
        uri_schemes: &["sftp"],
        form: "sftp://[user@]host[:port][/folder] (without a folder: the user's home)",
        example: "sftp://ada@server.example.org/srv/media",
        keys: &[
            USER,
            key(
                "key",
                ValueKind::Path,
                "the file of the private key; without it, what `ssh` itself would use",
            ),
            key(
                "known_hosts",
                ValueKind::Choice(&["strict", "accept", "add"]),
                "what to do with a host key that is not known: refuse it, accept it, or accept and remember it",
            )
            .default("strict"),
        ],
        secrets: &[],
    },
    SchemeInfo {
        scheme: Scheme::Ftp,
        title: "An FTP server",
        uri_schemes: &["ftp", "ftps"],
        form: "ftp[s]://[user@]host[:port][/folder] (ftps is over TLS)",
        example: "ftps://ada@ftp.example.org/pub",
        keys: &[USER],
        secrets: PASSWORD,
    },
    SchemeInfo {
        scheme: Scheme::Azblob,
        title: "A container of Azure Blob Storage",
        uri_schemes: &["azblob"],
        form: "azblob://container[/folder]",
        example: "azblob://archive/2024?account_name=adastore",
        keys: &[
            key("account_name", ValueKind::Text, "the storage account")
                .identity()
                .required(),
            key(
                "endpoint",
                ValueKind::Url,
                "the address of the service; without it, https://ACCOUNT_NAME.blob.core.windows.net",
            )
            .identity(),
            ANONYMOUS,
            CA_FILE,
        ],
        secrets: &[
            optional("account_key", "account key"),
            optional("sas_token", "shared access signature"),
        ],
    },
    SchemeInfo {
        scheme: Scheme::Gcs,
        title: "A bucket of Google Cloud Storage",
        uri_schemes: &["gcs", "gs"],
        form: "gcs://bucket[/folder]",
        example: "gcs://archive/2024",
        keys: &[
            key("endpoint", ValueKind::Url, "the address of the service")
                .default("https://storage.googleapis.com")
                .identity(),
            key("credential_path", ValueKind::Path, "the JSON file of a service account"),
            ANONYMOUS,
            CA_FILE,
        ],
        secrets: &[
            optional("credential", "JSON of a service account, in base64"),
            optional("token", "access token"),
        ],
    },
    SchemeInfo {
        scheme: Scheme::Dropbox,
        title: "Dropbox",
        uri_schemes: &["dropbox"],
        form: "dropbox://[/folder]",
        example: "dropbox:///Photos",
        keys: &[ACCOUNT, CLIENT_ID],
        secrets: DRIVE_SECRETS,
    },
    SchemeInfo {
        scheme: Scheme::Gdrive,
        title: "Google Drive",
        uri_schemes: &["gdrive"],
        form: "gdrive://[/folder]",
        example: "gdrive:///Photos",
        keys: &[ACCOUNT, CLIENT_ID],
        secrets: DRIVE_SECRETS,
    },
    SchemeInfo {
        scheme: Scheme::Onedrive,
        title: "Microsoft OneDrive",
        uri_schemes: &["onedrive"],
        form: "onedrive://[/folder]",
        example: "onedrive:///Photos",
        keys: &[ACCOUNT, CLIENT_ID],
        secrets: DRIVE_SECRETS,
    },
];

/// Gives the table of schemes.
pub fn schemes() -> &'static [SchemeInfo] {
    SCHEMES
}

/// Gives the settings that every kind of source has.
pub fn common_keys() -> &'static [KeyInfo] {
    COMMON
}

impl Scheme {
    /// Gives this kind's row of the table.
    pub fn info(self) -> &'static SchemeInfo {
        SCHEMES
            .iter()
            .find(|info| info.scheme == self)
            .expect("invariant: every scheme has its row (tested)")
    }
}

impl SchemeInfo {
    /// Gives all settings of this kind of source, its own first.
    pub fn all_keys(&self) -> impl Iterator<Item = &'static KeyInfo> + use<> {
        self.keys.iter().chain(COMMON)
    }

    /// Finds a setting by its name.
    pub fn key(&self, name: &str) -> Option<&'static KeyInfo> {
        self.all_keys().find(|info| info.name == name)
    }

    /// Finds a secret by its name.
    pub fn secret(&self, name: &str) -> Option<&'static SecretKey> {
        self.secrets.iter().find(|secret| secret.key == name)
    }

    /// Gives the name that comes nearest to a mistyped one.
    pub fn nearest(&self, name: &str) -> Option<&'static str> {
        nearest(
            name,
            self.all_keys()
                .map(|info| info.name)
                .chain(self.secrets.iter().map(|secret| secret.key)),
        )
    }
}
