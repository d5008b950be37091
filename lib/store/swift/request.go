package swift

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"

	api "github.com/ncw/swift/v2"

	"walg/lib/fault"
	"walg/lib/store/driver"
)

// request is one request; the account is that of the settings.
type request struct {
	method            string
	container, object string
	query             url.Values
	header            api.Headers
	body              []byte
	server            bool // of the server and not of the account
}

// send does a request whose answer is in the headers.
func (d *Driver) send(ctx context.Context, r request) (*http.Response, error) {
	resp, err := d.do(ctx, r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxReply))
	return resp, err
}

// reply does a request whose answer is JSON.
func (d *Driver) reply(ctx context.Context, r request, into any) (*http.Response, error) {
	resp, err := d.do(ctx, r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err == nil && resp.StatusCode != http.StatusNoContent {
		if err = json.Unmarshal(said, into); err != nil {
			var syntax *json.SyntaxError
			cut := errors.As(err, &syntax) && syntax.Offset == int64(len(said))
			if err = fmt.Errorf("the answer is no JSON: %w", err); !cut { // what was cut may come whole
				err = driver.Permanent(err, "")
			}
		}
	}
	return resp, err
}

// do does a request, and does it again with a new token where the old one has
// expired. The library would also try again what the network has failed: that
// is package remote's.
func (d *Driver) do(ctx context.Context, r request) (*http.Response, error) {
	for again := false; ; again = true {
		target, token, err := d.session(ctx)
		if err != nil {
			return nil, err
		}
		if r.server {
			target = serverURL(target)
		}
		o := api.RequestOpts{Container: r.container, ObjectName: r.object, Operation: r.method, Parameters: r.query,
			Headers: api.Headers{}, Retries: -1}
		maps.Copy(o.Headers, r.header)
		if r.method == "PUT" || r.method == "POST" {
			o.Headers["Content-Length"] = strconv.Itoa(len(r.body))
		}
		if len(r.body) > 0 {
			o.Body = bytes.NewReader(r.body)
		}
		resp, _, err := d.c.Call(ctx, target, o)
		if err == nil {
			return resp, nil
		}
		status, text := said(err)
		if status == http.StatusUnauthorized && !again {
			if err := d.expired(ctx, token); err != nil {
				return nil, err
			}
			continue
		}
		if status == 0 || resp == nil {
			return nil, bare(err)
		}
		if id := resp.Header.Get("X-Trans-Id"); id != "" {
			text += " (transaction " + id + ")"
		}
		said := &answer{status, text}
		switch {
		case status == http.StatusPreconditionFailed && r.header["If-None-Match"] == "" && r.header["If-Match"] == "":
			return nil, driver.Permanent(said, "")
		case status == http.StatusBadRequest && strings.Contains(text, "Errors:"):
			return nil, said // a part that a manifest names could not be looked at
		}
		return nil, d.judge(said, status, resp.Header)
	}
}

// answer is an error that the server has told.
type answer struct {
	status int
	text   string
}

func (a *answer) Error() string { return a.text }

// undone reports whether the server has said that it did nothing.
func undone(err error) bool {
	var a *answer
	return errors.As(err, &a) && a.status < 500
}

// session returns the account's URL and the number of the token, which is had
// first where there is none. One asks for it, the others wait.
func (d *Driver) session(ctx context.Context) (string, int, error) {
	if err := d.lock(ctx); err != nil {
		return "", 0, err
	}
	defer d.unlock()
	if !d.c.Authenticated() {
		if !d.login {
			return "", 0, driver.Permanent(errors.New("the token has expired"), "OS_AUTH_TOKEN needs a new one, or OS_AUTH_URL and so on a user's name")
		}
		if err := d.c.Authenticate(ctx); err != nil {
			return "", 0, authError(err)
		}
		d.tokens++
	}
	target, err := d.c.GetStorageUrl(ctx)
	if d.storage != "" {
		target = d.storage
	}
	return strings.TrimSuffix(target, "/"), d.tokens, err
}

// expired drops a token, unless another goroutine has done so.
func (d *Driver) expired(ctx context.Context, token int) error {
	if err := d.lock(ctx); err != nil {
		return err
	}
	defer d.unlock()
	if d.tokens == token {
		d.c.UnAuthenticate()
	}
	return nil
}

func (d *Driver) lock(ctx context.Context) error {
	select {
	case d.auth <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (d *Driver) unlock() { <-d.auth }

// authError gives an error of the login its kind.
func authError(err error) error {
	status, text := said(err)
	who := "are OS_USERNAME and OS_PASSWORD right (and OS_PROJECT_NAME and OS_USER_DOMAIN_NAME, if there are projects)?"
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusBadRequest:
		return driver.Permanent(fmt.Errorf("log in: %s", text), who)
	case status != 0:
		if err := driver.Judge(fmt.Errorf("log in: %s", text), status, nil, ""); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return driver.Permanent(fmt.Errorf("log in: %s", text), "is OS_AUTH_URL right?")
	case text != "": // the library's own: the catalogue has no such storage
		return driver.Permanent(fmt.Errorf("log in: the answer names no object storage"),
			"are OS_REGION_NAME, OS_ENDPOINT_TYPE and OS_PROJECT_NAME right?")
	}
	return fmt.Errorf("log in: %w", bare(err))
}

// said returns status and text of an answer that is an error, 0 where the
// library or the network failed.
func said(err error) (int, string) {
	var e *api.Error
	if !errors.As(err, &e) {
		return 0, ""
	}
	if e.StatusCode == 0 {
		return 0, e.Text
	}
	text := strconv.Itoa(e.StatusCode)
	if name := http.StatusText(e.StatusCode); name != "" {
		text += " " + name
	}
	// The library has put the body behind its own text.
	if body := strings.TrimPrefix(strings.TrimPrefix(err.Error(), e.Text), ": "); body != "" {
		text += ": " + plain(body)
	}
	return e.StatusCode, text
}

var (
	inParagraph = regexp.MustCompile(`(?s)<p>(.*?)</p>`)
	tag         = regexp.MustCompile(`(?s)<[^>]*>`)
	inMessage   = regexp.MustCompile(`"message": *"((?:[^"\\]|\\.)*)"`)
)

// plain takes the message out of HTML or JSON, on one line.
func plain(body string) string {
	if m := inMessage.FindStringSubmatch(body); m != nil {
		body = m[1]
	} else if m := inParagraph.FindStringSubmatch(body); m != nil {
		body = m[1]
	}
	body = strings.Join(strings.Fields(html.UnescapeString(tag.ReplaceAllString(body, " "))), " ")
	const long = 200
	if len(body) > long {
		body = strings.ToValidUTF8(body[:long], "") + "..."
	}
	return body
}

// bare takes method and URL out of an error of the network.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// judge gives an answer its kind. 0 is an error without a status.
func (d *Driver) judge(err error, status int, header http.Header) error {
	switch status {
	case http.StatusUnauthorized:
		return driver.Permanent(err, "are OS_USERNAME and OS_PASSWORD, or OS_AUTH_TOKEN, right, and those of the owner of "+d.container+"?")
	case http.StatusForbidden:
		return driver.Permanent(err, "may the user of OS_USERNAME read and write "+d.container+" and "+d.segments+" (WALG_SWIFT_PREFIX)?")
	case http.StatusRequestEntityTooLarge:
		return driver.Permanent(err, "the object is too large for the server, or the account or container is over its quota")
	case http.StatusConflict, // its clock, or a part that is missing at the moment
		http.StatusUnprocessableEntity, // what arrived is not what was sent
		498, 499:                       // too many requests; the connection broke
		return err
	}
	return driver.Judge(err, status, header, "")
}

// absent finds out whether it is the container that an object was not found
// in, once.
func (d *Driver) absent(ctx context.Context, err error) error {
	switch {
	case err == nil:
		d.known.Store(true)
		return nil
	case !errors.Is(err, fs.ErrNotExist) || d.known.Load():
		return err
	}
	_, asked := d.look(ctx, d.container)
	switch {
	case asked == nil:
		d.known.Store(true)
	case errors.Is(asked, fs.ErrNotExist):
		return d.noContainer(asked)
	case !refused(asked):
		return asked
	}
	return err // who may not look at the container may still have objects in it
}

// look asks for a container. Not by HEAD: Swift gives that answer a body, which
// breaks the connection for the next request.
func (d *Driver) look(ctx context.Context, container string) (*http.Response, error) {
	return d.send(ctx, request{method: "GET", container: container, query: url.Values{"format": {"json"}, "limit": {"1"}}})
}

// refused reports whether an error is the server's last word.
func refused(err error) bool {
	var judged *fault.Error
	return errors.As(err, &judged)
}

// noContainer is what a 404 means that is not about an object.
func (d *Driver) noContainer(said error) error {
	err := fmt.Errorf("no container %s", d.container)
	var a *answer
	if errors.As(said, &a) {
		err = &answer{a.status, fmt.Sprintf("no container %s: %s", d.container, a.text)}
	}
	return driver.Permanent(err, "is WALG_SWIFT_PREFIX right? The container must exist: it is never made")
}

// ability is what the server can do.
type ability struct {
	bulk     bool // delete many objects by one request
	segments int  // of one manifest
}

const usualSegments = 1000

// abilities asks the server once. One that does not tell has large objects, as
// all have, and no bulk deletion.
func (d *Driver) abilities(ctx context.Context) (ability, error) {
	if a := d.ability.Load(); a != nil {
		return *a, nil
	}
	var info struct {
		Bulk *struct {
			Max int `json:"max_deletes_per_request"`
		} `json:"bulk_delete"`
		SLO struct {
			Max int `json:"max_manifest_segments"`
		} `json:"slo"`
	}
	a := ability{segments: usualSegments}
	_, err := d.reply(ctx, request{method: "GET", server: true}, &info)
	switch {
	case err == nil:
		a.bulk = info.Bulk != nil && (info.Bulk.Max == 0 || info.Bulk.Max >= batch)
		if info.SLO.Max > 0 {
			a.segments = min(info.SLO.Max, usualSegments)
		}
	case !refused(err) && !errors.Is(err, fs.ErrNotExist):
		return a, err
	}
	d.ability.Store(&a)
	return a, nil
}

// serverURL returns the place where a server tells what it can do.
func serverURL(account string) string {
	u, err := url.Parse(account)
	if err != nil {
		return account
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: path.Join(u.Path, "..", "..", "info")}).String()
}
