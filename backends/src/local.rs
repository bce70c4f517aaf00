//! Folders of this machine, read beneath their root with `openat2`.
#[derive(Debug)]
/// x
pub struct LocalBackend;
