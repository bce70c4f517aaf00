//! What a source may have of a file whose upload was not confirmed, told by its bytes alone.

use std::sync::Arc;
use std::time::Duration;

use manifold_catalog::SentState;
use tokio::time::timeout;

use super::Uploads;
use crate::staging::StagedFile;

impl Uploads {
    /// Lists the states of a held file that its source may have; `None` where one of them cannot be told.
    pub(crate) async fn sent_states(
        self: &Arc<Self>,
        file: &Arc<StagedFile>,
        patience: Duration,
    ) -> Option<Vec<SentState>> {
        // Of a file through which another version shows, the row tells all that was sent.
        if file.was_sent_before() && file.holes().is_none() {
            let read = timeout(patience, self.take_for_sent(file)).await;
            if !matches!(read, Ok(Ok(()))) {
                return None;
            }
        }
        if file.was_sent_unknown() {
            return None;
        }
        let sent = file.unconfirmed().into_iter().map(|(sending, hash)| SentState {
            size: sending.size,
            hash,
        });
        Some(sent.collect())
    }
}
