//! What the receiving end can show: colours, where they are wanted, and a width.

use std::{io::IsTerminal, os::fd::AsFd};

use crate::policy::Ruling;

#[derive(Clone, Copy, Debug)]
pub struct Paint {
    on: bool,
    /// Characters in a line; none for what is no terminal.
    width: Option<usize>,
}

impl Paint {
    /// For files and pipes.
    pub const OFF: Paint = Paint { on: false, width: None };

    /// On when `stream` is a terminal and `NO_COLOR` (no-color.org) is unset or empty.
    pub fn for_stream(stream: &(impl IsTerminal + AsFd)) -> Paint {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        // A terminal that does not tell its size (0) sets no limit.
        let size = stream.is_terminal().then(|| terminal_size::terminal_size_of(stream)).flatten();
        let width = size.map(|(width, _)| usize::from(width.0)).filter(|width| *width > 0);
        Paint { on: stream.is_terminal() && !refused && !dumb, width }
    }

    pub(super) fn width(self) -> Option<usize> {
        self.width
    }

    #[cfg(test)]
    pub(super) fn at_width(self, width: Option<usize>) -> Paint {
        Paint { width, ..self }
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.with("1;31", text)
    }

    pub(super) fn ruling(self, ruling: Ruling, text: &str) -> String {
        match ruling {
            Ruling::Proven => self.with("1;32", text),
            Ruling::Inconclusive => self.with("1;33", text),
            Ruling::Violated => self.with("1;31", text),
        }
    }
}
