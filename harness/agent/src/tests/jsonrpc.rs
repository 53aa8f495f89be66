//! The JSON-RPC front.

use serde_json::{Value, json};

use super::support::peer::{Peer, input, outline, text};
use super::support::{Reply, Rig, ToolStep, soon};
use crate::lock;

const ID: &str = "0193e0f4-5c2a-7e0b-9f7d-2f6a8c1b4d5e";
const BARE: &str = "0193E0F45C2A7E0B9F7D2F6A8C1B4D5E";
const INVALID: i64 = -32600;

fn answering() -> Rig {
    let replies = ["r1", "r2", "r3"].map(|id| Reply::text(id, "ok")).into();
    Rig::new(replies, vec![])
}

fn silent() -> Rig {
    Rig::new(vec![Reply::Silence, Reply::Silence, Reply::Silence], vec![])
}

fn code(answer: &Value) -> i64 {
    answer["error"]["code"].as_i64().unwrap()
}

fn reason(answer: &Value) -> &Value {
    assert!(answer["error"].is_null(), "{answer}");
    &answer["result"]["abortReason"]
}

fn named(thread: &str, turn: &str) -> Value {
    let mut params = input(thread, "hi");
    params["turnId"] = json!(turn);
    params
}

#[tokio::test(start_paused = true)]
async fn a_turn_over_json_rpc() {
    let (mut peer, thread) = Peer::start(&answering()).await;
    let turn = peer.user(&thread, "hi").await;
    let started = peer.event("turn_started").await;
    assert_eq!(started["msg"]["turn_id"], turn.as_str());
    assert_eq!(
        (&started["threadId"], &started["listener"]),
        (&json!(thread), &json!(1))
    );
    let complete = peer.event("turn_complete").await;
    assert_eq!(complete["msg"]["turn_id"], turn.as_str());
    let answer = peer.ask("shutdown", Value::Null).await;
    assert_eq!(answer["result"], json!({}));
    let rest = peer.end().await;
    assert_eq!(outline(&rest).last().unwrap(), "shutdown_complete");
}

#[tokio::test(start_paused = true)]
async fn supplied_ids_are_canonical_and_used_once() {
    let (mut peer, thread) = Peer::start(&answering()).await;
    let answer = peer.ask("turn/start", named(&thread, BARE)).await;
    assert_eq!(answer["result"]["turn"]["id"], ID);
    for kind in ["turn_started", "agent_message", "turn_complete"] {
        assert_eq!(peer.event(kind).await["msg"]["turn_id"], ID);
    }
    for again in [BARE, ID, "{0193e0f4-5c2a-7e0b-9f7d-2f6a8c1b4d5e}", "seven"] {
        let answer = peer.ask("turn/start", named(&thread, again)).await;
        assert_eq!(code(&answer), INVALID, "{again}");
    }
    // A turn and a thread may share an id: they are looked up in places of their own.
    assert_eq!(peer.open(json!({"threadId": BARE})).await, ID);
    for again in [ID, BARE, thread.as_str(), ""] {
        let answer = peer.ask("thread/start", json!({"threadId": again})).await;
        assert_eq!(code(&answer), INVALID, "{again}");
    }
    let turn = peer.user(BARE, "in any spelling").await;
    assert_ne!(turn, ID);
}

#[tokio::test(start_paused = true)]
async fn ids_stay_in_use_when_a_session_is_resumed() {
    let rig = answering();
    let (mut peer, thread) = Peer::start(&rig).await;
    let path = peer.event("session_configured").await["msg"]["rollout_path"].take();
    peer.ask("turn/start", named(&thread, ID)).await;
    peer.event("turn_complete").await;
    let open = peer.ask("thread/resume", json!({"path": path})).await;
    assert_eq!(code(&open), INVALID, "its rollout is being written");
    peer.end().await;

    let mut peer = Peer::connect(&rig, 1 << 16);
    peer.ask("initialize", json!({})).await;
    let resumed = peer.ask("thread/resume", json!({"path": path})).await;
    assert_eq!(resumed["result"]["thread"]["id"], thread.as_str());
    let again = peer.ask("turn/start", named(&thread, BARE)).await;
    assert_eq!(code(&again), INVALID);
    let missing = peer.ask("thread/resume", json!({"path": "/nowhere"})).await;
    assert_eq!(code(&missing), -32603);
}

#[tokio::test(start_paused = true)]
async fn every_interrupt_that_waits_is_answered_behind_the_abort() {
    let rig = silent();
    let (mut peer, thread) = Peer::start(&rig).await;
    let turn = peer.user(&thread, "hi").await;
    peer.event("session_configured").await;
    peer.event("turn_started").await;
    peer.event("user_message").await;
    let open = rig.hold("abort.grace");
    let shouted = turn.to_uppercase();
    let mut asked = Vec::new();
    for named in [None, Some(turn.as_str()), Some(shouted.as_str())] {
        asked.push(peer.interrupt(&thread, named).await);
    }
    rig.reached().await;
    open.send_replace(true);
    let first = peer.next().await;
    let mut messages = vec![first];
    while messages.len() < 4 {
        messages.push(peer.next().await);
    }
    let words: Vec<String> = asked.iter().map(u64::to_string).collect();
    assert_eq!(outline(&messages)[0], "turn_aborted");
    assert_eq!(outline(&messages)[1..], words);
    assert!(
        messages[1..]
            .iter()
            .all(|answer| reason(answer) == "interrupted")
    );
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_of_a_replaced_turn_tells_so_and_spares_the_next() {
    let rig = silent();
    let (mut peer, thread) = Peer::start(&rig).await;
    let first = peer.user(&thread, "hi").await;
    let open = rig.hold("abort.taken");
    let mut params = named(&thread, ID);
    params["replace"] = json!(true);
    let replace = peer.send("turn/start", params).await;
    rig.reached().await;
    let old = peer.interrupt(&thread, Some(&first)).await;
    open.send_replace(true);
    assert_eq!(reason(&peer.answer(old).await), "replaced");
    assert_eq!(peer.answer(replace).await["result"]["turn"]["id"], ID);
    peer.event("turn_started").await;
    // Whoever looks for the turn that was named finds another one, and leaves it alone.
    let steered = peer.user(&thread, "still there?").await;
    assert_eq!(steered, ID);
    let new = peer.interrupt(&thread, Some(ID)).await;
    assert_eq!(reason(&peer.answer(new).await), "interrupted");
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_is_on_its_way_can_be_interrupted_by_its_name() {
    let rig = silent();
    let (mut peer, thread) = Peer::start(&rig).await;
    let open = rig.hold("submission.taken");
    let start = peer.send("turn/start", named(&thread, ID)).await;
    rig.reached().await;
    let interrupts = [
        peer.interrupt(&thread, Some(BARE)).await,
        peer.interrupt(&thread, None).await,
    ];
    open.send_replace(true);
    assert_eq!(peer.answer(start).await["result"]["turn"]["id"], ID);
    for interrupt in interrupts {
        assert_eq!(reason(&peer.answer(interrupt).await), "interrupted");
    }
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_that_finds_nothing_is_answered_without_a_reason() {
    let rig = answering();
    let (mut peer, thread) = Peer::start(&rig).await;
    let idle = peer.interrupt(&thread, None).await;
    assert_eq!(*reason(&peer.answer(idle).await), Value::Null);
    let turn = peer.user(&thread, "hi").await;
    peer.event("turn_complete").await;
    let over = peer.interrupt(&thread, Some(&turn)).await;
    assert_eq!(*reason(&peer.answer(over).await), Value::Null);

    // The start that it waited for is refused: nothing will be aborted any more.
    let open = rig.hold("submission.taken");
    let start = peer.send("turn/start", named(&thread, &turn)).await;
    let interrupt = peer.interrupt(&thread, None).await;
    rig.reached().await;
    open.send_replace(true);
    assert_eq!(code(&peer.answer(start).await), INVALID);
    assert_eq!(*reason(&peer.answer(interrupt).await), Value::Null);
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_completes_answers_its_interrupts() {
    let rig = answering();
    let (mut peer, thread) = Peer::start(&rig).await;
    let open = rig.hold("turn.taken");
    let turn = peer.user(&thread, "hi").await;
    rig.reached().await;
    let interrupt = peer.interrupt(&thread, Some(&turn)).await;
    let next = peer.send("turn/start", named(&thread, ID)).await;
    let late = peer.interrupt(&thread, Some(&turn)).await;
    open.send_replace(true);
    peer.event("turn_complete").await;
    for waiting in [interrupt, late] {
        assert_eq!(*reason(&peer.answer(waiting).await), Value::Null);
    }
    // The second one was taken only when the next turn ran, which it did not name.
    assert_eq!(peer.answer(next).await["result"]["turn"]["id"], ID);
    assert_eq!(peer.event("turn_complete").await["msg"]["turn_id"], ID);
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_that_names_another_turn_is_refused() {
    let (mut peer, thread) = Peer::start(&silent()).await;
    let turn = peer.user(&thread, "hi").await;
    for other in [ID, "seven"] {
        let refused = peer.interrupt(&thread, Some(other)).await;
        assert_eq!(code(&peer.answer(refused).await), INVALID);
    }
    let steer = peer.ask("turn/steer", named(&thread, ID)).await;
    assert_eq!(code(&steer), INVALID);
    let interrupt = peer.interrupt(&thread, Some(&turn)).await;
    assert_eq!(reason(&peer.answer(interrupt).await), "interrupted");
    let steer = peer.ask("turn/steer", named(&thread, &turn)).await;
    assert_eq!(code(&steer), INVALID, "it is over");
}

#[tokio::test(start_paused = true)]
async fn input_that_joins_a_turn_is_told_which() {
    let (mut peer, thread) = Peer::start(&silent()).await;
    let turn = peer.user(&thread, "hi").await;
    assert_eq!(peer.user(&thread, "more").await, turn);
    let steer = peer.ask("turn/steer", named(&thread, &turn)).await;
    assert_eq!(steer["result"]["turn"]["id"], turn.as_str());
    let own = peer.ask("turn/start", named(&thread, ID)).await;
    assert_eq!(code(&own), INVALID);
    let empty = json!({"threadId": thread, "input": []});
    assert_eq!(code(&peer.ask("turn/start", empty).await), INVALID);
    // The id was not used up by the refusal.
    let mut params = named(&thread, ID);
    params["replace"] = json!(true);
    let answer = peer.ask("turn/start", params).await;
    assert_eq!(answer["result"]["turn"]["id"], ID);
}

#[tokio::test(start_paused = true)]
async fn approvals_are_requests() {
    let calls = [("c1", "run"), ("c2", "run"), ("c3", "run")];
    let replies = vec![Reply::asking("r1", &calls), Reply::text("r2", "ok")];
    let rig = Rig::new(replies, vec![vec![ToolStep::Exit(0)]; 3]);
    let (mut peer, thread) = Peer::start(&rig).await;
    peer.user(&thread, "hi").await;
    let answers = [
        json!({"result": {"decision": "approved"}}),
        json!({"result": {"decision": "whatever"}}),
        json!({"error": {"code": 1, "message": "nobody is there"}}),
    ];
    for mut answer in answers {
        let request = peer
            .find(|message| message["method"] == "approval/request")
            .await;
        assert_eq!(request["params"]["threadId"], thread.as_str());
        answer["id"] = request["id"].clone();
        // The second answer to one request is an answer to none.
        for _ in 0..2 {
            peer.write(answer.to_string().as_bytes()).await;
        }
    }
    peer.event("turn_complete").await;
    assert_eq!(lock(&rig.tools.commands).len(), 1);
    for call in ["c2", "c3"] {
        assert!(rig.request(1).output(call).contains("allow"), "{call}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_to_an_approval_changes_nothing() {
    let replies = vec![
        Reply::asking("r1", &[("c1", "run")]),
        Reply::text("r2", "ok"),
    ];
    let rig = Rig::new(replies, vec![vec![ToolStep::Exit(0)]]);
    let (mut peer, thread) = Peer::start(&rig).await;
    peer.user(&thread, "hi").await;
    let request = peer
        .find(|message| message["method"] == "approval/request")
        .await;
    let interrupt = peer.interrupt(&thread, None).await;
    assert_eq!(reason(&peer.answer(interrupt).await), "interrupted");
    let answer = json!({"id": request["id"], "result": {"decision": "approved"}});
    peer.write(answer.to_string().as_bytes()).await;
    peer.user(&thread, "next").await;
    peer.event("turn_complete").await;
    assert_eq!(lock(&rig.tools.commands).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn each_listener_gets_a_copy() {
    let (mut peer, thread) = Peer::start(&answering()).await;
    let about = json!({"threadId": thread});
    let second = peer.ask("thread/subscribe", about.clone()).await;
    assert_eq!(second["result"]["listener"], 2);
    peer.user(&thread, "hi").await;
    for listener in [1, 2] {
        assert_eq!(peer.event("turn_complete").await["listener"], listener);
    }
    let first = json!({"threadId": thread, "listener": 1});
    assert_eq!(
        peer.ask("thread/unsubscribe", first.clone()).await["result"],
        json!({})
    );
    assert_eq!(code(&peer.ask("thread/unsubscribe", first).await), -32602);
    peer.user(&thread, "hi").await;
    assert_eq!(peer.event("turn_complete").await["listener"], 2);
    for _ in 1..16 {
        assert!(peer.ask("thread/subscribe", about.clone()).await["error"].is_null());
    }
    assert_eq!(code(&peer.ask("thread/subscribe", about).await), INVALID);
}

#[tokio::test(start_paused = true)]
async fn conversations_go_their_own_ways() {
    let replies = vec![Reply::Silence, Reply::text("r2", "ok")];
    let (mut peer, one) = Peer::start(&Rig::new(replies, vec![])).await;
    let two = peer.open(json!({})).await;
    assert_ne!(one, two);
    let stays = peer.user(&one, "hi").await;
    let ends = peer.user(&two, "hi").await;
    assert_ne!(stays, ends);
    let complete = peer.event("turn_complete").await;
    assert_eq!(complete["threadId"], two.as_str());
    let interrupt = peer.interrupt(&two, None).await;
    assert_eq!(*reason(&peer.answer(interrupt).await), Value::Null);
    let interrupt = peer.interrupt(&one, Some(&stays)).await;
    assert_eq!(reason(&peer.answer(interrupt).await), "interrupted");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_unanswered_when_the_client_leaves() {
    let rig = silent();
    let (mut peer, thread) = Peer::start(&rig).await;
    peer.user(&thread, "hi").await;
    let open = rig.hold("input.join");
    let mut waiting = vec![peer.send("turn/start", input(&thread, "more")).await];
    rig.reached().await;
    waiting.push(peer.interrupt(&thread, None).await);
    waiting.push(peer.send("turn/start", named(&thread, ID)).await);
    let gone = tokio::spawn(peer.end());
    open.send_replace(true);
    let rest = gone.await.unwrap();
    for id in waiting {
        let answers = rest.iter().filter(|message| message["id"] == id);
        assert_eq!(answers.count(), 1, "request {id}: {rest:?}");
    }
    assert!(outline(&rest).contains(&"shutdown_complete".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn requests_need_a_greeting_and_a_thread() {
    let rig = answering();
    let mut peer = Peer::connect(&rig, 1 << 16);
    for method in ["thread/start", "turn/start", "shutdown", "fly"] {
        assert_eq!(
            code(&peer.ask(method, json!({})).await),
            INVALID,
            "{method}"
        );
    }
    let greeting = peer.ask("initialize", json!({})).await;
    assert_eq!(greeting["result"]["agent"]["name"], "cutpoint-agent");
    assert_eq!(code(&peer.ask("initialize", json!({})).await), INVALID);
    for method in [
        "turn/start",
        "turn/steer",
        "turn/interrupt",
        "thread/subscribe",
    ] {
        let unknown = peer.ask(method, input(ID, "hi")).await;
        assert_eq!(code(&unknown), INVALID, "{method}");
        for params in [json!({}), json!([]), Value::Null, json!({"threadId": 7})] {
            let odd = peer.ask(method, params.clone()).await;
            assert_eq!(code(&odd), -32602, "{method} {params}");
        }
    }
    let thread = peer.open(json!({})).await;
    let odd = [
        json!({"threadId": thread}),
        json!({"threadId": thread, "input": "hi"}),
        json!({"threadId": thread, "input": [{"type": "image"}]}),
        json!({"threadId": thread, "input": [], "turnId": 1}),
        json!({"threadId": thread, "input": [], "replace": "yes"}),
    ];
    for params in odd {
        let answer = peer.ask("turn/start", params.clone()).await;
        assert_eq!(code(&answer), -32602, "{params}");
    }
    assert_eq!(code(&peer.ask("fly", json!({})).await), -32601);
}

#[tokio::test(start_paused = true)]
async fn garbage_is_answered_with_errors() {
    let rig = answering();
    let mut peer = Peer::connect(&rig, 1 << 16);
    let (long, nested) = ("x".repeat(5 << 20), "[".repeat(100_000));
    let refused = [
        "not json",
        "[]",
        "null",
        "7",
        "{}",
        "{\"id\":1}",
        "\u{0}",
        &long,
        &nested,
        r#"{"id":[],"method":"initialize"}"#,
    ];
    let unanswered = [
        "",
        "  ",
        r#"{"method":"initialized"}"#,
        r#"{"method":"fly","params":[]}"#,
        r#"{"id":99,"result":{}}"#,
        r#"{"id":"x","error":{}}"#,
    ];
    for line in refused {
        peer.write(line.as_bytes()).await;
        let answer = peer.next().await;
        assert!([INVALID, -32700].contains(&code(&answer)), "{answer}");
    }
    for line in unanswered {
        peer.write(line.as_bytes()).await;
    }
    peer.write(b"\xFF\xFE").await;
    assert_eq!(code(&peer.next().await), -32700);
    peer.ask("initialize", json!({})).await;
    peer.write(br#"{"id":"half","#).await;
    let rest = peer.end().await;
    assert_eq!((rest.len(), code(&rest[0])), (1, -32700));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_holds_nothing_up_for_good() {
    let mut rig = answering();
    rig.config.event_queue = 1;
    (0..500).for_each(|_| rig.model.push(Reply::text("r", "ok")));
    let mut peer = Peer::connect(&rig, 64);
    peer.ask("initialize", json!({})).await;
    let thread = peer.open(json!({})).await;
    let mut lines = Vec::new();
    for id in 0..300 {
        let (method, params) = if id % 3 == 2 {
            ("turn/interrupt", json!({"threadId": thread}))
        } else {
            ("turn/start", input(&thread, "hi"))
        };
        let line = json!({"id": 1000 + id, "method": method, "params": params});
        lines.push(line.to_string());
    }
    // The client writes all it has before it reads again, as one with two threads may do.
    let mut answers = peer.flood(lines).await;
    let rest = peer.end().await;
    answers.extend(rest);
    for id in 1000..1300 {
        let of_it = answers.iter().filter(|message| message["id"] == id);
        assert_eq!(of_it.count(), 1, "request {id}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_gone_ends_the_agent() {
    let first = Reply::text("r1", "hello").hang_after("response.output_text.delta", 1);
    let rig = Rig::new(vec![first], vec![]);
    let (mut peer, thread) = Peer::start(&rig).await;
    peer.user(&thread, "hi").await;
    peer.event("agent_message_delta").await;
    peer.break_off().await;
    let mut closed = rig.model.closed.subscribe();
    soon(closed.wait_for(|count| *count == 1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn ids_of_answers_are_given_back_as_they_came() {
    let rig = answering();
    let mut peer = Peer::connect(&rig, 1 << 16);
    for id in [json!("a"), json!(-1), json!(1.5), json!("")] {
        let line = json!({"id": id, "method": "fly"});
        peer.write(line.to_string().as_bytes()).await;
        assert_eq!(peer.next().await["id"], id);
    }
    let answer = peer.ask("initialize", json!({})).await;
    assert_eq!(
        text(&answer["result"]["agent"]["version"]),
        env!("CARGO_PKG_VERSION")
    );
}
