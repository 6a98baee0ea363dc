//! Azure OpenAI's diagnostic logs of the category `RequestResponse`, as Azure Monitor puts them into a storage account
//! or an event hub (<https://learn.microsoft.com/azure/ai-services/openai/how-to/monitor-openai>): JSON lines, or
//! objects with a list `records`. Their `correlationId` is the answer's header `apim-request-id`. They tell no tokens.

use serde_json::Value;

use super::input::{At, Input, Refused};
use super::{Call, Counts, Told};

/// Reads calls. Those that failed, and other categories, are left out.
///
/// # Errors
/// What is no such log.
pub fn log(input: &Input, told: &mut Told) -> Result<(), Refused> {
    input.documents(|document| match document.get("records") {
        Some(records) => records.list()?.iter().try_for_each(|record| one(record, told)),
        None => one(&document, told),
    })
}

fn one(record: &At<'_>, told: &mut Told) -> Result<(), Refused> {
    let category = record.need("category")?.text()?;
    if category != "RequestResponse" {
        told.leave_out(format!("rows of the category {category}"));
        return Ok(());
    }
    let status = record.get("resultSignature").map(|status| status.id()).transpose()?;
    if status.as_deref().is_some_and(|status| !status.starts_with('2')) {
        told.leave_out("calls that failed");
        return Ok(());
    }
    let properties = record.get("properties").map(|at| properties(&at)).transpose()?.unwrap_or(Value::Null);
    let text = |key: &str| properties.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    told.calls.push(Call {
        line: record.line,
        ids: vec![record.need("correlationId")?.text()?.to_owned()],
        at: record.need("time")?.time()?,
        model: text("modelName").or_else(|| text("modelDeploymentName")).map(str::to_owned),
        caller: text("objectId").map(str::to_owned),
        counts: Counts::default(),
    });
    Ok(())
}

/// The properties are an object, or one as text.
fn properties(at: &At<'_>) -> Result<Value, Refused> {
    at.parsed()
}
