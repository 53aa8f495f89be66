//! Standard output and error: whoever reads them may go away or have no room, and that is no bug of
//! this program, so nothing here panics as `println!` does.

use std::fmt::Arguments;
use std::io::{self, Write as _};

use crate::Failure;

/// Prints a line to stdout. A reader that has seen enough is no failure; a full disk is one.
macro_rules! say {
    ($($text:tt)*) => { $crate::out::line(format_args!($($text)*)) };
}

/// Prints a line to stderr, if anybody can take it: there is nowhere left to complain.
macro_rules! complain {
    ($($text:tt)*) => { $crate::out::complaint(format_args!($($text)*)) };
}

pub(crate) use {complain, say};

/// What [`say!`] does.
pub fn line(text: Arguments<'_>) -> Result<(), Failure> {
    bytes(format!("{text}\n").as_bytes())
}

/// Prints bytes to stdout, as [`say!`] does.
pub fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = anstream::stdout();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::trouble(format!("stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// What [`complain!`] does.
pub fn complaint(text: Arguments<'_>) {
    // In one piece, so that lines of several processes don't mix.
    let _ = anstream::stderr().write_all(format!("{text}\n").as_bytes());
}
