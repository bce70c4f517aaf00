//! Folders of this machine, read beneath their root with `openat2`.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Backend, Capabilities, Listing, Metadata, ObjectPath, Presence, Result, Version};

/// A folder of this machine.
#[derive(Debug)]
pub struct LocalBackend {}

#[allow(
    unused_variables,
    clippy::unimplemented,
    clippy::unused_self,
    reason = "first landing"
)]
impl LocalBackend {
    /// Opens a folder as a source.
    pub fn open(root: &Path) -> Result<Self> {
        unimplemented!()
    }

    /// Opens a regular file for reading. Never blocks on a named pipe or a device: they are refused.
    pub fn open_file(&self, path: &ObjectPath) -> Result<Presence<(File, Metadata)>> {
        unimplemented!()
    }

    /// Lists a directory, synchronously.
    pub fn walk_directory(&self, path: &ObjectPath, each: &mut dyn FnMut(&[u8], &Metadata)) -> Result<Presence<()>> {
        unimplemented!()
    }
}

#[allow(
    unused_variables,
    clippy::unimplemented,
    clippy::unused_self,
    reason = "first landing"
)]
#[async_trait]
impl Backend for LocalBackend {
    fn name(&self) -> &str {
        unimplemented!()
    }

    fn capabilities(&self) -> &Capabilities {
        unimplemented!()
    }

    async fn check(&self) -> Result<()> {
        unimplemented!()
    }

    async fn stat(&self, path: &ObjectPath) -> Result<Presence<Metadata>> {
        unimplemented!()
    }

    async fn list(&self, directory: &ObjectPath) -> Result<Presence<Listing>> {
        unimplemented!()
    }

    async fn read(&self, path: &ObjectPath, version: &Version, range: Range<u64>) -> Result<Presence<Bytes>> {
        unimplemented!()
    }

    async fn read_link(&self, path: &ObjectPath) -> Result<Presence<Vec<u8>>> {
        unimplemented!()
    }

    fn as_local(&self) -> Option<&LocalBackend> {
        Some(self)
    }
}
