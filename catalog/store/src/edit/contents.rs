//! What is known of the bytes of files: their content, and the index from a content to its replicas.

use redb::ReadableTable;

use super::Edit;
use crate::error::Result;
use crate::format::{Cold, ColdView, NOWHERE, content_key};
use crate::{Hashed, Kind};

impl Edit<'_> {
    /// Notes the content of a file, if it still is in the state that was hashed; tells whether it is.
    pub(crate) fn set_content(&mut self, hashed: &Hashed) -> Result<bool> {
        let id = hashed.id.0;
        let Some((cold, hot)) = self.node(id)? else {
            return Ok(false);
        };
        let same = hot.kind() == Kind::File
            && cold.parent != NOWHERE
            && hot.size() == hashed.size
            && cold.version == hashed.version
            && !cold.version.is_empty();
        if same && cold.content != Some(hashed.content) {
            self.change_content(id, cold.content, Some(hashed.content))?;
            let content = Some(hashed.content);
            self.put_cold(id, &Cold { content, ..cold })?;
        }
        Ok(same)
    }

    pub(crate) fn forget_content(&mut self, id: u64) -> Result<()> {
        if let Some((cold, _)) = self.node(id)?
            && cold.content.is_some()
        {
            self.change_content(id, cold.content, None)?;
            self.put_cold(id, &Cold { content: None, ..cold })?;
        }
        Ok(())
    }

    pub(crate) fn change_content(&mut self, id: u64, old: Option<[u8; 32]>, new: Option<[u8; 32]>) -> Result<()> {
        if old == new {
            return Ok(());
        }
        if let Some(old) = old {
            self.contents.remove(&content_key(&old, id))?;
        }
        if let Some(new) = new {
            self.contents.insert(&content_key(&new, id), ())?;
        }
        Ok(())
    }

    /// Lets an entry keep what it was found to hold, though its version is another: somebody has seen that its bytes are the
    /// same.
    pub(crate) fn keep_content(&mut self, id: u64, content: Option<[u8; 32]>) -> Result<()> {
        let cold = self.existing_cold(id)?;
        if content.is_none() || cold.content.is_some() || cold.version.is_empty() {
            return Ok(());
        }
        self.put_cold(id, &Cold { content, ..cold })?;
        self.change_content(id, None, content)
    }

    /// Makes the index anew, for a file that had none.
    pub(crate) fn index_contents(&mut self) -> Result<()> {
        let mut keys = Vec::new();
        for row in self.entries.iter()? {
            let (id, row) = row?;
            if let Some(content) = ColdView::decode(row.value())?.content {
                keys.push(content_key(&content, id.value()));
            }
        }
        keys.sort_unstable();
        for key in &keys {
            self.contents.insert(key, ())?;
        }
        Ok(())
    }

    /// Removes the cold row of an entry, and what is kept of it elsewhere under its id alone.
    pub(crate) fn remove_cold(&mut self, id: u64, cold: &Cold) -> Result<()> {
        self.entries.remove(id)?;
        self.pins.remove(id)?;
        self.drop_staged(id)?;
        self.drop_kept(id)?;
        self.drop_move(id)?;
        self.drop_link_target(id)?;
        self.leave_origins(id)?;
        self.change_content(id, cold.content, None)
    }
}
