//! Where the links of a directory point: asked for when it has been listed, so that it is known when the source is away.
//!
//! A link is read once for each of its versions. Where versions tell time by the tick, one that was changed shortly before the last
//! listing may have been changed again since, and is read once more. What cannot be read does no harm to the listing: it is
//! asked for by whoever wants it, and with the next listing, unless the source has said that it never will tell.

use std::sync::Arc;
use std::time::Duration;

use manifold_backends::{ObjectPath, Presence, Version};
use manifold_catalog::{KnownLink, LINK_TARGET_MAX, LinkTarget};
use tokio::time::{Instant, timeout_at};

use crate::IndexError;
use crate::health::RequestKind;
use crate::indexer::{Indexer, Target};
use crate::source::Source;

/// How many links are asked for in one request.
const AT_ONCE: usize = 64;
/// How long all links of one listing may take: who waits for it can see the names already. The rest comes with the next.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a link must have been as it is to be taken for settled where its version tells time by the tick, in nanoseconds: the
/// coarsest tick is a minute. It covers clocks that differ, too.
const SETTLED_AFTER_NS: i64 = 120_000_000_000;

impl Indexer {
    /// Reads those of the names of a directory that are links and whose targets are not known. `before_ns` says when it had
    /// been listed before.
    pub(crate) async fn learn_links(
        self: &Arc<Self>,
        target: &Target,
        names: Vec<Box<[u8]>>,
        before_ns: Option<i64>,
    ) -> Result<(), IndexError> {
        let directory = target.directory;
        let links = self
            .blocking(move |catalog| Ok(catalog.links_among(directory, &names)?))
            .await?;
        let wanted: Vec<_> = links
            .into_iter()
            .filter(|link| link.target.is_none() || !is_settled(link, before_ns))
            .map(|link| (target.path.join(&link.raw_name), link))
            .collect();
        self.read_links(&target.source, wanted).await
    }

    /// Reads one link that has been looked at.
    pub(crate) async fn learn_link(self: &Arc<Self>, target: &Target) -> Result<(), IndexError> {
        let (id, parent) = (target.directory, target.parent);
        let links = self
            .blocking(move |catalog| {
                let entry = catalog.entry(id)?.filter(|entry| entry.parent == parent);
                let names: Vec<_> = entry.map(|entry| entry.name).into_iter().collect();
                Ok(catalog.links_among(parent, &names)?)
            })
            .await?;
        let wanted = links.into_iter().filter(|link| link.id == id);
        let wanted = wanted.map(|link| (target.path.clone(), link)).collect();
        self.read_links(&target.source, wanted).await
    }

    async fn read_links(
        self: &Arc<Self>,
        source: &Source,
        wanted: Vec<(ObjectPath, KnownLink)>,
    ) -> Result<(), IndexError> {
        let until = Instant::now() + PATIENCE;
        for some in wanted.chunks(AT_ONCE) {
            let paths: Vec<_> = some.iter().map(|(path, _)| path.clone()).collect();
            let under_way = source.monitor.asks(RequestKind::Look);
            let answers = timeout_at(until, source.backend.read_links(&paths)).await;
            let answers = answers.map_err(|_| IndexError::TimedOut {
                source_name: source.backend.name().to_owned(),
                path: paths[0].to_string(),
                after: PATIENCE,
            });
            under_way.end(&answers);
            let answers = match answers {
                Ok(answers) => answers,
                Err(error) => {
                    tracing::debug!(%error, "where links point is read with the next listing");
                    return Ok(());
                }
            };
            let (mut read, mut is_away) = (Vec::new(), false);
            for ((_, link), answer) in some.iter().zip(answers) {
                match answer.map_err(IndexError::from) {
                    Ok(Presence::Absent) => {}
                    Ok(Presence::Found(points_to)) => read.extend(news(link, points_to)),
                    Err(error) => {
                        tracing::debug!(%error, "it is not known where a link points");
                        is_away |= error.is_about_source();
                        read.extend((!error.may_retry()).then(|| news(link, Vec::new())).flatten());
                    }
                }
            }
            if !read.is_empty() {
                self.blocking(move |catalog| Ok(catalog.set_link_targets(&read).map(drop)?))
                    .await?;
            }
            if is_away {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Tells whether a link points where it did when it was read: its version says so, or it has been left alone for long.
fn is_settled(link: &KnownLink, before_ns: Option<i64>) -> bool {
    let version = Version::from_stored(&link.version);
    let names_content = version.etag().is_some() || version.id().is_some();
    names_content || before_ns.is_some_and(|before_ns| link.modified_ns.saturating_add(SETTLED_AFTER_NS) < before_ns)
}

/// Makes what the catalog is told of a link, if it is new. What nothing can point to is as good as not told.
fn news(link: &KnownLink, points_to: Vec<u8>) -> Option<LinkTarget> {
    let is_path = points_to.len() <= LINK_TARGET_MAX && !points_to.contains(&0);
    let target: Box<[u8]> = if is_path { points_to.into() } else { Box::default() };
    (link.target.as_ref() != Some(&target)).then(|| LinkTarget {
        id: link.id,
        version: link.version.clone(),
        target,
    })
}
