// Walg-crypt encrypts its input to its output, or with -d the other way.
//
// The method is that of the configured key: OpenPGP, libsodium's secretstream,
// or a data key that AWS or Yandex KMS guards. Where no key is configured data
// passes through; where one is, nothing passes in plain.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"walg/lib/cli"
	"walg/lib/crypt"
	"walg/lib/crypt/open"
	"walg/lib/fault"
	"walg/lib/pipe"
)

func main() {
	cli.Main(cli.Program{
		Name:     "walg-crypt",
		Synopsis: "[OPTION]... [FILE | -- COMMAND...]",
		About: `Encrypt FILE, the output of COMMAND, or standard input to standard output; with
-d decrypt, with --inspect say what it takes to decrypt. The method is that of
the configured key: WALG_PGP_KEY_PATH, WALG_LIBSODIUM_KEY_PATH, WALG_CSE_KMS_ID
or YC_CSE_KMS_KEY_ID, and more in walg-crypt(1). Where no key is configured data
passes through as it is, and with -d data that is encrypted is refused.`,
		Setup: setup,
	})
}

func setup(f *cli.Flags) cli.Run {
	decrypt := f.Bool("decrypt", "d", "", "decrypt")
	inspect := f.Bool("inspect", "", "", "print the method, the keys that open the data, and whether the configured one does")
	method := f.String("method", "m", "", "auto", "encrypt with this `method`: openpgp, libsodium, aws-kms, yc-kms, none, or auto for that of the configured key")
	allowPlain := f.Bool("allow-plain", "", "", "with -d pass data that is not encrypted, in spite of a configured key")
	weakKey := f.Bool("weak-key", "", "", "encrypt with a libsodium key that is a text of fewer than 32 bytes")
	timeout := f.Duration("timeout", time.Minute, "how long to ask a key service, a `time`")
	streams := f.Input(false).Output(f).Through(f)

	return func(ctx context.Context, e *cli.Env) error {
		m, err := open.Configured(open.Settings{Lookup: e.Lookup, Method: *method, WeakKey: *weakKey, Timeout: *timeout})
		if err != nil {
			return err
		}
		if m != nil && f.Given("through") {
			return fault.WithHint(fault.New(fault.Usage, "a key for %s is configured, and --through runs another program", m.Name()),
				"unset the key's settings where another program encrypts")
		}
		return streams.Filter(ctx, e, func(out *pipe.Output, in *pipe.Input) error {
			verb, work := "encrypt", encrypt
			switch {
			case *inspect:
				verb, work = "inspect", report
			case *decrypt && m == nil && *method == "none":
				verb, work = "decrypt", pass
			case *decrypt:
				verb, work = "decrypt", func(ctx context.Context, out *pipe.Output, in *pipe.Input, m crypt.Method) error {
					return reveal(ctx, out, in, m, *allowPlain)
				}
			case m == nil:
				work = pass
			}
			if err := work(ctx, out, in, m); err != nil {
				return fmt.Errorf("%s %s: %w", verb, in.Name(), err)
			}
			return nil
		})
	}
}

// pass copies data as it is.
func pass(_ context.Context, out *pipe.Output, in *pipe.Input, _ crypt.Method) error {
	out.Follow(in)
	if err := in.Await(); err != nil {
		return err
	}
	_, err := pipe.Copy(out, in)
	return err
}

func encrypt(ctx context.Context, out *pipe.Output, in *pipe.Input, m crypt.Method) error {
	if err := crypt.SelfTest(ctx, m); err != nil {
		return err
	}
	out.Follow(in)
	if err := in.Await(); err != nil {
		return err
	}
	w, err := m.NewWriter(ctx, out)
	if err != nil {
		return err
	}
	if _, err := pipe.Copy(w, in); err != nil {
		return err
	}
	return w.Close()
}

// reveal decrypts. Data that the method did not write is an error, and passes
// only where the user allows it.
func reveal(ctx context.Context, out *pipe.Output, in *pipe.Input, m crypt.Method, allowPlain bool) error {
	head, src, err := pipe.Peek(in, open.HeadSize)
	if err != nil {
		return err
	}
	encrypted, err := open.Encrypted(ctx, m, head, allowPlain)
	if err != nil {
		return err
	}
	if !encrypted {
		out.Follow(in)
		if err := in.Await(); err != nil {
			return err
		}
		_, err = pipe.Copy(out, src)
		return err
	}
	r := m.NewReader(ctx, src)
	out.FollowEnd(in, r.Proven)
	_, err = io.Copy(out, r)
	return err
}

// report prints what the data needs. It reads no more than the beginning.
func report(ctx context.Context, out *pipe.Output, in *pipe.Input, m crypt.Method) error {
	head, _, err := pipe.Peek(in, open.HeadSize)
	if err != nil {
		return err
	}
	r, err := open.Inspect(ctx, m, bytes.NewReader(head))
	if err != nil {
		return err
	}
	_, err = io.WriteString(out, r.String())
	return err
}
