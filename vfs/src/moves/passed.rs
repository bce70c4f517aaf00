//! Copies of files of a move that nobody has taken note of, in places where its directories have stood meanwhile: their answers
//! were lost, or the daemon died before they came, and the directory has got another name since.
//!
//! Always true: what is taken away has the bytes of one of the files of the directory that has stood there, and that file's name, or one
//! that it may have been kept under; the file lies where it stands; and nothing of ours stands at the place, or is being made there.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;
use manifold_backends::{ErrorKind, Expected, Kind, Metadata, ObjectPath, Presence, Version};
use manifold_catalog::EntryId;
use manifold_index::IndexError;
use tokio::time::sleep;

use super::job::{Holding, fault, of_index};
use super::places::FreeName;
use super::{Fault, Ground, Moves};
use crate::Error;
use crate::places::is_occupied_by_ours;
use crate::temporaries::remove_directory;
use crate::turns::Turn;
use crate::upload::conflict::may_be_kept_as;
use crate::upload::copies::Seen;
use crate::upload::naming::NameLock;

/// For how many deadlines a source may come late to a removal.
const LATE_DEADLINES: u32 = 2;

/// The files of a directory, by their lengths in bytes, with what the source calls them.
type Files = HashMap<u64, Vec<(Vec<u8>, EntryId)>>;

impl Moves {
    /// Takes away what has stayed where directories of a move have stood between their first place and this one. To be called when all
    /// files are where they stand: what still lies there is one of these copies, or another's.
    pub(super) async fn take_copies_away(&self, ground: &Ground, holdings: &[Holding]) -> Result<(), Fault> {
        // What was listed, and the directories that were seen in it: where one is not, nothing is beneath it.
        let (mut listed, mut directories) = (BTreeSet::new(), HashSet::new());
        for holding in holdings {
            let mut files = None;
            for place in holding.passed.iter().collect::<BTreeSet<_>>() {
                let path = ObjectPath::from_bytes(place.clone());
                let is_missing = listed.contains(path.parent().as_bytes()) && !directories.contains(path.as_bytes());
                if is_missing || self.name_to_keep(ground, place)?.is_none() {
                    continue;
                }
                listed.insert(place.clone());
                for (name, seen) in self.listed(ground, &path).await? {
                    match seen.kind {
                        Kind::File => {}
                        Kind::Directory => {
                            directories.insert(path.join(&name).as_bytes().to_vec());
                            continue;
                        }
                        _ => continue,
                    }
                    let files = match &mut files {
                        Some(files) => files,
                        none => none.insert(self.files_of(holding.id)?),
                    };
                    // One whose place was taken has got another name.
                    let alike = files.get(&seen.size).into_iter().flatten();
                    let alike = alike.filter(|(own, _)| *own == name || may_be_kept_as(&name, own));
                    let alike: Vec<_> = alike.map(|(_, id)| *id).collect();
                    self.take_copy_away(ground, &alike, (place, &path.join(&name)), &seen)
                        .await?;
                }
            }
        }
        // Some servers keep what has become empty. What lies beneath another is behind it in this order.
        for place in listed.iter().rev() {
            if let Some(_turn) = self.keep_free(ground, place).await? {
                let path = ObjectPath::from_bytes(place.clone());
                let removal = remove_directory(&*ground.backend, &path);
                match self.ask_alone(ground, &path, None, removal).await {
                    Ok(_) => {}
                    Err(error) if matches!(error.kind(), Some(ErrorKind::NotEmpty | ErrorKind::NotADirectory)) => {}
                    Err(error) => return Err(of_index(error)),
                }
            }
        }
        Ok(())
    }

    /// Asks for a removal while others are kept from its place: within the deadline; and where it was sent and there is no answer, they are
    /// kept from it as long as the source may come to it late. `name`: of the file whose copy is removed; it is not kept as long as that.
    async fn ask_alone<T>(
        &self,
        ground: &Ground,
        path: &ObjectPath,
        name: Option<NameLock>,
        removal: impl Future<Output = manifold_backends::Result<T>>,
    ) -> Result<T, IndexError> {
        let fetcher = &self.uploads.fetcher;
        let is_sent = AtomicBool::new(false);
        let removal = async {
            is_sent.store(true, Ordering::Relaxed);
            removal.await
        };
        let asked = fetcher.indexer.ask(ground.source, path, fetcher.deadline, removal);
        let answer = asked.await;
        drop(name);
        let is_answered = !matches!(
            answer.as_ref().map_err(IndexError::kind),
            Err(Some(ErrorKind::TimedOut | ErrorKind::Unreachable) | None)
        );
        if !is_answered && is_sent.load(Ordering::Relaxed) {
            sleep(fetcher.deadline * LATE_DEADLINES).await;
        }
        answer
    }

    fn files_of(&self, directory: EntryId) -> Result<Files, Fault> {
        let catalog = &self.uploads.fetcher.catalog;
        let mut files = Files::new();
        for page in catalog.child_pages(directory) {
            let page = page.map_err(fault)?;
            for child in page.iter().filter(|child| child.kind == manifold_catalog::Kind::File) {
                if let Some(details) = catalog.details(child.id).map_err(fault)? {
                    let named = (details.raw_name.to_vec(), child.id);
                    files.entry(child.size).or_default().push(named);
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
        (place, path): (&[u8], &ObjectPath),
        seen: &Metadata,
    ) -> Result<(), Fault> {
        for id in alike {
            let Some(ours) = self.brought(*id, path)? else { continue };
            let (lies_at, version) = &ours;
            let one = Seen { path: lies_at, version };
            let compared = self
                .uploads
                .holds_the_same(ground.source, &ground.backend, &one, path, seen);
            if !compared.await.map_err(of_index)? {
                continue;
            }
            let Some(_turn) = self.keep_free(ground, place).await? else {
                return Ok(());
            };
            let name = self.lock_name(*id).await;
            let catalog = &self.uploads.fetcher.catalog;
            if is_occupied_by_ours(catalog, ground.source, *id, path.as_bytes()).map_err(fault)? {
                return Ok(());
            }
            // It may have been changed, or have left, meanwhile: then it is no copy of what is there now.
            if self.brought(*id, path)? != Some(ours) {
                continue;
            }
            tracing::debug!(id = id.0, %path, "a copy that was not noted is taken away");
            let expected = Expected::Version(seen.version.clone());
            let removal = ground.backend.remove_file(path, &expected);
            return match self.ask_alone(ground, path, Some(name), removal).await {
                Ok(_) => Ok(()),
                // Another has put something there.
                Err(error) if matches!(error.kind(), Some(ErrorKind::Conflict | ErrorKind::IsADirectory)) => Ok(()),
                Err(error) => Err(of_index(error)),
            };
        }
        Ok(())
    }

    /// Says where a file lies, and in which version, if that is where it stands, and another place than this.
    fn brought(&self, id: EntryId, but: &ObjectPath) -> Result<Option<(ObjectPath, Version)>, Fault> {
        let catalog = &self.uploads.fetcher.catalog;
        let (Some((_, lies_at)), Some(details)) = (
            catalog.object_path(id).map_err(fault)?,
            catalog.details(id).map_err(fault)?,
        ) else {
            return Ok(None);
        };
        let stands_at = catalog.standing_path(id).map_err(fault)?;
        if stands_at.as_ref() != Some(&lies_at) || lies_at == but.as_bytes() {
            return Ok(None);
        }
        let version = Version::from_stored(&details.version);
        Ok(Some((ObjectPath::from_bytes(lies_at), version)))
    }

    /// Keeps others from making anything of ours at a place. `None`: something stands there, or another move has something there.
    async fn keep_free(&self, ground: &Ground, place: &[u8]) -> Result<Option<Turn<'_>>, Fault> {
        let fetcher = &self.uploads.fetcher;
        let Some((directory, name)) = self.name_to_keep(ground, place)? else {
            return Ok(None);
        };
        let names = [(directory, Some(&*name))];
        let turns = &self.uploads.turns;
        let turn = match turns.of_sources(&fetcher.catalog, &names, fetcher.deadline).await {
            Err(Error::Stale) => return Ok(None),
            turn => turn.map_err(fault)?,
        };
        // Until then, something may have been made there.
        let is_free = self.name_to_keep(ground, place)? == Some((directory, name));
        Ok(is_free.then_some(turn))
    }

    /// Finds the name that has to be kept from others, so that nothing of ours is made at a place. `None`: something stands there, or
    /// another move has something there.
    fn name_to_keep(&self, ground: &Ground, place: &[u8]) -> Result<Option<FreeName>, Fault> {
        let places = [place.to_vec()];
        let of_others = self.lie_within(ground.source, ground.top, &places).map_err(fault)?;
        if !of_others.is_empty() {
            return Ok(None);
        }
        self.free_name_at(ground.source, place).map_err(fault)
    }
}
