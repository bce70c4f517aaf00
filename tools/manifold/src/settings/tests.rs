//! What a settings file may hold, and what is said where it may not.

use std::path::{Path, PathBuf};
use std::time::Duration;

use manifold_vfs::Placement;

use super::{Level, Settings, table, template, values};

fn complaints(text: &str) -> Vec<String> {
    let complaints = Settings::parse(text.as_bytes(), Some(Path::new("/home/ada"))).expect_err("the text is wrong");
    complaints.iter().map(ToString::to_string).collect()
}

fn parsed(text: &str) -> Settings {
    Settings::parse(text.as_bytes(), Some(Path::new("/home/ada"))).expect("the text is right")
}

#[test]
fn the_written_file_changes_nothing() {
    assert_eq!(parsed(&template()), Settings::default());
}

#[test]
fn every_default_that_is_written_down_is_the_one_that_holds() {
    let uncommented: String = template()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let mut settings = parsed(&uncommented);
    assert_eq!(
        settings.given.len(),
        table::KEYS.len(),
        "every key stands in the file once"
    );
    settings.given.clear();
    assert_eq!(settings, Settings::default());
}

#[test]
fn what_is_shown_can_be_read_back() {
    let settings =
        parsed("[cache]\ndirectory = \"/var/cache/a\\\"b\"\ndisk_bytes = \"1.5 GiB\"\n[log]\nlevel=\"debug\"\n");
    let mut text = String::new();
    for shown in settings.shown() {
        text.extend([&shown.key, " = ", &shown.value, "\n"]);
    }
    let mut again = parsed(&text);
    again.given = settings.given.clone();
    assert_eq!(again, settings);
}

#[test]
fn values_of_every_kind_are_read() {
    let settings = parsed(
        "cache.directory = \"~/blocks\"\n\
         cache.disk_bytes = 0\n\
         cache.memory_bytes = \"64 MB\"\n\
         deadlines.data = \"2 min\"\n\
         log.level = \"trace\"\n\
         mount.allow_other = true\n\
         mount.point = \"/mnt/all\"\n\
         scan.concurrency = 0x10\n",
    );
    assert_eq!(settings.cache.directory, Some(PathBuf::from("/home/ada/blocks")));
    assert_eq!(settings.cache.disk_bytes, 0);
    assert_eq!(settings.cache.memory_bytes, 64_000_000);
    assert_eq!(settings.deadlines.data, Duration::from_mins(2));
    assert_eq!(settings.log.level, Level::Trace);
    assert!(settings.mount.allow_other);
    assert_eq!(settings.mount.point, Some(PathBuf::from("/mnt/all")));
    assert_eq!(settings.scan.concurrency, 16);
}

#[test]
fn unknown_names_are_refused_with_the_nearest_one_and_their_place() {
    assert_eq!(
        complaints("[cache]\ndisk_byts = \"1 GiB\"\n\n[mout]\nallow_other = true\n"),
        [
            "2:1: unknown setting `cache.disk_byts`; did you mean `cache.disk_bytes`?",
            "4:2: unknown table `[mout]`; did you mean `mount`?",
        ]
    );
    assert_eq!(
        complaints("passthrough = true"),
        ["1:1: unknown setting `passthrough`; did you mean `mount.passthrough`?"]
    );
    assert_eq!(complaints("zzz = 1"), ["1:1: unknown setting `zzz`"]);
}

#[test]
fn wrong_types_and_ranges_are_refused_with_their_place() {
    assert_eq!(
        complaints(
            "[cache]\n\
             disk_bytes = true\n\
             memory_bytes = \"1 MiB\"\n\
             directory = \"blocks\"\n\
             [deadlines]\n\
             data = 10\n\
             metadata = \"10 parsecs\"\n\
             connect = \"2 h\"\n\
             [scan]\n\
             concurrency = -1\n\
             [log]\n\
             level = \"loud\"\n\
             [mount]\n  passthrough = \"yes\"\n\
             [metrics]\nlisten = \"0.0.0.0:9469\"\n"
        ),
        [
            "2:14: bad value of `cache.disk_bytes`: expected a size such as \"10 GiB\", found true or false",
            "3:16: bad value of `cache.memory_bytes`: out of range, expected 32 MiB to 1 TiB",
            "4:13: bad value of `cache.directory`: expected an absolute path, or one that begins with ~/",
            "6:8: bad value of `deadlines.data`: expected a time with its unit, such as \"10 s\", found a whole number",
            "7:12: bad value of `deadlines.metadata`: expected a time with its unit, such as \"500 ms\", \"10 s\" or \"2 min\"",
            "8:11: bad value of `deadlines.connect`: out of range, expected 100 ms to 5 min",
            "10:15: bad value of `scan.concurrency`: out of range, expected 1 to 64",
            "12:9: bad value of `log.level`: expected one of error, warn, info, debug, trace",
            "14:17: bad value of `mount.passthrough`: expected true or false, found a text",
            "16:10: bad value of `metrics.listen`: 0.0.0.0 is not an address of this machine alone, expected one such as \"127.0.0.1:9469\" or \"[::1]:9469\"",
        ]
    );
    assert_eq!(
        complaints("mount = 3"),
        ["1:1: `mount` is a table of settings, and not a whole number"]
    );
}

#[test]
fn metrics_are_offered_to_this_machine_alone() {
    for good in ["127.0.0.1:9469", "127.8.9.1:0", "[::1]:9469"] {
        let settings = parsed(&format!("metrics.listen = \"{good}\""));
        assert_eq!(settings.metrics.listen, Some(good.parse().expect("an address")));
    }
    assert_eq!(parsed("metrics.listen = \"\"").metrics.listen, None);
    for bad in [
        "0.0.0.0:9469",
        "192.168.1.2:9469",
        "[::]:9469",
        "[::ffff:127.0.0.1]:9469",
        "[2001:db8::1]:9469",
        "localhost:9469",
        "127.0.0.1",
        ":9469",
        "127.0.0.1:99999",
    ] {
        let found = complaints(&format!("[metrics]\n\nlisten = \"{bad}\"\n"));
        assert!(
            found[0].starts_with("3:10: bad value of `metrics.listen`: "),
            "{found:?}"
        );
    }
}

#[test]
fn columns_count_characters() {
    assert_eq!(complaints("cache = { \"größe\" = 1, memory_bytes = 1 }").len(), 2);
    assert!(complaints("cache = { \"größe\" = 1, memory_bytes = 1 }")[1].starts_with("1:39: "));
}

#[test]
fn text_that_is_not_toml_is_refused_with_its_place() {
    let found = complaints("[cache]\ndisk_bytes = \n");
    assert!(found[0].starts_with("2:"), "{found:?}");
    let found = Settings::parse(b"[cache]\n# \xff\n", None).expect_err("it is not UTF-8");
    assert_eq!(found[0].to_string(), "2:3: the file is not UTF-8 from here on");
}

#[test]
fn sizes_and_times_that_are_none_are_told_apart_from_those_that_are() {
    for good in ["0", "1", "10GiB", "10 gib", "1.5 TB", "7 B"] {
        assert!(values::size(good).is_some(), "{good}");
    }
    for bad in [
        "",
        "GiB",
        "-1",
        "1 GiBB",
        "1..5 GiB",
        "1. GiB",
        ".5 GiB",
        "99999999999 TiB",
        "18446744073709551616",
        "１ B",
    ] {
        assert_eq!(values::size(bad), None, "{bad}");
    }
    for bad in ["", "10", "s", "-1 s", "1 w", "99999999999999999999 h"] {
        assert_eq!(values::duration(bad), None, "{bad}");
    }
    assert_eq!(values::duration("1.5 s"), Some(Duration::from_millis(1500)));
    assert_eq!(values::duration("2 d"), Some(Duration::from_hours(48)));
    assert_eq!(values::show_size(20 << 30), "20 GiB");
    assert_eq!(values::show_size(1_000_001), "1000001 B");
    assert_eq!(values::show_duration(Duration::from_secs(90)), "90 s");
    assert_eq!(values::show_duration(Duration::from_hours(36)), "36 h");
}

#[test]
fn unions_are_read_and_shown() {
    let text = "[[union]]\nat = \"/photos/\"\n[[union]]\nat = \"/\"\nmembers = [\"b\", \"a\"]\nplace = \"most-free\"\n\
                min_free = \"2 GiB\"\nrules = [{ glob = \"*.raw\", member = \"nas\" }]\n";
    let settings = parsed(text);
    let [photos, root] = &settings.unions[..] else {
        panic!("two unions: {:?}", settings.unions);
    };
    assert_eq!(
        (photos.at.as_str(), photos.place, photos.min_free),
        ("/photos", Placement::First, 1 << 30)
    );
    assert_eq!(
        (root.at.as_str(), root.place, root.min_free),
        ("/", Placement::MostFree, 2 << 30)
    );
    assert_eq!(root.members, ["b", "a"]);
    assert_eq!(root.rules, [("*.raw".to_owned(), "nas".to_owned())]);
    let shown = settings.shown();
    let shown = shown.iter().find(|one| one.key == "union").expect("it is shown");
    assert_eq!(parsed(&format!("union = {}", shown.value)).unions, settings.unions);
}

#[test]
fn what_is_wrong_with_a_union_is_told_with_its_place() {
    for (text, place, words) in [
        ("union = 1", "1:1", "list of tables"),
        ("[[union]]\nplace = \"first\"", "1:1", "union.at"),
        ("[[union]]\nat = \"photos\"", "2:6", "path of the library"),
        ("[[union]]\nat = \"/a/../b\"", "2:6", "path of the library"),
        ("[[union]]\nat = \"/a\"\nplace = \"best\"", "3:9", "most-free"),
        ("[[union]]\nat = \"/a\"\nmin_free = \"much\"", "3:12", "size"),
        ("[[union]]\nat = \"/a\"\nmember = []", "3:1", "unknown setting"),
        (
            "[[union]]\nat = \"/a\"\nrules = [{ glob = \"[\", member = \"b\" }]",
            "3:10",
            "pattern",
        ),
        ("[[union]]\nat = \"/a\"\n[[union]]\nat = \"/a/\"", "3:1", "two unions"),
    ] {
        let said = complaints(text);
        assert!(
            said.len() == 1 && said[0].starts_with(place) && said[0].contains(words),
            "{text}: {said:?}"
        );
    }
}
