//! 200 secrets of more than 20 kinds go through the proxy wherever one can stand, and none is on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;

use cutpoint_engine::proxy::{Proxy, ProxyConfig, RecordedSession};
use cutpoint_protocol::compose::{Composer, ItemContent};
use cutpoint_protocol::sse::{Document, EVENT_LIMIT_BYTES};
use cutpoint_recording::{Problem, Recording, Redactor, Response, find_secrets};
use serde_json::{Value, json};

use crate::client::{Client, End};
use crate::support::{PATH, config, recording, server};

const EXCHANGES: usize = 20;
const PER_EXCHANGE: usize = 10;

/// Numbers out of a seed.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn text(&mut self, alphabet: &str, length: usize) -> String {
        let alphabet: Vec<char> = alphabet.chars().collect();
        (0..length)
            .map(|_| alphabet[self.below(alphabet.len())])
            .collect()
    }
}

const WORD: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
const HEX: &str = "0123456789abcdef";
const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/// A secret of a kind, and the text that it stands in.
fn secret(kind: usize, seeded: &mut Seeded) -> (String, String) {
    let mut word = |length| seeded.text(WORD, length);
    let plain = match kind {
        0 => format!("sk-proj-{}0A", word(46)),
        1 => format!("sk-{}7", word(47)),
        2 => format!("sk-ant-api03-{}", word(80)),
        3 => format!("ghp_{}", word(36)),
        4 => format!("github_pat_{}", word(60)),
        5 => format!("glpat-{}", word(20)),
        6 => format!("xoxb-{}", word(40)),
        7 => format!("AIza{}", word(35)),
        8 => format!("ya29.{}", word(60)),
        9 => format!("npm_{}", word(36)),
        10 => format!("hf_{}", word(34)),
        11 => format!("sk_live_{}", word(24)),
        12 => format!("SG.{}.{}", word(22), word(43)),
        13 => format!("eyJ{}.eyJ{}.{}", word(30), word(60), word(43)),
        14 => format!("gsk_{}", word(48)),
        15 => format!("pypi-AgEI{}", word(80)),
        16 => format!("dckr_pat_{}", word(27)),
        17 => format!("hvs.{}", word(60)),
        18 => format!("lin_api_{}", word(40)),
        19 => format!("gAAAA{}", word(120)),
        20 => format!("AKIA{}", seeded.text(UPPER, 16)),
        21 => format!("dop_v1_{}", seeded.text(HEX, 64)),
        22 => format!("dapi{}", seeded.text(HEX, 32)),
        23 => {
            let local = word(12).to_lowercase();
            format!("{local}@mail.test-{}.org", word(5).to_lowercase())
        }
        24 => {
            let lines: Vec<String> = (0..6).map(|_| word(64)).collect();
            let body = lines.join("\n");
            format!("-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----")
        }
        25 => {
            let token = word(40);
            return (token.clone(), format!("Authorization: Bearer {token}"));
        }
        26 => {
            let password = word(16);
            return (
                password.clone(),
                format!("postgres://app:{password}@db.internal:5432/x"),
            );
        }
        27 => {
            let value = word(32);
            return (value.clone(), format!("export SERVICE_API_KEY=\"{value}\""));
        }
        28 => {
            let user = format!("u{}", word(11).to_lowercase());
            let root = ["/home/", "/Users/", "C:\\Users\\"][seeded.below(3)];
            return (user.clone(), format!("{root}{user}"));
        }
        _ => {
            let secret = word(40);
            return (secret.clone(), format!("aws_secret_access_key = {secret}"));
        }
    };
    (plain.clone(), plain)
}

const KINDS: usize = 30;

/// The same JSON, spelled otherwise.
fn spelled(text: &str, how: usize) -> String {
    match how % 3 {
        0 => text.to_owned(),
        1 => text
            .replace('-', "\\u002d")
            .replace('@', "\\u0040")
            .replace('/', "\\/"),
        _ => text
            .replace('_', "\\u005F")
            .replace('7', "\\u0037")
            .replace('-', "\\u002D"),
    }
}

/// A stream in which these texts stand, split into many deltas.
fn streamed(number: usize, texts: &[String], seeded: &mut Seeded) -> Vec<u8> {
    let mut composer = Composer::new(&format!("resp_{number}"), "m", 1_760_000_000);
    let mut chunks = |text: &str| 1 + text.chars().count() / (2 + seeded.below(9));
    let message = format!("It is {} as you can see.", texts[0]);
    let thought = format!("The user gave me {} to use", texts[1]);
    let arguments =
        json!({"command": ["bash", "-c", format!("echo '{}' > x", texts[2])]}).to_string();
    // JSON that the model spells in its own way, in a string of JSON.
    let arguments = spelled(&arguments, number);
    let patch = format!("*** Begin Patch\n+key = {}\n*** End Patch", texts[3]);
    composer.item(&ItemContent::Reasoning {
        text: &thought,
        chunks: chunks(&thought),
    });
    composer.item(&ItemContent::Text {
        text: &message,
        chunks: chunks(&message),
    });
    composer.item(&ItemContent::Function {
        call_id: "call_1",
        name: "shell",
        arguments: &arguments,
        chunks: chunks(&arguments),
    });
    composer.item(&ItemContent::Custom {
        call_id: "call_2",
        name: "apply_patch",
        input: &patch,
        chunks: chunks(&patch),
    });
    let frames = composer.completed();
    frames
        .iter()
        .flat_map(|frame| {
            let text = String::from_utf8(frame.bytes.to_vec()).unwrap();
            let (event, data) = text.split_once('\n').unwrap();
            let data = if number.is_multiple_of(2) {
                data.to_owned()
            } else {
                outer(data)
            };
            format!("{event}\n{data}").into_bytes()
        })
        .collect()
}

/// Other escapes in the event's own JSON; they stand in strings only.
fn outer(data: &str) -> String {
    data.replace('-', "\\u002d")
        .replace('@', "\\u0040")
        .replace('A', "\\u0041")
}

/// The body in chunks whose ends fall anywhere.
fn chunked(body: &[u8], seeded: &mut Seeded) -> Vec<Vec<u8>> {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut pieces = vec![head.as_bytes().to_vec()];
    let mut rest = body;
    while !rest.is_empty() {
        let (chunk, more) = rest.split_at(rest.len().min(1 + seeded.below(400)));
        rest = more;
        pieces.push([format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
    }
    pieces.push(b"0\r\n\r\n".to_vec());
    pieces
}

/// Everything that a file says, with escapes taken back as often as there may be any, and with what
/// the deltas of a stream add up to.
fn readings(name: &str, bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let mut readings = vec![text];
    if name.ends_with(".sse") {
        let mut texts: BTreeMap<String, String> = BTreeMap::new();
        for frame in Document::parse(bytes, EVENT_LIMIT_BYTES).unwrap().frames {
            let Some(event) = frame.event else { continue };
            let event: Value = serde_json::from_str(&event.data).unwrap();
            if let Some(delta) = event["delta"].as_str() {
                *texts.entry(event["item_id"].to_string()).or_default() += delta;
            }
        }
        assert_eq!(texts.len(), 4, "{name}");
        readings.extend(texts.into_values());
    }
    for _ in 0..4 {
        let deeper: Vec<String> = readings.iter().map(|text| plain(text)).collect();
        readings.extend(deeper);
        readings.sort();
        readings.dedup();
    }
    readings
}

/// One level of escapes taken back.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let escaped = match c {
            '\\' => rest.next(),
            _ => None,
        };
        match escaped {
            None => plain.push(c),
            Some('n') => plain.push('\n'),
            Some('u') => {
                let digits: String = rest.by_ref().take(4).collect();
                let code = u32::from_str_radix(&digits, 16).ok();
                plain.extend(code.and_then(char::from_u32));
            }
            Some(escaped) => plain.push(escaped),
        }
    }
    plain
}

/// A session with all secrets in it, as the proxy has recorded it.
async fn session(redactor: Redactor) -> (BTreeSet<String>, RecordedSession) {
    let mut seeded = Seeded(2025);
    let mut planted: BTreeSet<String> = BTreeSet::new();
    let mut kinds = 0;
    let mut exchanges = Vec::new();
    for _ in 0..EXCHANGES {
        let mut own = Vec::new();
        while own.len() < PER_EXCHANGE {
            let (secret, text) = secret(kinds % KINDS, &mut seeded);
            kinds += 1;
            assert!(planted.insert(secret));
            own.push(text);
        }
        exchanges.push(own);
    }
    assert_eq!(planted.len(), 200);
    let mut answers = Vec::new();
    for (number, texts) in exchanges.iter().enumerate() {
        let stream = streamed(number, &texts[..4], &mut seeded);
        answers.push(chunked(&stream, &mut seeded));
        let error =
            json!({"error": {"message": format!("Incorrect key: {}", texts[8])}}).to_string();
        let error = spelled(&error, number);
        let line = texts[9].replace('\n', " ");
        let head = format!(
            "HTTP/1.1 401 Unauthorized\r\nx-request-id: {line}\r\nx-other: {line}\r\nset-cookie: a={line}\r\ncontent-length: {}\r\n\r\n",
            error.len()
        );
        answers.push(vec![head.into_bytes(), error.into_bytes()]);
    }
    let upstream = format!("http://{}/v1", server(answers).await);
    let settings = ProxyConfig {
        redactor,
        ..config(&upstream)
    };
    let proxy = Proxy::start(settings).await.unwrap();
    for (number, texts) in exchanges.iter().enumerate() {
        let inner = spelled(&json!({"stdout": texts[5]}).to_string(), number);
        let body = json!({"model": "m", "stream": true, "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": texts[4]}]},
            {"type": "function_call", "call_id": "call_0", "name": "shell", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_0", "output": inner},
            {"type": "reasoning", "encrypted_content": texts[6], "summary": []},
        ]});
        let body = spelled(&body.to_string(), number + 1);
        let line = texts[7].replace('\n', " ");
        for _ in 0..2 {
            let request = format!(
                "POST {PATH} HTTP/1.1\r\nhost: x\r\nuser-agent: a {line}\r\nauthorization: Bearer {line}\r\nx-mine: {line}\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let mut client = Client::connect(proxy.address()).await;
            client.send(request.as_bytes()).await;
            client.head().await;
            assert_eq!(client.finish().await, End::Whole);
        }
    }
    (planted, proxy.finish().await)
}

/// Which of these are on disk, once the recording is saved.
fn left(planted: &BTreeSet<String>, recording: &Recording) -> BTreeSet<String> {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("r");
    recording.save(&folder).unwrap();
    let mut left = BTreeSet::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        for text in readings(&name, &std::fs::read(&path).unwrap()) {
            let stands = |secret: &&String| {
                text.contains(secret.as_str()) || text.contains(&secret.replace('\n', " "))
            };
            left.extend(planted.iter().filter(stands).cloned());
        }
    }
    left
}

#[tokio::test]
async fn without_redaction_all_of_them_are_on_disk() {
    let (planted, recorded) = session(Redactor::off()).await;
    let left = left(&planted, &recording(recorded));
    let unseen: Vec<&String> = planted.difference(&left).collect();
    assert_eq!(unseen, [""; 0]);
}

#[tokio::test]
async fn none_of_200_secrets_is_on_disk() {
    let (planted, recorded) = session(Redactor::new(&[]).unwrap()).await;
    assert_eq!(recorded.exchanges.len(), 2 * EXCHANGES);
    let told = recorded.report.to_string();
    assert!(recorded.report.kinds.len() >= 20, "{told}");
    assert!(planted.iter().all(|secret| !told.contains(secret.as_str())));
    let recording = recording(recorded);
    assert_eq!(left(&planted, &recording), BTreeSet::new());
    for exchange in &recording.exchanges {
        let text = match &exchange.response {
            Response::Stream(document) => String::from_utf8(document.to_bytes()).unwrap(),
            Response::Body { body, .. } => body.to_string(),
        };
        assert_eq!(find_secrets(&text).collect::<Vec<_>>(), []);
    }
    // What is left is still what a model could have sent, and its pieces still add up.
    let problems: Vec<Problem> = recording.validate();
    assert!(!problems.iter().any(Problem::is_error), "{problems:#?}");
    let add_up = recording
        .exchanges
        .iter()
        .all(|exchange| match &exchange.response {
            Response::Stream(document) => adds_up(document),
            Response::Body { .. } => true,
        });
    assert!(add_up);
}

/// Whether the deltas of each item are what its `done` event says.
fn adds_up(document: &Document) -> bool {
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    let mut done = 0;
    for frame in &document.frames {
        let Some(event) = &frame.event else { continue };
        let event: Value = serde_json::from_str(&event.data).unwrap();
        let key = event["item_id"].to_string();
        if let Some(delta) = event["delta"].as_str() {
            *texts.entry(key).or_default() += delta;
        } else if let Some(whole) = ["text", "arguments", "input"]
            .iter()
            .find_map(|name| event[*name].as_str())
        {
            assert_eq!(texts[&key], whole);
            done += 1;
        }
    }
    done == 4
}
