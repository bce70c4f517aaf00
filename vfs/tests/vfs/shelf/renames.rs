//! Renames: an object, and all beneath it, gets another name in one step.

use manifold_backends::{Metadata, ObjectPath};

use super::{Shelf, State};

impl State {
    /// Renames an object with all beneath it; `None` if there is none.
    pub(super) fn rename(&mut self, from: &[u8], to: &[u8]) -> Option<Metadata> {
        let beneath = [from, b"/"].concat();
        let moved = self.objects.keys().filter(|path| path.starts_with(&beneath));
        let moved: Vec<_> = moved.cloned().collect();
        let object = self.objects.remove(from)?;
        let metadata = object.metadata();
        self.objects.insert(to.to_vec(), object);
        for path in moved {
            if let Some(object) = self.objects.remove(&path) {
                self.objects.insert([to, &path[from.len()..]].concat(), object);
            }
        }
        self.parts.rename(from, to);
        Some(metadata)
    }
}

impl Shelf {
    /// Renames something of itself, as a source that comes late to what it was asked for.
    pub(crate) fn rename_now(&self, from: &str, to: &str) {
        let (from, to) = (ObjectPath::from_bytes(from), ObjectPath::from_bytes(to));
        let renamed = self.state.lock().rename(from.as_bytes(), to.as_bytes());
        assert!(renamed.is_some(), "{from}");
        self.changed.send_modify(|count| *count += 1);
    }
}
