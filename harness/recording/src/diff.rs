//! What two histories have in common, and what one of them lacks.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use cutpoint_protocol::Item;
use serde::Serialize;
use similar::{Algorithm, DiffOp, capture_diff_slices_deadline};

use crate::normalise::{NormalItem, SecretHandling, normalise_with};
use crate::redact::is_redacted;

/// After this the rest is taken as one change; the result stays correct, and is only longer.
const TIME_LIMIT: Duration = Duration::from_millis(500);

/// What became of an item. Positions count from 0, in the normal form of each side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HistoryChange {
    /// It stands on both sides, in the same order.
    Kept {
        /// Where it stands on the first side.
        a: usize,
        /// Where it stands on the second side.
        b: usize,
        /// The item.
        item: NormalItem,
    },
    /// The first side alone has it.
    Lost {
        /// Where it stands there.
        a: usize,
        /// The item.
        item: NormalItem,
    },
    /// The second side alone has it.
    Added {
        /// Where it stands there.
        b: usize,
        /// The item.
        item: NormalItem,
    },
    /// Both sides have it, in another order.
    Moved {
        /// Where it stands on the first side.
        a: usize,
        /// Where it stands on the second side.
        b: usize,
        /// The item.
        item: NormalItem,
    },
}

/// How many items became what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ChangeCounts {
    /// Items that stand on both sides, in the same order.
    pub kept: usize,
    /// Items that the second side lacks.
    pub lost: usize,
    /// Items that the first side lacks.
    pub added: usize,
    /// Items that stand on both sides, in another order.
    pub moved: usize,
}

/// The way from one history to another, over their normal forms: ids, times, reasoning, instructions
/// and what describes the machine don't count (see [`crate::normalise`]). Where a side was redacted,
/// secrets are compared by their kinds.
///
/// The changes stand in the order of the second side; what is lost stands where it was missed, and
/// what moved stands at its new place.
pub fn diff(a: &[Item], b: &[Item]) -> Vec<HistoryChange> {
    let mut items = a.iter().chain(b);
    let secrets = SecretHandling::of(items.any(|item| item.as_map().values().any(is_redacted)));
    let (a, b) = (normalise_with(a, secrets), normalise_with(b, secrets));
    let mut names = ItemNumbers::default();
    let old: Vec<usize> = a.iter().map(|item| names.of(item)).collect();
    let new: Vec<usize> = b.iter().map(|item| names.of(item)).collect();
    let deadline = Instant::now() + TIME_LIMIT;
    let ops = capture_diff_slices_deadline(Algorithm::Myers, &old, &new, Some(deadline));
    let mut moves = Moves::between(&ops, &old, &new);
    let mut changes = Vec::new();
    for op in &ops {
        if let DiffOp::Equal { .. } = op {
            let pairs = op.old_range().zip(op.new_range());
            changes.extend(pairs.map(|(at, to)| HistoryChange::Kept {
                a: at,
                b: to,
                item: b[to].clone(),
            }));
            continue;
        }
        for at in op.old_range().filter(|at| !moves.left(*at)) {
            let item = a[at].clone();
            changes.push(HistoryChange::Lost { a: at, item });
        }
        for to in op.new_range() {
            let item = b[to].clone();
            changes.push(match moves.origin(to) {
                Some(from) => HistoryChange::Moved {
                    a: from,
                    b: to,
                    item,
                },
                None => HistoryChange::Added { b: to, item },
            });
        }
    }
    changes
}

/// Counts changes by what they are.
pub fn count(changes: &[HistoryChange]) -> ChangeCounts {
    let mut counts = ChangeCounts::default();
    for change in changes {
        *match change {
            HistoryChange::Kept { .. } => &mut counts.kept,
            HistoryChange::Lost { .. } => &mut counts.lost,
            HistoryChange::Added { .. } => &mut counts.added,
            HistoryChange::Moved { .. } => &mut counts.moved,
        } += 1;
    }
    counts
}

impl ChangeCounts {
    /// Whether both sides are the same.
    pub fn is_same(&self) -> bool {
        self.lost + self.added + self.moved == 0
    }
}

/// A number for each item that is unlike all before it. A call's own number is not a part of what it is:
/// one call more in front would make all that follow others.
#[derive(Default)]
struct ItemNumbers {
    known: HashMap<NormalItem, usize>,
}

impl ItemNumbers {
    fn of(&mut self, item: &NormalItem) -> usize {
        let mut item = item.clone();
        if let NormalItem::Call { ordinal, .. } = &mut item {
            *ordinal = 0;
        }
        let next = self.known.len();
        *self.known.entry(item).or_insert(next)
    }
}

/// What left one place and came to another.
struct Moves {
    /// Place on the second side → place on the first side.
    by_target: HashMap<usize, usize>,
    left: Vec<bool>,
}

impl Moves {
    fn between(ops: &[DiffOp], old: &[usize], new: &[usize]) -> Self {
        let changed = || ops.iter().filter(|op| !matches!(op, DiffOp::Equal { .. }));
        let mut gone: HashMap<usize, Vec<usize>> = HashMap::new();
        for at in changed().flat_map(DiffOp::old_range) {
            gone.entry(old[at]).or_default().push(at);
        }
        // The first of several that are alike goes to the first free place.
        gone.values_mut().for_each(|places| places.reverse());
        let mut moves = Self {
            by_target: HashMap::new(),
            left: vec![false; old.len()],
        };
        for to in changed().flat_map(DiffOp::new_range) {
            if let Some(from) = gone.get_mut(&new[to]).and_then(Vec::pop) {
                moves.by_target.insert(to, from);
                moves.left[from] = true;
            }
        }
        moves
    }

    fn left(&self, at: usize) -> bool {
        self.left[at]
    }

    fn origin(&mut self, to: usize) -> Option<usize> {
        self.by_target.remove(&to)
    }
}

impl HistoryChange {
    /// The item that it is about.
    pub fn item(&self) -> &NormalItem {
        match self {
            Self::Kept { item, .. }
            | Self::Lost { item, .. }
            | Self::Added { item, .. }
            | Self::Moved { item, .. } => item,
        }
    }
}

impl fmt::Display for HistoryChange {
    /// A sign before the item: blank for kept, `-` lost, `+` added, `~` moved.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self {
            Self::Kept { .. } => ' ',
            Self::Lost { .. } => '-',
            Self::Added { .. } => '+',
            Self::Moved { .. } => '~',
        };
        let text = self.item().to_string();
        let indented = text.replace('\n', &format!("\n{sign} "));
        write!(f, "{sign} {indented}")?;
        match self {
            Self::Moved { a, b, .. } => {
                write!(f, "\n~   (moved from place {} to {})", a + 1, b + 1)
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn item(value: serde_json::Value) -> Item {
        Item::from_value(value).unwrap()
    }

    fn said(text: &str) -> Item {
        item(json!({"type": "message", "role": "assistant", "content": text}))
    }

    fn call(id: &str, arguments: &str) -> Item {
        item(
            json!({"type": "function_call", "call_id": id, "name": "shell", "arguments": arguments}),
        )
    }

    fn output(id: &str, text: &str) -> Item {
        item(json!({"type": "function_call_output", "call_id": id, "output": text}))
    }

    fn signs(a: &[Item], b: &[Item]) -> String {
        let sign = |change: &HistoryChange| change.to_string().chars().next().unwrap();
        diff(a, b).iter().map(sign).collect()
    }

    #[test]
    fn other_ids_are_no_change() {
        let a = [
            said("hi"),
            call("call_1", "{\"a\":1,\"b\":2}"),
            output("call_1", "x"),
        ];
        let b = [
            said("hi"),
            call("other", "{\"b\":2,\"a\":1}"),
            output("other", "x"),
        ];
        assert_eq!(signs(&a, &b), "  ");
        assert!(count(&diff(&a, &b)).is_same());
    }

    #[test]
    fn what_is_lost_added_and_moved_is_told_apart() {
        let [one, two, three] = ["one", "two", "three"].map(said);
        let a = [one.clone(), two.clone(), three.clone()];
        assert_eq!(signs(&a, &[one.clone(), three.clone()]), " - ");
        assert_eq!(signs(&[one.clone(), three.clone()], &a), " + ");
        assert_eq!(count(&diff(&a, &[two, three, one])).moved, 1);
        assert_eq!(signs(&a, &[]), "---");
        assert_eq!(signs(&[], &[]), "");
    }

    #[test]
    fn a_call_more_in_front_leaves_the_others_as_they_were() {
        let later = [call("c", "{}"), output("c", "x")];
        let more = [
            call("b", "{\"n\":1}"),
            output("b", "y"),
            call("c", "{}"),
            output("c", "x"),
        ];
        assert_eq!(signs(&later, &more), "+ ");
    }

    #[test]
    fn another_output_is_another_item() {
        let a = [call("c", "{}"), output("c", "aborted")];
        let b = [call("c", "{}"), output("c", "done")];
        let changes = diff(&a, &b);
        let shown: Vec<String> = changes.iter().map(HistoryChange::to_string).collect();
        let expected = [
            "- call 1: shell {}\n- output 1: aborted",
            "+ call 1: shell {}\n+ output 1: done",
        ];
        assert_eq!(shown, expected);
    }

    proptest! {
        #[test]
        fn every_item_of_both_sides_is_told_once(
            a in prop::collection::vec(0..6_u8, 0..30),
            b in prop::collection::vec(0..6_u8, 0..30),
        ) {
            let items = |side: &[u8]| side.iter().map(|n| said(&n.to_string())).collect::<Vec<_>>();
            let changes = diff(&items(&a), &items(&b));
            let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
            for change in &changes {
                match change {
                    HistoryChange::Kept { a, b, .. } | HistoryChange::Moved { a, b, .. } => {
                        of_a.push(*a);
                        of_b.push(*b);
                    }
                    HistoryChange::Lost { a, .. } => of_a.push(*a),
                    HistoryChange::Added { b, .. } => of_b.push(*b),
                }
            }
            of_a.sort_unstable();
            prop_assert_eq!(of_a, (0..a.len()).collect::<Vec<_>>());
            prop_assert_eq!(of_b, (0..b.len()).collect::<Vec<_>>());
            prop_assert_eq!(count(&changes).is_same(), a == b);
        }
    }
}
