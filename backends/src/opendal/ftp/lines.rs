//! The lines of a listing (`LIST`), which no standard describes: servers write them as `ls -l` does, or as DOS did.
//!
//! Always true: a line that makes no sense is never taken for a name. It is what follows a line break within the name before it,
//! of which FTP can tell no more; so that one is left out.

use std::vec::IntoIter;

use ::opendal::raw::{Timestamp, oio};
use ::opendal::{Metadata, MetadataBuilder};
use suppaftp::list::{File, ListParser};

/// What stands before the name: mode, links, owner, group, size, month, day, and time or year.
const COLUMNS: usize = 8;

/// One name of a directory.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) name: String,
    pub(super) metadata: Metadata,
}

/// A line that makes no sense where no name stands before it: none of the listing can be believed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Nonsense;

/// Understands all lines of a listing. What is neither a file, a directory nor a link is left out.
pub(super) fn understand(lines: &[String]) -> Result<Vec<Told>, Nonsense> {
    let mut found: Vec<Option<Told>> = Vec::new();
    for (index, text) in lines.iter().enumerate() {
        if index == 0 && text.split_whitespace().next() == Some("total") {
            continue;
        }
        match one(text) {
            Ok(line) => found.push(line),
            Err(Nonsense) => match found.last_mut() {
                Some(broken) => *broken = None,
                None => return Err(Nonsense),
            },
        }
    }
    Ok(found.into_iter().flatten().collect())
}

/// Understands one line; `None` if it tells of a pipe, socket or device.
fn one(text: &str) -> Result<Option<Told>, Nonsense> {
    // Lists of access control are told by a sign behind the mode, which suppaftp does not know.
    let plain = match text.as_bytes().get(10) {
        Some(b'+' | b'.' | b'@') => {
            let (mode, rest) = text.split_at_checked(10).ok_or(Nonsense)?;
            format!("{mode}{}", &rest[1..])
        }
        _ => text.to_owned(),
    };
    if let Ok(file) = ListParser::parse_posix(&plain) {
        let name = name_of(&plain).ok_or(Nonsense)?;
        let name = if file.is_symlink() {
            name.split_once(" -> ").map_or(name, |(name, _)| name)
        } else {
            name
        };
        return Ok(line(name, &file));
    }
    if let Ok(file) = ListParser::parse_dos(&plain) {
        return Ok(line(file.name(), &file));
    }
    let is_special = plain.starts_with(['p', 's', 'b', 'c']) && plain.split_whitespace().count() > COLUMNS;
    let mode = plain.get(1..10).ok_or(Nonsense)?;
    if is_special && mode.chars().all(|c| "rwxsStT-".contains(c)) {
        Ok(None)
    } else {
        Err(Nonsense)
    }
}

/// Gives what stands behind the columns and one blank: further blanks are the name's.
fn name_of(text: &str) -> Option<&str> {
    let mut rest = text;
    for _ in 0..COLUMNS {
        rest = rest.trim_start_matches(' ');
        rest = &rest[rest.find(' ')?..];
    }
    rest.strip_prefix(' ').filter(|name| !name.is_empty())
}

fn line(name: &str, file: &File) -> Option<Told> {
    let mut metadata = if file.is_file() {
        MetadataBuilder::file(file.size() as u64)
    } else if file.is_directory() {
        MetadataBuilder::dir()
    } else {
        MetadataBuilder::unknown()
    };
    metadata.last_modified(Timestamp::try_from(file.modified()).ok()?);
    (name != "." && name != "..").then(|| Told {
        name: name.to_owned(),
        metadata: metadata.build(),
    })
}

/// Gives understood lines one by one, as paths beneath a directory.
pub(in super::super) struct Lines {
    directory: String,
    lines: IntoIter<Told>,
}

impl Lines {
    pub(super) fn new(directory: &str, lines: Vec<Told>) -> Self {
        Self {
            directory: if directory == "/" {
                String::new()
            } else {
                directory.to_owned()
            },
            lines: lines.into_iter(),
        }
    }
}

impl oio::List for Lines {
    async fn next(&mut self) -> ::opendal::Result<Option<oio::Entry>> {
        Ok(self.lines.next().map(|line| {
            let slash = if line.metadata.is_dir() { "/" } else { "" };
            oio::Entry::new(&format!("{}{}{slash}", self.directory, line.name), line.metadata)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(lines: &[&str]) -> Result<Vec<(String, char)>, Nonsense> {
        let lines: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
        let kind = |it: &Metadata| match (it.is_file(), it.is_dir()) {
            (true, _) => 'f',
            (_, true) => 'd',
            _ => '?',
        };
        let lines = understand(&lines)?;
        Ok(lines.into_iter().map(|it| (it.name, kind(&it.metadata))).collect())
    }

    fn file(name: &str) -> String {
        format!("-rw-r--r--    1 ftp      ftp          1234 Nov 05  2018 {name}")
    }

    #[test]
    fn blanks_of_a_name_stay() {
        for name in [" a", "   a", "a ", " ", "a  b", "Nov 05  2018 x"] {
            assert_eq!(names(&[&file(name)]), Ok(vec![(name.to_owned(), 'f')]));
        }
        let directory = "drwxr-xr-x+ 2 1000 1000 4096 Jan  1 13:46  pub";
        assert_eq!(names(&["total 8", directory]), Ok(vec![(" pub".to_owned(), 'd')]));
        let link = "lrwxrwxrwx 1 u g 5 Nov 5 2018  link -> x -> y";
        assert_eq!(names(&[link]), Ok(vec![(" link".to_owned(), '?')]));
        assert_eq!(
            names(&["10-19-20  03:19PM <DIR> pub", "04-08-14  03:09PM 403   readme.txt"]),
            Ok(vec![("pub".to_owned(), 'd'), ("readme.txt".to_owned(), 'f')])
        );
    }

    #[test]
    fn a_line_break_in_a_name_makes_no_second_one() {
        let lines = [&file("a"), &file("two"), "lines", "; and more", &file("b")];
        assert_eq!(
            names(&lines),
            Ok(vec![("a".to_owned(), 'f'), ("b".to_owned(), 'f')]),
            "half a name is left out"
        );
        assert_eq!(names(&["<html>"]), Err(Nonsense));
        assert_eq!(names(&[]), Ok(vec![]));
    }

    #[test]
    fn pipes_and_devices_are_left_out() {
        let pipe = "prw-r--r-- 1 u g 0 Nov 5 2018 pipe";
        let device = "crw-rw-rw- 1 root root 1, 3 Nov 5 2018 null";
        let own = "drwxr-xr-x 2 u g 4096 Nov 5 2018 .";
        assert_eq!(names(&[own, pipe, device, &file("a")]), Ok(vec![("a".to_owned(), 'f')]));
    }
}
