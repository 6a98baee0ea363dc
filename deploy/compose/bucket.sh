#!/bin/sh
# Makes the bucket `evidence` with Object Lock, which no bucket gets later.
set -eu
if made=$(versitygw admin --endpoint-url "$ADMIN_ENDPOINT_URL" create-bucket --owner "$ADMIN_ACCESS_KEY_ID" --bucket evidence \
    --object-lock-enabled-for-bucket 2>&1); then
    exit 0
fi
case $made in
*BucketAlreadyOwnedByYou* | *BucketAlreadyExists*) exit 0 ;;
esac
echo "$made" >&2
exit 1
