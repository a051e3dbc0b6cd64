//! `tracer policy`.

use std::path::PathBuf;

use tracer::{
    catalogue::Catalogue,
    cli::{self, exit},
    policy,
};

pub(crate) fn policies(arguments: &cli::Policy) -> anyhow::Result<u8> {
    match arguments {
        cli::Policy::List => {
            for (name, _) in policy::built_ins() {
                crate::put(&format!("{name:<16} {}\n", policy::load(name)?.description))?;
            }
        }
        cli::Policy::Show { name } => {
            let Some(text) = policy::built_in(name) else {
                tracer::notice(format_args!(
                    "there is no built-in policy `{name}`; `tracer policy list` shows them"
                ));
                return Ok(exit::USAGE);
            };
            crate::put(text)?;
        }
        cli::Policy::Check { file, endpoints, catalogue } => {
            match check(file.as_deref(), endpoints, &catalogue.files) {
                Ok(findings) => crate::put(&findings)?,
                Err(error) => {
                    tracer::notice(error);
                    return Ok(exit::USAGE);
                }
            }
        }
    }
    Ok(exit::PROVEN)
}

/// What a valid policy means or, where endpoints are asked about, what it says of those.
fn check(
    file: Option<&str>,
    endpoints: &[String],
    catalogue: &[PathBuf],
) -> anyhow::Result<String> {
    let names: Vec<String> = file.map(str::to_owned).into_iter().collect();
    let (policies, catalogue) = crate::load_names(&names, catalogue)?;
    if endpoints.is_empty() {
        return Ok(policies.iter().map(|policy| explain(policy, &names, &catalogue)).collect());
    }
    let explained = endpoints.iter().map(|endpoint| {
        policy::explain_endpoint(endpoint, &policies, &catalogue).map_err(anyhow::Error::msg)
    });
    explained.collect()
}

fn explain(policy: &policy::Policy, names: &[String], catalogue: &Catalogue) -> String {
    let (name, claims) = (names.join(""), policy.claims.len());
    format!("{name}: valid, {claims} claim(s)\n{}", policy::explain(policy, catalogue))
}
