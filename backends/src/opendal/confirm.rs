//! The look at an object after it was read, where no request can be made conditional.
//!
//! A look that begins after a read has ended tells whether what was read was still the version that was asked for. One
//! look serves every read of the object that ended before it began: readers join the look that waits, and one look at
//! an object is under way at a time. So a crowd of readers costs two looks, not one each.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;

use super::source::Source;
use crate::{Error, ErrorKind, ObjectPath, Operation, Presence, Result, Version};

/// Above this many objects, those that nobody waits for any more are swept out.
const SWEEP_AT: usize = 256;

type Outcome = std::result::Result<Presence<Version>, (ErrorKind, String)>;
type Look = BoxFuture<'static, Outcome>;

/// The looks that wait to begin, by object.
#[derive(Default)]
pub(super) struct Confirmations(Mutex<HashMap<ObjectPath, Entry>>);

struct Entry {
    /// Held by the look that is under way.
    turn: Arc<tokio::sync::Mutex<()>>,
    next: WeakShared<Look>,
    /// Whether `next` has begun, so that it says nothing of a read that ends now.
    begun: Arc<AtomicBool>,
}

impl Source {
    /// Gives the version of the object as it stands now; the look begins after this call.
    pub(super) async fn confirm(self: &Arc<Self>, path: &ObjectPath) -> Result<Presence<Version>> {
        let look = self.look(path);
        look.await
            .map_err(|(kind, why)| Error::new(kind, Operation::Read, self.name.as_str(), path.clone(), why))
    }

    fn look(self: &Arc<Self>, path: &ObjectPath) -> Shared<Look> {
        let mut waiting = self.confirmations.0.lock();
        if let Some(entry) = waiting.get(path)
            && !entry.begun.load(Ordering::Acquire)
            && let Some(look) = entry.next.upgrade()
        {
            return look;
        }
        if waiting.len() >= SWEEP_AT {
            waiting.retain(|_, entry| entry.next.upgrade().is_some());
        }
        let turn = waiting.get(path).map(|entry| entry.turn.clone()).unwrap_or_default();
        let begun = Arc::new(AtomicBool::new(false));
        let look = look_once(self.clone(), path.clone(), turn.clone(), begun.clone())
            .boxed()
            .shared();
        if let Some(next) = look.downgrade() {
            waiting.insert(path.clone(), Entry { turn, next, begun });
        }
        look
    }
}

async fn look_once(
    source: Arc<Source>,
    path: ObjectPath,
    turn: Arc<tokio::sync::Mutex<()>>,
    begun: Arc<AtomicBool>,
) -> Outcome {
    let _turn = turn.lock().await;
    begun.store(true, Ordering::Release);
    match source.stat_object(Operation::Read, &path).await {
        Ok(Presence::Found(metadata)) => Ok(Presence::Found(metadata.version)),
        Ok(Presence::Absent) => Ok(Presence::Absent),
        Err(error) => Err((error.kind(), error.cause().to_string())),
    }
}
