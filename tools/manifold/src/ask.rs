//! Secrets from a person or from stdin. They go from here to the store and the source, and nowhere else.

use std::io::{self, IsTerminal, Read};

use manifold_backends::{Secret, SecretKey, Secrets, SourceSpec};

use crate::failure::{Failure, Result};
use crate::print::say;
use crate::terminal::ask_unseen;

/// The longest secret, in bytes: a service account's JSON in base64, with room.
const SECRET_MAX: u64 = 64 << 10;

/// Reads a secret from stdin: all of it, without one line end behind it.
pub(crate) fn from_stdin(key: &str) -> Result<Secret> {
    let mut text = String::new();
    let read = io::stdin().lock().take(SECRET_MAX + 1).read_to_string(&mut text);
    read.map_err(|error| Failure::new(format!("cannot read the secret `{key}` from stdin: {error}")))?;
    if text.len() as u64 > SECRET_MAX {
        return Err(Failure::new(format!(
            "the secret `{key}` on stdin is longer than {SECRET_MAX} bytes"
        )));
    }
    let end = text
        .strip_suffix('\n')
        .map_or(text.len(), |rest| rest.strip_suffix('\r').unwrap_or(rest).len());
    text.truncate(end);
    if text.is_empty() {
        return Err(Failure::new(format!("there is no secret `{key}` on stdin")));
    }
    Ok(Secret::new(text))
}

/// Asks on the terminal, without echo, for the secrets that are still missing. Gives those that were given.
pub(crate) fn for_missing(spec: &SourceSpec, known: &Secrets) -> Result<Secrets> {
    let mut given = Secrets::new();
    for key in spec.missing_secrets(known) {
        if !io::stdin().is_terminal() {
            return Err(Failure::new(format!("{} needs the secret `{}` ({})", spec.name(), key.key, key.prompt)).hint(format!(
                "run it on a terminal to be asked, or: --secret-stdin {0}, or --set {0}=env:NAME, or --set {0}=file:/path",
                key.key
            )));
        }
        given.insert(key.key.to_owned(), prompt(spec, key)?);
    }
    if !given.is_empty() {
        say("trying it out …");
    }
    Ok(given)
}

/// Asks on the terminal, without echo, for one secret of a source.
pub(crate) fn for_one(spec: &SourceSpec, key: &str) -> Result<Secret> {
    let Some(key) = spec.scheme().info().secret(key) else {
        return Err(Failure::usage(format!("{} has no secret `{key}`", spec.name())));
    };
    if !io::stdin().is_terminal() {
        return Err(
            Failure::new(format!("there is no terminal to ask for the secret `{}`", key.key)).hint(format!(
                "--secret-stdin {0}, {0}=env:NAME or {0}=file:/path says where it is",
                key.key
            )),
        );
    }
    prompt(spec, key)
}

fn prompt(spec: &SourceSpec, key: &SecretKey) -> Result<Secret> {
    let question = format!("{} of {}: ", key.prompt, spec.name());
    let answer = ask_unseen(&question, SECRET_MAX as usize)
        .map_err(|error| Failure::new(format!("cannot ask for the secret `{}`: {error}", key.key)))?;
    if answer.is_empty() {
        return Err(Failure::new(format!(
            "{} needs the secret `{}`, and none was given",
            spec.name(),
            key.key
        )));
    }
    Ok(Secret::new(answer))
}
