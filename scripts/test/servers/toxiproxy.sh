# shellcheck shell=sh disable=SC2154 # of server.sh
# Toxiproxy: makes proxies that break connections, over its REST interface.

need toxiproxy-server
run toxiproxy '' toxiproxy-server -host 127.0.0.1 -port "$port"
await ask -f "http://127.0.0.1:$port/version"

setting "TOXIPROXY_URL=http://127.0.0.1:$port"
