//! `metrics`, the control socket and HTTP: the same well-formed answer, which is what the page says, and rises.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

use crate::exposition::Exposition;
use crate::support::{Daemon, Home, is_mounted, text, wait_until};

/// Starts a daemon that answers HTTP; gives its address.
fn up_with_http(home: &Home, arguments: &[&str]) -> (Daemon, SocketAddr) {
    home.ok(&["settings"]);
    let settings = "mount.passthrough = false\nmetrics.listen = \"127.0.0.1:0\"\n";
    fs::write(home.settings(), settings).expect("write");
    let mut daemon = Daemon::start(home.command().arg("up").args(arguments), "metrics at http://");
    let line = daemon.last_heard();
    let address = line
        .trim_start_matches("metrics at http://")
        .trim_end_matches("/metrics");
    let address = address.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
    daemon.wait_for("mounted at ");
    (daemon, address)
}

fn metrics(home: &Home) -> Exposition {
    Exposition::parse(&home.ok(&["metrics"]))
}

fn get(address: SocketAddr, host: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

/// Reads the rows of the page: name, type and labels.
fn rows(page: &str) -> BTreeSet<(String, String, BTreeSet<String>)> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `manifold_"));
    rows.map(|row| {
        let mut cells = row.split(" | ");
        let mut cell = || cells.next().expect("a cell").trim_matches('`').to_owned();
        let (name, kind, labels) = (cell(), cell(), cell());
        let labels = labels.split(", ").filter(|label| !label.is_empty());
        let labels = labels.map(|label| label.trim_matches('`').to_owned());
        (format!("manifold_{name}"), kind, labels.collect())
    })
    .collect()
}

#[test]
fn a_live_daemon_answers_with_exactly_what_the_page_describes() {
    let home = Home::new();
    let pictures = home.source("Pictures");
    let page = home.ok(&["metrics", "--reference"]);
    home.run(&["metrics"]).refused(&["there is no library"]);
    let (daemon, address) = up_with_http(&home, &[text(&pictures)]);
    assert_eq!(
        fs::read_to_string(home.point().join("Pictures/Pictures.txt")).expect("it is shown"),
        "Pictures"
    );
    let described = rows(&page);
    assert!(described.len() > 40, "{described:?}");
    let told = metrics(&home);
    let families = told.families.iter().map(|(name, family)| (name, &family.kind));
    assert!(
        families.eq(described.iter().map(|(name, kind, _)| (name, kind))),
        "{:?}",
        told.families.keys()
    );
    for (name, kind, labels) in &described {
        for (sample, found, _) in &told.families[name].samples {
            let found: BTreeSet<_> = found
                .keys()
                .filter(|label| kind != "histogram" || *label != "le")
                .cloned()
                .collect();
            assert_eq!(&found, labels, "{sample}");
        }
    }

    let over_http = get(address, "localhost");
    let (head, body) = over_http.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"),
        "{head}"
    );
    assert!(Exposition::parse(body).families.keys().eq(told.families.keys()));

    let mut socket = UnixStream::connect(home.state().join("control.sock")).expect("it listens");
    socket
        .write_all(b"{\"version\":1,\"request\":\"metrics\"}\n")
        .expect("it reads");
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line).expect("it answers");
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let over_socket = Exposition::parse(line["reply"]["text"].as_str().expect("text"));
    assert!(over_socket.families.keys().eq(told.families.keys()));

    let json = home.run(&["metrics", "--json"]).json();
    let of_json = json
        .as_array()
        .expect("a list")
        .iter()
        .map(|family| family["name"].as_str().expect("a name").to_owned());
    assert_eq!(
        of_json.collect::<BTreeSet<_>>(),
        told.families.keys().cloned().collect()
    );
    daemon.interrupt();
    home.run(&["metrics"]).refused(&["is not mounted", "manifold mount"]);
}

#[test]
fn what_is_read_and_asked_for_is_counted() {
    let home = Home::new();
    let (daemon, _) = up_with_http(&home, &[text(&home.source("Pictures"))]);
    wait_until("the source is online and scanned", || {
        let now = metrics(&home);
        now.sum("manifold_source_state", &[("state", "online")]) > 0.0
            && now.sum("manifold_source_scan_directories", &[("state", "listed")]) > 0.0
            && now.sum("manifold_source_scan_running", &[]) < 1.0
    });
    let before = metrics(&home);
    let name = home.point().join("Pictures/Pictures.txt");
    assert_eq!(fs::read_to_string(name).expect("it is shown"), "Pictures");
    assert!(fs::metadata(home.point().join("Pictures/none")).is_err());
    // What is answered is counted a moment later.
    let rises = |sample: &str, labels: &[(&str, &str)], by: f64| {
        let old = before.sum(sample, labels);
        wait_until(sample, || metrics(&home).sum(sample, labels) >= old + by);
    };
    for operation in ["open", "read", "release"] {
        rises("manifold_kernel_requests_total", &[("operation", operation)], 1.0);
        rises(
            "manifold_kernel_request_duration_seconds_count",
            &[("operation", operation)],
            1.0,
        );
    }
    let no_name = [("operation", "lookup"), ("errno", "ENOENT")];
    rises("manifold_kernel_request_errors_total", &no_name, 1.0);
    rises("manifold_read_bytes_total", &[], 8.0);
    rises("manifold_reads_total", &[], 1.0);
    home.ok(&["scan", "/Pictures"]);
    let listed = [("source", "1"), ("operation", "list")];
    rises("manifold_source_requests_total", &listed, 1.0);
    rises("manifold_source_request_duration_seconds_count", &listed, 1.0);

    let now = metrics(&home);
    assert!(
        (now.sum("manifold_source_state", &[]) - 1.0).abs() < f64::EPSILON,
        "one state at a time"
    );
    assert!((now.sum("manifold_source_watch_state", &[]) - 1.0).abs() < f64::EPSILON);
    assert!((now.sum("manifold_source_info", &[("source", "1"), ("attach", "/Pictures")]) - 1.0).abs() < f64::EPSILON);
    assert!(now.sum("manifold_source_entries", &[("source", "1")]) >= 2.0);
    assert!(now.sum("manifold_process_resident_memory_bytes", &[]) > 1e6);
    for (name, family) in &now.families {
        for (_, labels, value) in &family.samples {
            let counts = |(_, then, old): &(String, _, f64)| then == labels && old > value;
            let fell = family.kind == "counter" && before.families[name].samples.iter().any(counts);
            assert!(!fell, "{name} {labels:?} has fallen to {value}");
        }
    }
    daemon.interrupt();
}

#[test]
fn http_is_answered_to_this_machine_alone_and_not_at_all_by_default() {
    let home = Home::new();
    let pictures = home.source("Pictures");
    let (daemon, address) = up_with_http(&home, &[text(&pictures)]);
    // The kernel's own table: local address and port in hex, and the state, of which 0A is listening.
    let table = fs::read_to_string("/proc/net/tcp").expect("the table")
        + &fs::read_to_string("/proc/net/tcp6").unwrap_or_default();
    let port = format!(":{:04X}", address.port());
    let listening = table.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        (fields.get(3) == Some(&"0A") && fields[1].ends_with(&port))
            .then(|| fields[1].trim_end_matches(&port).to_owned())
    });
    assert_eq!(listening.collect::<Vec<_>>(), ["0100007F"]);
    assert!(get(address, "metrics.example.org").starts_with("HTTP/1.1 403 "));
    assert!(get(address, &address.to_string()).starts_with("HTTP/1.1 200 "));
    daemon.interrupt();
    assert!(TcpStream::connect(address).is_err(), "it ends with the daemon");

    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let settings = format!("metrics.listen = \"{}\"\n", taken.local_addr().expect("an address"));
    fs::write(home.settings(), settings).expect("write");
    home.run(&["up"])
        .refused(&["cannot listen on 127.0.0.1:", "for metrics", "hint: ", "metrics.listen"]);
    assert!(!is_mounted(&home.point()));

    fs::write(home.settings(), "").expect("write");
    let daemon = home.up(&[]);
    assert!(!daemon.interrupt().contains("metrics at"));
}
