//! The library as other programs see it over its control socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use manifold_tests::mounted::Library;
use serde_json::{Value, json};

/// Asks the daemon something, and gives the answer, or what it says is wrong.
fn ask(library: &Library, mut request: Value) -> Result<Value, String> {
    request["version"] = json!(1);
    let mut stream = UnixStream::connect(library.state().join("control.sock")).expect("the daemon listens");
    writeln!(stream, "{request}").expect("the daemon reads");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("the daemon answers");
    let answer: Value = serde_json::from_str(&line).expect("the answer is JSON");
    match &answer["error"] {
        Value::Null => Ok(answer["reply"].clone()),
        error => Err(error["message"].as_str().expect("a message is text").to_owned()),
    }
}

/// An entry as the daemon tells of it.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) is_directory: bool,
    pub(crate) size: usize,
}

impl Entry {
    fn of(value: &Value) -> Self {
        Self {
            name: value["name"].as_str().unwrap_or_default().to_owned(),
            is_directory: value["kind"] == "directory",
            size: value["size"].as_u64().unwrap_or_default() as usize,
        }
    }
}

/// Lists a directory.
pub(crate) fn list(library: &Library, path: &str) -> Result<Vec<Entry>, String> {
    let answer = ask(
        library,
        json!({"request": "list", "path": path, "after": null, "limit": 1000}),
    )?;
    assert_eq!(answer["more"], false, "a directory of the model is small");
    let entries = answer["entries"].as_array().expect("a list of entries");
    Ok(entries.iter().map(Entry::of).collect())
}

/// Looks at an entry.
pub(crate) fn stat(library: &Library, path: &str) -> Result<Entry, String> {
    let answer = ask(library, json!({"request": "stat", "path": path}))?;
    Ok(Entry::of(answer.get("entry").unwrap_or(&answer)))
}

/// Learns the BLAKE3 of what a file holds.
pub(crate) fn hash(library: &Library, path: &str) -> Result<String, String> {
    let answer = ask(library, json!({"request": "hash", "path": path}))?;
    Ok(answer["content"].as_str().expect("a hash is text").to_owned())
}
