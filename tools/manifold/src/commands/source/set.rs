//! `source set`: other settings or secrets for a source, without mounting anew.
//!
//! Always true: a source stays as it was if it cannot be used with what was given, unless that is asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use manifold_backends::{Secrets, SourceSpec};

use crate::cli;
use crate::connections::{blocking, build, keep_secrets, limits, look, resolve};
use crate::control::{Reply, Request};
use crate::failure::{Failure, Result};
use crate::open::secret_store;
use crate::print::{Output, say};
use crate::reach::{Context, mismatch};
use crate::{ask, commands::source};

/// Changes a source.
pub(super) async fn set(set: cli::Set, context: &Context, out: &mut Output) -> Result<()> {
    context.library.require()?;
    let settings = context.settings()?;
    let mut reach = context.reach(false).await?;
    let found = source::find(&mut reach, &set.source).await?;
    let Reply::Spec { spec: before } = reach.ask(Request::Spec { id: found.id }).await? else {
        return Err(mismatch());
    };
    let (mut changes, asked_for) = understand(&before, &set.changes)?;
    let mut given = source::from_stdin(&before, set.secret_stdin.as_deref())?;
    for key in &asked_for {
        given.insert(key.clone(), ask::for_one(&before, key)?);
    }
    // What is in the store is found without a reference; the old one would hide it.
    changes.extend(given.keys().map(|key| (key.clone(), None)));
    let spec = before.changed(&changes)?;
    if spec.name() != before.name() {
        return Err(
            Failure::usage(format!("that would make it another source, {}", spec.name()))
                .hint("add that one, and remove this one: manifold source add, manifold source remove"),
        );
    }
    let store = Arc::new(secret_store(&context.library, &settings));
    let secrets = {
        let (spec, store) = (spec.clone(), Arc::clone(&store));
        blocking(move || resolve(&spec, &store)).await
    };
    let usable = async {
        let mut secrets = secrets?;
        secrets.extend(given.clone());
        let backend = build(&spec, &secrets, &limits(&settings)).await?;
        look(&*backend, settings.deadlines.data).await
    };
    match usable.await {
        Ok(()) => {}
        Err(failure) if set.force => say(format_args!("note: it cannot be used yet: {}", failure.message())),
        Err(failure) => {
            return Err(failure
                .about(format_args!("{} was not changed", spec.name()))
                .hint("--force changes it all the same"));
        }
    }
    // What is kept now takes the place of what was, so that there is no way back.
    let force = set.force || !given.is_empty();
    keep(store, spec.name(), given).await?;
    let request = Request::SetSource {
        id: found.id,
        spec: Box::new(spec),
        force,
    };
    let Reply::Done = reach.ask(request).await? else {
        return Err(mismatch());
    };
    if out.json() {
        out.value(&source::find(&mut reach, &set.source).await?)?;
    } else {
        say(format_args!("changed {}", found.uri));
    }
    reach.close().await
}

/// Settings with their new values, none for the default; and the secrets that are to be asked for.
type Changes = (BTreeMap<String, Option<String>>, Vec<String>);

/// Understands the changes. A message never holds a value: it may be a secret gone astray.
fn understand(spec: &SourceSpec, changes: &[String]) -> Result<Changes> {
    let mut values = BTreeMap::new();
    let mut asked_for = Vec::new();
    for text in changes {
        match text.split_once('=') {
            Some((key, value)) => {
                let key = key.trim();
                let known = spec.settings().contains_key(key);
                if value.is_empty() && !known {
                    return Err(Failure::usage(format!(
                        "the setting `{}` has its default already",
                        key.escape_debug()
                    )));
                }
                values.insert(key.to_owned(), (!value.is_empty()).then(|| value.to_owned()));
            }
            None if spec.secret_keys().iter().any(|secret| secret.key == text) => asked_for.push(text.clone()),
            None => {
                let names: Vec<_> = spec.secret_keys().iter().map(|secret| secret.key).collect();
                let failure = Failure::usage("a change is KEY=VALUE, or the name of a secret that is to be asked for");
                return Err(if names.is_empty() {
                    failure
                } else {
                    failure.hint(format!("its secrets are {}", names.join(", ")))
                });
            }
        }
    }
    Ok((values, asked_for))
}

async fn keep(store: Arc<manifold_backends::SecretStore>, name: &str, given: Secrets) -> Result<()> {
    let name = name.to_owned();
    blocking(move || keep_secrets(&store, &name, &given)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_a_value_a_default_or_a_secret_to_be_asked_for() {
        let given = BTreeMap::from([("concurrency".to_owned(), "4".to_owned())]);
        let spec = SourceSpec::parse("smb://ada@nas/x", &given).expect("a source");
        let of = |changes: &[&str]| understand(&spec, &changes.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>());
        let (values, asked_for) = of(&["refresh=5m", "concurrency=", "password"]).expect("good changes");
        assert_eq!(values["refresh"].as_deref(), Some("5m"));
        assert_eq!(values["concurrency"], None);
        assert_eq!(asked_for, ["password"]);
        let error = of(&["hunter2"]).expect_err("it is neither");
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(error.to_string().contains("its secrets are password"), "{error}");
        assert!(of(&["block_size="]).is_err(), "there is nothing to take away");
    }
}
