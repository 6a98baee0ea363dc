# With the example's own names the policies are those of deploy/s3, word for word.
run "the_example_is_itself" {
  command = plan

  variables {
    bucket     = "acme-evidence"
    prefix     = "llm/evidence"
    deployment = "acme"
    writers    = ["arn:aws:iam::111122223333:role/affidavit-gateway", "arn:aws:iam::111122223333:role/affidavit-registrar"]
  }

  assert {
    condition = alltrue([
      for name, policy in output.roles : policy == jsonencode(jsondecode(file("../../s3/${name}.json")))
    ])
    error_message = "A role's policy is not the one of deploy/s3."
  }
  assert {
    condition     = length(output.roles) == 4
    error_message = "Wanted the roles gateway, registrar, auditor, prober."
  }
  assert {
    condition     = jsondecode(output.bucket_policy) == jsondecode(file("../../s3/bucket-policy.json"))
    error_message = "The bucket's policy is not the one of deploy/s3."
  }
}

# With other names nothing of the example is left, and every resource is in the bucket.
run "nothing_of_the_example_is_left" {
  command = plan

  variables {
    bucket     = "bank-llm-log"
    prefix     = "acme/llm"
    deployment = "bank"
    partition  = "aws-us-gov"
    writers    = ["arn:aws-us-gov:iam::999988887777:role/bank-gateway"]
  }

  assert {
    condition = alltrue([
      for policy in concat(values(output.roles), [output.bucket_policy]) :
      length(regexall("acme-evidence|llm/evidence|111122223333|arn:aws:|@[A-Z]+@", policy)) == 0
    ])
    error_message = "A name of the example is left in a policy."
  }
  assert {
    condition = alltrue(flatten([
      for policy in concat(values(output.roles), [output.bucket_policy]) : [
        for statement in jsondecode(policy).Statement : [
          for resource in flatten([statement.Resource]) : startswith(resource, "arn:aws-us-gov:s3:::bank-llm-log")
        ]
      ]
    ]))
    error_message = "A statement speaks of another bucket."
  }
  assert {
    condition = anytrue([
      for statement in jsondecode(output.roles["gateway"]).Statement : statement.Resource == "arn:aws-us-gov:s3:::bank-llm-log/acme/llm/bank/*"
    ])
    error_message = "The gateway's role does not reach its deployment's logs."
  }
}

run "a_name_that_is_none_is_refused" {
  command = plan

  variables {
    bucket     = "No Bucket"
    prefix     = "/llm/"
    deployment = "Acme"
    writers    = []
  }

  expect_failures = [var.bucket, var.prefix, var.deployment]
}

run "nobody_takes_a_role_who_is_not_named" {
  command = plan

  variables {
    bucket     = "acme-evidence"
    prefix     = "llm"
    deployment = "acme"
    writers    = []
    cluster    = { arn = "arn:aws:iam::111122223333:oidc-provider/id.example", issuer = "id.example" }
    roles = {
      gateway = { service_accounts = ["system:serviceaccount:affidavit:affidavit-gateway"] }
      auditor = { principals = ["arn:aws:iam::444455556666:root"] }
    }
  }

  assert {
    condition = jsondecode(output.trust["gateway"]).Statement[0] == {
      Effect    = "Allow"
      Action    = "sts:AssumeRoleWithWebIdentity"
      Principal = { Federated = "arn:aws:iam::111122223333:oidc-provider/id.example" }
      Condition = { StringEquals = {
        "id.example:sub" = ["system:serviceaccount:affidavit:affidavit-gateway"]
        "id.example:aud" = "sts.amazonaws.com"
      } }
    }
    error_message = "The service account does not take the gateway's role, or not it alone."
  }
  assert {
    condition     = jsondecode(output.trust["auditor"]).Statement[0].Principal.AWS == ["arn:aws:iam::444455556666:root"]
    error_message = "The named account does not take the auditor's role."
  }
  assert {
    condition = alltrue([
      for name, allowed in { gateway = 1, registrar = 0, auditor = 1, prober = 0 } :
      length([for statement in jsondecode(output.trust[name]).Statement : statement if statement.Effect == "Allow"]) == allowed
    ])
    error_message = "A role can be taken by somebody who is not named."
  }
}

run "service_accounts_without_a_cluster_are_refused" {
  command = plan

  variables {
    bucket     = "acme-evidence"
    prefix     = "llm"
    deployment = "acme"
    writers    = []
    roles      = { gateway = { service_accounts = ["system:serviceaccount:a:b"] } }
  }

  expect_failures = [var.roles]
}

run "a_role_that_is_none_is_refused" {
  command = plan

  variables {
    bucket     = "acme-evidence"
    prefix     = "llm"
    deployment = "acme"
    writers    = []
    roles      = { root = { principals = ["arn:aws:iam::444455556666:root"] } }
  }

  expect_failures = [var.roles]
}
