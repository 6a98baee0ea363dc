variable "bucket" {
  description = "Name of the bucket to make."
  type        = string
}

variable "prefix" {
  description = "What stands before every name: `evidence.out.s3.prefix` of gateway.yaml."
  type        = string
  default     = "llm/evidence"
}

variable "deployment" {
  description = "The deployment, as in gateway.yaml."
  type        = string
}

variable "default_retention_days" {
  description = "COMPLIANCE retention of what is put without a lock of its own. The gateway puts each object with its own."
  type        = number
  default     = 1
  validation {
    condition     = var.default_retention_days >= 1 && var.default_retention_days <= 3650
    error_message = "Wanted 1 to 3650 days. Under COMPLIANCE nobody can shorten it for an object that is there."
  }
}

variable "roles" {
  description = "Who may take which role: IAM principals by ARN, and service accounts (`system:serviceaccount:NAMESPACE:NAME`) of the cluster below. Keys: gateway, registrar, auditor, prober. With `evidence.out.kafka` the archivers take the role `gateway`, and gateways none."
  type = map(object({
    principals       = optional(list(string), [])
    service_accounts = optional(list(string), [])
  }))
  default = {}
}

variable "cluster" {
  description = "OIDC provider of the Kubernetes cluster whose service accounts take roles: its ARN, and its issuer without `https://`."
  type        = object({ arn = string, issuer = string })
  default     = null
}

variable "log_bucket" {
  description = "Bucket that access logs go to; null: none."
  type        = string
  default     = null
}

variable "name" {
  description = "First part of the names of roles and key."
  type        = string
  default     = "affidavit"
}
