//! A reader of the text format of Prometheus (0.0.4) that takes nothing that is not well formed.
//!
//! Written after <https://prometheus.io/docs/instrumenting/exposition_formats/>, apart from the code that writes it.

use std::collections::{BTreeMap, BTreeSet};

/// The names and values of labels.
pub(crate) type Labels = BTreeMap<String, String>;

/// One metric.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) help: String,
    /// Each with the name that it stands under, which for histograms has an ending.
    pub(crate) samples: Vec<(String, Labels, f64)>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Exposition {
    pub(crate) families: BTreeMap<String, Family>,
}

impl Exposition {
    /// Reads an answer; anything wrong with it fails the test.
    pub(crate) fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line must end");
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let mut current: Option<String> = None;
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').expect("help has words");
                assert!(is_metric_name(name), "{line}");
                let kind = lines
                    .next()
                    .and_then(|line| line.strip_prefix("# TYPE "))
                    .and_then(|rest| rest.strip_prefix(name))
                    .and_then(|rest| rest.strip_prefix(' '))
                    .unwrap_or_else(|| panic!("no type behind: {line}"));
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{kind}");
                let family = Family {
                    kind: kind.to_owned(),
                    help: unescape(help, false),
                    samples: Vec::new(),
                };
                let before = families.insert(name.to_owned(), family);
                assert!(before.is_none(), "{name} stands there twice");
                current = Some(name.to_owned());
                continue;
            }
            let (sample, labels, value) = read_sample(line);
            let name = current.as_ref().expect("a sample belongs to a family");
            let family = families.get_mut(name).expect("it was put there");
            let endings: &[&str] = if family.kind == "histogram" {
                &["_bucket", "_sum", "_count"]
            } else {
                &[""]
            };
            let ending = sample
                .strip_prefix(name.as_str())
                .expect("a sample stands under its family");
            assert!(endings.contains(&ending), "{line} in {name}");
            assert!(family.kind == "gauge" || value >= 0.0, "{line}");
            family.samples.push((sample, labels, value));
        }
        for (name, family) in &families {
            family.check(name);
        }
        Self { families }
    }

    /// Sums up the samples that have these labels, among others.
    pub(crate) fn sum(&self, sample: &str, labels: &[(&str, &str)]) -> f64 {
        let all = self.families.values().flat_map(|family| &family.samples);
        let has = |found: &Labels| {
            labels
                .iter()
                .all(|(name, value)| found.get(*name).is_some_and(|it| it == value))
        };
        all.filter(|(name, found, _)| name == sample && has(found))
            .map(|(_, _, value)| value)
            .sum()
    }
}

impl Family {
    fn check(&self, name: &str) {
        let mut seen = BTreeSet::new();
        for (sample, labels, _) in &self.samples {
            assert!(
                seen.insert((sample, labels)),
                "{sample} with {labels:?} stands there twice"
            );
        }
        if self.kind != "histogram" {
            return;
        }
        let mut series: BTreeMap<Labels, Series> = BTreeMap::new();
        for (sample, labels, value) in &self.samples {
            let mut labels = labels.clone();
            let le = labels.remove("le");
            let of = series.entry(labels).or_default();
            match sample.strip_prefix(name) {
                Some("_bucket") => of.buckets.push((number(&le.expect("a bucket has a bound")), *value)),
                Some("_sum") => of.sum = Some(*value),
                _ => of.count = Some(*value),
            }
        }
        for (labels, of) in series {
            let rises = of
                .buckets
                .windows(2)
                .all(|two| two[0].0 < two[1].0 && two[0].1 <= two[1].1);
            assert!(rises, "{name} {labels:?}: {:?}", of.buckets);
            let (bound, last) = *of.buckets.last().expect("there are buckets");
            assert!(bound.is_infinite() && of.sum.is_some(), "{name} {labels:?}");
            assert_eq!(Some(last), of.count, "{name} {labels:?}");
        }
    }
}

#[derive(Default)]
struct Series {
    buckets: Vec<(f64, f64)>,
    sum: Option<f64>,
    count: Option<f64>,
}

/// Reads `name{label="value",…} number`.
fn read_sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no sample: {line:?}"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_metric_name(name), "{line}");
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, behind) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
            assert!(is_label_name(label), "{line}");
            let end = end_of_value(behind).unwrap_or_else(|| panic!("a value does not end: {line}"));
            let before = labels.insert(label.to_owned(), unescape(&behind[..end], true));
            assert!(before.is_none(), "a label stands there twice: {line}");
            rest = &behind[end + 1..];
            match rest.split_at(1) {
                (",", more) => rest = more,
                ("}", more) => {
                    rest = more;
                    break;
                }
                _ => panic!("neither another label nor the end: {line}"),
            }
        }
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("no value: {line}"));
    (name.to_owned(), labels, number(value))
}

fn end_of_value(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends.then_some(at)
    })
}

fn unescape(text: &str, in_label: bool) -> String {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.push(match c {
            '\\' => match chars.next() {
                Some('\\') => '\\',
                Some('n') => '\n',
                Some('"') if in_label => '"',
                other => panic!("no such escape: {other:?} in {text}"),
            },
            other => other,
        });
    }
    plain
}

fn number(text: &str) -> f64 {
    if text == "+Inf" {
        return f64::INFINITY;
    }
    assert!(text.starts_with(|c: char| c.is_ascii_digit() || c == '-'), "{text}");
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn is_label_name(name: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(part) && name.starts_with(|c: char| !c.is_ascii_digit())
}

fn is_metric_name(name: &str) -> bool {
    is_label_name(&name.replace(':', "_"))
}

#[test]
fn what_is_not_well_formed_is_refused() {
    const HEAD: &str = "# HELP a_seconds Words.\n# TYPE a_seconds histogram\n";
    let good = "# HELP a Words \\\\ and\\nmore.\n# TYPE a counter\na{b=\"c\\\"},\\\\\",d=\"\"} 5\na 0.5\n";
    let parsed = Exposition::parse(good);
    assert_eq!(parsed.families["a"].help, "Words \\ and\nmore.");
    assert_eq!(parsed.families["a"].samples[0].1["b"], "c\"},\\");
    assert!((parsed.sum("a", &[]) - 5.5).abs() < f64::EPSILON);
    let buckets = |first: &str, last: &str| {
        let bucket = |le: &str, count: &str| format!("a_seconds_bucket{{le=\"{le}\"}} {count}\n");
        format!(
            "{HEAD}{}{}a_seconds_sum 1\na_seconds_count 3\n",
            bucket("1", first),
            bucket("+Inf", last)
        )
    };
    Exposition::parse(&buckets("2", "3"));
    for bad in [
        "a 1\n".to_owned(),
        good.trim_end().to_owned(),
        format!("{good}{good}"),
        format!("{good}b 1\n"),
        format!("{good}a 0.5\n"),
        good.replace("a 0.5", "a -1"),
        good.replace("d=", "b="),
        good.replace("c\\\"", "c\\x"),
        good.replace("\"} 5", "} 5"),
        good.replace("TYPE a", "TYPE b"),
        buckets("4", "3"),
        buckets("2", "4"),
        format!("{HEAD}a_seconds 1\n"),
    ] {
        let refused = std::panic::catch_unwind(|| Exposition::parse(&bad));
        assert!(refused.is_err(), "{bad}");
    }
}
