# The policies of deploy/s3, with the names of this deployment in the place of the example's. They are written once, there.
# This module needs no provider: `tofu test` holds what it makes against what is in deploy/s3.

variable "bucket" {
  type = string
  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "Wanted a bucket's name: 3 to 63 of a-z, 0-9, `.` and `-`, a letter or digit at each end."
  }
}

variable "prefix" {
  type = string
  validation {
    condition     = can(regex("^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$", var.prefix))
    error_message = "Wanted parts `[A-Za-z0-9._-]+` joined by `/`, none at the ends."
  }
}

variable "deployment" {
  type = string
  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9.-]{0,62}$", var.deployment))
    error_message = "Wanted a deployment's name `[a-z0-9][a-z0-9.-]{0,62}`, as in gateway.yaml."
  }
}

variable "writers" {
  description = "ARNs of the roles that write: gateway or archiver, and registrar."
  type        = list(string)
}

variable "partition" {
  type    = string
  default = "aws"
}

locals {
  # Each example is replaced by a mark first: a name that looks like another example is left alone.
  marked = {
    for name in ["gateway", "registrar", "auditor", "prober", "bucket-policy"] : name => replace(replace(replace(replace(
      file("${path.module}/../../s3/${name}.json"),
      "llm/evidence/acme/", "@PREFIX@/@DEPLOYMENT@/"),
      "llm/evidence", "@PREFIX@"),
      "acme-evidence", "@BUCKET@"),
    "arn:aws:s3", "arn:@PARTITION@:s3")
  }
  filled = {
    for name, text in local.marked : name => jsondecode(replace(replace(replace(replace(
      text,
      "@PREFIX@", var.prefix),
      "@DEPLOYMENT@", var.deployment),
      "@BUCKET@", var.bucket),
    "@PARTITION@", var.partition))
  }
  bucket_statements = [
    for statement in local.filled["bucket-policy"].Statement :
    try(statement.Principal.AWS, null) == null ? jsonencode(statement) : jsonencode(merge(statement, { Principal = { AWS = var.writers } }))
  ]
}

output "roles" {
  description = "Policy documents by role: gateway, registrar, auditor, prober."
  value       = { for name, policy in local.filled : name => jsonencode(policy) if name != "bucket-policy" }
}

output "bucket_policy" {
  description = "The policy document of the bucket."
  value = jsonencode({
    Version   = local.filled["bucket-policy"].Version
    Statement = [for statement in local.bucket_statements : jsondecode(statement)]
  })
}
