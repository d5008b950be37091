//go:build linux

package open

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"walg/lib/fault"
	"walg/lib/store/faulttest"
)

// What trying again cannot mend: status 64, a hint at the setting, soon, and
// after very few requests.

// fewRequests is how often a storage may be asked before it is believed: for each
// of two objects that are deleted one that is refused and one that finds out why,
// and a login before.
const fewRequests = 5

func eachVerb(t *testing.T, b *backend, f func(c *bench, o operation)) {
	for _, o := range verbs {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			c := newBench(t, b, false)
			o.prepare(c)
			f(c, o)
		})
	}
}

// refused runs an operation that must be refused.
func (c *bench) refused(o operation, cause, hint string) {
	c.Helper()
	took, err := c.run(o, c.store(c.b.timing(o, false)))
	c.judge(o, err, took, refusal, []int{fault.Usage}, cause, hint)
	if n := c.noticed(""); n > 0 {
		c.Errorf("it was tried again: %q", c.notices)
	}
	if c.proxy != nil && len(c.proxy.Records()) > fewRequests {
		c.Errorf("%d requests: %v", len(c.proxy.Records()), c.proxy.Records())
	}
}

func TestARefusalIsStatus64(t *testing.T) {
	t.Parallel()
	eachBackend(t, false, func(t *testing.T, b *backend) {
		for _, refusal := range []struct{ name, cause string }{
			{"403", `403|denied|forbidden`},
			{"clock", `403|401|skew|time|expired`},
			{"301", `301|redirect|moved`},
		} {
			if b.bodies[refusal.name] == nil {
				continue
			}
			t.Run(refusal.name, func(t *testing.T) {
				t.Parallel()
				eachVerb(t, b, func(c *bench, o operation) {
					fired := c.proxy.Break(faulttest.Fault{
						Match: func(r *http.Request) bool { return c.b.kind(r) != "login" },
						Do:    b.bodies[refusal.name]().action(),
					})
					c.refused(o, refusal.cause, b.hints[refusal.name])
					if fired() == 0 {
						c.Error("the fault never fired")
					}
					o.check(c, false, true)
				})
			})
		}
	})
}

// saw counts the answers of a status that the real server gave.
func (c *bench) saw(statuses ...int) {
	c.Helper()
	for _, r := range c.proxy.Records() {
		for _, status := range statuses {
			if r.Status == status {
				return
			}
		}
	}
	c.Errorf("the server never said %d: %v", statuses, c.proxy.Records())
}

func TestWrongCredentialsAreStatus64(t *testing.T) {
	t.Parallel()
	eachBackend(t, false, func(t *testing.T, b *backend) {
		if b.wrong == nil {
			t.Log("this server asks for none") // fake-gcs-server
			return
		}
		eachVerb(t, b, func(c *bench, o operation) {
			b.wrong(c.env)
			c.refused(o, `403|401|denied|unauthorized|authentication`, b.hints["403"])
			c.saw(http.StatusUnauthorized, http.StatusForbidden)
			o.check(c, false, true)
		})
	})
}

// The real server's view of a clock that is wrong: nobody can set the one with
// which the SDK signs, but the time in a request can be made an old one on its way.
// MinIO looks at it before the signature. Azurite does not look, and Google's
// storage looks only at the time in the login, for which the emulator does not
// ask.
func TestAWrongClockIsStatus64(t *testing.T) {
	t.Parallel()
	b := backendOf("s3")
	eachVerb(t, b, func(c *bench, o operation) {
		fired := c.proxy.Break(faulttest.Fault{Do: faulttest.Altered(func(h http.Header) {
			h.Set("X-Amz-Date", time.Now().Add(-time.Hour).UTC().Format("20060102T150405Z"))
		})})
		c.refused(o, `RequestTimeTooSkewed`, `clock`)
		if fired() == 0 {
			c.Error("the fault never fired")
		}
		c.saw(http.StatusForbidden)
		o.check(c, false, true)
	})
}

// Swift's tokens expire in the middle of things, by Swift's clock: they are had
// anew, once.
func TestAnExpiredTokenIsRenewed(t *testing.T) {
	t.Parallel()
	b := backendOf("swift")
	for _, test := range []struct {
		name        string
		times, want int
		cause, hint string
	}{{"once", 1, fault.OK, "", ""}, {"always", 0, fault.Usage, `401`, `OS_USERNAME|OS_AUTH_TOKEN`}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			eachVerb(t, b, func(c *bench, o operation) {
				fired := c.aim(o, test.times, faulttest.Altered(func(h http.Header) { h.Set("X-Auth-Token", "AUTH_tkexpired") }))
				took, err := c.run(o, c.store(b.timing(o, false)))
				c.judge(o, err, took, refusal, []int{test.want}, test.cause, test.hint)
				if fired() == 0 {
					c.Error("the fault never fired")
				}
				if o.verb != "delete" { // of many objects: there it is in the body
					c.saw(http.StatusUnauthorized)
				}
				o.check(c, err == nil, err != nil)
			})
		})
	}
}

func TestAMissingBucketIsStatus64(t *testing.T) {
	t.Parallel()
	eachBackend(t, false, func(t *testing.T, b *backend) {
		eachVerb(t, b, func(c *bench, o operation) {
			const absent = "walg-absent"
			c.env[b.prefix] = strings.Replace(c.env[b.prefix], "://walg/", "://"+absent+"/", 1)
			c.refused(o, `404|no such|not exist|not found|no container`, b.prefix)
			c.saw(http.StatusNotFound)
			o.check(c, false, true)
		})
	})
}

func TestTLSThatCannotBeIsStatus64(t *testing.T) {
	t.Parallel()
	eachBackend(t, false, func(t *testing.T, b *backend) {
		t.Run("unknown authority", func(t *testing.T) {
			t.Parallel()
			eachVerb(t, b, func(c *bench, o operation) {
				_, direct := b.address(t)
				c.proxy = faulttest.NewTLS(c, "http://"+direct)
				c.env = b.at(c, c.proxy.Addr())
				secure(c.env, b.endpoint)
				c.refused(o, `certificate signed by unknown authority`, b.hints["authority"])
				c.handshakes()
				o.check(c, false, true)
			})
		})
		t.Run("no TLS there", func(t *testing.T) {
			t.Parallel()
			eachVerb(t, b, func(c *bench, o operation) {
				secure(c.env, b.endpoint)
				c.refused(o, `HTTP response to HTTPS client|not look like a TLS handshake`, b.endpoint)
				o.check(c, false, true)
			})
		})
	})
}

// handshakes checks that the client has refused the proxy's certificate. The
// proxy hears of it a moment after the client has said so.
func (c *bench) handshakes() {
	c.Helper()
	for end := time.Now().Add(refusal); c.proxy.Refused() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			c.Error("the client has refused no certificate")
			return
		}
	}
}

// secure makes the endpoint one that speaks TLS.
func secure(env map[string]string, endpoint string) {
	value := strings.TrimPrefix(env[endpoint], "http://")
	env[endpoint] = "https://" + value
}

// The same with the real servers that have a certificate, of an authority that
// only the setting names.
func TestTheRealServersAuthorityIsUnknownWithoutItsSetting(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ of, server, authority string }{
		{"s3", "minio-tls", "WALG_S3_CA_CERT_FILE"},
		{"azure", "azurite-tls", "SSL_CERT_FILE"},
	} {
		b := backendOf(test.of)
		t.Run(test.server, func(t *testing.T) {
			t.Parallel()
			b := b.withServer(test.server)
			for _, o := range []operation{putNew, listOperation, deleteOperation} {
				t.Run(o.name, func(t *testing.T) {
					t.Parallel()
					c := &bench{T: t, b: b, patience: patience, root: "faults/tls"}
					env, direct := b.address(t)
					c.env = b.at(t, direct)
					if env[test.authority] == "" {
						t.Fatal("the server has no " + test.authority)
					}
					delete(c.env, test.authority)
					c.refused(o, `certificate signed by unknown authority`, test.authority)
				})
			}
			if test.of != "s3" {
				return // Go reads SSL_CERT_FILE itself, once in a process
			}
			t.Run("and known with it", func(t *testing.T) {
				t.Parallel()
				c := newBenchDirect(t, b)
				c.opened = c.clean
				took, err := c.run(putNew, c.clean)
				c.judge(putNew, err, took, refusal, []int{fault.OK}, "", "")
				putNew.check(c, true, false)
			})
		})
	}
}

func TestAHostWithoutAnAddressIsStatus64(t *testing.T) {
	t.Parallel()
	eachBackend(t, true, func(t *testing.T, b *backend) {
		for _, o := range verbs {
			t.Run(o.name, func(t *testing.T) {
				t.Parallel()
				const nowhere = "nowhere.invalid:443"
				c := &bench{T: t, b: b, patience: patience}
				c.env = b.at(t, nowhere)
				before := questions.Load()
				c.refused(o, `no such host`, b.hints["endpoint"])
				if questions.Load() == before {
					t.Error("no name server was asked")
				}
			})
		}
	})
}
