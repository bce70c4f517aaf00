//! From the text of a settings file to [`Settings`], with the line and column of everything that is wrong.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use manifold_backends::nearest;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::table::{Field, KEYS, Key};
use super::{Level, Rename, RunOrWait, Settings, unions, values};

/// Something that is wrong with the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Complaint {
    /// Counted from 1.
    line: usize,
    /// Counted from 1, in characters.
    column: usize,
    message: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

/// Reads settings, or says everything that is wrong with them, in the order of the file.
pub(super) fn parse(bytes: &[u8], home: Option<&Path>) -> Result<Settings, Vec<Complaint>> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let good = String::from_utf8_lossy(bytes.get(..error.valid_up_to()).unwrap_or_default());
        vec![complaint(
            &good,
            good.len(),
            "the file is not UTF-8 from here on".into(),
        )]
    })?;
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader {
        text,
        home,
        settings: Settings::default(),
        complaints: Vec::new(),
    };
    for error in &errors {
        let at = error.span().map_or(0, |span| span.start);
        reader.complain(at, error.message().trim_end().to_owned());
    }
    if errors.is_empty() {
        reader.document(document.get_ref());
    }
    if reader.complaints.is_empty() {
        return Ok(reader.settings);
    }
    reader
        .complaints
        .sort_by_key(|complaint| (complaint.line, complaint.column));
    Err(reader.complaints)
}

fn complaint(text: &str, at: usize, message: String) -> Complaint {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Complaint {
        line: before.matches('\n').count() + 1,
        column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        message,
    }
}

struct Reader<'a> {
    text: &'a str,
    home: Option<&'a Path>,
    settings: Settings,
    complaints: Vec<Complaint>,
}

impl Reader<'_> {
    fn complain(&mut self, at: usize, message: String) {
        self.complaints.push(complaint(self.text, at, message));
    }

    fn document(&mut self, document: &DeTable<'_>) {
        for (name, value) in document {
            let at = name.span().start;
            let name = name.get_ref().as_ref();
            if name == "union" {
                match unions::parse(value.get_ref(), at) {
                    Ok(unions) => self.settings.unions = unions,
                    Err((at, message)) => self.complain(at, message),
                }
                continue;
            }
            let known = KEYS.iter().any(|key| key.table == name);
            match value.get_ref() {
                DeValue::Table(table) if known => self.table(name, table),
                other if known => {
                    self.complain(
                        at,
                        format!("`{name}` is a table of settings, and not {}", article(other)),
                    );
                }
                DeValue::Table(_) => {
                    let tables = KEYS.iter().map(|key| key.table.to_owned());
                    self.complain(at, format!("unknown table `[{name}]`{}", meant(name, tables)));
                }
                _ => {
                    let full = KEYS.iter().find(|key| key.name == name).map(Key::full_name);
                    let hint = match full {
                        Some(full) => format!("; did you mean `{full}`?"),
                        None => meant(name, KEYS.iter().map(Key::full_name)),
                    };
                    self.complain(at, format!("unknown setting `{name}`{hint}"));
                }
            }
        }
    }

    fn table(&mut self, table: &str, content: &DeTable<'_>) {
        for (name, value) in content {
            let at = name.span().start;
            let name = name.get_ref().as_ref();
            if let Some(key) = KEYS.iter().find(|key| key.table == table && key.name == name) {
                self.value(key, value);
            } else {
                let full = format!("{table}.{name}");
                let hint = meant(&full, KEYS.iter().map(Key::full_name));
                self.complain(at, format!("unknown setting `{full}`{hint}"));
            }
        }
    }

    fn value(&mut self, key: &Key, value: &Spanned<DeValue<'_>>) {
        match set(&mut self.settings, &key.field, value.get_ref(), self.home) {
            Ok(()) => {
                self.settings.given.insert(key.full_name());
            }
            Err(expected) => {
                let Range { start, .. } = value.span();
                self.complain(start, format!("bad value of `{}`: {expected}", key.full_name()));
            }
        }
    }
}

/// Fills the field of one setting, or says what was expected.
fn set(settings: &mut Settings, field: &Field, value: &DeValue<'_>, home: Option<&Path>) -> Result<(), String> {
    let wrong = |expected: &str| Err(format!("expected {expected}, found {}", article(value)));
    match field {
        Field::Size(ranges, field) => {
            let bytes = match value {
                DeValue::Integer(_) => whole(value),
                DeValue::String(text) => values::size(text),
                _ => return wrong("a size such as \"10 GiB\""),
            };
            match bytes {
                Some(bytes) if ranges.iter().any(|range| range.contains(&bytes)) => *field(settings) = bytes,
                Some(_) => {
                    let ranges: Vec<_> = ranges
                        .iter()
                        .map(|range| span(range, |it| values::show_size(*it)))
                        .collect();
                    return Err(format!("out of range, expected {}", ranges.join(" or ")));
                }
                None => return Err("expected a size such as \"10 GiB\", \"500 MB\" or a number of bytes".into()),
            }
        }
        Field::Duration(range, field) => {
            let DeValue::String(text) = value else {
                return wrong("a time with its unit, such as \"10 s\"");
            };
            match values::duration(text) {
                Some(time) if range.contains(&time) => *field(settings) = time,
                Some(_) => {
                    return Err(format!(
                        "out of range, expected {}",
                        span(range, |it| values::show_duration(*it))
                    ));
                }
                None => return Err("expected a time with its unit, such as \"500 ms\", \"10 s\" or \"2 min\"".into()),
            }
        }
        Field::Count(range, field) => {
            let DeValue::Integer(_) = value else {
                return wrong("a whole number");
            };
            match whole(value).and_then(|number| u32::try_from(number).ok()) {
                Some(number) if range.contains(&number) => *field(settings) = number,
                _ => return Err(format!("out of range, expected {}", span(range, u32::to_string))),
            }
        }
        Field::Flag(field) => match value {
            DeValue::Boolean(flag) => *field(settings) = *flag,
            _ => return wrong("true or false"),
        },
        Field::Path(field) => {
            let DeValue::String(text) = value else {
                return wrong("a path");
            };
            *field(settings) = path(text, home)?;
        }
        Field::Loopback(field) => {
            let DeValue::String(text) = value else {
                return wrong("an address such as \"127.0.0.1:9469\"");
            };
            *field(settings) = loopback(text)?;
        }
        Field::Level(field) => {
            let DeValue::String(text) = value else {
                return wrong("a word such as \"info\"");
            };
            let words = Level::ALL.map(Level::as_str);
            match Level::parse(text) {
                Some(level) => *field(settings) = level,
                None => return Err(format!("expected one of {}", words.join(", "))),
            }
        }
        Field::RunOrWait(field) => match value {
            DeValue::String(text) => match RunOrWait::parse(text) {
                Some(choice) => *field(settings) = choice,
                None => return Err("expected \"run\" or \"wait\"".into()),
            },
            _ => return wrong("\"run\" or \"wait\""),
        },
        Field::Rename(field) => match value {
            DeValue::String(text) => match Rename::parse(text) {
                Some(choice) => *field(settings) = choice,
                None => return Err("expected \"copy\" or \"strict\"".into()),
            },
            _ => return wrong("\"copy\" or \"strict\""),
        },
    }
    Ok(())
}

fn whole(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn path(text: &str, home: Option<&Path>) -> Result<Option<PathBuf>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.contains('\0') {
        return Err("it holds a NUL".into());
    }
    let beneath_home = if text == "~" { Some("") } else { text.strip_prefix("~/") };
    match (beneath_home, home) {
        (Some(rest), Some(home)) => Ok(Some(home.join(rest))),
        (Some(_), None) => Err("it begins with ~, and HOME is not set".into()),
        (None, _) if text.starts_with('/') => Ok(Some(text.into())),
        (None, _) => Err("expected an absolute path, or one that begins with ~/".into()),
    }
}

fn loopback(text: &str) -> Result<Option<SocketAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Ok(Some(address)),
        Ok(address) => Err(format!(
            "{} is not an address of this machine alone, expected one such as \"127.0.0.1:9469\" or \"[::1]:9469\"",
            address.ip()
        )),
        Err(_) => Err("expected an address with its port, such as \"127.0.0.1:9469\" or \"[::1]:9469\"".into()),
    }
}

fn span<T>(range: &std::ops::RangeInclusive<T>, show: impl Fn(&T) -> String) -> String
where
    T: PartialEq,
{
    if range.start() == range.end() {
        return show(range.start());
    }
    format!("{} to {}", show(range.start()), show(range.end()))
}

fn article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn meant(name: &str, candidates: impl Iterator<Item = String>) -> String {
    nearest(name, candidates).map_or_else(String::new, |candidate| format!("; did you mean `{candidate}`?"))
}
