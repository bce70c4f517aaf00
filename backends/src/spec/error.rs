//! What can be wrong with a URI or a setting.

/// Why a source cannot be understood. No message holds a value that was given, since it may be a secret gone astray.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// Neither a URI nor an absolute path.
    #[error("expected an absolute path or a URI such as smb://host/share")]
    RelativePath,
    /// The URI's scheme is not in the table.
    #[error("unknown kind of source `{scheme}://`{}", meant_or_all(*nearest))]
    UnknownScheme {
        /// What was given.
        scheme: String,
        /// What may have been meant.
        nearest: Option<&'static str>,
    },
    /// The URI's form is wrong.
    #[error("{why}")]
    BadUri {
        /// What is wrong with it.
        why: String,
    },
    /// A password stands in the URI.
    #[error(
        "a URI is shown and logged, and takes no password: leave it out, and give it when asked or as \
         `password = env:NAME` or `password = file:PATH` (an `@` in a name is written %40)"
    )]
    PasswordInUri,
    /// The setting is not in the table.
    #[error("unknown setting `{key}` for {scheme}{}", meant(*nearest, ""))]
    UnknownKey {
        /// What was given.
        key: String,
        /// The kind of source, as its URIs name it.
        scheme: &'static str,
        /// What may have been meant.
        nearest: Option<&'static str>,
    },
    /// A setting that the source cannot do without was not given.
    #[error("{scheme} needs the setting `{key}`: {meaning}")]
    MissingKey {
        /// The setting.
        key: &'static str,
        /// The kind of source, as its URIs name it.
        scheme: &'static str,
        /// What it means.
        meaning: &'static str,
    },
    /// A setting has a value that it cannot have.
    #[error("bad value of the setting `{key}`: {why}")]
    BadValue {
        /// The setting.
        key: String,
        /// What was expected.
        why: String,
    },
    /// A setting was given twice, with different values.
    #[error("the setting `{key}` is given in the URI and beside it, and the two differ")]
    Conflict {
        /// The setting.
        key: String,
    },
    /// A reference to a secret does not say where it is.
    #[error("the setting `{key}` refers to {why}")]
    BadReference {
        /// The setting.
        key: String,
        /// What is wrong, and what to write.
        why: &'static str,
    },
    /// A secret was given as a plain setting.
    #[error(
        "`{key}` is a secret and is not kept among the settings: leave it out to be asked for it, or give `env:NAME` or \
         `file:PATH`, which say where it is"
    )]
    PlainSecret {
        /// The setting.
        key: &'static str,
    },
}

fn meant_or_all(nearest: Option<&str>) -> String {
    if nearest.is_some() {
        return meant(nearest, "://");
    }
    let kinds = super::schemes().iter().flat_map(|info| info.uri_schemes);
    let kinds: Vec<_> = kinds.map(|scheme| format!("{scheme}://")).collect();
    format!("; there are folders of this machine, and {}", kinds.join(", "))
}

fn meant(nearest: Option<&str>, suffix: &str) -> String {
    nearest.map_or_else(String::new, |nearest| format!("; did you mean `{nearest}{suffix}`?"))
}
