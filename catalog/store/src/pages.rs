//! The children of a directory, read some at a time.

use crate::error::Result;
use crate::{Catalog, Entry, EntryId};

/// How many children are read at once.
const PAGE: usize = 1_000;

/// Gives the children of a directory page by page, in the byte order of their names. Each page is what the directory holds when
/// it is read; none is empty. The first error is the last item.
#[derive(Debug)]
pub struct ChildPages<'a> {
    catalog: &'a Catalog,
    directory: EntryId,
    after: Option<Box<[u8]>>,
    ended: bool,
}

impl Catalog {
    /// Begins to read the children of a directory from the first one on.
    pub fn child_pages(&self, directory: EntryId) -> ChildPages<'_> {
        ChildPages {
            catalog: self,
            directory,
            after: None,
            ended: false,
        }
    }
}

impl Iterator for ChildPages<'_> {
    type Item = Result<Vec<Entry>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let page = match self.catalog.children(self.directory, self.after.as_deref(), PAGE) {
            Ok(page) => page,
            Err(error) => {
                self.ended = true;
                return Some(Err(error));
            }
        };
        self.ended = page.len() < PAGE;
        self.after = page.last().map(|last| last.name.clone());
        (!page.is_empty()).then_some(Ok(page))
    }
}
