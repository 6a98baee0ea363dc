//! `auditor assess`: verify what is new, then ask the controls of packs; `auditor pack`: look at packs.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::SessionContext;

use super::evidence::{self, Opened};
use super::{out, query};
use crate::assess::pack::{Loaded, Pack};
use crate::assess::register::{self, Given};
use crate::assess::rows::kind_name;
use crate::assess::run::Asked;
use crate::assess::tables::{Proven, Shown};
use crate::assess::{Assessment, cases, fact, packs, render, run as assessing};
use crate::cli::{Answer, AnswerFormat, Asking, Assess, AssessFormat, PackCommand};
use crate::render::{hostile, json};
use crate::report::Report;

/// Runs the command.
///
/// # Errors
/// Evidence, a pack or a register that cannot be used, an output that cannot be written.
pub fn run(typed: &Assess) -> anyhow::Result<u8> {
    let questions = Questions::read(&typed.pack, &typed.asking)?;
    let opened = evidence::open_settled(&typed.evidence)?;
    let (_, assessment) = assess(&opened, &questions.asked(), questions.memory, async |_, _| Ok(()))?;
    let text = match typed.format {
        AssessFormat::Text => render::text(&assessment),
        AssessFormat::Json => render::json_text(&assessment)?,
        AssessFormat::Csv => render::csv_text(&assessment)?,
    };
    match &typed.out {
        Some(path) => std::fs::write(path, text).with_context(|| format!("`{}`", path.display()))?,
        None => out(&text)?,
    }
    Ok(assessment.exit_code)
}

/// What was typed about packs, read and checked before anything is verified.
pub(crate) struct Questions {
    packs: Vec<Loaded>,
    registers: Vec<Given>,
    settings: Vec<(String, String)>,
    only: Vec<String>,
    exceptions: Option<PathBuf>,
    pub(super) memory: usize,
}

impl Questions {
    /// Reads packs and registers.
    pub(crate) fn read(pack: &[String], asking: &Asking) -> anyhow::Result<Self> {
        let Asking { register, set, control, exceptions, memory } = asking;
        let packs = packs::read(pack)?;
        let chosen: Vec<&Pack> = packs.iter().map(|loaded| &loaded.pack).collect();
        let registers: Vec<Given> =
            register.iter().map(|register| Given::read(register)).collect::<anyhow::Result<_>>()?;
        register::check(&registers, &chosen)?;
        // Before anything is verified: a register of another form is known at once.
        for (pack, given) in chosen.iter().flat_map(|pack| registers.iter().map(move |given| (pack, given))) {
            if let Some(wanted) = pack.registers.get(&given.name) {
                given.rows(wanted).map_err(anyhow::Error::msg)?;
            }
        }
        let settings = settings(set, &chosen)?;
        controls(control, &chosen)?;
        let (only, exceptions, memory) = (control.clone(), exceptions.clone(), *memory);
        Ok(Self { packs, registers, settings, only, exceptions, memory })
    }

    /// What is asked then.
    pub(crate) fn asked(&self) -> Asked<'_> {
        Asked {
            packs: &self.packs,
            registers: &self.registers,
            settings: &self.settings,
            only: &self.only,
            exceptions_file: self.exceptions.clone(),
        }
    }
}

/// Verifies what was opened as far as it is settled, asks the controls, and then what `more` asks of the same rows.
pub(super) fn assess(
    opened: &Opened,
    asked: &Asked<'_>,
    memory: usize,
    more: impl AsyncFnOnce(&SessionContext, &Assessment) -> anyhow::Result<()>,
) -> anyhow::Result<(Report, Assessment)> {
    let mut list = asked.exceptions_file.as_deref().map(Exceptions::create).transpose()?;
    let (report, cache) = query::verified(opened)?;
    let mut controls = asked.packs.iter().flat_map(|loaded| &loaded.pack.controls);
    let bucket = if controls.any(|control| control.needs.iter().any(|need| need == "obj")) {
        opened.bucket_versions()
    } else {
        Err("no control asks for it".into())
    };
    let shown = Shown { report: &report, asked: (opened.from, opened.asked_to), bucket };
    let answer = Answer { format: AnswerFormat::Table, out: None, memory };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let assessment = runtime.block_on(async {
        let (context, spill) = query::session(opened, &cache, &[], &answer).await?;
        let (records, _) = cache.files();
        let proven = Proven { session: &context, records: &records, folder: spill.path() };
        let mut sink = |pack: &str, control: &str, columns: &[String], row: &[Option<String>]| match &mut list
        {
            Some(list) => list.write(pack, control, columns, row),
            None => Ok(()),
        };
        let assessment = assessing::assess(&proven, &shown, asked, &mut sink).await?;
        more(&context, &assessment).await?;
        anyhow::Ok(assessment)
    })?;
    if let Some(list) = list {
        list.finish()?;
    }
    Ok((report, assessment))
}

/// The whole list of exceptions: JSON lines.
struct Exceptions {
    out: BufWriter<File>,
    path: String,
}

impl Exceptions {
    fn create(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display().to_string();
        let file = File::create(path).with_context(|| format!("--exceptions `{shown}`"))?;
        Ok(Self { out: BufWriter::new(file), path: shown })
    }
    fn write(
        &mut self,
        pack: &str,
        control: &str,
        columns: &[String],
        row: &[Option<String>],
    ) -> anyhow::Result<()> {
        let row: serde_json::Map<String, serde_json::Value> = columns
            .iter()
            .zip(row)
            .filter_map(|(name, cell)| Some((name.clone(), cell.clone()?.into())))
            .collect();
        let line = serde_json::json!({ "pack": pack, "control": control, "row": row }).to_string();
        writeln!(self.out, "{}", json::harmless(&line))
            .with_context(|| format!("--exceptions `{}`", self.path))
    }
    fn finish(mut self) -> anyhow::Result<()> {
        self.out.flush().with_context(|| format!("--exceptions `{}`", self.path))
    }
}

fn settings(typed: &[String], packs: &[&Pack]) -> anyhow::Result<Vec<(String, String)>> {
    let mut out = Vec::new();
    for typed in typed {
        let wanted = || format!("--set `{typed}`: wanted `name=value`");
        let (name, value) = typed.split_once('=').with_context(wanted)?;
        let value = value.trim();
        if value.is_empty() {
            bail!(wanted());
        }
        if !packs.iter().any(|pack| pack.settings.contains_key(name)) {
            let known: Vec<&str> =
                packs.iter().flat_map(|pack| pack.settings.keys().map(String::as_str)).collect();
            bail!("--set `{name}`: no pack of these has it: wanted one of {}", known.join(", "));
        }
        if out.iter().any(|(other, _)| other == name) {
            bail!("--set `{name}`: given twice: wanted one value");
        }
        out.push((name.to_owned(), value.to_owned()));
    }
    Ok(out)
}

fn controls(typed: &[String], packs: &[&Pack]) -> anyhow::Result<()> {
    for id in typed {
        if !packs.iter().any(|pack| pack.controls.iter().any(|control| control.id == *id)) {
            let known: Vec<&str> = packs
                .iter()
                .flat_map(|pack| pack.controls.iter().map(|control| control.id.as_str()))
                .collect();
            bail!("--control `{id}`: no pack of these has it: wanted one of {}", known.join(", "));
        }
    }
    Ok(())
}

/// Runs `auditor pack`.
///
/// # Errors
/// A pack that cannot be read.
pub fn packs(command: &PackCommand) -> anyhow::Result<u8> {
    match command {
        PackCommand::List => out(&list()?)?,
        PackCommand::Show { pack } => {
            for loaded in packs::read(std::slice::from_ref(pack))? {
                out(&show(&loaded))?;
            }
        }
        PackCommand::Facts => out(&facts())?,
        PackCommand::Schema => out(&schema())?,
        PackCommand::Check { pack } => return check(pack),
    }
    Ok(0)
}

fn list() -> anyhow::Result<String> {
    let mut text = String::new();
    for loaded in packs::all().map_err(anyhow::Error::msg)? {
        let pack = &loaded.pack;
        let _ = writeln!(text, "{:<12} {} controls  {}", pack.name, pack.controls.len(), pack.title);
    }
    Ok(text)
}

fn show(loaded: &Loaded) -> String {
    let pack = &loaded.pack;
    let mut text = String::new();
    let _ =
        writeln!(text, "{}: {}\nSHA-256 {}\n\n{}", pack.name, pack.title, loaded.sha256, pack.about.trim());
    for (name, register) in &pack.registers {
        let _ = writeln!(text, "\nregister {name}: {}", register::form(register));
    }
    for (name, setting) in &pack.settings {
        let _ = writeln!(text, "\nsetting {name} = {}: {}", setting.default, setting.about.trim());
    }
    for control in &pack.controls {
        let rule = &control.rule;
        let _ = writeln!(text, "\n{}: {}\n  {}, {}", control.id, control.title, rule.source, rule.article);
        let _ = writeln!(text, "  asks: {}\n  needs: {}", control.asks.trim(), control.needs.join(", "));
        let _ = writeln!(text, "  finds: {}", control.finds.trim());
    }
    hostile::lines(&text).into_owned()
}

fn facts() -> String {
    let mut text = String::new();
    for fact in fact::FACTS.iter() {
        let _ = writeln!(text, "{}: {}", fact.name, fact.about);
        let columns: Vec<String> = fact
            .columns()
            .iter()
            .map(|column| format!("{} {}", column.name, kind_name(column.kind)))
            .collect();
        let _ = writeln!(text, "    {}", columns.join(", "));
    }
    text
}

/// The JSON Schema of a pack, as it stands in `schemas/json/pack.schema.json`.
pub(crate) fn schema() -> String {
    let mut schema: serde_json::Value = schemars::schema_for!(Pack).into();
    if let Some(map) = schema.as_object_mut() {
        map.insert("title".into(), "Affidavit compliance pack".into());
    }
    serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n"
}

fn check(typed: &[String]) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let engine = Arc::new(RuntimeEnv::default());
    let mut exit = 0;
    for loaded in packs::read(typed)? {
        let problems = runtime.block_on(cases::run(&loaded.pack, &engine));
        let mut text = String::new();
        for problem in &problems {
            let _ = writeln!(text, "pack `{}`: {problem}", loaded.from);
        }
        let _ = writeln!(
            text,
            "{}: {} controls, {} cases, {} wrong; SHA-256 {}",
            loaded.pack.name,
            loaded.pack.controls.len(),
            cases::count(&loaded.pack),
            problems.len(),
            loaded.sha256
        );
        out(&hostile::lines(&text))?;
        if !problems.is_empty() {
            exit = 1;
        }
    }
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_given_once_and_says_something() {
        let loaded = packs::all().unwrap();
        let packs: Vec<&Pack> = loaded.iter().map(|loaded| &loaded.pack).collect();
        let set = |typed: &[&str]| {
            settings(&typed.iter().map(|typed| (*typed).to_owned()).collect::<Vec<_>>(), &packs)
                .map_err(|error| error.to_string())
        };
        assert_eq!(set(&["phi_class= health "]), Ok(vec![("phi_class".into(), "health".into())]));
        for (wrong, wanted) in [
            (&["phi_class="][..], "wanted `name=value`"),
            (&["phi_class"], "wanted `name=value`"),
            (&["phi_class=a", "phi_class=b"], "given twice"),
            (&["colour=red"], "no pack of these has it"),
        ] {
            let problem = set(wrong).unwrap_err();
            assert!(problem.contains(wanted), "{wrong:?}: {problem}");
        }
    }
}
