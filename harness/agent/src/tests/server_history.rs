//! With the history on the server's side.

use super::support::{Reply, Rig, ToolStep};
use crate::HistoryMode;

fn rig(replies: Vec<Reply>, tools: Vec<Vec<ToolStep>>) -> Rig {
    let mut rig = Rig::new(replies, tools);
    rig.config.history = HistoryMode::Server;
    rig
}

fn previous(rig: &Rig, at: usize) -> Option<String> {
    let request = rig.request(at);
    let id = request.body().get("previous_response_id")?;
    Some(id.as_str()?.to_owned())
}

#[tokio::test(start_paused = true)]
async fn only_what_is_new_is_sent() {
    let replies = vec![
        Reply::shell("r1", &["c1"]),
        Reply::text("r2", "a"),
        Reply::text("r3", "b"),
    ];
    let rig = rig(replies, vec![vec![ToolStep::Exit(0)]]);
    let mut client = rig.start().await;
    for text in ["one", "two"] {
        client.user(text).await;
        client.end().await;
    }
    assert_eq!(rig.request(0).body()["store"], true);
    assert_eq!(
        (rig.request(0).outline(), previous(&rig, 0)),
        (vec!["u:one".to_owned()], None)
    );
    assert_eq!(
        (rig.request(1).outline(), previous(&rig, 1)),
        (vec!["o:c1".to_owned()], Some("r1".to_owned()))
    );
    assert_eq!(
        (rig.request(2).outline(), previous(&rig, 2)),
        (vec!["u:two".to_owned()], Some("r2".to_owned()))
    );
}

#[tokio::test(start_paused = true)]
async fn the_output_of_a_call_that_the_server_knows_is_at_the_head() {
    let rig = rig(
        vec![Reply::shell("r1", &["c1"]), Reply::text("r2", "a")],
        vec![vec![ToolStep::Hang]],
    );
    let open = rig.hold("turn.calls");
    let mut client = rig.start().await;
    client.user("go").await;
    rig.reached().await;
    client.interrupt().await;
    client.end().await;
    open.send_replace(true);
    client.user("next").await;
    client.end().await;
    assert_eq!(previous(&rig, 1).as_deref(), Some("r1"));
    assert_eq!(rig.request(1).outline(), ["o:c1", "marker", "u:next"]);
}

#[tokio::test(start_paused = true)]
async fn what_an_interrupted_response_gave_is_sent_by_the_client() {
    let cut = Reply::shell("r2", &["c1"]).hang_after("response.output_item.done", 1);
    let rig = rig(
        vec![Reply::text("r1", "a"), cut, Reply::text("r3", "b")],
        vec![vec![ToolStep::Hang]],
    );
    let mut client = rig.start().await;
    client.user("one").await;
    client.end().await;
    client.user("two").await;
    client.begin_of_tool().await;
    client.interrupt().await;
    client.end().await;
    client.user("three").await;
    client.end().await;
    assert_eq!(previous(&rig, 2).as_deref(), Some("r1"));
    assert_eq!(
        rig.request(2).outline(),
        ["u:two", "c:c1", "o:c1", "marker", "u:three"]
    );
}

#[tokio::test(start_paused = true)]
async fn an_unknown_call_is_answered_at_the_head() {
    let replies = vec![
        Reply::text("r1", "a"),
        Reply::misses("c9"),
        Reply::text("r2", "b"),
    ];
    let rig = rig(replies, vec![]);
    let mut client = rig.start().await;
    for text in ["one", "two"] {
        client.user(text).await;
        client.end().await;
    }
    assert_eq!(rig.request(2).outline(), ["o:c9", "u:two"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_forgot_gets_everything() {
    let body = cutpoint_protocol::api_error::previous_response_not_found("r1").body;
    let replies = vec![
        Reply::text("r1", "a"),
        Reply::refuse(400, body.to_string(), None),
        Reply::text("r2", "b"),
    ];
    let rig = rig(replies, vec![]);
    let mut client = rig.start().await;
    for text in ["one", "two"] {
        client.user(text).await;
        client.end().await;
    }
    assert_eq!(previous(&rig, 2), None);
    assert_eq!(rig.request(2).outline(), ["u:one", "a:a", "u:two"]);
}
