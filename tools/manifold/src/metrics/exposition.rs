//! The formats in which metrics leave: the text format of Prometheus, version 0.0.4, and JSON.
//!
//! The text format: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use manifold_index::BUCKET_ENDS;
use manifold_vfs::HistogramPicture;
use serde::{Deserialize, Serialize};

use super::{Kind, Metric};

/// The samples of one metric.
#[derive(Debug, Default)]
pub(super) struct Samples(Vec<(Vec<String>, Value)>);

#[derive(Debug)]
enum Value {
    One(Number),
    Took(Box<HistogramPicture>),
}

/// A number, which is exact where it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Number {
    Whole(u64),
    Real(f64),
}

/// A metric with its samples, for JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Family {
    /// Its name.
    name: String,
    /// What it is.
    #[serde(rename = "type")]
    kind: Kind,
    /// What it says.
    help: String,
    /// Its samples.
    samples: Vec<Sample>,
}

/// One sample of a metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Sample {
    labels: BTreeMap<String, String>,
    /// The number; of a histogram how many there were.
    value: Number,
    /// Of a histogram how many took no longer than each bound.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    buckets: Option<Vec<Bucket>>,
    /// Of a histogram how long all of them took together, in seconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    sum: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Bucket {
    /// The bound, in seconds.
    le: f64,
    count: u64,
}

impl Samples {
    /// Takes a sample with a number. The labels' values stand in the order of their names in the table.
    pub(super) fn add(&mut self, labels: &[&str], value: impl Into<Number>) {
        self.0.push((owned(labels), Value::One(value.into())));
    }

    /// Takes a sample of a histogram.
    pub(super) fn add_took(&mut self, labels: &[&str], took: &HistogramPicture) {
        self.0.push((owned(labels), Value::Took(Box::new(*took))));
    }
}

fn owned(labels: &[&str]) -> Vec<String> {
    labels.iter().map(|value| (*value).to_owned()).collect()
}

/// Writes a metric with its samples as text.
pub(super) fn write(metric: &Metric, samples: &Samples, text: &mut String) {
    let (name, kind) = (metric.name, metric.kind.as_str());
    line(
        text,
        format_args!("# HELP {name} {}\n# TYPE {name} {kind}", escaped(metric.help, false)),
    );
    for (values, value) in &samples.0 {
        let labels: Vec<_> = metric
            .labels
            .iter()
            .copied()
            .zip(values.iter().map(String::as_str))
            .collect();
        match value {
            Value::One(number) => line(text, format_args!("{name}{} {number}", Labels(&labels, None))),
            Value::Took(took) => {
                for (bound, count) in cumulative(took) {
                    let le = bound.to_string();
                    line(
                        text,
                        format_args!("{name}_bucket{} {count}", Labels(&labels, Some(&le))),
                    );
                }
                let (count, labelled) = (took.count(), Labels(&labels, None));
                line(
                    text,
                    format_args!("{name}_bucket{} {count}", Labels(&labels, Some("+Inf"))),
                );
                line(text, format_args!("{name}_sum{labelled} {}", took.sum.as_secs_f64()));
                line(text, format_args!("{name}_count{labelled} {count}"));
            }
        }
    }
}

fn line(text: &mut String, line: fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("invariant: a string takes whatever is written to it");
}

/// Gives for each bound but the last, which is infinite, how many took no longer.
fn cumulative(took: &HistogramPicture) -> impl Iterator<Item = (f64, u64)> {
    let sums = took.counts.iter().scan(0, |sum, count| {
        *sum += count;
        Some(*sum)
    });
    BUCKET_ENDS.iter().map(std::time::Duration::as_secs_f64).zip(sums)
}

/// Labels in braces, none at all without any. The second part is the bound of a bucket.
struct Labels<'a>(&'a [(&'a str, &'a str)], Option<&'a str>);

impl fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.0.iter().copied().chain(self.1.map(|le| ("le", le)));
        let mut before = '{';
        for (name, value) in all {
            write!(f, "{before}{name}=\"{}\"", escaped(value, true))?;
            before = ',';
        }
        if before == '{' { Ok(()) } else { f.write_char('}') }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(number) => number.fmt(f),
            Self::Real(number) => number.fmt(f),
        }
    }
}

/// Escapes what would end a line, and in a label what would end its value.
fn escaped(text: &str, in_label: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '"' if in_label => escaped.push_str("\\\""),
            other => escaped.push(other),
        }
    }
    escaped
}

impl Family {
    pub(super) fn new(metric: &Metric, samples: Samples) -> Self {
        let sample = |(values, value): (Vec<String>, Value)| {
            let labels = metric
                .labels
                .iter()
                .map(|name| (*name).to_owned())
                .zip(values)
                .collect();
            match value {
                Value::One(value) => Sample {
                    labels,
                    value,
                    buckets: None,
                    sum: None,
                },
                Value::Took(took) => Sample {
                    labels,
                    value: took.count().into(),
                    buckets: Some(cumulative(&took).map(|(le, count)| Bucket { le, count }).collect()),
                    sum: Some(took.sum.as_secs_f64()),
                },
            }
        };
        Self {
            name: metric.name.to_owned(),
            kind: metric.kind,
            help: metric.help.to_owned(),
            samples: samples.0.into_iter().map(sample).collect(),
        }
    }
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl From<bool> for Number {
    fn from(holds: bool) -> Self {
        Self::Whole(u64::from(holds))
    }
}

impl From<f64> for Number {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use manifold_vfs::Histogram;

    use super::*;

    fn metric(kind: Kind, labels: &'static [&'static str]) -> Metric {
        Metric {
            name: "manifold_test",
            kind,
            labels,
            help: "A line\\with what must be \"escaped\"\nand an end.",
            read: |_, _| {},
        }
    }

    fn written(metric: &Metric, samples: &Samples) -> String {
        let mut text = String::new();
        write(metric, samples, &mut text);
        text
    }

    #[test]
    fn help_and_labels_are_escaped_as_the_format_says() {
        let mut samples = Samples::default();
        samples.add(&["a\\b\"c\nd é", ""], 3_u64);
        assert_eq!(
            written(&metric(Kind::Gauge, &["one", "two"]), &samples),
            "# HELP manifold_test A line\\\\with what must be \"escaped\"\\nand an end.\n\
             # TYPE manifold_test gauge\n\
             manifold_test{one=\"a\\\\b\\\"c\\nd é\",two=\"\"} 3\n"
        );
    }

    #[test]
    fn numbers_are_exact_where_they_are_whole_and_never_abbreviated() {
        let mut samples = Samples::default();
        for number in [Number::from(u64::MAX), 0.000_01.into(), 1e18.into(), true.into()] {
            samples.add(&[], number);
        }
        let text = written(&metric(Kind::Counter, &[]), &samples);
        let numbers: Vec<_> = text.lines().skip(2).collect();
        assert_eq!(
            numbers,
            [
                "manifold_test 18446744073709551615",
                "manifold_test 0.00001",
                "manifold_test 1000000000000000000",
                "manifold_test 1",
            ]
        );
    }

    #[test]
    fn a_histogram_has_cumulative_buckets_up_to_infinity_a_sum_and_a_count() {
        let histogram = Histogram::default();
        for took in [1, 1, 3_000, 3_000_000, 60_000_000] {
            histogram.observe(Duration::from_micros(took));
        }
        let mut samples = Samples::default();
        samples.add_took(&["read"], &histogram.picture());
        let metric = metric(Kind::Histogram, &["operation"]);
        let text = written(&metric, &samples);
        let lines: Vec<_> = text.lines().skip(2).collect();
        assert_eq!(lines.len(), BUCKET_ENDS.len() + 3);
        for line in [
            "manifold_test_bucket{operation=\"read\",le=\"0.00001\"} 2",
            "manifold_test_bucket{operation=\"read\",le=\"0.0025\"} 2",
            "manifold_test_bucket{operation=\"read\",le=\"0.005\"} 3",
            "manifold_test_bucket{operation=\"read\",le=\"2.5\"} 3",
            "manifold_test_bucket{operation=\"read\",le=\"30\"} 4",
            "manifold_test_bucket{operation=\"read\",le=\"+Inf\"} 5",
            "manifold_test_sum{operation=\"read\"} 63.003002",
            "manifold_test_count{operation=\"read\"} 5",
        ] {
            assert!(lines.contains(&line), "no {line} in {text}");
        }
        let family = Family::new(&metric, samples);
        let json = serde_json::to_value(&family).expect("JSON");
        assert_eq!(json["samples"][0]["value"], 5);
        assert_eq!(json["samples"][0]["labels"]["operation"], "read");
        assert_eq!(
            json["samples"][0]["buckets"][0],
            serde_json::json!({"le": 0.00001, "count": 2})
        );
        let back: Family = serde_json::from_value(json).expect("the same form");
        assert_eq!(back, family);
    }
}
