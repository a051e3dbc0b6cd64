//! Colours, where they are wanted.

use std::io::IsTerminal;

use crate::policy::Ruling;

#[derive(Clone, Copy, Debug)]
pub struct Paint {
    on: bool,
}

impl Paint {
    pub const OFF: Paint = Paint { on: false };

    /// On when `stream` is a terminal and `NO_COLOR` (no-color.org) is unset or empty.
    pub fn for_stream(stream: &impl IsTerminal) -> Paint {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Paint { on: stream.is_terminal() && !refused && !dumb }
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    pub(super) fn dim(self, text: &str) -> String {
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
