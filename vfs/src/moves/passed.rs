//! Copies of files of a move that nobody has taken note of, in places where its directories have stood meanwhile: their answers
//! were lost, or the daemon died before they came, and the directory has got another name since.

use std::collections::HashMap;

use futures::StreamExt;
use manifold_backends::{ErrorKind, Expected, Kind, Metadata, ObjectPath, Presence, Version};
use manifold_catalog::EntryId;

use super::job::{Holding, fault, of_index};
use super::{Fault, Ground, Moves};
use crate::places::is_occupied_by_ours;
use crate::upload::conflict::may_be_kept_as;
use crate::upload::copies::Seen;

/// The files of a move, by their lengths in bytes, with what the source calls them.
type Files = HashMap<u64, Vec<(Vec<u8>, EntryId)>>;

impl Moves {
    /// Takes away what has stayed where directories of a move have stood between their first place and this one. To be called when all
    /// files are where they stand: what still lies there is one of these copies, or another's.
    pub(super) async fn take_copies_away(&self, ground: &Ground, holdings: &[Holding]) -> Result<(), Fault> {
        let catalog = &self.uploads.fetcher.catalog;
        let moves = catalog.moves().map_err(fault)?;
        let ours = moves.iter().filter(|one| holdings.iter().any(|own| own.id == one.id));
        // Where a directory lay at first, nothing of it is a copy.
        let mut passed: Vec<_> = ours.flat_map(|one| one.places.iter().skip(1).cloned()).collect();
        if passed.is_empty() {
            return Ok(());
        }
        let files = self.files_of(holdings)?;
        let mut directories = Vec::new();
        while let Some(place) = passed.pop() {
            let path = ObjectPath::from_bytes(place);
            for (name, seen) in self.listed(ground, &path).await? {
                let path = path.join(&name);
                match seen.kind {
                    Kind::Directory => passed.push(path.as_bytes().to_vec()),
                    Kind::File => {
                        let alike = files.get(&seen.size).into_iter().flatten();
                        // One whose place was taken has got another name.
                        let alike = alike.filter(|(own, _)| *own == name || may_be_kept_as(&name, own));
                        let alike: Vec<_> = alike.map(|(_, id)| *id).collect();
                        self.take_copy_away(ground, &alike, &path, &seen).await?;
                    }
                    _ => {}
                }
            }
            directories.push(path);
        }
        // What lies beneath another goes first.
        directories.sort_unstable_by_key(|path| std::cmp::Reverse(path.as_bytes().len()));
        for path in directories {
            let stands_there = self.find_at(ground.source, path.as_bytes()).map_err(fault)?;
            if stands_there.is_none() {
                self.clear(ground, path.as_bytes()).await.map_err(of_index)?;
            }
        }
        Ok(())
    }

    fn files_of(&self, holdings: &[Holding]) -> Result<Files, Fault> {
        let catalog = &self.uploads.fetcher.catalog;
        let mut files = Files::new();
        for holding in holdings {
            for page in catalog.child_pages(holding.id) {
                let page = page.map_err(fault)?;
                for child in page.iter().filter(|child| child.kind == manifold_catalog::Kind::File) {
                    if let Some(details) = catalog.details(child.id).map_err(fault)? {
                        let named = (details.raw_name.to_vec(), child.id);
                        files.entry(child.size).or_default().push(named);
                    }
                }
            }
        }
        Ok(files)
    }

    /// Lists what the source has at a place; nothing, where there is no directory.
    async fn listed(&self, ground: &Ground, path: &ObjectPath) -> Result<Vec<(Vec<u8>, Metadata)>, Fault> {
        let listing = async {
            let mut children = Vec::new();
            if let Presence::Found(mut pages) = ground.backend.list(path).await? {
                while let Some(page) = pages.next().await {
                    children.extend(page?.into_iter().map(|child| (child.name, child.metadata)));
                }
            }
            Ok(children)
        };
        match self.ask(ground, listing).await {
            Err(error) if error.kind() == Some(ErrorKind::NotADirectory) => Ok(Vec::new()),
            listed => listed.map_err(of_index),
        }
    }

    /// Takes a file away if it is a copy of one of these, and none of ours stands or lies there.
    async fn take_copy_away(
        &self,
        ground: &Ground,
        alike: &[EntryId],
        path: &ObjectPath,
        seen: &Metadata,
    ) -> Result<(), Fault> {
        let catalog = &self.uploads.fetcher.catalog;
        for id in alike {
            let _name = self.lock_name(*id).await;
            let stands_there = self.find_at(ground.source, path.as_bytes()).map_err(fault)?;
            if stands_there.is_some()
                || is_occupied_by_ours(catalog, ground.source, *id, path.as_bytes()).map_err(fault)?
            {
                return Ok(());
            }
            let place = catalog.object_path(*id).map_err(fault)?;
            let (Some((_, lies_at)), Some(details)) = (place, catalog.details(*id).map_err(fault)?) else {
                continue;
            };
            let (lies_at, version) = (ObjectPath::from_bytes(lies_at), Version::from_stored(&details.version));
            if lies_at == *path {
                return Ok(());
            }
            let ours = Seen {
                path: &lies_at,
                version: &version,
            };
            let compared = self
                .uploads
                .holds_the_same(ground.source, &ground.backend, &ours, path, seen);
            if !compared.await.map_err(of_index)? {
                continue;
            }
            tracing::debug!(id = id.0, %path, "a copy that was not noted is taken away");
            let expected = Expected::Version(seen.version.clone());
            return match self.ask(ground, ground.backend.remove_file(path, &expected)).await {
                Ok(_) => Ok(()),
                // Another has put something there.
                Err(error) if matches!(error.kind(), Some(ErrorKind::Conflict | ErrorKind::IsADirectory)) => Ok(()),
                Err(error) => Err(of_index(error)),
            };
        }
        Ok(())
    }
}
