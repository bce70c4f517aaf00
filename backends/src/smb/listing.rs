//! A directory being listed: pages as the server gives them, one fetched ahead.
//!
//! Always true: the listing ends without an error only if the server said that it had ended; nothing is listed twice
//! because of a broken connection (a listing that has given out a page is not begun again).

use std::sync::{Arc, Weak};

use smb2::types::FileId;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::facts::Facts;
use super::failure::{Failure, Left};
use super::pool::Pool;
use super::service::Share;
use super::session::Session;
use crate::ErrorKind;

/// Entries of a directory: names in wire form.
pub(super) type Page = Vec<(Vec<u16>, Facts)>;

/// A directory being listed. Dropping it closes it.
pub(super) struct DirectoryPages {
    directory: Arc<OpenDirectory>,
    /// A page that has come and was not given out yet.
    first: Option<Page>,
    /// The page after it, on its way; `None` at the end.
    next: Option<JoinHandle<Result<Option<Page>, Failure>>>,
}

struct OpenDirectory {
    pool: Arc<Pool>,
    session: Arc<Session>,
    handle: FileId,
    /// Dropped when it is closed.
    closed: watch::Sender<()>,
}

impl DirectoryPages {
    /// Opens the directory and gets its first page.
    pub(super) async fn open(share: &Share, name: &[u16]) -> Result<Self, Failure> {
        let name: Arc<[u16]> = name.into();
        let closed = share.files.look(&name).await;
        let weak: Weak<Pool> = Arc::downgrade(&share.pool);
        let (directory, first) = share
            .pool
            .exchange(move |session| {
                let (name, pool, closed) = (Arc::clone(&name), weak.clone(), closed.clone());
                async move {
                    let pool = pool
                        .upgrade()
                        .ok_or_else(|| Failure::new(ErrorKind::Other, "the source is being closed"))?;
                    let handle = session.open_directory(&name).await?;
                    // From here on the handle closes itself.
                    let directory = OpenDirectory {
                        pool,
                        session: Arc::clone(&session),
                        handle,
                        closed,
                    };
                    let first = session.next_page(handle, true).await?;
                    Ok((Arc::new(directory), first))
                }
            })
            .await?;
        let mut pages = Self {
            directory,
            first,
            next: None,
        };
        if pages.first.is_some() {
            pages.fetch();
        }
        Ok(pages)
    }

    /// Gives what keeps directories above from getting another name as long as it lives.
    pub(super) fn listing(&self) -> watch::Sender<()> {
        self.directory.closed.clone()
    }

    /// Gives the next page; `None` at the end and ever after. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<Page>, Failure> {
        if let Some(page) = self.first.take() {
            return Ok(Some(page));
        }
        let Some(task) = &mut self.next else { return Ok(None) };
        let result = task.await;
        self.next = None;
        match result {
            Ok(Ok(Some(page))) => {
                self.fetch();
                Ok(Some(page))
            }
            Ok(end) => end,
            Err(error) => Err(Failure::new(
                ErrorKind::Other,
                format!("the listing was broken off: {error}"),
            )),
        }
    }

    fn fetch(&mut self) {
        self.next = Some(tokio::spawn(Arc::clone(&self.directory).next_page()));
    }
}

impl OpenDirectory {
    async fn next_page(self: Arc<Self>) -> Result<Option<Page>, Failure> {
        let (session, handle) = (Arc::clone(&self.session), self.handle);
        self.pool
            .exchange_on(&self.session, async move { session.next_page(handle, false).await })
            .await
    }
}

impl Drop for OpenDirectory {
    fn drop(&mut self) {
        let (false, Ok(runtime)) = (self.session.is_lost(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let (pool, session, handle) = (Arc::clone(&self.pool), Arc::clone(&self.session), self.handle);
        let closed = self.closed.clone();
        runtime.spawn(async move {
            let _closed = closed;
            let closing = Arc::clone(&session);
            match pool
                .exchange_on(&session, async move { closing.close(handle).await })
                .await
            {
                Err(failure) if failure.left() == Left::All => {
                    tracing::debug!(%failure, "a directory could not be closed");
                }
                _ => {}
            }
        });
    }
}
