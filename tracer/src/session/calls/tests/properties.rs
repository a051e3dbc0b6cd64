//! Conversations in any pieces, and hostile ones.

use proptest::prelude::*;

use super::{
    super::{made::*, *},
    GET, calls, said,
};

/// A talk of both versions, with all requests before their responses or one after the other.
fn talk_of(plans: &[Plan], http2: bool, at_once: bool) -> Talk {
    let mut ends = Ends::new();
    let mut talk = if http2 { preface() } else { Vec::new() };
    let (mut later, mut stream) = (Vec::new(), 1);
    for plan in plans {
        let [request, response] =
            if http2 { plan.http2(stream, &mut ends) } else { plan.http1().map(|part| vec![part]) };
        stream += 2;
        talk.extend(request);
        if at_once { later.extend(response) } else { talk.extend(response) }
    }
    talk.extend(later);
    talk
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn calls_do_not_depend_on_the_pieces(
        plans in prop::collection::vec(plan(), 1..6),
        http2: bool,
        at_once: bool,
        sizes in prop::collection::vec(prop_oneof![1..4usize, 5..40usize, 500..5000usize], 1..20),
    ) {
        let talk = talk_of(&plans, http2, at_once);
        let expected: Vec<String> = plans.iter().map(Plan::expected).collect();
        prop_assert_eq!(&calls(&talk), &expected);
        prop_assert_eq!(&calls(&chunked(&talk, &sizes)), &expected);
        let turned: Talk =
            talk.iter().map(|(direction, bytes)| (direction.other(), bytes.clone())).collect();
        let served: Vec<String> = expected.iter().map(|call| format!("served {call}")).collect();
        prop_assert_eq!(&calls(&chunked(&turned, &sizes)), &served);
    }

    #[test]
    fn nothing_that_is_wrong_in_a_talk_panics(
        plans in prop::collection::vec(plan(), 1..4),
        http2: bool,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        sizes in prop::collection::vec(1..300usize, 1..9),
        captured in prop::collection::vec(0..300usize, 1..9),
        lost in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
    ) {
        let mut talk = chunked(&talk_of(&plans, http2, true), &sizes);
        for (at, byte) in changes {
            let (_, bytes) = at.get(&talk).clone();
            let piece = at.index(talk.len());
            let place = at.index(bytes.len());
            talk[piece].1[place] = byte;
        }
        let gone: Vec<usize> = lost.iter().map(|at| at.index(talk.len())).collect();
        let mut feed = Feed::new(true);
        let mut captured = captured.iter().cycle();
        for (number, (direction, bytes)) in talk.iter().enumerate() {
            if gone.contains(&number) {
                feed.lose(*direction, bytes.len() as u64);
            } else {
                feed.cut(*direction, bytes, bytes.len().min(40 + captured.next().unwrap()));
            }
        }
        prop_assert!(feed.calls.held_bytes < 4 << 20);
        let records = feed.close();
        // No call is made up.
        let made = records.iter().filter(|record| matches!(record, Record::Call(_))).count();
        prop_assert!(made <= 2 * plans.len() + 4, "{:?}", said(&records));
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(
        pieces in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)), 0..20),
        begin in prop::sample::select(vec!["", GET, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"]),
    ) {
        let mut feed = Feed::new(true);
        feed.add(Direction::Sent, begin.as_bytes());
        for (out, bytes) in pieces {
            let direction = if out { Direction::Sent } else { Direction::Received };
            feed.add(direction, &bytes);
        }
        prop_assert!(feed.calls.held_bytes < 4 << 20);
        feed.close();
    }
}
