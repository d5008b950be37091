package ask

import (
	"net"
	"net/url"
	"strings"

	"walg/lib/fault"
)

// Endpoint judges the address of a service that a setting gives, and returns it
// without a slash at the end. Data keys and tokens go there, so it is one of
// https, or of this machine itself. Anything else is status 64.
func Endpoint(setting, address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" ||
		u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", fault.New(fault.Usage, "setting %s: want an URL such as https://HOST", setting)
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme == "http" && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return "", fault.New(fault.Usage, "setting %s: keys are sent there, so it must begin with https://", setting)
	}
	return strings.TrimRight(address, "/"), nil
}
