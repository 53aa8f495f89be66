//! One test per defect planted in the JSON-RPC front: that it shows.

use serde_json::{Value, json};

use super::support::peer::{Peer, input, outline};
use super::support::{Reply, Rig};
use crate::Defect;

const ID: &str = "0193e0f4-5c2a-7e0b-9f7d-2f6a8c1b4d5e";
const BARE: &str = "0193e0f45c2a7e0b9f7d2f6a8c1b4d5e";

/// A turn that is interrupted twice, by two requests that wait for one abort, and a third request
/// after it. Everything that came from the interrupts on, and the requests' ids.
async fn interrupted(defect: Defect) -> (Vec<Value>, Vec<u64>) {
    let rig = Rig::new(vec![Reply::Silence], vec![]).with(defect);
    let (mut peer, thread) = Peer::start(&rig).await;
    let mut params = input(&thread, "hi");
    params["turnId"] = json!(ID);
    peer.ask("turn/start", params).await;
    peer.event("turn_started").await;
    let open = rig.hold("abort.grace");
    let mut asked = vec![peer.interrupt(&thread, None).await];
    rig.reached().await;
    asked.push(peer.interrupt(&thread, None).await);
    open.send_replace(true);
    let aborted = peer.find(|message| message["params"]["msg"]["type"] == "turn_aborted");
    let aborted = aborted.await;
    asked.push(peer.interrupt(&thread, Some(ID)).await);
    // The server has handled everything before this.
    peer.ask("thread/subscribe", json!({"threadId": thread}))
        .await;
    let mut rest = peer.end().await;
    rest.retain(|message| message["method"].is_null());
    rest.insert(0, aborted);
    (rest, asked)
}

fn answers(messages: &[Value], id: u64) -> Vec<&Value> {
    let of_it = |message: &&Value| message["id"] == id;
    messages.iter().filter(of_it).collect()
}

#[tokio::test(start_paused = true)]
async fn aborted_turn_unanswered() {
    let (messages, asked) = interrupted(Defect::AbortedTurnUnanswered).await;
    assert!(answers(&messages, asked[2]).is_empty());
    assert_eq!(answers(&messages, asked[1]).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn idle_interrupt_unanswered() {
    let (messages, asked) = interrupted(Defect::IdleInterruptUnanswered).await;
    assert!(answers(&messages, asked[2]).is_empty());
}

#[tokio::test(start_paused = true)]
async fn last_interrupt_unanswered() {
    let (messages, asked) = interrupted(Defect::LastInterruptUnanswered).await;
    assert!(answers(&messages, asked[1]).is_empty());
    assert_eq!(answers(&messages, asked[0]).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn answer_misnames_reason() {
    let (messages, asked) = interrupted(Defect::AnswerMisnamesReason).await;
    let answer = answers(&messages, asked[0])[0];
    assert_eq!(answer["result"]["abortReason"], "replaced");
}

#[tokio::test(start_paused = true)]
async fn answered_twice() {
    let (messages, asked) = interrupted(Defect::InterruptAnsweredTwice).await;
    assert_eq!(answers(&messages, asked[0]).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn respelled_at_the_end() {
    let (messages, _) = interrupted(Defect::RespelledAtTheEnd).await;
    assert_eq!(messages[0]["params"]["msg"]["turn_id"], BARE);
}

#[tokio::test(start_paused = true)]
async fn answer_before_abort() {
    let rig = Rig::new(vec![Reply::Silence], vec![]).with(Defect::AnswerBeforeAbort);
    let (mut peer, thread) = Peer::start(&rig).await;
    peer.user(&thread, "hi").await;
    let open = rig.hold("abort.grace");
    let asked = peer.interrupt(&thread, None).await;
    peer.answer(asked).await;
    rig.reached().await;
    open.send_replace(true);
    assert!(outline(&peer.end().await).contains(&"turn_aborted".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn queued_behind_op() {
    let rig = Rig::new(vec![Reply::Silence], vec![]).with(Defect::QueuedBehindOp);
    let (mut peer, thread) = Peer::start(&rig).await;
    peer.user(&thread, "hi").await;
    let open = rig.hold("interrupt.submitted");
    let asked = peer.interrupt(&thread, None).await;
    peer.event("turn_aborted").await;
    open.send_replace(true);
    // It is answered only as the conversation ends.
    let answer = answers(&peer.end().await, asked)[0].clone();
    assert_eq!(answer["result"]["abortReason"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn phantom_turn() {
    let rig = Rig::new(vec![Reply::Silence], vec![]).with(Defect::PhantomTurn);
    let (mut peer, thread) = Peer::start(&rig).await;
    let turn = peer.user(&thread, "hi").await;
    assert_ne!(peer.user(&thread, "more").await, turn);
}

#[tokio::test(start_paused = true)]
async fn unchecked_id() {
    let rig = Rig::new(vec![], vec![]).with(Defect::UncheckedId);
    let (mut peer, _) = Peer::start(&rig).await;
    assert_eq!(peer.open(json!({"threadId": "seven"})).await, "seven");
}

#[tokio::test(start_paused = true)]
async fn respelled_duplicate() {
    let replies = vec![Reply::text("r1", "ok"), Reply::text("r2", "ok")];
    let rig = Rig::new(replies, vec![]).with(Defect::RespelledDuplicate);
    let (mut peer, thread) = Peer::start(&rig).await;
    for spelling in [ID, BARE] {
        let mut params = input(&thread, "hi");
        params["turnId"] = json!(spelling);
        let answer = peer.ask("turn/start", params).await;
        assert_eq!(answer["result"]["turn"]["id"], ID);
        peer.event("turn_complete").await;
    }
}
