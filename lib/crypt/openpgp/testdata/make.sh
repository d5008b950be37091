#!/bin/sh
# Makes the throwaway keys of the tests, with gpg 2.2. Whoever reads this owns
# them too.
set -eu
home=$(mktemp -d /tmp/gpgXXXXXX)
# The keys must be older than the clock of whoever runs the tests.
gpg() { command gpg --homedir "$home" --batch --quiet --faked-system-time "$day"T000000 --pinentry-mode loopback --s2k-count 1024 "$@"; }
day=20200101
trap 'gpgconf --homedir "$home" --kill gpg-agent; rm -rf "$home"' EXIT

key() { # NAME PASSPHRASE < parameters
    name=$1 passphrase=$2
    {
        cat
        echo "Name-Real: walg test $name"
        echo "Name-Email: $name@walg.invalid"
        if [ -n "$passphrase" ]; then echo "Passphrase: $passphrase"; else echo "%no-protection"; fi
        echo "%commit"
    } | gpg --full-gen-key
}
fingerprint() { # NAME WHICH: the primary key is 1, a subkey 2 and more
    gpg --with-colons --list-keys "$1@walg.invalid" | awk -F: '/^fpr/ {print $10}' | sed -n "$2p"
}
export_secret() { # NAME PASSPHRASE [OPTION...]
    name=$1 passphrase=$2
    shift 2
    gpg --passphrase "$passphrase" --armor "${1:---export-secret-keys}" "$name@walg.invalid" > "$name.asc"
}
rsa() { printf 'Key-Type: RSA\nKey-Length: %s\nKey-Usage: sign\nSubkey-Type: RSA\nSubkey-Length: %s\nSubkey-Usage: encrypt\nExpire-Date: %s\n' "$1" "$1" "${2:-0}"; }

rsa 1024 | key rsa1024 '' # for speed, where thousands of messages are opened
rsa 2048 | key rsa2048 ''
rsa 3072 | key rsa3072 'walg test pass'
rsa 4096 | key rsa4096 ''
printf 'Key-Type: DSA\nKey-Length: 2048\nSubkey-Type: ELG-E\nSubkey-Length: 2048\nExpire-Date: 0\n' | key elgamal ''
printf 'Key-Type: RSA\nKey-Length: 2048\nKey-Usage: sign,encrypt\nExpire-Date: 0\n' | key primary ''
printf 'Key-Type: RSA\nKey-Length: 2048\nKey-Usage: sign\nExpire-Date: 0\n' | key signonly ''
printf 'Key-Type: EdDSA\nKey-Curve: ed25519\nSubkey-Type: ECDH\nSubkey-Curve: cv25519\nExpire-Date: 0\n' | key curve25519 ''
printf 'Key-Type: ECDSA\nKey-Curve: nistp256\nSubkey-Type: ECDH\nSubkey-Curve: nistp256\nExpire-Date: 0\n' | key nistp256 ''
rsa 2048 1y | key expired ''
rsa 2048 | key revoked ''
rsa 2048 | key subkeys ''
for name in rsa1024 rsa2048 rsa4096 elgamal primary signonly curve25519 nistp256 expired; do export_secret "$name" ''; done
export_secret rsa3072 'walg test pass'
gpg --armor --export rsa2048@walg.invalid > rsa2048.pub.asc

# The primary key of the one that is exported is a stub.
export_secret rsa2048 '' --export-secret-subkeys
mv rsa2048.asc stub.asc
export_secret rsa2048 ''

# Without the colon in front of its first line a revocation certificate is ready to use.
sed 's/^:-----BEGIN/-----BEGIN/' "$home/openpgp-revocs.d/$(fingerprint revoked 1).rev" | gpg --import
export_secret revoked ''

# An RSA key with more subkeys: one for encryption that is expired, one that is
# the newest for it, and one for signatures of an algorithm that is not usable.
primary=$(fingerprint subkeys 1)
day=20210101; gpg --passphrase '' --quick-add-key "$primary" rsa2048 encrypt 2y
day=20220101; gpg --passphrase '' --quick-add-key "$primary" rsa2048 encrypt 0
day=20230101; gpg --passphrase '' --quick-add-key "$primary" ed25519 sign 0
export_secret subkeys ''

# The expired key again, its life extended by newer self-signatures.
cp expired.asc swap.asc
day=20200601
gpg --quick-set-expire "$(fingerprint expired 1)" 60y
gpg --quick-set-expire "$(fingerprint expired 1)" 60y "$(fingerprint expired 2)"
export_secret expired ''
mv expired.asc extended.asc
mv swap.asc expired.asc
