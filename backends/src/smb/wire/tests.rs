use proptest::prelude::*;
use smb2::msg::create::CreateRequest;
use smb2::pack::{ReadCursor, Unpack};

use super::*;

fn units(text: &str) -> Vec<u16> {
    text.encode_utf16().collect()
}

/// One entry of a page, field by field as MS-FSCC 2.4.22 has it.
fn entry(next: u32, name: &[u16], attributes: u32, tag: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(next.to_le_bytes());
    bytes.extend(7u32.to_le_bytes()); // FileIndex
    bytes.extend(1u64.to_le_bytes()); // CreationTime
    bytes.extend(2u64.to_le_bytes()); // LastAccessTime
    bytes.extend(3u64.to_le_bytes()); // LastWriteTime
    bytes.extend(4u64.to_le_bytes()); // ChangeTime
    bytes.extend(100u64.to_le_bytes()); // EndOfFile
    bytes.extend(4096u64.to_le_bytes()); // AllocationSize
    bytes.extend(attributes.to_le_bytes());
    bytes.extend((name.len() as u32 * 2).to_le_bytes());
    bytes.extend(tag.to_le_bytes()); // EaSize
    bytes.extend([0, 0]); // ShortNameLength, Reserved
    bytes.extend([0; 24]); // ShortName
    bytes.extend([0, 0]); // Reserved2
    bytes.extend(0x0123_4567_89AB_CDEF_u64.to_le_bytes()); // FileId
    for unit in name {
        bytes.extend(unit.to_le_bytes());
    }
    bytes
}

#[test]
fn an_open_is_what_the_protocol_expects() {
    let name = units("Größe\\😀.txt");
    let mut cursor = WriteCursor::new();
    Open {
        name: &name,
        access: READ_FILE,
        options: NON_DIRECTORY_FILE,
        disposition: FILE_OPEN,
    }
    .pack(&mut cursor);
    let bytes = cursor.into_inner();
    let parsed = CreateRequest::unpack(&mut ReadCursor::new(&bytes)).expect("a CREATE request");
    assert_eq!(parsed.name, "Größe\\😀.txt");
    assert_eq!(parsed.create_options, NON_DIRECTORY_FILE);
    assert_eq!(parsed.desired_access.bits(), READ_FILE);
    assert_eq!(parsed.share_access.0, SHARE_READ_WRITE_DELETE);
}

#[test]
fn a_page_brings_every_entry_but_the_dots_and_a_lone_surrogate_does_not_spoil_it() {
    let mut page = Vec::new();
    let names = [units("."), units(".."), vec![0xD83D, 0x61], units("plain")];
    for (index, name) in names.iter().enumerate() {
        let mut bytes = entry(0, name, 0x20, 9);
        if index + 1 < names.len() {
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            let next = bytes.len() as u32;
            bytes[..4].copy_from_slice(&next.to_le_bytes());
        }
        page.extend(bytes);
    }
    let entries = directory_page(&page, true).expect("a page");
    assert_eq!(
        entries.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(),
        names[2..]
    );
    let facts = entries[1].1;
    assert_eq!(
        (facts.size, facts.modified, facts.changed, facts.created),
        (100, 3, 4, 1)
    );
    assert_eq!((facts.index, facts.tag), (0x0123_4567_89AB_CDEF, 0));
}

#[test]
fn the_tag_of_a_reparse_point_is_read_in_place_of_its_attribute_size() {
    let page = entry(0, &units("link"), Facts::REPARSE_POINT, Facts::TAG_SYMLINK);
    assert_eq!(
        directory_page(&page, true).expect("a page")[0].1.tag,
        Facts::TAG_SYMLINK
    );
}

#[test]
fn a_page_that_makes_no_sense_is_an_error_and_not_a_shorter_page() {
    let whole = entry(0, &units("name"), 0, 0);
    assert!(directory_page(&whole[..whole.len() - 1], true).is_err());
    assert!(directory_page(&whole[..50], true).is_err());
    assert!(directory_page(&entry(8, &units("loop"), 0, 0), true).is_err());
    assert!(directory_page(&entry(4096, &units("far"), 0, 0), true).is_err());
    assert!(directory_page(&entry(0, &[], 0, 0), true).is_err());
}

#[test]
fn links_of_windows_and_of_wsl_are_read() {
    let shown = units("..\\other\\file");
    let used = units("\\??\\C:\\other\\file");
    let mut data = Vec::new();
    data.extend(((shown.len() * 2) as u16).to_le_bytes()); // SubstituteNameOffset: after the print name
    data.extend(((used.len() * 2) as u16).to_le_bytes());
    data.extend(0u16.to_le_bytes()); // PrintNameOffset
    data.extend(((shown.len() * 2) as u16).to_le_bytes());
    data.extend(1u32.to_le_bytes()); // Flags: relative
    for unit in shown.iter().chain(&used) {
        data.extend(unit.to_le_bytes());
    }
    let reparse = |tag: u32, data: &[u8]| {
        let mut bytes = tag.to_le_bytes().to_vec();
        bytes.extend((data.len() as u16).to_le_bytes());
        bytes.extend([0, 0]);
        bytes.extend(data);
        bytes
    };
    assert_eq!(
        link_target(&reparse(Facts::TAG_SYMLINK, &data)),
        Ok(Some(LinkTarget::Windows(shown)))
    );
    assert_eq!(
        link_target(&reparse(Facts::TAG_LX_SYMLINK, b"\x02\0\0\0../x")),
        Ok(Some(LinkTarget::Unix(b"../x".to_vec())))
    );
    assert_eq!(link_target(&reparse(0x9000_001A, b"cloud")), Ok(None));
    assert!(link_target(&reparse(Facts::TAG_SYMLINK, &data[..20])).is_err());
}

#[test]
fn data_that_lies_outside_its_answer_is_refused() {
    let mut body = vec![17, 0, 80, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    body.extend(b"data");
    assert_eq!(read_data(body.clone()).expect("data"), b"data"[..]);
    body[4] = 5;
    assert!(read_data(body.clone()).is_err());
    body[2] = 63;
    assert!(read_data(body).is_err());
}

proptest! {
    #[test]
    fn no_answer_makes_the_readers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = directory_page(&bytes, true);
        let _ = directory_page(&bytes, false);
        let _ = all_information(&bytes);
        let _ = link_target(&bytes);
        let _ = output_buffer(&bytes);
        let _ = read_data(bytes);
    }
}
