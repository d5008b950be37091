package openpgp

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"walg/lib/crypt/openpgp/armor"
	"walg/lib/crypt/openpgp/keyring"
	"walg/lib/crypt/openpgp/packet"
	"walg/lib/decode"
	"walg/lib/fault"
)

const (
	inputSize  = 128 << 10
	maxKeys    = 256     // that a message is encrypted for
	maxKeySize = 8 << 10 // of an encrypted session key; ElGamal with 16384 bits has 4 KiB

	gpgHint = "let gpg read it: WALG_DECRYPT_COMMAND='gpg -d', or walg-crypt -d --through -- gpg -d"
)

// input is a message without its armor.
type input struct {
	*decode.Input
	armor *armor.Reader // or nil
}

// fault gives an error its status.
func (in input) fault(err error) error {
	var known *fault.Error
	if errors.As(err, &known) {
		return err
	}
	return in.Fault(err)
}

// end fails where anything follows the message.
func (in input) end() error {
	_, err := in.Peek(1)
	switch {
	case err == nil:
		return in.Corrupt("something else after the message")
	case err != io.EOF:
		return err
	case in.armor != nil:
		return in.armor.Rest()
	}
	return nil
}

// envelope is what a message says before its data.
type envelope struct {
	keys       []keyring.Sealed
	unknown    int // session keys of a version that is not read here
	passphrase bool
	data       *packet.Body // after the version
}

// open takes off the armor, if there is one.
func open(plain *decode.Input) (input, error) {
	in := input{Input: plain}
	head, err := plain.Peek(len(armor.Begin))
	if string(head) != armor.Begin {
		if err != io.EOF {
			return in, err
		}
		return in, nil // short, and an error soon
	}
	text := armor.NewReader(plain)
	kind, err := text.Message()
	if err == nil && kind != "MESSAGE" {
		err = plain.Corrupt("a PGP %s, not a message", kind)
	}
	if err != nil {
		return in, err
	}
	return input{decode.NewInput(text, "openpgp", inputSize), text}, nil
}

// begin reads a message up to its data.
func begin(plain *decode.Input) (e envelope, in input, err error) {
	if in, err = open(plain); err != nil {
		return e, in, err
	}
	for first := true; ; first = false {
		body, err := packet.Next(in)
		switch {
		case err == io.EOF:
			return e, in, in.Corrupt("truncated")
		case err != nil && first && err != io.ErrUnexpectedEOF:
			return e, in, in.fault(fmt.Errorf("not an OpenPGP message: %w", err))
		case err != nil:
			return e, in, err
		}
		switch body.Tag {
		case packet.PublicKeyEncrypted:
			err = e.add(body)
		case packet.PassphraseKey:
			e.passphrase = true
			_, err = body.All(maxKeySize)
		case packet.Marker:
			_, err = body.All(maxKeySize)
		case packet.Encrypted:
			e.data = body
			return e, in, in.version(body)
		case packet.EncryptedBare:
			err = fault.WithHint(in.Corrupt("the message has no integrity protection (packet type 9): who could write to it could have changed it unnoticed"),
				"%s, if you trust its source", gpgHint)
		case packet.EncryptedOCB:
			err = fault.WithHint(in.Corrupt("the message is encrypted in GnuPG's OCB mode (packet type 20), which is not read here"),
				"%s, of version 2.3 or later; to write what every reader knows: gpg --rfc4880", gpgHint)
		case packet.Literal, packet.Compressed, packet.OnePassSignature, packet.Signature:
			err = in.Corrupt("the message is not encrypted (packet type %d)", body.Tag)
		case packet.PublicKey, packet.SecretKey:
			err = in.Corrupt("a key, not a message")
		default:
			err = in.Corrupt("not an OpenPGP message: it begins with packet type %d", body.Tag)
		}
		if err != nil {
			return e, in, err
		}
	}
}

// version reads that of the encrypted data.
func (in input) version(body *packet.Body) error {
	var version [1]byte
	_, err := io.ReadFull(body, version[:])
	switch {
	case err == io.EOF:
		return io.ErrUnexpectedEOF
	case err != nil:
		return err
	case version[0] == 2:
		return fault.WithHint(in.Corrupt("the message is encrypted in an AEAD mode (version 2 of packet type 18), which is not read here"),
			"let another program read it, such as sq: walg-crypt -d --through -- sq decrypt")
	case version[0] != 1:
		return in.Corrupt("encrypted data of the unknown version %d", version[0])
	}
	return nil
}

// add reads a session key.
func (e *envelope) add(body *packet.Body) error {
	if len(e.keys)+e.unknown == maxKeys {
		return fmt.Errorf("encrypted for more than %d keys", maxKeys)
	}
	data, err := body.All(maxKeySize)
	switch {
	case err != nil:
		return err
	case len(data) > 0 && data[0] != 3:
		e.unknown++
		return nil
	}
	sealed, err := keyring.ParseSealed(data)
	e.keys = append(e.keys, sealed)
	return err
}

// names returns the ids of the keys that a message is encrypted for.
func (e *envelope) names() []string {
	var names []string
	for _, k := range e.keys {
		name := keyring.ID(k.ID)
		if hidden(k) {
			name += " (hidden)"
		}
		names = append(names, name)
	}
	return names
}

// fits says whether the ring opens the message; or why it does not, or why that
// is not known.
func (e *envelope) fits(ring *keyring.Ring) (bool, string) {
	_, err := e.session(ring)
	if err == nil {
		return true, ""
	}
	if fault.Status(err) == fault.Data && slices.ContainsFunc(e.keys, hidden) {
		if err := ring.Usable(); err != nil {
			return false, "a key is hidden, and none can be tried: " + err.Error()
		}
	}
	return false, err.Error()
}

func hidden(k keyring.Sealed) bool { return k.ID == 0 }

// session finds the session key. An error has status 64 where the key that fits
// cannot be used, else 65.
func (e *envelope) session(ring *keyring.Ring) (keyring.Session, error) {
	var found error
	for _, k := range e.keys {
		s, err := ring.Open(k)
		if err == nil {
			return s, nil
		}
		if err != keyring.ErrOther {
			found = err
		}
	}
	ours := "the configured key is " + strings.Join(ring.Names(), ", ")
	switch {
	case found != nil && fault.Status(found) == fault.Usage:
	case found != nil:
		found = fault.New(fault.Data, "%w", found)
	case len(e.keys) > 0:
		found = fault.New(fault.Data, "encrypted for %s; %s", strings.Join(e.names(), ", "), ours)
	case e.unknown > 0:
		found = fault.New(fault.Data, "encrypted for keys in a form that is not read here; %s", ours)
	case e.passphrase:
		found = fault.WithHint(fault.New(fault.Data, "encrypted with a passphrase, not for a key"), gpgHint)
	default:
		found = fault.New(fault.Data, "no session key in the message")
	}
	return keyring.Session{}, found
}
