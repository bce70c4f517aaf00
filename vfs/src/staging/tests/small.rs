//! Short files, whose bytes lie beside their rows.

use super::*;

/// A staging area with room in memory for all that these tests write.
fn area() -> (TempDir, Arc<Rows>, Staging) {
    let (folder, rows) = (TempDir::new().unwrap(), Arc::new(Rows::default()));
    let (staging, _) = open_with(&folder, &rows, SMALL);
    (folder, rows, staging)
}

fn data_files(folder: &TempDir) -> usize {
    std::fs::read_dir(folder.path()).unwrap().count()
}

#[test]
fn a_short_file_has_no_data_file_and_leaves_memory_when_it_is_durable_and_unused() {
    let (folder, rows, staging) = area();
    let file = stage(&staging, None);
    let in_use = file.use_it().unwrap();
    file.write(Place::At(0), b"short", 1).unwrap();
    assert!(
        rows.beside.lock().is_empty(),
        "it is written before anybody asks for it"
    );
    staging.sync(&file).unwrap();
    assert_eq!(rows.beside.lock()[&ID], b"short");
    assert_eq!(staging.held(), 5);
    drop(in_use);
    assert_eq!(staging.held(), 0, "nobody uses it");
    assert_eq!((contents(&file), staging.held()), (b"short".to_vec(), 0));
    file.write(Place::End, b"er", 1).unwrap();
    assert_eq!(staging.held(), 7, "what is not durable stays");
    assert_eq!(
        rows.beside.lock()[&ID],
        b"short",
        "what is durable is not changed in place"
    );
    staging.sync(&file).unwrap();
    assert_eq!(
        (rows.beside.lock()[&ID].as_slice(), staging.held()),
        (&b"shorter"[..], 0)
    );
    assert_eq!(data_files(&folder), 0);
}

#[test]
fn a_file_that_grows_gets_a_data_file_and_its_bytes_leave_the_row() {
    let (folder, rows, staging) = area();
    let file = stage(&staging, None);
    file.write(Place::At(3), b"short", 1).unwrap();
    staging.sync(&file).unwrap();
    file.write(Place::At(SMALL), b"long", 1).unwrap();
    assert_eq!((data_files(&folder), staging.held()), (1, 0));
    assert_eq!(
        rows.beside.lock()[&ID],
        b"\0\0\0short",
        "the row knows nothing of it yet"
    );
    let now = contents(&file);
    staging.sync(&file).unwrap();
    assert!(rows.beside.lock().is_empty());
    drop((file, staging));
    let (staging, _) = open_with(&folder, &rows, SMALL);
    let file = staging.get(ID).unwrap();
    assert_eq!(contents(&file), now);
    // And once it is cut to nothing, it is short again.
    file.is_to_be_asked();
    file.truncate(0, 1).unwrap();
    file.write(Place::At(0), b"anew", 1).unwrap();
    staging.sync(&file).unwrap();
    staging.sweep().unwrap();
    assert_eq!(
        (data_files(&folder), rows.beside.lock()[&ID].as_slice()),
        (0, &b"anew"[..])
    );
}

#[test]
fn a_number_is_not_used_again_that_a_row_without_a_data_file_names() {
    let (folder, rows, staging) = area();
    let file = stage(&staging, None);
    file.write(Place::At(0), b"short", 1).unwrap();
    staging.sync(&file).unwrap();
    let number = || Row::parse(&rows.journal.lock()[&ID]).unwrap().number;
    let before = number();
    drop((file, staging));
    let (staging, _) = open_with(&folder, &rows, SMALL);
    let file = staging.get(ID).unwrap();
    file.write(Place::At(SMALL), b"long", 1).unwrap();
    staging.sync(&file).unwrap();
    assert!(number() > before);
}

#[test]
fn who_has_a_short_file_open_reads_it_when_its_row_is_gone() {
    let (_folder, rows, staging) = area();
    let file = stage(&staging, None);
    file.write(Place::At(0), b"short", 1).unwrap();
    staging.sync(&file).unwrap();
    let (sending, ..) = file.begin_sending().unwrap();
    let sent = staging.sent(&file, sending, b"v2", || {
        rows.beside.lock().clear();
        Ok(())
    });
    assert_eq!(sent.unwrap(), Sent::All);
    assert_eq!(contents(&file), b"short");
    assert_eq!(staging.usage().used, 0);
    drop(file);
    assert_eq!(staging.held(), 0);
    let file = stage(&staging, None);
    file.write(Place::At(0), b"unlinked", 1).unwrap();
    staging.sync(&file).unwrap();
    staging.forget(ID);
    rows.beside.lock().clear();
    assert_eq!(contents(&file), b"unlinked");
}

#[test]
fn bytes_that_are_not_those_of_their_row_are_never_read() {
    for other in [Some(b"SHORT".to_vec()), Some(b"sho".to_vec()), None] {
        let (folder, rows, staging) = area();
        let file = stage(&staging, None);
        file.write(Place::At(0), b"short", 1).unwrap();
        staging.sync(&file).unwrap();
        drop((file, staging));
        rows.beside.lock().clear();
        rows.beside.lock().extend(other.map(|other| (ID, other)));
        let (staging, _) = open_with(&folder, &rows, SMALL);
        let file = staging.get(ID).unwrap();
        assert!(file.read(0, &mut [0; 4]).is_err());
        assert!(file.is_broken().is_some() && file.begin_sending().is_none());
    }
}
