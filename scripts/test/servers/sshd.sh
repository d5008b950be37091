# shellcheck shell=sh disable=SC2154 # of server.sh
# OpenSSH's server with its own SFTP. It reads the password from the system's
# shadow file, so the user is a real one; nothing but SFTP is open to it. The
# password stays the same, since servers may run side by side, and is random,
# since this machine may have another sshd.

$root || die "sshd checks passwords only as root"
need sshd ssh-keygen useradd chpasswd
user=walg-sftp
mkdir -p "$cache"
(
	flock 8
	if ! id "$user" >/dev/null 2>&1; then
		rm -f "$cache/sshd-password"
		useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$user"
	fi
	[ ! -s "$cache/sshd-password" ] || exit 0
	(umask 077; random 16 >"$cache/sshd-password.new")
	echo "$user:$(cat "$cache/sshd-password.new")" | chpasswd
	mv "$cache/sshd-password.new" "$cache/sshd-password"
) 8>"$cache/sshd.lock" || die "could not make the user $user"
secret=$(cat "$cache/sshd-password")
passphrase=$(random 8)

mkdir -p /run/sshd "$dir/keys" "$dir/data"
chown "$user:" "$dir/data"
for type in ed25519 rsa; do
	ssh-keygen -q -t "$type" -N '' -C '' -f "$dir/keys/host_$type"
	echo "[127.0.0.1]:$port $(cat "$dir/keys/host_$type.pub")" >>"$dir/known_hosts"
done
ssh-keygen -q -t ed25519 -N '' -C walg -f "$dir/keys/id"
ssh-keygen -q -t ed25519 -N "$passphrase" -C walg -f "$dir/keys/id_encrypted"
cat "$dir/keys/id.pub" "$dir/keys/id_encrypted.pub" >"$dir/authorized_keys"

cat >"$dir/sshd_config" <<CONF
ListenAddress 127.0.0.1
Port $port
HostKey $dir/keys/host_ed25519
HostKey $dir/keys/host_rsa
PidFile none
UsePAM no
StrictModes no
AuthorizedKeysFile $dir/authorized_keys
PasswordAuthentication yes
KbdInteractiveAuthentication no
AllowUsers $user
Subsystem sftp internal-sftp
ForceCommand internal-sftp
DisableForwarding yes
PermitTTY no
PrintMotd no
UseDNS no
MaxStartups 100
MaxSessions 100
MaxAuthTries 20
CONF
run sshd '' /usr/sbin/sshd -D -e -f "$dir/sshd_config"
await has_listener "$port"

setting "SSH_HOST=127.0.0.1"
setting "SSH_PORT=$port"
setting "SSH_USERNAME=$user"
setting "SSH_PASSWORD=$secret"
setting "SSH_PRIVATE_KEY_PATH=$dir/keys/id"
setting "SSH_PRIVATE_KEY_ENCRYPTED_PATH=$dir/keys/id_encrypted"
setting "SSH_PASSPHRASE=$passphrase"
setting "SSH_KNOWN_HOSTS=$dir/known_hosts"
setting "WALG_SSH_PREFIX=ssh://127.0.0.1:$port$dir/data"
