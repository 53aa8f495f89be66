//! JUnit XML, which most CI systems read.

use std::io::{self, Write};
use std::time::Duration;

use cutpoint_trace::AgentInfo;
use cutpoint_trace::case::{CaseResult, CaseStatus};
use quick_junit::{
    NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestSuite, XmlString,
};

use crate::case_details;
use crate::layout::DEFAULT_WIDTH;
use crate::summary::Summary;
use crate::text::clean;
use crate::{Context, FileFormat, Reporter};

/// `--junit FILE`.
pub(crate) const FILE_FORMAT: FileFormat = FileFormat {
    option: "junit",
    help: "Write a JUnit report to this file",
    open: |to, _, context| Ok(Box::new(Junit::new(to, context))),
};

/// Gathers the cases and writes them as one document at the end: a suite per agent, a test per case.
pub struct Junit<W> {
    to: W,
    context: Context,
    suites: Vec<(AgentInfo, Vec<TestCase>)>,
}

impl<W: Write> Junit<W> {
    /// A report that is written to `to` when the run has ended.
    pub fn new(to: W, context: Context) -> Self {
        Self {
            to,
            context,
            suites: Vec::new(),
        }
    }

    /// The report as it stands so far.
    ///
    /// # Errors
    /// If it cannot be put into XML.
    fn render(&self, summary: &Summary) -> io::Result<String> {
        let mut report = Report::new("cutpoint");
        report.set_time(duration(summary.duration_ms));
        for (agent, cases) in &self.suites {
            let name = format!("{} {} ({})", agent.name, agent.version, agent.driver);
            let mut suite = TestSuite::new(xml(&name));
            let time = cases.iter().filter_map(|case| case.time).sum();
            suite.set_time(time);
            suite.add_property(Property::new("agent", xml(&agent.name)));
            suite.add_property(Property::new("agent.version", xml(&agent.version)));
            suite.add_property(Property::new("agent.driver", xml(&agent.driver)));
            for defect in &agent.defects {
                suite.add_property(Property::new("agent.defect", xml(defect)));
            }
            suite.add_property(Property::new("seed", summary.seed.to_string()));
            suite.add_property(Property::new("strict", summary.strict.to_string()));
            suite.add_test_cases(cases.iter().cloned());
            report.add_test_suite(suite);
        }
        report.to_string().map_err(io::Error::other)
    }
}

impl<W: Write> Reporter for Junit<W> {
    fn case(&mut self, case: &CaseResult) -> io::Result<()> {
        let test = test_case(case, &self.context);
        match self
            .suites
            .iter_mut()
            .find(|(agent, _)| *agent == case.agent)
        {
            Some((_, cases)) => cases.push(test),
            None => self.suites.push((case.agent.clone(), vec![test])),
        }
        Ok(())
    }

    fn finish(&mut self, summary: &Summary) -> io::Result<()> {
        let text = self.render(summary)?;
        self.to.write_all(text.as_bytes())?;
        self.to.flush()
    }
}

fn test_case(case: &CaseResult, context: &Context) -> TestCase {
    let details = || {
        // On the console the details are indented below a headline.
        let indent = " ".repeat(case_details::HEADING_INDENT);
        let details = case_details::details(case, context, DEFAULT_WIDTH);
        let lines = details.lines().iter().map(ToString::to_string).map(|line| {
            let line = line.strip_prefix(&indent).unwrap_or(&line);
            format!("{}\n", line.trim_end())
        });
        xml(&lines.collect::<String>())
    };
    let status = case.status(context.strict);
    let status = match status {
        CaseStatus::Conforms => TestCaseStatus::success(),
        CaseStatus::Skipped => {
            let mut skipped = TestCaseStatus::skipped();
            skipped.set_message(xml(case.note.as_deref().unwrap_or_default()));
            skipped
        }
        _ => {
            let kind = if status == CaseStatus::Breach {
                NonSuccessKind::Failure
            } else {
                NonSuccessKind::Error
            };
            let (name, message) = first_failure(case, context);
            let mut failed = TestCaseStatus::non_success(kind);
            failed
                .set_type(xml(&name))
                .set_message(xml(&clean(&message)))
                .set_description(details());
            failed
        }
    };
    let conforms = matches!(status, TestCaseStatus::Success { .. });
    let mut test = TestCase::new(xml(&case.scenario), status);
    test.set_classname(xml(&case.file));
    test.set_time(duration(case.duration_ms));
    test.extra.insert("file".into(), xml(&case.file));
    if case.line > 0 {
        test.extra
            .insert("line".into(), case.line.to_string().into());
    }
    test.add_property(Property::new("replay", xml(&case.replay)));
    // Warnings and waived breaches of a case that conforms are worth keeping too.
    if conforms {
        let details = details();
        if !details.as_str().is_empty() {
            test.set_system_out(details);
        }
    }
    test
}

/// What kind of failure a case is, and its first line.
fn first_failure(case: &CaseResult, context: &Context) -> (String, String) {
    let breach = case.breaches(context.strict).find_map(|verdict| {
        let breach = case_details::breaches(verdict).first()?;
        Some((
            case_details::clause(verdict, breach),
            format!("{}: {}", verdict.rule, breach.text()),
        ))
    });
    let unmet = || {
        let unmet = case.unmet.first()?;
        let message = format!("not met: {}; found {}", unmet.text, unmet.found);
        Some(("expectation".to_owned(), message))
    };
    let kind = match case.status {
        CaseStatus::ScenarioError => "scenario-error",
        CaseStatus::AgentFailed => "agent-failed",
        CaseStatus::Trouble => "trouble",
        CaseStatus::Breach | CaseStatus::Conforms | CaseStatus::Skipped => {
            return breach.or_else(unmet).unwrap_or_default();
        }
    };
    (kind.to_owned(), case.note.clone().unwrap_or_default())
}

/// Text for XML: the library leaves out control characters, but not all that XML forbids.
fn xml(text: &str) -> XmlString {
    XmlString::new(text.replace(['\u{FFFE}', '\u{FFFF}'], "\u{FFFD}"))
}

fn duration(duration_ms: f64) -> Duration {
    Duration::try_from_secs_f64(duration_ms / 1000.0).unwrap_or_default()
}
