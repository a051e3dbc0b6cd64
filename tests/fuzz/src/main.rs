//! libFuzzer over the targets of tracer's property tests. One program for all of them, so that it is
//! linked once: `TRACER_FUZZ_TARGET` names the one.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

#[path = "../../../tracer/tests/inputs/targets/mod.rs"]
mod targets;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("TRACER_FUZZ_TARGET").unwrap_or_default();
    let target = targets::TARGETS.iter().find(|(known, _)| *known == name);
    let Some((_, target)) = target else {
        let names: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
        eprintln!("TRACER_FUZZ_TARGET is `{name}`, and not one of {}", names.join(", "));
        std::process::exit(2);
    };
    *target
});

fuzz_target!(|bytes: &[u8]| {
    TARGET(bytes);
});
