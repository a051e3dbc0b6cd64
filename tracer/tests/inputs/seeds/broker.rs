//! Messages between tracer and its broker.

use super::{pieces, spoken};

/// What tracer asks its broker for, and what that says.
pub(super) fn broker_messages() -> Vec<(&'static str, Vec<u8>)> {
    let packets = |packets: &[(u8, &str)]| {
        pieces(packets.iter().map(|(beside, text)| spoken(*beside, text.as_bytes())))
    };
    let requests = [
        (0, r#"{"descriptors":0,"body":{"MakeCgroup":{"below":null}}}"#),
        (1, r#"{"descriptors":1,"body":"Canary"}"#),
        (
            1,
            r#"{"descriptors":1,"body":{"Launch":{"counts_execs":true,"maps_bytes":4096,"maps_at_once":false}}}"#,
        ),
        (0, r#"{"descriptors":0,"body":{"Ended":{"child":1}}}"#),
        (0, r#"{"descriptors":0,"body":{"Signal":{"child":1,"signal":-15}}}"#),
        (0, r#"{"descriptors":0,"body":{"Part":{"number":4294967295}}}"#),
        (0, r#"{"descriptors":0,"body":{"Open":{"path":"/etc/hosts"}}}"#),
        (1, r#"{"descriptors":1,"body":"Read"}"#),
        (
            2,
            r#"{"descriptors":2,"body":{"Break":{"offsets":[0,18446744073709551615],"cookie":1,"at_return":true,"together":false}}}"#,
        ),
        (2, r#"{"descriptors":2,"body":{"Mark":{"mask":134217728}}}"#),
        (0, r#"{"descriptors":0,"body":"Finish"}"#),
    ];
    let replies = [
        (0, r#"{"descriptors":0,"body":"Done"}"#),
        (0, r#"{"descriptors":0,"body":{"Cgroup":{"path":"/sys/fs/cgroup/a"}}}"#),
        (
            3,
            r#"{"descriptors":3,"body":{"Started":{"child":0,"witness":{"Ok":null},"maps":{"Err":"none"}}}}"#,
        ),
        (
            0,
            r#"{"descriptors":0,"body":{"NotStarted":{"NotStarted":{"errno":13,"why":"denied"}}}}"#,
        ),
        (0, r#"{"descriptors":0,"body":{"Ended":{"status":256}}}"#),
        (1, r#"{"descriptors":1,"body":"Opened"}"#),
        (0, r#"{"descriptors":0,"body":{"Failed":{"errno":null,"why":"\u001b[2J"}}}"#),
    ];
    vec![
        ("requests", packets(&requests)),
        ("replies", packets(&replies)),
        (
            "in-several-packets",
            packets(&[(7, r#"{"descriptors":12,"body":"CloseLater"}"#), (0, "+"), (5, "+")]),
        ),
        ("never-all", packets(&[(1, r#"{"descriptors":16384,"body":"CloseLater"}"#), (7, "+")])),
        ("too-many", packets(&[(1, r#"{"descriptors":16385,"body":"CloseLater"}"#)])),
        ("empty", packets(&[(0, ""), (0, r#"{"descriptors":0,"body":"Finish"}"#)])),
    ]
}
