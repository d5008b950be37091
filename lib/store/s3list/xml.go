package s3list

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// XML is written and read here by hand: a test of a million objects makes a
// thousand pages of it, and encoding/xml would take most of its time.

const (
	maxKeys   = 1000     // of one page, and of one deletion
	maxDelete = 10 << 20 // bytes of one deletion
)

func xml(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "application/xml")
	w.Write([]byte("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n")) // who does not read it has gone
	w.Write(body)
}

// refuse answers as S3 does. HEAD gets no body, as ever.
func refuse(w http.ResponseWriter, r *http.Request, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		fmt.Fprintf(w, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>%s</Code><Message>%s %s</Message></Error>",
			code, r.Method, html.EscapeString(r.URL.Path))
	}
}

// appendKey writes a key as the client wants to have it.
func appendKey(p []byte, key string, encode bool) []byte {
	plain := true
	for i := range len(key) {
		c := key[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '-' || c > '9') && c != '_' { // - . / and digits
			plain = false
			break
		}
	}
	switch {
	case plain:
		return append(p, key...)
	case encode:
		return append(p, strings.ReplaceAll(url.QueryEscape(key), "%2F", "/")...)
	}
	return append(p, html.EscapeString(key)...)
}

// list answers with one page.
func (f *Fake) list(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	prefix, from, limit := q.Get("prefix"), q.Get("prefix"), maxKeys
	after := q.Get("start-after")
	if token := q.Get("continuation-token"); token != "" {
		last, err := base64.URLEncoding.DecodeString(token)
		if err != nil {
			refuse(w, r, http.StatusBadRequest, "InvalidArgument")
			return
		}
		after = string(last)
	}
	if after != "" {
		from = max(from, after+"\x00") // the least that is greater
	}
	if text := q.Get("max-keys"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			refuse(w, r, http.StatusBadRequest, "InvalidArgument")
			return
		}
		limit = min(n, maxKeys)
	}
	encode := q.Get("encoding-type") == "url"

	page := make([]byte, 0, 256<<10)
	page = append(page, `<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>`+Bucket+`</Name><Prefix>`...)
	page = append(appendKey(page, prefix, encode), "</Prefix><MaxKeys>"...)
	page = append(strconv.AppendInt(page, int64(limit), 10), "</MaxKeys>"...)
	if encode {
		page = append(page, "<EncodingType>url</EncodingType>"...)
	}
	n, last, more := 0, "", false
	f.mu.RLock()
	for e := range f.from(from) {
		if !strings.HasPrefix(e.key, prefix) {
			break
		}
		if n == limit {
			more = limit > 0
			break
		}
		n, last = n+1, e.key
		page = f.appendEntry(page, e, encode)
	}
	f.mu.RUnlock()
	page = append(page, "<KeyCount>"...)
	page = append(strconv.AppendInt(page, int64(n), 10), "</KeyCount><IsTruncated>"...)
	page = append(strconv.AppendBool(page, more), "</IsTruncated>"...)
	if more {
		page = append(page, "<NextContinuationToken>"+base64.URLEncoding.EncodeToString([]byte(last))+"</NextContinuationToken>"...)
	}
	xml(w, append(page, "</ListBucketResult>"...))
}

func (f *Fake) appendEntry(p []byte, e entry, encode bool) []byte {
	p = append(p, "<Contents><Key>"...)
	p = append(appendKey(p, e.key, encode), "</Key><LastModified>"...)
	size := f.synthetic.Size
	if e.number >= 0 {
		p = append(append(p, f.modified...), "</LastModified><ETag>&quot;"...)
		p = append(appendTag(p, e.number), "&quot;</ETag><Size>"...)
	} else {
		o := f.small[e.key]
		size = int64(len(o.data))
		p = append(append(p, stamp(o.modified)...), "</LastModified><ETag>"...)
		p = append(append(p, html.EscapeString(o.etag)...), "</ETag><Size>"...)
	}
	p = strconv.AppendInt(p, size, 10)
	return append(p, "</Size><StorageClass>STANDARD</StorageClass></Contents>"...)
}

// deleteMany reads the keys of a deletion. Absent ones are deleted too, as S3
// sees it.
func (f *Fake) deleteMany(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxDelete))
	if err != nil {
		return // it was cut
	}
	if bytes.Contains(body, []byte("<VersionId>")) {
		refuse(w, r, http.StatusNotImplemented, "NotImplemented")
		return
	}
	var keys []string
	for rest := body; ; {
		_, rest, _ = bytes.Cut(rest, []byte("<Key>"))
		key, after, ok := bytes.Cut(rest, []byte("</Key>"))
		if !ok {
			break
		}
		keys, rest = append(keys, html.UnescapeString(string(key))), after
	}
	if len(keys) == 0 || len(keys) > maxKeys || !bytes.HasSuffix(bytes.TrimSpace(body), []byte("</Delete>")) {
		refuse(w, r, http.StatusBadRequest, "MalformedXML")
		return
	}
	f.mu.Lock()
	for _, key := range keys {
		f.remove(key)
	}
	f.mu.Unlock()
	answer := []byte("<DeleteResult>")
	if !bytes.Contains(body, []byte("<Quiet>true</Quiet>")) {
		for _, key := range keys {
			answer = append(append(answer, "<Deleted><Key>"...), html.EscapeString(key)...)
			answer = append(answer, "</Key></Deleted>"...)
		}
	}
	xml(w, append(answer, "</DeleteResult>"...))
}
