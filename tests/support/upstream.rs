//! Upstreams to record: the program's own server over streams composed for it.

use cutpoint_protocol::compose::{Composer, ItemContent};

use super::{Place, Running};

/// A server in front of which is recorded.
pub fn serve(place: &Place, what: &str) -> (Running, String) {
    let serving = Running::start(&mut place.cutpoint(["serve", what]));
    let url = serving.line();
    (serving, url)
}

/// A stream of these items, as a capture.
pub fn capture(items: &[ItemContent<'_>]) -> Vec<u8> {
    let mut composer = Composer::new("resp_1", "m", 1_760_000_000);
    items.iter().for_each(|item| composer.item(item));
    let events = composer.completed();
    events
        .iter()
        .flat_map(|event| event.bytes.to_vec())
        .collect()
}
