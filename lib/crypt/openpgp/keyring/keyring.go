// Package keyring reads OpenPGP keys, public and private, from text or binary
// data. It says to which keys a message is encrypted, and finds the session key
// of a message. Encrypting is strict: what any key of the ring cannot do, or
// may not do any more, is an error, because a recipient who is left out learns
// of it when the data is needed. Decrypting uses every key that it can, expired
// and revoked ones too.
package keyring

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	// For self-signatures and passphrases; the library does not bring these.
	_ "crypto/sha256"
	_ "crypto/sha512"

	//lint:ignore SA1019 frozen, but it is the library that WAL-G uses
	pgp "golang.org/x/crypto/openpgp/packet"

	"walg/lib/crypt/openpgp/armor"
	"walg/lib/crypt/openpgp/packet"
	"walg/lib/decode"
	"walg/lib/fault"
)

// StageHint is the way out where a key cannot be used here.
const StageHint = "let gpg do it: WALG_CRYPT_COMMAND='gpg -e -r KEY' and WALG_DECRYPT_COMMAND='gpg -d', " +
	"or walg-crypt --through -- gpg -e -r KEY"

const (
	maxText = 16 << 20 // of keys; one with the photographs and signatures of a lifetime is smaller
	maxKeys = 1000
)

// Ring is a number of keys: each is a recipient of what is encrypted.
type Ring struct {
	certificates []*certificate
	passphrase   string
}

// certificate is a primary key with what belongs to it (RFC 9580 section
// 10.1).
type certificate struct {
	primary *key
	subkeys []*key
	self    *pgp.Signature // of the primary key, the newest
	revoked bool
}

// ID returns a key id as gpg prints it.
func ID(id uint64) string { return fmt.Sprintf("%016X", id) }

// Read reads keys, binary or armored; a text may hold several blocks. passphrase
// is for private keys; it is tried when one is needed. Errors are status 64.
func Read(text []byte, passphrase string) (*Ring, error) {
	ring := &Ring{passphrase: passphrase}
	err := ring.read(text)
	if err == nil && len(ring.certificates) == 0 {
		err = fault.WithHint(errors.New("no key in it"), "export one: gpg --export --armor KEY, or gpg --export-secret-keys --armor KEY")
	}
	if err != nil {
		return nil, &fault.Error{Status: fault.Usage, Err: fmt.Errorf("openpgp key: %w", err)}
	}
	if len(ring.candidates(0)) == 0 {
		if _, err := ring.Recipients(time.Now()); err != nil {
			return nil, err // says what is wrong with the first
		}
	}
	return ring, nil
}

func (r *Ring) read(text []byte) error {
	if len(text) > maxText {
		return fmt.Errorf("more than %d MiB", maxText>>20)
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // as editors of Windows begin a file
	if len(bytes.TrimSpace(text)) == 0 {
		return errors.New("it is empty")
	}
	if text[0]&0x80 != 0 {
		return r.packets(bytes.NewReader(text))
	}
	// In a variable a newline is often written as backslash and n.
	text = bytes.ReplaceAll(text, []byte(`\n`), []byte("\n"))
	blocks := armor.NewReader(decode.NewInput(bytes.NewReader(text), "armored text", 4096))
	for {
		kind, err := blocks.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if kind != "PUBLIC KEY BLOCK" && kind != "PRIVATE KEY BLOCK" {
			return fmt.Errorf("it holds a PGP %s", kind)
		}
		if err := r.packets(blocks); err != nil {
			return err
		}
	}
}

// packets reads the packets of keys from binary data.
func (r *Ring) packets(from io.Reader) error {
	src := bufio.NewReader(from)
	var c *certificate // the last one
	var about any      // what a signature is about: *key, *pgp.UserId or nothing known
	for {
		body, err := packet.Next(src)
		if err == io.EOF {
			return nil
		}
		var data []byte
		if err == nil {
			data, err = body.All(maxText)
		}
		if err == io.ErrUnexpectedEOF {
			return errors.New("it is truncated")
		}
		if err != nil {
			return err
		}
		switch tag := body.Tag; tag {
		case packet.PublicKey, packet.SecretKey:
			if len(r.certificates) == maxKeys {
				return fmt.Errorf("more than %d keys", maxKeys)
			}
			c = &certificate{primary: newKey(tag, data)}
			r.certificates = append(r.certificates, c)
			about = c.primary
		case packet.PublicSubkey, packet.SecretSubkey:
			if c == nil {
				return errors.New("a subkey without its primary key")
			}
			if len(c.subkeys) == maxKeys {
				return fmt.Errorf("more than %d subkeys", maxKeys)
			}
			k := newKey(tag, data)
			c.subkeys = append(c.subkeys, k)
			about = k
		case packet.UserID:
			about = &pgp.UserId{Id: string(data)}
		case packet.UserAttribute:
			about = nil
		case packet.Signature:
			if c != nil {
				c.signature(about, data)
			}
		case packet.PublicKeyEncrypted, packet.PassphraseKey, packet.Encrypted, packet.Literal:
			return errors.New("it is a message, not a key")
		}
	}
}

const (
	subkeyRevocation = 0x28
	keyRevocation    = 0x20
	directKey        = 0x1f
	subkeyBinding    = 0x18
)

// signature takes what a signature says. Those of other people, and those that
// do not verify, say nothing; but each revocation counts, because the keys are
// the user's own choice and a wrong guess would encrypt for the wrong hands.
func (c *certificate) signature(about any, data []byte) {
	kind := byte(0)
	switch {
	case len(data) > 1 && data[0] >= 4:
		kind = data[1]
	case len(data) > 2: // version 3
		kind = data[2]
	}
	subkey, _ := about.(*key)
	switch {
	case kind == keyRevocation:
		c.revoked = true
		return
	case kind == subkeyRevocation && subkey != nil:
		subkey.revoked = true
		return
	}
	p, err := parse(packet.Signature, data)
	sig, ok := p.(*pgp.Signature)
	primary := c.primary.public
	if err != nil || !ok || primary == nil || sig.IssuerKeyId != nil && *sig.IssuerKeyId != primary.KeyId {
		return
	}
	switch about := about.(type) {
	case *pgp.UserId:
		if sig.SigType >= 0x10 && sig.SigType <= 0x13 && valid(func() error { return primary.VerifyUserIdSignature(about.Id, primary, sig) }) {
			c.self = newer(c.self, sig)
		}
	case *key:
		switch {
		// A signature over nothing but the key is computed as a revocation is.
		case about == c.primary && sig.SigType == directKey && valid(func() error { return primary.VerifyRevocationSignature(sig) }):
			c.self = newer(c.self, sig)
		case about.public != nil && sig.SigType == subkeyBinding && valid(func() error { return primary.VerifyKeySignature(about.public, sig) }):
			about.binding = newer(about.binding, sig)
		}
	}
}

// valid has the library verify a signature.
func valid(verify func() error) bool { return guard(verify) == nil }

func newer(a, b *pgp.Signature) *pgp.Signature {
	if a == nil || b.CreationTime.After(a.CreationTime) {
		return b
	}
	return a
}

// Names returns the ids of the keys that a message can be encrypted for.
func (r *Ring) Names() []string {
	var names []string
	for _, k := range r.candidates(0) {
		if !slices.Contains(names, k.id) { // public and private, in two blocks
			names = append(names, k.id)
		}
	}
	return names
}

// candidates returns the keys that can decrypt; those with an id, or all for 0.
func (r *Ring) candidates(id uint64) []*key {
	var found []*key
	add := func(k *key, sig *pgp.Signature) {
		if k.public != nil && k.encrypts(sig) && (id == 0 || k.public.KeyId == id) {
			found = append(found, k)
		}
	}
	for _, c := range r.certificates {
		add(c.primary, c.self)
		for _, k := range c.subkeys {
			add(k, k.binding)
		}
	}
	return found
}

// encrypts reports whether a key is for encryption, as far as its newest
// self-signature tells.
func (k *key) encrypts(sig *pgp.Signature) bool {
	return k.algorithm.encrypt && (sig == nil || allows(sig))
}

// allows reports whether a self-signature lets its key encrypt: by its flags, or
// by saying nothing.
func allows(sig *pgp.Signature) bool {
	return !sig.FlagsValid || sig.FlagEncryptCommunications || sig.FlagEncryptStorage
}

// Recipients returns the keys that a message is encrypted for, one of each
// certificate as gpg chooses it. Where one has none, the error is status 64. So
// is an expired key, as for gpg and WAL-G: who stops in time loses nothing and
// sees what to do, and who goes on may find out at a restore that the private
// key was destroyed when its time was over.
func (r *Ring) Recipients(now time.Time) ([]*pgp.PublicKey, error) {
	var all []*pgp.PublicKey
	for _, c := range r.certificates {
		k, err := c.recipient(now)
		if err != nil {
			return nil, &fault.Error{Status: fault.Usage, Err: fmt.Errorf("openpgp key %s: %w", c.primary.id, err)}
		}
		if !slices.ContainsFunc(all, func(other *pgp.PublicKey) bool { return other.KeyId == k.KeyId }) {
			all = append(all, k)
		}
	}
	return all, nil
}

func (c *certificate) recipient(now time.Time) (*pgp.PublicKey, error) {
	p := c.primary
	switch {
	case p.public == nil:
		return nil, fault.WithHint(fmt.Errorf("it cannot be used here: %s", p.why), "%s", StageHint)
	case c.revoked:
		return nil, fault.WithHint(errors.New("it is revoked"), "configure its successor; what was encrypted for this one can still be decrypted")
	case c.self == nil:
		return nil, errors.New("it has no self-signature that verifies")
	}
	if err := expired(p, c.self, now); err != nil {
		return nil, fmt.Errorf("it %w", err)
	}
	var best *key
	var refused error
	for _, k := range c.subkeys {
		switch {
		case !k.encrypts(k.binding):
		case k.revoked:
			refused = fmt.Errorf("its subkey %s is revoked", k.id)
		case k.public == nil: // and it may be the one that gpg chooses
			return nil, fault.WithHint(fmt.Errorf("its subkey %s cannot be used here: %s", k.id, k.why), "%s", StageHint)
		case k.binding == nil:
			refused = fmt.Errorf("its subkey %s has no signature that verifies", k.id)
		default:
			if err := expired(k, k.binding, now); err != nil {
				refused = fmt.Errorf("its subkey %s %w", k.id, err)
			} else if best == nil || k.public.CreationTime.After(best.public.CreationTime) {
				best = k
			}
		}
	}
	switch {
	case best != nil:
		return best.public, nil
	case refused != nil:
		return nil, refused
	case p.encrypts(c.self):
		return p.public, nil
	}
	return nil, fault.WithHint(errors.New("it has no subkey for encryption"), "add one: gpg --quick-add-key FINGERPRINT rsa3072 encrypt")
}

// expired fails after the end of a key's life, which is counted from its
// creation.
func expired(k *key, sig *pgp.Signature, now time.Time) error {
	if sig.KeyLifetimeSecs == nil || *sig.KeyLifetimeSecs == 0 {
		return nil
	}
	end := k.public.CreationTime.Add(time.Duration(*sig.KeyLifetimeSecs) * time.Second)
	if now.Before(end) {
		return nil
	}
	return fault.WithHint(fmt.Errorf("expired on %s", end.UTC().Format(time.DateOnly)),
		"extend it with gpg --quick-set-expire and export it again; what was encrypted for it can still be decrypted")
}
