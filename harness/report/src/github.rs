//! Annotations of GitHub Actions: failures shown at the lines of the scenarios.

use std::io::{self, Write};

use cutpoint_trace::case::{CaseResult, CaseStatus};
use cutpoint_trace::verdict::RuleVerdict;

use crate::case_details;
use crate::summary::Summary;
use crate::text::clean;
use crate::{Context, Reporter};

/// Returns true if this process runs in GitHub Actions, which reads annotations from the output.
pub fn in_actions() -> bool {
    std::env::var("GITHUB_ACTIONS").is_ok_and(|value| value == "true")
}

/// Writes an annotation for each breach, each expectation not met, and each case that could not be
/// judged.
pub struct Annotations<W> {
    to: W,
    context: Context,
}

impl<W: Write> Annotations<W> {
    /// Annotations on `to`, the step's own output.
    pub fn new(to: W, context: Context) -> Self {
        Self { to, context }
    }

    fn annotate(
        &mut self,
        command: &str,
        case: &CaseResult,
        line: usize,
        title: &str,
        message: &[String],
    ) -> io::Result<()> {
        // The paths that GitHub knows start at the repository's root.
        let file = case.file.strip_prefix("./").unwrap_or(&case.file);
        write!(self.to, "::{command} file={}", property(file))?;
        if line > 0 {
            write!(self.to, ",line={line}")?;
        }
        let message: Vec<_> = message.iter().map(|line| data(&clean(line))).collect();
        writeln!(
            self.to,
            ",title={}::{}",
            property(&format!("{title} ({})", case.scenario)),
            message.join("%0A")
        )
    }

    fn breaches(
        &mut self,
        command: &str,
        case: &CaseResult,
        verdict: &RuleVerdict,
    ) -> io::Result<()> {
        for breach in case_details::breaches(verdict) {
            let step = case_details::step(case, breach.evidence.last().copied());
            let line = step.map_or(0, |(line, _)| line);
            let line = if line > 0 { line } else { case.line };
            let sentence = (self.context.sentence)(&verdict.rule);
            let mut message = vec![breach.text().into_owned()];
            message.extend(sentence.map(|sentence| format!("{}: {sentence}", verdict.rule)));
            message.push(format!("Replay: {}", case.replay));
            let clause = case_details::clause(verdict, breach);
            self.annotate(command, case, line, &clause, &message)?;
        }
        Ok(())
    }
}

impl<W: Write> Reporter for Annotations<W> {
    fn case(&mut self, case: &CaseResult) -> io::Result<()> {
        let title = match case.status {
            CaseStatus::ScenarioError => Some("The scenario cannot be run"),
            CaseStatus::AgentFailed => Some("The agent could not be run"),
            CaseStatus::Trouble => Some("Trouble in the harness"),
            CaseStatus::Conforms | CaseStatus::Skipped | CaseStatus::Breach => None,
        };
        if let Some(title) = title {
            let mut message: Vec<String> = case.note.clone().into_iter().collect();
            message.push(format!("Replay: {}", case.replay));
            self.annotate("error", case, case.line, title, &message)?;
        }
        for verdict in case.breaches(self.context.strict) {
            self.breaches("error", case, verdict)?;
        }
        for unmet in &case.unmet {
            let line = if unmet.line > 0 {
                unmet.line
            } else {
                case.line
            };
            let message = [
                unmet.text.clone(),
                format!("Found: {}", unmet.found),
                format!("Replay: {}", case.replay),
            ];
            self.annotate("error", case, line, "Not met", &message)?;
        }
        if !self.context.strict {
            for verdict in case_details::warnings(case) {
                self.breaches("warning", case, verdict)?;
            }
        }
        self.to.flush()
    }

    fn finish(&mut self, _summary: &Summary) -> io::Result<()> {
        Ok(())
    }
}

/// Escapes a message.
fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// Escapes a property, which ends at a comma or a colon.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_an_annotation_is_escaped() {
        assert_eq!(data("100%\r\nnext::"), "100%25%0D%0Anext::");
        assert_eq!(property("a,b:c%2C"), "a%2Cb%3Ac%252C");
    }
}
