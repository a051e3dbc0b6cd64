//! `tracer attach`.

use std::io::{self, Write as _};

use tracer::{
    cli::{self, exit},
    policy, probe,
    record::Existing,
    report::{self, Detail, Paint},
    run::{self, CallingUser, Join, Settings, Target},
};

use crate::{
    Unused, complain, load_for, on_error, open_output, probe_options, ruling_code, start_broker,
    start_sender,
};

pub(crate) fn attach(arguments: cli::Attach) -> anyhow::Result<u8> {
    let user = CallingUser::from_environment().map_err(anyhow::Error::msg)?;
    let names = load_for(user.as_ref(), &arguments.policies, &arguments.catalogue.files);
    let (policies, catalogue) = match names {
        Ok(loaded) => loaded,
        Err(error) => {
            complain(&error.to_string());
            return Ok(exit::USAGE);
        }
    };
    let probes = probe::Options {
        attempts: arguments.attempts || policies.iter().any(policy::Policy::counts_attempts),
        resolver: policies.iter().any(policy::Policy::judges_names),
        http: arguments.http,
        hand_offs: !policies.is_empty(),
        debuggers: policies.iter().any(policy::Policy::forbids_debuggers),
        ..probe_options(&arguments.debug)
    };
    let target = target(arguments.target);
    // An earlier recording is not to be emptied for nothing.
    target.check()?;
    let existing = Existing::forced(arguments.force);
    let broker = start_broker(&[], user.as_ref(), arguments.output.as_deref(), existing)?;
    let sender = arguments.writing.otlp_endpoint.map(start_sender).transpose()?;
    let unused = Unused::of(arguments.output.as_deref(), user.as_ref());
    let output = arguments
        .output
        .as_deref()
        .map(|path| open_output(path, existing, user.as_ref(), arguments.writing.rotate, &broker))
        .transpose()?;
    let settings = Settings {
        broker: broker.clone(),
        command: Vec::new(),
        policies,
        catalogue,
        output,
        part_bytes: arguments.writing.rotate,
        on_error: on_error(arguments.writing.on_error),
        sender,
        probes,
        http_fields: arguments.http_fields,
        linger: std::time::Duration::ZERO,
        summary: !arguments.quiet,
        progress: false,
    };
    let join = Join { target, duration: arguments.duration, from_arming: arguments.from_arming };
    let finished = run::attach(settings, join);
    broker.finish();
    let finished = finished.inspect_err(|_| unused.remove())?;
    if !arguments.quiet {
        let detail = if arguments.verbose { Detail::Full } else { Detail::Summary };
        let paint = Paint::for_stream(&io::stderr());
        let summary = report::text(&finished.story, finished.verdict.as_ref(), detail, paint);
        // With nobody reading standard error there is nobody to tell.
        let _ = io::stderr().write_all(summary.as_bytes());
    }
    crate::say_what_was_delivered(finished.delivery.as_ref(), arguments.quiet);
    if let Some(error) = &finished.write_error {
        crate::say_cut_short(error);
        return Ok(exit::TRACER_FAILED);
    }
    Ok(finished.verdict.map_or(exit::PROVEN, |verdict| ruling_code(verdict.overall)))
}

/// Exactly one is given.
fn target(target: cli::AttachTarget) -> Target {
    let cli::AttachTarget { pid, cgroup, container, pod, host: _ } = target;
    pid.map(Target::Pid)
        .or_else(|| cgroup.map(Target::Cgroup))
        .or_else(|| container.map(Target::Container))
        .or_else(|| pod.map(Target::Pod))
        .unwrap_or(Target::Host)
}
