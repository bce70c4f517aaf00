//! Renames of directories that a source was asked for, and of which it is not known whether it has made them: its answer was lost, or
//! whoever waited for it has died. A directory stands where its source has it before anything is uploaded beneath it, or its name or one
//! beneath it is changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use manifold_backends::{Child, Kind, ObjectPath, Presence};
use manifold_catalog::{AskedRename, EntryId, SourceId};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::Uploads;
use crate::Error;
use crate::error::Cause;
use crate::fetch::object::not_connected;
use crate::places::leads_to;

/// The pause after the first failure; doubled with each.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// The pause before a second look at a rename that was not made: a server may come to it later than to the first.
const SECOND_LOOK: Duration = Duration::from_millis(500);
/// For how many deadlines a source may still be at a rename to which it has given no answer.
const UNANSWERED_DEADLINES: u32 = 2;
/// For how many deadlines a source may be at a rename of which something is to be seen: it has directories under both names.
const UNDER_WAY_DEADLINES: u32 = 12;
/// How long it is not looked anew for each who asks.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// Directories that sources may still be renaming.
#[derive(Debug, Default)]
pub(super) struct Unanswered(Mutex<HashMap<EntryId, Thought>>);

/// What is thought of a rename.
#[derive(Clone, Copy, Debug, Default)]
struct Thought {
    /// The source may not have begun with it until then.
    begins_until: Option<Instant>,
    /// The source may not have ended it until then.
    ends_until: Option<Instant>,
    looked: Option<Instant>,
    /// The source has said that it is not at it any more.
    has_answered: bool,
}

/// What a source has made of a rename.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    /// Nothing is under the former name, and a directory under the new one.
    All,
    /// There are directories under both names, as there may have been before.
    Part,
    /// Nothing is to be seen of it.
    Nothing,
}

impl Unanswered {
    fn note(&self, id: EntryId, begins_until: Instant) {
        self.0.lock().entry(id).or_default().begins_until = Some(begins_until);
    }

    fn note_answered(&self, id: EntryId) {
        self.0.lock().entry(id).or_default().has_answered = true;
    }

    fn forget(&self, id: EntryId) {
        self.0.lock().remove(&id);
    }

    /// Tells whether it was looked a moment ago, in vain.
    fn was_looked_at(&self, id: EntryId) -> bool {
        let unanswered = self.0.lock();
        let looked = unanswered.get(&id).and_then(|thought| thought.looked);
        looked.is_some_and(|looked| looked.elapsed() < LOOK_PAUSE)
    }

    /// Takes note of what was seen, and tells whether more may come of it.
    fn is_open(&self, id: EntryId, made: Made, deadline: Duration) -> bool {
        let now = Instant::now();
        let mut unanswered = self.0.lock();
        let thought = unanswered.entry(id).or_default();
        thought.looked = Some(now);
        let until = match made {
            _ if thought.has_answered => None,
            Made::All => None,
            Made::Part => Some(*thought.ends_until.get_or_insert(now + deadline * UNDER_WAY_DEADLINES)),
            Made::Nothing => thought.begins_until,
        };
        until.is_some_and(|until| until > now)
    }
}

/// A rename that a source is being asked for. Who drops it leaves it to others to find out what became of that; the source may be at it
/// still, unless it has said something.
#[must_use = "what became of the rename is found out when this is dropped"]
pub(crate) struct Asking {
    uploads: Arc<Uploads>,
    id: EntryId,
    has_answered: bool,
    is_over: bool,
}

impl Asking {
    pub(crate) fn begin(uploads: &Arc<Uploads>, id: EntryId) -> Self {
        // What was thought of another rename.
        uploads.unanswered.forget(id);
        Self {
            uploads: Arc::clone(uploads),
            id,
            has_answered: false,
            is_over: false,
        }
    }

    /// The source has said something of which it is not known whether it was before the rename or after it.
    pub(crate) fn answered(mut self) {
        self.has_answered = true;
    }

    /// It is known what became of it.
    pub(crate) fn end(mut self) {
        self.is_over = true;
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        if self.has_answered {
            self.uploads.unanswered.note_answered(self.id);
        } else {
            let until = Instant::now() + self.uploads.fetcher.deadline * UNANSWERED_DEADLINES;
            self.uploads.unanswered.note(self.id, until);
        }
        self.uploads.settle_later(self.id);
    }
}

impl Uploads {
    /// Begins to find out what became of renames whose askers have died.
    pub(crate) fn start_settling(self: &Arc<Self>) -> Result<(), Error> {
        for asked in self.fetcher.catalog.asked_renames().map_err(Error::from_catalog)? {
            self.settle_later(asked.id);
        }
        Ok(())
    }

    /// Has it found out what became of a rename, as far as nobody needs to know it before.
    fn settle_later(self: &Arc<Self>, id: EntryId) {
        let uploads = Arc::clone(self);
        self.fetcher.runtime.spawn(async move {
            let mut stopped = uploads.stopped.subscribe();
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => {}
                () = uploads.settle_in_time(id) => {}
            }
        });
    }

    async fn settle_in_time(self: &Arc<Self>, id: EntryId) {
        let mut pause = PAUSE;
        while let Err(error) = self.settle_asked(id).await {
            tracing::debug!(id = id.0, %error, "what became of a rename is not known yet");
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Finds out what became of the renames of directories on the way to these names, or that have them, or were to have them. `None`: the
    /// directory itself. Whoever asks holds no turn yet.
    pub(crate) async fn settle_directories(self: &Arc<Self>, names: &[(EntryId, Option<&[u8]>)]) -> Result<(), Error> {
        for id in self.asked_on_the_way(names)? {
            if self.unanswered.was_looked_at(id) {
                return Err(open());
            }
            // To its end, though nobody waits for it any more: what it does last is not to meet another rename.
            let uploads = Arc::clone(self);
            let settling = self.fetcher.runtime.spawn(async move {
                let mut stopped = uploads.stopped.subscribe();
                tokio::select! {
                    biased;
                    _ = stopped.wait_for(|stopped| *stopped) => Err(Error::Busy),
                    settled = uploads.settle_asked(id) => settled,
                }
            });
            settling.await.map_err(|error| Error::Io(Cause::new(error)))??;
        }
        Ok(())
    }

    /// Gives the directories on the way to these names, or that have them, or were to have them, of which it is not known what became of
    /// their renames.
    pub(crate) fn asked_on_the_way(&self, names: &[(EntryId, Option<&[u8]>)]) -> Result<Vec<EntryId>, Error> {
        let catalog = &self.fetcher.catalog;
        let all = catalog.asked_renames().map_err(Error::from_catalog)?;
        if all.is_empty() {
            return Ok(Vec::new());
        }
        // What has a name, or stands above it, and where.
        let mut on_the_way: Vec<(Option<EntryId>, EntryId, Box<[u8]>)> = Vec::new();
        for (directory, name) in names {
            if let Some(name) = name {
                let has_it = catalog.lookup(*directory, name).map_err(Error::from_catalog)?;
                on_the_way.push((has_it.map(|entry| entry.id), *directory, (*name).into()));
            }
            let mut at = *directory;
            while let Some(entry) = catalog.entry(at).map_err(Error::from_catalog)? {
                on_the_way.push((Some(at), entry.parent, entry.name));
                if at == EntryId::ROOT {
                    break;
                }
                at = entry.parent;
            }
        }
        let is_on_the_way = |asked: &AskedRename| {
            let mut on_the_way = on_the_way.iter();
            on_the_way.any(|(id, parent, name)| *id == Some(asked.id) || (*parent, name) == (asked.to.0, &asked.to.1))
        };
        Ok(all
            .iter()
            .filter(|asked| is_on_the_way(asked))
            .map(|asked| asked.id)
            .collect())
    }

    /// Tells whether it is known which names the directories have that lead to what is in a directory, or was.
    pub(crate) fn is_way_known(&self, directory: EntryId) -> Result<bool, Error> {
        Ok(self.asked_on_the_way(&[(directory, None)])?.is_empty())
    }

    /// Refuses where it is not known which names the directories have that lead to a file: nothing is said by what its source has where it
    /// stands.
    ///
    /// # Errors
    /// [`Error::Busy`]: it is not known.
    pub(super) fn must_know_the_way(&self, id: EntryId) -> Result<(), Error> {
        let entry = self.fetcher.catalog.entry(id).map_err(Error::from_catalog)?;
        match entry {
            Some(entry) if !self.is_way_known(entry.parent)? => Err(Error::Busy),
            _ => Ok(()),
        }
    }

    /// Finds out what became of a rename, once nobody waits for the answer any more, and follows it, or forgets it.
    async fn settle_asked(self: &Arc<Self>, id: EntryId) -> Result<(), Error> {
        let catalog = &self.fetcher.catalog;
        let find = || -> Result<Option<AskedRename>, Error> {
            let all = catalog.asked_renames().map_err(Error::from_catalog)?;
            Ok(all.into_iter().find(|asked| asked.id == id))
        };
        let Some(asked) = find()? else { return Ok(()) };
        let Some(entry) = catalog.entry(id).map_err(Error::from_catalog)? else {
            return catalog.end_rename(id).map_err(Error::from_catalog);
        };
        // Whoever is asking the source has a turn at both names; and neither they nor those above change while it is looked.
        let names = [(entry.parent, Some(&*entry.name)), (asked.to.0, Some(&*asked.to.1))];
        let turn = match self.turns.of_sources(catalog, &names, self.fetcher.deadline).await {
            // Where it was to go is gone, and so it was not made; or it is gone itself.
            Err(Error::Stale) if find()?.as_ref() == Some(&asked) => {
                return catalog.end_rename(id).map_err(Error::from_catalog);
            }
            turn => turn?,
        };
        // It may have been answered, or asked for anew, until then.
        let now = catalog.entry(id).map_err(Error::from_catalog)?;
        match find()? {
            None => return Ok(()),
            Some(again)
                if again == asked && now.is_some_and(|now| (now.parent, now.name) == (entry.parent, entry.name)) => {}
            Some(_) => return Err(Error::Busy),
        }
        let mut made = self.look_for(&asked).await?;
        if made != Made::All {
            sleep(SECOND_LOOK).await;
            made = self.look_for(&asked).await?;
        }
        if self.unanswered.is_open(id, made, self.fetcher.deadline) {
            return Err(open());
        }
        self.unanswered.forget(id);
        let is_made = made == Made::All;
        let (uploads, guarded) = (Arc::clone(self), [entry.parent, asked.to.0, id]);
        self.blocking(move || {
            let catalog = &uploads.fetcher.catalog;
            let _guard = catalog.begin_change(&guarded);
            if !is_made {
                return catalog.end_rename(id).map_err(Error::from_catalog);
            }
            // What a listing has found under the new name is the directory itself.
            let followed = catalog.follow_asked_rename(id, uploads.now_ns());
            if followed.map_err(Error::from_catalog)? {
                tracing::info!(
                    id = id.0,
                    "a directory was renamed at its source, which had not been confirmed"
                );
                catalog.note_stale(id).map_err(Error::from_catalog)?;
            } else {
                tracing::warn!(
                    id = id.0,
                    "a directory was renamed at its source to where something else stands by now: both stay"
                );
            }
            catalog.sync().map_err(Error::from_catalog)
        })
        .await?;
        drop(turn);
        Ok(())
    }

    /// Looks for what the source has made of a rename.
    async fn look_for(&self, asked: &AskedRename) -> Result<Made, Error> {
        let [Some((source, from)), Some((whose, to))] = self.places_of(asked)? else {
            return Ok(Made::Nothing);
        };
        if source != whose || from == to {
            return Ok(Made::Nothing);
        }
        if is_other_spelling(&from, &to) {
            return self.look_for_spelling(source, &from, &to).await;
        }
        let before = self.look_at(source, &from).await?;
        let there = self.look_at(source, &to).await?;
        let is_there = matches!(there, Presence::Found(there) if there.kind == Kind::Directory);
        Ok(match (before, is_there) {
            (_, false) => Made::Nothing,
            (Presence::Found(_), true) => Made::Part,
            (Presence::Absent, true) => Made::All,
        })
    }

    /// The same where both names may be one for the source: only a listing tells how it spells what it has.
    async fn look_for_spelling(&self, source: SourceId, from: &ObjectPath, to: &ObjectPath) -> Result<Made, Error> {
        let (mut before, mut is_there) = (false, false);
        for child in self.list_at(source, &from.parent()).await? {
            before |= child.name == from.name();
            is_there |= child.name == to.name() && child.metadata.kind == Kind::Directory;
        }
        Ok(match (before, is_there) {
            (_, false) => Made::Nothing,
            (true, true) => Made::Part,
            (false, true) => Made::All,
        })
    }

    /// Lists what a source has in a directory; nothing, where there is none.
    async fn list_at(&self, source: SourceId, directory: &ObjectPath) -> Result<Vec<Child>, Error> {
        let indexer = &self.fetcher.indexer;
        let backend = indexer.backend(source).ok_or_else(|| not_connected(indexer, source))?;
        let listing = async {
            let mut children = Vec::new();
            if let Presence::Found(mut pages) = backend.list(directory).await? {
                while let Some(page) = pages.next().await {
                    children.extend(page?);
                }
            }
            Ok(children)
        };
        let asked = indexer.ask(source, directory, self.fetcher.deadline, listing).await;
        asked.map_err(Error::from_index)
    }

    /// Gives where the directory of a rename was at its source, and where it was to be, as far as they are there.
    fn places_of(&self, asked: &AskedRename) -> Result<[Option<Place>; 2], Error> {
        let catalog = &self.fetcher.catalog;
        let place = |id| -> Result<Option<Place>, Error> {
            let place = catalog.object_path(id).map_err(Error::from_catalog)?;
            Ok(place.map(|(source, path)| (source, ObjectPath::from_bytes(path))))
        };
        let name = asked.raw_name.as_deref().unwrap_or(&asked.to.1);
        let to = place(asked.to.0)?.map(|(source, directory)| (source, directory.join(name)));
        Ok([place(asked.id)?, to])
    }

    /// Tells whether a directory that leads to a path at a source, or did, may have another name there.
    pub(super) fn may_lead_elsewhere(&self, source: SourceId, path: &[u8]) -> Result<bool, Error> {
        let catalog = &self.fetcher.catalog;
        for asked in catalog.asked_renames().map_err(Error::from_catalog)? {
            let leads = |(whose, place): &Place| *whose == source && leads_to(place.as_bytes(), path).is_some();
            if self.places_of(&asked)?.iter().flatten().any(leads) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A place at a source.
type Place = (SourceId, ObjectPath);

/// Tells whether two paths are one where upper and lower case are the same.
fn is_other_spelling(one: &ObjectPath, other: &ObjectPath) -> bool {
    let fold = |path: &ObjectPath| String::from_utf8_lossy(path.name()).to_lowercase();
    one.parent() == other.parent() && fold(one) == fold(other)
}

/// Says that more may come of a rename.
fn open() -> Error {
    Error::TimedOut(Cause::new(
        "its source has not said whether it renames a directory, and may be at it",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_source_that_has_answered_is_given_no_time_and_one_that_has_not_is() {
        let (unanswered, id) = (Unanswered::default(), EntryId(7));
        let is_open = |made| unanswered.is_open(id, made, DEADLINE);
        assert!(is_open(Made::Part) && !is_open(Made::Nothing) && !is_open(Made::All));
        tokio::time::advance(DEADLINE * UNDER_WAY_DEADLINES).await;
        assert!(!is_open(Made::Part));
        unanswered.forget(id);
        unanswered.note(id, Instant::now() + DEADLINE);
        assert!(is_open(Made::Part) && is_open(Made::Nothing));
        unanswered.note_answered(id);
        assert!(!is_open(Made::Part) && !is_open(Made::Nothing));
        unanswered.forget(id);
        assert!(is_open(Made::Part), "another rename");
    }

    #[test]
    fn names_that_differ_in_case_alone_are_other_spellings() {
        for (one, other, is_one) in [
            ("a/d", "a/D", true),
            ("\u{c4}", "\u{e4}", true),
            ("a/d", "b/D", false),
            ("a/d", "a/e", false),
        ] {
            let path = |path: &str| ObjectPath::from_bytes(path);
            assert_eq!(is_other_spelling(&path(one), &path(other)), is_one, "{one} {other}");
        }
    }
}
