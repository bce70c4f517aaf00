//! Where a library is: its state folder, its settings, its socket; made on first use, open to its owner alone.
//!
//! Always true after [`Library::create`]: the state folder exists, belongs to this user and has mode 0700; nothing
//! that stood there before was changed.

pub(crate) mod lock;
mod undead;

use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Result, library_failure};
use crate::settings::{self, Settings};

const NAME_MAX: usize = 64;
const DEFAULT: &str = "default";
const CATALOG: &str = "catalog.redb";

/// What the process finds around itself, read once at its start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    /// `HOME`.
    pub(crate) home: Option<PathBuf>,
    /// `XDG_STATE_HOME`.
    pub(crate) state_home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`.
    pub(crate) config_home: Option<PathBuf>,
}

impl Surroundings {
    /// Reads the environment. Relative folders do not count, as the XDG base directory specification says.
    pub(crate) fn read() -> Self {
        let absolute = |name| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        Self {
            home: absolute("HOME"),
            state_home: absolute("XDG_STATE_HOME"),
            config_home: absolute("XDG_CONFIG_HOME"),
        }
    }

    fn base(&self, given: Option<&PathBuf>, beneath_home: &str) -> Result<PathBuf> {
        let base = given
            .cloned()
            .or_else(|| self.home.as_ref().map(|home| home.join(beneath_home)));
        base.map(|base| base.join("manifold")).ok_or_else(|| {
            Failure::new("HOME is not set, so there is no place for the library")
                .hint("name its folder: --library /absolute/folder")
        })
    }
}

/// A library's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Library {
    /// Its name, or the last name of its folder.
    name: String,
    state: PathBuf,
    config: PathBuf,
    /// Whether it was named by its folder.
    by_folder: bool,
}

impl Library {
    /// Finds the place of a library: by name beneath the user's state folder, or by folder where there is a `/` in it.
    pub(crate) fn locate(choice: Option<&OsStr>, around: &Surroundings) -> Result<Self> {
        let choice = choice.unwrap_or(OsStr::new(DEFAULT));
        let bytes = choice.as_encoded_bytes();
        if bytes.contains(&b'/') || matches!(bytes, b"." | b"..") {
            return Self::in_folder(Path::new(choice));
        }
        let name = choice.to_str().filter(|name| is_name(name)).ok_or_else(|| {
            Failure::usage(format!("'{}' is not the name of a library", choice.display()))
                .hint("a name has up to 64 letters, digits, dots, dashes and underscores; a folder has a / in it")
        })?;
        let state = around.base(around.state_home.as_ref(), ".local/state")?.join(name);
        let config = around.base(around.config_home.as_ref(), ".config")?;
        Ok(Self {
            name: name.to_owned(),
            state,
            config,
            by_folder: false,
        })
    }

    fn in_folder(folder: &Path) -> Result<Self> {
        let state = crate::mounts::real_path(folder).map_err(|error| library_failure("use", folder, &error))?;
        let name = state
            .file_name()
            .map_or_else(|| "root".into(), |name| name.to_string_lossy().into_owned());
        Ok(Self {
            name,
            config: state.clone(),
            state,
            by_folder: true,
        })
    }

    /// Makes the state folder and the settings file, where they are not there yet.
    pub(crate) fn create(&self) -> Result<()> {
        let existed = match fs::metadata(&self.state) {
            Ok(found) if found.is_dir() => true,
            Ok(_) => return Err(Failure::new(format!("{} is not a folder", self.state.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(library_failure("look at", &self.state, &error)),
        };
        if existed && self.by_folder && !self.exists() {
            let mut entries =
                fs::read_dir(&self.state).map_err(|error| library_failure("look into", &self.state, &error))?;
            // Settings may be there before the library is.
            if entries.next().is_some() && !self.settings_file().exists() {
                return Err(
                    Failure::new(format!("{} holds no library, and is not empty", self.state.display()))
                        .hint("name an empty folder, or one that does not exist yet"),
                );
            }
        }
        private_folder(&self.state)?;
        private_folder(&self.config)?;
        let file = self.settings_file();
        match settings::create(&file) {
            Ok(true) => tracing::debug!(file = %file.display(), "wrote the settings with their defaults"),
            Ok(false) => {}
            // The settings may be kept by somebody else, in a folder that this user only reads.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                tracing::warn!(file = %file.display(), %error, "the settings cannot be written; the defaults hold");
            }
            Err(error) => return Err(library_failure("write the settings", &file, &error)),
        }
        Ok(())
    }

    /// Tells whether there is a library already.
    pub(crate) fn exists(&self) -> bool {
        self.catalog_file().exists() || self.lock_file().exists()
    }

    /// Refuses to go on without a library.
    pub(crate) fn require(&self) -> Result<()> {
        if self.exists() {
            return Ok(());
        }
        // What cannot be looked into may well hold one.
        if let Err(error) = self.catalog_file().try_exists() {
            return Err(library_failure("look into", &self.state, &error));
        }
        Err(Failure::new(format!(
            "there is no library '{}' yet ({})",
            self.name,
            self.state.display()
        ))
        .hint("make one, and mount it: manifold up FOLDER_OR_URI…"))
    }

    /// Reads the settings.
    pub(crate) fn settings(&self, around: &Surroundings) -> Result<Settings> {
        Settings::load(&self.settings_file(), around.home.as_deref())
    }

    /// Gives the name for people.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Gives the state folder.
    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// Gives the file of the settings.
    pub(crate) fn settings_file(&self) -> PathBuf {
        if self.by_folder {
            self.config.join("settings.toml")
        } else {
            self.config.join(format!("{}.toml", self.name))
        }
    }

    /// Gives the file of the catalog.
    pub(crate) fn catalog_file(&self) -> PathBuf {
        self.state.join(CATALOG)
    }

    /// Gives the file that is locked by whoever has the library open.
    pub(crate) fn lock_file(&self) -> PathBuf {
        self.state.join("lock")
    }

    /// Gives the daemon's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.state.join("control.sock")
    }

    /// Gives the file to which a daemon in the background logs.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.state.join("manifold.log")
    }

    /// Gives the encrypted file of secrets.
    pub(crate) fn secrets_file(&self) -> PathBuf {
        self.state.join("secrets")
    }

    /// Gives the key of that file. For a library by name it lies among the settings: a copy of the state folder alone
    /// gives no secret away.
    pub(crate) fn secrets_key(&self) -> PathBuf {
        if self.by_folder {
            self.config.join("secrets.key")
        } else {
            self.config.join(format!("{}.key", self.name))
        }
    }

    /// Gives the folder of the disk cache.
    pub(crate) fn cache_folder(&self, settings: &Settings) -> PathBuf {
        settings
            .cache
            .directory
            .clone()
            .unwrap_or_else(|| self.state.join("cache"))
    }

    /// Gives the folder of the staging area.
    pub(crate) fn staging_folder(&self) -> PathBuf {
        self.state.join("staging")
    }

    /// Gives the place to mount at when none is named.
    pub(crate) fn default_point(&self, settings: &Settings, around: &Surroundings) -> Result<PathBuf> {
        if let Some(point) = &settings.mount.point {
            return Ok(point.clone());
        }
        let home = around
            .home
            .as_ref()
            .ok_or_else(|| Failure::usage("HOME is not set, so name the mount point: --at MOUNTPOINT"))?;
        let plain = !self.by_folder && self.name == DEFAULT;
        Ok(home.join(if plain {
            "Manifold".to_owned()
        } else {
            format!("Manifold-{}", self.name)
        }))
    }

    /// Gives what `df` shows as the device, from which [`of_fs_name`](Self::of_fs_name) finds the library again.
    pub(crate) fn fs_name(&self) -> String {
        if self.by_folder {
            format!("manifold:{}", self.state.display())
        } else if self.name == DEFAULT {
            "manifold".to_owned()
        } else {
            format!("manifold:{}", self.name)
        }
    }

    /// Finds the library of a mount.
    pub(crate) fn of_fs_name(fs_name: &str, around: &Surroundings) -> Result<Self> {
        Self::locate(fs_name.strip_prefix("manifold:").map(OsStr::new), around)
    }
}

fn is_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !name.is_empty() && name.len() <= NAME_MAX && name.chars().all(good) && !name.starts_with(['.', '-'])
}

/// Makes a folder that only its owner can enter, or closes one of our own to others.
fn private_folder(folder: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| library_failure("create", folder, &error))?;
    let found = fs::metadata(folder).map_err(|error| library_failure("look at", folder, &error))?;
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(Failure::new(format!(
            "{} belongs to another user (id {})",
            folder.display(),
            found.uid()
        ))
        .hint("a library is used by the user who made it; name another: --library NAME"));
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
            .map_err(|error| library_failure("close to others", folder, &error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around() -> Surroundings {
        Surroundings {
            home: Some("/home/ada".into()),
            ..Surroundings::default()
        }
    }

    #[test]
    fn names_and_folders_lead_to_their_places() {
        let library = Library::locate(None, &around()).expect("the default");
        assert_eq!(library.state(), Path::new("/home/ada/.local/state/manifold/default"));
        assert_eq!(
            library.settings_file(),
            Path::new("/home/ada/.config/manifold/default.toml")
        );
        assert_eq!(library.fs_name(), "manifold");
        let library = Library::locate(Some(OsStr::new("/tmp/../tmp/y")), &around());
        assert_eq!(library.expect("a folder").name(), "y");
    }

    #[test]
    fn a_mount_tells_which_library_it_shows() {
        for choice in [None, Some(OsStr::new("work")), Some(OsStr::new("/tmp/some where/lib"))] {
            let library = Library::locate(choice, &around()).expect("a good name");
            assert_eq!(
                Library::of_fs_name(&library.fs_name(), &around()).expect("its own name"),
                library
            );
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for bad in ["", ".hidden", "-x", "a b", "ü", &"x".repeat(65)] {
            assert!(Library::locate(Some(OsStr::new(bad)), &around()).is_err(), "{bad}");
        }
    }

    #[test]
    fn relative_folders_of_the_environment_are_not_used() {
        let error = Library::locate(None, &Surroundings::default()).expect_err("there is no home");
        assert!(error.to_string().contains("HOME is not set"));
    }
}
