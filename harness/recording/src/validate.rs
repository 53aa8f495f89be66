//! Everything that is wrong or odd with a recording.

use crate::file_names::FileKind;
use crate::problem::Problem;
use crate::recording::{Exchange, RecordedRequest, Recording, Response};
use crate::redact::{self, REDACTED};
use crate::validate_stream;

/// The problems of a recording, sorted by file and line.
pub(crate) fn validate(recording: &Recording) -> Vec<Problem> {
    let mut problems = readable(recording);
    problems.extend(check_numbers(recording));
    sort(&mut problems);
    problems
}

/// Those of the exchanges that there are, whether or not that is all of them.
pub(crate) fn readable(recording: &Recording) -> Vec<Problem> {
    let mut problems = recording.origin.findings.clone();
    for exchange in &recording.exchanges {
        if let Some(request) = &exchange.request {
            let (file, line) = place(recording, exchange, FileKind::Request);
            check_request(request, &file, line, &mut problems);
        }
        match &exchange.response {
            Response::Stream(document) => {
                let (file, _) = place(recording, exchange, FileKind::Stream);
                problems.extend(validate_stream::validate(document, &file));
            }
            Response::Body {
                status, headers, ..
            } => {
                let (file, line) = place(recording, exchange, FileKind::Body);
                if !(100..=599).contains(status) {
                    let message = format!("`status` is {status}; an HTTP status is 100 to 599");
                    problems.push(Problem::error(&file, line, message));
                }
                problems.extend(redact::exposed(headers).map(|name| exposed(&file, line, name)));
            }
        }
    }
    problems
}

/// In the order of the files and their lines.
pub(crate) fn sort(problems: &mut [Problem]) {
    problems.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
}

/// The path of an exchange's file, and the line on which what matters in it starts.
fn place(recording: &Recording, exchange: &Exchange, part: FileKind) -> (String, usize) {
    let known = recording.origin.parts.get(&(exchange.number, part));
    known
        .cloned()
        .unwrap_or_else(|| (part.file_name(exchange.number), 0))
}

fn check_numbers(recording: &Recording) -> Option<Problem> {
    let file = if recording.origin.place.is_empty() {
        &recording.name
    } else {
        &recording.origin.place
    };
    let (at, exchange) = recording
        .exchanges
        .iter()
        .enumerate()
        .find(|(at, exchange)| exchange.number != at + 1)?;
    let message = format!(
        "exchange {} is missing: exchange {} follows on {at}; number the exchanges from 1 without gaps",
        at + 1,
        exchange.number,
    );
    Some(Problem::error(file, 0, message))
}

/// What is wrong with a request.
pub(crate) fn check_request(
    request: &RecordedRequest,
    file: &str,
    line: usize,
    problems: &mut Vec<Problem>,
) {
    if request.is_responses()
        && let Err(error) = request.parse()
    {
        let message = format!("the body is no request of the Responses API: {error}");
        problems.push(Problem::error(file, line, message));
    }
    problems.extend(redact::exposed(&request.headers).map(|name| exposed(file, line, name)));
}

fn exposed(file: &str, line: usize, name: &str) -> Problem {
    let message = format!(
        "the header `{name}` holds a secret: replace its value by \"{}\"",
        REDACTED
    );
    Problem::error(file, line, message)
}
