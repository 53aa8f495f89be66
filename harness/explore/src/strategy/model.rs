//! What a model sends.

use std::time::Duration;

use cutpoint_scenario::ast::{DisconnectKind, Reply, ReplyBody, ReplyEnd, ReplyPart, Span};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// The tasks of sub-agents; each opens a conversation of its own.
pub(super) const TASKS: [&str; 2] = ["Look around.", "Count them."];
/// The tool that asks the user.
pub(super) const QUESTION: &str = "request_user_input";
/// Stands for the call's own id, until it has one: each sub-agent gets its own task, because a
/// conversation is known by its opening text.
pub(super) const CALL: &str = "{call}";
/// Stands for the sub-agent that was started last, until the calls have their ids.
pub(super) const AGENT: &str = "{agent}";

/// Command lines that the lab understands. They differ in what they print, how long they run, how they
/// exit, which processes they leave, and how they treat signals.
pub fn command() -> impl Strategy<Value = String> {
    let usual = [
        "echo first light",
        "printf 'no line break'",
        "true",
        "false",
        "exit 3",
        "cat notes",
        "sleep 0.2; echo late",
        "echo one; sleep 0.05; echo two",
    ];
    let long = [
        "sleep 60",
        "echo early; sleep 60",
        "sleep 61 & echo left behind",
        "sleep 61 & sleep 62 & sleep 60",
        "trap '' TERM; sleep 60",
        "trap '' TERM; sleep 61 & echo stubborn; sleep 60",
    ];
    let odd = [
        "seq 3000",
        "seq 400; sleep 0.01; seq 400; sleep 60",
        "printf '\\342\\202'; sleep 0.05; printf '\\254'",
        "printf '\\377\\000'",
    ];
    prop_oneof![
        8 => select(usual.to_vec()),
        5 => select(long.to_vec()),
        1 => select(odd.to_vec()),
    ]
    .prop_map(str::to_owned)
}

/// A question to the user; now and then one that is none.
pub fn question() -> impl Strategy<Value = ReplyPart> {
    let arguments = select(vec![
        r#"{"questions":["Which file?"]}"#,
        r#"{"questions":["Which file?","And when?"]}"#,
        r#"{"questions":[]}"#,
        r#"{"questions":["#,
    ]);
    (arguments, 1_usize..4).prop_map(|(arguments, chunks)| function(QUESTION, arguments, chunks))
}

/// A patch: one that fits, one that may, one that does not, and what is none.
pub fn patch() -> impl Strategy<Value = ReplyPart> {
    let bodies = select(vec![
        "*** Begin Patch\n*** Add File: notes\n+first light\n*** End Patch",
        "*** Begin Patch\n*** Update File: notes\n-first light\n+second light\n*** End Patch",
        "*** Begin Patch\n*** Delete File: notes\n*** Add File: other\n+1\n*** End Patch",
        "*** Begin Patch\n*** Add File: ../out\n+1\n*** End Patch",
        "*** Begin Patch\n*** Add File: notes",
    ]);
    (bodies, 1_usize..5).prop_map(|(input, chunks)| ReplyPart::Custom {
        call: String::new(),
        name: "apply_patch".to_owned(),
        input: input.to_owned(),
        chunks,
    })
}

/// A call that starts a sub-agent, or speaks to the one that was started last, if any was.
pub fn delegation() -> impl Strategy<Value = ReplyPart> {
    let task = select(TASKS.to_vec()).prop_map(|task| format!(r#"{{"task":"{task} ({CALL})"}}"#));
    let agent = format!(r#"{{"agent_id":"{AGENT}"}}"#);
    let message = format!(r#"{{"agent_id":"{AGENT}","message":"And behind it?"}}"#);
    prop_oneof![
        3 => task.clone().prop_map(|task| function("delegate", &task, 1)),
        3 => task.prop_map(|task| function("spawn_agent", &task, 2)),
        2 => Just(function("wait_agent", &agent, 1)),
        1 => Just(function("send_input", &message, 1)),
        1 => Just(function("close_agent", &agent, 1)),
    ]
}

pub(super) fn is_delegation(part: &ReplyPart) -> bool {
    let names = [
        "delegate",
        "spawn_agent",
        "wait_agent",
        "send_input",
        "close_agent",
    ];
    matches!(part, ReplyPart::Function { name, .. } if names.contains(&name.as_str()))
}

fn function(name: &str, arguments: &str, chunks: usize) -> ReplyPart {
    ReplyPart::Function {
        call: String::new(),
        name: name.to_owned(),
        arguments: arguments.to_owned(),
        chunks,
    }
}

/// A call of any kind. It gets its id when the whole model is put together.
pub fn call() -> impl Strategy<Value = ReplyPart> {
    let shell = (command(), 1_usize..5).prop_map(|(command, chunks)| ReplyPart::Shell {
        call: String::new(),
        command,
        chunks,
    });
    let custom = (command(), 1_usize..5).prop_map(|(input, chunks)| ReplyPart::Custom {
        call: String::new(),
        name: "run_script".to_owned(),
        input,
        chunks,
    });
    let local = select(vec![vec!["sleep", "60"], vec!["echo", "hi"], vec!["false"]]);
    let local = local.prop_map(|words| ReplyPart::LocalShell {
        call: String::new(),
        command: words.into_iter().map(str::to_owned).collect(),
    });
    let unknown = select(vec![r#"{"factor":9}"#, r#"{"factor":"#, ""]);
    let unknown = unknown.prop_map(|arguments| function("warp_drive", arguments, 1));
    prop_oneof![
        24 => shell,
        3 => custom,
        3 => local,
        2 => patch(),
        2 => question(),
        3 => delegation(),
        1 => unknown,
    ]
}

/// One part of a stream.
pub fn part() -> impl Strategy<Value = ReplyPart> {
    let texts = select(vec!["Let me see.", "Done, all of it.", "Grüße, 世界 😀!"]);
    // Now and then a delta for each character, or nearly so; a text has no more chunks than those.
    let chunks = prop_oneof![5 => 1_usize..6, 1 => 12_usize..24];
    let said = (texts, chunks).prop_map(|(text, chunks)| {
        let chunks = chunks.min(text.chars().count());
        (text.to_owned(), chunks)
    });
    let text = said
        .clone()
        .prop_map(|(text, chunks)| ReplyPart::Text { text, chunks });
    let reasoning = said.prop_map(|(text, chunks)| ReplyPart::Reasoning { text, chunks });
    let pause = select(vec![1_u64, 40, 300]).prop_map(|ms| ReplyPart::Pause {
        duration: Duration::from_millis(ms),
    });
    let malformed = select(vec!["data: {oops", "data: 7", "nonsense"]);
    let malformed = malformed.prop_map(|text| ReplyPart::Malformed {
        text: text.to_owned(),
    });
    prop_oneof![
        16 => text,
        4 => reasoning,
        16 => call(),
        4 => pause,
        1 => malformed,
    ]
}

/// How a stream ends: mostly well.
pub fn end() -> impl Strategy<Value = ReplyEnd> {
    let reasons = select(vec!["max_output_tokens", "content_filter"]);
    let codes = || {
        select(vec![
            "server_error",
            "rate_limit_exceeded",
            "context_length_exceeded",
        ])
    };
    prop_oneof![
        30 => Just(ReplyEnd::Completed),
        4 => select(DisconnectKind::ALL.to_vec()).prop_map(ReplyEnd::Drop),
        2 => reasons.prop_map(|reason| ReplyEnd::Incomplete { reason: reason.to_owned() }),
        2 => codes().prop_map(|code| ReplyEnd::Failed { code: code.to_owned(), message: None }),
        2 => (codes(), any::<bool>()).prop_map(|(code, nested)| ReplyEnd::Error {
            code: code.to_owned(),
            message: None,
            nested,
        }),
        1 => Just(ReplyEnd::Stall),
    ]
}

/// One reply: mostly a stream, often of a few parts, now and then a refusal.
pub fn reply() -> impl Strategy<Value = Reply> {
    let parts = prop_oneof![12 => vec(part(), 1..4), 1 => vec(part(), 4..7)];
    let stream = (parts, end()).prop_map(|(parts, end)| ReplyBody::Stream { parts, end });
    let status = prop_oneof![
        3 => select(vec![429, 500, 503]),
        1 => select(vec![400, 401, 403, 404, 413, 502, 504]),
    ];
    let wait = option::of(select(vec![0_u64, 1, 30]));
    let status = (status, wait).prop_map(|(status, retry_after_s)| ReplyBody::Status {
        status,
        retry_after_s,
        headers: Vec::new(),
        body: None,
    });
    prop_oneof![12 => stream, 1 => status].prop_map(|body| Reply {
        body,
        lenient: false,
        span: Span::default(),
    })
}
