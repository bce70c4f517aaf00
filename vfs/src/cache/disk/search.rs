//! Finds the objects that earlier runs left in the cache folder, by their files' names alone.
//!
//! Always true: a file that does not bear a name of ours is left alone; one folder that cannot be read does not hide the others.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use crate::cache::key::{DiskKey, ObjectKey, SourceTag, parse_hex};
use crate::cache::object::{Paths, remove_files};

const STAT_BLOCK: u64 = 512;

/// An object that has both its files.
pub(super) struct Left {
    /// When its data was last written.
    pub(super) modified: SystemTime,
    /// Which it is.
    pub(super) key: DiskKey,
    /// The bytes that both files really occupy.
    pub(super) bytes: u64,
}

/// Looks through the folder, which is made if it is not there, and removes what is left of objects without one of their files.
pub(super) fn search(root: &Path, report: &dyn Fn(&io::Error)) -> Vec<Left> {
    let mut found = Vec::new();
    let folders = fs::create_dir_all(root).and_then(|()| fs::read_dir(root));
    let folders = folders.inspect_err(|error| report(error)).into_iter().flatten();
    for folder in folders.filter_map(|it| it.inspect_err(|error| report(error)).ok()) {
        if let Some(source) = parse_hex(folder.file_name().as_encoded_bytes()).map(SourceTag)
            && let Err(error) = search_source(root, source, &mut found)
        {
            report(&error);
        }
    }
    found
}

fn search_source(root: &Path, source: SourceTag, found: &mut Vec<Left>) -> io::Result<()> {
    let folder = root.join(source.to_string());
    if !fs::symlink_metadata(&folder)?.is_dir() {
        return Ok(());
    }
    for file in fs::read_dir(folder)? {
        let name = file?.file_name();
        let name = name.as_encoded_bytes();
        let (is_map, hex) = match (name.strip_suffix(b".data"), name.strip_suffix(b".map")) {
            (Some(hex), _) => (false, hex),
            (_, Some(hex)) => (true, hex),
            _ => continue,
        };
        let Some(object) = parse_hex(hex).map(ObjectKey) else {
            continue;
        };
        let key = DiskKey { source, object };
        let paths = Paths::new(root, key);
        match (fs::symlink_metadata(&paths.data), fs::symlink_metadata(&paths.map)) {
            (Ok(_), Ok(_)) if is_map => {}
            (Ok(data), Ok(map)) => {
                let modified = data.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                found.push(Left {
                    modified,
                    key,
                    bytes: (data.blocks() + map.blocks()) * STAT_BLOCK,
                });
            }
            // One without the other is of no use.
            _ => remove_files(&paths)?,
        }
    }
    Ok(())
}
