//! From rollouts to recordings and back: what an import replays is what the rollout says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use cutpoint_protocol::rollout::RolloutLine;
use cutpoint_protocol::sse::Document;
use cutpoint_recording::session::{TurnEndKind, UserAction};
use cutpoint_recording::{Imported, Recording, Redactor, Response, count, diff, import};
use cutpoint_trace::{Observation, Trace};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::damage::fault;
use support::{Ended, Place, Running, root};

/// The rollouts that stand in the project: one of each form, and of released versions of Codex.
fn fixtures() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("tests/rollouts")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 13, "{files:?}");
    files
}

fn assert_checked(ended: &Ended) {
    let said = format!("{}\n{}", ended.stdout, ended.stderr);
    assert_eq!(ended.status.code(), Some(0), "{said}");
    assert!(
        said.contains("checked: a replay gives the same items"),
        "{said}"
    );
}

/// The rollout that a run left in its trace.
fn rollout_of(trace: &Path) -> Vec<u8> {
    let file = std::io::BufReader::new(fs::File::open(trace).unwrap());
    let mut content = Vec::new();
    for entry in Trace::read(file).unwrap().0.entries {
        if let Observation::Rollout { from, text, .. } = entry.observation {
            content.truncate(usize::try_from(from).unwrap());
            content.extend_from_slice(text.as_bytes());
        }
    }
    content
}

/// Runs scenarios, and gives the name and the rollout of each.
fn rollouts_of(place: &Place, scenarios: &[&str], agent: &str) -> Vec<(String, PathBuf)> {
    let mut words: Vec<String> = vec!["run".to_owned()];
    words.extend(
        scenarios
            .iter()
            .map(|it| root().join(it).display().to_string()),
    );
    let recordings = root().join("recordings").display().to_string();
    words.extend(
        [
            "--agent",
            agent,
            "--trace",
            "traces",
            "--recordings",
            &recordings,
        ]
        .map(str::to_owned),
    );
    let ended = place.run(&words);
    let kept = |name: &String| place.path().join("traces").join(name).exists();
    let names: Vec<String> = place.names("traces").into_iter().filter(kept).collect();
    assert!(!names.is_empty(), "{}\n{}", ended.stdout, ended.stderr);
    let store = |name: &String| {
        let bytes = rollout_of(&place.path().join("traces").join(name));
        place.file(&format!("rollouts/{name}"), bytes)
    };
    names
        .iter()
        .map(|name| (name.clone(), store(name)))
        .collect()
}

/// What `cutpoint check` says of a rollout besides what is not exercised: docs/import.md tells it by version.
fn findings(name: &str) -> &'static [&'static str] {
    match name {
        "codex-0.40.0" | "codex-0.80.0" | "envelopes" => &["MARK-3 (warning)"],
        _ => &[],
    }
}

/// What a rollout of this version does not put to the test.
fn not_exercised(name: &str) -> &'static str {
    match name {
        "bare-lines" | "codex-0.20.0" | "codex-0.23.0" => "ROLL-4, ROLL-6, MARK-3, MARK-4",
        "envelopes" | "codex-0.40.0" | "codex-0.80.0" | "codex-0.98.0" => "ROLL-4, ROLL-6, MARK-4",
        _ => "ROLL-6",
    }
}

fn import_at(place: &Place, file: &Path, name: &str) -> Ended {
    place.run(["import", &file.display().to_string(), "--name", name])
}

#[test]
fn what_the_reference_agent_has_written_is_replayed_item_by_item() {
    let place = Place::new();
    let areas = ["tools", "streams", "replace-and-steer", "resume"];
    let areas = areas.map(|area| format!("scenarios/{area}"));
    let areas: Vec<&str> = areas.iter().map(String::as_str).collect();
    let rollouts = rollouts_of(&place, &areas, "reference");
    assert!(rollouts.len() >= 40);
    let mut refused = 0;
    for (at, (name, file)) in rollouts.iter().enumerate() {
        let ended = import_at(&place, file, &format!("r{at}"));
        if name.contains("compaction") {
            refused += 1;
            assert_eq!(ended.status.code(), Some(2), "{name}");
            assert!(
                ended.stderr.contains("compacts the history"),
                "{}",
                ended.stderr
            );
            let line = ended.stderr.split("--until-line ").nth(1).unwrap().trim();
            let file = file.display().to_string();
            let words = ["import", &file, "--name", "until", "--until-line", line];
            assert_checked(&place.run(words));
        } else {
            assert_checked(&ended);
        }
    }
    assert_eq!(refused, 1);
    place.assert_clean();
}

#[test]
fn rollouts_of_every_generation_are_replayed() {
    let place = Place::new();
    for file in fixtures() {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        assert_checked(&import_at(&place, &file, &name));
        // The recording alone is enough to do it again, and the scenario runs as any other.
        let recording = format!("recordings/{name}");
        let replayed = place.run(["replay", recording.as_str()]);
        assert_eq!(
            replayed.status.code(),
            Some(0),
            "{name}: {}",
            replayed.stdout
        );
        let ran = place.run(["run", format!("scenarios/imported/{name}.kdl").as_str()]);
        assert_eq!(ran.status.code(), Some(0), "{name}: {}", ran.stdout);
        assert!(ran.stderr.contains("0 unmatched"), "{}", ran.stderr);
    }
    let laid_out = place.run(["fmt", "--check", "scenarios/imported"]);
    assert_eq!(laid_out.status.code(), Some(0), "{}", laid_out.stdout);
    place.assert_clean();
}

#[test]
fn what_a_check_says_of_a_version_is_what_its_rollouts_lack() {
    let place = Place::new();
    let mut versions = 0;
    for file in fixtures() {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let checked = place.run(["check", &file.display().to_string()]);
        checked.code(0);
        let lines = checked.stdout.lines();
        let found: Vec<&str> = lines
            .filter_map(|line| {
                line.strip_prefix(file.to_str().unwrap())?
                    .split(": ")
                    .nth(1)
            })
            .collect();
        assert_eq!(found, findings(&name), "{name}: {}", checked.stdout);
        let lacks = format!("not exercised: {}\n", not_exercised(&name));
        assert!(checked.all().contains(&lacks), "{name}: {}", checked.all());
        versions += usize::from(name.starts_with("codex-"));
    }
    assert!(versions >= 10);
}

/// The newest models are told of their tools, and of an abort, by the developer.
#[test]
fn what_the_developer_says_is_no_answer_of_the_models() {
    let place = Place::new();
    let file = fs::read_to_string(root().join("tests/rollouts/codex-0.169.0.jsonl")).unwrap();
    let mut markers = 0;
    let changed = file.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        let payload = &mut line["payload"];
        if payload["role"] == "developer" {
            *payload = json!({"type": "additional_tools", "role": "developer", "tools": []});
        } else if payload.to_string().contains("<turn_aborted>") {
            markers += 1;
            payload["role"] = "developer".into();
        }
        format!("{line}\n")
    });
    let file = place.file("rollout.jsonl", changed.collect::<String>());
    assert_eq!(markers, 1);
    place.run(["check", "--strict", "rollout.jsonl"]).code(0);
    assert_checked(&import_at(&place, &file, "x"));
    let drifted = place.run(["diff", "rollout.jsonl", "recordings/x"]);
    drifted.never_says(&["additional_tools"]);
}

#[test]
fn what_a_session_once_ran_does_not_run_again() {
    let place = Place::new();
    let trap = place.path().join("trap");
    let command = format!("touch {}; sleep 600", trap.display());
    let words = json!({"command": ["bash", "-c", command]}).to_string();
    let patch = format!(
        "*** Begin Patch\n*** Add File: {}\n+x\n*** End Patch",
        trap.display()
    );
    let items = [
        json!({"type": "message", "role": "user", "content": "go"}),
        json!({"type": "function_call", "name": "shell", "call_id": "a", "arguments": words}),
        json!({"type": "custom_tool_call", "name": "run_script", "call_id": "b", "input": command}),
        json!({"type": "custom_tool_call", "name": "apply_patch", "call_id": "c", "input": patch}),
        json!({"type": "local_shell_call", "call_id": "d", "action": {"command": ["touch", trap]}}),
        json!({"type": "function_call_output", "call_id": "a", "output": format!("$(touch {})`touch {}`", trap.display(), trap.display())}),
        json!({"type": "custom_tool_call_output", "call_id": "b", "output": format!("'; touch {}; '", trap.display())}),
        json!({"type": "custom_tool_call_output", "call_id": "c", "output": format!("%s\\'\n touch {} &", trap.display())}),
        json!({"type": "function_call_output", "call_id": "d", "output": "-n\\"}),
        json!({"type": "message", "role": "assistant", "content": "done"}),
    ];
    let text: String = items.iter().map(|item| format!("{item}\n")).collect();
    let file = place.file("rollout.jsonl", text);
    assert_checked(&import_at(&place, &file, "trapped"));
    // The commands of this agent are real ones.
    let words = ["replay", "recordings/trapped", "--agent", "reference-stdio"];
    let replayed = place.run(words);
    assert_eq!(
        replayed.status.code(),
        Some(0),
        "{}\n{}",
        replayed.stdout,
        replayed.stderr
    );
    assert!(!trap.exists());
    place.assert_clean();
}

#[test]
fn nothing_is_overwritten_unless_told_so() {
    let place = Place::new();
    let [first, second] = [&fixtures()[0], &fixtures()[1]].map(|file| file.display().to_string());
    assert_checked(&place.run(["import", &first, "--name", "x"]));
    let before = place.read("scenarios/imported/x.kdl");
    let refused = place.run(["import", &second, "--name", "x"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
    assert_eq!(place.read("scenarios/imported/x.kdl"), before);
    let forced = ["import", &second, "--name", "x", "--force", "--no-check"];
    assert_eq!(place.run(forced).status.code(), Some(0));
    let elsewhere = [
        "import",
        &first,
        "--name",
        "y",
        "--out",
        "a/y",
        "--scenario-out",
        "b/y.kdl",
    ];
    assert_checked(&place.run(elsewhere));
    assert!(place.run(["run", "b/y.kdl"]).status.success());
}

/// Checked in together they are found together, wherever that is.
#[test]
fn a_scenario_finds_its_recording_from_its_own_folder() {
    let place = Place::new();
    let file = fixtures()[0].display().to_string();
    let import = |more: &[&str]| {
        let words = [&["import", &file, "--name", "y"], more].concat();
        assert_checked(&place.run(words));
    };
    import(&["--out", "old/recs/y", "--scenario-out", "old/all/y.kdl"]);
    let scenario = place.read("old/all/y.kdl");
    assert!(scenario.contains("recording \"../recs/y\""), "{scenario}");
    fs::create_dir(place.path().join("new")).unwrap();
    fs::rename(place.path().join("old"), place.path().join("new/home")).unwrap();
    place.run(["run", "new/home/all/y.kdl"]).code(0);
    let mut within = place.cutpoint(["run", "y.kdl"]);
    within.current_dir(place.path().join("new/home/all"));
    Running::start(&mut within).wait().code(0);
    // Beside each other the name is enough, and where it is expected as well.
    import(&["--out", "here/y", "--scenario-out", "here/y.kdl"]);
    assert!(place.read("here/y.kdl").contains("recording \"y\""));
    import(&[]);
    let expected = place.read("scenarios/imported/y.kdl");
    assert!(expected.contains("recording \"y\""), "{expected}");
    // What has nothing in common but the root is named by its whole path.
    let far = tempfile::Builder::new()
        .prefix("far-")
        .tempdir_in("/dev/shm");
    if let Ok(far) = far {
        let out = far.path().join("y").display().to_string();
        import(&["--out", &out, "--scenario-out", "far/y.kdl"]);
        let scenario = place.read("far/y.kdl");
        assert!(
            scenario.contains(&format!("recording \"{out}\"")),
            "{scenario}"
        );
    }
    place.assert_clean();
}

/// A replay of it would need more memory than there may be: 4 MB in 300 turns are 600 MB in requests.
#[test]
fn what_is_too_long_to_be_checked_is_imported_and_says_so() {
    let place = Place::new();
    let line = |kind: &str, payload: Value| {
        format!(
            "{}\n",
            json!({"timestamp": "t", "type": kind, "payload": payload})
        )
    };
    let said = |role: &str, part: &str, text: &str| {
        let content = json!([{"type": part, "text": text}]);
        line(
            "response_item",
            json!({"type": "message", "role": role, "content": content}),
        )
    };
    let mut rollout = line("session_meta", json!({"id": "s", "cwd": "/w"}));
    let long = "word ".repeat(2_600);
    for turn in 0..300 {
        rollout += &said("user", "input_text", &format!("turn {turn}"));
        rollout += &said("assistant", "output_text", &long);
    }
    place.file("long.jsonl", &rollout);
    let ended = place.run(["import", "long.jsonl", "--name", "long"]);
    ended
        .code(0)
        .says(&["300 exchanges", "not checked", "--until-line"]);
    let words = [
        "import",
        "long.jsonl",
        "--name",
        "short",
        "--until-line",
        "9",
    ];
    assert_checked(&place.run(words));
}

#[test]
fn drift_is_told_item_by_item() {
    let place = Place::new();
    let file = root().join("tests/rollouts/bare-lines.jsonl");
    assert_checked(&import_at(&place, &file, "x"));
    // Somebody has changed what the tool printed, so the agent at hand seems to lose a line.
    let stream = place.read("recordings/x/01.response.sse");
    place.file(
        "recordings/x/01.response.sse",
        stream.replace("main.rs", "other.rs"),
    );
    fs::remove_file(place.path().join("recordings/x/recording.json")).unwrap();
    let drifted = place.run(["replay", "recordings/x"]);
    assert_eq!(
        drifted.status.code(),
        Some(1),
        "{}\n{}",
        drifted.stdout,
        drifted.stderr
    );
    assert!(
        drifted.stdout.contains("-     main.rs"),
        "{}",
        drifted.stdout
    );
    assert!(
        drifted.stdout.contains("+     other.rs"),
        "{}",
        drifted.stdout
    );
    assert!(
        drifted.stdout.contains("1 lost, 1 added"),
        "{}",
        drifted.stdout
    );
}

#[test]
fn a_recording_with_requests_is_replayed_by_its_turns() {
    let place = Place::new();
    let replayed = place.run(["replay", &support::recording("text-answer")]);
    assert_eq!(replayed.status.code(), Some(0), "{}", replayed.stdout);
    assert!(
        replayed.stdout.contains("1 served (1 exact)"),
        "{}",
        replayed.stdout
    );
    // Commands are interpreted in the lab, and the files of that session are not there.
    let drifted = place.run(["replay", &support::recording("shell-then-text")]);
    assert_eq!(drifted.status.code(), Some(1), "{}", drifted.stdout);
    assert!(
        drifted.stdout.contains("3 served (1 exact), 2 diverged"),
        "{}",
        drifted.stdout
    );
    let bare = place.run(["replay", &support::recording("bare-curl")]);
    assert_eq!(bare.status.code(), Some(2));
    assert!(bare.stderr.contains("holds no requests"), "{}", bare.stderr);
}

#[test]
fn codex_replays_what_it_has_written() {
    let agents = std::env::var_os("CUTPOINT_AGENTS").map(PathBuf::from);
    let agents = agents.unwrap_or_else(|| root().join(".agents"));
    let binary = agents.join("codex-0.169.0/codex");
    if !binary.exists() {
        eprintln!("skipped: codex 0.169.0 is not installed; run scripts/install-codex 0.169.0");
        return;
    }
    let codex = support::agents::named("codex", binary);
    let place = Place::new();
    let scenario = ["scenarios/tools/two-calls-one-finished.kdl"];
    let rollouts = rollouts_of(&place, &scenario, &codex);
    let (_, file) = &rollouts[0];
    // The check is on the reference agent.
    assert_checked(&import_at(&place, file, "x"));
    let replayed = place.run(["replay", "recordings/x", "--agent", codex.as_str()]);
    assert_eq!(
        replayed.status.code(),
        Some(0),
        "{}\n{}",
        replayed.stdout,
        replayed.stderr
    );
    let ran = place.run(["run", "scenarios/imported/x.kdl", "--agent", codex.as_str()]);
    assert_eq!(ran.status.code(), Some(0), "{}\n{}", ran.stdout, ran.stderr);
    place.assert_clean();
}

/// Secrets of several kinds; some have characters that a shell's format spells in octal.
const SECRETS: [&str; 7] = [
    "sk-proj-aB3dE5fG7hJ9kL1mN3pQ5rS7tU9v",
    "ghp_aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY3zA5",
    "alice%smith@corp.example.org",
    "alice-smith",
    "pa$$w%rd!~x",
    "kR%7!q~Zt*42w",
    "Zed77",
];

/// A text in which all of them stand.
fn telling() -> String {
    let [key, token, email, user, password, named, custom] = SECRETS;
    let named = json!({"password": named});
    format!(
        "{key} {token} <{email}>\n/home/{user}/x postgres://app:{password}@db:5432/x {named} I am {custom}."
    )
}

/// The text with octal and JSON escapes taken back, however many stand on each other.
fn unescaped(text: &str) -> String {
    let mut text = text.to_owned();
    loop {
        let mut plain = String::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find('\\') {
            plain += &rest[..at];
            let behind = &rest[at + 1..];
            let octal = behind
                .get(..3)
                .and_then(|it| u8::from_str_radix(it, 8).ok());
            let unicode = behind.strip_prefix('u').and_then(|it| it.get(..4));
            let unicode = unicode.and_then(|it| u32::from_str_radix(it, 16).ok());
            let (shown, length) = match (octal.map(char::from), unicode.and_then(char::from_u32)) {
                (Some(shown), _) => (shown, 3),
                (_, Some(shown)) => (shown, 5),
                _ => (
                    behind.chars().next().unwrap_or(' '),
                    behind.chars().next().map_or(0, char::len_utf8),
                ),
            };
            plain.push(if length == 1 && shown == 'n' {
                '\n'
            } else {
                shown
            });
            rest = &behind[length..];
        }
        plain += rest;
        if plain == text {
            return text;
        }
        text = plain;
    }
}

/// The files that an import has written, as name and text.
fn written(place: &Place, name: &str) -> Vec<(String, String)> {
    let recording = format!("recordings/{name}");
    let names = place.names(&recording);
    let mut files: Vec<String> = names.iter().map(|it| format!("{recording}/{it}")).collect();
    files.push(format!("scenarios/imported/{name}.kdl"));
    files
        .into_iter()
        .map(|file| (file.clone(), place.read(&file)))
        .collect()
}

fn rollout_line(kind: &str, payload: &Value) -> String {
    json!({"timestamp": "2026-01-02T03:04:05Z", "type": kind, "payload": payload}).to_string()
}

/// Calls of every kind and their outputs, with `secret` in each.
fn calls_with(secret: &str) -> Vec<String> {
    let script = json!({"command": ["bash", "-lc", secret]}).to_string();
    let arguments = json!({"api_key": secret}).to_string();
    let action = json!({"type": "exec", "command": ["echo", secret], "env": {"password": secret}});
    let printed = json!({"output": secret, "metadata": {"exit_code": 3}}).to_string();
    let patched = format!("Exit code: 1\nWall time: 0.1 seconds\nOutput:\n{secret}");
    let search = json!({"type": "search", "query": secret});
    let items = [
        json!({"type": "function_call", "name": "shell", "call_id": "call_1", "arguments": script}),
        json!({"type": "function_call", "name": "mcp", "call_id": "call_2", "arguments": arguments}),
        json!({"type": "custom_tool_call", "name": "apply_patch", "call_id": "call_3", "input": secret}),
        json!({"type": "local_shell_call", "call_id": "call_4", "action": action}),
        json!({"type": "function_call_output", "call_id": "call_1", "output": printed}),
        json!({"type": "function_call_output", "call_id": "call_2", "output": {"content": secret, "success": false}}),
        json!({"type": "custom_tool_call_output", "call_id": "call_3", "output": patched}),
        json!({"type": "function_call_output", "call_id": "call_4", "output": secret}),
        json!({"type": "web_search_call", "id": "ws_1", "status": "completed", "action": search}),
    ];
    items
        .iter()
        .map(|item| rollout_line("response_item", item))
        .collect()
}

/// A rollout with a line of every kind, secrets in each of them, and more in lines that cannot be read.
fn full_of_secrets() -> String {
    let all = telling();
    let event = |value: Value| rollout_line("event_msg", &value);
    let message = |role: &str, part: &str, text: &str| {
        let content = json!([{"type": part, "text": text}]);
        let item = json!({"type": "message", "role": role, "id": "msg_1", "content": content});
        rollout_line("response_item", &item)
    };
    let started = |turn: &str| event(json!({"type": "task_started", "turn_id": turn}));
    let meta = json!({
        "id": "s", "timestamp": "t", "cwd": "/home/alice-smith/x", "originator": all,
        "cli_version": all, "instructions": all, "git": {"repository_url": all},
    });
    let context = json!({"cwd": "/home/alice-smith/x", "model": all});
    let summary = json!([{"type": "summary_text", "text": all}]);
    let reasoning =
        json!({"type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": all});
    let mut lines = vec![
        rollout_line("session_meta", &meta),
        rollout_line("turn_context", &context),
        started("a"),
        message("developer", "input_text", &all),
        message("user", "input_text", &all),
        event(json!({"type": "user_message", "message": all})),
        rollout_line("response_item", &reasoning),
    ];
    lines.extend(calls_with(&all));
    lines.extend([
        message("assistant", "output_text", &all),
        event(json!({"type": "task_complete", "turn_id": "a", "last_agent_message": all})),
        rollout_line("ghost", &json!({"of": all})),
        json!({"level": "info", "text": all}).to_string(),
        all.replace('\n', " "),
        started("b"),
        message("user", "input_text", "and now?"),
        event(json!({"type": "turn_failed", "turn_id": "b", "message": all})),
        message("user", "input_text", &all),
    ]);
    let torn = rollout_line("ghost", &json!({"of": all}));
    format!("{}\n{}", lines.join("\n"), &torn[..torn.len() - 3])
}

#[test]
fn no_secret_of_a_rollout_is_on_disk_in_any_spelling() {
    let place = Place::new();
    place.file("rollout.jsonl", full_of_secrets());
    let words = [
        "import",
        "rollout.jsonl",
        "--name",
        "x",
        "--redact",
        "Zed[0-9]+",
    ];
    let ended = place.run(words);
    assert_checked(&ended);
    ended.says(&[
        "redacted: ",
        "email × 1 (in",
        "custom × 1 (in",
        "4 exchanges",
        "is left out",
    ]);
    ended.never_says(&SECRETS);
    for (file, text) in written(&place, "x") {
        let plain = unescaped(&text);
        for secret in SECRETS {
            assert!(
                !text.contains(secret) && !plain.contains(secret),
                "{file}: {secret}"
            );
        }
    }
    let scenario = place.read("scenarios/imported/x.kdl");
    assert!(scenario.contains("I am <custom-1>."), "{scenario}");
    // The calls still have their outputs, and the same secret is the same everywhere.
    let checked = place.run(["check", "recordings/x"]);
    checked.code(0).never_says(&["SECRET"]);
    let stream = place.read("recordings/x/01.response.sse");
    assert!(
        unescaped(&stream)
            .contains("printf '<api-key-1> <github-token-1> <<email-1>>\n/home/<user-1>/x"),
        "{stream}"
    );
    place.assert_clean();
}

#[test]
fn what_an_import_takes_out_is_up_to_the_user() {
    let place = Place::new();
    place.file("rollout.jsonl", full_of_secrets());
    let import = |name: &str, more: &[&str]| {
        let words = [
            &["import", "rollout.jsonl", "--no-check", "--name", name],
            more,
        ]
        .concat();
        place.run(words).code(0);
        written(&place, name)
    };
    // All that is planted would be seen if it were there.
    let kept = import("kept", &["--no-redact"]);
    let kept: String = kept.iter().map(|(_, text)| unescaped(text)).collect();
    for secret in SECRETS {
        assert!(kept.contains(&unescaped(secret)), "{secret}");
    }
    let default = import("default", &[]);
    let default: String = default.iter().map(|(_, text)| unescaped(text)).collect();
    assert!(default.contains("Zed77") && !default.contains("corp.example"));
    place
        .run(["import", "rollout.jsonl", "--name", "y", "--redact", "("])
        .code(2)
        .says(&["not a regular expression"]);
    place
        .run([
            "import",
            "rollout.jsonl",
            "--name",
            "y",
            "--redact",
            "a",
            "--no-redact",
        ])
        .code(2);
    assert!(!place.path().join("recordings/y").exists());
}

fn read(bytes: Vec<u8>) -> Option<Imported> {
    let mut redactor = Redactor::new(&[]).unwrap();
    let rollouts = [("rollout.jsonl".to_owned(), bytes)];
    import("x", &rollouts, None, &mut redactor).ok()
}

/// What a recording says of its items and of the user is what the rollout said.
fn assert_sound(imported: &Imported) {
    let session = imported.recording.session().unwrap();
    let changes = diff(&imported.items, &session.items);
    let shown: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert!(count(&changes).is_same(), "{shown:#?}");
}

#[test]
fn a_stored_import_is_the_one_that_was_made() {
    for file in fixtures() {
        let imported = read(fs::read(&file).unwrap()).unwrap();
        assert_eq!(imported.problems, [], "{}", file.display());
        assert_sound(&imported);
        let place = tempfile::tempdir().unwrap();
        imported.recording.save(&place.path().join("x")).unwrap();
        let loaded = Recording::load(&place.path().join("x")).unwrap();
        assert_eq!(loaded.session(), imported.recording.session());
        let errors: Vec<_> = loaded
            .validate()
            .into_iter()
            .filter(|it| it.is_error())
            .collect();
        assert_eq!(errors, [], "{}", file.display());
        let did = loaded.session().unwrap().actions;
        assert!(
            did.contains(&UserAction::Ended(TurnEndKind::Interrupted)),
            "{}",
            file.display()
        );
    }
}

#[test]
fn an_answer_costs_what_it_has_cost() {
    for name in ["envelopes", "codex-0.40.0", "codex-0.169.0"] {
        let file = root().join(format!("tests/rollouts/{name}.jsonl"));
        let imported = read(fs::read(file).unwrap()).unwrap();
        let completed = |stream: &Document| {
            let data = &stream.frames.last()?.event.as_ref()?.data;
            let event: Value = serde_json::from_str(data).unwrap();
            event["response"]["usage"]["total_tokens"].as_u64()
        };
        let exchanges = imported.recording.exchanges.iter();
        let costs: Vec<Option<u64>> = exchanges
            .map(|exchange| match &exchange.response {
                Response::Stream(stream) => completed(stream),
                Response::Body { .. } => None,
            })
            .collect();
        // What nothing is told of has the composer's own numbers: 12 tokens, and 4 for each item.
        let expected: &[Option<u64>] = match name {
            "envelopes" => &[Some(940), Some(20), Some(16), None, Some(16)],
            "codex-0.40.0" => &[Some(20), Some(16), None, Some(16)],
            _ => &[Some(20), Some(16)],
        };
        assert_eq!(costs, expected, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(3000), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_corrupted_rollout_loses_no_readable_line(
        file in 0..2_usize,
        faults in prop::collection::vec(fault(), 1..6),
    ) {
        let names = ["bare-lines", "envelopes"];
        let path = root().join(format!("tests/rollouts/{}.jsonl", names[file]));
        let mut bytes = fs::read(path).unwrap();
        let other = bytes.clone();
        for fault in &faults {
            fault.apply(&mut bytes, &other);
        }
        let is_blank = |line: &&[u8]| line.iter().all(u8::is_ascii_whitespace);
        let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').filter(|line| !is_blank(line)).collect();
        let readable = |line: &&&[u8]| {
            std::str::from_utf8(line).is_ok_and(|line| RolloutLine::parse_any(line).is_ok())
        };
        let (all, readable) = (lines.len(), lines.iter().filter(readable).count());
        if let Some(imported) = read(bytes.clone()) {
            prop_assert_eq!(imported.lines, readable);
            let told = imported.problems.iter().filter(|problem| problem.message.ends_with("is left out"));
            prop_assert_eq!(told.count(), all - readable);
            assert_sound(&imported);
        }
    }
}
