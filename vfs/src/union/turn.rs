//! Turns of those who change names in a union: in it, and with all its parts listed.

use std::sync::Arc;
use std::time::Instant;

use manifold_catalog::EntryId;

use super::Merged;
use crate::Error;
use crate::turns::{Turn, Wish};
use crate::vfs::Core;

impl Core {
    /// Waits until names may be changed in directories of one union, and gives these as they are then, with all their parts listed.
    pub(super) async fn in_turn(
        self: &Arc<Self>,
        names: &[(EntryId, &[u8])],
    ) -> Result<(Vec<Merged>, Turn<'_>), Error> {
        let until = Instant::now() + self.settings.metadata_deadline;
        loop {
            let mut before = Vec::with_capacity(names.len());
            for (directory, _) in names {
                before.push(self.list_parts(*directory).await?);
            }
            let union = before.first().ok_or(Error::InvalidArgument)?.union.root;
            if before.iter().any(|merged| merged.union.root != union) {
                return Err(Error::CrossSource);
            }
            let changed = |(merged, (_, name)): (&Merged, &(EntryId, &[u8]))| {
                [&merged.names[..], &[Box::<[u8]>::from(*name)]].concat()
            };
            let turn = self.unions.turns.ask(Wish {
                union: Some(union),
                stay: before.iter().map(|merged| merged.names.clone()).collect(),
                change: before.iter().zip(names).map(changed).collect(),
            });
            turn.until_due_within(self.settings.metadata_deadline / 2).await?;
            let mut now = Vec::with_capacity(names.len());
            for (directory, _) in names {
                now.push(self.merged(*directory)?.ok_or(Error::Stale)?);
            }
            let mut is_known = true;
            for (now, before) in now.iter().zip(&before) {
                is_known &= now.union.root == union && now.names == before.names;
                is_known &= self.unlisted_parts(now)?.is_empty();
            }
            if is_known {
                return Ok((now, turn));
            }
            // Meanwhile they have got other names.
            drop(turn);
            if Instant::now() >= until {
                return Err(self.too_late());
            }
        }
    }
}
