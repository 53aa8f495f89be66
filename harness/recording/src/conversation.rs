//! The items of a conversation, put together from its requests and answers.

use std::collections::HashMap;

use cutpoint_protocol::Item;

use crate::normalise::{NormalItem, normalise};
use crate::recording::Recording;

/// A conversation in the making. Each request carries most of what the ones before it carried; it is
/// taken once.
#[derive(Debug, Default)]
pub struct Conversation {
    items: Vec<Item>,
    /// What the next request is expected to begin with.
    known: Vec<Vec<NormalItem>>,
}

impl Conversation {
    /// Takes a request's whole history: what it has beyond what is known is new. An agent may mend its
    /// history, so that what is new need not come last.
    pub fn request(&mut self, history: &[Item]) {
        let named = history.iter().map(|item| (item, name(item)));
        let named: Vec<_> = named.filter(|(_, name)| !name.is_empty()).collect();
        let mut known: HashMap<&[NormalItem], usize> = HashMap::new();
        for name in &self.known {
            *known.entry(name).or_default() += 1;
        }
        for (item, name) in &named {
            match known.get_mut(name.as_slice()).filter(|left| **left > 0) {
                Some(left) => *left -= 1,
                None => self.items.push((*item).clone()),
            }
        }
        self.known = named.into_iter().map(|(_, name)| name).collect();
    }

    /// Takes an item that the model answered with.
    pub fn answer(&mut self, item: Item) {
        let name = name(&item);
        if !name.is_empty() {
            self.known.push(name);
            self.items.push(item);
        }
    }

    /// The items, in the order in which they came to be known.
    pub fn into_items(self) -> Vec<Item> {
        self.items
    }
}

/// What an item is by itself; empty for what is not a part of a conversation.
fn name(item: &Item) -> Vec<NormalItem> {
    normalise(std::slice::from_ref(item))
}

impl Recording {
    /// The items of the whole conversation, each once. Of exchanges without a request the answers alone
    /// are known.
    pub fn items(&self) -> Vec<Item> {
        let mut conversation = Conversation::default();
        for asked in self.model_exchanges() {
            if let Some(history) = &asked.history {
                conversation.request(history);
            }
            for item in asked.answer.items {
                conversation.answer(item);
            }
        }
        conversation.into_items()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(role: &str, text: &str) -> Item {
        Item::from_value(json!({"type": "message", "role": role, "content": text})).unwrap()
    }

    fn texts(conversation: Conversation) -> Vec<String> {
        let items = conversation.into_items();
        items
            .iter()
            .map(|item| item.all_text().to_owned())
            .collect()
    }

    #[test]
    fn what_requests_repeat_is_taken_once() {
        let mut conversation = Conversation::default();
        conversation.request(&[said("developer", "rules"), said("user", "one")]);
        conversation.answer(said("assistant", "1"));
        conversation.request(&[
            said("user", "one"),
            said("assistant", "1"),
            said("user", "two"),
        ]);
        conversation.answer(said("assistant", "2"));
        assert_eq!(texts(conversation), ["one", "1", "two", "2"]);
    }

    #[test]
    fn what_is_put_in_between_later_makes_nothing_new_of_the_rest() {
        let mut conversation = Conversation::default();
        conversation.request(&[
            said("user", "one"),
            said("user", "two"),
            said("user", "two"),
        ]);
        let (one, two) = (said("user", "one"), said("user", "two"));
        conversation.request(&[one, said("user", "more"), two.clone(), two.clone(), two]);
        assert_eq!(texts(conversation), ["one", "two", "two", "more", "two"]);
    }

    #[test]
    fn an_answer_that_the_next_request_lacks_was_still_given() {
        let mut conversation = Conversation::default();
        conversation.request(&[said("user", "one")]);
        conversation.answer(said("assistant", "1"));
        conversation.request(&[said("user", "one"), said("user", "two")]);
        assert_eq!(texts(conversation), ["one", "1", "two"]);
    }
}
