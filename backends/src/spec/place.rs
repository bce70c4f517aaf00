//! Which places of two sources are one.

use super::uri;
use crate::ObjectPath;

/// A place beneath the root of a source, as told from the source's name.
///
/// Two that are equal are one place. Two that are not may be one all the same: a server may have two addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePlace {
    /// All of the name but the path.
    store: Vec<String>,
    path: Vec<u8>,
}

impl SourcePlace {
    /// Finds the root of a source that goes through the network; `None` for a folder of this machine, and for what is no name.
    pub fn root_of(name: &str) -> Option<Self> {
        let mut parts = uri::parse(name).ok().filter(|_| !name.starts_with('/'))?;
        let path = std::mem::take(&mut parts.path).join(&b'/');
        let mut store = vec![parts.uri_scheme.to_owned()];
        store.extend([parts.host, parts.user, parts.container].map(Option::unwrap_or_default));
        store.push(parts.port.map_or_else(String::new, |port| port.to_string()));
        parts.query.sort_unstable();
        store.extend(parts.query.into_iter().map(|(key, value)| format!("{key}={value}")));
        Some(Self { store, path })
    }

    /// Gives what lies at a path beneath it.
    #[must_use]
    pub fn join(&self, path: &ObjectPath) -> Self {
        Self {
            store: self.store.clone(),
            path: match (&self.path[..], path.as_bytes()) {
                (root, b"") => root.to_vec(),
                (b"", path) => path.to_vec(),
                (root, path) => [root, path].join(&b'/'),
            },
        }
    }

    /// Tells whether it is called as another place is, whatever the servers are called: they may be one that has two addresses.
    pub fn may_be(&self, other: &Self) -> bool {
        let [scheme, _host, _user, container, ..] = &self.store[..] else {
            return false;
        };
        other.store.first() == Some(scheme) && other.store.get(3) == Some(container) && self.path == other.path
    }

    /// Tells whether it is another place, or lies beneath it.
    pub fn is_within(&self, other: &Self) -> bool {
        self.store == other.store
            && (other.path.is_empty()
                || (self.path.strip_prefix(&*other.path)).is_some_and(|rest| matches!(rest.first(), None | Some(b'/'))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(name: &str) -> SourcePlace {
        SourcePlace::root_of(name).unwrap()
    }

    #[test]
    fn what_lies_within_is_told_from_what_lies_beside() {
        for (inner, outer) in [
            ("s3://files/d", "s3://files"),
            (
                "s3://files/d?endpoint=http://127.0.0.1:9000",
                "s3://files?endpoint=http://127.0.0.1:9000",
            ),
            ("smb://ada@nas/share/photos/2024", "smb://ada@nas/share/photos"),
            ("sftp://ada@host/srv", "sftp://ada@host/srv"),
        ] {
            assert!(root(inner).is_within(&root(outer)), "{inner}");
            assert_eq!(root(outer).is_within(&root(inner)), inner == outer, "{outer}");
        }
        for (one, other) in [
            ("s3://files/d", "s3://other"),
            ("s3://files/photos-2024", "s3://files/photos"),
            ("s3://files/d?endpoint=http://127.0.0.1:9000", "s3://files"),
            ("sftp://ada@host/srv/x", "sftp://bob@host/srv"),
            ("sftp://host:2222/srv/x", "sftp://host/srv"),
        ] {
            assert!(!root(one).is_within(&root(other)), "{one}");
        }
        assert_eq!(SourcePlace::root_of("/home/ada"), None);
    }

    #[test]
    fn one_place_may_lie_beneath_two_roots() {
        let path = |text: &str| ObjectPath::from_bytes(text);
        let (whole, part) = (root("s3://files"), root("s3://files/d"));
        assert_eq!(whole.join(&path("d/x")), part.join(&path("x")));
        assert_ne!(whole.join(&path("x")), part.join(&path("x")));
        assert_eq!(part.join(&ObjectPath::root()), part);
        let alias = root("s3://files?endpoint=http://localhost:9000");
        assert!(part.join(&path("x")).may_be(&alias.join(&path("d/x"))));
        assert!(!part.join(&path("x")).may_be(&alias.join(&path("x"))));
        assert!(!root("s3://films").may_be(&alias) && !root("gcs://files").may_be(&alias));
    }
}
