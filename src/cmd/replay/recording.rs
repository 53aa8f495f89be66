//! `cutpoint replay RECORDING`: a recorded session once more, and what has drifted.

use std::path::Path;

use cutpoint_engine::runner::Planned;

use crate::console::say;
use crate::exit_code::ExitCode;
use crate::{Failure, Outcome, files, recorded_session};

/// Drives the agent through a recording's turns, and tells how the items differ.
pub fn run(arguments: &super::Arguments, path: &Path) -> Outcome {
    if !arguments.defects.is_empty() {
        return Err(Failure::usage(
            "--defect goes with a token; leave it out to replay a recording",
        ));
    }
    let recording = recorded_session::load(path)?;
    let Some(session) = recording.session() else {
        return Err(Failure::usage(format!(
            "{} holds no requests, so what the user did is not known; write a scenario with `model {{ recording \"{}\" }}`",
            path.display(),
            recording.name
        )));
    };
    let whole = std::path::absolute(path).map_err(|error| files::failure(path, &error))?;
    let scenario = recorded_session::scenario(
        &recording.name,
        &recording.source,
        &whole.display().to_string(),
        &session,
    );
    let planned = Planned {
        scenario,
        file: String::new(),
    };
    let agent = arguments.agent.clone().unwrap_or_default();
    let mut code = ExitCode::Conforms;
    for number in 1..=arguments.times {
        if arguments.times > 1 {
            say!("run {number}")?;
        }
        let ran = recorded_session::run(&planned, &agent, &arguments.recordings)?;
        super::store(arguments, &ran.case)?;
        code = code.max(recorded_session::tell(&session, &ran)?);
    }
    Ok(code)
}
