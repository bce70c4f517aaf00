//! What may be in a place of an upload that was not confirmed: the states of the file that were sent to their end. They stand where the
//! version of what is left stands otherwise, since nobody knows which one the source has made of them.

/// The first byte. No version of an object begins with it.
const MARK: u8 = 0;
const STATE_LEN: usize = 8 + 32;
/// The most states of one place.
const STATES_MAX: usize = (crate::VERSION_MAX - 1) / STATE_LEN;

/// A state of a file that was sent to its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentState {
    /// Its length in bytes.
    pub size: u64,
    /// The BLAKE3 of its bytes.
    pub hash: [u8; 32],
}

/// Gives the bytes that stand for states, as many of the first as there is room for.
pub(crate) fn encode_sent(states: &[SentState]) -> Vec<u8> {
    let mut bytes = vec![MARK];
    for state in states.iter().take(STATES_MAX) {
        bytes.extend_from_slice(&state.size.to_le_bytes());
        bytes.extend_from_slice(&state.hash);
    }
    bytes
}

/// Reads the states back; `None`: it is a version.
pub(crate) fn decode_sent(version: &[u8]) -> Option<Vec<SentState>> {
    let (&MARK, states) = version.split_first()? else {
        return None;
    };
    let states = states.chunks_exact(STATE_LEN).map(|state| {
        let (size, hash) = state.split_first_chunk()?;
        Some(SentState {
            size: u64::from_le_bytes(*size),
            hash: hash.try_into().ok()?,
        })
    });
    states.collect()
}

/// Tells whether states stand there.
pub(crate) fn is_sent(version: &[u8]) -> bool {
    version.first() == Some(&MARK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_what_the_format_says() {
        let state = |size, byte| SentState { size, hash: [byte; 32] };
        let states = [state(5, 7), state(0x0102, 9)];
        let bytes = encode_sent(&states);
        assert_eq!(bytes[..10], [0, 5, 0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!((bytes.len(), &bytes[41..43]), (81, &[2, 1][..]));
        assert_eq!(decode_sent(&bytes).as_deref(), Some(&states[..]));
        assert_eq!((decode_sent(b"\x01\"tag\""), decode_sent(b"")), (None, None));
        assert!(is_sent(&bytes) && !is_sent(b"\x01\"tag\"") && !is_sent(b""));
        assert!(encode_sent(&[states[0]; 200]).len() <= crate::VERSION_MAX);
    }
}
