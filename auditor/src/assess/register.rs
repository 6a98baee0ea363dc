//! The user's registers: CSV files with a head, read strictly. They are not evidence; their hash stands in the report.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use schemas::Sha256Hex;
use serde::Serialize;

use super::pack::{Pack, WantedRegister};
use super::rows::{Rows, Value, kind_name};

/// Problems of one file that are told; more are counted.
const TOLD: usize = 20;

/// A register that was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Given {
    /// The table's name.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// SHA-256 of the file.
    pub sha256: Sha256Hex,
    /// How many rows it has.
    pub rows: u64,
    #[serde(skip)]
    head: Vec<String>,
    #[serde(skip)]
    body: Vec<Vec<String>>,
}

impl Given {
    /// Reads `name=file.csv`.
    ///
    /// # Errors
    /// Another form, or a file that is no CSV.
    pub fn read(typed: &str) -> anyhow::Result<Self> {
        let wanted = || format!("--register `{typed}`: wanted `name=file.csv`");
        let (name, file) = typed.split_once('=').with_context(wanted)?;
        let file = Path::new(file);
        if name.is_empty() || file.extension().is_none_or(|extension| extension != "csv") {
            bail!(wanted());
        }
        let at = || format!("register `{name}`: `{}`", file.display());
        let bytes = std::fs::read(file).with_context(at)?;
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes.as_slice());
        let head: Vec<String> = reader
            .headers()
            .with_context(at)?
            .iter()
            .map(|name| name.trim_start_matches('\u{feff}').into())
            .collect();
        if let Some((n, twice)) = head.iter().enumerate().find(|(n, name)| head[..*n].contains(name)) {
            bail!("{}: column {}: `{twice}` is there twice: wanted each name once", at(), n + 1);
        }
        let mut body = Vec::new();
        for record in reader.records() {
            body.push(record.with_context(at)?.iter().map(str::to_owned).collect());
        }
        let (sha256, rows) = (Sha256Hex::of(&bytes), body.len() as u64);
        Ok(Self { name: name.into(), file: file.to_owned(), sha256, rows, head, body })
    }

    /// Its rows, with the columns that a pack wants.
    ///
    /// # Errors
    /// A column that is missing, or values of another form: all of them, with line, column, value and wanted form.
    pub fn rows(&self, wanted: &WantedRegister) -> Result<Rows, String> {
        let columns = wanted.columns();
        let mut problems = Vec::new();
        let mut places = Vec::new();
        for column in &columns {
            match self.head.iter().position(|name| *name == column.name) {
                Some(place) => places.push(place),
                None => problems.push(format!("column `{}` is missing: {}", column.name, form(wanted))),
            }
        }
        let mut out = Rows::new(columns.clone());
        if problems.is_empty() {
            for (n, row) in self.body.iter().enumerate() {
                let mut values = Vec::with_capacity(columns.len());
                for (column, place) in columns.iter().zip(&places) {
                    let text = row.get(*place).map_or("", String::as_str);
                    match Value::parse(column.kind, text) {
                        Ok(value) => values.push(value),
                        Err(problem) => {
                            problems.push(format!("row {}, column `{}`: {problem}", n + 1, column.name));
                        }
                    }
                }
                out.push(&values);
            }
        }
        if problems.is_empty() {
            return Ok(out);
        }
        let more = problems.len().saturating_sub(TOLD);
        problems.truncate(TOLD);
        if more > 0 {
            problems.push(format!("and {more} more"));
        }
        let file = self.file.display();
        Err(problems
            .iter()
            .map(|problem| format!("register `{}`: `{file}`: {problem}", self.name))
            .collect::<Vec<_>>()
            .join("\n"))
    }
}

/// The wanted form of a register, in words.
pub fn form(wanted: &WantedRegister) -> String {
    let columns: Vec<String> = wanted
        .columns()
        .iter()
        .map(|column| format!("`{}` ({})", column.name, kind_name(column.kind)))
        .collect();
    format!("wanted a CSV file with the columns {}: {}", columns.join(", "), wanted.about.trim())
}

/// Every register that was given must be wanted by a pack, and be given once.
///
/// # Errors
/// The name, and the names that are wanted.
pub fn check(given: &[Given], packs: &[&Pack]) -> anyhow::Result<()> {
    let known: std::collections::BTreeSet<&str> =
        packs.iter().flat_map(|pack| pack.registers.keys().map(String::as_str)).collect();
    for (n, register) in given.iter().enumerate() {
        if !known.contains(register.name.as_str()) {
            let known: Vec<&str> = known.iter().copied().collect();
            bail!(
                "--register `{}`: no pack of these asks for it: wanted one of {}",
                register.name,
                known.join(", ")
            );
        }
        if given[..n].iter().any(|other| other.name == register.name) {
            bail!("--register `{}`: given twice: wanted one file", register.name);
        }
    }
    Ok(())
}
