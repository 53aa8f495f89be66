//! Ids that a caller may spell in several ways.

use uuid::Uuid;

/// The one form of an id that is a UUID, in whatever spelling: hyphenated, in lower case.
pub(crate) fn canonical(spelling: &str) -> Option<String> {
    let id = Uuid::try_parse(spelling).ok()?;
    Some(id.hyphenated().to_string())
}
