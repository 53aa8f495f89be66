//! Style as a test: what a reader of this project may rely on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Files stay readable in one sitting.
const FILE_LIMIT_LINES: usize = 800;

/// The README is a way in; what is longer belongs in docs/.
const README_LIMIT_WORDS: usize = 900;

/// The crates below `harness/` with their floors: a crate imports from lower floors only.
const FLOORS: &[(&str, u8)] = &[
    ("bench", 0),
    ("protocol", 0),
    ("trace", 1),
    ("scenario", 1),
    ("recording", 1),
    ("agent", 1),
    ("check", 2),
    ("engine", 2),
    ("explore", 3),
    ("report", 2),
];

/// Words that have no place here: leftovers, and what belongs to a machine or to no one.
const BANNED: &[&str] = &[
    "FIXME",
    "XXX",
    "todo!(",
    "unimplemented!(",
    "dbg!(",
    "#[ignore",
    "/root/",
    "/tmp/cutpoint",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files that git tracks or would track, as paths from the root. Every file, where this is no git checkout.
///
/// Tests look at these paths only, so that the name of the checkout's own folder does not matter.
fn files() -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "-z",
        ])
        .current_dir(root())
        .output();
    let names: Vec<PathBuf> = match listed {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8(output.stdout).unwrap();
            text.split_terminator('\0').map(PathBuf::from).collect()
        }
        _ => walkdir::WalkDir::new(root())
            .into_iter()
            .filter_entry(|entry| entry.file_name() != "target" && entry.file_name() != ".agents")
            .map(|entry| {
                let path = entry.unwrap().into_path();
                path.strip_prefix(root()).unwrap().to_owned()
            })
            .collect(),
    };
    names
        .into_iter()
        .filter(|path| root().join(path).is_file())
        .collect()
}

fn rust_files() -> Vec<PathBuf> {
    let files: Vec<_> = files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .collect();
    assert!(files.len() > 50, "found {} Rust files", files.len());
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

#[test]
fn files_are_not_too_long() {
    for path in rust_files() {
        let lines = read(&path).lines().count();
        assert!(
            lines <= FILE_LIMIT_LINES,
            "{} has {lines} lines",
            path.display()
        );
    }
}

/// `cargo fmt` sees only the files that it finds by `mod`, so one that a macro declares escapes it.
#[test]
fn every_rust_file_is_formatted() {
    let output = Command::new("rustfmt")
        .args(["--check", "--edition", "2024", "-l"])
        .args(rust_files())
        .current_dir(root())
        .output()
        .expect("rustfmt comes with the toolchain");
    assert!(
        output.status.success(),
        "run rustfmt on these files:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn no_banned_words() {
    for path in rust_files() {
        if path == Path::new("tests/tidy.rs") {
            continue;
        }
        let text = read(&path);
        for (at, line) in text.lines().enumerate() {
            for word in BANNED {
                assert!(
                    !line.contains(word),
                    "{}:{}: {word}",
                    path.display(),
                    at + 1
                );
            }
        }
    }
}

/// A file that no `mod` names is not compiled, and nobody notices that it rots.
#[test]
fn every_file_is_a_module_of_its_crate() {
    for path in rust_files() {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let above = path.parent().unwrap();
        let is_root = ["lib", "main"].contains(&stem)
            || above.ends_with("tests") && !above.ends_with("src/tests")
            || above.ends_with("benches")
            || above.ends_with("examples");
        if is_root {
            continue;
        }
        let (module, folder) = if stem == "mod" {
            (
                above.file_name().unwrap().to_str().unwrap(),
                above.parent().unwrap(),
            )
        } else {
            (stem, above)
        };
        assert!(
            declares(folder, module),
            "{} is declared by no `mod {module}`",
            path.display()
        );
    }
}

/// Whether the module that owns `folder` declares `module`.
fn declares(folder: &Path, module: &str) -> bool {
    let own = folder.file_name().unwrap().to_str().unwrap();
    let folder = &root().join(folder);
    let mut owners: Vec<PathBuf> = ["lib.rs", "main.rs", "mod.rs"]
        .map(|file| folder.join(file))
        .into();
    owners.push(folder.with_file_name(format!("{own}.rs")));
    if folder.ends_with("tests") || folder.ends_with("benches") {
        owners.extend(
            fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().path()),
        );
    }
    owners
        .iter()
        .filter_map(|owner| fs::read_to_string(owner).ok())
        .any(|text| {
            text.lines().any(|line| {
                let line = line.trim();
                let declared = line
                    .strip_suffix(';')
                    .and_then(|line| line.rsplit_once("mod "));
                declared.is_some_and(|(_, name)| name == module)
                    || line.starts_with(&format!("mod {module} "))
            })
        })
}

#[test]
fn imports_go_down_only() {
    let on_disk: BTreeSet<String> = fs::read_dir(root().join("harness"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let listed: BTreeSet<String> = FLOORS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(on_disk, listed, "every crate has a floor");
    for (name, floor) in FLOORS {
        let manifest =
            fs::read_to_string(root().join("harness").join(name).join("Cargo.toml")).unwrap();
        // What tests use besides is not part of the crate.
        let shipped = manifest.split("[dev-dependencies]").next().unwrap();
        for (other, other_floor) in FLOORS {
            let imports = shipped
                .lines()
                .any(|line| line.starts_with(&format!("cutpoint-{other}")));
            assert!(
                !imports || other_floor < floor,
                "{name} (floor {floor}) imports {other} (floor {other_floor})"
            );
        }
    }
}

/// The agent is driven by the harness and must not know of it.
#[test]
fn the_agent_knows_nothing_of_the_harness() {
    for path in rust_files() {
        if path.starts_with("harness/agent") {
            let text = read(&path);
            for word in ["cutpoint_engine", "cutpoint_check", "cutpoint_scenario"] {
                assert!(!text.contains(word), "{} names {word}", path.display());
            }
        }
    }
}

/// Only one crate touches processes and sockets; the rules and the language touch no files either.
#[test]
fn floors_below_the_engine_do_no_io_of_their_own() {
    for path in rust_files() {
        let pure = [
            "harness/protocol/src",
            "harness/trace/src",
            "harness/scenario/src",
            "harness/check/src",
        ];
        if !pure.iter().any(|folder| path.starts_with(folder)) {
            continue;
        }
        let text = read(&path);
        // Tests may read what they check.
        let text = text.split("#[cfg(test)]").next().unwrap();
        for word in ["std::net", "std::process", "std::fs", "tokio"] {
            assert!(!text.contains(word), "{} uses {word}", path.display());
        }
    }
}

/// The files of prose, as paths from the root.
fn pages() -> Vec<PathBuf> {
    let pages: Vec<_> = files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "md"))
        .collect();
    assert!(pages.len() > 10, "found {} pages", pages.len());
    pages
}

/// Turns of phrase that a reader stumbles over, where a plain one says the same.
const HOUSE_WORDS: &[(&str, &str)] = &[
    ("put to the test", "exercised"),
    ("puts to the test", "exercises"),
    ("untold", "not reported"),
    ("is told of", "learns of"),
    ("tells of", "reports"),
    ("right behind", "right after"),
    ("whoever", "the client, the agent, the reader"),
];

#[test]
fn pages_are_in_plain_words() {
    for page in pages() {
        for (at, line) in read(&page).lines().enumerate() {
            for (word, plain) in HOUSE_WORDS {
                assert!(
                    !line.contains(word),
                    "{}:{}: write `{plain}` instead of `{word}`",
                    page.display(),
                    at + 1
                );
            }
        }
    }
}

#[test]
fn the_readme_is_short() {
    let words = read(Path::new("README.md")).split_whitespace().count();
    assert!(
        words <= README_LIMIT_WORDS,
        "README.md has {words} words; move the details to docs/"
    );
}

/// The anchor that a heading gets on a page.
fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn links_between_pages_lead_somewhere() {
    for page in pages() {
        let text = read(&page);
        let links = text.split("](").skip(1);
        for link in links.filter_map(|rest| rest.split_once(')').map(|(link, _)| link)) {
            if link.contains("://") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => root().join(&page),
                file => root().join(&page).with_file_name(file),
            };
            let found = target.exists()
                && (heading.is_empty()
                    || fs::read_to_string(&target).unwrap().lines().any(|line| {
                        line.starts_with('#')
                            && anchor(line.trim_start_matches('#').trim()) == heading
                    }));
            assert!(found, "{}: {link} leads nowhere", page.display());
        }
    }
}

/// Each term of the glossary names the type that carries it; renaming the type renames it there.
#[test]
fn the_types_of_the_glossary_exist() {
    let sources: Vec<String> = rust_files().iter().map(|path| read(path)).collect();
    let is_declared = |name: &str| {
        // The macro of the ids lists them, one per line.
        let is_id = read(Path::new("harness/protocol/src/ids.rs"))
            .lines()
            .any(|line| line.trim() == name);
        is_id
            || ["struct", "enum", "trait", "type"].iter().any(|keyword| {
                let declaration = format!("pub {keyword} {name}");
                sources.iter().any(|text| {
                    text.match_indices(&declaration).any(|(at, _)| {
                        let rest = &text[at + declaration.len()..];
                        !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_')
                    })
                })
            })
    };
    let page = read(Path::new("docs/GLOSSARY.md"));
    let rows: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| **"))
        .collect();
    assert!(rows.len() > 30, "the glossary has {} terms", rows.len());
    for row in rows {
        let cell = row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap();
        let name = cell.trim().trim_matches('`');
        assert!(
            name == "–" || is_declared(name),
            "no public type is called {name}: {row}"
        );
    }
}

/// Where code may name an agent, and why.
const NAMES_AGENTS: &[(&str, &str)] = &[
    ("harness/engine/src/driver/codex_app_server/", "its driver"),
    ("harness/engine/src/driver/mod.rs", "declares the driver"),
    ("harness/engine/src/driver/agents.rs", "the table of agents"),
    ("harness/protocol/src/headers.rs", "names of headers"),
    (
        "harness/recording/src/import/",
        "an importer of its rollouts",
    ),
    ("src/rollout_file.rs", "says where its rollouts are"),
    (
        "harness/agent/src/defect.rs",
        "cites the source of each defect",
    ),
    ("harness/check/src/rules/", "cite the source of each rule"),
];

/// What an agent is like is known to its driver alone. Comments, help texts and tests may name it.
#[test]
fn no_code_outside_a_drivers_folder_names_an_agent() {
    for path in rust_files() {
        let name = path.display().to_string();
        let is_product =
            name.starts_with("src/") || name.contains("/src/") && !name.contains("/tests/");
        if !is_product
            || NAMES_AGENTS
                .iter()
                .any(|(place, _)| name.starts_with(place))
        {
            continue;
        }
        let source: TokenStream = read(&path).parse().unwrap();
        let found = naming_agents(source);
        assert!(found.is_empty(), "{name} names an agent: {found:?}");
    }
}

/// The names and literals that name an agent, without attributes (comments and help are attributes) and
/// without items that are compiled for tests only.
fn naming_agents(source: TokenStream) -> Vec<String> {
    let (mut found, mut tokens) = (Vec::new(), source.into_iter().peekable());
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                tokens
                    .next_if(|it| matches!(it, TokenTree::Punct(inner) if inner.as_char() == '!'));
                let attribute = tokens.next().map(|it| it.to_string().replace(' ', ""));
                if attribute.as_deref() == Some("[cfg(test)]") {
                    let ends = |it: &TokenTree| match it {
                        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
                        TokenTree::Punct(punct) => punct.as_char() == ';',
                        _ => false,
                    };
                    tokens.by_ref().find(ends);
                }
            }
            TokenTree::Group(group) => found.extend(naming_agents(group.stream())),
            token => {
                let text = token.to_string();
                found.extend(text.to_lowercase().contains("codex").then_some(text));
            }
        }
    }
    found
}

#[test]
fn comments_help_and_tests_may_name_an_agent() {
    let source = "//! Codex
        /// Codex
        #[command(after_help = \"codex\")]
        struct Arguments;
        #[cfg(test)]
        mod tests { const A: &str = \"codex\"; }
        fn go() { start(CodexConfig { name: \"my codex\" }) }";
    assert_eq!(
        naming_agents(source.parse().unwrap()),
        ["CodexConfig", "\"my codex\""]
    );
}
