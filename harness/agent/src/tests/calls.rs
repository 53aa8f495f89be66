//! The debt of outputs, and the recovery from the 400 that names a call.

use cutpoint_protocol::session::EventMsg;

use super::support::{Reply, Rig, ToolStep};
use crate::Defect;

/// A session whose first turn was interrupted while its tool ran, by an agent that forgets the
/// output: the next request leaves the call unanswered.
async fn forgetful(replies: Vec<Reply>) -> (Rig, super::support::Client) {
    let mut all = vec![Reply::shell("resp_1", &["c1"])];
    all.extend(replies);
    let rig = Rig::new(all, vec![vec![ToolStep::Hang]]).with(Defect::ForgetOutput);
    let mut client = rig.start().await;
    client.user("go").await;
    client.begin_of_tool().await;
    client.interrupt().await;
    client.end().await;
    client.user("next").await;
    (rig, client)
}

#[tokio::test(start_paused = true)]
async fn a_400_that_names_a_call_is_answered_at_once() {
    let (rig, mut client) = forgetful(vec![Reply::misses("c1"), Reply::text("resp_2", "ok")]).await;
    let start = tokio::time::Instant::now();
    let events = client.until(EventMsg::is_terminal).await;
    assert!(start.elapsed().is_zero(), "no backing off");
    assert!(events.iter().any(|event| matches!(&event.msg, EventMsg::BackgroundEvent { message } if message.contains("c1"))));
    assert!(matches!(
        events.last().unwrap().msg,
        EventMsg::TurnComplete { .. }
    ));
    assert_eq!(
        rig.request(1).outline(),
        ["u:go", "c:c1", "marker", "u:next"]
    );
    assert_eq!(
        rig.request(2).outline(),
        ["u:go", "c:c1", "o:c1", "marker", "u:next"]
    );
    assert!(rig.request(2).output("c1").contains("aborted"));
}

#[tokio::test(start_paused = true)]
async fn a_400_that_names_a_call_twice_is_an_error() {
    let (rig, mut client) = forgetful(vec![Reply::misses("c1"); 5]).await;
    assert!(matches!(client.end().await, EventMsg::TurnFailed { .. }));
    assert_eq!(rig.requests(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_400_about_an_unknown_call_invents_nothing() {
    let rig = Rig::new(vec![Reply::misses("nowhere"); 5], vec![]);
    let mut client = rig.start().await;
    client.user("hi").await;
    assert!(matches!(client.end().await, EventMsg::TurnFailed { .. }));
    assert_eq!((rig.requests(), rig.request(1).outline().len()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_settled_debt_is_in_the_rollout_too() {
    let (mut rig, mut client) =
        forgetful(vec![Reply::misses("c1"), Reply::text("resp_2", "ok")]).await;
    client.end().await;
    let path = client.session.rollout_path().to_owned();
    client.shutdown().await;
    rig.config.defects = Default::default();
    rig.model.push(Reply::text("resp_3", "ok"));
    let mut client = rig.resume(path).await;
    client.user("again").await;
    client.end().await;
    let outline = rig.request(3).outline();
    assert_eq!(
        outline,
        [
            "u:go", "c:c1", "o:c1", "marker", "u:next", "a:ok", "u:again"
        ]
    );
}
