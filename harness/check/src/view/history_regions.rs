//! Which markers of a request's history belong to which turn.
//!
//! A history is cut into regions at the user messages that carry an input. What stands after such
//! a message, up to the next one of another turn, is that turn's; so are the markers there.

use super::exchanges::{Exchange, Role};
use super::turns::{Ending, InterruptState, Turn};
use super::{At, View};
use crate::fast_hash::{HashMap, HashSet};

/// A turn's part of a history, or the part before the first turn's.
#[derive(Debug, Default)]
pub struct Region {
    /// The turn whose input begins the region; absent for the part before the first, and for input
    /// that no known turn took.
    pub turn: Option<usize>,
    /// Turns that followed, whose input the history lacks: their markers can only stand here.
    pub lost: Vec<usize>,
    /// The places of its markers in the history.
    pub markers: Vec<usize>,
    /// The place of the last call or message of the model in it, or of the last output for a call
    /// in it.
    pub last_item: Option<usize>,
    /// The fewest markers that it may have.
    pub min: usize,
    /// The most markers that it may have.
    pub max: usize,
    /// Terminal events that ask for a marker.
    pub interrupted: Vec<At>,
    /// Terminal events that forbid one.
    pub unmarked: Vec<At>,
    /// Interrupts that met no turn, sent while the region's last turn was the newest.
    pub idle: Vec<At>,
    /// Whether the region lies before the first input.
    pub is_first: bool,
    /// Whether its turn is a guess: it was not reported what became of the input that begins it.
    unreported: bool,
}

pub(super) fn regions(view: &View<'_>, exchange: &Exchange<'_>) -> Vec<Region> {
    let mut regions = cut(view, exchange);
    if regions.iter().all(|region| region.is_first) {
        // A conversation that carries no input of the user is not the user's.
        return Vec::new();
    }
    give_lost_turns(view, exchange, &mut regions);
    for region in &mut regions {
        let turns = region.turn.iter().chain(&region.lost);
        for turn in turns.copied().collect::<Vec<_>>() {
            let lost = region.turn != Some(turn);
            count(view, exchange, region, turn, lost);
        }
    }
    settle(&mut regions);
    regions
}

/// Cuts the history at each input of a turn that is not the turn before.
fn cut(view: &View<'_>, exchange: &Exchange<'_>) -> Vec<Region> {
    let mut region = Region {
        is_first: true,
        ..Region::default()
    };
    let mut regions: Vec<Region> = Vec::new();
    let mut seen = HashSet::default();
    // The number of each call's region: an output belongs to its call's turn, wherever it stands.
    let mut calls = HashMap::default();
    for (place, role) in exchange.roles.iter().enumerate() {
        match role {
            Role::User(Some(input)) => {
                let turn = view.inputs[*input].owner();
                // Input that joined an earlier turn and was recorded late begins nothing.
                if turn.is_none_or(|turn| seen.insert(turn)) {
                    if turn.is_some_and(|turn| view.turns[turn].input != Some(*input)) {
                        leave_to_the_next(&mut region);
                    }
                    regions.push(std::mem::take(&mut region));
                    region.turn = turn;
                    let unreported = view.inputs[*input].unreported;
                    region.unreported = unreported.is_some_and(|at| at < exchange.at);
                }
            }
            Role::Marker => region.markers.push(place),
            Role::Call(id, _) => {
                calls.insert(*id, regions.len());
                region.last_item = Some(place);
            }
            Role::Output(id) => {
                let own = calls.get(id).and_then(|own| regions.get_mut(*own));
                own.unwrap_or(&mut region).last_item = Some(place);
            }
            Role::Assistant => region.last_item = Some(place),
            Role::User(None) | Role::Compaction | Role::Other => {}
        }
    }
    regions.push(region);
    regions
}

/// The first input that is seen of the next turn only joined it: what that turn, a review say, had
/// done before stands in front of the input, and after the marker of the turn before it.
fn leave_to_the_next(region: &mut Region) {
    let marker = region.markers.last().copied();
    region
        .last_item
        .take_if(|last| marker.is_some_and(|marker| marker < *last));
}

/// Gives each turn whose input the history lacks to the region of the turn before it.
fn give_lost_turns(view: &View<'_>, exchange: &Exchange<'_>, regions: &mut [Region]) {
    let mut found: Vec<(usize, usize)> = regions
        .iter()
        .enumerate()
        .filter_map(|(region, known)| known.turn.map(|turn| (turn, region)))
        .collect();
    found.sort_unstable();
    let mut found = found.into_iter().peekable();
    let mut region = 0;
    for (index, turn) in view.turns.iter().enumerate() {
        if turn.begun > exchange.at {
            break;
        }
        if let Some((_, own)) = found.next_if(|(known, _)| *known == index) {
            region = own;
            while found.next_if(|(known, _)| *known == index).is_some() {}
        } else if turn.lineage == exchange.lineage
            && !turn.phantom(&view.turns)
            && !view.forked_away(
                turn.input.map_or(turn.begun, |input| view.inputs[input].at),
                exchange.at,
            )
            && turn.rolled_back.is_none_or(|at| at > exchange.at)
        {
            regions[region].lost.push(index);
        }
    }
}

fn count(view: &View<'_>, exchange: &Exchange<'_>, region: &mut Region, index: usize, lost: bool) {
    let turn = &view.turns[index];
    let ending = turn.ending_before(exchange.at);
    let mut may_have_one = false;
    match ending {
        Some(ending) if ending.interrupted() => {
            may_have_one = true;
            if !marker_may_be_gone(view, exchange, turn, ending) {
                region.min += 1;
                region.interrupted.push(ending.at);
            }
        }
        Some(ending) => region.unmarked.push(ending.at),
        None => {
            // The client learns of an abort by another way than the server learns of a request.
            let aborting = || turn.ending().is_some_and(|ending| ending.interrupted());
            may_have_one = aborting() && !turn.interrupts.is_empty();
        }
    }
    // A turn that was cut by a kill or a crash may be closed as interrupted on resume.
    may_have_one |= turn.killed.or(turn.exited).is_some();
    // A turn that ran when the conversation was forked is interrupted in the fork, however it ends.
    let mut forks = view.forks.iter();
    let cut = |turn: Option<usize>| turn == Some(index);
    may_have_one |= forks.any(|fork| (cut(fork.turn) || cut(fork.met)) && fork.at < exchange.at);
    // Without its input its place is unknown; a turn that was only announced by a
    // reply may not have been recorded at all.
    may_have_one |= lost && turn.started.is_none();
    region.max += usize::from(may_have_one);
    if let Some(ending) = ending {
        region.idle.extend(idle_interrupts(view, exchange, ending));
    }
}

/// If an agent ended before it reported what it did with an input, the turn that took the input is a guess,
/// and a marker on one side of it may as well be the one that is missing on the other.
fn settle(regions: &mut [Region]) {
    for at in 1..regions.len() {
        let (before, after) = regions.split_at_mut(at);
        let (before, after) = (&mut before[at - 1], &mut after[0]);
        if !after.unreported {
            continue;
        }
        while spare(before, after) {
            after.markers.splice(0..0, before.markers.pop());
            // Whose items those are is a guess as well.
            after.last_item = None;
        }
        while spare(after, before) {
            before.markers.push(after.markers.remove(0));
        }
    }
}

/// Whether one region has a marker too many that another may have, or one more than it needs that the other
/// lacks.
fn spare(one: &Region, other: &Region) -> bool {
    let (has, lacks) = (one.markers.len(), other.markers.len());
    (has > one.max && lacks < other.max) || (has > one.min && lacks < other.min)
}

/// Whether a compaction may have taken a turn's marker out of the history.
fn marker_may_be_gone(
    view: &View<'_>,
    exchange: &Exchange<'_>,
    turn: &Turn<'_>,
    ending: Ending<'_>,
) -> bool {
    // The file is read after the request, so a compaction right before one is seen right after.
    let read = exchange.over().unwrap_or(exchange.at + 2);
    turn.killed.is_some() || exchange.has_compaction() || view.gone_between(ending.at, read + 1)
}

/// Interrupts that met no turn after a turn's end, before a request.
fn idle_interrupts(view: &View<'_>, exchange: &Exchange<'_>, ending: Ending<'_>) -> Vec<At> {
    let until = view.next_turn_after(ending.at).min(exchange.at);
    let first = (view.interrupts).partition_point(|interrupt| interrupt.at < ending.at);
    view.interrupts[first..]
        .iter()
        .take_while(|interrupt| interrupt.at < until)
        .filter(|interrupt| interrupt.state == InterruptState::Idle)
        .map(|interrupt| interrupt.at)
        .collect()
}
