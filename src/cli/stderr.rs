//! Lines on standard error.
//!
//! Standard error can be gone: a closed terminal, a full device, or a reader such as `head` that ended. `eprintln!`
//! panics then, which would end the work that a line is about. These functions lose the line instead.

use std::io::Write;

/// Prints a line after the name of the program. A line that cannot be written is lost.
pub fn tell(message: &str) {
    line(&format!("vaplan: {message}"));
}

/// Prints a line. A line that cannot be written is lost.
pub(super) fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
