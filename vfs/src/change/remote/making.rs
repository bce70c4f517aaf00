//! Making files of remote sources.
//!
//! Always true: a new file is a draft, which goes with a crash, until it is settled: when who writes to it ends, or here, where nobody writes.

use std::sync::Arc;

use manifold_backends::Version;
use manifold_catalog::{Entry, EntryId, Keep, Kind, NewChild, SeenAttributes};

use super::Target;
use crate::attributes::Attributes;
use crate::change::{Created, Creation, Requester, Site};
use crate::fetch::Object;
use crate::handle::{Access, Backing, OpenFile, OpenObject, Opened};
use crate::staging::{StagedFile, fresh_row};
use crate::vfs::Core;
use crate::{Answer, Error};

/// The permission bits of files of sources that have none, as listings show them.
const MODE: u16 = 0o644;

enum Made {
    New(Created),
    Known(Entry),
    /// When nothing of a directory on the move is in its place any more.
    Later(Target),
}

impl Core {
    /// Makes a file that stands here alone until it is uploaded.
    pub(in crate::change) fn remote_create(
        self: &Arc<Self>,
        site: &Site,
        name: &[u8],
        creation: Creation,
        by: Requester,
    ) -> Answer<Created> {
        match self.create_staged(site, name, creation, by) {
            Ok(Made::New(created)) if creation.access.writes() => Answer::ok(created),
            Ok(Made::New(created)) => {
                // Who does not write to it has nothing to end when he closes it.
                let (core, settled) = (Arc::clone(self), self.settle_new(created));
                Answer::Pending(Box::pin(async move {
                    let made = settled.wait().await?;
                    let opened = core.open_known(made.id, creation.access).await?;
                    Ok(Created { is_new: true, ..opened })
                }))
            }
            Ok(Made::Later(target)) => {
                let (core, site, name) = (Arc::clone(self), site.clone(), Box::<[u8]>::from(name));
                Answer::Pending(Box::pin(async move {
                    core.until_free(target.place_in(site.directory)).await?;
                    core.remote_create(&site, &name, creation, by).wait().await
                }))
            }
            Ok(Made::Known(entry)) if creation.exclusive => {
                drop(entry);
                Answer::err(Error::Exists)
            }
            Ok(Made::Known(entry)) => {
                let core = Arc::clone(self);
                Answer::Pending(Box::pin(
                    async move { core.open_known(entry.id, creation.access).await },
                ))
            }
            Err(error) => Answer::err(error),
        }
    }

    fn create_staged(&self, site: &Site, name: &[u8], creation: Creation, by: Requester) -> Result<Made, Error> {
        let uploads = self.writable()?;
        let target = self.remote_target(site.source, site.path.as_bytes().to_vec())?;
        let raw_name = Site::raw_name(name)?;
        let now_ns = uploads.now_ns();
        let guard = self.catalog.begin_change(&[site.directory]);
        if let Some(entry) = self.catalog.lookup(site.directory, name).map_err(Error::from_catalog)? {
            return Ok(Made::Known(entry));
        }
        let place = Target {
            path: target.path.join(&raw_name),
            ..target
        };
        if self.moves()?.is_in_the_way(&place.place_in(site.directory))? {
            return Ok(Made::Later(place));
        }
        let mode = (creation.mode & !by.umask & 0o7777) as u16;
        let keeps = uploads.keeps_attributes(site.source) && !place.able.keeps_mode;
        let child = NewChild {
            name: name.into(),
            raw_name: (raw_name != name).then(|| raw_name.as_slice().into()),
            seen: SeenAttributes {
                kind: Kind::File,
                size: 0,
                modified_ns: now_ns,
                changed_ns: now_ns,
                created_ns: None,
                mode: if place.able.keeps_mode || keeps { mode } else { MODE },
                owner: None,
                links: 1,
                device: 0,
                version: new_version().as_bytes().into(),
                identity: None,
            },
            adopt: None,
        };
        let keep = Keep {
            mode: (keeps && mode != MODE).then_some(mode),
            owner: self.owner_to_keep(site.source, by),
            ..Keep::default()
        };
        let keeps_time = self.keeps_attributes(site.source);
        let row = |number| fresh_row(number, 0, now_ns, None, None);
        let staged = uploads.staging.create(row, |draft| {
            self.follow(|catalog| catalog.create_staged(site.directory, child, &keep, keeps_time, &draft.encode()))
        })?;
        match self.open_new(&staged, creation.access) {
            Ok(created) => {
                drop(guard);
                Ok(Made::New(created))
            }
            Err(error) => {
                uploads.staging.forget(staged.id);
                self.follow(|catalog| {
                    let changes = catalog.follow_removed(site.directory, name, now_ns)?;
                    Ok(((), changes))
                })?;
                Err(error)
            }
        }
    }

    fn open_new(&self, staged: &Arc<StagedFile>, access: Access) -> Result<Created, Error> {
        let opening = self.files.begin(staged.id);
        let object = Object::of_version(&self.catalog, &self.indexer, staged.id, new_version(), 0)?;
        let entry = self.entry_of(staged.id)?;
        let attributes = Attributes::of(&entry);
        let open = OpenObject::new(Arc::new(object), access.writes(), None);
        open.meet(staged);
        let handle = opening.finish(OpenFile::Object(open), attributes.clone());
        Ok(Created {
            attributes,
            is_new: true,
            opened: Opened {
                handle,
                backing: Backing::Blocks,
                keep_cache: false,
                size: 0,
                writes: access.writes(),
                privileged: false,
            },
        })
    }

    /// Makes a file that nobody opens.
    pub(super) fn make_file(
        self: &Arc<Self>,
        site: &Site,
        name: &[u8],
        mode: u32,
        by: Requester,
    ) -> Answer<Attributes> {
        let creation = Creation {
            mode,
            access: Access::Write,
            exclusive: true,
        };
        let (core, created) = (Arc::clone(self), self.remote_create(site, name, creation, by));
        Answer::Pending(Box::pin(async move {
            let created = created.wait().await?;
            core.settle_new(created).wait().await
        }))
    }

    /// Makes a new file last, and has it uploaded, though nobody may wait for that; its handle goes.
    fn settle_new(self: &Arc<Self>, created: Created) -> Answer<Attributes> {
        let core = Arc::clone(self);
        let settling = self.runtime.spawn(async move {
            let settled = match core.staged_entry(created.attributes.id) {
                Some(file) => core.settle_bytes(&file, true).wait().await,
                None => Ok(()),
            };
            core.release(created.opened.handle);
            settled.map(|()| created.attributes)
        });
        Answer::Pending(Box::pin(async move { settling.await.map_err(Error::broke_off)? }))
    }

    async fn open_known(self: &Arc<Self>, id: EntryId, access: Access) -> Result<Created, Error> {
        let opened = self.open(id, access).wait().await?;
        let attributes = self.attributes(id, None).inspect_err(|_| self.release(opened.handle))?;
        Ok(Created {
            attributes,
            opened,
            is_new: false,
        })
    }
}

/// The version of a file that no source has yet.
fn new_version() -> Version {
    Version::from_id(b"not uploaded yet")
}
