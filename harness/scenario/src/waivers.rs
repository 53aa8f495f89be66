//! Waivers of rules that do not exist. The rule book belongs to the caller.

use crate::ast::ScenarioFile;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::suggest::nearest;

/// Checks that every rule a file waives is one of the rule book.
///
/// `source` is the text that `file` was parsed from, and `rules` are the ids of all rules.
///
/// # Errors
///
/// Every waiver of a rule that does not exist.
pub fn check_waivers(
    file_name: &str,
    source: &str,
    file: &ScenarioFile,
    rules: &[&str],
) -> Result<(), Diagnostics> {
    let waivers = file.scenarios.iter().flat_map(|it| &it.waivers);
    let problems: Vec<Diagnostic> = waivers
        .filter(|waiver| !rules.contains(&waiver.rule.as_str()))
        .map(|waiver| {
            let help = match nearest(&waiver.rule, rules) {
                Some(rule) => format!("did you mean `{rule}`?"),
                None => "`cutpoint rules` lists the rules".to_owned(),
            };
            Diagnostic::new(
                "unknown-rule",
                waiver.rule_span.start..waiver.rule_span.end,
                format!("there is no rule `{}`", waiver.rule),
                "unknown rule",
            )
            .help(help)
        })
        .collect();
    if problems.is_empty() {
        return Ok(());
    }
    Err(Diagnostics::new(file_name, source, problems))
}
