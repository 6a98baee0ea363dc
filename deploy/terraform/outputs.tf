output "bucket" {
  description = "For `evidence.out.s3.bucket`."
  value       = aws_s3_bucket.evidence.bucket
}

output "roles" {
  description = "ARN of each role."
  value       = { for name, role in aws_iam_role.role : name => role.arn }
}

output "kms_key" {
  description = "For `store.kms_key` of an auditor's mandate."
  value       = aws_kms_key.evidence.arn
}
