//! The lines of a listing (`LIST`), which no standard describes: servers write them as `ls -l` does, or as DOS did.
//!
//! Always true: a line that makes no sense is never taken for a name. It is what follows a line break within the name before it,
//! and no command can ask for such a name; so that one is left out. Where a link points may hold a line break, and any bytes.

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
    /// Where a link points, byte for byte, if that was told.
    pub(super) target: Option<Vec<u8>>,
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

/// Cuts a listing into its lines. Servers end them as the protocol has it, so that a lone line feed belongs to a name, or to where a
/// link points; where they do not, each ends a line.
pub(super) fn cut(listing: &[u8]) -> Vec<Vec<u8>> {
    if listing.ends_with(b"\r\n") {
        let mut lines = vec![Vec::new()];
        for &byte in listing {
            let line = lines.last_mut().expect("invariant: there is always one");
            if byte == b'\n' && line.last() == Some(&b'\r') {
                line.pop();
                lines.push(Vec::new());
            } else {
                line.push(byte);
            }
        }
        lines.retain(|line| !line.is_empty());
        return lines;
    }
    let end = listing
        .iter()
        .rposition(|byte| *byte != b'\n')
        .map_or(0, |last| last + 1);
    if end == 0 {
        return Vec::new();
    }
    listing[..end]
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect()
}

/// Understands all lines of a listing. What is neither a file, a directory nor a link is left out.
pub(super) fn understand(lines: &[Vec<u8>]) -> Result<Understood, Nonsense> {
    let mut found: Vec<Line> = Vec::new();
    for (index, text) in lines.iter().enumerate() {
        if index == 0 && (text.starts_with(b"total ") || text == b"total") {
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
fn one(bytes: &[u8]) -> Result<Line, Nonsense> {
    // Lists of access control are told by a sign behind the mode, which suppaftp does not know.
    let plain = match bytes.get(10) {
        Some(b'+' | b'.' | b'@') => [&bytes[..10], &bytes[11..]].concat(),
        _ => bytes.to_vec(),
    };
    let bytes = &*plain;
    // What suppaftp is asked about is what stands before the name; to it a line break is an end.
    let text = String::from_utf8_lossy(bytes).replace('\n', " ");
    let mode = text.get(1..10).unwrap_or_default();
    let has_mode = !mode.is_empty() && mode.chars().all(|c| "rwxsStT-".contains(c));
    let words = text.split_whitespace().count();
    if bytes.contains(&b'\n') && !text.starts_with('l') {
        return Ok(Line::Broken);
    }
    if has_mode && words == COLUMNS && text.starts_with(['-', 'd', 'l']) && name_of(bytes).is_none() {
        // The name begins with the line break.
        return Ok(Line::Broken);
    }
    if let Ok(file) = ListParser::parse_posix(&text) {
        let name = name_of(bytes).ok_or(Nonsense)?;
        if !file.is_symlink() {
            return Ok(line(name, &file, None));
        }
        let Named { name, target, is_sure } = link_of(name, file.size());
        // Where the length of what follows is not that of the target, nobody knows what is the name and what is not.
        if name.contains(&b'\n') || (bytes.contains(&b'\n') && !is_sure) {
            return Ok(Line::Broken);
        }
        return Ok(line(name, &file, target));
    }
    if bytes.contains(&b'\n') {
        return Ok(Line::Broken);
    }
    if let Ok(file) = ListParser::parse_dos(&text) {
        return Ok(line(file.name().as_bytes(), &file, None));
    }
    let is_special = text.starts_with(['p', 's', 'b', 'c']) && words > COLUMNS;
    if is_special && has_mode {
        Ok(Line::Other)
    } else {
        Err(Nonsense)
    }
}

/// A link, as a line tells of it.
struct Named<'a> {
    name: &'a [u8],
    target: Option<&'a [u8]>,
    /// Whether the target has the length that was told.
    is_sure: bool,
}

/// Tells the name of a link from where it points. Either may hold the sign that stands between them; the size of a link is the
/// length of its target.
fn link_of(text: &[u8], size: usize) -> Named<'_> {
    const ARROW: &[u8] = b" -> ";
    let cuts = text.windows(ARROW.len()).enumerate();
    let cuts = cuts.filter_map(|(cut, window)| (window == ARROW).then_some(cut));
    let named = |cut: usize| Named {
        name: &text[..cut],
        target: Some(&text[cut + ARROW.len()..]),
        is_sure: text.len() - cut - ARROW.len() == size,
    };
    let mut cuts = cuts.map(named);
    let fits = cuts.clone().find(|named| named.is_sure);
    fits.or_else(|| cuts.next()).unwrap_or(Named {
        name: text,
        target: None,
        is_sure: false,
    })
}

/// Gives what stands behind the columns and one blank: further blanks are the name's.
fn name_of(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text;
    for _ in 0..COLUMNS {
        let begin = rest.iter().position(|byte| *byte != b' ')?;
        rest = &rest[begin..];
        rest = &rest[rest.iter().position(|byte| *byte == b' ')?..];
    }
    rest.strip_prefix(b" ").filter(|name| !name.is_empty())
}

fn line(name: &[u8], file: &File, target: Option<&[u8]>) -> Line {
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
    if matches!(name, b"." | b"..") {
        return Line::Other;
    }
    Line::Told(Told {
        // What is not UTF-8 cannot be asked for, and is told as such by whoever does.
        name: String::from_utf8_lossy(name).into_owned(),
        mode,
        size: file.size() as u64,
        modified,
        target: target.filter(|target| !target.is_empty()).map(<[u8]>::to_vec),
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
        let lines: Vec<_> = lines.iter().map(|line| line.as_bytes().to_vec()).collect();
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
        assert_eq!(cut(b""), [[0; 0]; 0]);
        assert_eq!(cut(b"\r\n"), [[0; 0]; 0]);
        assert_eq!(cut(b"a\r\r\nb\n\r\n"), [b"a\r", b"b\n"]);
    }

    #[test]
    fn a_link_is_told_with_where_it_points() {
        let link = |size: usize, text: &str| {
            let line = format!("lrwxrwxrwx 1 u g {size} Nov 5 2018 {text}");
            let told = understand(&[line.into_bytes()]).expect("it makes sense").told;
            let [one] = &told[..] else { panic!("{told:?}") };
            (one.name.clone(), one.target.clone())
        };
        let is = |name: &str, target: Option<&str>| (name.to_owned(), target.map(|it| it.as_bytes().to_vec()));
        assert_eq!(link(5, "link -> ../to"), is("link", Some("../to")));
        assert_eq!(link(6, "link -> x -> y"), is("link", Some("x -> y")));
        assert_eq!(link(1, "link -> x -> y"), is("link -> x", Some("y")));
        assert_eq!(link(6, "0 -> -> a -> b"), is("0 ->", Some("a -> b")));
        assert_eq!(link(0, "link -> x -> y"), is("link", Some("x -> y")));
        assert_eq!(link(5, "untold"), is("untold", None));
    }

    #[test]
    fn where_a_link_points_may_be_any_bytes() {
        let link = |size: usize, text: &[u8]| {
            let line = format!("lrwxrwxrwx 1 u g {size} Nov 5 2018 ");
            let listing = [line.as_bytes(), text, b"\r\n", file("after").as_bytes(), b"\r\n"].concat();
            let understood = understand(&cut(&listing)).expect("it makes sense");
            assert_eq!(shown(&understood).last(), Some(&("after".to_owned(), 'f')));
            let first = understood.told.into_iter().find(|told| told.name != "after");
            (
                first.map(|told| (told.name, told.target.unwrap_or_default())),
                understood.broken,
            )
        };
        let is = |name: &str, target: &[u8]| (Some((name.to_owned(), target.to_vec())), 0);
        assert_eq!(link(7, b"l -> tar\nget"), is("l", b"tar\nget"));
        assert_eq!(link(7, b"l -> a\n -> b"), is("l", b"a\n -> b"));
        assert_eq!(link(5, b"l -> \xff\xfe/\xc3\n"), is("l", b"\xff\xfe/\xc3\n"));
        // Of these it is the name that is broken, or it may be.
        assert_eq!(link(1, b"l\nm -> x"), (None, 1));
        assert_eq!(link(1, b"\nm -> x"), (None, 1));
        assert_eq!(link(3, b"l -> tar\nget"), (None, 1));
        assert_eq!(link(3, b"l\n"), (None, 1));
        let other = format!("{} -> to\r\n", file("no\nlink"));
        assert_eq!(understand(&cut(other.as_bytes())).expect("it makes sense").broken, 1);
    }

    #[test]
    fn pipes_and_devices_are_left_out() {
        let pipe = "prw-r--r-- 1 u g 0 Nov 5 2018 pipe";
        let device = "crw-rw-rw- 1 root root 1, 3 Nov 5 2018 null";
        let own = "drwxr-xr-x 2 u g 4096 Nov 5 2018 .";
        assert_eq!(names(&[own, pipe, device, &file("a")]), Ok(vec![("a".to_owned(), 'f')]));
    }
}
