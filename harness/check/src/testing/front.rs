//! A session over a protocol of requests and answers.

use super::{Tracer, marker, user};
use cutpoint_trace::{AbortReason, ClientOp, Feature, InputMode};

/// A session over a protocol that defers its answers and lets the caller choose ids: everything as
/// it should be.
pub(crate) fn front_session() -> Tracer {
    const ID: &str = "0193e0f4-5c2a-7e0b-9f7d-2f6a8c1b4d5e";
    let mut t = Tracer::new().with(Feature::DeferredAnswers);
    t.named_input("hi", InputMode::Start, "hi").refuse();
    t.named_input("hi", InputMode::Start, &ID.to_uppercase());
    t.reply(Some(ID)).started(ID).wrote(&user("hi"));
    t.request(1, &[user("hi")]).created(1);
    // Both requests wait for the one abort.
    t.interrupt().interrupt();
    t.wrote(&marker()).written().synced().disconnected(1);
    t.aborted(ID).read_at_end(ID);
    t.answered(3, Some(AbortReason::Interrupted));
    t.answered(4, Some(AbortReason::Interrupted));
    t.interrupt().reply(None);
    t.named_input("again", InputMode::Start, &ID.replace('-', ""));
    t.refuse();
    for spelling in [ID.to_uppercase(), format!("{{{ID}}}")] {
        let thread_id = spelling.as_str().into();
        t.op(ClientOp::Open { thread_id });
        if spelling.starts_with('{') {
            t.refuse();
        } else {
            t.opened(ID);
        }
    }
    t.start("t2", "more");
    t.request(2, &[user("hi"), marker(), user("more")]);
    t.interrupt().finish(2).completed("t2").read_at_end("t2");
    t.reply(None);
    t
}
