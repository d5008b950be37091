package pgtest

import "syscall"

// dieWithParent: SIGQUIT is PostgreSQL's immediate shutdown.
func dieWithParent(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGQUIT }
