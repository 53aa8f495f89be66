//! Each rule over a file that keeps it and one that breaks it.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// A file in the making.
#[derive(Default, Clone)]
struct File {
    lines: Vec<String>,
    numbered: bool,
}

impl File {
    fn new() -> Self {
        let mut file = Self {
            numbered: true,
            ..Self::default()
        };
        file.line("session_meta", json!({"id": "s"}));
        file
    }

    fn unbracketed() -> Self {
        let mut file = Self::default();
        file.line("session_meta", json!({"id": "s"}));
        file
    }

    fn raw(&mut self, text: impl Into<String>) -> &mut Self {
        self.lines.push(text.into());
        self
    }

    fn line(&mut self, kind: &str, payload: Value) -> &mut Self {
        let mut line = json!({"timestamp": "t", "type": kind, "payload": payload});
        if self.numbered {
            line["ordinal"] = self.lines.len().into();
        }
        self.raw(line.to_string())
    }

    fn item(&mut self, item: Value) -> &mut Self {
        self.line("response_item", item)
    }

    fn user(&mut self, text: &str) -> &mut Self {
        self.item(json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}))
    }

    fn said(&mut self, text: &str) -> &mut Self {
        self.item(json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}))
    }

    fn marker(&mut self) -> &mut Self {
        self.user("<turn_aborted>\nstopped\n</turn_aborted>")
    }

    fn call(&mut self, id: &str) -> &mut Self {
        self.item(json!({"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"}))
    }

    fn output(&mut self, id: &str) -> &mut Self {
        self.item(json!({"type": "function_call_output", "call_id": id, "output": "x"}))
    }

    fn event(&mut self, name: &str, turn: &str) -> &mut Self {
        self.line("event_msg", json!({"type": name, "turn_id": turn}))
    }

    fn start(&mut self, turn: &str) -> &mut Self {
        self.event("task_started", turn)
    }

    fn complete(&mut self, turn: &str) -> &mut Self {
        self.event("task_complete", turn)
    }

    fn aborted(&mut self, turn: &str, reason: &str) -> &mut Self {
        self.line(
            "event_msg",
            json!({"type": "turn_aborted", "turn_id": turn, "reason": reason}),
        )
    }

    fn check(&self) -> (Vec<Finding>, Tally) {
        let mut checker = Checker::default();
        let mut byte = 0;
        for line in &self.lines {
            checker.line(line.as_bytes(), byte);
            byte += line.len() as u64 + 1;
        }
        checker.finish()
    }

    /// Passes, and exercises the rule.
    #[track_caller]
    fn keeps(&self, rule: &str) {
        let (findings, tally) = self.check();
        assert_eq!(findings, [], "{rule}");
        assert!(exercised(rule, &tally) > 0, "{rule} was not exercised");
    }

    /// Passes, and does not exercise the rule.
    #[track_caller]
    fn idles(&self, rule: &str) {
        let (findings, tally) = self.check();
        assert_eq!(findings, [], "{rule}");
        assert_eq!(exercised(rule, &tally), 0, "{rule}");
    }

    /// Breaks this rule alone, once; gives the finding.
    #[track_caller]
    fn breaks(&self, rule: &str) -> Finding {
        let (mut findings, _) = self.check();
        assert_eq!(findings.len(), 1, "{findings:?}");
        let finding = findings.remove(0);
        assert_eq!(finding.rule, rule, "{finding:?}");
        finding
    }
}

fn exercised(rule: &str, tally: &Tally) -> u64 {
    let at = RULES.iter().position(|known| known.id == rule).unwrap();
    tally.exercised[at]
}

/// A session in which everything is as it should be.
fn sound() -> File {
    let mut file = File::new();
    file.start("a")
        .user("one")
        .call("c1")
        .output("c1")
        .said("done")
        .complete("a");
    file.start("b")
        .user("two")
        .call("c2")
        .output("c2")
        .marker()
        .aborted("b", "interrupted");
    file.start("c").user("three").aborted("c", "replaced");
    file.start("d").user("four").said("bye").complete("d");
    file
}

#[test]
fn a_sound_session_keeps_every_rule() {
    for rule in ["ROLL-1", "ROLL-4", "CALL-1", "CALL-2", "MARK-3", "MARK-4"] {
        sound().keeps(rule);
    }
    sound().idles("ROLL-6");
}

#[test]
fn rules_of_a_file_are_rules_of_the_book() {
    for rule in &RULES {
        assert!(crate::rule(rule.id).is_some(), "{}", rule.id);
    }
    for (at, id) in [(ROLL_1, "ROLL-1"), (CALL_2, "CALL-2"), (MARK_4, "MARK-4")] {
        assert_eq!(RULES[at].id, id);
    }
}

#[test]
fn a_torn_line_is_reported_with_its_place_and_hides_nothing_else() {
    let mut file = sound();
    let byte: usize = file.lines[..3].iter().map(|line| line.len() + 1).sum();
    // The call of the first turn.
    file.lines[3].truncate(40);
    let (findings, tally) = file.check();
    assert_eq!(findings.len(), 1, "{findings:?}");
    let torn = &findings[0];
    assert_eq!(
        (torn.rule, torn.line, torn.level),
        ("ROLL-1", 4, Level::Must)
    );
    assert_eq!((torn.column, torn.byte), (40, byte as u64 + 39));
    assert_eq!(tally.read + 1, tally.lines);
    for at in 1..sound().lines.len() {
        let mut file = sound();
        file.lines[at].truncate(40);
        assert_eq!(file.breaks("ROLL-1").line, at as u64 + 1);
    }
}

#[test]
fn unknown_line_types_pass_and_foreign_forms_do_not() {
    let mut file = File::new();
    file.line("world_state", json!({"a": 1}))
        .line("x", json!({}));
    file.keeps("ROLL-1");
    file.raw(r#"{"hello":"world"}"#);
    assert!(file.breaks("ROLL-1").message.contains("not of the form"));
    let mut file = File::unbracketed();
    file.raw(r#"{"record_type":"state"}"#);
    assert!(file.breaks("ROLL-1").message.contains("another generation"));
}

#[test]
fn a_torn_end_is_a_warning() {
    let mut checker = Checker::default();
    checker.tail(b"{\"timestamp\":\"t\",\"ty", 0);
    let (findings, tally) = checker.finish();
    assert_eq!(
        (findings[0].rule, findings[0].level),
        ("ROLL-1", Level::Should)
    );
    assert_eq!((tally.lines, tally.read), (1, 0));
    let mut checker = Checker::default();
    checker.tail(br#"{"timestamp":"t","type":"x","payload":{}}"#, 0);
    assert_eq!(checker.finish().0, []);
}

#[test]
fn a_line_that_was_skipped_is_reported() {
    let mut checker = Checker::default();
    checker.skipped(0, "too long");
    assert_eq!(checker.findings()[0].message, "too long");
    assert_eq!(checker.finish().0, []);
}

#[test]
fn the_oldest_generation_is_read_and_has_no_brackets() {
    let mut file = File::default();
    file.raw(r#"{"id":"u","timestamp":"t","instructions":null}"#);
    file.raw(r#"{"record_type":"state"}"#);
    file.raw(r#"{"type":"message","role":"user","content":[]}"#);
    file.raw(r#"{"type":"local_shell_call","id":"l1","call_id":null,"action":{}}"#);
    file.raw(r#"{"type":"function_call_output","call_id":"l1","output":"x"}"#);
    file.keeps("CALL-1");
    file.idles("ROLL-4");
    file.idles("MARK-3");
    file.raw(r#"{"type":"function_call_output","call_id":"l1","output":"x"}"#);
    assert!(file.breaks("CALL-2").message.contains("second output"));
}

#[test]
fn overlapping_stray_and_unended_turns_are_breaches() {
    let mut file = File::new();
    file.start("a").start("b").complete("b");
    assert!(
        file.breaks("ROLL-4")
            .message
            .contains("while turn a of line 2 has no terminal line")
    );
    let mut file = File::new();
    file.start("a").complete("a").complete("a");
    assert!(file.breaks("ROLL-4").message.contains("without being open"));
    let mut file = File::new();
    file.start("a").complete("b");
    assert!(file.breaks("ROLL-4").message.contains("while turn a"));
    let mut file = File::new();
    file.complete("a");
    file.breaks("ROLL-4");
    // The file does not show whether the last turn still runs.
    let mut file = File::new();
    file.start("a");
    file.keeps("ROLL-4");
}

#[test]
fn ordinals_grow_by_one() {
    let mut file = File::new();
    file.raw(r#"{"timestamp":"t","ordinal":3,"type":"x","payload":{}}"#);
    assert_eq!(file.breaks("ROLL-4").message, "ordinal 3 follows 0");
}

#[test]
fn a_marker_may_be_the_developers() {
    let mut file = File::new();
    let text = "<turn_aborted>\nstopped\n</turn_aborted>";
    let content = json!([{"type": "input_text", "text": text}]);
    let mark = |role: &str| json!({"type": "message", "role": role, "content": content});
    file.start("a").user("go").item(mark("developer"));
    file.aborted("a", "interrupted").keeps("MARK-3");
    file.item(mark("developer")).breaks("MARK-3");
}

#[test]
fn generations_that_write_aborts_alone_are_not_bracketed() {
    let mut file = File::unbracketed();
    file.user("one").said("x").marker();
    file.line(
        "event_msg",
        json!({"type": "turn_aborted", "reason": "interrupted"}),
    );
    file.user("two").said("y");
    file.keeps("MARK-3");
    file.idles("ROLL-4");
    file.idles("MARK-4");
}

#[test]
fn a_turn_that_was_cut_ends_as_interrupted() {
    let cut = |end: &dyn Fn(&mut File)| {
        let mut file = File::new();
        file.start("a")
            .user("one")
            .line("session_meta", json!({"id": "s"}));
        end(&mut file);
        file.start("b").complete("b");
        file
    };
    cut(&|file| {
        file.marker().aborted("a", "interrupted");
    })
    .keeps("ROLL-6");
    let completed = cut(&|file| {
        file.complete("a");
    })
    .breaks("ROLL-6");
    assert!(completed.message.contains("ends as completed"));
    let open = cut(&|_| ()).breaks("ROLL-6");
    assert!(open.message.contains("has not ended as interrupted"));
}

#[test]
fn a_call_without_an_output_is_missed_when_the_next_turn_starts() {
    let mut file = File::new();
    file.start("a").call("c1").complete("a");
    file.keeps("CALL-1");
    file.start("b");
    let finding = file.breaks("CALL-1");
    assert_eq!((finding.line, finding.level), (3, Level::Must));
    // It is reported once, and an output that comes late is no second fault.
    file.output("c1").complete("b").start("c").complete("c");
    file.breaks("CALL-1");
}

#[test]
fn without_brackets_a_call_is_missed_when_the_user_goes_on() {
    let mut file = File::unbracketed();
    file.user("one").call("c1").user("meanwhile").output("c1");
    file.keeps("CALL-1");
    let mut file = File::unbracketed();
    file.user("one").call("c1").user("two").said("x");
    assert!(
        file.breaks("CALL-1")
            .message
            .contains("line 4 starts the next turn")
    );
    file.user("three").user("four");
    file.breaks("CALL-1");
}

#[test]
fn an_output_of_another_kind_is_a_breach() {
    let mut file = File::new();
    file.start("a")
        .item(json!({"type": "custom_tool_call", "call_id": "c", "input": "", "name": "p"}));
    file.output("c").complete("a");
    assert!(file.breaks("CALL-1").message.contains("custom tool call c"));
}

#[test]
fn outputs_without_calls_and_seconds_are_breaches() {
    let mut file = File::new();
    assert!(
        file.output("c1")
            .breaks("CALL-2")
            .message
            .contains("without a call")
    );
    let mut file = File::new();
    file.call("c1").output("c1").output("c1");
    assert!(file.breaks("CALL-2").message.contains("second output"));
    let mut file = File::new();
    file.call("c1").output("c1").call("c1").output("c1");
    assert!(file.breaks("CALL-2").message.contains("second call"));
    assert!(
        File::new()
            .call("")
            .breaks("CALL-2")
            .message
            .contains("without a call_id")
    );
    assert!(
        File::new()
            .output("")
            .breaks("CALL-2")
            .message
            .contains("without a call_id")
    );
}

#[test]
fn compactions_and_rollbacks_take_calls_with_them() {
    let mut file = File::new();
    file.start("a").call("c1").call("c2").output("c2");
    file.line("compacted", json!({"message": "m"}))
        .output("c1")
        .call("c2")
        .output("c2")
        .complete("a");
    file.start("b").complete("b");
    file.keeps("CALL-2");
    let mut file = File::new();
    file.start("a")
        .call("c1")
        .marker()
        .marker()
        .aborted("a", "interrupted");
    file.line(
        "event_msg",
        json!({"type": "thread_rolled_back", "num_turns": 1}),
    );
    file.start("b").call("c1").output("c1").complete("b");
    file.keeps("CALL-1");
}

#[test]
fn a_fork_may_go_on_with_what_another_file_began() {
    let mut file = File::default();
    file.line(
        "session_meta",
        json!({"id": "s", "forked_from_id": "other"}),
    );
    file.output("c1")
        .marker()
        .aborted("a", "interrupted")
        .start("b")
        .complete("b");
    file.keeps("CALL-2");
    file.keeps("MARK-3");
    file.output("c3");
    file.breaks("CALL-2");
}

#[test]
fn an_interrupted_turn_has_one_marker_after_its_items() {
    let turn = |inside: &dyn Fn(&mut File)| {
        let mut file = File::new();
        file.start("a").user("one");
        inside(&mut file);
        file
    };
    let missing = turn(&|file| {
        file.aborted("a", "interrupted");
    })
    .breaks("MARK-3");
    assert_eq!((missing.level, missing.line), (Level::Should, 4));
    let twice = turn(&|file| {
        file.marker().marker().aborted("a", "interrupted");
    })
    .breaks("MARK-3");
    assert_eq!((twice.level, twice.line), (Level::Must, 5));
    let early = turn(&|file| {
        file.marker().said("x").aborted("a", "interrupted");
    })
    .breaks("MARK-3");
    assert!(early.message.contains("follows its marker of line 4"));
    // Some versions write it after the terminal line.
    turn(&|file| {
        file.aborted("a", "interrupted").marker();
    })
    .keeps("MARK-3");
}

#[test]
fn a_turn_that_was_not_interrupted_has_no_marker() {
    for end in ["task_complete", "turn_failed"] {
        let mut file = File::new();
        file.start("a").marker().event(end, "a");
        assert_eq!(file.breaks("MARK-4").line, 3);
    }
    let mut file = File::new();
    file.start("a").marker().aborted("a", "replaced");
    assert!(file.breaks("MARK-4").message.contains("was replaced"));
    let mut file = File::new();
    file.start("a")
        .complete("a")
        .marker()
        .start("b")
        .complete("b");
    assert!(file.breaks("MARK-4").message.contains("completed"));
    let mut file = File::new();
    file.start("a")
        .user("what is <turn_aborted>?")
        .complete("a");
    file.keeps("MARK-4");
}

#[test]
fn what_is_kept_is_bounded_by_what_is_open() {
    let mut checker = Checker::default();
    let mut file = File::unbracketed();
    for number in 0..3 * 4096 {
        let id = format!("c{number}");
        file.lines.clear();
        file.call(&id).output(&id);
        for line in &file.lines {
            checker.line(line.as_bytes(), 0);
        }
    }
    assert!(checker.calls.is_small());
    assert_eq!(checker.finish().0, []);
}

/// One change to a file's bytes.
fn corrupt(bytes: &mut Vec<u8>, (kind, from, length): (u8, usize, usize)) {
    if bytes.is_empty() {
        return;
    }
    let from = from % bytes.len();
    let to = (from + length).min(bytes.len());
    match kind {
        0 => bytes[from] ^= 1 << (length % 8),
        1 => drop(bytes.drain(from..to)),
        2 => bytes.truncate(from),
        _ => {
            let piece = bytes[from..to].to_vec();
            let at = (from * 7 + length) % bytes.len();
            bytes.splice(at..at, piece);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 25_000, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    /// Four files each: 100,000 in all.
    #[test]
    fn corrupted_files_crash_nothing_and_lose_no_readable_line(
        changes in prop::collection::vec((0..4_u8, any::<u16>(), 0..60_usize), 4),
    ) {
        let mut bytes = sound().lines.join("\n").into_bytes();
        bytes.push(b'\n');
        for (kind, from, length) in changes {
            corrupt(&mut bytes, (kind, usize::from(from), length));
            let mut checker = Checker::default();
            let (mut byte, mut readable, mut whole) = (0, 0, 0);
            for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                let (text, is_whole) = match line.strip_suffix(b"\n") {
                    Some(text) => (text, true),
                    None => (line, false),
                };
                let value = serde_json::from_slice::<Value>(text);
                let has = |name: &str| value.as_ref().is_ok_and(|value| value[name].is_string());
                let is_wrapped = value.as_ref().is_ok_and(|value| value["payload"].is_object());
                readable += u64::from(is_wrapped && has("type") && has("timestamp"));
                whole += 1;
                if is_whole { checker.line(text, byte) } else { checker.tail(text, byte) }
                byte += line.len() as u64;
            }
            let (findings, tally) = checker.finish();
            prop_assert_eq!(tally.lines, whole);
            prop_assert!(tally.read >= readable);
            let unread = findings.iter().filter(|finding| finding.rule == "ROLL-1").count() as u64;
            prop_assert!(unread >= tally.lines - tally.read);
            for finding in findings {
                prop_assert!((1..=tally.lines).contains(&finding.line));
                prop_assert!(finding.byte <= bytes.len() as u64);
            }
        }
    }
}
