//! Maps and sets with a fast hash: the keys come from a trace, so no attacker makes them collide.

use foldhash::fast::RandomState;

/// A map.
pub(crate) type HashMap<K, V> = std::collections::HashMap<K, V, RandomState>;
/// A set.
pub(crate) type HashSet<T> = std::collections::HashSet<T, RandomState>;
