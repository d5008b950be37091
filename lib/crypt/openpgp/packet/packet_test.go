package packet

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func source(s string) *bufio.Reader { return bufio.NewReader(strings.NewReader(s)) }

// next reads a whole packet.
func next(src Source) (tag byte, body string, err error) {
	b, err := Next(src)
	if err != nil {
		return 0, "", err
	}
	p, err := io.ReadAll(b)
	return b.Tag, string(p), err
}

func TestEveryFormOfLengthIsRead(t *testing.T) {
	long := strings.Repeat("x", 8384)
	for _, c := range []struct {
		name, head, body string
		tag              byte
	}{
		{"old, one octet", "\x84\x03", "abc", 1},
		{"old, two octets", "\x85\x00\x03", "abc", 1},
		{"old, four octets", "\x86\x00\x00\x00\x03", "abc", 1},
		{"new, one octet", "\xc1\x03", "abc", 1},
		{"new, one octet, empty", "\xd2\x00", "", 18},
		{"new, one octet, most", "\xc1\xbf", long[:191], 1},
		{"new, two octets, least", "\xc1\xc0\x00", long[:192], 1},
		{"new, two octets, most", "\xc1\xdf\xff", long[:8383], 1},
		{"new, five octets", "\xc1\xff\x00\x00\x20\xc0", long, 1},
		{"new, five octets, small", "\xc1\xff\x00\x00\x00\x03", "abc", 1},
	} {
		src := source(c.head + c.body + "rest")
		tag, body, err := next(src)
		rest, _ := io.ReadAll(src)
		if err != nil || tag != c.tag || body != c.body || string(rest) != "rest" {
			t.Errorf("%s: tag %d, %d bytes, rest %q, %v", c.name, tag, len(body), rest, err)
		}
		whole := c.head + c.body
		for cut := 1; cut < len(whole); cut += 1 + cut/10 {
			if _, _, err := next(source(whole[:cut])); err != io.ErrUnexpectedEOF {
				t.Errorf("%s cut to %d bytes: %v", c.name, cut, err)
			}
		}
	}
}

func TestPartialLengthsAreJoined(t *testing.T) {
	whole := "\xd2\xe1ab\xe0c\xe2defg\x02hi"
	src := source(whole + "rest")
	tag, body, err := next(src)
	if err != nil || tag != 18 || body != "abcdefghi" {
		t.Errorf("tag %d, %q, %v", tag, body, err)
	}
	if rest, _ := io.ReadAll(src); string(rest) != "rest" {
		t.Errorf("rest %q", rest)
	}
	for cut := 1; cut < len(whole); cut++ {
		if _, _, err := next(source(whole[:cut])); err != io.ErrUnexpectedEOF {
			t.Errorf("cut to %d: %v", cut, err)
		}
	}
	if _, body, err := next(source("\xd2\xe1ab\x00")); err != nil || body != "ab" {
		t.Errorf("an empty last piece: %q, %v", body, err)
	}
}

func TestAnIndeterminateLengthEndsWithTheSource(t *testing.T) {
	if tag, body, err := next(source("\xa3abc")); err != nil || tag != 8 || body != "abc" {
		t.Errorf("tag %d, %q, %v", tag, body, err)
	}
	b, err := Next(source("\xa3"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Peek(); err != io.EOF {
		t.Errorf("peek at the end: %v", err)
	}
}

func TestPeekAndDiscardSeeWhatReadSees(t *testing.T) {
	b, err := Next(bufio.NewReaderSize(iotest.HalfReader(strings.NewReader("\xd2\xe4abcdefghijklmnop\x02qr")), 16))
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	for {
		p, err := b.Peek()
		if err == io.EOF {
			break
		}
		if err != nil || len(p) == 0 {
			t.Fatalf("%d bytes, %v", len(p), err)
		}
		n := (len(p) + 1) / 2
		got = append(got, p[:n]...)
		b.Discard(n)
	}
	if string(got) != "abcdefghijklmnopqr" {
		t.Errorf("%q", got)
	}
}

func TestALargePacketIsRefusedBeforeItIsRead(t *testing.T) {
	for _, head := range []string{"\xc1\xff\xff\xff\xff\xff", "\x86\xff\xff\xff\xff", "\xc1\xfe", "\xc1\x65"} {
		b, err := Next(source(head + strings.Repeat("x", 200)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.All(100); err == nil || !strings.Contains(err.Error(), "more than 100 bytes") {
			t.Errorf("%x: %v", head, err)
		}
	}
	b, err := Next(source("\xc1\x64" + strings.Repeat("x", 100)))
	if err != nil {
		t.Fatal(err)
	}
	if p, err := b.All(100); len(p) != 100 || err != nil {
		t.Errorf("at the limit: %d bytes, %v", len(p), err)
	}
	b, err = Next(source("\x87" + strings.Repeat("x", 101)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.All(100); err == nil || !strings.Contains(err.Error(), "more than 100 bytes") {
		t.Errorf("of indeterminate length: %v", err)
	}
}

func TestWhatIsNoPacketIsRefused(t *testing.T) {
	if _, err := Next(source("plain")); err == nil || err == io.EOF {
		t.Errorf("plain text: %v", err)
	}
	if _, err := Next(source("")); err != io.EOF {
		t.Errorf("nothing: %v", err)
	}
}

func TestErrorsOfTheSourcePass(t *testing.T) {
	for _, whole := range []string{"\xd2\xe1ab\xe0c\x02hi", "\x85\x00\x03abc", "\xc1\xff\x00\x00\x00\x01a", "\xa3abc"} {
		for cut := range whole {
			src := bufio.NewReader(io.MultiReader(strings.NewReader(whole[:cut]), iotest.ErrReader(iotest.ErrTimeout)))
			if _, _, err := next(src); err != iotest.ErrTimeout {
				t.Errorf("%x after %d bytes: %v", whole, cut, err)
			}
		}
	}
}

func TestHeadersAreReadBack(t *testing.T) {
	for _, n := range []int{0, 1, 191, 192, 193, 8383, 8384, 8385, 100_000} {
		head := AppendHeader(nil, Encrypted, n)
		tag, body, err := next(bufio.NewReader(bytes.NewReader(append(head, make([]byte, n)...))))
		if err != nil || tag != Encrypted || len(body) != n {
			t.Errorf("%d: tag %d, %d bytes, %v", n, tag, len(body), err)
		}
	}
	if tag, body, err := next(source("\xd2" + string([]byte{Partial(3)}) + "abcdefgh\x00")); err != nil || tag != Encrypted || body != "abcdefgh" {
		t.Errorf("partial: %q, %v", body, err)
	}
}

func FuzzNext(f *testing.F) {
	f.Add([]byte("\xd2\xe1ab\xe0c\xe2defg\x02hi\x84\x03abc"))
	f.Add([]byte("\xc1\xff\xff\xff\xff\xffabc"))
	f.Add([]byte("\xa3abc"))
	f.Fuzz(func(t *testing.T, data []byte) {
		src := bufio.NewReader(bytes.NewReader(data))
		for total := 0; ; {
			b, err := Next(src)
			if err != nil {
				return
			}
			p, err := b.All(1 << 20)
			if total += len(p); total > len(data) {
				t.Fatalf("%d bytes out of %d", total, len(data))
			}
			if err == io.EOF {
				t.Fatal("an end inside a packet")
			}
			if err != nil {
				return
			}
		}
	})
}
