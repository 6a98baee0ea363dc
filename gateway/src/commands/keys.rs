//! `gateway keys issue|list|revoke`.

use std::path::PathBuf;

use anyhow::{Context as _, Error, Result, bail, ensure};
use jiff::Timestamp;

use super::{now_us, told};
use crate::cli::{Format, Issue, Keys as Command, KeysFile, List, Revoke};
use crate::config::{self, parse_duration};
use crate::keys::{Allow, KeyEntry, KeyRequest, Keys, issue, revoke, update};
use crate::{output, user};

pub(super) fn run(command: Command) -> Result<()> {
    match command {
        Command::Issue(args) => run_issue(*args),
        Command::List(args) => run_list(&args),
        Command::Revoke(args) => run_revoke(&args),
    }
}

fn path_of(place: KeysFile) -> Result<PathBuf> {
    match (place.file, place.config) {
        (Some(file), _) => Ok(file),
        (None, Some(config)) => config::keys_path(&config).map_err(|problems| told(&config, &problems)),
        (None, None) => bail!("wanted `--file` or `--config`"),
    }
}

fn run_issue(args: Issue) -> Result<()> {
    let now = now_us();
    let expires = args.expires.as_deref().map(|text| end(text, now)).transpose()?;
    let path = path_of(args.place)?;
    let mut allow = Allow::default();
    for (option, listed, typed) in [
        ("--allow-model", &mut allow.models, &args.allow_model),
        ("--allow-provider", &mut allow.providers, &args.allow_provider),
        ("--allow-route", &mut allow.routes, &args.allow_route),
    ] {
        for text in typed {
            ensure!(
                listed.add(text),
                "`{option} {text}`: wanted a pattern of 1 to 256 characters without spaces"
            );
        }
    }
    let request = KeyRequest {
        id: args.id,
        consumer: Some(args.consumer),
        team: args.team,
        organisation: args.organisation,
        cost_centre: args.cost_centre,
        system: args.system,
        purpose: args.purpose,
        data_class: args.data_class,
        groups: args.group,
        allow,
        expires,
        by: user::own(),
    };
    let issued = update(&path, |keys| issue(keys, request, now).map_err(Error::from))?;
    output::note(format_args!("key `{}` is in `{}`; it is shown this once:", issued.id, path.display()));
    output::line(issued.key.as_str());
    Ok(())
}

/// A time, or a duration from now.
fn end(text: &str, now_us: i64) -> Result<i64> {
    if let Some(duration) = parse_duration(text) {
        if duration.is_zero() {
            bail!("`--expires {text}`: wanted a duration above zero, as `90d`");
        }
        let us = i64::try_from(duration.as_micros()).context("a duration of at most 10 years")?;
        return Ok(now_us.saturating_add(us));
    }
    let time: Timestamp = text.parse().with_context(|| {
        format!("`--expires {text}`: wanted a time as `2027-01-01T00:00:00Z` or a duration as `90d`")
    })?;
    if time.as_microsecond() <= now_us {
        bail!("`--expires {text}`: wanted a time to come");
    }
    Ok(time.as_microsecond())
}

fn state(entry: &KeyEntry, now: i64) -> &'static str {
    match entry {
        entry if entry.is_revoked(now) => "revoked",
        KeyEntry { expires: Some(at), .. } if *at <= now => "expired",
        _ => "valid",
    }
}

fn run_list(args: &List) -> Result<()> {
    let place = KeysFile { file: args.place.file.clone(), config: args.place.config.clone() };
    let path = path_of(place)?;
    let bytes = std::fs::read(&path).with_context(|| format!("`{}` could not be read", path.display()))?;
    let keys = Keys::parse(&bytes).map_err(|problems| told(&path, &problems))?;
    let now = now_us();
    if args.format == Format::Json {
        for entry in keys.entries() {
            let mut value = serde_json::to_value(entry)?;
            if let Some(map) = value.as_object_mut() {
                map.remove("sha256");
                map.insert("state".into(), state(entry, now).into());
            }
            output::line(value);
        }
        return Ok(());
    }
    output::line(format_args!(
        "{:<16} {:<8} {:<20} {:<20} {:<16} created",
        "id", "state", "consumer", "team", "system"
    ));
    for entry in keys.entries() {
        let text =
            |value: &Option<schemas::Identifier>| value.as_ref().map_or("-", |v| v.as_str()).to_owned();
        let created = Timestamp::from_microsecond(entry.created)?.strftime("%Y-%m-%d");
        output::line(format_args!(
            "{:<16} {:<8} {:<20} {:<20} {:<16} {created}",
            entry.id.as_str(),
            state(entry, now),
            entry.consumer.as_str(),
            text(&entry.team),
            text(&entry.system)
        ));
    }
    Ok(())
}

fn run_revoke(args: &Revoke) -> Result<()> {
    let place = KeysFile { file: args.place.file.clone(), config: args.place.config.clone() };
    let path = path_of(place)?;
    let entry = update(&path, |keys| revoke(keys, &args.id, now_us(), user::own()).map_err(Error::from))?;
    output::line(format_args!("key `{}` of `{}` is revoked", entry.id, entry.consumer));
    Ok(())
}
