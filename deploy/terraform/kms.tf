# Who destroys this key makes evidence unreadable, lock or not: by this policy nobody may but the account's root user, after 30 days.
# Who may change the policy (`kms:PutKeyPolicy`) can lift that: keep it from everyday roles, and watch CloudTrail for it.
resource "aws_kms_key" "evidence" {
  description             = "LLM evidence in ${var.bucket}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "TheAccountManagesIt"
        Effect    = "Allow"
        Principal = { AWS = "arn:${data.aws_partition.here.partition}:iam::${data.aws_caller_identity.here.account_id}:root" }
        Action    = "kms:*"
        Resource  = "*"
      },
      {
        Sid       = "NobodyElseDestroysIt"
        Effect    = "Deny"
        Principal = "*"
        Action    = ["kms:ScheduleKeyDeletion", "kms:DisableKey", "kms:DeleteImportedKeyMaterial"]
        Resource  = "*"
        Condition = {
          ArnNotEquals = { "aws:PrincipalArn" = "arn:${data.aws_partition.here.partition}:iam::${data.aws_caller_identity.here.account_id}:root" }
        }
      },
    ]
  })

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_kms_alias" "evidence" {
  name          = "alias/${var.name}-${var.deployment}"
  target_key_id = aws_kms_key.evidence.key_id
}
