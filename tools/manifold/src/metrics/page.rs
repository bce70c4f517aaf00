//! The page that describes each metric, made from their table: `docs/metrics.md`.

use super::table::GROUPS;

const HEAD: &str = "\
# Metrics

What a mounted library counts, in the [text format of Prometheus](https://prometheus.io/docs/instrumenting/exposition_formats/)
(version 0.0.4). This page is made from the table in the code: `manifold metrics --reference` prints it.

- `manifold metrics` prints them; with `--json`, as a list of `name`, `type`, `help` and `samples`, each with `labels` and
  `value`. A histogram's `value` is how many there were; it has their `sum` in seconds, and `buckets` with how many took no
  longer than `le` seconds.
- The control socket answers `metrics` with the same: see [control.md](control.md).
- `metrics.listen = \"127.0.0.1:9469\"` in the settings has the daemon answer `GET /metrics` over HTTP. The address must be one of
  this machine alone, and so must be the `Host` that is asked for, so that no web page can have a browser read them. There is
  no password: every user of this machine can read them there, with the addresses of the sources. Off by default.

```
scrape_configs:
  - job_name: manifold
    static_configs:
      - targets: [\"127.0.0.1:9469\"]
```

Counters begin at 0 when the daemon starts; those of a source when it is added or the daemon starts. A sample that counts by
`operation`, `errno` or `kind` appears with the first that is counted. To answer, no source is asked for anything.

`source` is the number of a source, `uri` its name: a URI without secrets, as in `manifold source list`. Times are in seconds,
sizes in bytes.
";

/// Gives the page.
pub(crate) fn page() -> String {
    let mut page = String::from(HEAD);
    for (title, metrics) in GROUPS {
        page.extend([
            "\n## ",
            title,
            "\n\n| metric | type | labels | |\n| --- | --- | --- | --- |\n",
        ]);
        for metric in *metrics {
            let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            let cells = [metric.kind.as_str(), &labels.join(", "), metric.help];
            page.extend(["| `", metric.name, "` | ", &cells.join(" | "), " |\n"]);
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_docs_is_the_one_that_the_table_makes() {
        let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
        let kept = std::fs::read_to_string(kept).expect("docs/metrics.md");
        assert!(
            kept == page(),
            "docs/metrics.md is out of date; make it anew: manifold metrics --reference >docs/metrics.md"
        );
    }
}
