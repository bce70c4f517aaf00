//! Where sources are attached, and which may stand beside which.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use manifold_backends::{SourcePlace, SourceSpec};
use manifold_catalog::SourceRecord;

use crate::control::status::SourceStatus;
use crate::failure::{Failure, Result};
use crate::mounts;
use crate::print::visible;

/// A name with this number behind it is the last that is tried.
const SUFFIX_MAX: u32 = 10_000;
/// The longest name, in bytes.
const NAME_MAX: usize = 255;

/// A source that is there.
#[derive(Clone, Debug)]
pub(crate) struct Present {
    name: String,
    attach: Vec<u8>,
}

impl From<&SourceRecord> for Present {
    fn from(record: &SourceRecord) -> Self {
        Self {
            name: record.name.clone(),
            attach: record.attach.clone(),
        }
    }
}

impl From<&SourceStatus> for Present {
    fn from(source: &SourceStatus) -> Self {
        Self {
            name: source.uri.clone(),
            attach: source.attach.0.clone(),
        }
    }
}

impl Present {
    /// Tells whether it is the same place as `spec`, by name or, for folders, by what stands at the path.
    pub(crate) fn is(&self, spec: &SourceSpec) -> bool {
        let identity = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
        // The same folder by another way, such as a bind mount.
        let same_folder = || {
            let own = identity(spec.local_root()?)?;
            Some(own == identity(&self.local_root()?)?)
        };
        self.name == spec.name() || same_folder() == Some(true)
    }

    /// Shows where it is attached.
    pub(crate) fn attached_at(&self) -> String {
        visible(&self.attach)
    }

    fn local_root(&self) -> Option<PathBuf> {
        let spec = SourceSpec::parse(&self.name, &BTreeMap::new()).ok()?;
        spec.local_root().map(Path::to_owned)
    }
}

/// Finds a free path directly beneath the root: `/name`, else `/name 2`, `/name 3` and so on.
pub(crate) fn free_name(name: &[u8], taken: impl Fn(&[u8]) -> Result<bool>) -> Result<Vec<u8>> {
    for number in 1..=SUFFIX_MAX {
        let suffix = if number == 1 {
            String::new()
        } else {
            format!(" {number}")
        };
        let room = NAME_MAX - suffix.len();
        let mut path = b"/".to_vec();
        path.extend_from_slice(shortened(name, room));
        path.extend_from_slice(suffix.as_bytes());
        if !taken(&path)? {
            return Ok(path);
        }
    }
    Err(Failure::new(format!("every name like '{}' is taken", visible(name))).hint("choose a path with --at"))
}

/// Cuts a name without cutting a character of UTF-8 in two.
fn shortened(name: &[u8], room: usize) -> &[u8] {
    let mut end = name.len().min(room);
    while end < name.len() && end > 0 && name.get(end).is_some_and(|byte| byte & 0xc0 == 0x80) {
        end -= 1;
    }
    name.get(..end).unwrap_or(name)
}

/// Brings a path that was given for a source to its one form: absolute, without empty parts.
pub(crate) fn canonical(path: &[u8]) -> Result<Vec<u8>> {
    let mut clean = Vec::with_capacity(path.len() + 1);
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        if part == b"." || part == b".." {
            return Err(Failure::usage(format!(
                "'{}' is not a path to attach a source at: it holds '.' or '..'",
                visible(path)
            )));
        }
        clean.push(b'/');
        clean.extend_from_slice(part);
    }
    if clean.is_empty() {
        clean.push(b'/');
    }
    Ok(clean)
}

/// Refuses what cannot be a source beside the present ones: a second time the same, a loop, or files at a server that have a name
/// in the library already. Gives a warning where two local sources overlap, which is rarely meant.
pub(crate) fn check_new(spec: &SourceSpec, present: &[Present], state: &Path) -> Result<Option<String>> {
    if let Some(same) = present.iter().find(|present| present.is(spec)) {
        let attach = same.attached_at();
        return Err(Failure::new(format!(
            "{} is a source of the library already, attached at {attach}",
            same.name
        ))
        .hint("`manifold source remove` takes it away first"));
    }
    let Some(root) = spec.local_root() else {
        return must_not_overlap(spec, present).map(|()| None);
    };
    mounts::check_source(root, &mounts::real_path(state).unwrap_or_else(|_| state.to_owned()))?;
    let overlapping = present.iter().find_map(|present| {
        let other = present.local_root()?;
        (root.starts_with(&other) || other.starts_with(root)).then_some((present, other))
    });
    Ok(overlapping.map(|(present, other)| {
        format!(
            "{} and the source {} (at {}) overlap: the files in both are shown twice",
            root.display(),
            other.display(),
            present.attached_at()
        )
    }))
}

/// To programs two names of one file are two files: what moves one onto the other, or a folder into itself, would destroy it.
fn must_not_overlap(spec: &SourceSpec, present: &[Present]) -> Result<()> {
    let Some(place) = SourcePlace::root_of(spec.name()) else {
        return Ok(());
    };
    let overlapping = present.iter().find(|present| {
        let other = SourcePlace::root_of(&present.name);
        other.is_some_and(|other| place.is_within(&other) || other.is_within(&place))
    });
    overlapping.map_or(Ok(()), |other| {
        Err(Failure::new(format!(
            "{} and the source {} (at {}) overlap: the same files would have two names in the library, and could be lost \
             when one is moved to the other",
            spec.name(),
            other.name,
            other.attached_at()
        ))
        .hint("add folders beside each other, or `manifold source remove` the other first"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clash_gets_a_number_that_fits() {
        let taken = |path: &[u8]| Ok([&b"/Pictures"[..], b"/Pictures 2"].contains(&path));
        assert_eq!(free_name(b"Pictures", taken).expect("it is free"), b"/Pictures 3");
        assert_eq!(free_name(b"Music", taken).expect("it is free"), b"/Music");
        let long = "\u{e4}".repeat(127);
        let path = free_name(long.as_bytes(), |path| Ok(path == format!("/{long}").as_bytes())).expect("it is free");
        assert_eq!(
            std::str::from_utf8(&path).expect("whole characters"),
            format!("/{} 2", "\u{e4}".repeat(126))
        );
    }

    #[test]
    fn what_is_at_a_server_has_one_name() {
        let settings = BTreeMap::from([("access_key_id".to_owned(), "AKIAEXAMPLE".to_owned())]);
        let spec = |uri: &str| SourceSpec::parse(uri, &settings).expect("a good URI");
        let present = [Present {
            name: spec("s3://photos/2024").name().to_owned(),
            attach: b"/2024".to_vec(),
        }];
        for uri in ["s3://photos", "s3://photos/2024/may"] {
            let refused = check_new(&spec(uri), &present, Path::new("/nowhere")).expect_err("it overlaps");
            assert!(
                refused.message().contains("(at /2024) overlap"),
                "{}",
                refused.message()
            );
        }
        for uri in ["s3://photos/2023", "s3://films/2024"] {
            let taken = check_new(&spec(uri), &present, Path::new("/nowhere"));
            assert_eq!(taken.expect("it lies beside"), None);
        }
    }

    #[test]
    fn paths_have_one_form() {
        assert_eq!(canonical(b"media//photos/").expect("good"), b"/media/photos");
        assert_eq!(canonical(b"/").expect("good"), b"/");
        assert!(canonical(b"/a/../b").is_err());
    }
}
