//! Which turn took a text of the user, as the agent itself reports.

use super::turns::Turns;
use cutpoint_trace::InputMode;

impl Turns<'_> {
    /// The agent reports which turn took a text: that is certain, no matter what was running when the
    /// text was sent.
    pub(super) fn took(&mut self, turn: usize, text: &str) {
        let attributed = &mut self.attributed;
        // Nothing takes what was sent to an agent that has ended since.
        let since = self.starts.last().map_or(0, |start| start.at);
        let same = self.by_text.get(text).into_iter().flatten().copied();
        let mut same = same.filter(|input| self.inputs[*input].at >= since);
        let Some(input) = same.find(|input| attributed.insert(*input)) else {
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
        if let Some(later) =
            guess.filter(|guess| *guess > input && !self.attributed.contains(guess))
        {
            self.link(turn, input);
            let later_input = &mut self.inputs[later];
            later_input.begins = false;
            later_input.turn = None;
            // Ops are taken in order: what replaces, replaces the turn that the earlier text began.
            if later_input.mode == InputMode::Replace {
                later_input.active = Some(turn);
            }
            self.pending.insert(0, later);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Tracer;
    use crate::view::{Input, View};
    use cutpoint_trace::InputMode;

    #[test]
    fn the_agent_knows_best_which_turn_took_what() {
        let mut t = Tracer::new();
        t.input("one", InputMode::Start)
            .input("two", InputMode::Steer);
        t.input("three", InputMode::Steer).started("t1");
        t.user_message("t1", "one").user_message("t1", "two");
        t.completed("t1").started("t2").user_message("t2", "three");
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
        t.user_message("t2", "late").user_message("t2", "two");
        let trace = t.trace();
        let view = View::new(&trace);
        assert_eq!(view.turns[1].input, Some(1));
        assert_eq!(
            (view.inputs[2].owner(), view.inputs[2].begins),
            (Some(1), false)
        );
    }

    #[test]
    fn nothing_takes_what_an_ended_agent_was_sent() {
        let mut t = Tracer::new();
        t.start("t1", "one").input("again", InputMode::Replace);
        t.kill().resume();
        t.start("t2", "two").input("again", InputMode::Replace);
        t.replaced("t2").started("t3").user_message("t3", "again");
        let trace = t.trace();
        let view = View::new(&trace);
        assert_eq!(view.turns[2].input, Some(3));
    }

    #[test]
    fn what_was_sent_after_that_text_replaces_its_turn() {
        let mut t = Tracer::new();
        t.start("t1", "one").input("late", InputMode::Steer);
        t.input("two", InputMode::Replace).completed("t1");
        t.started("t2").user_message("t2", "late");
        t.replaced("t2").started("t3").user_message("t3", "two");
        let trace = t.trace();
        let view = View::new(&trace);
        let begun: Vec<_> = view.turns.iter().map(|turn| turn.input).collect();
        assert_eq!(begun, [Some(0), Some(1), Some(2)]);
        assert_eq!(view.inputs[2].active, Some(1));
        assert_eq!(view.cut_at(1), Some(view.inputs[2].at));
    }
}
