//! How a folder or URI becomes a source: understood, compared with those that are there, tried out, and only then added.
//!
//! Always true: a source is added after its secrets are kept, and its secrets are not left behind if adding it fails.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use manifold_backends::{Diagnosis, SecretStore, Secrets, SourceSpec, recognisable};
use tokio::time::timeout;

use crate::ask;
use crate::attach::{self, Present};
use crate::connections::{blocking, build, keep_secrets, limits, look, resolve, silence};
use crate::control::status::SourceStatus;
use crate::control::text::Text;
use crate::control::{Reply, Request};
use crate::failure::{Failure, Result, io_failure};
use crate::library::Library;
use crate::open::secret_store;
use crate::print::say;
use crate::reach::{Reach, mismatch};
use crate::settings::Settings;

/// Understands a folder or URI, with settings given as `KEY=VALUE`.
pub(crate) fn understand(place: &OsStr, set: &[String]) -> Result<SourceSpec> {
    let settings = key_values(set)?;
    let root = match place.to_str().filter(|text| is_uri(text)) {
        None => place.into(),
        Some(uri) => {
            let spec = SourceSpec::parse(uri, &settings)?;
            match spec.local_root() {
                None => return Ok(spec),
                Some(root) => root.to_owned(),
            }
        }
    };
    let root = real_folder(&root)?;
    Ok(SourceSpec::from_path(&root, &settings)?)
}

/// Tells a URI from a path: a scheme and `://`, and no `/` before it.
fn is_uri(text: &str) -> bool {
    let Some((scheme, _)) = text.split_once("://") else {
        return false;
    };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

/// Splits settings. A message never holds one: it may be a secret gone astray.
fn key_values(set: &[String]) -> Result<BTreeMap<String, String>> {
    let mut settings = BTreeMap::new();
    for text in set {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| Failure::usage("--set takes KEY=VALUE, and there was no = in what it was given"))?;
        if settings.insert(key.trim().to_owned(), value.to_owned()).is_some() {
            return Err(Failure::usage(format!(
                "the setting `{}` is given twice",
                key.trim().escape_debug()
            )));
        }
    }
    Ok(settings)
}

/// Gives a folder's path without links: a folder has one name.
fn real_folder(path: &Path) -> Result<std::path::PathBuf> {
    let real = match fs::canonicalize(path) {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::new(format!("there is no folder {}", path.display()))
                .hint("a source on another machine is a URI, such as smb://host/share"));
        }
        Err(error) => return Err(io_failure("use the folder", path, &error)),
    };
    if !real.is_dir() {
        return Err(Failure::new(format!("{} is not a folder", path.display())));
    }
    Ok(real)
}

/// What adding sources needs.
pub(crate) struct Intake<'a> {
    pub(crate) library: &'a Library,
    pub(crate) settings: &'a Settings,
    pub(crate) store: Arc<SecretStore>,
    /// Adds what cannot be reached, too.
    pub(crate) force: bool,
}

/// A source that was tried out, with the secrets that are to be kept for it.
pub(crate) struct Candidate {
    spec: SourceSpec,
    given: Secrets,
}

impl<'a> Intake<'a> {
    /// Gets ready.
    pub(crate) fn new(library: &'a Library, settings: &'a Settings, force: bool) -> Self {
        Self {
            library,
            settings,
            store: Arc::new(secret_store(library, settings)),
            force,
        }
    }

    /// Tries a source out. `given` are secrets that were given on stdin; what is still missing is asked for.
    pub(crate) async fn try_out(&self, spec: SourceSpec, mut given: Secrets, present: &[Present]) -> Result<Candidate> {
        if let Some(warning) = attach::check_new(&spec, present, self.library.state())? {
            say(format_args!("note: {warning}"));
        }
        check_keys(&spec, &given)?;
        let (asked, store) = (spec.clone(), Arc::clone(&self.store));
        let mut secrets = blocking(move || resolve(&asked, &store)).await?;
        secrets.extend(given.clone());
        let more = ask::for_missing(&spec, &secrets)?;
        secrets.extend(more.clone());
        given.extend(more);
        match self.look_at(&spec, &secrets).await {
            Ok(spec) => Ok(Candidate { spec, given }),
            Err(failure) if self.force => {
                say(format_args!("note: it cannot be used yet: {}", failure.message()));
                Ok(Candidate { spec, given })
            }
            Err(failure) => Err(failure
                .about(format_args!("{} was not added", spec.name()))
                .hint("--force adds it all the same")),
        }
    }

    /// Connects and asks; gives the spec with what the source is recognised by from then on.
    async fn look_at(&self, spec: &SourceSpec, secrets: &Secrets) -> Result<SourceSpec> {
        let backend = build(spec, secrets, &limits(self.settings)).await?;
        look(&*backend, self.settings.deadlines.data).await?;
        // It has just answered, so the wait is short or it has hung since.
        match timeout(self.settings.deadlines.data, recognisable(spec, &*backend)).await {
            Ok(recognised) => recognised.map_err(|error| Diagnosis::of(&error).into()),
            Err(_) => Err(silence(spec.name(), self.settings.deadlines.data)),
        }
    }

    /// Keeps the secrets, and adds the source at `attach`, or under its own name.
    pub(crate) async fn add(
        &self,
        candidate: Candidate,
        attach: Option<Text>,
        reach: &mut Reach,
    ) -> Result<SourceStatus> {
        let Candidate { spec, given } = candidate;
        let (store, name, any) = (Arc::clone(&self.store), spec.name().to_owned(), !given.is_empty());
        let kept = blocking({
            let name = name.clone();
            move || keep_secrets(&store, &name, &given)
        })
        .await?;
        if let Some(manifold_backends::Place::File) = kept {
            tracing::info!(source = name, "its secrets are kept in an encrypted file");
        }
        match reach
            .ask(Request::AddSource {
                spec: Box::new(spec),
                attach,
                force: self.force,
            })
            .await
        {
            Ok(Reply::Added { source }) => Ok(*source),
            Ok(_) => Err(mismatch()),
            Err(failure) => {
                if any {
                    let store = Arc::clone(&self.store);
                    blocking(move || Ok(store.remove(&name)?)).await?;
                }
                Err(failure)
            }
        }
    }
}

/// Refuses a secret that the source has no use for.
fn check_keys(spec: &SourceSpec, given: &Secrets) -> Result<()> {
    for key in given.keys() {
        let known = spec.secret_keys();
        if !known.iter().any(|secret| secret.key == key) {
            let names: Vec<_> = known.iter().map(|secret| secret.key).collect();
            let hint = match (names.as_slice(), spec.scheme().info().key("user")) {
                ([], Some(_)) => {
                    "it has none as it is given; name the user in the URI, as in smb://user@host/share".to_owned()
                }
                ([], None) => "it has none".to_owned(),
                _ => format!("it has {}", names.join(", ")),
            };
            return Err(Failure::usage(format!("{} has no secret `{}`", spec.name(), key.escape_debug())).hint(hint));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_has_a_scheme_and_a_path_has_none() {
        for uri in ["smb://nas/x", "s3://b", "WEBDAVS://h/", "nonsense://x"] {
            assert!(is_uri(uri), "{uri}");
        }
        for path in ["/a://b", "./smb://x", "a/b", "c:", "://x", "1x://y", "smb:/nas/x"] {
            assert!(!is_uri(path), "{path}");
        }
    }

    #[test]
    fn a_setting_gone_astray_is_not_repeated() {
        let error = key_values(&["hunter2".to_owned()]).expect_err("there is no =");
        assert!(!error.to_string().contains("hunter2"));
        let error = key_values(&["password=hunter2".to_owned(), "password=x".to_owned()]).expect_err("twice");
        assert!(!error.to_string().contains("hunter2"));
    }

    #[test]
    fn a_plain_secret_is_refused_with_words_and_not_repeated() {
        let error = understand(OsStr::new("smb://ada@nas/x"), &["password=hunter2".to_owned()]).expect_err("plain");
        let words = error.to_string();
        assert!(words.contains("password") && words.contains("env:NAME"), "{words}");
        assert!(!words.contains("hunter2"), "{words}");
        assert_eq!(error.exit_code(), 2);
        let error = understand(OsStr::new("smb://ada:hunter2@nas/x"), &[]).expect_err("in the URI");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn a_folder_has_one_name_however_it_is_given() {
        let folder = tempfile::tempdir().expect("a folder");
        let real = fs::canonicalize(folder.path()).expect("it is there").join("Pictures");
        fs::create_dir(&real).expect("a folder");
        std::os::unix::fs::symlink(&real, folder.path().join("link")).expect("a link");
        let name = |place: &Path| understand(place.as_os_str(), &[]).expect("a folder").name().to_owned();
        assert_eq!(name(&folder.path().join("link")), name(&real));
        assert_eq!(name(&real.join("../Pictures/.")), name(&real));
        assert_eq!(name(Path::new(&format!("file://{}", real.display()))), name(&real));
        assert!(understand(folder.path().join("none").as_os_str(), &[]).is_err());
    }
}
