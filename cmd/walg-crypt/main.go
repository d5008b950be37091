// Walg-crypt encrypts its input to its output, or with -d the other way.
//
// This version has no encryption of its own: where no key is configured data
// passes through, and where one is configured nothing does, since data must
// never be stored in plain where its owner asked for encryption. A program of
// the user's can take the stage with --through.
package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"walg/lib/cli"
	"walg/lib/codec"
	"walg/lib/crypt"
	"walg/lib/fault"
	"walg/lib/pipe"
)

func main() {
	cli.Main(cli.Program{
		Name:     "walg-crypt",
		Synopsis: "[OPTION]... [FILE | -- COMMAND...]",
		About: `Encrypt FILE, the output of COMMAND, or standard input to standard output; with
-d decrypt. Where no key is configured data passes through as it is, and with
-d data that is encrypted is refused.`,
		Setup: setup,
	})
}

// keys are the settings that ask for encryption.
var keys = []string{
	"WALG_PGP_KEY", "WALG_PGP_KEY_PATH",
	"WALG_LIBSODIUM_KEY", "WALG_LIBSODIUM_KEY_PATH",
	"WALG_CSE_KMS_ID", "YC_CSE_KMS_KEY_ID",
}

func setup(f *cli.Flags) cli.Run {
	decrypt := f.Bool("decrypt", "d", "", "decrypt")
	method := f.String("method", "m", "", "auto", "encrypt with this `method`: none, or auto for that of the configured key")
	streams := f.Input(false).Output(f).Through(f)

	return func(ctx context.Context, e *cli.Env) error {
		if *method != "auto" && *method != "none" {
			return fault.WithHint(fault.New(fault.Usage, "encryption method %q is not supported by this version", *method),
				"run a program of your own as the stage: --through -- gpg -e -r RECIPIENT")
		}
		return streams.Filter(ctx, e, func(out *pipe.Output, in *pipe.Input) error {
			verb := "encrypt"
			if *decrypt {
				verb = "decrypt"
			}
			err := refuseKeys(e, *method)
			if err == nil {
				err = pass(out, in, *decrypt && *method == "auto")
			}
			if err != nil {
				return fmt.Errorf("%s %s: %w", verb, in.Name(), err)
			}
			return nil
		})
	}
}

// refuseKeys refuses to go on where encryption is configured.
func refuseKeys(e *cli.Env, method string) error {
	var set []string
	for _, name := range keys {
		if e.Setting(name) != "" {
			set = append(set, name)
		}
	}
	switch {
	case len(set) == 0:
		return nil
	case method == "none":
		return fault.New(fault.Usage, "-m none contradicts %s", strings.Join(set, ", "))
	}
	return fault.WithHint(
		fault.New(fault.Usage, "encryption by %s is not supported by this version, and plain data must not pass", strings.Join(set, ", ")),
		"unset it and run a program of your own as the stage: --through -- gpg -e -r RECIPIENT")
}

// pass copies data as it is. With wary, data that is encrypted is refused.
func pass(out *pipe.Output, in *pipe.Input, wary bool) error {
	out.Follow(in)
	var src io.Reader = in
	if wary {
		head, rest, err := pipe.Peek(in, codec.HeadSize)
		if err != nil {
			return err
		}
		if what := crypt.Detect(head); what != "" {
			return fault.WithHint(fault.New(fault.Data, "this is %s data and no key is configured", what),
				"run the program that has the key as the stage: --through -- gpg -d; -m none passes data through")
		}
		src = rest
	}
	_, err := pipe.Copy(out, src)
	return err
}
