package unpack

import (
	"context"

	"walg/lib/tarball/tartest"
)

var ctx = context.Background()

var (
	must       = tartest.Must
	put        = tartest.Put
	when       = tartest.When
	wantStatus = tartest.WantStatus
	snapshot   = tartest.Snapshot
	wantSame   = tartest.WantSame
	ordinary   = tartest.Ordinary
	tarOf      = tartest.TarOf
	regular    = tartest.Regular
	folder     = tartest.Folder
	symlink    = tartest.Symlink
	mixed      = tartest.Mixed
	errDied    = tartest.ErrDied
)
