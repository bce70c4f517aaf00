//! `source`: what the library is made of.

mod set;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use manifold_backends::{Secrets, SourceSpec};
use serde::Serialize;

use crate::attach::{self, Present};
use crate::cli;
use crate::connections::{blocking, build, limits, look, resolve};
use crate::control::status::SourceStatus;
use crate::control::text::Text;
use crate::control::{Reply, Request};
use crate::failure::{Failure, Result};
use crate::intake::{Intake, understand};
use crate::open::secret_store;
use crate::print::{Output, say, visible};
use crate::reach::{Context, Reach, mismatch};
use crate::{ask, commands::status};

/// Does one of them.
pub(super) async fn run(command: cli::Source, context: &Context, out: &mut Output) -> Result<()> {
    match command {
        cli::Source::Add(add) => self::add(add, context, out).await,
        cli::Source::List => list(context, out).await,
        cli::Source::Test { source, set } => test(&source, &set, context, out).await,
        cli::Source::Set(set) => self::set::set(set, context, out).await,
        cli::Source::Remove { source } => remove(&source, context).await,
        cli::Source::Scan { source } => scan(source.as_deref(), context).await,
    }
}

/// Gives the sources that the library has.
pub(super) async fn all(reach: &mut Reach) -> Result<Vec<SourceStatus>> {
    match reach.ask(Request::Sources).await? {
        Reply::Sources { sources } => Ok(sources),
        _ => Err(mismatch()),
    }
}

/// Finds a source by where it is attached, by its URI, or by its folder.
pub(super) async fn find(reach: &mut Reach, name: &OsStr) -> Result<SourceStatus> {
    let sources = all(reach).await?;
    position(&sources, name)
        .and_then(|at| sources.get(at).cloned())
        .ok_or_else(|| {
            let known: Vec<_> = sources.iter().map(|source| source.attach.visible()).collect();
            let hint = if known.is_empty() {
                "it has none yet".to_owned()
            } else {
                format!("it has {}", known.join(", "))
            };
            Failure::new(format!("the library has no source '{}'", visible(name.as_bytes()))).hint(hint)
        })
}

fn position(sources: &[SourceStatus], name: &OsStr) -> Option<usize> {
    let attach = attach::canonical(name.as_bytes()).ok();
    let by_name = |source: &SourceStatus| {
        name.to_str() == Some(&source.uri) || attach.as_ref().is_some_and(|attach| *attach == source.attach.0)
    };
    sources.iter().position(by_name).or_else(|| {
        let spec = understand(name, &[]).ok()?;
        sources.iter().position(|source| Present::from(source).is(&spec))
    })
}

async fn add(add: cli::Add, context: &Context, out: &mut Output) -> Result<()> {
    let spec = understand(&add.place, &add.set)?;
    let attach = match &add.at {
        Some(path) => Some(Text(attach::canonical(path.as_bytes())?)),
        None => None,
    };
    let given = from_stdin(&spec, add.secret_stdin.as_deref())?;
    context.library.create()?;
    let settings = context.settings()?;
    let intake = Intake::new(&context.library, &settings, add.force);
    let mut reach = context.reach(false).await?;
    let present: Vec<_> = all(&mut reach).await?.iter().map(Present::from).collect();
    let candidate = intake.try_out(spec, given, &present).await?;
    let source = intake.add(candidate, attach, &mut reach).await?;
    if out.json() {
        out.value(&source)?;
    } else {
        say(format_args!("added {} at {}", source.uri, source.attach.visible()));
    }
    reach.close().await
}

/// Reads a secret of the source from stdin, if one is named.
fn from_stdin(spec: &SourceSpec, key: Option<&str>) -> Result<Secrets> {
    let mut given = Secrets::new();
    let Some(key) = key else { return Ok(given) };
    if spec.scheme().info().secret(key).is_none() {
        let names: Vec<_> = spec.scheme().info().secrets.iter().map(|secret| secret.key).collect();
        let hint = match (names.as_slice(), nearest(key, &names)) {
            ([], _) => "it has none".to_owned(),
            ([only], _) => format!("it has one: --secret-stdin {only}"),
            (_, Some(meant)) => format!("did you mean `{meant}`? It has {}", names.join(", ")),
            (_, None) => format!("it has {}", names.join(", ")),
        };
        // What was given is not repeated: it may be a secret gone astray.
        return Err(Failure::usage("--secret-stdin takes the name of a secret of this kind of source").hint(hint));
    }
    given.insert(key.to_owned(), ask::from_stdin(key)?);
    Ok(given)
}

/// Gives the name that comes nearest to what was given, if it is near enough to be meant.
fn nearest<'a>(given: &str, names: &[&'a str]) -> Option<&'a str> {
    const NEAR_ENOUGH: f64 = 0.75;
    let likeness = |name: &&'a str| (strsim::jaro_winkler(given, name), *name);
    let all = names
        .iter()
        .map(likeness)
        .filter(|(likeness, _)| *likeness >= NEAR_ENOUGH);
    all.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

async fn list(context: &Context, out: &mut Output) -> Result<()> {
    context.library.require()?;
    let mut reach = context.reach(false).await?;
    let sources = all(&mut reach).await?;
    if out.json() {
        out.value(&sources)?;
    } else if sources.is_empty() {
        say("the library has no sources yet; add one with: manifold source add FOLDER_OR_URI");
    } else {
        status::sources(&sources, out)?;
    }
    reach.close().await
}

#[derive(Serialize)]
struct Tested<'a> {
    uri: &'a str,
    ok: bool,
    message: Option<&'a str>,
    hints: &'a [String],
}

async fn test(name: &OsStr, set: &[String], context: &Context, out: &mut Output) -> Result<()> {
    let settings = context.settings()?;
    let mut known_as = None;
    let known = if context.library.exists() {
        let mut reach = context.reach(false).await?;
        let sources = all(&mut reach).await?;
        let found = position(&sources, name).and_then(|at| sources.get(at));
        // One that can be used and is not is connected anew.
        known_as = found.filter(|source| source.state.is_away()).map(|source| source.id);
        let spec = match found.map(|source| source.id) {
            Some(id) => match reach.ask(Request::Spec { id }).await? {
                Reply::Spec { spec } => Some(*spec),
                _ => return Err(mismatch()),
            },
            None => None,
        };
        reach.close().await?;
        spec
    } else {
        None
    };
    let spec = match known {
        Some(_) if !set.is_empty() => {
            return Err(Failure::usage("--set is for what is not a source of the library yet")
                .hint("a source of the library is tried out with its own settings"));
        }
        Some(spec) => spec,
        None => understand(name, set)?,
    };
    let store = Arc::new(secret_store(&context.library, &settings));
    let asked = spec.clone();
    let mut secrets = blocking(move || resolve(&asked, &store)).await?;
    secrets.extend(ask::for_missing(&spec, &secrets)?);
    let outcome = match build(&spec, &secrets, &limits(&settings)).await {
        Ok(backend) => look(&*backend, settings.deadlines.data).await,
        Err(failure) => Err(failure),
    };
    if let (Ok(()), Some(id)) = (&outcome, known_as) {
        let mut reach = context.reach(false).await?;
        let Reply::Done = reach.ask(Request::Reconnect { id }).await? else {
            return Err(mismatch());
        };
        reach.close().await?;
        say("it is connected anew");
    }
    if out.json() {
        let failure = outcome.as_ref().err();
        out.value(&Tested {
            uri: spec.name(),
            ok: failure.is_none(),
            message: failure.map(Failure::message),
            hints: failure.map_or(&[], Failure::hints),
        })?;
    } else if outcome.is_ok() {
        say(format_args!("{} can be used", spec.name()));
    }
    outcome
}

async fn remove(name: &OsStr, context: &Context) -> Result<()> {
    context.library.require()?;
    // With the cache, since its blocks go too.
    let mut reach = context.reach(true).await?;
    let source = find(&mut reach, name).await?;
    let Reply::Done = reach.ask(Request::RemoveSource { id: source.id }).await? else {
        return Err(mismatch());
    };
    say(format_args!(
        "removed {} from {}; nothing was deleted at the source",
        source.uri,
        source.attach.visible()
    ));
    reach.close().await
}

async fn scan(name: Option<&OsStr>, context: &Context) -> Result<()> {
    context.library.require()?;
    let mut reach = context.reach(false).await?;
    let id = match name {
        Some(name) => Some(find(&mut reach, name).await?.id),
        None => None,
    };
    let Reply::Done = reach.ask(Request::Scan { id }).await? else {
        return Err(mismatch());
    };
    say("scanning in the background; `manifold status` shows how far it is");
    reach.close().await
}
