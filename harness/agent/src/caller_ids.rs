//! Ids that a caller supplies: UUIDs in whatever spelling, known by one form, each used once.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::Hash;

use uuid::Uuid;

use crate::defect::{Defect, DefectSet};

/// Why an id can't be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallerIdError {
    /// It is not a UUID.
    #[error("`{0}` is no UUID")]
    NoUuid(String),
    /// Something has it already.
    #[error("the id {0} is in use already")]
    Used(String),
}

/// The ids that are in use.
#[derive(Debug, Clone)]
pub(crate) struct CallerIds<I> {
    used: HashSet<I>,
}

impl<I> Default for CallerIds<I> {
    fn default() -> Self {
        Self {
            used: HashSet::new(),
        }
    }
}

impl<I: Eq + Hash + Clone + Borrow<str> + From<String>> CallerIds<I> {
    pub(crate) fn new(used: impl IntoIterator<Item = I>) -> Self {
        Self {
            used: used.into_iter().collect(),
        }
    }

    /// Takes note of an id that no caller has chosen.
    pub(crate) fn note(&mut self, id: &I) {
        self.used.insert(id.clone());
    }

    /// Takes an id that a caller wants. Returns the form that it is used in from now on.
    pub(crate) fn claim(&mut self, wanted: &I, defects: DefectSet) -> Result<I, CallerIdError> {
        let spelling: &str = wanted.borrow();
        let id = match canonical(spelling) {
            Some(id) => I::from(id),
            None if defects.contains(Defect::UncheckedId) => wanted.clone(),
            None => return Err(CallerIdError::NoUuid(spelling.to_owned())),
        };
        let known_by = if defects.contains(Defect::RespelledDuplicate) {
            wanted
        } else {
            &id
        };
        if !self.used.insert(known_by.clone()) {
            return Err(CallerIdError::Used(id.borrow().to_owned()));
        }
        Ok(id)
    }
}

/// The form in which an id is used everywhere: hyphenated, in lower case.
pub(crate) fn canonical(spelling: &str) -> Option<String> {
    let id = Uuid::try_parse(spelling).ok()?;
    Some(id.hyphenated().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    use cutpoint_protocol::ids::TurnId;

    const ID: &str = "0193e0f4-5c2a-7e0b-9f7d-2f6a8c1b4d5e";

    #[test]
    fn every_spelling_is_one_id() {
        let simple = ID.replace('-', "");
        let spellings = [
            ID.to_owned(),
            ID.to_uppercase(),
            simple.to_uppercase(),
            format!("{{{ID}}}"),
            format!("urn:uuid:{ID}"),
            simple,
        ];
        let mut ids = CallerIds::default();
        for (at, spelling) in spellings.iter().enumerate() {
            assert_eq!(canonical(spelling).as_deref(), Some(ID), "{spelling}");
            let claimed = ids.claim(&TurnId::from(spelling), DefectSet::default());
            let expected = match at {
                0 => Ok(TurnId::from(ID)),
                _ => Err(CallerIdError::Used(ID.to_owned())),
            };
            assert_eq!(claimed, expected, "{spelling}");
        }
    }

    #[test]
    fn what_is_no_uuid_is_refused() {
        let mut ids = CallerIds::<TurnId>::default();
        for text in ["", "seven", " 0193e0f4", "{}", &ID[1..], &format!("{ID}0")] {
            let fault = ids.claim(&text.into(), DefectSet::default()).unwrap_err();
            assert!(fault.to_string().ends_with("is no UUID"), "{fault}");
        }
    }

    #[test]
    fn an_id_that_was_given_otherwise_is_in_use() {
        let mut ids = CallerIds::new([TurnId::from(ID)]);
        assert!(
            ids.claim(&ID.to_uppercase().into(), DefectSet::default())
                .is_err()
        );
        let other = TurnId::from(ID.replace('4', "5"));
        ids.note(&other);
        assert!(ids.claim(&other, DefectSet::default()).is_err());
    }
}
