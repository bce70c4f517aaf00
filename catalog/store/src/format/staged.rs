//! The row of what is staged: opaque, but neither empty nor endless.

use super::Malformed;

/// The longest row of what is staged, in bytes.
pub const STAGED_ROW_MAX: usize = 1 << 20;

/// The most bytes of a file that the journal takes in beside its row.
pub const STAGED_BYTES_MAX: usize = 1 << 16;

/// Reads what the row's maker wrote.
pub(crate) fn decode_staged(bytes: &[u8]) -> Result<&[u8], Malformed> {
    if bytes.is_empty() || bytes.len() > STAGED_ROW_MAX {
        return Err(Malformed("journal of what is staged"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_neither_empty_nor_endless() {
        assert!(decode_staged(b"").is_err());
        assert!(decode_staged(&vec![0; STAGED_ROW_MAX + 1]).is_err());
        assert_eq!(decode_staged(b"x"), Ok(&b"x"[..]));
        assert!(decode_staged(&vec![0; STAGED_ROW_MAX]).is_ok());
    }
}
