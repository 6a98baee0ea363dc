#!/bin/sh
# Makes all keys of the try-out, what each process is configured with, and the auditors' trust file: once, into
# /etc/affidavit, a folder for each process. In earnest the root key is made and kept on a machine that stays offline.
set -eu
umask 077
cd /etc/affidavit
if [ -e made ]; then exit 0; fi
# A run that was cut off leaves nothing that is used: nobody starts before this has ended well.
rm -rf ./*

deployment=acme
gateways="gw1 gw2 gw3"
archivers="ar1 ar2"
mkdir root registrar registrar/entries auditor

root=$(gateway root keygen --deployment "$deployment" --out root/root.key)
registry=$(gateway keygen --deployment "$deployment" --gateway registry --out registrar/registry.key)
gateway keygen --deployment "$deployment" --gateway registry --out registrar/checkpoint.key >root/checkpoint.pub
sed "s|@ROOT@|$root|" /templates/registrar.yaml >registrar/registrar.yaml
cat >auditor/trust.yaml <<END
v: 1
deployment: $deployment
root: "$root"
registry: { origin: $deployment/registry/log, key: "$registry" }
END

: >root/archivers
for name in $archivers; do
    mkdir "$name"
    gateway keygen --deployment "$deployment" --archiver "$name" --out "$name/archiver.key" | sed 's/^/        /' >>root/archivers
    sed "s|@NAME@|$name|" /templates/archive.yaml >"$name/archive.yaml"
    cp auditor/trust.yaml "$name/trust.yaml"
done

gateway keys issue --file root/keys.yaml --consumer demo --team demo >caller.key
for name in $gateways; do
    mkdir "$name"
    # The trust file that it prints is for deployments without a registry.
    gateway keygen --deployment "$deployment" --gateway "$name" --out "$name/seal.key" >root/"$name".trust.yaml
    gateway enroll --deployment "$deployment" --root root/root.key --gateway "$name" --key "$name/seal.key" --out "registrar/entries/$name.entry"
    cp root/keys.yaml "$name/keys.yaml"
    cp /prices/2026-11.csv "$name/prices.csv"
    sed -e "s|@NAME@|$name|" -e "/@ARCHIVERS@/{
r root/archivers
d
}" /templates/gateway.yaml >"$name/gateway.yaml"
    # What rules is checked where it is made. The keys of the providers are not here, and that alone may be missing.
done
: >made
