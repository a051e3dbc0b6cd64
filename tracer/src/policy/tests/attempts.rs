//! Execs that failed.

use super::*;

pub(super) fn attempt(filenames: &[&str], argv: &[&str]) -> Record {
    Record::Attempt(Attempt {
        t_ns: 4,
        last_t_ns: 4,
        process: CHILD,
        thread: CHILD.pid,
        filenames: filenames.iter().map(|name| Bytes::from(*name)).collect(),
        filename_cut: false,
        argv: argv.iter().map(|arg| Bytes::from(*arg)).collect(),
        argv_complete: true,
        tries: 1,
        errno: 2,
        error: "ENOENT".into(),
        unread: Vec::new(),
    })
}

#[test]
fn a_failed_exec_violates_where_the_policy_says_so() {
    let tried = attempt(&["/usr/local/bin/aws", "/bin/aws"], &["aws", "s3", "ls"]);
    let words =
        "tried to run aws: /usr/local/bin/aws and 1 more names could not be executed: ENOENT";
    check(ruling("no-aws-cli", std::slice::from_ref(&tried), |_, _| {}), Ruling::Violated, words);
    let other = attempt(&["/bin/git"], &["git"]);
    check(ruling("no-aws-cli", std::slice::from_ref(&other), |_, _| {}), Ruling::Proven, "");
    let renamed = attempt(&["/bin/git"], &["aws"]);
    check(ruling("no-aws-cli", &[renamed], |_, _| {}), Ruling::Violated, "tried to run aws");
    check(ruling("no-shell-outs", &[other], |_, _| {}), Ruling::Violated, "not listed");
    let own = attempt(&["/opt/node"], &["node"]);
    check(ruling("no-shell-outs", &[own], |_, _| {}), Ruling::Proven, "");
}

#[test]
fn a_search_along_path_that_found_the_program_is_no_attempt() {
    let search = attempt(&["/usr/local/bin/git"], &["git", "status"]);
    let found = [search, git()];
    check(ruling("no-aws-cli", &found, |_, _| {}), Ruling::Proven, "");
    // What it found is judged, and what it had tried is not counted on top.
    check(ruling("no-shell-outs", &found, |_, _| {}), Ruling::Violated, "runs /usr/bin/git");
}

#[test]
fn failed_execs_that_could_not_be_watched_are_a_reason() {
    let unwatched = |start: &mut Start, _: &mut End| start.sensors.clear();
    check(ruling("no-aws-cli", &[git()], unwatched), Ruling::Inconclusive, "were not watched");
    let missing =
        |start: &mut Start, _: &mut End| start.sensors[0].missing = Some("no hook".into());
    check(ruling("no-aws-cli", &[git()], missing), Ruling::Inconclusive, "watched: no hook");
}

#[test]
fn an_exec_of_an_open_file_has_no_name() {
    let nameless = |unread: &[&str]| {
        let Record::Attempt(mut attempt) = attempt(&[], &["x"]) else { unreachable!() };
        attempt.unread = unread.iter().map(|field| (*field).to_owned()).collect();
        ruling("no-aws-cli", &[Record::Attempt(attempt)], |_, _| {})
    };
    check(nameless(&[]), Ruling::Inconclusive, "an open file (fexecve), or an empty name");
    check(nameless(&["filename"]), Ruling::Inconclusive, "could not read all of the name");
}

#[test]
fn an_allowed_attempt_is_listed_and_does_not_violate() {
    let mut policy = load("no-aws-cli").unwrap();
    policy.claims[0].allow =
        vec![crate::policy::AllowedExec { argv: vec!["aws".into(), "--version".into()] }];
    let records = events(&[attempt(&["/bin/aws"], &["aws", "--version"])]);
    let end = good_end(&records);
    let mut story = Story::new(start(&policy));
    for record in records.into_iter().chain([Record::End(Box::new(end))]) {
        story.add(record);
    }
    let verdict = judge(&story, std::slice::from_ref(&policy)).unwrap();
    assert_eq!(verdict.overall, Ruling::Proven, "{:?}", verdict.claims);
    assert_eq!(verdict.claims[0].allowed.len(), 1);
}
