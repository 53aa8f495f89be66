//! The options that ask for reports in files, one per format.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command, FromArgMatches, value_parser};
use cutpoint_report::{FILE_FORMATS, FileFormat};

/// The files that the user asked for, each with its format.
#[derive(Default)]
pub struct ReportFiles(Vec<(&'static FileFormat, PathBuf)>);

impl ReportFiles {
    /// Every file with its format.
    pub fn iter(&self) -> impl Iterator<Item = (&'static FileFormat, &Path)> {
        self.0
            .iter()
            .map(|(format, path)| (*format, path.as_path()))
    }
}

impl clap::Args for ReportFiles {
    fn augment_args(command: Command) -> Command {
        command.args(FILE_FORMATS.iter().map(|format| {
            Arg::new(format.option)
                .long(format.option)
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help(format.help)
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ReportFiles {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let files = FILE_FORMATS.iter().filter_map(|format| {
            let path: &PathBuf = matches.get_one(format.option)?;
            Some((format, path.clone()))
        });
        Ok(Self(files.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
