# shellcheck shell=sh disable=SC2154 # of server.sh
# Versity's S3 gateway, over plain folders: one in its data is a bucket. It goes
# into that folder, so all names are absolute.

need versitygw
mkdir -p "$dir/data/walg" "$dir/versions"
run versitygw '' \
	ROOT_ACCESS_KEY=walgtest ROOT_SECRET_KEY="$secret" \
	versitygw --port "127.0.0.1:$port" --region eu-central-1 --quiet posix --versioning-dir "$dir/versions" "$dir/data"
await ask -o /dev/null "http://127.0.0.1:$port/" # 403

setting "AWS_ENDPOINT=http://127.0.0.1:$port"
setting "AWS_ACCESS_KEY_ID=walgtest"
setting "AWS_SECRET_ACCESS_KEY=$secret"
setting "AWS_REGION=eu-central-1"
setting "AWS_S3_FORCE_PATH_STYLE=true"
setting "WALG_S3_PREFIX=s3://walg/test"
