//! Which conversation of a case a request belongs to.
//!
//! A case has one main conversation. An agent may hold others beside it (a sub-agent, a title
//! generator); those are told apart by their history, because a counter over the whole server would
//! hand one conversation's answers to another.

use cutpoint_protocol::Item;

/// How many conversations a case keeps apart. The oldest is forgotten beyond that, so that a
/// stand-alone server that runs for days does not grow.
const CONVERSATIONS_KEPT: usize = 1024;

/// The conversations of a case, in the order of their first request.
#[derive(Debug, Default)]
pub struct Conversations {
    known: Vec<Conversation>,
    forgotten: usize,
}

#[derive(Debug)]
struct Conversation {
    /// The first text that a user wrote in it.
    opening: Option<String>,
    served: usize,
    /// Recorded exchanges that were served, by index.
    taken: Vec<usize>,
}

impl Conversations {
    /// The conversation that a history belongs to; a new one if it belongs to none.
    pub fn find(&mut self, history: &[Item]) -> usize {
        let texts: Vec<String> = history.iter().filter_map(user_text).collect();
        let same = |conversation: &Conversation| match &conversation.opening {
            Some(opening) => texts.contains(opening),
            None => texts.is_empty(),
        };
        if let Some(at) = self.known.iter().position(same) {
            return self.forgotten + at;
        }
        if self.known.len() == CONVERSATIONS_KEPT {
            self.known.remove(0);
            self.forgotten += 1;
        }
        let opening = texts.into_iter().next();
        self.known.push(Conversation {
            opening,
            served: 0,
            taken: Vec::new(),
        });
        self.forgotten + self.known.len() - 1
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

    fn get(&self, conversation: usize) -> Option<&Conversation> {
        self.known.get(conversation.checked_sub(self.forgotten)?)
    }

    fn get_mut(&mut self, conversation: usize) -> Option<&mut Conversation> {
        let at = conversation.checked_sub(self.forgotten)?;
        self.known.get_mut(at)
    }
}

/// What a person wrote; notes of the agent in a user's name are wrapped in a tag and don't count.
fn user_text(item: &Item) -> Option<String> {
    if item.role() != Some("user") {
        return None;
    }
    let text = item.all_text();
    let text = text.trim();
    (!text.starts_with('<')).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_is_known_by_its_opening() {
        let mut conversations = Conversations::default();
        let environment = Item::user_text("<environment_context>x</environment_context>");
        let main = [environment.clone(), Item::user_text("fix it")];
        let sub = [environment, Item::user_text("review the fix")];
        assert_eq!(conversations.find(&main), 0);
        assert_eq!(conversations.find(&sub), 1);
        conversations.serve(0);
        let later = [Item::user_text("fix it"), Item::user_text("and now?")];
        assert_eq!(conversations.find(&later), 0);
        assert_eq!((conversations.served(0), conversations.served(1)), (1, 0));
    }

    #[test]
    fn the_number_of_conversations_is_bounded() {
        let mut conversations = Conversations::default();
        for n in 0..3 * CONVERSATIONS_KEPT {
            let found = conversations.find(&[Item::user_text(&format!("task {n}"))]);
            assert_eq!(found, n);
            conversations.serve(found);
            assert_eq!(conversations.served(found), 1);
        }
        assert_eq!(conversations.known.len(), CONVERSATIONS_KEPT);
    }
}
