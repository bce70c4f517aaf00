//! Which entry a path of the library means.
//!
//! Always true: "no such file or directory" is said of what a complete listing lacks, and where somebody waits for the source's own
//! word, of one that was made for him.

use manifold_catalog::{EntryId, SourceId};
use manifold_vfs::{Attributes, Error, Kind, NameMatch};

use crate::control::text::Text;
use crate::failure::{Failure, Result};
use crate::open::OpenLibrary;
use crate::print::visible;

/// What is done about a name that is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It is not there, as in the mount.
    Known,
    /// It is looked for at its source: it may have been made a moment ago.
    AtSource,
}

impl OpenLibrary {
    /// Finds the entry at a path as the mount would, listing what was never listed.
    pub(crate) async fn find(&self, path: &Text, look: Look) -> Result<Attributes> {
        let about = || visible(&path.0);
        let parts = path.0.split(|byte| *byte == b'/');
        let parts: Vec<_> = parts.filter(|name| !name.is_empty() && *name != b".").collect();
        if parts.contains(&b"..".as_slice()) {
            return Err(Failure::usage(format!(
                "{}: a path of the library holds no '..'",
                about()
            )));
        }
        let mut found = self.vfs.attributes(EntryId::ROOT, None).wait().await?;
        let mut way = Vec::new();
        for (index, name) in parts.iter().enumerate() {
            way.push(found.id);
            let leads_on = index + 1 < parts.len() || path.0.ends_with(b"/");
            let is_right = |named: &Attributes| named.kind == Kind::Directory || !leads_on;
            self.connect_for(found.id).await?;
            let mut named = self.named(found.id, name).await;
            let may_be_new = match &named {
                Ok(named) => !is_right(named),
                Err(error) => matches!(error, Error::NotFound),
            };
            if may_be_new && look == Look::AtSource {
                let looked = self.look_in(&way).await;
                named = self.named(found.id, name).await;
                if matches!(named, Err(Error::NotFound)) {
                    looked.map_err(|failure| failure.about(about()))?;
                }
            }
            found = named.map_err(|error| Failure::from(error).about(about()))?;
            if !is_right(&found) {
                return Err(Failure::new(format!("{}: not a directory", about())));
            }
        }
        Ok(found)
    }

    async fn named(&self, directory: EntryId, name: &[u8]) -> std::result::Result<Attributes, Error> {
        let named = self.vfs.lookup(directory, name, NameMatch::Exact).wait().await;
        named.map(|(_, attributes)| attributes)
    }

    /// Lists the last directory of a way through the tree anew. Fails where its source cannot be asked.
    async fn look_in(&self, way: &[EntryId]) -> Result<()> {
        let unasked = |name: &str, why: Failure| {
            why.about(format_args!("it is not known here, and {name} could not be asked"))
                .hint("`manifold status` tells how it is")
        };
        if !self.keeps_connections()
            && let Some(last) = way.last()
        {
            for source in self.vfs.sources_of(*last)? {
                let record = self.record(source)?;
                let connected = self.connections.connect_now(&record).await;
                connected.map_err(|why| unasked(&record.name, why))?;
            }
        }
        match self.vfs.look_in(way).await {
            // Then it went with its directory.
            Ok(()) | Err((_, Error::NotFound | Error::Stale)) => Ok(()),
            Err((SourceId::LIBRARY, error)) => Err(error.into()),
            Err((source, error)) => Err(unasked(&self.record(source)?.name, error.into())),
        }
    }

    /// Connects the sources of a directory that must be listed first, where no daemon has connected them.
    pub(crate) async fn connect_for(&self, directory: EntryId) -> Result<()> {
        if self.keeps_connections() {
            return Ok(());
        }
        for source in self.vfs.unlisted_sources(directory)? {
            let record = self.record(source)?;
            self.connections.connect_now(&record).await?;
        }
        Ok(())
    }
}
