//! SMB shares, through the crate `smb2`.

use std::sync::Arc;

use crate::{Backend, Limits, Result, Secrets, SourceSpec};

/// Builds the backend.
#[allow(clippy::unimplemented, clippy::unused_async, reason = "first landing")]
pub(crate) async fn connect(spec: &SourceSpec, secrets: &Secrets, limits: &Limits) -> Result<Arc<dyn Backend>> {
    let _ = (spec, secrets, limits);
    unimplemented!()
}
