//! Everything that the commands print goes through this module: it knows how wide the terminal is and
//! whether it has colours. What the text looks like is laid out by [`cutpoint_report::layout`].
//!
//! A reader of the output may go away, and a disk may be full. Neither is a bug of this program, so
//! nothing here panics as `println!` does.

use std::fmt::Arguments;
use std::io::{self, IsTerminal, Write as _};
use std::os::fd::AsFd;

use cutpoint_report::layout::{DEFAULT_WIDTH, Layout};
use terminal_size::{Width, terminal_size_of};

use crate::Failure;

/// Prints a line to stdout as it is, such as JSON or a command that is meant to be copied. A reader
/// that has seen enough is no failure; a full disk is one.
macro_rules! say {
    ($($text:tt)*) => { $crate::console::line(format_args!($($text)*)) };
}

/// Prints a message to stderr, wrapped to the terminal's width. If stderr cannot be written to, there
/// is nowhere left to complain.
macro_rules! complain {
    ($($text:tt)*) => { $crate::console::complaint(format_args!($($text)*)) };
}

pub(crate) use {complain, say};

/// What [`say!`] does.
pub fn line(text: Arguments<'_>) -> Result<(), Failure> {
    bytes(format!("{text}\n").as_bytes())
}

/// What [`complain!`] does.
pub fn complaint(text: Arguments<'_>) {
    let mut layout = Layout::new(width_of(io::stderr()));
    layout.message(&text.to_string());
    // In one piece, so that lines of several processes don't mix.
    let _ = anstream::stderr().write_all(layout.coloured().as_bytes());
}

/// Prints bytes to stdout, as [`say!`] does.
pub fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = anstream::stdout();
    unless_closed(stdout.write_all(bytes).and_then(|()| stdout.flush()))
}

/// Prints what is laid out, in colours if stdout has them.
pub fn print(layout: &Layout) -> Result<(), Failure> {
    bytes(layout.coloured().as_bytes())
}

/// An empty layout for stdout. Where that is no terminal, lines are not broken: other programs search
/// them.
pub fn layout() -> Layout {
    Layout::new(width())
}

/// How wide stdout is, in columns; absent where it is no terminal.
pub fn width() -> Option<usize> {
    width_of(io::stdout())
}

/// How wide a report on stdout is, in columns.
pub fn report_width() -> usize {
    width().unwrap_or(DEFAULT_WIDTH)
}

/// Turns the result of writing to stdout into a command's. A reader that has gone away is no failure.
pub fn unless_closed(written: io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::trouble(format!("stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// The terminal's width in columns. Where there is none, `COLUMNS` may say how wide the output is.
fn width_of(stream: impl AsFd + IsTerminal) -> Option<usize> {
    match terminal_size_of(stream) {
        Some((Width(columns), _)) => Some(usize::from(columns)),
        None => std::env::var("COLUMNS").ok()?.parse().ok(),
    }
    .filter(|columns| *columns > 0)
}
