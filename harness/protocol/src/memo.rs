//! Texts that were parsed before.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use serde_json::{Map, Value};

/// The longest text that is kept, in bytes. Longer ones are rare, and seldom come twice.
const TEXT_LIMIT_BYTES: usize = 32 << 10;
/// How much memory one generation of a memo takes, in bytes: texts, values and the table.
const GENERATION_LIMIT_BYTES: usize = 2 << 20;
/// What the allocator adds to a piece of memory, about.
const ALLOCATION_BYTES: usize = 16;

/// What a parsed value holds besides itself.
pub trait HeapSize {
    /// The memory that the value owns or shares, in bytes, rounded up rather than down. What is computed
    /// from the text later counts as if it were there.
    fn heap_bytes(&self) -> usize;
}

/// Texts and what they were parsed as. Thousands of schedules of one scenario exchange nearly the same
/// bytes, and parsing them as JSON is most of the work; the values must be cheap to copy.
///
/// There are two generations: when the new one is full, it becomes the old one, and entries that were
/// not used since the last time are dropped.
#[derive(Debug)]
pub struct Memo<T> {
    new: Generation<T>,
    old: Generation<T>,
    new_bytes: usize,
}

type Generation<T> = HashMap<Box<[u8]>, T, RandomState>;

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Self {
            new: HashMap::default(),
            old: HashMap::default(),
            new_bytes: 0,
        }
    }
}

impl<T: Clone + HeapSize> Memo<T> {
    /// The value of the text: a copy of the one known, or the one that `parse` gives.
    ///
    /// # Errors
    /// That of `parse`; an error is not kept.
    pub fn read<E>(&mut self, text: &[u8], parse: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        if text.len() > TEXT_LIMIT_BYTES {
            return parse();
        }
        if let Some(known) = self.new.get(text) {
            return Ok(known.clone());
        }
        let (text, value) = match self.old.remove_entry(text) {
            Some(known) => known,
            None => (text.into(), parse()?),
        };
        let bytes = entry_bytes(&text, &value);
        if bytes > GENERATION_LIMIT_BYTES {
            return Ok(value);
        }
        if self.new_bytes + bytes > GENERATION_LIMIT_BYTES {
            self.old = std::mem::take(&mut self.new);
            self.new_bytes = 0;
        }
        self.new_bytes += bytes;
        self.new.insert(text, value.clone());
        Ok(value)
    }
}

/// The memory of an entry. The table has up to twice the room that its entries need, and while it grows
/// there are two of it.
fn entry_bytes<T: HeapSize>(text: &[u8], value: &T) -> usize {
    3 * size_of::<(Box<[u8]>, T)>() + text.len() + ALLOCATION_BYTES + value.heap_bytes()
}

/// The memory of a JSON value besides the value itself, in bytes.
pub fn json_heap_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.capacity() + ALLOCATION_BYTES,
        Value::Array(values) => {
            let elements = values.iter().map(json_heap_bytes).sum::<usize>();
            values.capacity() * size_of::<Value>() + ALLOCATION_BYTES + elements
        }
        Value::Object(map) => map_heap_bytes(map),
    }
}

/// The memory of a JSON object's fields, in bytes.
pub fn map_heap_bytes(map: &Map<String, Value>) -> usize {
    if map.is_empty() {
        return 0;
    }
    let field = |(name, value): (&String, &Value)| {
        name.capacity() + ALLOCATION_BYTES + json_heap_bytes(value)
    };
    // A list of fields with their hashes, and a table of places in it; both grow by doubling.
    let room = (map.len() + 1).next_power_of_two().max(4);
    let place = size_of::<(usize, String, Value)>() + size_of::<usize>() + 1;
    room * place + 3 * ALLOCATION_BYTES + map.iter().map(field).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Parsed(usize);

    impl HeapSize for Parsed {
        fn heap_bytes(&self) -> usize {
            self.0
        }
    }

    fn of_size(bytes: usize) -> impl Fn() -> Result<Parsed, Infallible> {
        move || Ok(Parsed(bytes))
    }

    #[test]
    fn a_text_is_parsed_once_and_a_bad_one_each_time() {
        let mut memo = Memo::default();
        let mut parsed = 0;
        for _ in 0..3 {
            let count = || {
                parsed += 1;
                Ok::<_, Infallible>(Parsed(parsed))
            };
            assert_eq!(memo.read(b"one", count), Ok(Parsed(1)));
        }
        assert_eq!(memo.read(b"bad", || Err("no")), Err("no"));
        assert_eq!(
            memo.read(b"bad", || Ok::<_, &str>(Parsed(7))),
            Ok(Parsed(7))
        );
    }

    #[test]
    fn long_texts_and_large_values_are_not_kept() {
        let mut memo = Memo::default();
        let long = vec![b'x'; TEXT_LIMIT_BYTES + 1];
        for (text, bytes) in [(&*long, 1), (b"large", GENERATION_LIMIT_BYTES)] {
            let _ = memo.read(text, of_size(bytes));
        }
        assert!(memo.new.is_empty() && memo.old.is_empty());
    }

    #[test]
    fn the_new_generation_becomes_the_old_one_when_it_is_full() {
        let mut memo = Memo::default();
        let bytes = 10_000;
        let per_generation = GENERATION_LIMIT_BYTES / entry_bytes(&[0; 8], &Parsed(bytes));
        for number in 0..=per_generation as u64 {
            let _ = memo.read(&number.to_le_bytes(), of_size(bytes));
            assert!(memo.new_bytes <= GENERATION_LIMIT_BYTES);
        }
        assert_eq!((memo.new.len(), memo.old.len()), (1, per_generation));
        // What is used again moves on.
        let _ = memo.read(&0_u64.to_le_bytes(), of_size(0));
        assert_eq!((memo.new.len(), memo.old.len()), (2, per_generation - 1));
    }
}
