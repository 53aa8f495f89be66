//! The tutorial is true: each of its commands is run, and prints what the page shows.
//!
//! In a `console` block a line `$ …` is a command and the lines up to the next one are its output. A `kdl` or
//! `json` block whose paragraph ends in "`NAME`:" is saved as NAME first.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use regex::Regex;

/// A fenced block of a page.
struct Block {
    language: String,
    /// What the paragraph in front of it says that it is saved as.
    file: Option<String>,
    lines: Vec<String>,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    let mut paragraph = "";
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            if !line.is_empty() {
                paragraph = line;
            }
            continue;
        };
        let file = paragraph
            .strip_suffix("`:")
            .and_then(|text| text.rsplit('`').next());
        blocks.push(Block {
            language: language.to_owned(),
            file: file.map(str::to_owned),
            lines: lines
                .by_ref()
                .take_while(|line| *line != "```")
                .map(str::to_owned)
                .collect(),
        });
        paragraph = "";
    }
    blocks
}

/// The commands of a block, each with the output that the page shows.
fn commands(block: &Block) -> Vec<(&str, Vec<&str>)> {
    let mut commands: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in &block.lines {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command, Vec::new())),
            (None, Some((_, output))) => output.push(line),
            (None, None) => panic!("output without a command: {line}"),
        }
    }
    commands
}

/// Runs a shell command in `place` and returns its standard output and its exit code. `$?` is `status` at first.
///
/// Progress and warnings go to standard error, and how many lines of progress there are depends on the machine.
fn run(command: &str, place: &Path, status: i32) -> (String, i32) {
    let binary = Path::new(env!("CARGO_BIN_EXE_cutpoint")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let output = Command::new("sh")
        .args(["-c", &format!("(exit {status})\n{command}")])
        .current_dir(place)
        .env("PATH", path)
        .env_remove("GITHUB_ACTIONS")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (text, output.status.code().unwrap())
}

/// Takes out what differs from run to run: ids, times, rates and digests.
fn mask(line: &str) -> String {
    let masks = [
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]*", "ID"),
        (r"rollout-[0-9]{4}\S*", "ROLLOUT"),
        (r"[0-9]+(\.[0-9]+)? (ms|s)\b", "TIME"),
        (r"\([0-9]+ MB/s\)", "RATE"),
        (r"one trace \([0-9a-f]+\)", "one trace"),
    ];
    masks
        .iter()
        .fold(line.trim_end().to_owned(), |line, (pattern, name)| {
            let pattern = Regex::new(pattern).unwrap();
            pattern.replace_all(&line, *name).into_owned()
        })
}

/// Returns true if `printed` is what the page shows, in which a line `…` stands for any number of lines.
fn shows(shown: &[String], printed: &[String]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((line, rest)) if line == "…" => {
            (0..=printed.len()).any(|skipped| shows(rest, &printed[skipped..]))
        }
        Some((line, rest)) => {
            printed.first() == Some(line) && shows(rest, printed.get(1..).unwrap_or(&[]))
        }
    }
}

fn assert_shown(command: &str, shown: &[&str], printed: &str) {
    let shown: Vec<String> = shown.iter().copied().map(mask).collect();
    let masked: Vec<String> = printed.lines().map(mask).collect();
    assert!(
        shows(&shown, &masked),
        "$ {command}\nthe page shows\n{}\nand it prints\n{printed}",
        shown.join("\n")
    );
}

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[test]
fn the_tutorial_prints_what_it_shows() {
    let place = tempfile::tempdir().unwrap();
    let mut status = 0;
    let mut ran = 0;
    for block in blocks(&page("docs/tutorial.md")) {
        if let Some(name) = &block.file {
            fs::write(place.path().join(name), block.lines.join("\n") + "\n").unwrap();
        }
        if block.language != "console" {
            continue;
        }
        for (command, shown) in commands(&block) {
            let (printed, code) = run(command, place.path(), status);
            assert_shown(command, &shown, &printed);
            status = code;
            ran += 1;
        }
    }
    assert!(ran > 8, "the tutorial has {ran} commands");
}

#[test]
fn the_readme_prints_what_it_shows() {
    let place = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    symlink(root.join("scenarios"), place.path().join("scenarios")).unwrap();
    let page = page("README.md");
    let blocks = blocks(&page);
    // Most commands of the README stand alone, and some of them need what is not here.
    let captures = blocks
        .iter()
        .filter(|block| block.language == "console")
        .flat_map(commands)
        .filter(|(_, shown)| !shown.is_empty());
    let mut ran = 0;
    for (command, shown) in captures {
        let (printed, _) = run(command, place.path(), 0);
        assert_shown(command, &shown, &printed);
        ran += 1;
    }
    assert!(ran > 0, "the README shows no output");
}

#[test]
fn a_page_that_is_wrong_is_noticed() {
    let lines = |text: &str| text.lines().map(mask).collect::<Vec<_>>();
    let printed = lines("one\ntwo (0.08 s)\nthree");
    assert!(shows(&lines("one\ntwo (1.5 s)\nthree"), &printed));
    assert!(shows(&lines("…\nthree"), &printed));
    assert!(
        !shows(&lines("…\ntwo (1 s)"), &printed),
        "a line is missing"
    );
    assert!(!shows(&lines("one\n…\nfour"), &printed), "a line differs");
    assert!(!shows(&lines("one"), &printed), "lines are left");
}
