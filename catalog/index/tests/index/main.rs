//! The indexer against a source that keeps its own truth and fails on cue, and against real folders.

#![allow(clippy::unwrap_used, reason = "a test that meets an error there has failed")]

mod contents;
mod cut_listings;
mod health;
mod held;
mod killed_scans;
mod library;
mod links;
mod load;
mod local_folders;
mod nothing_disappears;
mod on_demand;
mod own_changes;
mod renames;
mod scans;
mod support;
mod truths;
mod watches;
