//! What a local source must not lead into: Manifold's own mount points and the library's state. Following them would
//! be a loop.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use manifold_backends::{Backend, ObjectPath, SourceSpec};

/// The directories of one source that are kept out of the library.
#[derive(Debug, Default)]
pub(crate) struct Skip {
    /// Beneath the source's root.
    directories: Vec<ObjectPath>,
}

impl Skip {
    /// Finds which of `paths` lie beneath the root of a local source. Other sources lead nowhere on this machine.
    pub(crate) fn new(backend: &dyn Backend, paths: &[PathBuf]) -> Self {
        if backend.as_local().is_none() || paths.is_empty() {
            return Self::default();
        }
        match SourceSpec::parse(backend.name(), &BTreeMap::new()) {
            Ok(spec) => spec
                .local_root()
                .map_or_else(Self::default, |root| Self::beneath(root, paths)),
            Err(error) => {
                tracing::error!(source = backend.name(), %error, "cannot tell what to keep out of this source");
                Self::default()
            }
        }
    }

    fn beneath(root: &Path, paths: &[PathBuf]) -> Self {
        let directories = paths
            .iter()
            .filter_map(|path| path.strip_prefix(root).ok())
            .map(|path| ObjectPath::from_bytes(path.as_os_str().as_bytes()))
            .filter(|path| !path.is_root())
            .collect();
        Self { directories }
    }

    /// Tells whether the child `name` of `parent` is kept out.
    pub(crate) fn keeps_out(&self, parent: &ObjectPath, name: &[u8]) -> bool {
        !self.directories.is_empty() && self.contains(&parent.join(name))
    }

    /// Tells whether the directory or one above it is kept out.
    pub(crate) fn contains(&self, path: &ObjectPath) -> bool {
        self.directories.iter().any(|kept_out| {
            path.as_bytes()
                .strip_prefix(kept_out.as_bytes())
                .is_some_and(|rest| rest.first().is_none_or(|&byte| byte == b'/'))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_beneath_the_root_is_kept_out_with_all_in_it() {
        let paths = ["/home/ada/Manifold", "/mnt", "/home/ada"].map(PathBuf::from);
        let skip = Skip::beneath(Path::new("/home/ada"), &paths);
        assert!(skip.keeps_out(&ObjectPath::root(), b"Manifold"));
        assert!(skip.contains(&ObjectPath::from_bytes(*b"Manifold/a/b")));
        assert!(!skip.keeps_out(&ObjectPath::root(), b"Manifold2"));
        assert!(!skip.keeps_out(&ObjectPath::root(), b"mnt"));
        assert!(!skip.contains(&ObjectPath::root()));
    }
}
