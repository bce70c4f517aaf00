//! The file system as its adaptors use it, over sources that do as they are told.

#![allow(clippy::unwrap_used, reason = "what a helper cannot do fails the test")]

mod across;
mod changing;
mod copies;
mod library;
mod pins;
mod reading;
mod scripted;
mod shelf;
mod tree;
mod union;
mod writing;
