//! Recordings and streams as damage leaves them: nothing panics, what is untouched is still read, and
//! what can't be read is told.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cutpoint_engine::driver::in_process::ReferenceDriver;
use cutpoint_engine::lab;
use cutpoint_engine::runner::{Planned, RunConfig, Runner, WAIT_LIMIT};
use cutpoint_engine::server::{ReplayServer, ServerConfig};
use cutpoint_protocol::compose::{Composer, ItemContent};
use cutpoint_protocol::sse::{Decoder, Document, EVENT_LIMIT_BYTES, Frame, SseEvent};
use cutpoint_recording::{
    CapturedResponse, Exchange, HistoryChange, Match, Problem, RecordedRequest, Recording,
    Redactor, Response, diff,
};
use cutpoint_trace::case::CaseStatus;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{TestCaseResult, TestRunner};
use serde_json::{Value, json};
use support::damage::{Fault, fault};
use support::upstream::capture;
use support::{Place, recording};

/// An event that no server sends: whoever looks at it has something to tell.
const PLANTED: &str = "data: {\"planted\":true}";

/// At least so many cases, or as many as PROPTEST_CASES says.
fn cases(least: u32) -> ProptestConfig {
    let told = ProptestConfig::default();
    ProptestConfig {
        cases: told.cases.max(least),
        failure_persistence: None,
        ..told
    }
}

/// Runs a property over what belongs to the run as a whole.
fn hold<S: Strategy>(least: u32, of: &S, test: impl Fn(S::Value) -> TestCaseResult) {
    TestRunner::new(cases(least))
        .run(of, test)
        .unwrap_or_else(|error| panic!("{error}"));
}

fn a_call_and_a_text() -> Vec<u8> {
    capture(&[
        ItemContent::Reasoning {
            text: "Looking for it – hard.",
            chunks: 3,
        },
        ItemContent::Text {
            text: "Grüße aus dem Süden, \u{1F600} und mehr",
            chunks: 9,
        },
        ItemContent::Function {
            call_id: "call_1",
            name: "shell",
            arguments: r#"{"command":["bash","-c","echo hi"]}"#,
            chunks: 4,
        },
    ])
}

/// A stream with settings and delays, which the client has left.
fn a_cut_stream() -> Vec<u8> {
    let mut composer = Composer::new("resp_2", "m", 1_760_000_000);
    composer.begun_text("and then it was gone, as it", 6);
    let mut bytes = b": cutpoint status=200 end=stall\n".to_vec();
    for (at, event) in composer.unfinished().iter().enumerate() {
        if at % 2 == 1 {
            bytes.extend_from_slice(format!(": +{at}ms\n: ping\n").as_bytes());
        }
        bytes.extend_from_slice(&event.bytes);
    }
    bytes
}

/// The stream with a planted event near its beginning and near its end.
fn planted(stream: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(stream).unwrap();
    let mut blocks: Vec<&str> = text.trim_end().split("\n\n").collect();
    blocks.insert(blocks.len() - 1, PLANTED);
    blocks.insert(1, PLANTED);
    format!("{}\n\n", blocks.join("\n\n")).into_bytes()
}

fn streams() -> Vec<Vec<u8>> {
    let crlf = String::from_utf8(a_call_and_a_text()).unwrap();
    let stored = Path::new(&recording("shell-then-text")).join("01.response.sse");
    vec![
        planted(&a_call_and_a_text()),
        planted(&a_cut_stream()),
        crlf.replace('\n', "\r\n").into_bytes(),
        fs::read(stored).unwrap(),
    ]
}

fn parse(bytes: &[u8]) -> Document {
    Document::parse(bytes, EVENT_LIMIT_BYTES).unwrap()
}

fn events(frames: &[Frame]) -> Vec<SseEvent> {
    frames.iter().filter_map(|it| it.event.clone()).collect()
}

fn wire(document: &Document) -> Vec<u8> {
    let frames = document.frames.iter();
    frames.flat_map(|frame| frame.wire.clone()).collect()
}

/// All of a frame but the line that it stands on.
fn said(frame: &Frame) -> (&[u8], &[u8], &Option<SseEvent>, bool) {
    (&frame.raw, &frame.wire, &frame.event, frame.complete)
}

/// The bytes in pieces of these lengths, over and over.
fn pieces<'a>(bytes: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let mut rest = bytes;
    let mut pieces = Vec::new();
    for length in lengths.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, more) = rest.split_at(rest.len().min(*length));
        pieces.push(piece);
        rest = more;
    }
    pieces
}

/// How many of the first frames a front of that length holds.
fn in_front(frames: &[Frame], front: usize) -> usize {
    let mut end = 0;
    let whole = |frame: &&Frame| {
        end += frame.raw.len();
        end <= front && frame.complete
    };
    frames.iter().take_while(whole).count()
}

/// How many of the last frames stand, with the blank line in front of them, in a back of that length.
fn at_the_back(frames: &[Frame], back: usize) -> usize {
    let mut length = 0;
    let mut count = 0;
    for pair in frames.windows(2).rev() {
        length += pair[1].raw.len();
        let blank = if pair[0].raw.ends_with(b"\r\n") { 4 } else { 2 };
        if length + blank > back {
            break;
        }
        count += 1;
    }
    count
}

/// The line that a frame's data stands on, counted anew.
fn line_of_data(document: &Document, at: usize) -> usize {
    let before: Vec<u8> = document.frames[..at]
        .iter()
        .flat_map(|it| it.raw.clone())
        .collect();
    let raw = String::from_utf8_lossy(&document.frames[at].raw).replace("\r\n", "\n");
    let within = raw
        .split(['\n', '\r'])
        .position(|line| line.trim_start_matches('\u{FEFF}').starts_with("data"));
    let text = String::from_utf8_lossy(&before).replace("\r\n", "\n");
    1 + text.matches(['\n', '\r']).count() + within.unwrap_or(0)
}

fn recorded(document: Document) -> Recording {
    let mut recording = Recording::new("x", "a test");
    let exchange = Exchange::bare(1, Response::Stream(document));
    recording.exchanges.push(exchange);
    recording
}

/// Damage of one place: every frame in front of it and behind it is what it was, is told where it
/// stands now, and in whatever pieces the bytes come, a client reads the same events.
#[test]
fn damage_to_a_stream_stays_where_it_is() {
    let streams = streams();
    let strategy = (
        any::<Index>(),
        any::<Index>(),
        fault(),
        prop::collection::vec(1..90_usize, 1..5),
    );
    hold(3000, &strategy, |(one, other, fault, lengths)| {
        let (one, other) = (one.get(&streams), other.get(&streams));
        let mut bytes = one.clone();
        let kept = fault.apply(&mut bytes, other);
        let document = parse(&bytes);
        prop_assert_eq!(&document.to_bytes(), &bytes);
        let (before, behind) = (parse(one), parse(if kept.joined { other } else { one }));
        let front = in_front(&before.frames, kept.front);
        let back = at_the_back(&behind.frames, kept.back);
        prop_assert!(front <= document.frames.len() && back <= document.frames.len());
        let last = document.frames.len() - back;
        for (frame, was) in document.frames.iter().zip(&before.frames[..front]) {
            prop_assert_eq!(frame, was);
        }
        for (frame, was) in document.frames[last..]
            .iter()
            .zip(&behind.frames[behind.frames.len() - back..])
        {
            prop_assert_eq!(said(frame), said(was));
        }
        // As an agent reads it.
        let wire = wire(&document);
        let (mut decoder, mut read) = (Decoder::default(), Vec::new());
        for piece in pieces(&wire, &lengths) {
            decoder.push(piece, &mut read).unwrap();
        }
        prop_assert_eq!(read, events(&document.frames));
        // As the validation tells of it.
        let told = recorded(document.clone()).validate();
        prop_assert!(told.len() <= 51);
        let is_full = told.iter().any(|it| it.message.contains("more problems"));
        let untouched = (0..front).chain(last..document.frames.len());
        for at in untouched.filter(|_| !is_full) {
            let frame = &document.frames[at];
            let line = line_of_data(&document, at);
            if frame.event.is_some() {
                prop_assert_eq!(frame.line, line);
            }
            let is_planted = frame
                .event
                .as_ref()
                .is_some_and(|it| it.data.contains("planted"));
            let is_told = told.iter().any(|it| it.line == line && it.is_error());
            prop_assert!(!is_planted || is_told, "line {}: {:#?}", line, told);
        }
        Ok(())
    });
}

/// What the proxy makes of an answer, however its pieces came, holds the bytes that came.
#[test]
fn a_damaged_answer_is_recorded_as_it_came() {
    let streams = streams();
    let strategy = (
        any::<Index>(),
        prop::collection::vec(fault(), 1..4),
        prop::collection::vec(1..200_usize, 1..5),
        any::<bool>(),
    );
    let headers = [("content-type".to_owned(), "text/event-stream".to_owned())];
    hold(1000, &strategy, |(one, faults, lengths, redacts)| {
        let mut bytes = one.get(&streams).clone();
        for fault in &faults {
            fault.apply(&mut bytes, &streams[0]);
        }
        let chunks = pieces(&bytes, &lengths).into_iter().enumerate();
        let chunks: Vec<(Duration, Vec<u8>)> = chunks
            .map(|(at, piece)| (Duration::from_millis(at as u64), piece.to_vec()))
            .collect();
        let captured = CapturedResponse {
            status: 200,
            headers: &headers,
            chunks: &chunks,
            cut: None,
        };
        let mut redactor = if redacts {
            Redactor::new(&[]).unwrap()
        } else {
            Redactor::off()
        };
        match captured.redacted(&mut redactor) {
            Response::Stream(document) if !redacts => {
                let came = parse(&bytes);
                prop_assert_eq!(wire(&document), wire(&came));
                prop_assert_eq!(events(&document.frames), events(&came.frames));
            }
            Response::Stream(document) => {
                let came = parse(&bytes);
                prop_assert_eq!(events(&document.frames).len(), events(&came.frames).len());
            }
            Response::Body { body, .. } => {
                let text = body.as_str().map(str::to_owned);
                let text = text.unwrap_or_else(|| body.to_string());
                let is_whole = text == String::from_utf8_lossy(&bytes);
                prop_assert!(redacts || is_whole, "{text:?}");
            }
        }
        Ok(())
    });
}

/// A request that carries these items; with a secret in a header, if something is to be told of it.
fn request(input: &[Value], planted: bool) -> RecordedRequest {
    let mut headers = BTreeMap::new();
    if planted {
        headers.insert("authorization".to_owned(), "Bearer one-two".to_owned());
    }
    RecordedRequest {
        method: "POST".to_owned(),
        path: "/v1/responses".to_owned(),
        headers,
        body: json!({"model": "m", "stream": true, "input": input}),
    }
}

fn user(text: &str) -> Value {
    json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]})
}

/// A session of four exchanges. With `planted`, there is something to be told of each file.
fn session(planted_too: bool) -> Recording {
    let plant = |stream: Vec<u8>| match planted_too {
        true => planted(&stream),
        false => stream,
    };
    let call = json!({"type": "function_call", "name": "shell", "call_id": "call_1", "arguments": r#"{"command":["bash","-c","echo hi"]}"#});
    let output = json!({"type": "function_call_output", "call_id": "call_1", "output": "hi\n"});
    let said = json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Grüße aus dem Süden, \u{1F600} und mehr"}]});
    let first = [user("go on")];
    let second = [user("go on"), said.clone(), call.clone(), output.clone()];
    let third = [user("go on"), said, call, output, user("and now?")];
    let status = if planted_too { 99 } else { 429 };
    let body = Response::Body {
        status,
        headers: BTreeMap::from([("retry-after".to_owned(), "1".to_owned())]),
        body: json!({"error": {"message": "slow down"}}),
    };
    let stream = |bytes: Vec<u8>| Response::Stream(parse(&plant(bytes)));
    let exchange = |number, input: &[Value], response| Exchange {
        number,
        request: Some(request(input, planted_too)),
        response,
    };
    let text = ItemContent::Text {
        text: "It says hi.",
        chunks: 3,
    };
    let mut recording = Recording::new("r", "a test");
    recording.exchanges = vec![
        exchange(1, &first, stream(a_call_and_a_text())),
        exchange(2, &second, body),
        exchange(3, &third, stream(a_cut_stream())),
        Exchange::bare(4, stream(capture(&[text]))),
    ];
    recording
}

/// A stored recording, and its files as they were written.
struct Stored {
    _place: tempfile::TempDir,
    dir: PathBuf,
    files: Vec<(PathBuf, Vec<u8>)>,
    whole: Recording,
}

impl Stored {
    /// Without its manifest nothing says that a file was changed.
    fn new(planted: bool, with_manifest: bool) -> Self {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("r");
        session(planted).save(&dir).unwrap();
        if !with_manifest {
            fs::remove_file(dir.join("recording.json")).unwrap();
        }
        let entries = fs::read_dir(&dir).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let files = paths
            .into_iter()
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect();
        let whole = Recording::load(&dir).unwrap();
        Self {
            _place: place,
            dir,
            files,
            whole,
        }
    }

    /// Damages a file, and gives what it holds now.
    fn damage(&self, at: usize, faults: &[Fault]) -> Vec<u8> {
        let (path, bytes) = &self.files[at];
        let other = &self.files[(at + 2) % self.files.len()].1;
        let mut bytes = bytes.clone();
        for fault in faults {
            fault.apply(&mut bytes, other);
        }
        fs::write(path, &bytes).unwrap();
        bytes
    }

    fn mend(&self, at: usize) {
        let (path, bytes) = &self.files[at];
        fs::write(path, bytes).unwrap();
    }
}

/// The number that an exchange's file has.
fn number_of(path: &Path) -> Option<usize> {
    path.file_name()?.to_str()?.get(..2)?.parse().ok()
}

fn is_told(problems: &[Problem], path: &Path) -> bool {
    let path = path.display().to_string();
    problems.iter().any(|it| it.is_error() && it.file == path)
}

/// Whatever loads can be looked at in every way, and is what it was where no byte was changed.
fn look_at(damaged: &Recording, whole: &Recording, touched: Option<usize>) -> TestCaseResult {
    for exchange in &whole.exchanges {
        if Some(exchange.number) != touched {
            prop_assert_eq!(damaged.exchange(exchange.number), Some(exchange));
        }
    }
    let _ = damaged.session();
    let matcher = damaged.matcher();
    for exchange in &whole.exchanges {
        let Some(request) = &exchange.request else {
            continue;
        };
        let history = request.parse().unwrap().input.to_vec();
        let found = matcher.match_request(&history, &[]);
        let is_found = matches!(found, Match::Exact(_));
        prop_assert!(Some(exchange.number) == touched || is_found);
    }
    let (was, is) = (whole.items(), damaged.items());
    let changes = diff(&was, &is);
    let (mut lost, mut added) = (Vec::new(), Vec::new());
    for change in &changes {
        match change {
            HistoryChange::Kept { a, b, .. } | HistoryChange::Moved { a, b, .. } => {
                lost.push(*a);
                added.push(*b);
            }
            HistoryChange::Lost { a, .. } => lost.push(*a),
            HistoryChange::Added { b, .. } => added.push(*b),
        }
    }
    // Each item of either side is spoken of once.
    for mut places in [lost, added] {
        places.sort_unstable();
        let all: Vec<usize> = (0..places.len()).collect();
        prop_assert_eq!(places, all);
    }
    Ok(())
}

#[test]
fn a_change_to_a_file_of_a_recording_is_told_with_its_name() {
    let stored = Stored::new(false, true);
    let errors = stored.whole.validate();
    assert!(!errors.iter().any(Problem::is_error), "{errors:#?}");
    let strategy = (any::<Index>(), prop::collection::vec(fault(), 1..4));
    hold(500, &strategy, |(file, faults)| {
        let at = file.index(stored.files.len());
        let (path, before) = &stored.files[at];
        let bytes = stored.damage(at, &faults);
        let loaded = Recording::load(&stored.dir);
        stored.mend(at);
        let problems = match &loaded {
            Ok(recording) => recording.validate(),
            Err(errors) => errors.problems.clone(),
        };
        prop_assert!(loaded.is_ok() || problems.iter().any(Problem::is_error));
        // What the manifest says of the source, nothing else says.
        if bytes != *before && number_of(path).is_some() {
            prop_assert!(is_told(&problems, path), "{problems:#?}");
        }
        if let Ok(recording) = &loaded {
            look_at(recording, &stored.whole, number_of(path))?;
        }
        Ok(())
    });
}

#[test]
fn a_file_that_cannot_be_read_hides_nothing_of_the_others() {
    let stored = Stored::new(true, false);
    let problems = stored.whole.validate();
    for (path, _) in &stored.files {
        assert!(is_told(&problems, path), "{}", path.display());
    }
    let strategy = (any::<Index>(), prop::collection::vec(fault(), 1..4));
    hold(500, &strategy, |(file, faults)| {
        let at = file.index(stored.files.len());
        stored.damage(at, &faults);
        let loaded = Recording::load(&stored.dir);
        stored.mend(at);
        let problems = match &loaded {
            Ok(recording) => recording.validate(),
            Err(errors) => errors.problems.clone(),
        };
        for (other, (path, _)) in stored.files.iter().enumerate() {
            let shown = || format!("{}: {problems:#?}", path.display());
            prop_assert!(other == at || is_told(&problems, path), "{}", shown());
        }
        if let Ok(recording) = &loaded {
            look_at(recording, &stored.whole, number_of(&stored.files[at].0))?;
        }
        Ok(())
    });
}

/// Served and read by an agent, a damaged recording may end a turn early or make it fail. It never
/// makes the agent break a rule, hang, or get the harness into trouble.
#[test]
fn an_agent_survives_what_is_served_of_a_damaged_recording() {
    let place = tempfile::tempdir().unwrap();
    let texts = ["It says hi.", "Nothing else."]
        .map(|text| capture(&[ItemContent::Text { text, chunks: 4 }]));
    let whole = [a_call_and_a_text(), texts[0].clone(), texts[1].clone()];
    let scenario = r#"scenario "damaged" {
    model { recording "r" }
    user "go on"
    await turn-ended
    user "and now?"
    await turn-ended
}
"#;
    let file = place.path().join("damaged.kdl");
    let scenario = cutpoint_scenario::parse("damaged.kdl", scenario).unwrap();
    let planned = Planned {
        scenario: scenario.scenarios.into_iter().next().unwrap(),
        file: file.display().to_string(),
    };
    let folder = place.path().join("r");
    fs::create_dir(&folder).unwrap();
    let path = |at: usize| folder.join(format!("{:02}.response.sse", at + 1));
    let run = || {
        lab::block_on(async {
            let config = RunConfig {
                limit: WAIT_LIMIT,
                seed: 0,
                recordings: place.path().to_owned(),
                dir: None,
                rules_only: false,
                judge: cutpoint_check::judge,
            };
            let server = Arc::new(ReplayServer::in_memory(ServerConfig::default()));
            let driver = Arc::new(ReferenceDriver::default());
            Runner::new(server, driver, config).run(&planned).await
        })
        .unwrap()
    };
    (0..3).for_each(|at| fs::write(path(at), &whole[at]).unwrap());
    let sound = run();
    assert_eq!(
        sound.status,
        CaseStatus::Conforms,
        "{:?} {:?}",
        sound.note,
        sound.unmet
    );
    let strategy = (0..3_usize, prop::collection::vec(fault(), 1..4));
    hold(200, &strategy, |(at, faults)| {
        let mut bytes = whole[at].clone();
        for fault in &faults {
            fault.apply(&mut bytes, &whole[(at + 1) % 3]);
        }
        fs::write(path(at), &bytes).unwrap();
        let is_sound = Recording::load(&folder).is_ok();
        let case = run();
        fs::write(path(at), &whole[at]).unwrap();
        let broken: Vec<_> = case.breaches(false).collect();
        prop_assert!(broken.is_empty(), "{broken:#?}");
        // An answer that was lost may leave a request without a reply.
        let fits = match is_sound {
            true => matches!(case.status, CaseStatus::Conforms | CaseStatus::Breach),
            false => case.status == CaseStatus::ScenarioError,
        };
        prop_assert!(fits, "{:?} {:?} {:?}", case.status, case.note, case.unmet);
        Ok(())
    });
}

/// The same through the command line, many at once.
#[test]
fn check_and_diff_take_every_damaged_recording() {
    let place = Place::new();
    let whole = place.path().join("whole");
    session(false).save(&whole).unwrap();
    let mut runner = TestRunner::deterministic();
    let strategy = (any::<Index>(), prop::collection::vec(fault(), 1..4));
    let mut changed = Vec::new();
    for number in 0..150 {
        let (file, faults) = strategy.new_tree(&mut runner).unwrap().current();
        let folder = format!("all/{number:03}");
        let names = place.names("whole");
        let damaged = file.get(&names);
        for name in &names {
            let mut bytes = fs::read(whole.join(name)).unwrap();
            if name == damaged {
                let other = bytes.clone();
                for fault in &faults {
                    fault.apply(&mut bytes, &other);
                }
                let differs = bytes != other && number_of(Path::new(name)).is_some();
                changed.extend(differs.then(|| format!("{folder}/{name}:")));
            }
            place.file(&format!("{folder}/{name}"), bytes);
        }
    }
    let ended = place.run(["check", "all"]);
    ended.code(1).says(&["150 files, "]);
    let told: Vec<&str> = changed.iter().map(String::as_str).collect();
    ended.says(&told);
    for number in (0..150).step_by(10) {
        let folder = format!("all/{number:03}");
        let ended = place.run(["diff", "whole", &folder]);
        let code = ended.status.code().unwrap();
        assert!((0..3).contains(&code), "{}", ended.all());
        ended.code(code);
    }
    place.assert_clean();
}
