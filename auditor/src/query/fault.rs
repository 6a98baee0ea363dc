//! What is wrong with a question, in words that name what its asker can change.

use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::prelude::SessionContext;
use policies::document::closest;

/// Tells it. `context`: the session that was asked.
pub fn told(error: anyhow::Error, context: &SessionContext) -> anyhow::Error {
    match error.downcast_ref::<DataFusionError>().and_then(|error| of(error.find_root(), context)) {
        Some(told) => anyhow::Error::msg(told),
        None => error,
    }
}

fn of(error: &DataFusionError, context: &SessionContext) -> Option<String> {
    match error {
        DataFusionError::SQL(error, _) => Some(error.to_string()),
        DataFusionError::SchemaError(error, _) => match &**error {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let meant = closest(field.name(), valid_fields.iter().map(|field| field.name()));
                let meant = meant.map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default();
                Some(format!("there is no column `{}`{meant}", field.flat_name()))
            }
            _ => None,
        },
        DataFusionError::Plan(text) => {
            let name = text.strip_prefix("table '")?.strip_suffix("' not found")?;
            Some(table(name.rsplit('.').next().unwrap_or(name), context))
        }
        DataFusionError::ResourcesExhausted(why) => {
            Some(match context.runtime_env().memory_pool.memory_limit() {
                MemoryLimit::Finite(bytes) => {
                    format!(
                        "{} MiB of memory are too little for this question: give it more with `--memory`",
                        bytes >> 20
                    )
                }
                _ => why.clone(),
            })
        }
        _ => None,
    }
}

fn table(name: &str, context: &SessionContext) -> String {
    if name == "content" {
        return "the table `content` is there only with `--content --reason TEXT`".into();
    }
    let schema = context.catalog("datafusion").and_then(|catalog| catalog.schema("public"));
    let mut known = schema.map(|schema| schema.table_names()).unwrap_or_default();
    known.sort();
    let known: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
    format!("there is no table `{name}`: wanted one of {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::execution::memory_pool::FairSpillPool;
    use datafusion::execution::runtime_env::RuntimeEnvBuilder;

    use super::*;

    #[test]
    fn too_little_memory_names_the_option_that_gives_more() {
        let pool = Arc::new(FairSpillPool::new(16 << 20));
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc().unwrap();
        let context = SessionContext::new_with_config_rt(Default::default(), runtime);
        let error = DataFusionError::ResourcesExhausted("top consumers".into()).context("a sort");
        let said = told(error.into(), &context).to_string();
        assert!(said.starts_with("16 MiB ") && said.ends_with("`--memory`"), "{said}");
    }
}
