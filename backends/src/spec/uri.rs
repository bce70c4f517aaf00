//! URIs of sources: taken apart, and put together again in their one spelling.
//!
//! No message of this file repeats what it was given, but for the scheme: until the user part is known to hold no
//! password, any piece may be one.

use std::net::Ipv6Addr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::nearest;
use super::table::{SCHEMES, SchemeInfo};
use super::{Scheme, SpecError};
use crate::ObjectPath;

/// A URI, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) info: &'static SchemeInfo,
    pub(super) uri_scheme: &'static str,
    pub(super) host: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) user: Option<String>,
    pub(super) container: Option<String>,
    /// Path parts, decoded: of a local folder, or beneath the share, bucket, container or server.
    pub(super) path: Vec<Vec<u8>>,
    pub(super) query: Vec<(String, String)>,
}

/// Where the first part of the URI's path, or its authority, goes.
enum Shape {
    Local,
    /// `//host/container/path`
    Share,
    /// `//host/path`
    Server,
    /// `//container/path`
    Container,
    /// `///path`
    Account,
}

fn shape(scheme: Scheme) -> Shape {
    match scheme {
        Scheme::Local => Shape::Local,
        Scheme::Smb => Shape::Share,
        Scheme::Webdav | Scheme::Sftp | Scheme::Ftp => Shape::Server,
        Scheme::S3 | Scheme::Azblob | Scheme::Gcs => Shape::Container,
        Scheme::Dropbox | Scheme::Gdrive | Scheme::Onedrive => Shape::Account,
    }
}

fn own_port(uri_scheme: &str) -> Option<u16> {
    match uri_scheme {
        "smb" => Some(445),
        "webdav" => Some(80),
        "webdavs" => Some(443),
        "sftp" => Some(22),
        "ftp" | "ftps" => Some(21),
        _ => None,
    }
}

/// Takes a URI or an absolute path apart.
pub(super) fn parse(text: &str) -> Result<Parts, SpecError> {
    if text.starts_with('/') {
        return local(split_path(text.as_bytes())?, Vec::new());
    }
    let Some((uri_scheme, rest)) = text.split_once("://") else {
        return Err(SpecError::RelativePath);
    };
    let (info, uri_scheme) = find_scheme(uri_scheme)?;
    if rest.contains('#') {
        return Err(bad("a `#` in a URI is written %23"));
    }
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, parse_query(query)?),
        None => (rest, Vec::new()),
    };
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, ""),
    };
    let shape = shape(info.scheme);
    if matches!(shape, Shape::Share | Shape::Server) {
        refuse_stray_password(authority, path)?;
    } else if authority.contains(['@', ':']) {
        return Err(SpecError::PasswordInUri);
    }
    if path.to_ascii_lowercase().contains("%2f") {
        return Err(bad("the path holds an encoded slash, which no name can have"));
    }
    let mut path = split_path(&decode(path)?)?;
    if !matches!(shape, Shape::Local) && path.iter().any(|part| std::str::from_utf8(part).is_err()) {
        return Err(bad("the path is not UTF-8"));
    }
    let mut parts = Parts {
        info,
        uri_scheme,
        host: None,
        port: None,
        user: None,
        container: None,
        path: Vec::new(),
        query,
    };
    match shape {
        Shape::Local => {
            if !(authority.is_empty() || authority == "localhost") {
                return Err(bad("a file:// URI has three slashes, as in file:///home/ada"));
            }
            return local(path, parts.query);
        }
        Shape::Share | Shape::Server => {
            let (user, host) = match authority.rsplit_once('@') {
                Some((user, host)) => (Some(parse_user(user)?), host),
                None => (None, authority),
            };
            parts.user = user;
            (parts.host, parts.port) = parse_host(host, own_port(uri_scheme))?;
            if matches!(shape, Shape::Share) {
                if path.is_empty() {
                    return Err(bad("the URI names no share, as in smb://host/share"));
                }
                // Share names are not told apart by case; folders beneath are left as they are.
                parts.container = Some(String::from_utf8_lossy(&path.remove(0)).to_lowercase());
            }
        }
        Shape::Container => parts.container = Some(parse_container(authority)?),
        Shape::Account if authority.is_empty() => {}
        Shape::Account => {
            return Err(bad(
                "the folder follows three slashes, and `?account=WORD` tells accounts apart",
            ));
        }
    }
    parts.path = path;
    Ok(parts)
}

/// Takes a path of this machine, whose bytes need not be UTF-8.
pub(super) fn parse_path(path: &Path) -> Result<Parts, SpecError> {
    if !path.is_absolute() {
        return Err(SpecError::RelativePath);
    }
    local(split_path(path.as_os_str().as_bytes())?, Vec::new())
}

impl Parts {
    /// Puts the URI together; `identity` are the settings that belong to it, in order.
    pub(super) fn name<'a>(&self, identity: impl Iterator<Item = (&'a str, &'a str)>) -> String {
        let mut name = format!("{}://", self.uri_scheme);
        if let Some(user) = &self.user {
            encode(&mut name, user.as_bytes(), "@:/");
            name.push('@');
        }
        if let Some(host) = &self.host {
            let address = host.contains(':');
            name.push_str(if address { "[" } else { "" });
            name.push_str(host);
            name.push_str(if address { "]" } else { "" });
        }
        if let Some(port) = self.port {
            name.push(':');
            name.push_str(&port.to_string());
        }
        if let Some(container) = &self.container {
            if self.host.is_some() {
                name.push('/');
            }
            encode(&mut name, container.as_bytes(), "/@:");
        }
        for part in &self.path {
            name.push('/');
            // A stray password is looked for in an `@` behind a port: see `refuse_stray_password`.
            encode(&mut name, part, "@");
        }
        if self.info.scheme == Scheme::Local && self.path.is_empty() {
            name.push('/');
        }
        for (index, (key, value)) in identity.enumerate() {
            name.push(if index == 0 { '?' } else { '&' });
            name.push_str(key);
            name.push('=');
            encode(&mut name, value.as_bytes(), "&=+");
        }
        name
    }

    pub(super) fn prefix(&self) -> ObjectPath {
        self.path.iter().fold(ObjectPath::root(), |path, part| path.join(part))
    }

    pub(super) fn local_root(&self) -> Option<PathBuf> {
        (self.info.scheme == Scheme::Local).then(|| {
            let mut bytes = vec![b'/'];
            bytes.extend_from_slice(self.prefix().as_bytes());
            PathBuf::from(std::ffi::OsString::from_vec(bytes))
        })
    }
}

fn local(path: Vec<Vec<u8>>, query: Vec<(String, String)>) -> Result<Parts, SpecError> {
    let info = Scheme::Local.info();
    let uri_scheme = info.uri_schemes.first().copied().ok_or(SpecError::RelativePath)?;
    Ok(Parts {
        info,
        uri_scheme,
        host: None,
        port: None,
        user: None,
        container: None,
        path,
        query,
    })
}

fn bad(why: impl Into<String>) -> SpecError {
    SpecError::BadUri { why: why.into() }
}

fn find_scheme(given: &str) -> Result<(&'static SchemeInfo, &'static str), SpecError> {
    let lower = given.to_ascii_lowercase();
    for info in SCHEMES {
        if let Some(found) = info.uri_schemes.iter().find(|name| **name == lower) {
            // The first spelling is the one that names are made of, unless another means something else (TLS).
            let canonical = if info.scheme == Scheme::Gcs {
                info.uri_schemes.first().unwrap_or(found)
            } else {
                found
            };
            return Ok((info, canonical));
        }
    }
    let nearest = match lower.as_str() {
        "http" | "dav" => Some("webdav"),
        "https" | "davs" => Some("webdavs"),
        "ssh" | "scp" => Some("sftp"),
        "cifs" => Some("smb"),
        _ => nearest(&lower, SCHEMES.iter().flat_map(|info| info.uri_schemes.iter().copied())),
    };
    let plausible = given.len() <= 20 && given.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    Err(SpecError::UnknownScheme {
        scheme: if plausible { given.into() } else { "…".into() },
        nearest,
    })
}

/// Refuses `user:password@host`, and what is left of it where the password holds a slash.
fn refuse_stray_password(authority: &str, path: &str) -> Result<(), SpecError> {
    let in_user = authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'));
    let cut_by_slash = !authority.contains('@') && authority.contains(':') && path.contains('@');
    if in_user || cut_by_slash {
        Err(SpecError::PasswordInUri)
    } else {
        Ok(())
    }
}

fn parse_user(encoded: &str) -> Result<String, SpecError> {
    let user = String::from_utf8(decode(encoded)?).map_err(|_| bad("the user's name is not UTF-8"))?;
    if user.is_empty() || user.chars().any(char::is_control) {
        return Err(bad(
            "the user's name before the `@` is empty or holds a control character",
        ));
    }
    Ok(user)
}

fn parse_host(text: &str, own_port: Option<u16>) -> Result<(Option<String>, Option<u16>), SpecError> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest
            .split_once(']')
            .ok_or_else(|| bad("an IPv6 address wants its closing bracket"))?;
        let address: Ipv6Addr = address
            .parse()
            .map_err(|_| bad("no IPv6 address stands between the brackets"))?;
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(port),
            None if rest.is_empty() => None,
            None => return Err(bad("after an IPv6 address comes a port or the path")),
        };
        (address.to_string(), port)
    } else {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        let host = host.strip_suffix('.').unwrap_or(host).to_lowercase();
        let odd = |c: char| !(c.is_alphanumeric() || "-._".contains(c));
        if host.is_empty() {
            return Err(bad("the URI names no host"));
        }
        if host.contains(odd) || host.starts_with('.') || host.ends_with('.') || host.contains("..") {
            return Err(bad("the host's name holds a character that no host's name has"));
        }
        (host, port)
    };
    let port = match port {
        None | Some("") => None,
        Some(port) => match port.parse::<u16>() {
            Ok(port) if port > 0 => Some(port),
            _ => {
                return Err(bad(
                    "the port after the host is not a number from 1 to 65535 (if it is a password: it does not belong \
                     into a URI)",
                ));
            }
        },
    };
    Ok((Some(host), port.filter(|port| Some(*port) != own_port)))
}

fn parse_container(encoded: &str) -> Result<String, SpecError> {
    let name = String::from_utf8(decode(encoded)?).map_err(|_| bad("the bucket or container is not UTF-8"))?;
    if name.is_empty() {
        return Err(bad("the URI names no bucket or container, as in s3://bucket"));
    }
    if name
        .chars()
        .any(|c| c.is_control() || c.is_whitespace() || "/@:?#%".contains(c))
        || name == "."
        || name == ".."
    {
        return Err(bad("the bucket's or container's name holds a character that none has"));
    }
    Ok(name)
}

fn parse_query(query: &str) -> Result<Vec<(String, String)>, SpecError> {
    let text =
        |encoded: &str| String::from_utf8(decode(encoded)?).map_err(|_| bad("what follows the `?` is not UTF-8"));
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                bad("after a `?` come settings, as in ?key=value (a `?` in a file's name is written %3F)")
            })?;
            Ok((text(key)?, text(value)?))
        })
        .collect()
}

fn split_path(path: &[u8]) -> Result<Vec<Vec<u8>>, SpecError> {
    if path.contains(&0) {
        return Err(bad("the path holds a NUL"));
    }
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(bad("the path holds `..`; give the path that is meant")),
            _ => parts.push(part.to_vec()),
        }
    }
    Ok(parts)
}

/// Decodes `%XX`.
fn decode(encoded: &str) -> Result<Vec<u8>, SpecError> {
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        match (digit(bytes.next()), digit(bytes.next())) {
            (Some(high), Some(low)) => decoded.push((high * 16 + low) as u8),
            _ => return Err(bad("a `%` is followed by two hexadecimal digits, or written %25")),
        }
    }
    Ok(decoded)
}

/// Encodes what would be mistaken in a URI, or cannot be shown; letters of any alphabet stay readable.
fn encode(out: &mut String, bytes: &[u8], besides: &str) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            let plain = if c.is_ascii() {
                c.is_ascii_alphanumeric() || ("-._~!$'()*,;@:/&=+[]".contains(c) && !besides.contains(c))
            } else {
                c.is_alphanumeric()
            };
            if plain {
                out.push(c);
            } else {
                let mut buffer = [0; 4];
                encode_bytes(out, c.encode_utf8(&mut buffer).as_bytes());
            }
        }
        encode_bytes(out, chunk.invalid());
    }
}

fn encode_bytes(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in bytes {
        out.push('%');
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}
