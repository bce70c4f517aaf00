//! How a path of ours is written in a request, and which cannot be.
//!
//! What `OpenDAL` and HTTP cannot express, as of `OpenDAL` 0.59:
//! - names that are not UTF-8: they reach us percent-encoded (`WebDAV`) or not at all, and cannot be asked for;
//! - parts that are `.` or `..`: every URL parser resolves them away;
//! - empty parts (`a//b`), but on object stores, where they are part of the key;
//! - a key that begins with a slash, at the root of a bucket.
//!
//! Such a name is listed wherever a listing tells of it, and answers [`ErrorKind::BadPath`] when it is used.

use crate::{ErrorKind, ObjectPath, Operation, Result};

use super::source::Source;

impl Source {
    /// Writes a path as the service takes it: without a leading slash (but for FTP), and with one at the end for a
    /// directory; the service's own root is `/`.
    pub(super) fn raw(&self, operation: Operation, path: &ObjectPath, directory: bool) -> Result<String> {
        let bad = |why: &str| self.error(ErrorKind::BadPath, operation, path, why);
        let text = std::str::from_utf8(path.as_bytes()).map_err(|_invalid| bad("the name is not UTF-8"))?;
        for part in text.split('/') {
            match part {
                "." | ".." => return Err(bad("no request can name a part `.` or `..`")),
                "" if !path.is_root() && !self.traits.implicit_directories => return Err(bad("a part is empty")),
                _ if part.contains('\0') => return Err(bad("the name holds a NUL")),
                _ if self.traits.line_protocol && part.contains(['\r', '\n']) => {
                    return Err(bad(
                        "the name holds a line break, which ends a command of this protocol",
                    ));
                }
                _ => {}
            }
        }
        let mut raw = String::with_capacity(self.prefix.len() + text.len() + 2);
        if self.traits.line_protocol {
            raw.push('/');
        }
        raw.push_str(&self.prefix);
        if !self.prefix.is_empty() && !text.is_empty() {
            raw.push('/');
        }
        raw.push_str(text);
        if !self.traits.line_protocol && raw.starts_with('/') {
            return Err(bad(
                "a key that begins with a slash cannot be asked for at the root of a bucket",
            ));
        }
        if directory && !raw.ends_with('/') || directory && !text.is_empty() && text.ends_with('/') {
            raw.push('/');
        }
        Ok(raw)
    }
}

/// Tells whether a name may be one that could not be decoded: it is then still percent-encoded, and what it stands for
/// is not UTF-8.
pub(super) fn may_be_garbled(name: &[u8]) -> bool {
    name.contains(&b'%') && percent_encoding::percent_decode(name).decode_utf8().is_err()
}
