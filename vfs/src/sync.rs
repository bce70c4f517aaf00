//! The lock that the modelled code takes. The concurrency models in `tests/` compile that code against shuttle's lock
//! in place of this one.

pub(crate) use parking_lot::Mutex;
