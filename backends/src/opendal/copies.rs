//! Copies of objects at an object store: what a rename of a file is made of, and of a directory, object by object.
//!
//! No service takes a condition on what is copied through `OpenDAL`, so that it is looked at before and after. Where the
//! service takes one on the new place, nothing is replaced there; else that is looked at before, too.

use std::sync::Arc;

use ::opendal::options::CopyOptions;
use ::opendal::raw::{OpCopy, Service as _};

use super::source::Source;
use crate::{ErrorKind, Expected, Metadata, ObjectPath, Operation, Presence, Result, Version};

impl Source {
    /// Copies a version of an object to a path where nothing stands.
    pub(super) async fn copy_object(
        self: &Arc<Self>,
        from: &ObjectPath,
        version: &Version,
        to: &ObjectPath,
    ) -> Result<Presence<Metadata>> {
        let operation = Operation::Rename;
        if !self.traits.implicit_directories || self.traits.writes.abilities().is_none() {
            return Err(self.unsupported(operation, from));
        }
        if from.is_root() || to.is_root() || from == to {
            let why = "an object is not copied onto itself";
            return Err(self.error(ErrorKind::Unsupported, operation, from, why));
        }
        let (subject, taken, object) = tokio::join!(
            self.stat_object(operation, from),
            self.any_beneath(operation, to),
            self.stat_object(operation, to)
        );
        match subject? {
            Presence::Absent => return Ok(Presence::Absent),
            Presence::Found(subject) if subject.version != *version => return Err(self.conflict(operation, from)),
            Presence::Found(_) => {}
        }
        let is_marker = to.name().is_empty();
        if (taken? && !is_marker) || matches!(object?, Presence::Found(_)) {
            return Err(self.exists(operation, to));
        }
        let raw = (self.raw(operation, from, false)?, self.raw(operation, to, false)?);
        self.copy(to, (&raw.0, &raw.1), false).await?;
        let (before, after) = tokio::join!(self.stat_object(operation, from), self.stat_object(operation, to));
        let Presence::Found(copy) = after? else {
            let why = "the server copied it, and does not have the copy";
            return Err(self.error(ErrorKind::Nonsense, operation, to, why));
        };
        match before? {
            Presence::Found(subject) if subject.version == *version && subject.size == copy.size => {
                Ok(Presence::Found(copy))
            }
            Presence::Found(subject) if subject.version == *version => {
                let why = format!("{} bytes were to be copied, and {} are there", subject.size, copy.size);
                Err(self.error(ErrorKind::Nonsense, operation, to, why))
            }
            // It changed on the way: nobody knows which version was copied.
            _ => {
                self.remove_file(to, &Expected::Version(copy.version)).await?;
                Err(self.conflict(operation, from))
            }
        }
    }

    /// Copies an object at the source.
    pub(super) async fn copy(&self, to: &ObjectPath, raw: (&str, &str), replace: bool) -> Result<()> {
        let operation = Operation::Rename;
        let capability = self.bare.capability();
        let options = CopyOptions {
            if_not_exists: !replace && capability.copy_with_if_not_exists,
            ..CopyOptions::default()
        };
        let step = async {
            let args = OpCopy::from_options(&capability, options)?;
            let mut copier = self.bare.copy_dyn(&self.context, raw.0, raw.1, args)?;
            while copier.next_dyn().await?.is_some() {}
            copier.close_dyn().await
        };
        let _slot = self.slot().await;
        match self.step_within(self.put_patience(), operation, to, step).await {
            Ok(Presence::Found(_)) => Ok(()),
            Ok(Presence::Absent) => {
                let why = "what was to be renamed is gone";
                Err(self.error(ErrorKind::Conflict, operation, to, why))
            }
            Err(error) if error.kind() == ErrorKind::VersionChanged => Err(self.exists(operation, to)),
            Err(error) => Err(error),
        }
    }
}
