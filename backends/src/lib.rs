//! What a person's files lie on, behind one trait.
//!
//! A [`SourceSpec`] (a URI and its settings) is connected to a [`Backend`]: through `OpenDAL` for network
//! services, through our own SMB service on the crate `smb2`, and through [`local`] for folders of this machine.
//! This crate is the only one that names an `OpenDAL` or SMB type.
//!
//! Always true here:
//! - "absent" ([`Presence::Absent`]) and "not known" ([`Error`]) are different types, from the wire up;
//! - a listing that did not reach its end yields an error, never a shorter listing;
//! - the bytes of one read belong to the version that was asked for, or the read fails with
//!   [`ErrorKind::VersionChanged`].

mod backend;
mod blocks;
mod connect;
mod diagnose;
mod error;
mod links;
pub mod local;
mod object;
mod opendal;
mod parts;
pub mod secrets;
mod sftp;
mod smb;
mod socket;
pub mod spec;
mod watch;
mod write;

pub use backend::{Backend, Capabilities, Listing};
pub use connect::{Limits, connect, recognisable};
pub use diagnose::{Diagnosis, diagnose};
pub use error::{Error, ErrorKind, Operation, Result};
pub use object::{Child, Identity, Kind, Metadata, ObjectPath, Presence, Timestamp, Version};
pub use parts::{PartLog, PartUpload, SentPart};
pub use secrets::{Place, Secret, SecretError, SecretReference, SecretStore, Secrets, StoreOptions};
pub use spec::{
    KeyInfo, Scheme, SchemeInfo, SecretKey, SourcePlace, SourceSpec, SpecError, ValueKind, Writes, common_keys,
    nearest, schemes,
};
pub use watch::{Coverage, Noticed, Watch, Where};
pub use write::{Attributes, Body, Condition, Expected, Renames, TEMPORARY_PREFIX, WriteAbilities, is_temporary_name};
