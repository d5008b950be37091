# shellcheck shell=sh disable=SC2154 # of server.sh
# MinIO. Its region is set, or it would accept requests signed for any; a KMS key
# is, or it would refuse encryption. A folder in its data is a bucket.

need minio
mkdir -p "$dir/data/walg"
ca=
if [ "$scheme" = https ]; then
	make_certificates
	ca=$dir/ca.crt
	mkdir "$dir/certs"
	cp "$dir/tls/public.crt" "$dir/tls/private.key" "$dir/certs/"
	set -- --certs-dir "$dir/certs"
else
	set --
fi
run minio '' \
	MINIO_ROOT_USER=walgtest MINIO_ROOT_PASSWORD="$secret" MINIO_SITE_REGION=eu-central-1 \
	MINIO_KMS_SECRET_KEY="my-minio-key:$(head -c 32 /dev/urandom | base64)" \
	MINIO_BROWSER=off MINIO_UPDATE=off MINIO_CALLHOME_ENABLE=off \
	minio server --quiet "$@" --address "127.0.0.1:$port" "$dir/data"
# It calls itself ready before it takes requests for objects. One without a
# signature is denied then.
takes_objects() { [ "$(ask ${ca:+--cacert "$ca"} -o /dev/null -w '%{http_code}' "$scheme://127.0.0.1:$port/walg/ready")" = 403 ]; }
await takes_objects

setting "AWS_ENDPOINT=$scheme://127.0.0.1:$port"
setting "AWS_ACCESS_KEY_ID=walgtest"
setting "AWS_SECRET_ACCESS_KEY=$secret"
setting "AWS_REGION=eu-central-1"
setting "AWS_S3_FORCE_PATH_STYLE=true"
setting "WALG_S3_PREFIX=s3://walg/test"
[ -z "$ca" ] || setting "WALG_S3_CA_CERT_FILE=$ca"
