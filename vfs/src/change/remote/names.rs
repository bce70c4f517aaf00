//! Names of remote sources: making, removing.

use std::sync::Arc;

use manifold_backends::local::Making;
use manifold_backends::{Expected, Kind as ObjectKind, Metadata, Presence, Version};
use manifold_catalog::{Entry, Kind, NewChild, SeenAttributes};
use manifold_index::seen_attributes;

use super::Target;
use crate::attributes::Attributes;
use crate::change::{Created, Creation, Requester, Site};
use crate::error::Cause;
use crate::fetch::Object;
use crate::handle::{Access, Backing, OpenFile, OpenObject, Opened};
use crate::staging::{StagedFile, fresh_row};
use crate::vfs::Core;
use crate::{Answer, Error};

/// The permission bits of files of sources that have none, as listings show them.
const MODE: u16 = 0o644;

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
            Ok(Made::New(created)) => Answer::ok(created),
            Ok(Made::Known(entry)) if creation.exclusive => {
                drop(entry);
                Answer::err(Error::Exists)
            }
            Ok(Made::Known(entry)) => {
                let core = Arc::clone(self);
                Answer::Pending(Box::pin(async move {
                    let opened = core.open(entry.id, creation.access).wait().await?;
                    let attributes = core.attributes(entry.id, None)?;
                    Ok(Created { attributes, opened })
                }))
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
        let mode = creation.mode & !by.umask & 0o7777;
        let child = NewChild {
            name: name.into(),
            raw_name: (raw_name != name).then(|| raw_name.as_slice().into()),
            seen: SeenAttributes {
                kind: Kind::File,
                size: 0,
                modified_ns: now_ns,
                changed_ns: now_ns,
                created_ns: None,
                mode: if target.able.keeps_mode { mode as u16 } else { MODE },
                owner: None,
                links: 1,
                device: 0,
                version: new_version().as_bytes().into(),
                identity: None,
            },
            adopt: None,
        };
        let id = self.follow(|catalog| catalog.follow_created(site.directory, child, None))?;
        let row = |number| fresh_row(number, 0, now_ns, None, None);
        let staged = uploads.staging.stage(id, row, |draft| {
            self.follow(|catalog| {
                catalog
                    .stage(id, &draft.encode(), None, false)
                    .map(|changes| ((), changes))
            })
        });
        let opened = staged.and_then(|staged| self.open_new(&staged, creation.access));
        match opened {
            Ok(created) => {
                drop(guard);
                Ok(Made::New(created))
            }
            Err(error) => {
                uploads.staging.forget(id);
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

    /// Makes a directory at the source, or a file here.
    pub(in crate::change) fn remote_make(
        self: &Arc<Self>,
        site: &Site,
        name: &[u8],
        making: &Making,
        mode: u32,
        by: Requester,
    ) -> Answer<Attributes> {
        match making {
            Making::Directory => {}
            Making::File => return self.make_file(site, name, mode, by),
            _ => {
                return Answer::err(Error::Unsupported(Cause::new(
                    "its source has only files and directories",
                )));
            }
        }
        let begun = self.writable().and_then(|_| {
            let raw_name = Site::raw_name(name)?;
            let target = self.remote_target(site.source, site.path.join(&raw_name).as_bytes().to_vec())?;
            Ok((raw_name, target))
        });
        let (raw_name, target) = match begun {
            Ok(begun) => begun,
            Err(error) => return Answer::err(error),
        };
        let (core, name, directory) = (Arc::clone(self), Box::<[u8]>::from(name), site.directory);
        Answer::Pending(Box::pin(async move {
            let guard = core.catalog.begin_change(&[directory]);
            let known = core.catalog.lookup(directory, &name).map_err(Error::from_catalog)?;
            if known.is_some() {
                return Err(Error::Exists);
            }
            let answer = core.ask(&target, target.backend.create_directory(&target.path)).await;
            let metadata = answer.inspect_err(|_| core.look_into(directory))?;
            let (core, at) = (Arc::clone(&core), core.writable()?.now_ns());
            let runtime = Arc::clone(&core);
            runtime
                .blocking(move || {
                    let child = new_child(&name, raw_name, &metadata);
                    let id = core.follow(|catalog| catalog.follow_created(directory, child, Some(at)))?;
                    drop(guard);
                    Ok(Attributes::of(&core.entry_of(id)?))
                })
                .await
        }))
    }

    fn make_file(self: &Arc<Self>, site: &Site, name: &[u8], mode: u32, by: Requester) -> Answer<Attributes> {
        let creation = Creation {
            mode,
            access: Access::Write,
            exclusive: true,
        };
        let created = self.remote_create(site, name, creation, by);
        let core = Arc::clone(self);
        Answer::Pending(Box::pin(async move {
            let created = created.wait().await?;
            let settled = match core.staged_entry(created.attributes.id) {
                Some(file) => core.settle_bytes(&file, true).wait().await,
                None => Ok(()),
            };
            core.release(created.opened.handle);
            settled.map(|()| created.attributes)
        }))
    }

    /// Removes a name at the source, and here.
    pub(in crate::change) fn remote_remove(
        self: &Arc<Self>,
        site: &Site,
        name: &[u8],
        is_directory: bool,
    ) -> Answer<()> {
        let known = self.writable().and_then(|_| {
            let entry = self.catalog.lookup(site.directory, name).map_err(Error::from_catalog)?;
            let entry = entry.ok_or(Error::NotFound)?;
            if entry.attach_point {
                return Err(Error::Busy);
            }
            match (entry.kind == Kind::Directory, is_directory) {
                (true, false) => Err(Error::IsADirectory),
                (false, true) => Err(Error::NotADirectory),
                _ => Ok((self.remote_target_of(entry.id)?, entry)),
            }
        });
        let (target, entry) = match known {
            Ok(known) => known,
            Err(error) => return Answer::err(error),
        };
        let core = Arc::clone(self);
        Answer::Pending(Box::pin(async move {
            if is_directory {
                core.remove_remote_directory(target, entry).await
            } else {
                core.remove_remote_file(target, entry).await
            }
        }))
    }

    /// Answers when the catalog will have a change of names after a crash too: else what had been moved would have no name for a
    /// while, and what stands at its former name would be tried to be read.
    pub(in crate::change) fn lasting(self: &Arc<Self>, changed: Answer<()>) -> Answer<()> {
        let core = Arc::clone(self);
        Answer::Pending(Box::pin(async move {
            changed.wait().await?;
            let catalog = Arc::clone(&core.catalog);
            core.blocking(move || catalog.sync().map_err(Error::from_catalog)).await
        }))
    }

    async fn remove_remote_directory(self: &Arc<Self>, target: Target, entry: Entry) -> Result<(), Error> {
        // What only stands here, the source does not know.
        if self.catalog.leads_to_staged(entry.id).map_err(Error::from_catalog)? {
            return Err(Error::NotEmpty);
        }
        let guard = self.catalog.begin_change(&[entry.parent, entry.id]);
        let removed = self.ask(&target, target.backend.remove_directory(&target.path)).await;
        match removed {
            Ok(Presence::Found(()) | Presence::Absent) => {}
            Err(error) => {
                self.look_into(entry.parent);
                return Err(error);
            }
        }
        let core = Arc::clone(self);
        self.blocking(move || {
            core.follow_gone(&entry)?;
            drop(guard);
            Ok(())
        })
        .await
    }

    async fn remove_remote_file(self: &Arc<Self>, target: Target, entry: Entry) -> Result<(), Error> {
        let uploads = Arc::clone(self.writable()?);
        let guard = self.catalog.begin_change(&[entry.parent]);
        let came = tokio::time::timeout(self.settings.data_deadline, uploads.hold(entry.id)).await;
        let hold = came.map_err(|_| Error::TimedOut(Cause::new("its upload did not end in time")))?;
        let staged = self.staged_entry(entry.id);
        let is_at_source = staged
            .as_ref()
            .is_none_or(|file| file.expected().is_some() || file.was_sent());
        if is_at_source {
            let removing = target.backend.remove_file(&target.path, &Expected::Anything);
            let removed = self.ask(&target, removing).await;
            match removed {
                Ok(Presence::Found(()) | Presence::Absent) => {}
                Err(error) => {
                    self.look_into(entry.parent);
                    return Err(error);
                }
            }
        }
        let core = Arc::clone(self);
        self.blocking(move || {
            if let Some(file) = &staged {
                core.files.meet(entry.id, file);
                uploads.staging.forget(entry.id);
            }
            core.follow_gone(&entry)?;
            if staged.is_some() {
                // Or the row would come back with a crash, and the file with it.
                core.catalog.sync().map_err(Error::from_catalog)?;
            }
            drop((guard, hold));
            Ok(())
        })
        .await
    }

    fn follow_gone(&self, entry: &Entry) -> Result<(), Error> {
        let now_ns = self.writable()?.now_ns();
        if self.files.is_open(entry.id) {
            let attributes = self.attributes(entry.id, None)?;
            self.files.note_attributes(entry.id, attributes);
        }
        self.follow(|catalog| {
            let changes = catalog.follow_removed(entry.parent, &entry.name, now_ns)?;
            Ok(((), changes))
        })
    }

    /// Tells whether a name at the source is still in the version that is known here.
    pub(super) async fn version_at(&self, target: &Target) -> Result<Option<Version>, Error> {
        match self.ask(target, target.backend.stat(&target.path)).await? {
            Presence::Found(metadata) if metadata.kind == ObjectKind::File => Ok(Some(metadata.version)),
            Presence::Found(_) => Err(Error::IsADirectory),
            Presence::Absent => Ok(None),
        }
    }
}

enum Made {
    New(Created),
    Known(Entry),
}

pub(super) fn new_child(name: &[u8], raw_name: Vec<u8>, metadata: &Metadata) -> NewChild {
    NewChild {
        name: name.into(),
        raw_name: (raw_name != name).then(|| raw_name.into()),
        seen: seen_attributes(metadata),
        adopt: None,
    }
}

/// The version of a file that no source has yet.
fn new_version() -> Version {
    Version::from_id(b"not uploaded yet")
}

/// Tells whether a source has said that it cannot do something at all.
pub(super) fn is_unable(error: &Error) -> bool {
    matches!(error, Error::Unsupported(_))
}
