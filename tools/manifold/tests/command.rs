//! The built command, as a person or a script meets it: what it prints, what it refuses, what it leaves behind.
//!
//! Needs /dev/fuse and the right to mount; the tests of full disks need root.

#[path = "command/bad_input.rs"]
mod bad_input;
#[path = "command/daemon.rs"]
mod daemon;
#[path = "command/exposition.rs"]
mod exposition;
#[path = "command/metrics.rs"]
mod metrics;
#[path = "command/output.rs"]
mod output;
#[path = "command/pins.rs"]
mod pins;
#[path = "command/secrets.rs"]
mod secrets;
#[path = "command/settings.rs"]
mod settings;
#[path = "command/support.rs"]
mod support;
#[path = "command/troubles.rs"]
mod troubles;
