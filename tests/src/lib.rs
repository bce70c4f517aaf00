//! What the end-to-end tests share: real servers, started for one test and ended with it.

pub mod mounted;
pub mod servers;
