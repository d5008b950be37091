package open

import (
	"context"
	"net"
	"strings"

	"walg/lib/fault"
	"walg/lib/store"
	"walg/lib/store/azure"
	"walg/lib/store/driver"
	"walg/lib/store/gcs"
	"walg/lib/store/remote"
	"walg/lib/store/s3"
	"walg/lib/store/sftp"
	"walg/lib/store/swift"
)

// place is a URL taken apart. Nothing in it is an escape: % stands for itself.
type place struct {
	scheme string
	host   string // or bucket, or container
	path   string // without the slash that ends the host
}

// canonical returns the scheme under which a storage is known here.
func canonical(scheme string) string {
	switch scheme {
	case "sftp":
		return "ssh"
	case "gcs":
		return "gs"
	case "az":
		return "azure"
	}
	return scheme
}

func parse(scheme, rest string) (place, error) {
	host, path, _ := strings.Cut(rest, "/")
	p := place{scheme, host, path}
	switch scheme {
	case "s3", "gs", "azure", "swift":
		if host == "" || strings.ContainsAny(host, "@?#: ") {
			return p, fault.New(fault.Usage, "%s: want %s://bucket/path", Redact(scheme+"://"+rest), scheme)
		}
	case "ssh":
		if host == "" || strings.HasSuffix(host, "@") {
			return p, fault.New(fault.Usage, "%s: want ssh://host/path", Redact(scheme+"://"+rest))
		}
	default:
		return p, fault.New(fault.Usage, "%s: unknown scheme %q", Redact(scheme+"://"+rest), scheme)
	}
	return p, nil
}

// connect makes the store of the objects in a place whose names begin with
// root. No request is sent yet.
func connect(ctx context.Context, s Settings, p place, root string) (store.Store, error) {
	var driver driver.Driver
	var err error
	switch p.scheme {
	case "s3":
		driver, err = s3.New(ctx, p.host, &s.Remote)
	case "gs":
		driver, err = gcs.New(ctx, p.host, &s.Remote)
	case "azure":
		driver, err = azure.New(ctx, p.host, &s.Remote)
	case "swift":
		driver, err = swift.New(ctx, p.host, &s.Remote)
	case "ssh":
		driver, err = sftp.New(ctx, address(p.host, root), &s.Remote)
	}
	if err != nil {
		return nil, err
	}
	return remote.New(driver, root, s.Policy), nil
}

// address takes the host of an SSH URL apart: [user@]host[:port], where the
// host may be an IPv6 address in brackets.
func address(host, root string) sftp.Address {
	a := sftp.Address{Host: host, Root: "/" + strings.TrimSuffix(root, "/")}
	if at := strings.LastIndex(host, "@"); at >= 0 {
		a.User, a.Host = host[:at], host[at+1:]
	}
	if name, port, err := net.SplitHostPort(a.Host); err == nil {
		a.Host, a.Port = name, port
	} else {
		a.Host = strings.Trim(a.Host, "[]")
	}
	return a
}
