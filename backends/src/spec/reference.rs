//! The tables of `docs/sources.md`, made from the table of schemes; the page is checked against it.

use std::fmt::Write;
use std::path::Path;

use super::{KeyInfo, SchemeInfo, ValueKind, common_keys, schemes};

const BEGIN: &str = "<!-- made from the table of schemes: begin -->\n";
const END: &str = "<!-- made from the table of schemes: end -->\n";
/// Set to write the page anew instead of checking it.
const UPDATE: &str = "MANIFOLD_UPDATE_DOCS";

fn reference() -> String {
    let mut page = String::new();
    for info in schemes() {
        section(&mut page, info);
    }
    page.push_str("\n## Settings of every source\n\n");
    keys(&mut page, common_keys());
    page
}

fn section(page: &mut String, info: &SchemeInfo) {
    writeln!(page, "\n## {}\n\n`{}`\n", info.title, info.form).unwrap();
    writeln!(page, "```sh\nmanifold source add {}\n```", shell(info.example)).unwrap();
    if !info.keys.is_empty() {
        page.push('\n');
        keys(page, info.keys);
    }
    if !info.secrets.is_empty() {
        page.push_str("\n| secret | is |\n| --- | --- |\n");
        for secret in info.secrets {
            writeln!(page, "| `{}` | {} |", secret.key, secret.prompt).unwrap();
        }
    }
}

fn keys(page: &mut String, keys: &[KeyInfo]) {
    page.push_str("| setting | means | values | without it |\n| --- | --- | --- | --- |\n");
    for key in keys {
        let mut values = match key.value {
            ValueKind::Text => "text".to_owned(),
            ValueKind::Flag => "`true`, `false`".to_owned(),
            ValueKind::Count(least, most) => format!("{least} to {most}"),
            ValueKind::BlockSize => "a power of two, `64KiB` to `16MiB`".to_owned(),
            ValueKind::Duration => "`30s`, `5m`, `2h`, `1d`".to_owned(),
            ValueKind::Url => "`http://…`, `https://…`".to_owned(),
            ValueKind::Path => "an absolute path".to_owned(),
            ValueKind::Choice(words) => format!("`{}`", words.join("`, `")),
        };
        if key.reference {
            values.push_str(", or a reference");
        }
        let without = match key.default {
            Some(default) => format!("`{default}`"),
            None if key.required => "an error".to_owned(),
            None => "–".to_owned(),
        };
        writeln!(page, "| `{}` | {} | {values} | {without} |", key.name, key.meaning).unwrap();
    }
}

fn shell(argument: &str) -> String {
    if argument.contains(['?', '&', ' ']) {
        format!("'{argument}'")
    } else {
        argument.to_owned()
    }
}

#[test]
fn the_page_on_sources_says_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/sources.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page has its first mark");
    let (between, after) = rest.split_once(END).expect("the page has its last mark");
    let reference = reference() + "\n";
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, [before, BEGIN, &reference, END, after].concat()).unwrap();
        return;
    }
    assert!(
        between == reference,
        "docs/sources.md is out of date; run the tests once with {UPDATE}=1"
    );
}
