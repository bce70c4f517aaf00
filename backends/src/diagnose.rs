//! What is wrong with a source, in words a person can act on.
//!
//! An error has a kind, which is what programs go by, and a cause in the words of some library. Here both are looked
//! up in one table ([`table`]), from the special to the general; every kind has a last row.

mod table;

use futures::StreamExt;

use self::table::{Row, Words};
use crate::spec::named_place;
use crate::{Backend, Error, ErrorKind, Kind, Metadata, ObjectPath, Operation, Presence, Scheme};

/// What is wrong with a source, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Diagnosis {
    /// The kind of failure.
    pub kind: ErrorKind,
    /// What is wrong, in one line without a full stop.
    pub message: String,
    /// What to do about it, in one line without a full stop.
    pub hint: String,
}

/// Asks a source whether it can be used: its credentials, its root, and the beginning of the root's listing.
///
/// The deadline is the caller's.
pub async fn diagnose(backend: &dyn Backend) -> Result<(), Diagnosis> {
    try_out(backend).await.map_err(|error| Diagnosis::of(&error))
}

async fn try_out(backend: &dyn Backend) -> crate::Result<()> {
    backend.check().await?;
    let root = ObjectPath::root();
    let missing = |kind, why| Error::new(kind, Operation::List, backend.name(), ObjectPath::root(), why);
    match backend.list(&root).await? {
        Presence::Found(mut listing) => listing.next().await.transpose().map(drop),
        Presence::Absent if backend.capabilities().implicit_directories => Ok(()),
        Presence::Absent => match backend.stat(&root).await? {
            Presence::Found(Metadata {
                kind: Kind::Directory, ..
            }) => Ok(()),
            Presence::Found(_) => Err(missing(ErrorKind::NotADirectory, "it is not a folder")),
            Presence::Absent => Err(missing(ErrorKind::NoSuchSource, "no such folder")),
        },
    }
}

impl Diagnosis {
    /// Puts a failure into words.
    pub fn of(error: &Error) -> Self {
        let causes = causes(error);
        let place = Place::of(error.source_name());
        let row = table::find(error.kind(), place.scheme, &causes);
        Self {
            kind: error.kind(),
            message: place.fill(row.message, error),
            hint: place.fill(row.hint(place.scheme), error),
        }
    }
}

/// Gives all that is said of the causes, in lower case.
fn causes(error: &Error) -> String {
    let mut text = error.cause().to_string();
    let mut next = error.cause().source();
    while let Some(cause) = next {
        text.push('\n');
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text.to_lowercase()
}

/// The words that a source's name has for the blanks of the table.
struct Place {
    scheme: Option<Scheme>,
    host: String,
    container: String,
    user: String,
    folder: String,
}

impl Place {
    fn of(name: &str) -> Self {
        let Some(place) = named_place(name) else {
            let host = name.to_owned();
            return Self {
                scheme: None,
                host,
                container: name.into(),
                user: "this user".into(),
                folder: "/".into(),
            };
        };
        // Where the service has one address for all, its name will do.
        let service = || match place.scheme {
            Scheme::Local => "this machine".to_owned(),
            Scheme::S3 => "Amazon S3".to_owned(),
            Scheme::Azblob => "Azure Blob Storage".to_owned(),
            Scheme::Gcs => "Google Cloud Storage".to_owned(),
            scheme => scheme.info().title.to_owned(),
        };
        let host = match (place.endpoint, place.host, place.port) {
            (Some(endpoint), ..) => endpoint,
            (None, Some(host), Some(port)) => format!("{host}:{port}"),
            (None, Some(host), None) => host,
            (None, None, _) => service(),
        };
        Self {
            scheme: Some(place.scheme),
            host,
            container: place.container.unwrap_or_default(),
            user: place
                .user
                .map_or_else(|| "this user".into(), |user| format!("`{user}`")),
            folder: ObjectPath::to_string(&place.prefix),
        }
    }

    /// Fills in the blanks of one text of the table.
    fn fill(&self, text: &str, error: &Error) -> String {
        let mut filled = String::with_capacity(text.len() + 32);
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            filled.push_str(before);
            let (blank, after) = after.split_once('}').unwrap_or((after, ""));
            match blank {
                "host" => filled.push_str(&self.host),
                "container" => filled.push_str(&self.container),
                "user" => filled.push_str(&self.user),
                "folder" => filled.push_str(&self.folder),
                "source" => filled.push_str(error.source_name()),
                "holder" => filled.push_str(self.holder()),
                // Anything else is the cause: one that is more than a line is cut to its first.
                _ => filled.push_str(
                    error
                        .cause()
                        .to_string()
                        .lines()
                        .next()
                        .unwrap_or("no reason was given"),
                ),
            }
            rest = after;
        }
        filled.push_str(rest);
        filled
    }

    /// What the outermost thing is called that a source can lack.
    fn holder(&self) -> &'static str {
        match self.scheme {
            Some(Scheme::Smb) => "share",
            Some(Scheme::S3 | Scheme::Gcs) => "bucket",
            Some(Scheme::Azblob) => "container",
            _ => "folder",
        }
    }
}

impl Row {
    fn hint(&self, scheme: Option<Scheme>) -> &'static str {
        match self.hint {
            Words::Same(hint) => hint,
            Words::ByScheme(hint) => hint(scheme),
        }
    }
}

#[cfg(test)]
mod tests;
