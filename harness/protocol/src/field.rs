//! Fields of small JSON objects.
//!
//! Items, events and rollout lines have a handful of fields, and `type` is one of the first. To compare
//! the names in order is several times faster than the hash that [`Map::get`] makes of the name, and
//! reading a trace is little else than looking fields up.

use serde_json::{Map, Value};

/// Up to so many fields are looked through in order.
const FEW: usize = 16;

/// A field of an object.
pub fn entry<'v>(map: &'v Map<String, Value>, name: &str) -> Option<&'v Value> {
    if map.len() > FEW {
        return map.get(name);
    }
    let mut entries = map.iter();
    entries.find_map(|(key, value)| (key == name).then_some(value))
}

/// A field of a value, if that is an object.
pub fn field<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    entry(value.as_object()?, name)
}

/// A field that is a string.
pub fn text<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    field(value, name)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_in_small_and_in_large_objects() {
        for length in [1, FEW, FEW + 1, 3 * FEW] {
            let map: Map<String, Value> = (0..length)
                .map(|at| (format!("f{at}"), at.into()))
                .collect();
            let last = format!("f{}", length - 1);
            assert_eq!(entry(&map, &last), Some(&(length - 1).into()));
            assert_eq!(field(&Value::Object(map), "f"), None);
        }
    }

    #[test]
    fn what_is_no_object_has_no_fields() {
        assert_eq!(field(&Value::from("type"), "type"), None);
        assert_eq!(text(&serde_json::json!({"type": 3}), "type"), None);
    }
}
