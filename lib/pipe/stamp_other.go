//go:build !linux

package pipe

import (
	"errors"
	"os"
)

// Without the stamp every pipe is foreign.

func isPipe(*os.File) bool              { return false }
func readMarks(*os.File) (marks, error) { return marks{}, errors.ErrUnsupported }
func addBits(*os.File, uint32) error    { return errors.ErrUnsupported }
func setTime(*os.File, int64) error     { return errors.ErrUnsupported }
func grow(*os.File)                     {}

// watchUnread cannot look into a pipe here.
func watchUnread(*os.File) func() int { return func() int { return 0 } }
