//! What happens to bytes on their way: flipped bits, cuts, holes, splices, joined halves of two.

use proptest::prelude::*;

/// One fault. Places are taken modulo the length of what they are in.
#[derive(Debug, Clone)]
pub enum Fault {
    /// A bit of the byte there is another one.
    Flip(usize, u8),
    /// What stands behind it is gone.
    Cut(usize),
    /// So many bytes from there on are gone.
    Hole(usize, usize),
    /// So many bytes from the first place stand once more at the second.
    Splice(usize, usize, usize),
    /// Behind the first place another file goes on, from the second one.
    Join(usize, usize),
}

/// What a fault has left untouched.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// So many bytes of the beginning.
    pub front: usize,
    /// So many bytes of the end; of the other file, where two were joined.
    pub back: usize,
    /// Whether the end is that of the other file.
    pub joined: bool,
}

/// Any fault.
pub fn fault() -> impl Strategy<Value = Fault> {
    let at = || any::<usize>();
    prop_oneof![
        3 => (at(), 0..8_u8).prop_map(|(at, bit)| Fault::Flip(at, bit)),
        1 => at().prop_map(Fault::Cut),
        2 => (at(), 1..400_usize).prop_map(|(at, length)| Fault::Hole(at, length)),
        2 => (at(), at(), 0..2000_usize).prop_map(|(from, to, length)| Fault::Splice(from, to, length)),
        1 => (at(), at()).prop_map(|(from, to)| Fault::Join(from, to)),
    ]
}

impl Fault {
    /// Does it to the bytes.
    pub fn apply(&self, bytes: &mut Vec<u8>, other: &[u8]) -> Kept {
        let length = bytes.len();
        let place = |at: usize, length: usize| at % length.max(1);
        let kept = |front: usize, back: usize| Kept {
            front,
            back,
            joined: false,
        };
        match *self {
            Self::Flip(at, bit) => {
                let at = place(at, length);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << bit;
                }
                kept(at, length.saturating_sub(at + 1))
            }
            Self::Cut(at) => {
                let at = place(at, length);
                bytes.truncate(at);
                kept(at, 0)
            }
            Self::Hole(at, gone) => {
                let at = place(at, length);
                let end = length.min(at + gone);
                bytes.drain(at..end);
                kept(at, length - end)
            }
            Self::Splice(from, to, more) => {
                let (from, to) = (place(from, length), place(to, length));
                let piece = bytes[from..length.min(from + more)].to_vec();
                bytes.splice(to..to, piece);
                kept(to, length - to)
            }
            Self::Join(from, to) => {
                let (from, to) = (place(from, length), place(to, other.len()));
                bytes.truncate(from);
                bytes.extend_from_slice(&other[to..]);
                Kept {
                    front: from,
                    back: other.len() - to,
                    joined: true,
                }
            }
        }
    }
}
