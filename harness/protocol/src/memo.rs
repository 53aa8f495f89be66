//! Texts that were read before.

use std::collections::HashMap;

use foldhash::fast::RandomState;

/// The longest text that is kept, in bytes. Longer ones are rare, and seldom come twice.
const TEXT_LIMIT_BYTES: usize = 32 << 10;
/// How many bytes of text one generation of a memo holds.
const HELD_LIMIT_BYTES: usize = 2 << 20;

/// What texts were read as. Thousands of schedules of one scenario exchange nearly the same bytes, and
/// reading them as JSON is most of the work; what is kept must be cheap to copy.
///
/// There are two generations: when the new one is full, it becomes the old one, and what nobody has asked
/// for since the last time is forgotten.
#[derive(Debug)]
pub struct Memo<T> {
    new: Generation<T>,
    old: Generation<T>,
    held_bytes: usize,
}

type Generation<T> = HashMap<Box<[u8]>, T, RandomState>;

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Self {
            new: HashMap::default(),
            old: HashMap::default(),
            held_bytes: 0,
        }
    }
}

impl<T: Clone> Memo<T> {
    /// What `read` makes of the text, or has made of it before.
    ///
    /// # Errors
    /// That of `read`; a text that could not be read is not kept.
    pub fn read<E>(&mut self, text: &[u8], read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        if text.len() > TEXT_LIMIT_BYTES {
            return read();
        }
        if let Some(known) = self.new.get(text) {
            return Ok(known.clone());
        }
        let (text, known) = match self.old.remove_entry(text) {
            Some(known) => known,
            None => (text.into(), read()?),
        };
        if self.held_bytes + text.len() > HELD_LIMIT_BYTES {
            self.old = std::mem::take(&mut self.new);
            self.held_bytes = 0;
        }
        self.held_bytes += text.len();
        self.new.insert(text, known.clone());
        Ok(known)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn a_text_is_read_once_and_a_bad_one_each_time() {
        let mut memo = Memo::default();
        let mut read = 0;
        for _ in 0..3 {
            let mut count = || {
                read += 1;
                Ok::<_, Infallible>(read)
            };
            assert_eq!(memo.read(b"one", &mut count), Ok(1));
        }
        assert_eq!(memo.read(b"bad", || Err("no")), Err("no"));
        assert_eq!(memo.read(b"bad", || Ok::<_, &str>(7)), Ok(7));
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut memo = Memo::default();
        let long = vec![b'x'; TEXT_LIMIT_BYTES + 1];
        for number in 0..2_u8 {
            let read = memo.read(&long, || Ok::<_, Infallible>(number));
            assert_eq!(read, Ok(number));
        }
        let pieces = HELD_LIMIT_BYTES / TEXT_LIMIT_BYTES;
        for number in 0..=pieces {
            let mut text = vec![b'x'; TEXT_LIMIT_BYTES];
            text[..8].copy_from_slice(&(number as u64).to_le_bytes());
            memo.read(&text, || Ok::<_, Infallible>(0)).unwrap();
            assert!(memo.held_bytes <= HELD_LIMIT_BYTES);
        }
        assert_eq!((memo.new.len(), memo.old.len()), (1, pieces));
    }
}
