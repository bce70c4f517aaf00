//! The catalog from outside: what its callers may rely on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(unreachable_pub, reason = "modules of one test binary")]
#![allow(missing_docs, reason = "names of tests say what holds")]

mod asked_renames;
mod branches;
mod crashes;
mod crossings;
mod damage;
mod follow;
mod full_disk;
mod kept;
mod links;
mod listings;
mod loads;
mod model;
mod moves;
mod origins;
mod overtaken;
mod parts;
mod pins;
mod properties;
mod renames;
mod sources;
mod staged;
mod support;
mod write_ahead;
