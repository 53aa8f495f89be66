//! Which conversation of a case a request belongs to.
//!
//! A case has one main conversation. An agent may hold others beside it (a sub-agent, a title
//! generator); those are told apart by their history, because a counter over the whole server would
//! hand one conversation's answers to another.

use std::hash::{DefaultHasher, Hash, Hasher};

use cutpoint_protocol::Item;

/// How many conversations a case keeps apart. Beyond that the oldest but the main one is forgotten,
/// so that a stand-alone server that runs for days does not grow.
const CONVERSATIONS_KEPT: usize = 1024;

/// The conversations of a case, in the order of their first request. The first is the main one.
#[derive(Debug, Default)]
pub struct Conversations {
    /// Ordered by number.
    known: Vec<Conversation>,
    next_number: usize,
}

#[derive(Debug)]
struct Conversation {
    number: usize,
    /// The first text that a user wrote in it.
    opening: Option<Opening>,
    /// Which of the scenario's side conversations it is.
    side: Option<usize>,
    served: usize,
    /// The numbers of the recorded exchanges that were served.
    taken: Vec<usize>,
    /// How many items of the model the last request's history held.
    answers: usize,
}

/// A text's length and hash: the text of a long prompt is not kept for each conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Opening {
    length: usize,
    hash: u64,
}

impl Opening {
    fn of(text: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Self {
            length: text.len(),
            hash: hasher.finish(),
        }
    }
}

impl Conversations {
    /// The conversation that a history belongs to; a new one if it belongs to none. The first one
    /// is the main one, unless `side` finds its opening among those of the side conversations.
    pub fn find(&mut self, history: &[Item], side: impl Fn(&str) -> Option<usize>) -> usize {
        let mut texts = history.iter().filter_map(user_text);
        let first = texts.next();
        let mut openings: Vec<Opening> = first.into_iter().map(Opening::of).collect();
        openings.extend(texts.map(Opening::of));
        let same = |conversation: &Conversation| match &conversation.opening {
            Some(opening) => openings.contains(opening),
            None => openings.is_empty(),
        };
        if let Some(found) = self.known.iter().find(|known| same(known)) {
            return found.number;
        }
        if self.known.len() == CONVERSATIONS_KEPT {
            self.known.remove(1);
        }
        let side = first.and_then(side);
        let main_is_known = self.known.first().is_some_and(|known| known.number == 0);
        let number = if side.is_some() || main_is_known {
            self.next_number = self.next_number.max(1) + 1;
            self.next_number - 1
        } else {
            0
        };
        let conversation = Conversation {
            number,
            opening: openings.first().copied(),
            side,
            served: 0,
            taken: Vec::new(),
            answers: 0,
        };
        // The list is ordered by number, and the main conversation may come late.
        let place = if number == 0 { 0 } else { self.known.len() };
        self.known.insert(place, conversation);
        number
    }

    /// Which of the scenario's side conversations it is, if it is one.
    pub fn side(&self, conversation: usize) -> Option<usize> {
        self.get(conversation)?.side
    }

    /// How many replies the conversation has had.
    pub fn served(&self, conversation: usize) -> usize {
        self.get(conversation).map_or(0, |found| found.served)
    }

    /// Counts a reply.
    pub fn serve(&mut self, conversation: usize) {
        if let Some(found) = self.get_mut(conversation) {
            found.served += 1;
        }
    }

    /// Notes what a request of a recorded conversation knows of the model's answers. One that knows
    /// less than the request before it begins the conversation anew: a client may run the same
    /// recording again and again.
    pub fn follow(&mut self, conversation: usize, history: &[Item]) {
        let answers = history.iter().filter(|item| is_answer(item)).count();
        if let Some(found) = self.get_mut(conversation) {
            if answers < found.answers {
                found.taken.clear();
            }
            found.answers = answers;
        }
    }

    /// The recorded exchanges that the conversation has had.
    pub fn taken(&self, conversation: usize) -> &[usize] {
        self.get(conversation).map_or(&[], |found| &found.taken)
    }

    /// Counts a recorded exchange. One that is served again is counted once, so that a client which
    /// replays the same conversation for days does not make the list grow.
    pub fn take(&mut self, conversation: usize, exchange: usize) {
        if let Some(found) = self.get_mut(conversation)
            && !found.taken.contains(&exchange)
        {
            found.taken.push(exchange);
        }
    }

    fn get(&self, number: usize) -> Option<&Conversation> {
        let at = self
            .known
            .binary_search_by_key(&number, |known| known.number)
            .ok()?;
        self.known.get(at)
    }

    fn get_mut(&mut self, number: usize) -> Option<&mut Conversation> {
        let at = self
            .known
            .binary_search_by_key(&number, |known| known.number)
            .ok()?;
        self.known.get_mut(at)
    }
}

/// Whether the model has made the item.
fn is_answer(item: &Item) -> bool {
    item.role() == Some("assistant") || item.call_kind().is_some()
}

/// What a person wrote; notes of the agent in a user's name are wrapped in a tag and don't count.
fn user_text(item: &Item) -> Option<&str> {
    if item.role() != Some("user") {
        return None;
    }
    let text = item.all_text().trim();
    (!text.starts_with('<')).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn main_only(_: &str) -> Option<usize> {
        None
    }

    #[test]
    fn a_conversation_is_known_by_its_opening() {
        let mut conversations = Conversations::default();
        let environment = Item::user_text("<environment_context>x</environment_context>");
        let main = [environment.clone(), Item::user_text("fix it")];
        let sub = [environment, Item::user_text("review the fix")];
        assert_eq!(conversations.find(&main, main_only), 0);
        assert_eq!(conversations.find(&sub, main_only), 1);
        conversations.serve(0);
        let later = [Item::user_text("fix it"), Item::user_text("and now?")];
        assert_eq!(conversations.find(&later, main_only), 0);
        assert_eq!((conversations.served(0), conversations.served(1)), (1, 0));
    }

    #[test]
    fn a_conversation_beside_the_main_one_may_come_first() {
        let mut conversations = Conversations::default();
        let mut find = |text: &str| {
            let side = |opening: &str| (opening == "review it").then_some(3);
            conversations.find(&[Item::user_text(text)], side)
        };
        let found = ["review it", "fix it", "review it", "title it", "fix it"].map(&mut find);
        assert_eq!(found, [1, 0, 1, 2, 0]);
        assert_eq!(
            [0, 1, 2].map(|at| conversations.side(at)),
            [None, Some(3), None]
        );
    }

    #[test]
    fn a_conversation_that_forgets_its_answers_begins_anew() {
        let mut conversations = Conversations::default();
        let answer = serde_json::json!({"role": "assistant", "content": "hello"});
        let answer = Item::from_value(answer).unwrap();
        let opening = [Item::user_text("hi")];
        let later = [Item::user_text("hi"), answer, Item::user_text("and now?")];
        let at = conversations.find(&opening, main_only);
        for (history, taken) in [(&opening[..], &[][..]), (&later, &[1]), (&opening, &[])] {
            conversations.follow(at, history);
            assert_eq!(conversations.taken(at), taken);
            conversations.take(at, 1 + taken.len());
        }
    }

    #[test]
    fn the_number_of_conversations_is_bounded() {
        let mut conversations = Conversations::default();
        for n in 0..3 * CONVERSATIONS_KEPT {
            let found = conversations.find(&[Item::user_text(&format!("task {n}"))], main_only);
            assert_eq!(found, n);
            conversations.serve(found);
            assert_eq!(conversations.served(found), 1);
        }
        assert_eq!(conversations.known.len(), CONVERSATIONS_KEPT);
        assert_eq!(conversations.served(0), 1, "the main conversation is kept");
    }
}
