//! Changing a union: what is new is placed, what is there is changed wherever it is.
//!
//! Always true:
//! - where a member that has something of it cannot be changed, nothing is;
//! - what is hidden by a file or directory of its kind goes where that goes, so that it does not come to light;
//! - no directory on the way gets another name meanwhile.

use std::sync::Arc;

use futures::future::join_all;
use manifold_backends::ObjectPath;
use manifold_backends::local::{AttributeChange, Making, SetMode};
use manifold_catalog::{Entry, EntryId, Kind, SourceId};

use super::{Found, Joined, Merged};
use crate::attributes::Attributes;
use crate::change::{Created, Creation, Removal, Requester};
use crate::fetch::object::not_connected;
use crate::vfs::Core;
use crate::{Answer, Error};

impl Core {
    /// Makes a file, or finds it, and opens it.
    pub(crate) fn create_joined(
        self: &Arc<Self>,
        directory: EntryId,
        name: Box<[u8]>,
        creation: Creation,
        by: Requester,
    ) -> Answer<Created> {
        let core = Arc::clone(self);
        // Nobody would ever close a file that is opened when nobody waits for it any more.
        self.while_wanted(async move {
            let (merged, _turn) = core.in_turn(&[(directory, &name)]).await?;
            if let Some((_, entry)) = core.named(&merged[0], &name)?.first() {
                return core.create_in(entry.parent, &name, creation, by).wait().await;
            }
            let make = |core: &Arc<Self>, at| core.create_in(at, &name, creation, by);
            core.place(&merged[0], &name, make).await
        })
    }

    /// Makes anything else.
    pub(crate) fn make_joined(
        self: &Arc<Self>,
        directory: EntryId,
        name: Box<[u8]>,
        making: Making,
        mode: u32,
        by: Requester,
    ) -> Answer<Attributes> {
        let core = Arc::clone(self);
        self.to_its_end(async move {
            let (merged, _turn) = core.in_turn(&[(directory, &name)]).await?;
            if !core.named(&merged[0], &name)?.is_empty() {
                return Err(Error::Exists);
            }
            let make = |core: &Arc<Self>, at| core.make_in(at, &name, making.clone(), mode, by);
            core.place(&merged[0], &name, make).await
        })
    }

    /// Gives a file a further name at the member that has it.
    pub(crate) fn link_joined(
        self: &Arc<Self>,
        id: EntryId,
        directory: EntryId,
        name: Box<[u8]>,
    ) -> Answer<Attributes> {
        let core = Arc::clone(self);
        self.to_its_end(async move {
            let (merged, _turn) = core.in_turn(&[(directory, &name)]).await?;
            let merged = &merged[0];
            let source = core.source_of(id)?;
            let member = merged.union.member_of(source).ok_or(Error::CrossSource)?;
            if !core.named(merged, &name)?.is_empty() {
                return Err(Error::Exists);
            }
            let at = core.branch_at(merged, member).await?;
            core.link_in(id, at, &name).wait().await
        })
    }

    /// Removes a name at all members that have it: last what is shown, so that nothing else comes to light.
    pub(crate) fn remove_joined(
        self: &Arc<Self>,
        directory: EntryId,
        name: Box<[u8]>,
        is_directory: bool,
    ) -> Answer<()> {
        let core = Arc::clone(self);
        self.to_its_end(async move {
            let (merged, _turn) = core.in_turn(&[(directory, &name)]).await?;
            let found = core.named(&merged[0], &name)?;
            let like = like_the_first(&found)?;
            match (
                is_directory,
                found.first().is_some_and(|(_, first)| first.kind == Kind::Directory),
            ) {
                (true, false) => return Err(Error::NotADirectory),
                (false, true) => return Err(Error::IsADirectory),
                (true, true) => core.is_empty(like[0].1.id).await?,
                (false, false) => {}
            }
            core.may_all_change(&like.iter().collect::<Vec<_>>()).await?;
            for (_, entry) in like.iter().rev() {
                core.remove_in(entry.parent, &name, is_directory, Removal::Asked)
                    .wait()
                    .await?;
            }
            Ok(())
        })
    }

    /// Refuses if a merged directory has anything in it.
    pub(super) async fn is_empty(self: &Arc<Self>, directory: EntryId) -> Result<(), Error> {
        let merged = self.list_parts(directory).await?;
        if self.children_shown(merged.id, None, 1)?.is_empty() {
            Ok(())
        } else {
            Err(Error::NotEmpty)
        }
    }

    /// Refuses if one of the members that have something cannot be changed, or is known to be away where another would be changed
    /// without it.
    pub(super) async fn may_all_change(&self, found: &[&Found]) -> Result<(), Error> {
        for (_, entry) in found {
            self.half_of_source(entry.source)?;
        }
        if found.iter().all(|(_, entry)| entry.source == found[0].1.source) {
            return Ok(());
        }
        let reached = join_all(found.iter().map(|(_, entry)| self.must_be_reached(entry)));
        reached.await.into_iter().collect()
    }

    /// Asks a source that is known to be away whether it is back. What stands here alone can be changed without it.
    pub(crate) async fn must_be_reached(&self, entry: &Entry) -> Result<(), Error> {
        let source = entry.source;
        if !self.indexer.is_away(source) || self.stands_here_alone(entry.id) {
            return Ok(());
        }
        let backend = self.indexer.backend(source);
        let backend = backend.ok_or_else(|| not_connected(&self.indexer, source))?;
        let place = self.catalog.object_path(entry.id).map_err(Error::from_catalog)?;
        let path = ObjectPath::from_bytes(place.ok_or(Error::Stale)?.1);
        let deadline = self.settings.metadata_deadline / 2;
        let asked = self.indexer.ask(source, &path, deadline, backend.stat(&path));
        asked.await.map(drop).map_err(Error::from_index)
    }

    /// Changes the attributes of a merged directory at all members that can be changed.
    pub(crate) fn set_attributes_joined(
        self: &Arc<Self>,
        directory: EntryId,
        change: AttributeChange,
        by: Requester,
    ) -> Answer<Attributes> {
        let core = Arc::clone(self);
        self.to_its_end(async move {
            let merged = core.merged(directory)?.ok_or(Error::Stale)?;
            for (number, id) in core.changeable(&merged)?.into_iter().enumerate() {
                at_member(number, || core.set_attributes_in(id, None, change, by)).await?;
            }
            let merged = core.merged(directory)?.ok_or(Error::Stale)?;
            core.attributes_of_merged(&merged)
        })
    }

    /// Sets an extended attribute of a merged directory at all members that can be changed.
    pub(crate) fn set_attribute_joined(
        self: &Arc<Self>,
        directory: EntryId,
        name: Box<[u8]>,
        value: Box<[u8]>,
        mode: SetMode,
    ) -> Answer<()> {
        let core = Arc::clone(self);
        self.to_its_end(async move {
            let merged = core.merged(directory)?.ok_or(Error::Stale)?;
            let mut mode = mode;
            for (number, id) in core.changeable(&merged)?.into_iter().enumerate() {
                at_member(number, || core.set_attribute_in(id, &name, &value, mode)).await?;
                // What the first one says of it being there holds for all.
                mode = SetMode::Any;
            }
            Ok(())
        })
    }

    /// Takes an extended attribute away, at all members that can be changed.
    pub(crate) fn remove_attribute_joined(self: &Arc<Self>, directory: EntryId, name: Box<[u8]>) -> Answer<()> {
        let core = Arc::clone(self);
        self.to_its_end(async move {
            let merged = core.merged(directory)?.ok_or(Error::Stale)?;
            for (number, id) in core.changeable(&merged)?.into_iter().enumerate() {
                match at_member(number, || core.remove_attribute_in(id, &name)).await {
                    Err(Error::NoData) if number > 0 => {}
                    other => other?,
                }
            }
            Ok(())
        })
    }

    /// Waits until the names in a merged directory are on the disk.
    pub(crate) fn sync_joined(self: &Arc<Self>, merged: &Merged) -> Answer<()> {
        let core = Arc::clone(self);
        let directories: Vec<_> = merged.directories().map(|(_, entry)| entry.id).collect();
        // As long as disks take.
        Answer::Pending(Box::pin(async move {
            for id in directories {
                core.sync_directory_in(id).wait().await?;
            }
            Ok(())
        }))
    }

    /// Names the parts of a merged directory that can be changed, that which gives permissions first.
    fn changeable(&self, merged: &Merged) -> Result<Vec<EntryId>, Error> {
        let read_only = self.read_only.read();
        let parts = merged
            .directories()
            .filter(|(_, entry)| !read_only.contains(&entry.source));
        let parts: Vec<_> = parts.map(|(_, entry)| entry.id).collect();
        if parts.is_empty() {
            Err(Error::ReadOnly)
        } else {
            Ok(parts)
        }
    }

    /// Gives the sources of the union that an entry belongs to; none if it belongs to none.
    pub(crate) fn joined_with(&self, id: EntryId) -> Result<Vec<SourceId>, Error> {
        let joined = self.unions.joined.read().clone();
        if joined.is_empty() {
            return Ok(Vec::new());
        }
        let source = self
            .catalog
            .entry(id)
            .map_err(Error::from_catalog)?
            .map(|entry| entry.source);
        let is_of = |union: &Joined| union.root == id || source.is_some_and(|it| union.member_of(it).is_some());
        let union = joined.iter().find(|union| is_of(union));
        Ok(union.map_or_else(Vec::new, |union| {
            union.members.iter().map(|member| member.source).collect()
        }))
    }
}

/// Gives those of all that have one name that are of the kind of the first: directories, or anything else.
pub(super) fn like_the_first(found: &[Found]) -> Result<Vec<Found>, Error> {
    let Some((Some(_), first)) = found.first() else {
        return Err(if found.is_empty() { Error::NotFound } else { Error::Busy });
    };
    if first.attach_point {
        return Err(Error::Busy);
    }
    let is_directory = first.kind == Kind::Directory;
    let like = found
        .iter()
        .filter(|(_, entry)| (entry.kind == Kind::Directory) == is_directory && !entry.attach_point);
    Ok(like.cloned().collect())
}

/// Changes a directory at a member. Whether that may be done was found out by what is known of the first: what only the others have learnt
/// of theirs does not matter to who asks.
async fn at_member<T>(number: usize, change: impl Fn() -> Answer<T>) -> Result<T, Error> {
    match change().wait().await {
        Err(Error::Stale) if number > 0 => change().wait().await,
        changed => changed,
    }
}
