//! What the end-to-end tests share: real servers, started for one test and ended with it, what fails between them and the
//! program, and the program itself.

pub mod chance;
pub mod estate;
pub mod lossy;
pub mod mounted;
pub mod network;
pub mod proxy;
pub mod servers;
