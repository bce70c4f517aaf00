//! Uploads: behind everybody who waits, some at once, for as long as bytes move.
//!
//! An upload waits until its source is well, however long that takes. It has no deadline of its own: the backend ends one that
//! stands still.

use std::future::Future;
use std::sync::Arc;

use tokio::time::timeout;

use super::Source;
use crate::IndexError;

impl Source {
    /// Makes a request that nobody waits for, when its turn comes: up to half of what the source likes at once, and while
    /// somebody waits in front, not before a moment has passed.
    pub(crate) async fn upload<T>(
        self: &Arc<Self>,
        request: impl Future<Output = manifold_backends::Result<T>>,
        is_answer: impl FnOnce(&T) -> bool,
        runtime: &tokio::runtime::Handle,
    ) -> Result<T, IndexError> {
        let work = async {
            let _permit = self.uploads.acquire().await.map_err(|_| IndexError::Stopped)?;
            self.until_well().await;
            if self.is_waited_for() {
                let mut waited_for = self.waited_for.subscribe();
                // Those who read without a pause are not waited for longer than that.
                let _nobody = timeout(self.yield_max, waited_for.wait_for(|count| *count == 0)).await;
            }
            let _in_flight = self.monitor.in_flight();
            let result = request.await.map_err(IndexError::from);
            match &result {
                Ok(value) if is_answer(value) => self.answered(),
                Ok(_) => {}
                Err(error) => self.failed(error, runtime),
            }
            result
        };
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(IndexError::Stopped),
            result = work => result,
        }
    }
}
