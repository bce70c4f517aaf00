//! Metrics: what the daemon has counted since it started, for whoever gathers it.
//!
//! [`table`] is the only place that knows which metrics there are: what is answered, as text or JSON, and `docs/metrics.md` are
//! both made from it. A [`Picture`] holds what it reads from, [`exposition`] knows the formats, and [`http`] answers Prometheus
//! itself. Always true: nothing here is counted, so nothing here is in the way of a request; and no label holds a secret.

mod exposition;
pub(crate) mod http;
mod page;
mod picture;
mod process;
mod table;

pub(crate) use exposition::Family;
pub(crate) use page::page;
pub(crate) use picture::{MountPicture, Picture};

/// What a metric is, in the words of Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// It only rises, from when the daemon started.
    Counter,
    /// It is how it is now.
    Gauge,
    /// How long things took: how many within each bound, and their sum.
    Histogram,
}

/// One metric.
struct Metric {
    /// Its name, with its unit, and `_total` where it is a counter.
    name: &'static str,
    /// What it is.
    kind: Kind,
    /// The names of its labels.
    labels: &'static [&'static str],
    /// What it says, in one line.
    help: &'static str,
    /// Reads its samples from a picture.
    read: fn(&Picture, &mut exposition::Samples),
}

impl Kind {
    /// Gives the word for it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Picture {
    /// Gives every metric in the text format of Prometheus, version 0.0.4.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for metric in table::all() {
            exposition::write(metric, &self.samples(metric), &mut text);
        }
        text
    }

    /// Gives every metric for JSON.
    pub(crate) fn families(&self) -> Vec<Family> {
        table::all()
            .map(|metric| Family::new(metric, self.samples(metric)))
            .collect()
    }

    fn samples(&self, metric: &Metric) -> exposition::Samples {
        let mut samples = exposition::Samples::default();
        (metric.read)(self, &mut samples);
        samples
    }
}
