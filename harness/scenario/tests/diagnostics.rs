//! Every mistake has a golden file: `tests/diagnostics/<name>.kdl` is the input and
//! `<name>.txt` is what a person sees. `UPDATE_GOLDEN=1` writes the second from the first.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/diagnostics")
}

fn names(extension: &str) -> BTreeSet<String> {
    std::fs::read_dir(directory())
        .expect("the directory of golden files exists")
        .map(|entry| entry.expect("the directory is readable").path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .map(|path| {
            let stem = path.file_stem().expect("a file has a name");
            stem.to_string_lossy().into_owned()
        })
        .collect()
}

#[test]
fn diagnostics_read_as_in_their_golden_files() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let inputs = names("kdl");
    let mut failures = Vec::new();
    for name in &inputs {
        let bytes = std::fs::read(directory().join(format!("{name}.kdl"))).expect("readable");
        let file_name = format!("{name}.kdl");
        let actual = match cutpoint_scenario::parse_bytes(&file_name, &bytes) {
            Ok(_) => "no mistake found\n".to_owned(),
            Err(diagnostics) => diagnostics.render(false),
        };
        if actual.contains("no mistake found") {
            failures.push(format!("{name}: {actual}"));
            continue;
        }
        let golden = directory().join(format!("{name}.txt"));
        if update {
            std::fs::write(&golden, &actual).expect("writable");
        } else {
            let expected = std::fs::read_to_string(&golden).unwrap_or_default();
            if expected != actual {
                failures.push(format!(
                    "{name}: expected\n{expected}\nactual\n{actual}\n(UPDATE_GOLDEN=1 accepts it)"
                ));
            }
        }
    }
    let orphans: Vec<String> = names("txt").difference(&inputs).cloned().collect();
    assert!(
        orphans.is_empty(),
        "golden files without input: {orphans:?}"
    );
    assert!(inputs.len() >= 30, "the suite has lost its files");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn colors_only_add_escapes() {
    let source = "scenario \"a\" { usr \"b\" }";
    let diagnostics = cutpoint_scenario::parse("a.kdl", source).expect_err("a mistake");
    assert!(!diagnostics.render(false).contains('\u{1b}'));
    assert!(diagnostics.render(true).contains('\u{1b}'));
}
