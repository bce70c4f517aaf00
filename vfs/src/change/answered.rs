//! What is seen to before a change of names is answered: that it lasts, and that whoever is told of something finds it.

use std::sync::Arc;

use manifold_catalog::EntryId;

use crate::error::Cause;
use crate::vfs::Core;
use crate::{Answer, Error};

impl Core {
    /// Answers when the catalog will have a change of names after a crash or a loss of power too: else what was made would have
    /// no name for a while, and what stands at a former name, or was removed, would be tried to be read.
    pub(super) fn lasting<T: Send + 'static>(self: &Arc<Self>, changed: Answer<T>) -> Answer<T> {
        let core = Arc::clone(self);
        let losses = self.catalog.losses();
        Answer::Pending(Box::pin(async move {
            let value = changed.wait().await?;
            let catalog = Arc::clone(&core.catalog);
            core.blocking(move || {
                catalog.sync().map_err(Error::from_catalog)?;
                // The storage may have failed in between, and all is durable by now that is left.
                if catalog.losses() == losses {
                    Ok(())
                } else {
                    Err(Error::Io(Cause::new("the catalog has lost what was changed just now")))
                }
            })
            .await?;
            Ok(value)
        }))
    }

    /// Looks into a directory before it is answered that something has a name there already, if the catalog does not know that: others
    /// have made it, or a crash came between the source's answer to a change and the catalog.
    pub(super) fn shown_first<T: Send + 'static>(
        self: &Arc<Self>,
        directory: EntryId,
        name: Box<[u8]>,
        answer: Answer<T>,
    ) -> Answer<T> {
        let is_surprise = move |core: &Self, error: &Error| {
            matches!(error, Error::Exists) && core.catalog.lookup(directory, &name).is_ok_and(|known| known.is_none())
        };
        self.looking_into(directory, is_surprise, answer)
    }

    /// The same before it is answered that a directory is not empty, if the catalog has nothing in it.
    pub(super) fn filled_first<T: Send + 'static>(
        self: &Arc<Self>,
        directory: EntryId,
        name: &[u8],
        answer: Answer<T>,
    ) -> Answer<T> {
        // Without an answer of the catalog there is nothing to look into.
        let Ok(Some(removed)) = self.catalog.lookup(directory, name) else {
            return answer;
        };
        let is_surprise = move |core: &Self, error: &Error| {
            let known = || core.catalog.children(removed.id, None, 1);
            matches!(error, Error::NotEmpty) && known().is_ok_and(|known| known.is_empty())
        };
        self.looking_into(removed.id, is_surprise, answer)
    }

    fn looking_into<T: Send + 'static>(
        self: &Arc<Self>,
        directory: EntryId,
        is_surprise: impl Fn(&Self, &Error) -> bool + Send + 'static,
        answer: Answer<T>,
    ) -> Answer<T> {
        if let Answer::Ready(done) = &answer
            && !done.as_ref().is_err_and(|error| is_surprise(self, error))
        {
            return answer;
        }
        let core = Arc::clone(self);
        Answer::Pending(Box::pin(async move {
            let result = answer.wait().await;
            if let Err(error) = &result
                && is_surprise(&core, error)
            {
                // The source has just answered. Half of the deadline was for the change.
                let patience = core.settings.metadata_deadline / 2;
                match tokio::time::timeout(patience, core.indexer.list_now(directory)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(id = directory.0, %error, "what is in the way is not shown yet"),
                    Err(_) => tracing::debug!(id = directory.0, "what is in the way is shown later"),
                }
            }
            result
        }))
    }
}
