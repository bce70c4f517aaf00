//! Looks at single objects, for their own sake.

use std::sync::Arc;

use manifold_backends::{Kind, ObjectPath, Presence};
use manifold_catalog::EntryId;
use tokio::time::{Instant, timeout};

use super::{Indexer, Target};
use crate::IndexError;
use crate::health::RequestKind;
use crate::listing;
use crate::overtaken::Tries;
use crate::source::Source;

impl Indexer {
    /// Takes in the attributes of a local source's root, which no listing holds. Elsewhere a root has none of its own.
    pub(crate) async fn look_at_root(&self, source: &Source, root: EntryId) {
        if root == EntryId::ROOT || source.backend.as_local().is_none() {
            return;
        }
        let looked = async {
            let (path, ticket) = (ObjectPath::root(), self.catalog.ticket());
            let asked = timeout(self.settings.stat_timeout, source.backend.stat(&path));
            let Ok(answer) = asked.await else { return Ok(()) };
            let Presence::Found(metadata) = answer? else {
                return Ok(());
            };
            let ((seen, _), open) = (listing::seen(&metadata), self.open_probe());
            self.blocking(move |catalog| Ok(catalog.update_attributes(root, seen, ticket, &*open).map(drop)?))
                .await
        };
        // The listing is good all the same, and the next one looks again.
        if let Err(error) = looked.await {
            tracing::debug!(source = source.backend.name(), %error, "the root's attributes stay as they were");
        }
    }

    pub(super) async fn look(self: &Arc<Self>, target: &Target) -> Result<Presence<()>, IndexError> {
        let mut tries = Tries::begin();
        let mut moved = None;
        loop {
            let target = moved.as_ref().unwrap_or(target);
            let result = self.look_once(target).await;
            if !matches!(result, Err(IndexError::Overtaken(_))) || !tries.again().await {
                return result;
            }
            moved = self.target(target.directory)?;
        }
    }

    async fn look_once(self: &Arc<Self>, target: &Target) -> Result<Presence<()>, IndexError> {
        let ticket = self.catalog.ticket().by_path(target.path.as_bytes());
        let cancelled = target.source.cancel.clone();
        let limit = self.settings.stat_timeout;
        let asked = async {
            let _turn = target.source.foreground_turn().await?;
            let (since, under_way) = (Instant::now(), target.source.monitor.asks(RequestKind::Look));
            let answer = match timeout(limit, target.source.backend.stat(&target.path)).await {
                Ok(answer) => answer.map_err(IndexError::from),
                Err(_) => Err(IndexError::TimedOut {
                    source_name: target.source.backend.name().to_owned(),
                    path: target.path.to_string(),
                    after: limit,
                }),
            };
            under_way.end(&answer);
            let answer = answer?;
            target.source.answered_in(RequestKind::Look, since);
            Ok(answer)
        };
        let answer: Result<_, IndexError> = tokio::select! {
            biased;
            () = cancelled.cancelled() => Err(IndexError::Stopped),
            answer = asked => answer,
        };
        let Presence::Found(metadata) = answer? else {
            return Ok(Presence::Absent);
        };
        // Another kind is another entry; that is for a listing of the parent to settle.
        if listing::kind(metadata.kind) != target.kind {
            return Ok(Presence::Absent);
        }
        let (id, (seen, _), open) = (target.directory, listing::seen(&metadata), self.open_probe());
        self.blocking(move |catalog| Ok(catalog.update_attributes(id, seen, ticket, &*open).map(drop)?))
            .await?;
        if metadata.kind == Kind::Symlink && !target.source.is_local() {
            self.learn_link(target).await?;
        }
        Ok(Presence::Found(()))
    }
}
