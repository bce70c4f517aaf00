//! Real mounts of small libraries, looked at as applications look at them.
//!
//! They need `/dev/fuse` and, where a test says so, root. A test that misses one says so and fails.

mod changes;
mod children;
mod library;
mod lifecycle;
mod listing;
mod reading;
mod readonly;
mod replacing;
mod script;
mod troubles;
mod writing;
