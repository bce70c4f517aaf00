//! What a connection to a share needs to know, checked.

use std::time::Duration;

use super::failure::Failure;
use crate::{ErrorKind, ObjectPath, Secret};

/// Whether the exchange is to be protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Protection {
    /// Where server and user permit it: signing always but for guests, encryption where the server demands it.
    #[default]
    Auto,
    /// Without it there is no connection.
    Required,
}

impl Protection {
    /// Reads the value of the setting `key`.
    pub(super) fn parse(key: &str, value: &str) -> Result<Self, Failure> {
        match value {
            "" | "auto" => Ok(Self::Auto),
            "required" => Ok(Self::Required),
            other => Err(Failure::new(
                ErrorKind::Settings,
                format!("{key} is `{other}`, but can only be `auto` or `required`"),
            )),
        }
    }
}

/// One share, as one user, beneath one folder.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// `host:port`; an IPv6 address stands in brackets.
    pub(super) address: String,
    pub(super) share: String,
    /// The folder of the share that is the source's root.
    pub(super) root: ObjectPath,
    /// Empty for a guest.
    pub(super) user: String,
    pub(super) domain: String,
    pub(super) password: Option<Secret>,
    pub(super) signing: Protection,
    pub(super) encryption: Protection,
    /// Exchanges at once, over all connections.
    pub(super) concurrency: u32,
    /// How long the server may take to accept a connection.
    pub(super) connect_timeout: Duration,
    /// How long the server may say nothing to a request.
    pub(super) request_timeout: Duration,
}

/// The port of SMB over TCP.
const PORT: u16 = 445;

impl Settings {
    /// Exchanges at once unless the settings say otherwise: enough to keep a fast link busy with pieces of
    /// [`PIECE`](super::files::PIECE), and half of the credits that a server commonly grants.
    pub(super) const CONCURRENCY: u32 = 16;

    /// How long it may take until a connection can be used. The log-in is several requests, each of which has its time; a
    /// server that is busy makes a process for each connection, and checks the password, at its leisure.
    pub(super) fn set_up_timeout(&self) -> Duration {
        self.connect_timeout + self.request_timeout
    }

    /// Gives `host:port` of a host that may be an IPv6 address.
    pub(super) fn address(host: &str, port: Option<u16>) -> String {
        let port = port.unwrap_or(PORT);
        if host.contains(':') && !host.starts_with('[') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }
    }

    /// Gives the host of the address, which is the server's name in SMB's own paths.
    pub(super) fn host(&self) -> &str {
        let host = self
            .address
            .rsplit_once(':')
            .map_or(self.address.as_str(), |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Splits `domain\user` and `domain;user`, the two ways to write a user with a domain. A domain of its own wins.
    pub(super) fn user_and_domain(user: &str, domain: &str) -> (String, String) {
        match user.split_once(['\\', ';']) {
            Some((own, user)) => (user.to_owned(), if domain.is_empty() { own } else { domain }.to_owned()),
            None => (user.to_owned(), domain.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port_and_brackets_where_it_needs_them() {
        assert_eq!(Settings::address("nas", None), "nas:445");
        assert_eq!(Settings::address("fe80::1", Some(1445)), "[fe80::1]:1445");
    }

    #[test]
    fn a_domain_may_stand_before_the_user() {
        assert_eq!(
            Settings::user_and_domain("CORP\\ada", ""),
            ("ada".into(), "CORP".into())
        );
        assert_eq!(
            Settings::user_and_domain("CORP;ada", "OTHER"),
            ("ada".into(), "OTHER".into())
        );
        assert_eq!(Settings::user_and_domain("ada", "CORP"), ("ada".into(), "CORP".into()));
    }

    #[test]
    fn a_protection_that_does_not_exist_is_named() {
        let error = Protection::parse("signing", "perhaps").expect_err("no such word");
        assert!(error.to_string().contains("signing is `perhaps`"), "{error}");
    }
}
