//! Amazon Bedrock's model invocation logs, as they lie in S3 or CloudWatch
//! (<https://docs.aws.amazon.com/bedrock/latest/userguide/model-invocation-logging.html>): JSON lines, gzip'd or not.

use super::input::{Input, Refused};
use super::{Call, Counts, Told};

/// Reads calls. Those that failed used nothing and are left out.
///
/// # Errors
/// What is no such log.
pub fn log(input: &Input, told: &mut Told) -> Result<(), Refused> {
    input.documents(|call| {
        let kind = call.need("schemaType")?;
        if kind.text()? != "ModelInvocationLog" {
            return Err(kind.refuse("`ModelInvocationLog`"));
        }
        if call.get("errorCode").is_some() {
            told.leave_out("calls that failed");
            return Ok(());
        }
        let of = |part: &str, key: &str| {
            call.get(part).and_then(|part| part.get(key)).map(|count| count.count()).transpose()
        };
        let (read, written) =
            (of("input", "cacheReadInputTokenCount")?, of("input", "cacheWriteInputTokenCount")?);
        let input_tokens = of("input", "inputTokenCount")?
            .map(|count| count.saturating_add(read.unwrap_or(0)).saturating_add(written.unwrap_or(0)));
        let caller = call.get("identity").and_then(|identity| identity.get("arn"));
        told.calls.push(Call {
            line: call.line,
            ids: vec![call.need("requestId")?.text()?.to_owned()],
            at: call.need("timestamp")?.time()?,
            model: Some(call.need("modelId")?.text()?.to_owned()),
            caller: caller.map(|arn| arn.text().map(str::to_owned)).transpose()?,
            counts: Counts {
                input_tokens,
                cache_read_tokens: read,
                output_tokens: of("output", "outputTokenCount")?,
                ..Counts::default()
            },
        });
        Ok(())
    })
}
