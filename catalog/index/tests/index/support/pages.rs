//! A listing, page by page: each shows the directory as it is by then.

use std::sync::{Arc, OnceLock};

use manifold_backends::{Child, Error, ErrorKind, Identity, ObjectPath, Operation, Result};
use parking_lot::Mutex;

use super::world::World;
use super::{Cue, Fault, PAGE, Request};

/// A listing under way.
pub(super) struct Pages {
    pub(super) source_name: String,
    pub(super) world: Arc<Mutex<World>>,
    pub(super) cue: Arc<OnceLock<Cue>>,
    pub(super) directory: ObjectPath,
    /// The directory's, when the listing began.
    pub(super) identity: Option<Identity>,
    pub(super) after: Option<Vec<u8>>,
    pub(super) fault: Option<Fault>,
    /// How many pages were given.
    pub(super) given: usize,
    pub(super) ended: bool,
}

impl Pages {
    pub(super) async fn next(mut self) -> Option<(Result<Vec<Child>>, Self)> {
        if self.ended {
            return None;
        }
        let mut fault = self.fault.clone();
        if self.cue.get().is_some() {
            tokio::task::yield_now().await;
            if let Some(kind @ Fault::Refuse(_)) = self.cue.get().and_then(|cue| cue(Request::Page)) {
                fault = Some(kind);
            }
        }
        let broken = match fault {
            Some(Fault::Refuse(kind)) => Some((kind, "as scripted")),
            Some(Fault::BreakAfter(pages)) if self.given == pages => Some((ErrorKind::Other, "as scripted")),
            Some(Fault::HangAfter(pages)) if self.given == pages => std::future::pending().await,
            _ => None,
        };
        let page = match broken {
            None => self.page(),
            Some(broken) => Err(broken),
        };
        self.given += 1;
        match page {
            Ok(page) if page.is_empty() && matches!(self.fault, Some(Fault::BreakAfter(_))) => {
                self.ended = true;
                Some((Err(self.error(ErrorKind::Other, "as scripted")), self))
            }
            Ok(page) => {
                self.after = Some(page.last()?.name.clone());
                Some((Ok(page), self))
            }
            Err((kind, why)) => {
                self.ended = true;
                Some((Err(self.error(kind, why)), self))
            }
        }
    }

    fn page(&self) -> std::result::Result<Vec<Child>, (ErrorKind, &'static str)> {
        let world = self.world.lock();
        let identity = world
            .object(self.directory.as_bytes())
            .and_then(|object| object.identity);
        let page = world.children_after(self.directory.as_bytes(), self.after.as_deref(), PAGE);
        page.filter(|_| identity == self.identity)
            .ok_or((ErrorKind::Other, "it was moved or removed while it was listed"))
    }

    fn error(&self, kind: ErrorKind, why: &'static str) -> Error {
        Error::new(
            kind,
            Operation::List,
            self.source_name.as_str(),
            self.directory.clone(),
            why,
        )
    }
}
