//! What comes from the table of agents: `cutpoint agents`, `cutpoint doctor`, the tables of docs/agents.md.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use cutpoint_engine::driver::agent_kind::{AgentKind, Offer, Since, known};
use cutpoint_engine::driver::agents::AGENTS;
use cutpoint_scenario::ast::Capability;
use cutpoint_trace::Feature;
use support::agents::{CONFIGURED, stdio};
use support::{Place, Running, root};

/// The tables of docs/agents.md, as they follow from what the drivers declare.
fn tables() -> String {
    let mut text = String::from("| `--agent` | is |\n|---|---|\n");
    for kind in AGENTS {
        let declaration = kind.declaration();
        for form in declaration.forms {
            let name = format!("{}{}", declaration.name, form.suffix);
            writeln!(text, "| `{name}` | {} |", form.help).unwrap();
        }
    }
    row(&mut text, "\n", |kind| {
        format!("`{}`", kind.declaration().name)
    });
    writeln!(text, "|---{}|", "|---".repeat(AGENTS.len())).unwrap();
    row(&mut text, "driver", |kind| {
        kind.declaration().driver.to_owned()
    });
    row(&mut text, "shell tools", |kind| {
        let tools = kind.declaration().shell_tools.iter();
        tools
            .map(|tool| format!("`{tool}`"))
            .collect::<Vec<_>>()
            .join(", ")
    });
    row(&mut text, "marker", |kind| {
        kind.declaration().marker.to_string()
    });
    row(&mut text, "rollout", |kind| {
        kind.declaration().rollout.to_owned()
    });
    for capability in Capability::ALL {
        let name = format!("`needs {}`", capability.name());
        row(&mut text, &name, |kind| {
            offered(&kind.capabilities(), &capability)
        });
    }
    for feature in features() {
        let name = serde_json::to_value(feature).unwrap();
        let name = format!("seen: {}", name.as_str().unwrap());
        row(&mut text, &name, |kind| offered(&kind.features(), &feature));
    }
    text
}

fn row(text: &mut String, name: &str, cell: impl Fn(&dyn AgentKind) -> String) {
    let cells: Vec<String> = AGENTS.iter().map(|kind| cell(*kind)).collect();
    writeln!(text, "{} | {} |", header(name), cells.join(" | ")).unwrap();
}

/// The first cell of a row; a name that begins with a line break begins a new table.
fn header(name: &str) -> String {
    let (before, name) = name.split_at(name.len() - name.trim_start().len());
    format!("{before}| {name}")
}

/// `yes`, `from 0.98`, or nothing.
fn offered<T: PartialEq>(offer: &Offer<T>, wanted: &T) -> String {
    let since: Option<Since> = offer
        .iter()
        .find(|(it, _)| it == wanted)
        .map(|(_, since)| *since);
    match since {
        None => String::new(),
        Some((0, 0)) => "yes".to_owned(),
        Some((major, minor)) => format!("from {major}.{minor}"),
    }
}

/// All features that any agent has.
fn features() -> BTreeSet<Feature> {
    let all = AGENTS.iter().flat_map(|kind| kind.features());
    all.map(|(feature, _)| feature).collect()
}

#[test]
fn the_documented_tables_are_those_that_the_drivers_declare() {
    let docs = std::fs::read_to_string(root().join("docs/agents.md")).unwrap();
    let (_, rest) = docs
        .split_once("<!-- from the table of agents -->\n")
        .unwrap();
    let (documented, _) = rest.split_once("<!-- end -->").unwrap();
    let tables = tables();
    assert!(documented == tables, "docs/agents.md needs:\n{tables}");
}

#[test]
fn an_agent_with_a_marker_declares_that_it_is_seen() {
    for kind in AGENTS {
        let declaration = kind.declaration();
        let features = kind.features();
        let sees_markers = features.iter().any(|(it, _)| *it == Feature::Marker);
        assert_eq!(
            sees_markers,
            !declaration.marker.roles.is_empty(),
            "{}",
            declaration.name
        );
    }
}

#[test]
fn agents_are_listed_with_what_is_installed() {
    let place = Place::new();
    for version in ["0.8.0", "0.169.0"] {
        place.file(&format!("agents/codex-{version}/codex"), "");
    }
    let list = |folder: &str| {
        let mut command = place.cutpoint(["agents"]);
        Running::start(command.env("CUTPOINT_AGENTS", folder)).wait()
    };
    let listed = list("agents");
    listed
        .code(0)
        .says(&["codex@0.169.0", "codex@0.8.0", "`cutpoint defects`"]);
    for name in known() {
        listed.says(&[&name]);
    }
    list("nowhere")
        .code(0)
        .says(&["run `scripts/install-codex 0.169.0`"]);
}

#[test]
fn the_doctor_tries_each_agent_that_is_found() {
    let place = Place::new();
    let old = "echo 'Usage: codex [OPTIONS] [PROMPT]'";
    std::fs::create_dir_all(place.path().join("agents/codex-0.8.0")).unwrap();
    place.script(
        "agents/codex-0.8.0/codex",
        &format!("[ \"$1\" = --version ] && echo codex-cli 0.8.0 || {{ {old}; exit 1; }}"),
    );
    let mut command = place.cutpoint(["doctor"]);
    let ended = Running::start(command.env("CUTPOINT_AGENTS", "agents")).wait();
    ended.code(0).says(&[
        "ok  loopback can be bound",
        "ok  reference ",
        "ok  reference-stdio",
        "ok  reference-jsonrpc",
        "--  codex@0.8.0          the agent could not be started: it exited with code 1",
        "--  stdio",
    ]);
    place.assert_clean();
}

#[test]
fn a_named_agent_that_cannot_be_run_fails_the_doctor() {
    let place = Place::new();
    place
        .run(["doctor", "reference"])
        .code(0)
        .says(&["ok  reference"]);
    place
        .run(["doctor", "stdio:nowhere"])
        .code(3)
        .says(&["--  stdio:nowhere"]);
    let hangs = stdio(&place, &format!("{CONFIGURED}; read -r _; exit 7"));
    place
        .run(["doctor", &hangs])
        .code(3)
        .says(&["it exited with code 7"]);
    place
        .run(["doctor", "codx"])
        .code(2)
        .says(&["no agent `codx`; there are reference, "]);
    place.assert_clean();
}

/// The newest version is not the first in the folder, nor is the newest always one that can be driven.
#[test]
fn codex_without_a_version_is_the_newest_that_can_be_driven() {
    let place = Place::new();
    let version = |version: &str, help: &str| {
        let folder = format!("agents/codex-{version}");
        std::fs::create_dir_all(place.path().join(&folder)).unwrap();
        let body = format!(
            "case $1 in --version) echo codex-cli {version};; *) [ \"$2\" = --help ] && echo '{help}' || exit 9;; esac"
        );
        place.script(&format!("{folder}/codex"), &body);
    };
    let doctor = || {
        let mut command = place.cutpoint(["doctor", "codex"]);
        Running::start(command.env("CUTPOINT_AGENTS", "agents")).wait()
    };
    version("0.100.0", "Usage: codex [OPTIONS] [PROMPT]");
    version("0.8.0", "Usage: codex [OPTIONS] [PROMPT]");
    doctor().code(3).says(&[
        "no installed version of codex (0.100.0, 0.8.0) has an app-server",
        "run `scripts/install-codex 0.169.0`",
    ]);
    version("0.99.0", "Usage: codex app-server [OPTIONS] [COMMAND]");
    doctor()
        .code(3)
        .says(&["could not be started: it exited with code 9"]);
    place.assert_clean();
}
