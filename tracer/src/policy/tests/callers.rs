//! The second leg of a claim that a program never runs.

use super::{
    connections::{DNS, SNI, contact, ruling_by},
    *,
};
use crate::policy::{contacts::Contact, file::parse};

const STS: &str = "sts.us-east-1.amazonaws.com";

fn of_child(names: &[(&str, crate::session::NameSource)]) -> Contact {
    contact("192.0.2.1:443", names)
}

/// The ruling on a child that runs this and calls somebody.
fn called(child: Record, contact: Contact) -> (Ruling, String) {
    ruling_by(&load("no-aws-cli").unwrap(), &[child], &[contact], |_, _| {})
}

#[test]
fn a_call_of_aws_by_another_program_is_a_reason() {
    let sure = || of_child(&[(STS, SNI), (STS, DNS)]);
    let words = "git (pid 11): it called sts.us-east-1.amazonaws.com";
    check(called(git(), sure()), Ruling::Inconclusive, words);
    check(called(git(), sure()), Ruling::Inconclusive, "as a changed copy of aws would have to");
    check(called(git(), sure()), Ruling::Inconclusive, "`sdk-users` does not name its program");
    // Any source will do, and so will an attempt.
    check(called(git(), of_child(&[(STS, DNS)])), Ruling::Inconclusive, words);
    check(called(git(), of_child(&[(STS, SNI)])), Ruling::Inconclusive, words);
    let failed = Contact { spoken: false, ..of_child(&[(STS, DNS)]) };
    check(called(git(), failed), Ruling::Inconclusive, words);
    let shared = of_child(&[("github.com", SNI), ("github.com", DNS), (STS, DNS)]);
    check(called(git(), shared), Ruling::Inconclusive, words);
    check(called(git(), of_child(&[("github.com", SNI)])), Ruling::Proven, "");
    check(called(git(), of_child(&[("evil-amazonaws.com", SNI)])), Ruling::Proven, "");
    check(called(git(), of_child(&[])), Ruling::Proven, "");
}

#[test]
fn a_name_that_is_hidden_may_be_any() {
    let hidden = |names| Contact { hides_name: true, ..of_child(names) };
    check(called(git(), hidden(&[])), Ruling::Inconclusive, "whose name it hides");
    check(called(git(), hidden(&[("front.example", SNI)])), Ruling::Inconclusive, "it hides");
    check(called(git(), hidden(&[("github.com", DNS)])), Ruling::Proven, "");
}

#[test]
fn metadata_and_dns_are_no_calls_of_an_api() {
    let metadata = contact("169.254.169.254:80", &[("169.254.169.254", SNI)]);
    check(called(git(), metadata), Ruling::Proven, "");
    let dns = Contact { is_dns: true, ..of_child(&[(STS, DNS)]) };
    check(called(git(), dns), Ruling::Proven, "");
}

#[test]
fn the_commands_own_program_may_call() {
    let sure = || of_child(&[(STS, SNI), (STS, DNS)]);
    let own = |argv: &[&str]| exec(CHILD, "/usr/bin/node", 1, argv);
    check(called(own(&["node"]), sure()), Ruling::Proven, "");
    check(called(git(), Contact { process: ROOT, ..sure() }), Ruling::Proven, "");
    // Another script is another program, and so is code.
    check(called(own(&["node", "other.js"]), sure()), Ruling::Inconclusive, "called");
    check(called(own(&["node", "-e", "1"]), sure()), Ruling::Inconclusive, "called");
    check(called(own(&["node", "--require=x", "o.js"]), sure()), Ruling::Inconclusive, "called");
    // So is another file of that name.
    check(called(exec(CHILD, "/opt/node", 9, &["node"]), sure()), Ruling::Inconclusive, "called");
}

#[test]
fn an_interpreter_is_the_commands_program_with_the_same_script_only() {
    let judged = |own: &[&str], child: &[&str]| {
        let policy = load("no-aws-cli").unwrap();
        let mut records = events(&[exec(CHILD, "/usr/bin/python3", 1, child)]);
        records[1] = exec(ROOT, "/usr/bin/python3", 1, own);
        let end = good_end(&records);
        let mut story = Story::new(start(&policy));
        for record in records.into_iter().chain([Record::End(Box::new(end))]) {
            story.add(record);
        }
        let contacts = [of_child(&[(STS, SNI)])];
        let verdict = crate::policy::verdict::judge_with(&story, &[policy], &contacts);
        verdict.unwrap().overall
    };
    let same = |own: &[&str], child: &[&str]| assert_eq!(judged(own, child), Ruling::Proven);
    let other = |own: &[&str], child: &[&str]| assert_eq!(judged(own, child), Ruling::Inconclusive);
    same(&["python3", "a.py", "1"], &["python3", "a.py", "2"]);
    same(&["python3", "-m", "agent"], &["python3", "-m", "agent"]);
    other(&["python3", "a.py"], &["python3", "b.py"]);
    other(&["python3", "a.py"], &["python3", "-u", "a.py"]);
    // `-W` takes the next word, so which one is the script cannot be told.
    other(&["python3", "-W", "x", "a.py"], &["python3", "-W", "x", "b.py"]);
    other(&["python3", "-m", "agent"], &["python3", "-m", "other"]);
    other(&["python3", "-c", "a"], &["python3", "-c", "b"]);
}

#[test]
fn the_policy_names_who_may_call() {
    let judged = |users: &str, known: bool| {
        let text = format!(
            "name = 'x'\n[[claim]]\nkind = 'never-runs'\nprograms = ['aws']\nsdk-users = [{users}]"
        );
        let policy = parse(&text, "x.toml").unwrap();
        let git_is_known = |start: &mut Start, _: &mut End| {
            if known {
                let copy = known_copy("/usr/bin/git", file(2));
                start.known_programs.insert("git".into(), vec![copy]);
            }
        };
        ruling_by(&policy, &[git()], &[of_child(&[(STS, SNI)])], git_is_known)
    };
    check(judged("'@command', 'git'", true), Ruling::Proven, "");
    check(judged("'git'", false), Ruling::Inconclusive, "called");
    check(judged("'@any'", false), Ruling::Proven, "");
    check(judged("", false), Ruling::Inconclusive, "called");
}

#[test]
fn recordings_without_names_have_no_second_leg() {
    let old = |start: &mut Start, _: &mut End| start.schema = 2;
    let policy = load("no-aws-cli").unwrap();
    let contacts = [of_child(&[(STS, SNI)])];
    check(ruling_by(&policy, &[git()], &contacts, old), Ruling::Proven, "");
}

#[test]
fn contacts_are_kept_where_a_claim_asks_for_them_only() {
    let connect = || {
        Record::Connect(Connect {
            t_ns: 6,
            process: CHILD,
            thread: CHILD.pid,
            connection: 1,
            cookie: None,
            destination: None,
            net_ns_inum: 1,
            unread: Vec::new(),
        })
    };
    let kept = |policy: &str| {
        let mut story = Story::for_verdict(start(&load(policy).unwrap()));
        for record in events(&[git(), connect()]) {
            story.add(record);
        }
        story.connections.len()
    };
    assert_eq!((kept("no-aws-cli"), kept("no-shell-outs")), (1, 0));
}

#[test]
fn a_child_that_executes_nothing_runs_what_its_parent_does() {
    let mut story = Story::new(start(&load("no-aws-cli").unwrap()));
    let mut records = events(&[git()]);
    let Record::Exec(first) = &mut records[1] else { unreachable!() };
    first.t_ns = 1;
    records.into_iter().for_each(|record| story.add(record));
    let image = |process, t_ns| {
        let exec = story.image(process, t_ns)?;
        Some(exec.filename.as_ref()?.lossy().into_owned())
    };
    assert_eq!(image(CHILD, 4).as_deref(), Some("/usr/bin/node"));
    assert_eq!(image(CHILD, 5).as_deref(), Some("/usr/bin/git"));
    assert_eq!(image(ROOT, 0), None);
}
