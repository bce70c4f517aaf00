//! Where what is new is made: which members can take it, in which order, and the directories that it needs there.
//!
//! Always true: a directory that is made on a member is one that the union shows already, with the same permissions and owner, and its
//! parents keep their times.

use std::sync::Arc;

use manifold_backends::ObjectPath;
use manifold_backends::local::{AttributeChange, Making, NewTime};
use manifold_catalog::{Branch, EntryId, SourceId};
use manifold_index::HealthState;

use super::{Merged, Placement};
use crate::change::{Half, Requester};
use crate::error::Cause;
use crate::vfs::Core;
use crate::{Answer, Error, WritePolicy};

const NS_PER_S: i64 = 1_000_000_000;

/// How much a member can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    /// So many bytes.
    Bytes(u64),
    /// Nobody knows.
    Unknown,
}

/// Why a member takes nothing new.
enum Refused {
    ReadOnly,
    Full,
    Away,
}

impl Core {
    /// Makes something in a directory of a union, at the first member in the order of the policy that takes it.
    pub(super) async fn place<T>(
        self: &Arc<Self>,
        merged: &Merged,
        name: &[u8],
        make: impl Fn(&Arc<Self>, EntryId) -> Answer<T>,
    ) -> Result<T, Error> {
        let mut last = None;
        for member in self.members_for(merged, name).await? {
            let done = match self.branch_at(merged, member).await {
                Ok(directory) => make(self, directory).wait().await,
                // Something that is hidden stands in the way there.
                Err(Error::Exists | Error::NotADirectory) => Err(Error::NotPermitted),
                Err(error) => Err(error),
            };
            match done {
                Err(error) if is_for_the_next(&error) => {
                    tracing::debug!(%error, member, "the next member of the union is tried");
                    last.get_or_insert(error);
                }
                other => return other,
            }
        }
        Err(last.unwrap_or(Error::ReadOnly))
    }

    /// Names the members that can take something new, the best first.
    async fn members_for(self: &Arc<Self>, merged: &Merged, name: &[u8]) -> Result<Vec<usize>, Error> {
        let union = &merged.union;
        let (mut fit, mut refused) = (Vec::new(), Vec::new());
        for (number, member) in union.members.iter().enumerate() {
            self.until_connected(member.source).await;
            match self.room_of(member.source, union.settings.min_free) {
                Ok(room) => fit.push((number, room)),
                Err(why) => refused.push(why),
            }
        }
        if fit.is_empty() {
            return Err(if refused.iter().any(|why| matches!(why, Refused::Full)) {
                Error::Full
            } else if refused.iter().any(|why| matches!(why, Refused::Away)) {
                let at = union.settings.at.escape_ascii();
                Error::Unreachable(Cause::new(format!(
                    "no member of the union {at} can be reached that may be changed"
                )))
            } else {
                Error::ReadOnly
            });
        }
        if union.settings.place == Placement::MostFree {
            // Stable: of equals the first comes first.
            fit.sort_by_key(|(_, room)| match room {
                Room::Bytes(bytes) => std::cmp::Reverse(Some(*bytes)),
                Room::Unknown => std::cmp::Reverse(None),
            });
        }
        let mut order: Vec<_> = fit.into_iter().map(|(number, _)| number).collect();
        let path = [&merged.names[..], &[name.into()]].concat().join(&b'/');
        if let Some(rule) = union.settings.rules.iter().find(|rule| rule.glob.matches(&path)) {
            order.sort_by_key(|number| union.members[*number].name != rule.member);
        }
        Ok(order)
    }

    /// Waits for a source that is being connected, as long as anybody waits for one.
    async fn until_connected(&self, source: SourceId) {
        if self.indexer.is_expected(source) {
            let connected = self.indexer.until_connected(source);
            // Whether it came in time is seen next.
            let _in_time = tokio::time::timeout(self.settings.metadata_deadline, connected).await;
        }
    }

    /// Tells how much a member can take, if it can take anything.
    fn room_of(&self, source: SourceId, min_free: u64) -> Result<Room, Refused> {
        let half = match self.half_of_source(source) {
            Ok(half) => half,
            Err(Error::ReadOnly) => return Err(Refused::ReadOnly),
            Err(_) => return Err(Refused::Away),
        };
        let state = self.indexer.health(source).map(|health| health.state);
        if matches!(state, Some(HealthState::Offline | HealthState::Refused)) {
            return Err(Refused::Away);
        }
        match half {
            Half::Remote => match self.uploads.get() {
                Some(uploads) if uploads.policy(source) != WritePolicy::Off => Ok(Room::Unknown),
                _ => Err(Refused::ReadOnly),
            },
            Half::Local(local) if local.may_hang(&ObjectPath::root()) => Ok(Room::Unknown),
            Half::Local(local) => match local.space() {
                Ok(space) if space.available < min_free || (space.objects > 0 && space.free_objects == 0) => {
                    Err(Refused::Full)
                }
                Ok(space) => Ok(Room::Bytes(space.available)),
                Err(error) => {
                    tracing::debug!(%source, %error, "the room of a member is not known");
                    Err(Refused::Away)
                }
            },
        }
    }

    /// Gives a member's own directory for one that the union shows, which is made there if it is missing, with all that lead to it.
    pub(super) async fn branch_at(self: &Arc<Self>, merged: &Merged, member: usize) -> Result<EntryId, Error> {
        if let Some(Branch::Directory(entry)) = merged.branches.get(member) {
            return Ok(entry.id);
        }
        let union = &merged.union;
        let root = union.members[member].root;
        let mut at = root;
        for end in 1..=merged.names.len() {
            let (names, name) = (&merged.names[..end], &merged.names[end - 1]);
            let there = || self.catalog.branch(root, names).map_err(Error::from_catalog);
            at = match there()? {
                Branch::Directory(entry) => entry.id,
                Branch::Unlisted(_) => return Err(Error::Stale),
                Branch::Absent => {
                    let like = self.entry_shown(&self.merged_at(Arc::clone(union), names.to_vec(), None)?)?;
                    let above =
                        self.entry_shown(&self.merged_at(Arc::clone(union), names[..end - 1].to_vec(), None)?)?;
                    let (uid, gid) = like.owner.unwrap_or(*self.owner.read());
                    let by = Requester {
                        uid,
                        gid,
                        pid: 0,
                        umask: 0,
                    };
                    let made = self
                        .make_in(at, name, Making::Directory, like.mode.into(), by)
                        .wait()
                        .await;
                    let id = match (made, there()?) {
                        (Ok(_) | Err(Error::Exists), Branch::Directory(entry)) => entry.id,
                        (Ok(_), _) => return Err(Error::Stale),
                        (Err(error), _) => return Err(error),
                    };
                    self.keep_time(at, above.modified_ns, by).await;
                    id
                }
            };
        }
        Ok(at)
    }

    /// Gives a directory back the time that it had before something was made in it that the union showed already. Where that is
    /// not possible, it is shown as changed, which is no harm.
    async fn keep_time(self: &Arc<Self>, directory: EntryId, modified_ns: i64, by: Requester) {
        let (seconds, nanoseconds) = (modified_ns.div_euclid(NS_PER_S), modified_ns.rem_euclid(NS_PER_S));
        let change = AttributeChange {
            modified: Some(NewTime::At(seconds, nanoseconds as u32)),
            ..AttributeChange::default()
        };
        if let Err(error) = self.set_attributes_in(directory, None, change, by).wait().await {
            tracing::debug!(%directory, %error, "the time of a directory was not kept");
        }
    }
}

/// Tells whether another member may do what one has refused. Certainly nothing was made there.
fn is_for_the_next(error: &Error) -> bool {
    matches!(
        error,
        Error::Full
            | Error::Quota
            | Error::ReadOnly
            | Error::NotPermitted
            | Error::Unreachable(_)
            | Error::AccessDenied(_)
            | Error::Unsupported(_)
    )
}
