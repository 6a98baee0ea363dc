# Who may take which role.

variable "roles" {
  type = map(object({
    principals       = optional(list(string), [])
    service_accounts = optional(list(string), [])
  }))
  default = {}
  validation {
    condition     = length(setsubtract(keys(var.roles), ["gateway", "registrar", "auditor", "prober"])) == 0
    error_message = "Wanted roles among gateway, registrar, auditor, prober."
  }
  validation {
    condition     = var.cluster != null || alltrue([for role in values(var.roles) : length(role.service_accounts) == 0])
    error_message = "Wanted `cluster`: service accounts take roles by the OIDC provider of their cluster."
  }
}

variable "cluster" {
  type    = object({ arn = string, issuer = string })
  default = null
}

locals {
  trust = { for name in ["gateway", "registrar", "auditor", "prober"] : name => concat(
    [for principals in [try(var.roles[name].principals, [])] : {
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { AWS = principals }
    } if length(principals) > 0],
    [for accounts in [try(var.roles[name].service_accounts, [])] : {
      Effect    = "Allow"
      Action    = "sts:AssumeRoleWithWebIdentity"
      Principal = { Federated = var.cluster.arn }
      Condition = { StringEquals = {
        "${var.cluster.issuer}:sub" = accounts
        "${var.cluster.issuer}:aud" = "sts.amazonaws.com"
      } }
    } if length(accounts) > 0],
    # A policy has a statement also where nobody is named.
    [{
      Effect    = "Deny"
      Action    = "sts:AssumeRole"
      Principal = { AWS = "*" }
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }],
  ) }
}

output "trust" {
  description = "Who may take a role, by role: the document of its trust."
  value       = { for name, statements in local.trust : name => jsonencode({ Version = "2012-10-17", Statement = statements }) }
}
