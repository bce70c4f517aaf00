//! Mounts a library on Linux: `fuser` on one side, the file system of `manifold-vfs` on the other, and nothing else.

mod error;
mod options;

pub use error::MountError;
pub use options::MountOptions;
