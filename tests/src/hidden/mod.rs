//! The table of ways in which a process tree may reach others over a network unnoticed, and what a
//! recording must show of each. One definition, for the tests and for the printed table.
//!
//! A row is shell text. Variables stand for what differs: `$ODD` is the folder of compiled odd
//! programs, `$CGROUP` the folder of a cgroup of the row's own. Every row has a network namespace of
//! its own with the same peers in it (see [`Peers`]), so addresses and ports are always the same, and
//! so that the kernel's count of opened connections is of this row alone.

mod facts;
mod other;
mod peers;
pub mod table;
mod tcp;
mod trial;

pub use self::{
    peers::Peers,
    trial::{Trial, trial},
};

/// All rows, in the order of the document.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    tcp::ROWS.iter().chain(other::ROWS)
}

pub use crate::evasions::Ruling;

/// One way.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Tells the row from all others.
    pub name: &'static str,
    /// What happens before tracing starts.
    pub before: &'static str,
    /// A process that runs outside the traced tree meanwhile. It makes the file `ready` when it is.
    pub outside: &'static str,
    /// What starts tracer: shell text that ends with `"$@"`.
    pub caller: &'static str,
    /// What is traced.
    pub traced: &'static str,
    /// The lines that the recording must come down to, and no others (see [`facts`]).
    pub shown: &'static [&'static str],
    /// Words that the recording must have about what it cannot show: the sensor's name, and words of
    /// what it cannot see.
    pub not_covered: &'static [(&'static str, &'static str)],
    /// TCP connections that are recorded, minus those that the kernel counts as opened
    /// (`TcpActiveOpens`), and why they are not as many.
    pub beyond_opens: Option<(i64, &'static str)>,
    /// What a claim that the tree connects to nobody here ends as.
    pub claim: Ruling,
    /// What the traced command exits with.
    pub exit: i32,
}

impl Row {
    /// What a row has unless it says otherwise.
    const PLAIN: Row = Row {
        name: "",
        before: "",
        outside: "",
        caller: "exec \"$@\"",
        traced: "",
        shown: &[],
        not_covered: &[],
        beyond_opens: None,
        claim: Ruling::Violated,
        exit: 0,
    };

    /// Its shell text in one line, for people.
    pub fn text(&self) -> String {
        let caller = if self.caller == Row::PLAIN.caller { "" } else { self.caller };
        let parts = [
            ("before: ", self.before),
            ("outside: ", self.outside),
            ("caller of tracer: ", caller),
        ];
        let parts: Vec<String> = parts
            .iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(what, text)| format!("{what}{text}"))
            .collect();
        match parts.as_slice() {
            [] => self.traced.into(),
            some => format!("{} / traced: {}", some.join(" / "), self.traced),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_row_demands_something() {
        let mut names: Vec<&str> = rows().map(|row| row.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        for row in rows() {
            assert!(!(row.shown.is_empty() && row.not_covered.is_empty()), "{}", row.name);
            assert!(!row.name.contains('|') && !row.traced.is_empty(), "{}", row.name);
        }
    }
}
