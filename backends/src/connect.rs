//! From a [`SourceSpec`] to a [`Backend`].

use std::sync::Arc;
use std::time::Duration;

use crate::links::LinkObjects;
use crate::local::LocalBackend;
use crate::{
    Backend, Error, ErrorKind, ObjectPath, Operation, Result, Scheme, Secrets, SourceSpec, opendal, sftp, smb,
};

/// What a backend may use of its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests at once; the backend's own choice if `None`.
    pub concurrency: Option<u32>,
    /// Bytes in a block; the backend's own choice if `None`.
    pub block_size: Option<u32>,
    /// How long setting up a connection may take.
    pub connect_timeout: Duration,
    /// How long one request may take.
    pub request_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            concurrency: None,
            block_size: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// What the source's own settings say goes before what holds for all.
    #[must_use]
    fn for_source(&self, spec: &SourceSpec) -> Self {
        Self {
            concurrency: spec.concurrency().or(self.concurrency),
            block_size: spec.block_size().or(self.block_size),
            ..self.clone()
        }
    }
}

/// Builds the backend of a source. Nothing is asked of the source but what its protocol demands, so that a source that
/// is away can be connected too, and answers when it is back.
///
/// `secrets` are what [`resolve`](crate::secrets::resolve) found; one that is needed and missing is an error.
pub async fn connect(spec: &SourceSpec, secrets: &Secrets, limits: &Limits) -> Result<Arc<dyn Backend>> {
    if let Some(missing) = spec.missing_secrets(secrets).first() {
        let why = format!("the secret `{}` is missing ({})", missing.key, missing.prompt);
        return Err(Error::new(
            ErrorKind::Settings,
            Operation::Connect,
            spec.name(),
            ObjectPath::root(),
            why,
        ));
    }
    check_files(spec)?;
    let limits = limits.for_source(spec);
    let backend = match spec.scheme() {
        // It has links of its own.
        Scheme::Local => return Ok(Arc::new(LocalBackend::connect(spec, &limits)?)),
        Scheme::Smb => smb::connect(spec, secrets, &limits).await?,
        Scheme::Sftp => sftp::connect(spec, &limits).await?,
        Scheme::S3
        | Scheme::Webdav
        | Scheme::Ftp
        | Scheme::Azblob
        | Scheme::Gcs
        | Scheme::Dropbox
        | Scheme::Gdrive
        | Scheme::Onedrive => opendal::connect(spec, secrets, &limits).await?,
    };
    Ok(if spec.has_link_objects() {
        Arc::new(LinkObjects::over(backend))
    } else {
        backend
    })
}

/// The settings that name a file without which there is no connection. What `ca_file` holds is looked at where it is used.
const FILES: &[&str] = &["key", "credential_path"];

/// Says which file cannot be read, which a library or `ssh` would only call a refusal.
fn check_files(spec: &SourceSpec) -> Result<()> {
    for key in FILES {
        let Some(path) = spec.setting(key) else { continue };
        let outcome = std::fs::File::open(path).and_then(|file| file.metadata());
        let why = match outcome {
            Ok(found) if found.is_file() => continue,
            Ok(_) => "it is not a file".to_owned(),
            Err(error) => error.to_string(),
        };
        return Err(Error::new(
            ErrorKind::Settings,
            Operation::Connect,
            spec.name(),
            ObjectPath::root(),
            format!("`{key}` names {path}, which cannot be read: {why}"),
        ));
    }
    Ok(())
}

/// Gives the spec with what its source is recognised by, to be kept in place of the first when a source is added. A
/// folder is recognised by more than its path (see [`RootId`](crate::local::RootId)); other sources by their name
/// alone.
pub async fn recognisable(spec: &SourceSpec, backend: &dyn Backend) -> Result<SourceSpec> {
    let Some(local) = backend.as_local() else {
        return Ok(spec.clone());
    };
    let id = local.root_id().await?.to_string();
    spec.with_setting("root_id", &id).map_err(|error| {
        Error::new(
            ErrorKind::Settings,
            Operation::Connect,
            spec.name(),
            ObjectPath::root(),
            error,
        )
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[tokio::test]
    async fn a_source_that_was_added_is_not_taken_for_another_after_a_restart() {
        let parent = tempfile::TempDir::new().unwrap();
        let root = parent.path().join("disk");
        std::fs::create_dir(&root).unwrap();
        let spec = SourceSpec::from_path(&root, &BTreeMap::new()).unwrap();
        let open = async |spec: &SourceSpec| connect(spec, &Secrets::new(), &Limits::default()).await.unwrap();
        let kept = recognisable(&spec, &*open(&spec).await).await.unwrap();
        assert_eq!(kept.name(), spec.name());
        open(&kept).await.check().await.unwrap();

        std::fs::rename(&root, parent.path().join("away")).unwrap();
        std::fs::create_dir(&root).unwrap();
        let error = open(&kept).await.check().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        assert!(
            open(&spec).await.check().await.is_ok(),
            "nothing was kept, so nothing is missed"
        );
    }

    #[tokio::test]
    async fn a_file_of_the_settings_that_is_not_there_is_named() {
        let folder = tempfile::TempDir::new().unwrap();
        for (uri, key, path) in [
            ("sftp://ada@host/x", "key", folder.path().join("id_ed25519")),
            ("gcs://bucket", "credential_path", folder.path().to_owned()),
        ] {
            let path = path.to_str().unwrap();
            let given = BTreeMap::from([(key.to_owned(), path.to_owned())]);
            let spec = SourceSpec::parse(uri, &given).unwrap();
            let error = connect(&spec, &Secrets::new(), &Limits::default()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Settings);
            let said = error.cause().to_string();
            assert!(said.contains(path) && said.contains(key), "{said}");
        }
    }

    #[tokio::test]
    async fn the_settings_of_a_source_go_before_those_of_all() {
        let limits = Limits {
            concurrency: Some(3),
            block_size: Some(1 << 17),
            ..Limits::default()
        };
        let given = BTreeMap::from([("block_size".to_owned(), "256KiB".to_owned())]);
        let spec = SourceSpec::parse("/", &given).unwrap();
        let backend = connect(&spec, &Secrets::new(), &limits).await.unwrap();
        assert_eq!(backend.capabilities().block_size, 1 << 18);
        assert_eq!(backend.capabilities().concurrency, 3);
        assert_eq!(
            backend.capabilities().read_size_max % backend.capabilities().block_size,
            0
        );
    }
}
