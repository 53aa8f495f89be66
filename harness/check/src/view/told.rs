//! Which turn a text of the user went into, by the agent's own word.

use super::turns::Turns;
use crate::trace::InputMode;

impl Turns<'_> {
    /// The agent tells which turn it took a text into: that is no guess, whatever was running when
    /// the text was sent.
    pub(super) fn took(&mut self, turn: usize, text: &str) {
        let told = &mut self.told;
        let mut same = self.by_text.get(text).into_iter().flatten().copied();
        let Some(input) = same.find(|input| told.insert(*input)) else {
            return;
        };
        if self.inputs[input].turn.is_some() {
            return;
        }
        self.inputs[input].active = Some(turn);
        self.pending.retain(|pending| *pending != input);
        let known = &self.turns[turn];
        let guess = known.input.filter(|_| known.acknowledged.is_none());
        // The first text that a turn takes is the one it began with.
        if let Some(later) = guess.filter(|guess| *guess > input && !self.told.contains(guess))
            && self.inputs[later].mode == InputMode::Start
        {
            self.link(turn, input);
            self.inputs[later].begins = false;
            self.inputs[later].turn = None;
            self.pending.insert(0, later);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Tracer;
    use crate::trace::{AgentEvent, InputMode};
    use crate::view::{Input, View};

    #[test]
    fn the_agent_knows_best_which_turn_took_what() {
        let took = |t: &mut Tracer, turn: &str, text: &str| {
            let (turn_id, text) = (Some(turn.to_owned()), text.to_owned());
            t.event(AgentEvent::UserMessage { turn_id, text });
        };
        let mut t = Tracer::new();
        t.input("one", InputMode::Start)
            .input("two", InputMode::Steer);
        t.input("three", InputMode::Steer).started("t1");
        took(&mut t, "t1", "one");
        took(&mut t, "t1", "two");
        t.completed("t1").started("t2");
        took(&mut t, "t2", "three");
        let trace = t.trace();
        let view = View::new(&trace);
        let owners: Vec<_> = view.inputs.iter().map(Input::owner).collect();
        assert_eq!(owners, [Some(0), Some(0), Some(1)]);
        assert_eq!(view.turns[1].input, Some(2));
    }

    #[test]
    fn the_first_text_that_a_turn_takes_is_the_one_it_began_with() {
        let mut t = Tracer::new();
        t.start("t1", "one")
            .input("late", InputMode::Steer)
            .completed("t1");
        t.input("two", InputMode::Start).started("t2");
        for text in ["late", "two"] {
            let (turn_id, text) = (Some("t2".to_owned()), text.to_owned());
            t.event(AgentEvent::UserMessage { turn_id, text });
        }
        let trace = t.trace();
        let view = View::new(&trace);
        assert_eq!(view.turns[1].input, Some(1));
        assert_eq!(
            (view.inputs[2].owner(), view.inputs[2].begins),
            (Some(1), false)
        );
    }
}
