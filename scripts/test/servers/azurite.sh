# shellcheck shell=sh disable=SC2154 # of server.sh
# Azurite, Microsoft's emulator of Azure's blobs. It knows no API version newer
# than itself, so it must not look at the client's. --loose makes it ignore a
# customer's encryption key, which is an error otherwise.

azurite=$cache/azurite/node_modules/.bin/azurite-blob
need node openssl "$azurite"
account=walgtest
key=$(head -c 64 /dev/urandom | base64 -w 0)
ca=
if [ "$scheme" = https ]; then
	make_certificates
	ca=$dir/ca.crt
	set -- --cert "$dir/tls/public.crt" --key "$dir/tls/private.key"
else
	set --
fi
mkdir "$dir/data"
run azurite '' AZURITE_ACCOUNTS="$account:$key" \
	node "$azurite" --silent --disableTelemetry --skipApiVersionCheck --loose \
	--blobHost 127.0.0.1 --blobPort "$port" --location "$dir/data" "$@"
endpoint=$scheme://127.0.0.1:$port/$account
await ask -o /dev/null ${ca:+--cacert "$ca"} "$endpoint" # 403

# Create Container, signed with the shared key.
date=$(date -u '+%a, %d %b %Y %H:%M:%S GMT')
signature=$(printf 'PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:%s\nx-ms-version:2021-08-06\n/%s/%s/walg\nrestype:container' "$date" "$account" "$account" |
	openssl dgst -sha256 -mac HMAC -macopt "hexkey:$(printf %s "$key" | base64 -d | od -An -v -tx1 | tr -d ' \n')" -binary | base64)
ask -f -o /dev/null ${ca:+--cacert "$ca"} -X PUT -H 'Content-Length: 0' -H "x-ms-date: $date" -H 'x-ms-version: 2021-08-06' \
	-H "Authorization: SharedKey $account:$signature" "$endpoint/walg?restype=container" || failed "made no container"

setting "AZURE_STORAGE_ACCOUNT=$account"
setting "AZURE_STORAGE_ACCESS_KEY=$key"
setting "AZURE_ENDPOINT=$endpoint"
setting "WALG_AZ_PREFIX=azure://walg/test"
[ -z "$ca" ] || setting "SSL_CERT_FILE=$ca" # where Go programs look
