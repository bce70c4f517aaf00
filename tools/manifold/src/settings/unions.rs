//! Unions: the one part of the settings that is a list of tables, `[[union]]`.

use std::collections::BTreeMap;

use manifold_vfs::{PlaceRule, Placement, Union};
use toml::de::{DeTable, DeValue};

use super::values;
use crate::attach;

/// What a new file must leave free where nothing is said.
const MIN_FREE: u64 = 1 << 30;
/// The settings of a union.
const KEYS: [&str; 5] = ["at", "members", "place", "min_free", "rules"];

/// Sources that are shown as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnionSettings {
    /// The directory of the library beneath which they are attached.
    pub(crate) at: String,
    /// Those that come first, by the last names of the paths at which they are attached.
    pub(crate) members: Vec<String>,
    /// Where what is new is made.
    pub(crate) place: Placement,
    /// A member with less room than this takes nothing new, in bytes.
    pub(crate) min_free: u64,
    /// Patterns and members.
    pub(crate) rules: Vec<(String, String)>,
}

/// What stands in the commented file of a new library.
pub(super) const TEMPLATE: &str = "\n\
# Sources that are attached directly beneath one directory of the library, such as /photos/disk and\n\
# /photos/nas, can be shown there as one. What is new goes to the first member that has room (\"first\"), or\n\
# to the one with the most (\"most-free\"), unless a rule says otherwise; a member with less than min_free\n\
# takes nothing new. members says which come first.\n\
# [[union]]\n\
# at = \"/photos\"\n\
# members = [\"disk\", \"nas\"]\n\
# place = \"first\"\n\
# min_free = \"1 GiB\"\n\
# rules = [{ glob = \"*.raw\", member = \"nas\" }]\n";

impl UnionSettings {
    /// Puts it into the words of the file system.
    pub(crate) fn to_union(&self) -> Result<Union, &'static str> {
        let rules = self.rules.iter();
        let rules = rules.map(|(glob, member)| PlaceRule::new(glob.as_bytes(), member.as_bytes()));
        Ok(Union {
            at: self.at.clone().into_bytes(),
            order: self.members.iter().map(|name| name.as_bytes().into()).collect(),
            place: self.place,
            min_free: self.min_free,
            rules: rules.collect::<Result<_, _>>()?,
        })
    }

    /// Gives it as it would stand in the file, in one line.
    fn show(&self) -> String {
        let text = |text: &str| toml::Value::from(text).to_string();
        let members: Vec<_> = self.members.iter().map(|name| text(name)).collect();
        let rule =
            |(glob, member): &(String, String)| format!("{{ glob = {}, member = {} }}", text(glob), text(member));
        let rules: Vec<_> = self.rules.iter().map(rule).collect();
        format!(
            "{{ at = {}, members = [{}], place = {}, min_free = {}, rules = [{}] }}",
            text(&self.at),
            members.join(", "),
            text(word(self.place)),
            text(&values::show_size(self.min_free)),
            rules.join(", ")
        )
    }
}

/// Gives all of them as they would stand in the file, in one line.
pub(super) fn show(unions: &[UnionSettings]) -> String {
    let unions: Vec<_> = unions.iter().map(UnionSettings::show).collect();
    format!("[{}]", unions.join(", "))
}

/// Gives the word for a policy.
pub(crate) fn word(place: Placement) -> &'static str {
    match place {
        Placement::First => "first",
        Placement::MostFree => "most-free",
    }
}

/// Reads the list, or says what is wrong with it and where.
pub(super) fn parse(value: &DeValue<'_>, at: usize) -> Result<Vec<UnionSettings>, (usize, String)> {
    let DeValue::Array(list) = value else {
        return Err((at, "`union` is a list of tables, each begun with [[union]]".into()));
    };
    let mut unions: Vec<UnionSettings> = Vec::new();
    for one in list {
        let DeValue::Table(table) = one.get_ref() else {
            return Err((
                one.span().start,
                "`union` is a list of tables, each begun with [[union]]".into(),
            ));
        };
        let union = union(table, one.span().start)?;
        if unions.iter().any(|other| other.at == union.at) {
            return Err((one.span().start, format!("there are two unions at {}", union.at)));
        }
        unions.push(union);
    }
    Ok(unions)
}

fn union(table: &DeTable<'_>, start: usize) -> Result<UnionSettings, (usize, String)> {
    let mut found = BTreeMap::new();
    for (name, value) in table {
        let key = name.get_ref().as_ref();
        let Some(key) = KEYS.into_iter().find(|known| *known == key) else {
            let message = format!("unknown setting `union.{key}`; a union has {}", KEYS.join(", "));
            return Err((name.span().start, message));
        };
        found.insert(key, value);
    }
    let at = match found.get("at").map(|value| (value.get_ref(), value.span().start)) {
        Some((DeValue::String(path), _)) if path.starts_with('/') => {
            let clean = attach::canonical(path.as_bytes()).ok();
            clean.and_then(|path| String::from_utf8(path).ok())
        }
        _ => None,
    };
    let bad = |key: &str, expected: &str| {
        let place = found.get(key).map_or(start, |value| value.span().start);
        (place, format!("bad value of `union.{key}`: expected {expected}"))
    };
    let at = at.ok_or_else(|| bad("at", "a path of the library, such as \"/photos\""))?;
    let mut members = Vec::new();
    if let Some(value) = found.get("members") {
        let wrong = || bad("members", "a list of names, such as [\"disk\", \"nas\"]");
        for name in value.get_ref().as_array().ok_or_else(wrong)? {
            members.push(name.get_ref().as_str().ok_or_else(wrong)?.to_owned());
        }
    }
    let place = match found.get("place").map(|value| value.get_ref().as_str()) {
        None => Placement::default(),
        Some(Some("first")) => Placement::First,
        Some(Some("most-free")) => Placement::MostFree,
        Some(_) => return Err(bad("place", "\"first\" or \"most-free\"")),
    };
    let min_free = match found.get("min_free").map(|value| value.get_ref()) {
        None => MIN_FREE,
        Some(value) => {
            let size = match value {
                DeValue::String(text) => values::size(text),
                DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
                _ => None,
            };
            size.ok_or_else(|| bad("min_free", "a size such as \"10 GiB\""))?
        }
    };
    let mut rules = Vec::new();
    if let Some(value) = found.get("rules") {
        let wrong = || bad("rules", "a list such as [{ glob = \"*.raw\", member = \"nas\" }]");
        for rule in value.get_ref().as_array().ok_or_else(wrong)? {
            let table = rule.get_ref().as_table().ok_or_else(wrong)?;
            let text = |key: &str| {
                let value = table.iter().find(|(name, _)| name.get_ref().as_ref() == key);
                value.and_then(|(_, value)| value.get_ref().as_str()).ok_or_else(wrong)
            };
            let (glob, member) = (text("glob")?, text("member")?);
            if table.len() != 2 {
                return Err(wrong());
            }
            PlaceRule::new(glob.as_bytes(), member.as_bytes())
                .map_err(|why| (rule.span().start, format!("bad pattern `{glob}`: {why}")))?;
            rules.push((glob.to_owned(), member.to_owned()));
        }
    }
    Ok(UnionSettings {
        at,
        members,
        place,
        min_free,
        rules,
    })
}
