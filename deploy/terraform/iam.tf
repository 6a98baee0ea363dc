locals {
  role_names = toset(["gateway", "registrar", "auditor", "prober"])

  # What each role does with the bucket's key: who puts makes data keys, who reads decrypts.
  key_actions = {
    gateway   = ["kms:GenerateDataKey", "kms:Decrypt"]
    registrar = ["kms:GenerateDataKey", "kms:Decrypt"]
    auditor   = ["kms:Decrypt"]
    prober    = ["kms:GenerateDataKey", "kms:Decrypt"]
  }
}

resource "aws_iam_role" "role" {
  for_each           = local.role_names
  name               = "${var.name}-${each.key}"
  assume_role_policy = module.policies.trust[each.key]
}

resource "aws_iam_role_policy" "bucket" {
  for_each = local.role_names
  name     = "bucket"
  role     = aws_iam_role.role[each.key].id
  policy   = module.policies.roles[each.key]
}

resource "aws_iam_role_policy" "key" {
  for_each = local.role_names
  name     = "key"
  role     = aws_iam_role.role[each.key].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = local.key_actions[each.key]
      Resource = aws_kms_key.evidence.arn
    }]
  })
}
