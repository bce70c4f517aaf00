//! The table of what can befall a source: how it is brought about, whom it can befall, and what a reader is told.

use std::time::Duration;

use super::{Kind, Reach, Site};
use crate::proxy::Fault;
use crate::servers::Server;

/// "No route to host": the source cannot be reached.
const EHOSTUNREACH: i32 = 113;
/// "Connection timed out": no answer came within the deadline.
const ETIMEDOUT: i32 = 110;
/// "Input/output error": the answer made no sense.
const EIO: i32 = 5;
/// "Permission denied": the source refuses the credentials.
const EACCES: i32 = 13;

/// One thing that can befall a source.
#[derive(Debug)]
pub struct Ailment {
    /// What it is, in words.
    pub name: &'static str,
    /// How it is brought about.
    pub way: Way,
    /// What a reader of bytes that are not cached may be told.
    pub errors: &'static [i32],
    /// Whether a reader may get the bytes all the same.
    pub can_be_survived: bool,
}

/// How an ailment is brought about.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// By the proxy before the server.
    Line(Fault),
    /// By the proxy, where HTTP is spoken.
    Http(Fault),
    /// By the proxy, in the service's way to say that credentials are not good (any more): `WebDAV` asks for others (401),
    /// object stores forbid (403).
    Refused,
    /// Packets are lost on the way.
    Packets,
    /// The server is stopped by SIGSTOP.
    Stopped,
    /// The server is killed by SIGKILL.
    Killed,
    /// The server comes with a certificate that has expired.
    Certificate,
    /// The local folder has gone; an empty one stands in its place.
    Gone,
}

/// A source that is silent is told from one that is unreachable by the deadline alone; once it is known to be away, the next
/// reader is told that it cannot be reached.
const SILENT: &[i32] = &[ETIMEDOUT, EHOSTUNREACH];
const UNREACHABLE: &[i32] = &[EHOSTUNREACH];
/// The deadline may come before the last try to go on. FTP tells the end of the data by closing its connection: what is cut off
/// there is an answer that is too short.
const CUT: &[i32] = &[EHOSTUNREACH, ETIMEDOUT, EIO];
/// A source that asks for fewer requests may be asked again within the deadline.
const STORM: &[i32] = &[EHOSTUNREACH, ETIMEDOUT];
const REFUSED: &[i32] = &[EACCES];

/// In the middle of the answer to a read of an estate's file, past those of shorter questions.
const MIDDLE: u64 = 100_000;

const fn line(name: &'static str, fault: Fault, errors: &'static [i32]) -> Ailment {
    Ailment {
        name,
        way: Way::Line(fault),
        errors,
        // Some go on where the connection broke off.
        can_be_survived: matches!(fault, Fault::Cut { .. }),
    }
}

const fn http(name: &'static str, status: u16, retry_after: Option<u32>, errors: &'static [i32]) -> Ailment {
    Ailment {
        name,
        way: Way::Http(Fault::Answer { status, retry_after }),
        errors,
        can_be_survived: false,
    }
}

const fn way(name: &'static str, way: Way, errors: &'static [i32]) -> Ailment {
    Ailment {
        name,
        way,
        errors,
        can_be_survived: false,
    }
}

/// Every ailment; adding one here adds it to every test.
pub const AILMENTS: &[Ailment] = &[
    line("connections are refused", Fault::Refuse, UNREACHABLE),
    line("accepts and says nothing", Fault::Silence, SILENT),
    line("stalls in the middle", Fault::Stall { after: MIDDLE }, SILENT),
    line("gives a byte a second", Fault::Trickle, SILENT),
    line("connections are reset", Fault::Reset, UNREACHABLE),
    line("hangs up in the middle", Fault::Cut { after: MIDDLE }, CUT),
    way("packets are lost", Way::Packets, SILENT),
    way("the server is stopped", Way::Stopped, SILENT),
    way("the server is killed", Way::Killed, UNREACHABLE),
    way("the certificate has expired", Way::Certificate, REFUSED),
    way("the disk is not there", Way::Gone, UNREACHABLE),
    http("a storm of 429", 429, Some(1), STORM),
    http("a storm of 503", 503, Some(1), STORM),
    way("the credentials have expired", Way::Refused, REFUSED),
];

impl Ailment {
    /// Tells whether it can befall a kind of source.
    pub fn befalls(&self, kind: Kind) -> bool {
        match self.way {
            Way::Http(_) | Way::Refused => kind.is_http(),
            Way::Gone => kind == Kind::Local,
            Way::Certificate => kind == Kind::Webdavs,
            Way::Line(_) | Way::Stopped | Way::Killed => kind != Kind::Local,
            // A certificate names an address, so that such a server is in no other network.
            Way::Packets => !matches!(kind, Kind::Local | Kind::Webdavs),
        }
    }

    /// Gives the longest until somebody who asks again and again sees that the source is well, once it is. A probe that
    /// somebody waits for is brought forward, but for credentials that were refused: they do not mend themselves, and some
    /// services lock an account that tries too often, so that the longest pause between two probes, a minute, holds.
    pub fn recovery_max(&self) -> Duration {
        match self.way {
            Way::Refused => Duration::from_secs(75),
            _ => Duration::from_secs(10),
        }
    }

    /// Brings it about. It holds when this returns.
    pub fn begin(&self, site: &Site) {
        match (&site.server, self.way) {
            (Reach::Remote { behind, .. }, Way::Line(fault) | Way::Http(fault)) => behind.line().fail(fault),
            (Reach::Remote { behind, .. }, Way::Refused) => {
                let asks = matches!(site.kind, Kind::Webdav | Kind::WebdavNginx);
                behind.line().fail(Fault::Answer {
                    status: if asks { 401 } else { 403 },
                    retry_after: None,
                });
            }
            (
                Reach::Remote {
                    behind,
                    expired: Some(it),
                    ..
                },
                Way::Certificate,
            ) => {
                let port = it.daemon().port();
                behind.line().fail(Fault::Elsewhere { port });
            }
            (
                Reach::Remote {
                    namespace: Some(namespace),
                    ..
                },
                Way::Packets,
            ) => namespace.drop_packets(true),
            (_, Way::Stopped) => site.server().pause(),
            (_, Way::Killed | Way::Gone) => site.server().kill9(),
            _ => panic!("{} cannot befall {}", self.name, site.kind.name()),
        }
    }

    /// Ends it.
    pub fn end(&self, site: &Site) {
        match (&site.server, self.way) {
            (Reach::Remote { behind, .. }, Way::Line(_) | Way::Http(_) | Way::Refused | Way::Certificate) => {
                behind.line().heal();
            }
            (
                Reach::Remote {
                    namespace: Some(namespace),
                    ..
                },
                Way::Packets,
            ) => namespace.drop_packets(false),
            (_, Way::Stopped) => site.server().resume(),
            (_, Way::Killed | Way::Gone) => site.server().restart(),
            _ => panic!("{} cannot befall {}", self.name, site.kind.name()),
        }
    }
}
