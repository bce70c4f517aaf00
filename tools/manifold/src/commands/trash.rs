//! `trash`: what was removed from sources that keep it, and how it comes back.
//!
//! All of it is done through the mount, as anybody could with `ls`, `mv` and `rm`: the trash is a folder of the source. Those of the members of
//! a union are shown there as one, and what is put back goes to the member that has it.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::Serialize;

use crate::cli;
use crate::control::status::UnionStatus;
use crate::control::text::Text;
use crate::control::{Reply, Request};
use crate::failure::{Failure, Result};
use crate::print::{Output, count, human_size, say, visible};
use crate::reach::{Context, Reach, mismatch};
use crate::time::day_ns;

/// The folder in the root of a source, as the file system makes it.
const FOLDER: &str = ".manifold-trash";

/// Lists, restores or deletes what was removed.
pub(super) async fn run(command: Option<cli::Trash>, context: &Context, out: &mut Output) -> Result<()> {
    context.library.require()?;
    let mut reach = context.reach(false).await?;
    let Reply::Status(status) = reach.ask(Request::Status).await? else {
        return Err(mismatch());
    };
    let Some(mount) = &status.mount else {
        reach.close().await?;
        return Err(
            Failure::new("the library is not mounted, and its trash is reached through the mount")
                .hint("mount it: manifold mount"),
        );
    };
    let at = PathBuf::from(OsString::from_vec(mount.point.0.clone()));
    let attached = status.sources.iter().map(|source| source.attach.0.as_slice());
    let mut trash = Trash::gather(&at, &places(attached, &status.unions))?;
    trash.note_hidden(&mut reach, &status.unions).await?;
    reach.close().await?;
    match command {
        None => list(&trash, out),
        Some(cli::Trash::Restore { paths, day }) => {
            let mut back = Vec::new();
            let restored = paths
                .iter()
                .try_for_each(|path| restore(&trash, &at, &status.unions, path, day.as_deref(), &mut back));
            // What came back before something could not is told too.
            if out.json() {
                out.value(&back)?;
            }
            restored
        }
        Some(cli::Trash::Empty { older_than, yes }) => {
            let deleted = empty(&trash, older_than, yes)?;
            if out.json() {
                return out.value(&deleted);
            }
            Ok(())
        }
    }
}

/// Lists the places of the tree in which a trash is shown: where sources are attached, and of members of a union the union's.
fn places<'a>(attached: impl Iterator<Item = &'a [u8]>, unions: &'a [UnionStatus]) -> Vec<&'a [u8]> {
    let mut places = Vec::new();
    for attach in attached {
        let is_of = |union: &&UnionStatus| union.members.iter().any(|member| member.0 == attach);
        let place = unions.iter().find(is_of).map_or(attach, |union| &union.at.0);
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

/// Gives the path under which the mount shows what stands at a path of a member of a union.
fn as_shown(path: &Path, unions: &[UnionStatus]) -> Option<PathBuf> {
    unions.iter().find_map(|union| {
        let at = Path::new(OsStr::from_bytes(&union.at.0));
        let mut members = union.members.iter();
        members.find_map(|member| Some(at.join(path.strip_prefix(OsStr::from_bytes(&member.0)).ok()?)))
    })
}

/// A file that was removed.
#[derive(Debug, Serialize)]
struct Removed {
    /// The folder that it lies in: the day on which it was removed, perhaps with a number.
    day: String,
    /// Where it stood in the library.
    path: Text,
    size: u64,
    /// Where it lies, beneath the mount point.
    lies_at: Text,
    /// What other members of its union have removed under that name and on that day, where it stood at each. They go where it goes.
    hidden: Vec<Text>,
    /// Bytes of those.
    #[serde(skip)]
    hidden_bytes: u64,
    #[serde(skip)]
    file: PathBuf,
}

/// What was deleted for good.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Deleted {
    files: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Trash {
    /// In the order of days, those of one source or union together.
    removed: Vec<Removed>,
    /// The folders of all days.
    days: Vec<PathBuf>,
}

impl Trash {
    fn gather(at: &Path, places: &[&[u8]]) -> Result<Self> {
        let mut trash = Self {
            removed: Vec::new(),
            days: Vec::new(),
        };
        for place in places {
            let place = Path::new(OsStr::from_bytes(place));
            let folder = at.join(place.strip_prefix("/").unwrap_or(place)).join(FOLDER);
            for day in sorted(&folder)? {
                let Ok(name) = day.file_name().unwrap_or_default().to_os_string().into_string() else {
                    continue;
                };
                if !day.is_dir() || day_of(&name).is_none() {
                    continue;
                }
                let mut files = Vec::new();
                walk(&day, &mut files)?;
                for (file, size) in files {
                    let within = file.strip_prefix(&day).unwrap_or(&file);
                    let path = place.join(within);
                    let lies_at = file.strip_prefix(at).unwrap_or(&file);
                    trash.removed.push(Removed {
                        day: name.clone(),
                        path: Text::new(path.as_os_str().as_bytes()),
                        size,
                        lies_at: Text::new(lies_at.as_os_str().as_bytes()),
                        hidden: Vec::new(),
                        hidden_bytes: 0,
                        file,
                    });
                }
                trash.days.push(day);
            }
        }
        Ok(trash)
    }

    /// Asks what is hidden in the trash of unions, where several members have removed something of one name.
    async fn note_hidden(&mut self, reach: &mut Reach, unions: &[UnionStatus]) -> Result<()> {
        for union in unions.iter().filter(|union| union.members.len() > 1) {
            let at = Path::new(OsStr::from_bytes(&union.at.0));
            let trash = at.join(FOLDER);
            for it in &mut self.removed {
                let path = Path::new("/").join(OsStr::from_bytes(&it.lies_at.0));
                if !path.starts_with(&trash) {
                    continue;
                }
                let path = Text::new(path.as_os_str().as_bytes());
                match reach.ask(Request::Stat { path, look: false }).await {
                    Ok(Reply::Entry(facts)) => {
                        it.hidden = facts.hidden.iter().filter_map(|lies| stood_at(lies, union)).collect();
                        it.hidden_bytes = facts.hidden_bytes;
                    }
                    Ok(_) => return Err(mismatch()),
                    // It has gone meanwhile.
                    Err(error) => tracing::debug!(%error, "what a file in the trash hides is not told"),
                }
            }
        }
        Ok(())
    }
}

/// Says where something stood at a member, by where it lies in its trash.
fn stood_at(lies: &Text, union: &UnionStatus) -> Option<Text> {
    let lies = Path::new(OsStr::from_bytes(&lies.0));
    union.members.iter().find_map(|member| {
        let member = Path::new(OsStr::from_bytes(&member.0));
        let mut beneath = lies.strip_prefix(member.join(FOLDER)).ok()?.components();
        // The day.
        beneath.next()?;
        Some(Text::new(member.join(beneath.as_path()).as_os_str().as_bytes()))
    })
}

fn failed(what: &Path) -> impl FnOnce(io::Error) -> Failure {
    let shown = visible(what.as_os_str().as_bytes());
    move |error| Failure::new(format!("{shown}: {error}"))
}

/// Lists a directory in the order of names; one that is not there is empty.
fn sorted(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(folder)(error)),
    };
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(failed(folder))?;
    paths.sort_by_cached_key(|path| natural(path));
    Ok(paths)
}

/// Orders `2025-05-03.10` behind `2025-05-03.9`.
fn natural(path: &Path) -> (Vec<u8>, u32) {
    let name = path.file_name().unwrap_or_default();
    match name.to_str().and_then(|name| name.rsplit_once('.')) {
        Some((stem, number)) if day_of(stem).is_some() => (stem.as_bytes().to_vec(), number.parse().unwrap_or(0)),
        _ => (name.as_bytes().to_vec(), 0),
    }
}

/// Gives the beginning of the day that a folder is named after, in seconds since 1970.
fn day_of(name: &str) -> Option<u64> {
    let (day, number) = match name.split_once('.') {
        Some((day, number)) => (day, Some(number)),
        None => (name, None),
    };
    if number.is_some_and(|number| number.parse::<u32>().is_err()) {
        return None;
    }
    day_ns(day).and_then(|ns| u64::try_from(ns / 1_000_000_000).ok())
}

fn walk(folder: &Path, files: &mut Vec<(PathBuf, u64)>) -> Result<()> {
    for path in sorted(folder)? {
        let metadata = fs::symlink_metadata(&path).map_err(failed(&path))?;
        if metadata.is_dir() {
            walk(&path, files)?;
        } else {
            files.push((path, metadata.len()));
        }
    }
    Ok(())
}

fn list(trash: &Trash, out: &mut Output) -> Result<()> {
    if out.json() {
        return out.value(&trash.removed);
    }
    if trash.removed.is_empty() {
        return out.line("the trash is empty");
    }
    for it in &trash.removed {
        let columns = format!("{:<12}  {:>10}  ", it.day, human_size(it.size));
        out.raw_line(&columns, &it.path.0)?;
        for hidden in &it.hidden {
            out.raw_line(&format!("{:<12}  {:>10}  ", it.day, "hidden"), &hidden.0)?;
        }
    }
    Ok(())
}

/// Puts back what was removed last of a path: a file, or what was removed from a folder on the last day on which something was, of each file the
/// last. What cannot be put back keeps nothing else from it.
fn restore<'a>(
    trash: &'a Trash,
    at: &Path,
    unions: &[UnionStatus],
    path: &OsStr,
    day: Option<&str>,
    back: &mut Vec<&'a Removed>,
) -> Result<()> {
    let wanted = Path::new("/").join(Path::new(path));
    let of_path = |wanted: &Path| -> Vec<&'a Removed> {
        let is_wanted = |it: &&Removed| Path::new(OsStr::from_bytes(&it.path.0)).starts_with(wanted);
        trash.removed.iter().filter(is_wanted).collect()
    };
    let mut matching = of_path(&wanted);
    if matching.is_empty()
        && let Some(shown) = as_shown(&wanted, unions)
    {
        matching = of_path(&shown);
    }
    match day {
        Some(day) => matching.retain(|it| it.day == day),
        None => keep_last(&mut matching),
    }
    if matching.is_empty() {
        let shown = visible(path.as_bytes());
        return Err(Failure::new(format!("{shown} is not in the trash")).hint("see what is: manifold trash"));
    }
    let (mut failure, mut failures) = (None, 0_u64);
    for it in matching {
        match put_back(at, it) {
            Ok(()) => back.push(it),
            Err(error) => {
                failures += 1;
                failure.get_or_insert(error);
            }
        }
    }
    match failure {
        Some(failure) if failures > 1 => {
            let more = count(failures - 1, "file");
            Err(failure.hint(format!(
                "{more} more could not be put back; see what is left: manifold trash"
            )))
        }
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

/// Keeps what was removed on the last day, and of each path what was removed last on that.
fn keep_last(removed: &mut Vec<&Removed>) {
    let last = removed.iter().filter_map(|it| day_of(&it.day)).max();
    removed.retain(|it| day_of(&it.day) == last);
    // Those of one path are in the order in which they were removed, and so are a file and what lay in a directory of its name.
    let (mut kept, mut above) = (BTreeMap::new(), HashSet::new());
    for it in removed.drain(..).rev() {
        let path = Path::new(OsStr::from_bytes(&it.path.0));
        if !above.contains(path) && !path.ancestors().any(|path| kept.contains_key(path)) {
            above.extend(path.ancestors().skip(1));
            kept.insert(path, it);
        }
    }
    removed.extend(kept.into_values());
}

/// Puts a file back where it stood.
fn put_back(at: &Path, it: &Removed) -> Result<()> {
    let within = it.path.0.strip_prefix(b"/").unwrap_or(&it.path.0);
    let home = at.join(OsStr::from_bytes(within));
    if let Some(folder) = home.parent() {
        fs::create_dir_all(folder).map_err(failed(folder))?;
    }
    match renameat_with(CWD, &it.file, CWD, &home, RenameFlags::NOREPLACE) {
        Ok(()) => {
            say(format_args!("{} is back", it.path.visible()));
            for hidden in &it.hidden {
                say(format_args!("{} is back, and hidden by it", hidden.visible()));
            }
            Ok(())
        }
        Err(rustix::io::Errno::EXIST) => {
            let lies_at = visible(it.file.as_os_str().as_bytes());
            Err(
                Failure::new(format!("{} is there again already, and stays", it.path.visible()))
                    .hint(format!("move one of the two aside; the removed one lies at {lies_at}")),
            )
        }
        Err(error) => Err(failed(&home)(error.into())),
    }
}

/// Deletes what was removed, or says what would be.
fn empty(trash: &Trash, older_than: Option<Duration>, yes: bool) -> Result<Deleted> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let limit = now.saturating_sub(older_than.unwrap_or_default().as_secs());
    // A day is as old as its end.
    let is_due = |day: &str| older_than.is_none() || day_of(day).is_some_and(|begins| begins + 86_400 <= limit);
    let due: Vec<&Removed> = trash.removed.iter().filter(|it| is_due(&it.day)).collect();
    let deleted = Deleted {
        files: due.iter().map(|it| 1 + it.hidden.len() as u64).sum(),
        bytes: due.iter().map(|it| it.size + it.hidden_bytes).sum(),
    };
    let (files, bytes) = (count(deleted.files, "file"), human_size(deleted.bytes));
    if !yes && !due.is_empty() {
        return Err(Failure::new(format!("{files} ({bytes}) would be deleted for good")).hint("to do it, add --yes"));
    }
    for it in &due {
        fs::remove_file(&it.file).map_err(failed(&it.file))?;
    }
    for day in &trash.days {
        if is_due(day.file_name().and_then(OsStr::to_str).unwrap_or_default()) {
            remove_empty(day)?;
        }
    }
    say(format_args!("{files} deleted ({bytes})"));
    Ok(deleted)
}

/// Removes a directory and those in it, as far as they are empty.
fn remove_empty(folder: &Path) -> Result<()> {
    for path in sorted(folder)? {
        if fs::symlink_metadata(&path).map_err(failed(&path))?.is_dir() {
            remove_empty(&path)?;
        }
    }
    match fs::remove_dir(folder) {
        Ok(()) => Ok(()),
        // Something was removed meanwhile.
        Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) => Ok(()),
        Err(error) => Err(failed(folder)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_days_are_days() {
        assert_eq!(day_of("1970-01-02"), Some(86_400));
        assert_eq!(day_of("2024-02-29.12"), day_of("2024-02-29"));
        for name in ["2024-02-29.x", "2024-13-01", "2024-02", "notes", ".2", ""] {
            assert_eq!(day_of(name), None, "{name}");
        }
    }

    #[test]
    fn the_tenth_folder_of_a_day_comes_behind_the_ninth() {
        let mut names: Vec<_> = ["2025-05-03.10", "2025-05-04", "2025-05-03.9", "2025-05-03"]
            .map(Path::new)
            .into();
        names.sort_by_key(|path| natural(path));
        assert_eq!(
            names,
            ["2025-05-03", "2025-05-03.9", "2025-05-03.10", "2025-05-04"].map(Path::new)
        );
    }

    #[test]
    fn the_trash_of_members_is_shown_where_their_union_is() {
        let unions = [UnionStatus {
            at: Text::new(b"/u"),
            members: vec![Text::new(b"/u/b"), Text::new(b"/u/a")],
            problem: None,
        }];
        let attached: [&[u8]; 4] = [b"/u/a", b"/nas", b"/u/b", b"/u/c/d"];
        assert_eq!(places(attached.into_iter(), &unions), [&b"/u"[..], b"/nas", b"/u/c/d"]);
        let shown = |path: &str| as_shown(Path::new(path), &unions);
        assert_eq!(shown("/u/a/x/y"), Some(PathBuf::from("/u/x/y")));
        assert_eq!((shown("/u/x"), shown("/u/ab")), (None, None));
        let stood = |lies: &str| stood_at(&Text::new(lies.as_bytes()), &unions[0]);
        assert_eq!(
            stood("/u/a/.manifold-trash/2025-05-03.2/d/x"),
            Some(Text::new(b"/u/a/d/x"))
        );
        assert_eq!(stood("/u/a/d/x"), None);
    }

    #[test]
    fn what_is_removed_and_restored_is_where_it_was() {
        let mount = tempfile::TempDir::new().unwrap();
        let lies = |day: &str, path: &str, text: &str| {
            let file = mount.path().join("nas").join(FOLDER).join(day).join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        lies("2025-05-03", "a/b", "older");
        lies("2025-05-03.2", "a/b", "newer");
        lies("2025-05-03.2", "a/c", "another");
        lies("2025-05-03", "a/d", "of that day too");
        lies("2025-05-02", "a/e", "of the day before");
        lies("2025-05-03.2", "x", "elsewhere");
        let gather = || Trash::gather(mount.path(), &[b"/nas", b"/other"]).unwrap();
        assert_eq!(gather().removed.len(), 6);
        let restored = |path: &str, day| {
            let (trash, mut back) = (gather(), Vec::new());
            let restored = restore(&trash, mount.path(), &[], OsStr::new(path), day, &mut back);
            let back: Vec<_> = back.iter().map(|it| it.path.visible()).collect();
            (restored, back)
        };
        let (all, back) = restored("/nas/a", None);
        all.unwrap();
        assert_eq!(back, ["/nas/a/b", "/nas/a/c", "/nas/a/d"]);
        let read = |path: &str| fs::read_to_string(mount.path().join("nas").join(path)).unwrap();
        assert_eq!((read("a/b").as_str(), read("a/c").as_str()), ("newer", "another"));
        let (again, back) = restored("nas/a/b", Some("2025-05-03"));
        assert!(again.unwrap_err().to_string().contains("there again already"));
        assert!(back.is_empty());
        assert_eq!(read("a/b"), "newer");
        assert!(restored("/nas/none", None).0.is_err());
        // Of a file and a directory that had one name, the last.
        for (first, last) in [("one", "one/in it"), ("two/in it", "two")] {
            lies("2025-05-03", first, "before");
            lies("2025-05-03.2", last, "after");
            let (all, back) = restored(&format!("/nas/{}", &first[..3]), None);
            all.unwrap();
            assert_eq!(back, [format!("/nas/{last}")]);
        }
        // What cannot come back keeps nothing else from it.
        lies("2025-05-03", "a/f", "beside");
        let (rest, back) = restored("/nas/a", None);
        assert!(
            rest.unwrap_err()
                .to_string()
                .contains("/nas/a/b is there again already")
        );
        assert_eq!(back, ["/nas/a/f"]);
        assert_eq!((read("a/b").as_str(), read("a/f").as_str()), ("newer", "beside"));
    }

    #[test]
    fn nothing_is_deleted_before_it_is_asked_for_twice() {
        let mount = tempfile::TempDir::new().unwrap();
        let folder = mount.path().join(FOLDER).join("2025-05-03/deep");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("file"), "text").unwrap();
        let gather = || Trash::gather(mount.path(), &[b"/"]).unwrap();
        assert!(
            empty(&gather(), None, false)
                .unwrap_err()
                .to_string()
                .contains("1 file")
        );
        let deleted = empty(&gather(), Some(Duration::from_hours(24 * 365 * 1000)), true).unwrap();
        assert_eq!(deleted, Deleted { files: 0, bytes: 0 });
        assert!(folder.join("file").exists());
        let deleted = empty(&gather(), Some(Duration::from_hours(24)), true).unwrap();
        assert_eq!(deleted, Deleted { files: 1, bytes: 4 });
        assert!(!mount.path().join(FOLDER).join("2025-05-03").exists());
    }
}
