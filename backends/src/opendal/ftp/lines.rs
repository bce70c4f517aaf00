//! The lines of a listing (`LIST`), which no standard describes: servers write them as `ls -l` does, or as DOS did.
//!
//! Always true: a line that makes no sense is never taken for a name. It is what follows a line break within the name before it,
//! and no command can ask for such a name; so that one is left out.

use std::vec::IntoIter;

use ::opendal::raw::{Timestamp, oio};
use ::opendal::{EntryMode, Metadata, MetadataBuilder};
use suppaftp::list::{File, ListParser};

/// The content type of an entry that is a symbolic link, which `OpenDAL` has no mode for.
pub(in super::super) const LINK: &str = "inode/symlink";

/// What stands before the name: mode, links, owner, group, size, month, day, and time or year.
const COLUMNS: usize = 8;

/// One name of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) name: String,
    /// Unknown where it is a link.
    pub(super) mode: EntryMode,
    pub(super) size: u64,
    /// As finely as it was told.
    pub(super) modified: Timestamp,
    /// Where a link points, if that was told.
    pub(super) target: Option<String>,
}

/// What was understood of a listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Understood {
    pub(super) told: Vec<Told>,
    /// How many names hold a line break, and are left out.
    pub(super) broken: usize,
}

impl Told {
    pub(super) fn metadata(&self) -> Metadata {
        let mut metadata = match self.mode {
            EntryMode::DIR => MetadataBuilder::dir(),
            EntryMode::FILE => MetadataBuilder::file(self.size),
            EntryMode::Unknown if self.target.is_some() => {
                let mut link = MetadataBuilder::file(self.size);
                link.content_type(LINK);
                link
            }
            EntryMode::Unknown => MetadataBuilder::unknown(),
        };
        metadata.last_modified(self.modified);
        metadata.build()
    }
}

/// A line that makes no sense where no name stands before it: none of the listing can be believed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Nonsense;

/// Cuts a listing into its lines. Servers end them as the protocol has it, so that a lone line feed belongs to a name; where they
/// do not, each ends a line.
pub(super) fn cut(listing: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(listing);
    if text.ends_with("\r\n") {
        return text
            .split("\r\n")
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect();
    }
    let text = text.trim_end_matches('\n');
    if text.is_empty() {
        return Vec::new();
    }
    text.split('\n').map(str::to_owned).collect()
}

/// Understands all lines of a listing. What is neither a file, a directory nor a link is left out.
pub(super) fn understand(lines: &[String]) -> Result<Understood, Nonsense> {
    let mut found: Vec<Line> = Vec::new();
    for (index, text) in lines.iter().enumerate() {
        if index == 0 && text.split_whitespace().next() == Some("total") {
            continue;
        }
        match one(text) {
            Ok(line) => found.push(line),
            Err(Nonsense) => match found.last_mut() {
                Some(before) => *before = Line::Broken,
                None if text.is_empty() => {}
                None => return Err(Nonsense),
            },
        }
    }
    let mut understood = Understood::default();
    for line in found {
        match line {
            Line::Told(told) => understood.told.push(told),
            Line::Broken => understood.broken += 1,
            Line::Other => {}
        }
    }
    Ok(understood)
}

/// What a line says.
enum Line {
    Told(Told),
    /// A name with a line break in it.
    Broken,
    /// What is left out: a pipe, a socket, a device, the directory itself.
    Other,
}

/// Understands one line.
fn one(text: &str) -> Result<Line, Nonsense> {
    if text.contains('\n') {
        return Ok(Line::Broken);
    }
    // Lists of access control are told by a sign behind the mode, which suppaftp does not know.
    let plain = match text.as_bytes().get(10) {
        Some(b'+' | b'.' | b'@') => {
            let (mode, rest) = text.split_at_checked(10).ok_or(Nonsense)?;
            format!("{mode}{}", &rest[1..])
        }
        _ => text.to_owned(),
    };
    let words = plain.split_whitespace().count();
    let mode = plain.get(1..10).unwrap_or_default();
    let has_mode = !mode.is_empty() && mode.chars().all(|c| "rwxsStT-".contains(c));
    if has_mode && words == COLUMNS && plain.starts_with(['-', 'd', 'l']) && name_of(&plain).is_none() {
        // The name begins with the line break.
        return Ok(Line::Broken);
    }
    if let Ok(file) = ListParser::parse_posix(&plain) {
        let name = name_of(&plain).ok_or(Nonsense)?;
        if file.is_symlink() {
            let (name, target) = link_of(name, file.size());
            return Ok(line(name, &file, target));
        }
        return Ok(line(name, &file, None));
    }
    if let Ok(file) = ListParser::parse_dos(&plain) {
        return Ok(line(file.name(), &file, None));
    }
    let is_special = plain.starts_with(['p', 's', 'b', 'c']) && words > COLUMNS;
    if is_special && has_mode {
        Ok(Line::Other)
    } else {
        Err(Nonsense)
    }
}

/// Tells the name of a link from where it points. Either may hold the sign that stands between them; the size of a link is the
/// length of its target.
fn link_of(text: &str, size: usize) -> (&str, Option<&str>) {
    const ARROW: &str = " -> ";
    let at = |at: usize| (&text[..at], Some(&text[at + ARROW.len()..]));
    let is_arrow = |cut: &usize| text[*cut..].starts_with(ARROW);
    let mut cuts = text.char_indices().map(|(cut, _)| cut).filter(is_arrow).map(at);
    let fits = cuts
        .clone()
        .find(|(_, target)| target.is_some_and(|target| target.len() == size));
    fits.or_else(|| cuts.next()).unwrap_or((text, None))
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

fn line(name: &str, file: &File, target: Option<&str>) -> Line {
    let mode = if file.is_file() {
        EntryMode::FILE
    } else if file.is_directory() {
        EntryMode::DIR
    } else {
        EntryMode::Unknown
    };
    let Ok(modified) = Timestamp::try_from(file.modified()) else {
        return Line::Other;
    };
    if matches!(name, "." | "..") {
        return Line::Other;
    }
    Line::Told(Told {
        name: name.to_owned(),
        mode,
        size: file.size() as u64,
        modified,
        target: target.filter(|target| !target.is_empty()).map(str::to_owned),
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
            let slash = if line.mode == EntryMode::DIR { "/" } else { "" };
            oio::Entry::new(&format!("{}{}{slash}", self.directory, line.name), line.metadata())
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(lines: &[&str]) -> Result<Vec<(String, char)>, Nonsense> {
        let lines: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
        Ok(shown(&understand(&lines)?))
    }

    fn shown(understood: &Understood) -> Vec<(String, char)> {
        let kind = |it: &Told| match it.mode {
            EntryMode::FILE => 'f',
            EntryMode::DIR => 'd',
            EntryMode::Unknown => 'l',
        };
        understood.told.iter().map(|it| (it.name.clone(), kind(it))).collect()
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
        let link = "lrwxrwxrwx 1 u g 6 Nov 5 2018  link -> x -> y";
        assert_eq!(names(&[link]), Ok(vec![(" link".to_owned(), 'l')]));
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
    fn no_part_of_a_name_with_a_line_break_is_one() {
        let names = ["a", "b\n", "\nc", "\n", "d\ne\n\nf", &format!("g\n{}", file("h")), "i"];
        let listing = names.map(|name| format!("{}\r\n", file(name))).concat();
        let understood = understand(&cut(listing.as_bytes())).expect("it makes sense");
        assert_eq!(shown(&understood), [("a".to_owned(), 'f'), ("i".to_owned(), 'f')]);
        assert_eq!(understood.broken, 5);
        // Where lines end without a return, what follows the break is the next line.
        let names = ["a", "b\n", "\nc", "d\ne\n\nf", "i"];
        let listing = names.map(|name| format!("{}\n", file(name))).concat();
        let understood = understand(&cut(listing.as_bytes())).expect("it makes sense");
        assert_eq!(shown(&understood), [("a".to_owned(), 'f'), ("i".to_owned(), 'f')]);
        assert_eq!(understood.broken, 3);
        assert_eq!(cut(b""), [""; 0]);
        assert_eq!(cut(b"\r\n"), [""; 0]);
    }

    #[test]
    fn a_link_is_told_with_where_it_points() {
        let link = |size: usize, text: &str| {
            let line = format!("lrwxrwxrwx 1 u g {size} Nov 5 2018 {text}");
            let told = understand(&[line]).expect("it makes sense").told;
            let [one] = &told[..] else { panic!("{told:?}") };
            (one.name.clone(), one.target.clone())
        };
        let is = |name: &str, target: Option<&str>| (name.to_owned(), target.map(str::to_owned));
        assert_eq!(link(5, "link -> ../to"), is("link", Some("../to")));
        assert_eq!(link(6, "link -> x -> y"), is("link", Some("x -> y")));
        assert_eq!(link(1, "link -> x -> y"), is("link -> x", Some("y")));
        assert_eq!(link(6, "0 -> -> a -> b"), is("0 ->", Some("a -> b")));
        assert_eq!(link(0, "link -> x -> y"), is("link", Some("x -> y")));
        assert_eq!(link(5, "untold"), is("untold", None));
    }

    #[test]
    fn pipes_and_devices_are_left_out() {
        let pipe = "prw-r--r-- 1 u g 0 Nov 5 2018 pipe";
        let device = "crw-rw-rw- 1 root root 1, 3 Nov 5 2018 null";
        let own = "drwxr-xr-x 2 u g 4096 Nov 5 2018 .";
        assert_eq!(names(&[own, pipe, device, &file("a")]), Ok(vec![("a".to_owned(), 'f')]));
    }
}
