//! What `OpenDAL` is given for each kind of source, and how each kind behaves.

use std::fmt::Write as _;

use ::opendal::options::WriteOptions;

use super::source::identity;
use crate::{Expected, Identity, Scheme, Secret, Secrets, SourceSpec, Timestamp, Version};

const KIB: u32 = 1024;
const MIB: u32 = 1024 * KIB;
/// The largest object that is put to a drive: it is sent whole, Dropbox takes no more in one request, and all of it is held in
/// memory.
const DRIVE_SIZE_MAX: u64 = 150 * MIB as u64;

/// What a source becomes for `OpenDAL`.
pub(super) struct Plan {
    /// `OpenDAL`'s name of the service.
    pub(super) service: &'static str,
    /// Its settings, secrets among them. The service's own root is always `/`: with another, `OpenDAL` makes missing
    /// directories on some servers, and breaks off on entries that it cannot place beneath it.
    pub(super) options: Vec<(String, String)>,
    /// What is set besides where an object goes in one request.
    pub(super) in_one_request: Option<(&'static str, &'static str)>,
    /// The folder within the service that is the source's root; no slash at either end.
    pub(super) prefix: String,
    pub(super) traits: Traits,
}

/// How a kind of source behaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traits {
    /// An object store: directories are prefixes of keys.
    pub(super) implicit_directories: bool,
    /// FTP: commands are lines of text, which name the path from the root with a leading slash.
    pub(super) line_protocol: bool,
    /// The service's own root cannot be asked for, only listed.
    pub(super) root_needs_listing: bool,
    /// The precision in which listing and stat agree on times.
    pub(super) time_unit_ns: i128,
    pub(super) concurrency: u32,
    pub(super) block_size: u32,
    pub(super) read_size_max: u32,
    /// How it is written to.
    pub(super) writes: Writes,
    naming: Naming,
}

/// How a kind of source is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writes {
    /// Not at all.
    Not,
    /// An object store.
    Store {
        /// Whether it is known to mind conditions: the service itself, and not a server that speaks its protocol.
        minds_conditions: bool,
    },
    Dav,
    Ftp,
    /// A drive, which takes a whole object in one request.
    Drive {
        /// The largest object, in bytes: what its service takes so, or what may be held in memory.
        size_max: u64,
        /// Whether a new name takes the place of what has it.
        moves_over: bool,
    },
}

/// What tells versions apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naming {
    /// An entity tag that names the content, and that reads can be bound to.
    ContentTag,
    /// An entity tag that names the write, and that reads can be bound to.
    WriteTag,
    /// A number that each write raises, and that reads can be bound to.
    Generation,
    /// An entity tag where the server has one, which reads cannot be bound to: files may change in place beneath it.
    LooseTag,
    /// Size and time.
    Attributes,
}

/// What a read is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ReadGuard {
    /// The request says so.
    Etag(String),
    /// The request says so.
    Generation(String),
    /// A look afterwards tells.
    Confirm,
}

impl ReadGuard {
    /// Tells whether the answer names another version than the one that was asked for: some servers ignore conditions.
    pub(super) fn contradicts(&self, served: &::opendal::Metadata) -> bool {
        match self {
            Self::Etag(etag) => served.etag().is_some_and(|other| bare(other) != bare(etag)),
            Self::Generation(id) => served.version().is_some_and(|other| other != id),
            Self::Confirm => false,
        }
    }
}

/// Strips an entity tag of its mark of weakness: the same state is weak at first and strong a second later.
fn bare(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag)
}

impl Traits {
    const STORE: Self = Self {
        implicit_directories: true,
        line_protocol: false,
        root_needs_listing: false,
        time_unit_ns: 1,
        concurrency: 32,
        block_size: MIB,
        read_size_max: 16 * MIB,
        writes: Writes::Store {
            minds_conditions: false,
        },
        naming: Naming::WriteTag,
    };
    const SERVER: Self = Self {
        implicit_directories: false,
        concurrency: 16,
        naming: Naming::Attributes,
        ..Self::STORE
    };
    const DRIVE: Self = Self {
        concurrency: 8,
        block_size: 4 * MIB,
        writes: Writes::Drive {
            size_max: DRIVE_SIZE_MAX,
            moves_over: true,
        },
        ..Self::SERVER
    };

    /// Names the version of an object from what a listing or a look told of it.
    pub(super) fn version(&self, seen: &::opendal::Metadata, size: u64, modified: Option<Timestamp>) -> Version {
        let etag = seen.etag().filter(|etag| !etag.is_empty());
        match (self.naming, etag, seen.version()) {
            (Naming::Generation, _, Some(id)) => Version::from_id(id.as_bytes()),
            (Naming::ContentTag | Naming::WriteTag | Naming::LooseTag, Some(etag), _) => {
                Version::from_etag(bare(etag).as_bytes())
            }
            _ => Version::from_stat(size, modified.unwrap_or_default(), Timestamp::default(), 0),
        }
    }

    /// Names the version where the answer to a put does, by something that the service assigns.
    pub(super) fn version_if_named(&self, seen: &::opendal::Metadata) -> Option<Version> {
        let version = self.version(seen, 0, None);
        (version.etag().is_some() || version.id().is_some()).then_some(version)
    }

    /// Tells whether versions are generations.
    pub(super) fn has_generations(&self) -> bool {
        self.naming == Naming::Generation
    }

    /// Tells whether an entity tag may be the MD5 of the bytes.
    pub(super) fn tags_may_be_md5(&self) -> bool {
        self.naming == Naming::ContentTag
    }

    /// Says what a put is bound to, as far as the request can.
    pub(super) fn conditions(&self, expected: &Expected) -> WriteOptions {
        let mut options = WriteOptions::default();
        match expected {
            Expected::Absent => options.if_not_exists = true,
            Expected::Version(version) => match self.guard(version) {
                ReadGuard::Etag(etag) => options.if_match = Some(etag),
                ReadGuard::Generation(id) => options.if_version_match = Some(id),
                ReadGuard::Confirm => {}
            },
            Expected::Anything => {}
        }
        options
    }

    /// Says what a read of this version is bound to.
    pub(super) fn guard(&self, version: &Version) -> ReadGuard {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let guard = match self.naming {
            Naming::ContentTag | Naming::WriteTag => version.etag().and_then(text).map(ReadGuard::Etag),
            Naming::Generation => version.id().and_then(text).map(ReadGuard::Generation),
            Naming::LooseTag | Naming::Attributes => None,
        };
        guard.unwrap_or(ReadGuard::Confirm)
    }

    /// Tells whether [`identity`](Self::identity) ever gives anything.
    pub(super) fn identities(&self) -> bool {
        matches!(self.naming, Naming::ContentTag)
    }

    /// Recognises an object under another name by what names its content. Empty objects are all alike.
    pub(super) fn identity(&self, seen: &::opendal::Metadata, size: u64) -> Option<Identity> {
        let etag = seen.etag().filter(|_| self.identities() && size > 0)?;
        Some(identity(bare(etag), size))
    }
}

/// Collects settings for `OpenDAL`.
struct Options<'a> {
    spec: &'a SourceSpec,
    secrets: &'a Secrets,
    list: Vec<(String, String)>,
}

impl Options<'_> {
    fn set(&mut self, key: &str, value: impl Into<String>) {
        self.list.push((key.to_owned(), value.into()));
    }

    fn switch(&mut self, key: &str) {
        self.set(key, "true");
    }

    /// Passes on a setting of ours, which may have been given as a reference and then is among the secrets.
    fn setting(&mut self, ours: &str, theirs: &str) {
        let secret = self.secrets.get(ours).map(Secret::expose);
        if let Some(value) = self.spec.setting(ours).or(secret) {
            self.set(theirs, value);
        }
    }

    fn secret(&mut self, key: &str) {
        if let Some(secret) = self.secrets.get(key) {
            self.set(key, secret.expose());
        }
    }

    fn server(&self, scheme: &str) -> Result<String, String> {
        server(self.spec, scheme)
    }

    fn container(&self) -> Result<&str, String> {
        self.spec
            .container()
            .ok_or_else(|| "the URI names no bucket or container".to_owned())
    }
}

impl Plan {
    /// Plans a source, or says why it cannot be.
    #[expect(clippy::too_many_lines, reason = "one arm for each kind of source")]
    pub(super) fn of(spec: &SourceSpec, secrets: &Secrets) -> Result<Self, String> {
        let prefix = String::from_utf8(spec.prefix().as_bytes().to_vec())
            .map_err(|_invalid| "the folder's name is not UTF-8".to_owned())?;
        let mut options = Options {
            spec,
            secrets,
            list: Vec::new(),
        };
        let anonymous = spec.flag("anonymous");
        let (service, traits) = match spec.scheme() {
            Scheme::S3 => {
                s3(&mut options, anonymous)?;
                // Listings give milliseconds, a look gives seconds.
                let traits = Traits {
                    naming: Naming::ContentTag,
                    writes: Writes::Store {
                        minds_conditions: spec.setting("endpoint").is_none(),
                    },
                    time_unit_ns: 1_000_000_000,
                    ..Traits::STORE
                };
                ("s3", traits)
            }
            Scheme::Azblob => {
                azblob(&mut options, anonymous)?;
                let traits = Traits {
                    writes: Writes::Store { minds_conditions: true },
                    ..Traits::STORE
                };
                ("azblob", traits)
            }
            Scheme::Gcs => {
                gcs(&mut options, anonymous)?;
                (
                    "gcs",
                    Traits {
                        naming: Naming::Generation,
                        writes: Writes::Store {
                            minds_conditions: spec.setting("endpoint").is_none(),
                        },
                        ..Traits::STORE
                    },
                )
            }
            Scheme::Webdav => {
                webdav(&mut options)?;
                (
                    "webdav",
                    Traits {
                        naming: Naming::LooseTag,
                        writes: Writes::Dav,
                        ..Traits::SERVER
                    },
                )
            }
            Scheme::Ftp => {
                // Of the service only the settings are used, to be checked; the server is spoken to by our own client.
                ftp(&mut options)?;
                let traits = Traits {
                    line_protocol: true,
                    root_needs_listing: true,
                    writes: Writes::Ftp,
                    // A transfer is a connection, and servers allow few.
                    concurrency: 4,
                    block_size: 4 * MIB,
                    ..Traits::SERVER
                };
                ("ftp", traits)
            }
            Scheme::Dropbox => {
                drive(&mut options);
                (
                    "dropbox",
                    Traits {
                        root_needs_listing: true,
                        writes: Writes::Drive {
                            size_max: DRIVE_SIZE_MAX,
                            moves_over: false,
                        },
                        ..Traits::DRIVE
                    },
                )
            }
            Scheme::Gdrive => {
                drive(&mut options);
                (
                    "gdrive",
                    Traits {
                        root_needs_listing: true,
                        // After a change, `OpenDAL` tells for a while what it remembers, which is not what a listing tells.
                        writes: Writes::Not,
                        ..Traits::DRIVE
                    },
                )
            }
            Scheme::Onedrive => {
                drive(&mut options);
                (
                    "onedrive",
                    Traits {
                        naming: Naming::LooseTag,
                        ..Traits::DRIVE
                    },
                )
            }
            Scheme::Local | Scheme::Smb | Scheme::Sftp => {
                return Err("this kind of source does not go through OpenDAL".to_owned());
            }
        };
        options.set("root", "/");
        Ok(Self {
            service,
            options: options.list,
            // With the sum of its bytes: there are servers that keep an empty object, or half of one, when its line breaks.
            in_one_request: (service == "s3").then_some(("checksum_algorithm", "md5")),
            prefix,
            traits,
        })
    }
}

/// Names the server of a source, with brackets around an IPv6 address.
pub(super) fn server(spec: &SourceSpec, scheme: &str) -> Result<String, String> {
    let host = spec.host().ok_or("the URI names no host")?;
    let mut address = format!("{scheme}://");
    if host.contains(':') {
        let _infallible = write!(address, "[{host}]");
    } else {
        address.push_str(host);
    }
    if let Some(port) = spec.port() {
        let _infallible = write!(address, ":{port}");
    }
    Ok(address)
}

fn s3(options: &mut Options<'_>, anonymous: bool) -> Result<(), String> {
    let bucket = options.container()?.to_owned();
    options.set("bucket", bucket);
    for key in ["endpoint", "region"] {
        options.setting(key, key);
    }
    if options.spec.flag("virtual_host_style") {
        options.switch("enable_virtual_host_style");
    }
    // Credentials come from our settings alone, never from what happens to lie on this machine.
    options.switch("disable_config_load");
    options.switch("disable_ec2_metadata");
    if anonymous {
        options.switch("skip_signature");
    } else {
        options.setting("access_key_id", "access_key_id");
        options.setting("role_arn", "role_arn");
        options.secret("secret_access_key");
        options.secret("session_token");
    }
    Ok(())
}

fn azblob(options: &mut Options<'_>, anonymous: bool) -> Result<(), String> {
    let container = options.container()?.to_owned();
    options.set("container", container);
    let account = options.spec.setting("account_name").unwrap_or_default();
    let endpoint = options.spec.setting("endpoint").map(str::to_owned);
    options.set(
        "endpoint",
        endpoint.unwrap_or_else(|| format!("https://{account}.blob.core.windows.net")),
    );
    options.setting("account_name", "account_name");
    if anonymous {
        options.switch("skip_signature");
    } else {
        options.secret("account_key");
        options.secret("sas_token");
    }
    Ok(())
}

fn gcs(options: &mut Options<'_>, anonymous: bool) -> Result<(), String> {
    let bucket = options.container()?.to_owned();
    options.set("bucket", bucket);
    options.setting("endpoint", "endpoint");
    options.switch("disable_config_load");
    options.switch("disable_vm_metadata");
    if anonymous {
        options.switch("skip_signature");
    } else {
        options.setting("credential_path", "credential_path");
        options.secret("credential");
        options.secret("token");
    }
    Ok(())
}

fn webdav(options: &mut Options<'_>) -> Result<(), String> {
    let endpoint = options.server(if options.spec.tls() { "https" } else { "http" })?;
    options.set("endpoint", endpoint);
    if let Some(user) = options.spec.user() {
        options.set("username", user);
    }
    options.secret("password");
    options.secret("token");
    Ok(())
}

fn ftp(options: &mut Options<'_>) -> Result<(), String> {
    let endpoint = options.server(if options.spec.tls() { "ftps" } else { "ftp" })?;
    options.set("endpoint", endpoint);
    options.set("user", options.spec.user().unwrap_or("anonymous"));
    options.secret("password");
    Ok(())
}

fn drive(options: &mut Options<'_>) {
    options.secret("access_token");
    options.secret("refresh_token");
    options.setting("client_id", "client_id");
    options.secret("client_secret");
}
