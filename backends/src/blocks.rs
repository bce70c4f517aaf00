//! The bytes of one range, cut into blocks as they arrive, so that each is copied once at most.
//!
//! Always true: a block has memory of its own. As a slice of something larger it would keep all of that alive, and whoever
//! counts its bytes would not know.

use bytes::{Bytes, BytesMut};

/// Blocks that are being put together.
#[derive(Debug)]
pub(crate) struct Blocks {
    block_size: usize,
    length: usize,
    got: usize,
    done: Vec<Bytes>,
    open: BytesMut,
}

impl Blocks {
    /// Expects `length` bytes, to be cut into blocks of `block_size`; only the last may be shorter.
    pub(crate) fn new(length: u64, block_size: u64) -> Self {
        let to_usize = |it| usize::try_from(it).unwrap_or(usize::MAX);
        Self {
            block_size: to_usize(block_size.max(1)),
            length: to_usize(length),
            got: 0,
            done: Vec::new(),
            open: BytesMut::new(),
        }
    }

    /// Cuts what is there already.
    pub(crate) fn cut(bytes: &[u8], block_size: u64) -> Vec<Bytes> {
        let mut blocks = Self::new(bytes.len() as u64, block_size);
        blocks.push(bytes);
        blocks.done
    }

    /// Copies the next piece; `false` if it is more than was expected.
    pub(crate) fn push(&mut self, mut piece: &[u8]) -> bool {
        if piece.len() > self.length - self.got {
            return false;
        }
        while !piece.is_empty() {
            let missing = self.next_len() - self.open.len();
            if self.open.is_empty() {
                self.open = BytesMut::with_capacity(missing);
            }
            let (now, later) = piece.split_at(piece.len().min(missing));
            self.open.extend_from_slice(now);
            self.got += now.len();
            if now.len() == missing {
                self.done.push(std::mem::take(&mut self.open).freeze());
            }
            piece = later;
        }
        true
    }

    /// Takes the next piece, which has memory of its own: where it is just the next block it is not copied.
    pub(crate) fn adopt(&mut self, piece: Bytes) -> bool {
        if self.open.is_empty() && !piece.is_empty() && piece.len() == self.next_len() {
            self.got += piece.len();
            self.done.push(piece);
            return true;
        }
        self.push(&piece)
    }

    /// Gives the blocks, or how many bytes there are if some are missing.
    pub(crate) fn finish(self) -> Result<Vec<Bytes>, usize> {
        if self.got < self.length {
            Err(self.got)
        } else {
            Ok(self.done)
        }
    }

    /// Gives the length of the block that comes next or has begun.
    fn next_len(&self) -> usize {
        self.block_size.min(self.length - (self.got - self.open.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(length: u64, block_size: u64, pieces: &[&[u8]]) -> Option<Result<Vec<Bytes>, usize>> {
        let mut blocks = Blocks::new(length, block_size);
        pieces.iter().all(|piece| blocks.push(piece)).then(|| blocks.finish())
    }

    #[test]
    fn pieces_of_any_length_come_out_as_blocks() {
        let expected = [&b"abcd"[..], b"efgh", b"ij"].map(Bytes::from_static).to_vec();
        for pieces in [
            &[&b"abcdefghij"[..]][..],
            &[b"a", b"bc", b"", b"defghi", b"j"],
            &[b"abcd", b"efgh", b"ij"],
        ] {
            assert_eq!(gather(10, 4, pieces), Some(Ok(expected.clone())));
        }
        assert_eq!(Blocks::cut(b"abcdefghij", 4), expected);
        assert_eq!(gather(0, 4, &[]), Some(Ok(Vec::new())));
    }

    #[test]
    fn too_little_and_too_much_are_told() {
        assert_eq!(gather(6, 4, &[b"ab", b"c"]), Some(Err(3)));
        assert_eq!(gather(6, 4, &[b"abc", b"defg"]), None);
        assert_eq!(gather(2, 4, &[b"abc"]), None);
    }

    #[test]
    fn only_a_piece_that_is_a_block_is_adopted() {
        let pieces = [vec![1; 4], vec![2; 3], vec![3; 1], vec![4; 2]].map(Bytes::from);
        let places = pieces.clone().map(|piece| piece.as_ptr());
        let mut blocks = Blocks::new(10, 4);
        assert!(pieces.into_iter().all(|piece| blocks.adopt(piece)));
        let blocks = blocks.finish().expect("all is there");
        assert_eq!(blocks.iter().map(Bytes::len).collect::<Vec<_>>(), [4, 4, 2]);
        assert_eq!(blocks[0].as_ptr(), places[0]);
        assert_eq!(&blocks[1][..], [2, 2, 2, 3]);
        assert_eq!(blocks[2].as_ptr(), places[3]);
    }

    #[test]
    fn no_block_keeps_memory_beyond_its_own_bytes() {
        let mut blocks = Blocks::new(1000, 400);
        assert!(blocks.push(&[7; 1000]));
        for block in blocks.finish().expect("all is there") {
            let length = block.len();
            assert_eq!(BytesMut::from(block).capacity(), length);
        }
    }
}
