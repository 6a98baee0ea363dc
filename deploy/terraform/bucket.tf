data "aws_caller_identity" "here" {}
data "aws_partition" "here" {}

# Object Lock is switched on with the bucket, and versioning with it. There is no lifecycle: nothing may expire by itself.
resource "aws_s3_bucket" "evidence" {
  bucket              = var.bucket
  object_lock_enabled = true

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_versioning" "evidence" {
  bucket = aws_s3_bucket.evidence.id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_object_lock_configuration" "evidence" {
  bucket = aws_s3_bucket.evidence.id
  rule {
    default_retention {
      mode = "COMPLIANCE"
      days = var.default_retention_days
    }
  }
  depends_on = [aws_s3_bucket_versioning.evidence]
}

resource "aws_s3_bucket_server_side_encryption_configuration" "evidence" {
  bucket = aws_s3_bucket.evidence.id
  rule {
    bucket_key_enabled = true
    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.evidence.arn
    }
  }
}

resource "aws_s3_bucket_public_access_block" "evidence" {
  bucket                  = aws_s3_bucket.evidence.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

# Objects are the bucket owner's, whoever puts them.
resource "aws_s3_bucket_ownership_controls" "evidence" {
  bucket = aws_s3_bucket.evidence.id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_logging" "evidence" {
  count         = var.log_bucket == null ? 0 : 1
  bucket        = aws_s3_bucket.evidence.id
  target_bucket = var.log_bucket
  target_prefix = "${var.bucket}/"
}

module "policies" {
  source     = "./policies"
  bucket     = var.bucket
  prefix     = var.prefix
  deployment = var.deployment
  roles      = var.roles
  cluster    = var.cluster
  partition  = data.aws_partition.here.partition
  writers    = [aws_iam_role.role["gateway"].arn, aws_iam_role.role["registrar"].arn]
}

resource "aws_s3_bucket_policy" "evidence" {
  bucket     = aws_s3_bucket.evidence.id
  policy     = module.policies.bucket_policy
  depends_on = [aws_s3_bucket_public_access_block.evidence]
}
