// Package crypt knows what encrypted data looks like.
package crypt

// Detect names the encryption that the first bytes of a stream show, or
// returns "". libsodium's secretstream and the envelope of AWS KMS have no
// magic.
func Detect(head []byte) string {
	switch {
	case hasPrefix(head, "-----BEGIN PGP"):
		return "OpenPGP (armored)"
	case hasPrefix(head, "yckms"), hasPrefix(head, "envelope-yc-kms"):
		return "Yandex KMS"
	case len(head) >= 3 && isOpenPGP(head):
		return "OpenPGP"
	}
	return ""
}

// isOpenPGP recognises the packet that begins an encrypted message (RFC 9580
// section 4.2): a session key, encrypted with a public key (tag 1, version 3
// or 6) or a passphrase (tag 3, version 4 to 6).
func isOpenPGP(head []byte) bool {
	var tag, version byte
	switch first := head[0]; {
	case first&0xc0 == 0xc0: // new format, one-octet length
		tag, version = first&0x3f, head[2]
		if head[1] >= 192 { // two octets
			if len(head) < 4 {
				return false
			}
			version = head[3]
		}
	case first&0x80 != 0: // old format
		tag = first >> 2 & 0xf
		octets := 1 << (first & 3)
		if first&3 == 3 || len(head) < 2+octets {
			return false
		}
		version = head[1+octets]
	default:
		return false
	}
	return tag == 1 && (version == 3 || version == 6) || tag == 3 && version >= 4 && version <= 6
}

func hasPrefix(b []byte, s string) bool { return len(b) >= len(s) && string(b[:len(s)]) == s }
