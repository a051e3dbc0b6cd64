//! The table of tricks by which a process tree may run a forbidden program unnoticed, and what each
//! must end as. One definition, for the tests and for the printed table.
//!
//! A row is shell text, as an agent would write it. Variables stand for what differs: `$PROGRAM` is
//! the program's file, `$NAME` its name on PATH, `$ODD` the folder of compiled odd programs,
//! `$PYTHON` a Python that has the module `awscli`, `$RAN` a file that the stand-in leaves its
//! process id in. All of it works in one new folder.

mod disguises;
mod escapes;
pub mod peers;
mod stage;
pub mod table;
mod tracer;

pub(crate) use self::stage::debian_tools;
pub(crate) use self::stage::{Cgroups, UNSUPPORTED, odd_programs};
pub use self::{
    stage::{Stage, tools},
    tracer::{Ruling, Trial, trial},
};

/// All rows, disguises first.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    disguises::ROWS.iter().chain(escapes::ROWS)
}

/// One trick.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Tells the row from all others.
    pub name: &'static str,
    pub list: List,
    /// What happens before tracing starts.
    pub before: &'static str,
    /// A process that runs outside the traced tree meanwhile. It makes the file `ready` when it is.
    pub outside: &'static str,
    /// What is traced.
    pub traced: &'static str,
    /// With the compiled stand-in named `aws`.
    pub stand_in: Option<Demand>,
    /// With the AWS CLI, a Python program.
    pub aws_cli: Option<Demand>,
    /// With another program than the stand-in, under another name.
    pub control: Control,
    /// Programs that a machine may lack.
    pub needs: &'static [&'static str],
    /// In mount and network namespaces of its own, with a network of loopback only.
    pub private: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// The program looks like another one.
    Disguise,
    /// The program is run by a process that looks like none of the tree's.
    Escape,
}

/// What a row must end as, and words of one reason for it.
#[derive(Clone, Copy, Debug)]
pub enum Demand {
    Violated(&'static str),
    Inconclusive(&'static str),
    /// Violated, or inconclusive for this reason: it depends on what runs first.
    Caught(&'static str),
}

/// What the same trick must end as with a program that nothing forbids.
#[derive(Clone, Copy, Debug)]
pub enum Control {
    Proven,
    /// The trick itself leaves something unseen; words of the reason.
    Inconclusive(&'static str),
    /// The trick is about this one program.
    None,
}

/// The program that a trick runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    StandIn,
    AwsCli,
    Harmless,
}

impl Program {
    /// On PATH.
    fn name(self) -> &'static str {
        match self {
            Program::StandIn | Program::AwsCli => "aws",
            Program::Harmless => "harmless",
        }
    }
}

impl Row {
    /// What a row has unless it says otherwise.
    const DISGUISE: Row = Row {
        name: "",
        list: List::Disguise,
        before: "",
        outside: "",
        traced: "",
        stand_in: Some(Demand::Violated("runs aws")),
        aws_cli: Some(Demand::Violated("runs aws")),
        control: Control::Proven,
        needs: &[],
        private: false,
    };
    /// The program is the real one, under its own name.
    const ESCAPE: Row = Row { list: List::Escape, aws_cli: None, ..Row::DISGUISE };

    /// The programs it is tried with, and what it must end as.
    pub fn cases(&self) -> impl Iterator<Item = (Program, Expected)> {
        let forbidden = |demand: Demand| match demand {
            Demand::Violated(words) => Expected { rulings: &[Ruling::Violated], words },
            Demand::Inconclusive(words) => Expected { rulings: &[Ruling::Inconclusive], words },
            Demand::Caught(words) => {
                Expected { rulings: &[Ruling::Violated, Ruling::Inconclusive], words }
            }
        };
        let control = match self.control {
            Control::Proven => Some(Expected { rulings: &[Ruling::Proven], words: "" }),
            Control::Inconclusive(words) => {
                Some(Expected { rulings: &[Ruling::Inconclusive], words })
            }
            Control::None => None,
        };
        [
            (Program::StandIn, self.stand_in.map(forbidden)),
            (Program::AwsCli, self.aws_cli.map(forbidden)),
            (Program::Harmless, control),
        ]
        .into_iter()
        .filter_map(|(program, expected)| Some((program, expected?)))
    }

    /// Its shell text in one line, for people.
    pub fn text(&self) -> String {
        let parts = [
            (self.before, ""),
            (self.outside, "outside: "),
            (
                self.traced,
                if self.before.is_empty() && self.outside.is_empty() { "" } else { "traced: " },
            ),
        ];
        let shown = parts.iter().filter(|(text, _)| !text.is_empty());
        let one_line = |text: &str| {
            text.lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .collect::<Vec<_>>()
                .join("; ")
        };
        shown
            .map(|(text, what)| format!("{what}{}", one_line(text)))
            .collect::<Vec<_>>()
            .join(" / ")
    }
}

/// Rulings of which one must come, and words of one of its reasons.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    pub rulings: &'static [Ruling],
    pub words: &'static str,
}

impl Expected {
    /// For people.
    pub fn name(&self) -> String {
        self.rulings.iter().map(|ruling| ruling.name()).collect::<Vec<_>>().join(" or ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_row_is_tried() {
        let mut names: Vec<&str> = rows().map(|row| row.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        for row in rows() {
            assert!(row.cases().any(|(program, _)| program != Program::Harmless), "{}", row.name);
            assert!(!row.name.contains('|') && !row.traced.is_empty(), "{}", row.name);
        }
    }
}
